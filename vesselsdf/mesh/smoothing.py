"""A smoother wall that stays on the zero set, keeps its volume and all its faces.

Strategy: low-pass filtering of the vertices (Taubin 1995), which takes out steps and hardly shrinks. What it does
shrink is given back where it was taken: of the way along the normals the part that neighbours have in common is undone,
so thin vessels keep their volume too, and what is then missing in a piece is spread over it. A vertex goes only as far
along its way as the field allows, and goes back where a face would turn over or cross another.
"""

from collections.abc import Callable

import numpy as np
import trimesh
from jaxtyping import Float, Num
from scipy import ndimage, sparse

from vesselsdf.errors import InputError
from vesselsdf.mesh.checks import face_normals
from vesselsdf.mesh.counts import closed_counts
from vesselsdf.mesh.intersections import degenerate_faces, self_intersections

# Taubin's filter: f(k) = (1 - LAMBDA k)(1 - MU k), pass band up to k = 1 / LAMBDA + 1 / MU = 0.1.
LAMBDA = 0.5
MU = 1 / (0.1 - 1 / LAMBDA)
COMMON = 4
"""Averages over neighbours that tell what neighbours have in common."""
REFILLS = 4
"""Times that volume is given back."""
VOLUME = 0.01
"""Largest change of the volume."""
ATTEMPTS = 30
TURN = 0.2
"""Least cosine between the normals of a face before and after."""


def smooth(
    mesh: trimesh.Trimesh,
    sdf: Num[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    tolerance: float | None = None,
    iterations: int = 20,
) -> trimesh.Trimesh:
    """The mesh with its vertices moved to where its wall is smooth: for meshes with the steps of a binary mask.

    mesh: closed, RAS mm, as `surface` makes it of `sdf` (mm, negative inside) and `affine`. tolerance: no vertex goes
    to where the field, linear between voxel centres, is farther than this from zero, mm; a quarter of the smallest
    voxel edge if not given. A vertex that is farther off already, as on the flat end of a vessel that leaves the grid,
    stays.

    Faces, and with them the topology, stay. The volume changes by at most 1%. No face turns over, degenerates or
    crosses another that did not before: vertices that would cause it stay behind. Attributes and colours are kept.

    Raises InputError if the mesh is not closed, lies outside the field, or tolerance or iterations are not positive.

    >>> from vesselsdf.mesh import surface
    >>> mask = np.linalg.norm(np.indices((21, 21, 21)) - 10.0, axis=0) < 7
    >>> rough = surface(np.where(mask, -0.5, 0.5), np.eye(4))
    >>> even = smooth(rough, np.where(mask, -0.5, 0.5), np.eye(4))
    >>> spread = [np.linalg.norm(m.vertices - 10, axis=1).std() for m in (rough, even)]
    >>> bool(spread[1] < 0.6 * spread[0]), round(float(even.volume / rough.volume), 3)
    (True, 1.0)
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    tolerance = 0.25 * float(spacing.min()) if tolerance is None else tolerance
    if not tolerance > 0 or iterations < 1:
        raise InputError(f"Cannot smooth with a tolerance of {tolerance} mm and {iterations} iterations: both above 0.")
    closed_counts(mesh, "smooth it")
    start = np.array(mesh.vertices, dtype=float)
    faces = np.asarray(mesh.faces, dtype=np.int64)
    inverse = np.linalg.inv(affine)
    to_voxels = start @ inverse[:3, :3].T + inverse[:3, 3]
    if ((to_voxels < -1) | (to_voxels > np.array(sdf.shape))).any():
        raise InputError("Cannot smooth: the mesh lies outside the field; give the field and affine it was made from.")

    def off(points: np.ndarray) -> np.ndarray:
        index = points @ inverse[:3, :3].T + inverse[:3, 3]
        outside = ((index < 0) | (index > np.array(sdf.shape) - 1)).any(axis=1)
        value = ndimage.map_coordinates(sdf, index.T, order=1, mode="nearest", output=np.float64)
        return np.where(outside, np.inf, np.abs(value))

    average = neighbour_average(faces, len(start))
    points = start.copy()
    for _ in range(iterations):
        points += LAMBDA * (average @ points - points)
        points += MU * (average @ points - points)
        points = within(start, points, tolerance, off)
    for _ in range(REFILLS):
        points = within(start, refilled(start, points, faces, average), tolerance, off)
    piece = sparse.csgraph.connected_components(average, directed=False)[1]
    for _ in range(REFILLS):
        points = within(start, levelled(start, points, faces, piece), tolerance, off)
    points = held_back(start, points, faces)
    result = mesh.copy()
    result.vertices = points
    return result


def neighbour_average(faces: np.ndarray, n: int) -> sparse.csr_array:
    """Matrix that gives each of n vertices the mean of its neighbours."""
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    links = sparse.csr_array((np.ones(len(start)), (start, end)), shape=(n, n))
    count = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    return sparse.diags_array(1 / count) @ links


def refilled(start: np.ndarray, points: np.ndarray, faces: np.ndarray, average: sparse.csr_array) -> np.ndarray:
    """The points, less what neighbours have in common of the way along the normals."""
    normals = vertex_normals(start, faces) + vertex_normals(points, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    common = np.einsum("vi,vi->v", points - start, normals)
    for _ in range(COMMON):
        common = average @ common
    return points - common[:, None] * normals


def levelled(start: np.ndarray, points: np.ndarray, faces: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """The points, all of a piece moved equally along their normals, to the volume that the piece had at the start."""
    of_face = piece[faces[:, 0]]
    a, b, c = (points[faces[:, k]] for k in range(3))
    gain = np.bincount(of_face, volumes(points, faces) - volumes(start, faces))
    area = np.bincount(of_face, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)
    return points - (gain / area)[piece][:, None] * vertex_normals(points, faces)


def volumes(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed volumes of the tetrahedra between the faces and the first point, mm3."""
    a, b, c = (points[faces[:, k]] - points[0] for k in range(3))
    return np.einsum("fi,fi->f", a, np.cross(b, c)) / 6


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals of vertices, of the faces around them by area."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(column, 3), minlength=len(points)) for column in normal.T], axis=1
    )
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-300)


def within(start: np.ndarray, points: np.ndarray, tolerance: float, off: Callable) -> np.ndarray:
    """The points, as far along the way from the start as the field allows: all, halves, or not at all."""
    points = points.copy()
    moving = np.flatnonzero(off(points) > tolerance)
    for share in (0.75, 0.5, 0.25, 0.0):
        points[moving] = start[moving] + share * (points[moving] - start[moving]) if share else start[moving]
        if not len(moving := moving[off(points[moving]) > tolerance]):
            break
    return points


def held_back(start: np.ndarray, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The points, but nearer to the start where faces would turn over, degenerate or cross, or the volume would change.

    At worst all of them are back at the start, so this ends.
    """
    before = face_normals(trimesh.Trimesh(start, faces, process=False))
    size = np.linalg.norm(before, axis=1)
    volume = volumes(start, faces).sum()
    known = None  # crossings of the mesh as it was, looked for only if there are any
    share = np.ones(len(start))
    for attempt in range(ATTEMPTS):
        if attempt == ATTEMPTS - 1:
            share[:] = 0.0
        moved = start + share[:, None] * (points - start)
        mesh = trimesh.Trimesh(moved, faces, process=False)
        after = face_normals(mesh)
        turned = np.einsum("fi,fi->f", before, after) < TURN * size * np.linalg.norm(after, axis=1)
        bad = faces[turned | degenerate_faces(moved, faces)].ravel()
        if not len(bad) and len(pairs := self_intersections(mesh)):
            if known is None:
                known = self_intersections(trimesh.Trimesh(start, faces, process=False))
            old = {tuple(pair) for pair in known.tolist()}
            bad = faces[[pair for pair in pairs.tolist() if tuple(pair) not in old]].ravel()
        bad = np.unique(bad[share[bad] > 0]).astype(np.int64)
        if len(bad):
            share[bad] = np.where(share[bad] > 0.3, 0.5 * share[bad], 0.0)
        elif abs(volumes(moved, faces).sum() - volume) > VOLUME * volume:
            share *= 0.5
        else:
            break
    return moved
