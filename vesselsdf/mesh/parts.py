"""The wall of a volume in parts that fit together: shared vertices have the same bits, and nothing else is shared.

A part owns the cubes of eight samples whose lower corner lies in its box, and the faces in them. It is marched with a
few samples around it. Parts meet in faces of cubes. Edges of triangles there are those of marching cubes, between
vertices on grid edges, which both parts place in the same way (`placement.crossings`); they are never split by the
refinement. What happens to faces inside a part changes nothing outside: so whatever is done first, parts together are
one closed surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from jaxtyping import Float, Int, Int64, Num

from vesselsdf.errors import RunError
from vesselsdf.marching import CLEARANCE, march
from vesselsdf.mesh.placement import crossings
from vesselsdf.mesh.refinement import refine
from vesselsdf.mesh.wall import PASSES

MARGIN = 4
"""Samples that a part needs around its cubes, but for the end of the volume."""


@dataclass(frozen=True)
class WallPart:
    """Vertices (v, 3) in RAS mm, and faces, outwards.

    seam: (k,) the vertices that other parts have, too. keys: (k, 4) by which these know them: voxel at the lower end of
    their grid edge, and its axis.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    seam: Int64[np.ndarray, " k"]
    keys: Int64[np.ndarray, "k 4"]


def wall_part(
    field: Num[np.ndarray, "x y z"],
    first: Int[np.ndarray, "3"],
    low: Int[np.ndarray, "3"],
    high: Int[np.ndarray, "3"],
    affine: Float[np.ndarray, "4 4"],
    refined: bool = True,
) -> WallPart:
    """The wall `field <= 0` in the cubes whose lower corner is in the box from `low` to `high`, `high` excluded.

    field: samples of the volume, mm, from the voxel `first` on, as far as `MARGIN` beyond the box, or to the end of the
    volume. The cubes that close a vessel at the end of the volume have corners outside: -1, or the last sample. affine:
    of the volume.
    """
    marched = march(field)
    own = ((marched.cells + first >= low) & (marched.cells + first < high)).all(axis=1)
    used = np.unique(marched.faces[own])
    if len(used) == 0:
        none = np.zeros(0, np.int64)
        return WallPart(np.zeros((0, 3)), none.reshape(0, 3), none, none.reshape(0, 4))
    along, kappa = crossings(field, marched)
    number = np.zeros(len(along), np.int64)
    number[used] = np.arange(len(used))
    faces, cells = number[marched.faces[own]], marched.cells[own]
    lower, axis = marched.lower[used].astype(np.int64) + first, marched.axis[used]
    shift = np.zeros((len(used), 3))
    shift[np.arange(len(used)), axis] = np.clip(along[used], CLEARANCE, 1 - CLEARANCE)
    rim = _rim(lower, axis, low, high)
    vertices, kappa, settled = lower - first + shift, kappa[used], 0
    for _ in range(PASSES if refined else 0):
        before = len(vertices)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        vertices, kappa, faces, cells = refine(field, vertices, kappa, faces, cells, spacing, settled, rim)
        settled = before
    # Not from where they lie in the part: that sum rounds otherwise.
    places = np.concatenate([lower + shift, vertices[len(used) :] + first])
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    seam = np.flatnonzero(rim)
    keys = np.column_stack([lower[seam], axis[seam]])
    return WallPart(_in_mm(places, affine), np.ascontiguousarray(faces, np.int64), seam, keys)


def joined(parts: Sequence[WallPart]) -> trimesh.Trimesh:
    """One closed mesh of all parts of a volume. Raises `RunError` if they do not fit together."""
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    number = np.arange(offsets[-1])
    vertices = np.concatenate([part.vertices for part in parts])
    seam = np.concatenate([part.seam + offset for part, offset in zip(parts, offsets, strict=False)])
    _, at, which = np.unique(
        np.concatenate([part.keys for part in parts]), axis=0, return_index=True, return_inverse=True
    )
    number[seam] = seam[at][which.reshape(-1)]
    if not np.array_equal(vertices[number], vertices):
        raise RunError("Parts of the mesh do not fit together: they were not made of the same field; begin anew.")
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=False)])
    kept, faces = np.unique(number[faces], return_inverse=True)
    return trimesh.Trimesh(vertices[kept], faces.reshape(-1, 3), process=False)


def _rim(
    lower: Int64[np.ndarray, "v 3"], axis: Int[np.ndarray, " v"], low: Int[np.ndarray, "3"], high: Int[np.ndarray, "3"]
) -> Int[np.ndarray, " v"]:
    """On which of the six sides of the box each vertex lies, a bit for each."""
    sides = np.zeros(len(lower), np.int8)
    for k in range(3):
        across = axis != k
        for bit, plane in enumerate((low[k], high[k])):
            sides |= (across & (lower[:, k] == plane)).astype(np.int8) << (2 * k + bit)
    return sides


def _in_mm(places: Float[np.ndarray, "v 3"], affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "v 3"]:
    """Places in voxel indices in RAS mm, summed in an order that is always the same."""
    return sum(places[:, k, None] * affine[:3, k] for k in range(3)) + affine[:3, 3]
