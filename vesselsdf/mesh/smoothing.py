"""Taking the staircase off the wall: vertices move, within a tolerance of the zero set, and nothing else changes.

Strategy. The smooth wall is the one that minimises the integral of `|x - x0|^2 + w |voxel^2 Laplace(x)|^2` over it
(least-squares meshes, Sorkine and Cohen-Or 2004; one sparse linear system, as in Desbrun et al. 1999), with areas and
lengths of edges taken into account, so that it acts alike on coarse and on refined parts. By itself that makes thin
vessels thinner: the round of a vessel of few edges is "rough" too, and Taubin's steps outwards (1995) do not make up
for it. But what a stretch of vessel loses is known, the volume swept by its faces,
so it can be given back: swept volume and area are spread over the surface by heat flow, all around the vessel and a
little along it, and each vertex moves out by their ratio. That keeps the volume of every stretch, whatever its radius.

Then each vertex goes back towards where it came from until the field there is within the tolerance. Where faces have
turned over, become slivers or cross, the wall goes back half-way, then all the way. As the mesh had none of these,
that ends.
"""

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int, Num
from scipy import sparse

from vesselsdf.errors import InputError
from vesselsdf.mesh.counts import closed_counts
from vesselsdf.mesh.intersections import degenerate_faces, self_intersections
from vesselsdf.mesh.zero_set import ZeroSet, zero_set

STRENGTH = 10.0
"""The weight `w`. Measured on masks of trees: normals 25 to 65% nearer to the true ones. At 50 thin vessels buckle."""
SHORTEST = 0.15
"""Edges are not taken for shorter than this, in voxels: very short ones would decide the system's condition."""
SPREAD = 60
"""Steps of heat, which reach about the square root of as many edges."""
RETURNS = 3
"""How often the swept volume is given back: it is measured anew each time."""
LEAST_TURN = 0.1
"""Cosine of a face to what it was: below it counts as turned over."""
LEAST_SHAPE = 0.1
"""Shape of a face, area over squared sides, in shares of what it was: below it counts as a sliver."""
RISE = 0.2
"""The most by which shares of the way differ between neighbours."""
LEAST_SHARE = 0.2
MOST_VOLUME = 0.01
BISECTIONS = 10


def smooth(
    mesh: trimesh.Trimesh,
    sdf: Num[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    tolerance: float | None = None,
    strength: float = STRENGTH,
) -> trimesh.Trimesh:
    """Copy of a closed mesh with a smoother wall of the same volume; see the module.

    Args:
        mesh: closed mesh of the wall in RAS mm, as `surface` makes it.
        sdf, affine: the field that it was made from.
        tolerance: the most in mm that a vertex may lie off the zero set, unless it did before; None: a quarter of a
            voxel, about as far as the wall can lie from where a mask puts it.
        strength: the more, the smoother, from 0 to about 30: features of less than about 5 strength^(1/4) voxels go.

    Faces, their order and attributes stay; the volume stays within 1%, of thin vessels by themselves too as far as the
    tolerance allows. No face turns over or becomes a sliver, and no faces cross that did not before.

    Raises InputError for a mesh that is not closed, for a field of another mesh, and for numbers out of range.

    >>> from vesselsdf.mesh.wall import surface
    >>> sdf = np.linalg.norm(np.indices((19, 19, 19)) - 9.0, axis=0) - 6
    >>> rough = surface(np.where(sdf <= 0, -0.5, 0.5), np.eye(4))
    >>> smoother = smooth(rough, sdf, np.eye(4), tolerance=0.6)
    >>> [round(float(np.degrees(ball.face_adjacency_angles).mean())) for ball in (rough, smoother)]
    [14, 4]
    """
    if not 0 <= strength < np.inf:
        raise InputError(f"The strength of smoothing is {strength:g}; give a number from 0 to about 30.")
    closed_counts(mesh, "smooth it")
    start, faces = np.array(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    grid = zero_set(sdf, affine, start)
    allowed = np.maximum(grid.tolerance(tolerance), np.abs(grid.distance(start)))
    mean = neighbour_mean(faces, len(start))
    target = smoothest(mean, start, faces, strength, grid.voxel)
    for _ in range(RETURNS):
        target = within(grid, allowed, start, give_back(mean, start, target, faces))
    known = crossings(start, faces)
    share = np.ones(len(start))
    while True:
        points = within(grid, allowed, start, start + share[:, None] * (target - start))
        bad = broken(start, points, faces)
        bad[[face for pair in crossings(points, faces) - known for face in pair]] = True
        if bad.any():
            share = held_back(share, faces, bad)
        elif abs(swept_volumes(start, points, faces).sum()) > MOST_VOLUME * mesh.volume:
            share = share / 2
        else:
            break
    smoother = mesh.copy()
    smoother.vertices = points
    return smoother


def neighbour_mean(faces: Int[np.ndarray, "f 3"], n: int) -> sparse.csr_array:
    """The matrix that gives each of n vertices the mean of its neighbours; unused vertices stay."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    # On a closed oriented mesh every edge runs once in each direction.
    links = sparse.csr_array((np.ones(len(start)), (start, end)), shape=(n, n))
    degree = links.sum(axis=1)
    scaled = sparse.diags_array(1 / np.maximum(degree, 1)) @ links + sparse.diags_array((degree == 0).astype(float))
    return sparse.csr_array(scaled)


def smoothest(
    mean: sparse.csr_array,
    start: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    strength: float,
    voxel: float,
) -> Float[np.ndarray, "v 3"]:
    """The smooth wall by itself (see the module), by conjugate gradients.

    At a vertex with edges of mean length l, `x - mean x` stands for `l^2 Laplace(x)` up to a factor.
    """
    n = len(start)
    lengths = np.linalg.norm(start[faces] - start[np.roll(faces, -1, axis=1)], axis=2)
    around = np.bincount(faces.ravel(), lengths.ravel(), n) / np.maximum(np.bincount(faces.ravel(), minlength=n), 1)
    a, b, c = (start[faces[:, k]] for k in range(3))
    area = at_vertices(np.linalg.norm(np.cross(b - a, c - a), axis=1), faces, n)
    # Unused vertices, and those of faces without area, only have to stay.
    area = np.maximum(area / area.mean(), 1e-6)
    rough = area * strength * (voxel / np.maximum(around, SHORTEST * voxel)) ** 4
    laplace = sparse.csr_array(sparse.eye_array(n) - mean)
    matrix = sparse.csr_array(sparse.diags_array(area) + laplace.T @ sparse.diags_array(rough) @ laplace)
    jacobi = sparse.diags_array(1 / matrix.diagonal())
    middle = start.mean(axis=0)
    solved = [
        sparse.linalg.cg(matrix, area * column, x0=column, rtol=1e-4, M=jacobi)[0] for column in (start - middle).T
    ]
    return np.stack(solved, axis=1) + middle


def swept_volumes(
    start: Float[np.ndarray, "v 3"], end: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, " f"]:
    """Volume that each face sweeps outwards when its vertices move; they add up to the change of the mesh's volume.

    Half-way between straight prisms on both faces: exact in sum over a closed mesh up to third order in the motion.
    """
    (a, b, c), (p, q, r) = ([points[faces[:, k]] for k in range(3)] for points in (start, end))
    normals = (np.cross(b - a, c - a) + np.cross(q - p, r - p)) / 4
    return np.einsum("fi,fi->f", (p + q + r - a - b - c) / 3, normals)


def at_vertices(values: Float[np.ndarray, " f"], faces: Int[np.ndarray, "f 3"], n: int) -> Float[np.ndarray, " n"]:
    """Values of faces, a third of each to each of its vertices."""
    return np.bincount(faces.ravel(), np.repeat(values / 3, 3), n)


def give_back(
    mean: sparse.csr_array, start: np.ndarray, points: np.ndarray, faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "v 3"]:
    """The points moved along their normals so that each stretch of vessel keeps the volume that it had at `start`."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    outward = np.stack([at_vertices(column, faces, len(points)) for column in normal.T], axis=1)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-300)
    swept = at_vertices(swept_volumes(start, points, faces), faces, len(points))
    area = at_vertices(np.linalg.norm(normal, axis=1) / 2, faces, len(points))
    for _ in range(SPREAD):
        # The transposed matrix hands on what each vertex has, and loses nothing.
        swept, area = (swept + mean.T @ swept) / 2, (area + mean.T @ area) / 2
    return points - (swept / np.maximum(area, 1e-300))[:, None] * outward


def within(
    grid: ZeroSet, allowed: Float[np.ndarray, " v"], start: np.ndarray, points: np.ndarray
) -> Float[np.ndarray, "v 3"]:
    """The points, or where the field there is more than allowed, the last places before on the way from `start`."""
    far = np.flatnonzero(np.abs(grid.distance(points)) > allowed)
    low, high = np.zeros(len(far)), np.ones(len(far))
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        place = start[far] + share[:, None] * (points[far] - start[far])
        good = np.abs(grid.distance(place)) <= allowed[far]
        low, high = np.where(good, share, low), np.where(good, high, share)
    result = points.copy()
    result[far] = start[far] + low[:, None] * (points[far] - start[far])
    return result


def held_back(
    share: Float[np.ndarray, " v"], faces: Int[np.ndarray, "f 3"], bad: Bool[np.ndarray, " f"]
) -> Float[np.ndarray, " v"]:
    """Shares of the way to go: half as much at bad faces, or nothing if that is little, and rising gently from there.

    A vertex that stays beside one that goes all the way would break the faces between them.
    """
    share = share.copy()
    own = np.unique(faces[bad])
    share[own] = np.where(share[own] > LEAST_SHARE, share[own] / 2, 0.0)
    for _ in range(int(1 / RISE)):
        lowest = share[faces].min(axis=1) + RISE
        for k in range(3):
            np.minimum.at(share, faces[:, k], lowest)
    return share


def broken(start: np.ndarray, points: np.ndarray, faces: Int[np.ndarray, "f 3"]) -> Bool[np.ndarray, " f"]:
    """Faces that have turned over or become slivers on the way from `start` to `points`."""
    normals, shapes = [], []
    for corners in (start[faces], points[faces]):
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        sides = ((corners - np.roll(corners, -1, axis=1)) ** 2).sum(axis=(1, 2))
        size = np.linalg.norm(normal, axis=1)
        normals.append(normal / np.maximum(size, 1e-300)[:, None])
        shapes.append(size / np.maximum(sides, 1e-300))
    proper = ~degenerate_faces(start, faces)
    turned = (normals[0] * normals[1]).sum(axis=1) < LEAST_TURN
    return proper & (turned | (shapes[1] < LEAST_SHAPE * shapes[0]) | degenerate_faces(points, faces))


def crossings(points: np.ndarray, faces: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of faces that cross."""
    found = self_intersections(trimesh.Trimesh(points, faces, process=False))
    return {(int(i), int(j)) for i, j in found}
