"""What an edit of a mesh must not change, counted: closed, how many pieces, which Euler number, no crossing faces."""

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy import sparse

from vesselsdf.errors import InputError
from vesselsdf.mesh.checks import count_fans
from vesselsdf.mesh.intersections import self_intersections


@dataclass(frozen=True)
class Counts:
    """closed: every edge has two faces that run along it in opposite directions, every vertex one fan of faces."""

    closed: bool
    euler_number: int
    components: int


def counts(faces: np.ndarray) -> Counts:
    """Counts of a mesh with these faces, (f, 3)."""
    faces = np.asarray(faces, dtype=np.int64)
    if not len(faces):
        return Counts(False, 0, 0)
    used, faces = np.unique(faces, return_inverse=True)
    faces, n = faces.reshape(-1, 3), len(used)
    start, end = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    directed, reverse = np.sort(start * n + end), np.sort(end * n + start)
    closed = bool(np.array_equal(directed, reverse) and (np.diff(directed) > 0).all())
    links = sparse.coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(n, n))
    components = sparse.csgraph.connected_components(links, directed=False)[0]
    edges = len(directed) // 2 if closed else len(np.unique(np.minimum(start * n + end, end * n + start)))
    return Counts(closed and count_fans(faces) == n, n - edges + len(faces), int(components))


def closed_counts(mesh: trimesh.Trimesh, what: str) -> Counts:
    """Counts of a closed, outward mesh; InputError naming `what` was to be done if it is none."""
    found = counts(mesh.faces)
    if not found.closed:
        raise InputError(
            f"Cannot {what}: the mesh of {len(mesh.faces)} faces is not closed and 2-manifold (see `check`); "
            "make it with `surface`, and merge equal vertices of a mesh read from STL."
        )
    if mesh.volume <= 0:
        raise InputError(f"Cannot {what}: the faces of the mesh point inwards; turn them with `mesh.invert()`.")
    return found


def crossing(mesh: trimesh.Trimesh, suspects: np.ndarray) -> np.ndarray:
    """Which of the faces in `suspects` (indices) meet another face of the mesh where they should not, (n,) indices.

    Only faces whose box meets the box of a suspect are looked at.
    """
    if not len(suspects):
        return suspects
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)]
    low, high = corners.min(axis=1), corners.max(axis=1)
    size = float((high - low)[suspects].max())
    # Cells as large as the largest suspect: whatever meets one touches its cell or a cell beside it.
    cell_low, cell_high = np.floor(low / size).astype(np.int64), np.floor(high / size).astype(np.int64)
    origin = cell_low.min(axis=0)
    shape = cell_high.max(axis=0) - origin + 3

    def key(cell: np.ndarray) -> np.ndarray:
        return np.ravel_multi_index(tuple((cell - origin + 1).T), tuple(shape))

    offsets = np.stack(np.meshgrid(*3 * [[-1, 0, 1]], indexing="ij"), axis=-1).reshape(-1, 3)
    wanted = np.unique(key((cell_low[suspects][:, None] + offsets).reshape(-1, 3)))
    near = np.isin(key(cell_low), wanted) | np.isin(key(cell_high), wanted)
    near |= (high - low).max(axis=1) > size
    near[suspects] = True
    chosen = np.flatnonzero(near)
    pairs = chosen[self_intersections(trimesh.Trimesh(mesh.vertices, mesh.faces[chosen], process=False))]
    return np.intersect1d(pairs.ravel(), suspects)
