"""Faces of a mesh that cross, touch or fold onto each other where they should not.

Strategy: faces are sorted along a space-filling curve (Morton 1966), and a complete binary tree of bounding boxes over
them gives the pairs of faces whose boxes meet. Those are decided by signs of determinants, see `triangle_kernels`.
"""

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int

from vesselsdf.mesh.triangle_kernels import LEAF, box_pairs, meeting

PAIRS_AT_ONCE = 1 << 20

# Two zero bits behind each of 21 bits, in five steps: shift, then keep these bits.
SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def self_intersections(mesh: trimesh.Trimesh) -> Int[np.ndarray, "n 2"]:
    """Pairs of faces that meet anywhere but in the vertices and the edge that they share, as face indices i < j.

    Two faces without a common vertex must not share a point; with one or two common vertices they must not share
    anything else, so faces that fold onto each other count; and a face that occurs twice counts. What double precision
    cannot tell from contact counts as contact. Vertices are the same if their indices are: merge them first in a mesh
    that was read from STL. Degenerate faces (see `check`) are left out, since `check` counts them by themselves.

    >>> points = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0.5, 0.5, -1], [0.5, 0.5, 1], [3, 3, 0.0]])
    >>> self_intersections(trimesh.Trimesh(points, [[0, 1, 2], [3, 4, 5]], process=False)).tolist()
    [[0, 1]]
    """
    points = np.ascontiguousarray(mesh.vertices, dtype=np.float64)
    faces = np.ascontiguousarray(mesh.faces, dtype=np.int64)
    proper = np.flatnonzero(~degenerate_faces(points, faces))
    if len(proper) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    proper = proper[morton_order(points[faces[proper]].mean(axis=1))]
    faces = faces[proper]
    corners = points[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    tree_low, tree_high = box_tree(low, np.minimum, np.inf), box_tree(high, np.maximum, -np.inf)
    meeting_pairs, start = [np.zeros((0, 2), dtype=np.int64)], 0
    room = np.empty((min(max(PAIRS_AT_ONCE, len(faces)), len(faces) * (len(faces) - 1) // 2), 2), dtype=np.int64)
    while start < len(faces):
        count, start = box_pairs(low, high, tree_low, tree_high, start, len(faces), room)
        meeting_pairs.append(room[:count][faces_meet(points, faces, room[:count])])
    pairs = np.sort(proper[np.concatenate(meeting_pairs)], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def faces_meet(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], pairs: Int[np.ndarray, "n 2"]
) -> Bool[np.ndarray, " n"]:
    """Whether the two faces of each pair meet, in the sense of `self_intersections`; none of them is degenerate."""
    found = np.zeros(len(pairs), dtype=np.bool_)
    meeting(points, faces.astype(np.int64, copy=False), pairs, found)
    return found


def degenerate_faces(points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> np.ndarray:
    """Whether each face has a repeated vertex, or a height below 1e-6 of its longest side: (f,) bool."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    longest = np.zeros(len(faces))
    for side in (b - a, c - b, a - c):
        np.maximum(longest, np.einsum("fi,fi->f", side, side), out=longest)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) <= 1e-6 * longest


def morton_order(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Order of points along a Morton curve with 2^21 steps per axis."""
    low = points.min(axis=0)
    step = (points.max(axis=0) - low).max() / (2**21 - 1)
    index = ((points - low) / (step or 1.0)).astype(np.uint64)
    for shift, mask in SPREAD:
        index = (index | index << np.uint64(shift)) & np.uint64(mask)
    return np.argsort(index[:, 0] << np.uint64(2) | index[:, 1] << np.uint64(1) | index[:, 2])


def box_tree(ends: Float[np.ndarray, "f 3"], reduce: np.ufunc, empty: float) -> Float[np.ndarray, "n 3"]:
    """One end of the boxes of a complete binary tree over the faces: (2 n, 3), root 1, children 2k and 2k + 1."""
    leaves = 1 << int(np.ceil(np.log2(max(len(ends) / LEAF, 1))))
    tree = np.full((2 * leaves, 3), empty)
    padded = np.full((leaves * LEAF, 3), empty)
    padded[: len(ends)] = ends
    tree[leaves:] = reduce.reduce(padded.reshape(leaves, LEAF, 3), axis=1)
    while leaves > 1:
        tree[leaves // 2 : leaves] = reduce.reduce(tree[leaves : 2 * leaves].reshape(-1, 2, 3), axis=1)
        leaves //= 2
    return tree
