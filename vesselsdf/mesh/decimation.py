"""Fewer faces for the same wall: edges are drawn together, and topology, distance and volume are kept.

Strategy. Edge collapse with quadric error metrics (Garland and Heckbert 1997). The new vertex goes where the error is
least among the places that keep the volume (Lindstrom and Turk 1998, section 3.2), so no volume is lost, however thin a
vessel and however few its faces. An edge is drawn together only if the link condition holds (Dey et al. 1999), no face
turns over or becomes a sliver, and vertex, sides and faces stay within the tolerance of the zero set. The edges are
taken in rounds: each round sorts them by error and draws together the cheapest ones that do not touch each other.

The topology is verified at the end all the same, and faces that cross (two thin walls may come close) are looked for:
their vertices are held where they were, and the work is done again.
"""

import logging

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int, Num

from vesselsdf.errors import InputError, RunError
from vesselsdf.mesh.collapse_kernels import collapse
from vesselsdf.mesh.counts import closed_counts, counts
from vesselsdf.mesh.intersections import self_intersections
from vesselsdf.mesh.zero_set import ZeroSet, zero_set

logger = logging.getLogger(__name__)

SHARE = 0.35
"""Of the edges, the cheapest in a round: the others wait until cheaper ones beside them are gone."""
STOP = 1e-3
"""Share of the edges: a round over all of them that draws together fewer is the last."""
RETRIES = 6


def decimate(
    mesh: trimesh.Trimesh,
    sdf: Num[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    faces: int | None = None,
    error: float | None = None,
) -> trimesh.Trimesh:
    """The same wall with fewer faces: as few as `error` allows, or the number asked for.

    Args:
        mesh: closed mesh of the wall in RAS mm.
        sdf, affine: the field that it was made from.
        faces: number of faces to reach (or one less); None: as few as possible.
        error: the most in mm that any new vertex, and the middle of any new side or face, may lie off the zero set;
            None: a quarter of a voxel.

    Returns:
        A closed mesh with the same Euler number, components and volume, without new self-intersections. Colours and
        attributes are not carried over.

    Raises InputError for a mesh that is not closed, and for a number of faces that cannot be reached; it says what can.

    >>> sdf = np.linalg.norm(np.indices((21, 21, 21)) - 10.0, axis=0) - 8
    >>> ball = trimesh.creation.icosphere(4, 8.0).apply_translation([10.0, 10, 10])
    >>> smaller = decimate(ball, sdf, np.eye(4), faces=500)
    >>> len(ball.faces), len(smaller.faces), smaller.euler_number, bool(abs(smaller.volume / ball.volume - 1) < 1e-4)
    (5120, 500, 2, True)
    """
    if faces is not None and faces < 4:
        raise InputError(f"A closed mesh has at least 4 faces, not {faces}: ask for more.")
    before, known = closed_counts(mesh, "decimate it"), len(self_intersections(mesh))
    grid = zero_set(sdf, affine, np.asarray(mesh.vertices))
    tolerance = grid.tolerance(error)
    held = np.zeros(len(mesh.vertices), dtype=bool)
    for _ in range(RETRIES):
        result, origin = collapsed(mesh, grid, tolerance, faces or 0, held)
        crossing = self_intersections(result)
        if len(crossing) <= known:
            break
        # Hold what these faces are made of, and what was drawn into it.
        bad = np.zeros(len(result.vertices), dtype=bool)
        bad[result.faces[crossing.ravel()]] = True
        held |= bad[origin]
    after = counts(result.faces)
    if after != before or len(crossing) > known:
        raise RunError(
            f"Decimation would turn {before} into {after}, with {len(crossing) - known} more crossing faces: ask for "
            "more faces or a smaller error."
        )
    if faces is not None and len(result.faces) > faces:
        raise InputError(
            f"{faces} faces cannot be reached within {tolerance:.3g} mm of the zero set and with the same topology; "
            f"{len(result.faces)} can: ask for these, or allow a larger error."
        )
    return result


def collapsed(
    mesh: trimesh.Trimesh, grid: ZeroSet, tolerance: float, wanted: int, held: Bool[np.ndarray, " v"]
) -> tuple[trimesh.Trimesh, Int[np.ndarray, " v"]]:
    """The decimated mesh, and for each vertex of the old one the vertex of the new one that it has become."""
    # Quadrics are differences of large numbers: work about the middle, in voxels.
    points = np.array(mesh.vertices, dtype=np.float64)
    centre = points.mean(axis=0)
    points = np.ascontiguousarray(points - centre)
    to_index = grid.to_index.copy()
    to_index[:, 3] += to_index[:, :3] @ centre
    where = (grid.field, to_index, grid.spacing, grid.walls)
    faces = np.array(mesh.faces, dtype=np.int64)
    quadrics = vertex_quadrics(points, faces)
    parent = np.arange(len(points))
    share = SHARE
    while len(faces) > wanted:
        first, star = stars(faces, len(points))
        edges, places, cost = candidates(points, faces, quadrics, grid.voxel)
        order = np.argsort(cost)[: int(np.ceil(share * len(cost)))]
        before = faces.copy()
        done = collapse(
            points, faces, quadrics, first, star, np.diff(first), edges[order], places[order],
            held.astype(np.uint8), where, tolerance, -(-(len(faces) - wanted) // 2),
        )  # fmt: skip
        changed = (faces != before) & (faces >= 0)
        parent[before[changed]] = faces[changed]
        faces = faces[faces[:, 0] >= 0]
        if done < STOP * len(edges):
            if share == 1:
                break
            share = 1.0
        elif done < 0.03 * len(edges):
            share = min(2 * share, 1.0)
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    used, faces = np.unique(faces, return_inverse=True)
    number = np.full(len(points), -1)
    number[used] = np.arange(len(used))
    return trimesh.Trimesh(points[used] + centre, faces.reshape(-1, 3), process=False), number[parent]


def stars(faces: Int[np.ndarray, "f 3"], vertices: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """The faces around each vertex, all in a row, and where those of each begin."""
    count = np.bincount(faces.ravel(), minlength=vertices)
    return np.concatenate([[0], np.cumsum(count)]), np.argsort(faces.ravel(), kind="stable") // 3


def vertex_quadrics(points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 10"]:
    """Sum over the faces around each vertex of area times squared distance to the face's plane, as polynomials.

    Coefficients: xx, xy, xz, yy, yz, zz of the quadratic part, then the linear and the constant part.
    """
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    doubled = np.linalg.norm(normal, axis=1)
    unit = normal / np.maximum(doubled, 1e-300)[:, None]
    offset = -(unit * a).sum(axis=1)
    x, y, z = unit.T
    per_face = doubled / 2 * np.stack(
        [x * x, x * y, x * z, y * y, y * z, z * z, offset * x, offset * y, offset * z, offset**2]
    )  # fmt: skip
    return sums_at_vertices(per_face, faces, len(points))


def sums_at_vertices(values: Float[np.ndarray, "k f"], faces: Int[np.ndarray, "f 3"], n: int) -> np.ndarray:
    """Sum of the values of the faces around each vertex: (n, k)."""
    return np.stack([sum(np.bincount(faces[:, k], row, minlength=n) for k in range(3)) for row in values], axis=1)


def candidates(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], quadrics: Float[np.ndarray, "v 10"], voxel: float
) -> tuple[Int[np.ndarray, "e 2"], Float[np.ndarray, "e 3"], Float[np.ndarray, " e"]]:
    """All edges, the place where each would be drawn together to, and what that costs."""
    n = len(points)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    (ahead,), (back,) = np.nonzero(start < end), np.nonzero(start > end)
    # On a closed oriented mesh every edge runs once in each direction.
    ahead = ahead[np.argsort(start[ahead] * n + end[ahead])]
    back = back[np.argsort(end[back] * n + start[back])]
    edges = np.stack([start[ahead], end[ahead]], axis=1)
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    six_volumes = np.concatenate([normal, (normal * a).sum(axis=1)[:, None]], axis=1)
    around = sums_at_vertices(six_volumes.T, faces, n)
    swept = around[edges[:, 0]] + around[edges[:, 1]] - six_volumes[ahead // 3] - six_volumes[back // 3]
    q = quadrics[edges[:, 0]] + quadrics[edges[:, 1]]
    middle = (points[edges[:, 0]] + points[edges[:, 1]]) / 2
    # Where the error does not say (along a cylinder, on a plane), the middle.
    weight = 1e-3 * (q[:, 0] + q[:, 3] + q[:, 5]) + 1e-12 * voxel**2
    inverse = symmetric_inverse(q, weight)
    place = np.einsum("eij,ej->ei", inverse, weight[:, None] * middle - q[:, 6:9])
    towards = np.einsum("eij,ej->ei", inverse, swept[:, :3])
    rise = (towards * swept[:, :3]).sum(axis=1)
    missing = swept[:, 3] - (swept[:, :3] * place).sum(axis=1)
    place += towards * (missing / np.maximum(rise, 1e-300))[:, None]
    x, y, z = place.T
    cost = (
        q[:, 0] * x * x + q[:, 3] * y * y + q[:, 5] * z * z + 2 * (q[:, 1] * x * y + q[:, 2] * x * z + q[:, 4] * y * z)
        + 2 * (q[:, 6] * x + q[:, 7] * y + q[:, 8] * z) + q[:, 9]
    )  # fmt: skip
    # Among edges of no error, short ones first: it keeps faces even.
    span = ((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(axis=1)
    return edges, place, np.maximum(cost, 0) + 1e-4 * span**2


def symmetric_inverse(q: Float[np.ndarray, "e 10"], weight: Float[np.ndarray, " e"]) -> Float[np.ndarray, "e 3 3"]:
    """Inverse of the quadratic part of each quadric plus `weight` times the identity."""
    a, b, c, d, e, f = q[:, 0] + weight, q[:, 1], q[:, 2], q[:, 3] + weight, q[:, 4], q[:, 5] + weight
    rows = [[d * f - e * e, c * e - b * f, b * e - c * d], [a * f - c * c, b * c - a * e], [a * d - b * b]]
    determinant = a * rows[0][0] + b * rows[0][1] + c * rows[0][2]
    inverse = np.empty((len(q), 3, 3))
    for i, row in enumerate(rows):
        for j, cofactor in enumerate(row, start=i):
            inverse[:, i, j] = inverse[:, j, i] = cofactor / determinant
    return inverse
