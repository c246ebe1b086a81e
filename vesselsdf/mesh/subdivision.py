"""Cutting triangles along split edges into two, three or four, and telling which triangles are certainly apart."""

import numpy as np
from jaxtyping import Bool, Float, Int

# Corners 0, 1, 2 of a face; 3, 4, 5: middles of its sides 01, 12, 20. Number of a way to cut a face: bit k is set where
# side k is split; 8 more for the other diagonal of the quadrangle that two split sides leave.
WAYS = {
    0: [(0, 1, 2)],
    1: [(0, 3, 2), (3, 1, 2)],
    3: [(3, 1, 4), (0, 3, 4), (0, 4, 2)],
    11: [(3, 1, 4), (0, 3, 2), (3, 4, 2)],
    7: [(0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)],
}
ROUNDING = 1e-13
"""Bound on the rounding error of a determinant of three vectors no longer than the diagonal of a voxel, in voxels."""
LEAST_TURN = 1e-6
"""Cosine with a direction from which on a face is turned towards it, whatever the rounding."""
FOLDED = -0.8
"""Two faces with a common edge are certainly apart if the cosine between their normals is more than this."""


def turned(way: int, cut: list[tuple[int, int, int]]) -> tuple[int, list[tuple[int, int, int]]]:
    """The same cut with every corner and side moved on by one."""
    sides = way & 7
    return (way & 8) | (sides << 1 & 7) | sides >> 2, [tuple((k + 1) % 3 + k // 3 * 3 for k in t) for t in cut]  # type: ignore[misc]


def ways_to_cut() -> tuple[np.ndarray, np.ndarray]:
    """Number of triangles of each of the 16 ways, and the triangles (16, 4, 3)."""
    count, triangles = np.zeros(16, dtype=np.int64), np.zeros((16, 4, 3), dtype=np.int64)
    for way, cut in WAYS.items():
        for _ in range(3):
            count[way] = len(cut)
            triangles[way, : len(cut)] = cut
            way, cut = turned(way, cut)
    return count, triangles


COUNT, TRIANGLES = ways_to_cut()


def subdivide(
    points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], middles: Int[np.ndarray, "f 3"]
) -> tuple[Int[np.ndarray, "g 3"], Int[np.ndarray, " g"]]:
    """Faces after their sides are split, in the order of their parents, and the parent of each.

    middles: for sides 01, 12, 20 of each face the vertex that splits it, or -1. Of the two diagonals that two split
    sides leave the shorter one is taken.

    >>> points = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 0, 0.0]])
    >>> subdivide(points, np.array([[0, 1, 2]]), np.array([[3, -1, -1]]))[0].tolist()
    [[0, 3, 2], [3, 1, 2]]
    """
    split = middles >= 0
    (cut,) = np.nonzero(split[:, 0] | split[:, 1] | split[:, 2])
    six = np.concatenate([faces[cut], middles[cut]], axis=1)
    way = split[cut] @ np.array([1, 2, 4])
    (two,) = np.nonzero((way == 3) | (way == 5) | (way == 6))
    # The side that stays, k, runs from corner k to k + 1; the diagonals join its ends to the middles across.
    stays = np.argmin(split[cut[two]], axis=1)
    start, end = six[two, stays], six[two, (stays + 1) % 3]
    after, before = six[two, 3 + (stays + 1) % 3], six[two, 3 + (stays + 2) % 3]
    one, other = points[end] - points[before], points[start] - points[after]
    way[two] += np.where(np.einsum("ij,ij->i", one, one) > np.einsum("ij,ij->i", other, other), 8, 0)
    count = np.ones(len(faces), dtype=np.int64)
    count[cut] = COUNT[way]
    parent = np.repeat(np.arange(len(faces)), count)
    first = np.cumsum(count) - count
    new = faces[parent]
    for k in range(4):
        (some,) = np.nonzero(COUNT[way] > k)
        corners = TRIANGLES[way[some], k] + 6 * some[:, None]
        new[first[cut[some]] + k] = six.ravel()[corners]
    return new, parent


def plain_discs(
    corners: Float[np.ndarray, "3 3 f"], group: Int[np.ndarray, " f"], rim: Bool[np.ndarray, "3 f"]
) -> Bool[np.ndarray, " g"]:
    """Whether the faces of each group are certainly apart because all of them can be seen at once: one disc per group.

    corners: coordinates of faces (corner, axis, face). group: number of each face's group, from 0 on. rim: whether
    sides 01, 12, 20 of each face are at the rim of its group.

    Let a surface, of which every component has a rim, be turned towards one direction everywhere, and let its rim, seen
    from there, run once around a point and always to its left. Then there is one rim, it is a simple closed curve, and
    the surface is a disc that is seen without overlaps: above each point lie as many sheets as the rim winds around it.
    """
    count = group.max(initial=-1) + 1
    normals = cross(corners[1] - corners[0], corners[2] - corners[0])
    towards = np.stack([np.bincount(group, part, count) for part in normals])
    size = np.sqrt(dot(normals, normals))
    weight = np.maximum(np.bincount(group, size, count), np.finfo(float).tiny)
    centre = np.stack([np.bincount(group, size * part, count) for part in corners.sum(axis=0) / 3]) / weight
    towards = towards / np.maximum(np.sqrt(dot(towards, towards)), np.finfo(float).tiny)
    # Some direction across, for a ray from the centre that the rim crosses upwards once in each turn.
    across = cross(towards, np.eye(3)[:, np.abs(towards).argmin(axis=0)])
    hidden = [group[dot(normals, towards[:, group]) <= LEAST_TURN * size]]
    turns = np.zeros(count, dtype=np.int64)
    for k in range(3):
        (side,) = np.nonzero(rim[k])
        own = group[side]
        p, q = (corners[m % 3][:, side] - centre[:, own] for m in (k, k + 1))
        hidden.append(own[dot(cross(p, q), towards[:, own]) <= ROUNDING])
        up = (dot(p, across[:, own]) <= 0) & (dot(q, across[:, own]) > 0)
        turns += np.bincount(own[up], minlength=count)
    turns[np.concatenate(hidden)] = 0
    return turns == 1


def certainly_apart(
    corners: Float[np.ndarray, "3 3 f"], faces: Int[np.ndarray, "3 f"], pairs: Int[np.ndarray, "n 2"]
) -> Bool[np.ndarray, " n"]:
    """Whether it is certain of each pair of faces that they meet in nothing but what they share.

    corners: coordinates of faces (corner, axis, face), in voxels. faces: vertex numbers. pairs: distinct faces within
    one voxel.

    Two faces with a common side must be at a clear angle. Of others it is certain where a plane across the line between
    their centres separates them, or the plane of one face has the other on one side, or no side of either passes
    through the other (Moeller 1997, in signs of determinants).
    """
    one, other = np.ascontiguousarray(pairs.T)
    same = [[faces[a, one] == faces[b, other] for b in range(3)] for a in range(3)]
    in_other = np.stack([x | y | z for x, y, z in same])
    in_one = np.stack([x | y | z for x, y, z in zip(*same, strict=True)])
    shared = np.add.reduce(in_other, axis=0, dtype=np.int8)
    normals = cross(corners[1] - corners[0], corners[2] - corners[0])
    lengths = np.sqrt(dot(normals, normals))
    apart = np.zeros(len(pairs), dtype=bool)
    (hinge,) = np.nonzero(shared == 2)
    u, v = one[hinge], other[hinge]
    apart[hinge] = dot(normals[:, u], normals[:, v]) > FOLDED * lengths[u] * lengths[v]
    (left,) = np.nonzero(shared < 2)
    for test in (centres_separate, planes_separate, sides_miss):
        a, b = corners[:, :, one[left]], corners[:, :, other[left]]
        clear = test(a, b, in_other[:, left], in_one[:, left])
        apart[left[clear]] = True
        left = left[~clear]
    return apart


def cross(u: Float[np.ndarray, "3 n"], v: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "3 n"]:
    """Cross products, components first."""
    return np.stack([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])


def dot(u: Float[np.ndarray, "3 n"], v: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, " n"]:
    """Scalar products, components first."""
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def centres_separate(a, b, in_b, in_a) -> Bool[np.ndarray, " n"]:
    """Whether a plane across the line between their centres, through a common vertex, has one face on each side.

    a, b: corners (corner, axis, pair). in_b, in_a: which corners are common, (3, pair).
    """
    direction = b.sum(axis=0) - a.sum(axis=0)
    below, above = ([dot(direction, corner) for corner in face] for face in (a, b))
    highest = np.maximum.reduce([np.where(common, -np.inf, h) for common, h in zip(in_b, below, strict=True)])
    lowest = np.minimum.reduce([np.where(common, np.inf, h) for common, h in zip(in_a, above, strict=True)])
    # The height of the common vertex, and anything between if there is none.
    level = np.maximum.reduce([np.where(common, h, -np.inf) for common, h in zip(in_b, below, strict=True)])
    level = np.where(level == -np.inf, (highest + lowest) / 2, level)
    return (highest < level - ROUNDING) & (level < lowest - ROUNDING)


def planes_separate(a, b, in_b, in_a) -> Bool[np.ndarray, " n"]:
    """Whether the plane of one face has the other on one side, but for a common vertex."""
    clear = np.zeros(a.shape[2], dtype=bool)
    for face, other, common in ((a, b, in_a), (b, a, in_b)):
        normal = cross(face[1] - face[0], face[2] - face[0])
        heights = [dot(normal, corner - face[0]) for corner in other]
        for sign in (1, -1):
            clear |= np.all([c | (sign * h > ROUNDING) for c, h in zip(common, heights, strict=True)], axis=0)
    return clear


def sides_miss(a, b, in_b, in_a) -> Bool[np.ndarray, " n"]:
    """Whether no side of a face passes through the other; of sides at a common vertex none needs to be looked at."""
    clear = np.ones(a.shape[2], dtype=bool)
    for face, other, common in ((a, b, in_a), (b, a, in_b)):
        a0, a1, a2 = face
        for k in range(3):
            p, q = other[k], other[(k + 1) % 3]
            ends = side_of_plane(a0, a1, a2, p) * side_of_plane(a0, a1, a2, q) > 0
            around = np.stack([side_of_plane(p, q, face[m], face[(m + 1) % 3]) for m in range(3)])
            missed = ends | ((around > 0).any(axis=0) & (around < 0).any(axis=0))
            clear &= missed | common[k] | common[(k + 1) % 3]
    return clear


def side_of_plane(a, b, c, d) -> Int[np.ndarray, " n"]:
    """Which side of the plane through `a`, `b` and `c` the point `d` lies on: 1, -1, or 0 where it is not certain."""
    height = dot(cross(b - a, c - a), d - a)
    return (height > ROUNDING).astype(np.int8) - (height < -ROUNDING).astype(np.int8)
