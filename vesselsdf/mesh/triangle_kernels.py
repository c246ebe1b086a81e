"""Kernels behind `intersections`: which triangles of a mesh meet where they should not, compiled by numba.

Signs of determinants are certain: a determinant below its rounding error counts as 0, that is, as contact (the static
filters of Shewchuk 1997, "Adaptive precision floating-point arithmetic and fast robust geometric predicates"). So no
crossing is missed, and contact is reported only where double precision cannot tell it from a gap.
"""

import numpy as np

from vesselsdf.compiled import inner, kernel

# Shewchuk's error bounds A of orient2d and orient3d, (3 + 16 u) u and (7 + 56 u) u with u = 2^-53, rounded up.
ORIENT_2D = 3.4e-16
ORIENT_3D = 7.8e-16
LEAF = 4
"""Faces in a leaf of the tree of boxes."""


@inner
def side_of_plane(points, a, b, c, d):
    """Sign of the determinant of (a - d, b - d, c - d): which side of the plane `abc` point `d` lies on."""
    adx, ady, adz = points[a, 0] - points[d, 0], points[a, 1] - points[d, 1], points[a, 2] - points[d, 2]
    bdx, bdy, bdz = points[b, 0] - points[d, 0], points[b, 1] - points[d, 1], points[b, 2] - points[d, 2]
    cdx, cdy, cdz = points[c, 0] - points[d, 0], points[c, 1] - points[d, 1], points[c, 2] - points[d, 2]
    bc, cb, ca, ac, ab, ba = bdx * cdy, cdx * bdy, cdx * ady, adx * cdy, adx * bdy, bdx * ady
    determinant = adz * (bc - cb) + bdz * (ca - ac) + cdz * (ab - ba)
    size = (abs(bc) + abs(cb)) * abs(adz) + (abs(ca) + abs(ac)) * abs(bdz) + (abs(ab) + abs(ba)) * abs(cdz)
    if abs(determinant) <= ORIENT_3D * size:
        return 0
    return 1 if determinant > 0 else -1


@inner
def side_of_line(points, a, b, c, axis):
    """Sign of the area of `abc` as seen along an axis: which side of the line `ab` point `c` lies on."""
    x, y = (axis + 1) % 3, (axis + 2) % 3
    left = (points[a, x] - points[c, x]) * (points[b, y] - points[c, y])
    right = (points[a, y] - points[c, y]) * (points[b, x] - points[c, x])
    if abs(left - right) <= ORIENT_2D * (abs(left) + abs(right)):
        return 0
    return 1 if left > right else -1


@inner
def flattest_axis(points, a, b, c):
    """The axis along which triangle `abc` shows its largest area."""
    best, axis = -1.0, 0
    for k in range(3):
        x, y = (k + 1) % 3, (k + 2) % 3
        left = (points[a, x] - points[c, x]) * (points[b, y] - points[c, y])
        right = (points[a, y] - points[c, y]) * (points[b, x] - points[c, x])
        if abs(left - right) > best:
            best, axis = abs(left - right), k
    return axis


@inner
def segments_meet(points, p, q, a, b, axis):
    """Whether two segments of one plane share a point, as seen along an axis."""
    for k in range(3):
        if max(points[p, k], points[q, k]) < min(points[a, k], points[b, k]):
            return False
        if min(points[p, k], points[q, k]) > max(points[a, k], points[b, k]):
            return False
    if side_of_line(points, p, q, a, axis) * side_of_line(points, p, q, b, axis) > 0:
        return False
    return side_of_line(points, a, b, p, axis) * side_of_line(points, a, b, q, axis) <= 0


@inner
def shadows_meet(points, p, q, a, b, c):
    """Whether segment `pq` and triangle `abc` share a point as seen along the axis that shows most of the triangle."""
    axis = flattest_axis(points, a, b, c)
    sa = side_of_line(points, b, c, p, axis)
    sb = side_of_line(points, c, a, p, axis)
    sc = side_of_line(points, a, b, p, axis)
    if (sa >= 0 and sb >= 0 and sc >= 0) or (sa <= 0 and sb <= 0 and sc <= 0):
        return True
    for _ in range(3):
        if segments_meet(points, p, q, a, b, axis):
            return True
        a, b, c = b, c, a
    return False


@inner
def segment_meets_triangle(points, p, q, a, b, c):
    """Whether the closed segment `pq` and the closed triangle `abc` share a point.

    Where a sign is not certain both lie nearly in one plane; then their shadows must meet as well.
    """
    sp, sq = side_of_plane(points, a, b, c, p), side_of_plane(points, a, b, c, q)
    if sp * sq > 0:
        return False
    sa = side_of_plane(points, p, q, b, c)
    sb = side_of_plane(points, p, q, c, a)
    sc = side_of_plane(points, p, q, a, b)
    if sa * sb < 0 or sb * sc < 0 or sa * sc < 0:
        return False
    return (sp * sq * sa * sb * sc != 0) or shadows_meet(points, p, q, a, b, c)


@inner
def faces_meet(points, faces, i, j):
    """Whether two faces meet anywhere but in the vertices or the edge that they share.

    Without a common vertex: whether they share a point. With one: whether the side opposite to it of one of them meets
    the other. With two: whether they lie in one plane and on one side of their edge. With three: always.
    """
    shared, turn_i, turn_j = 0, 0, 0
    missing_i, missing_j = 3, 3
    for k in range(3):
        for m in range(3):
            if faces[i, k] == faces[j, m]:
                shared += 1
                turn_i, turn_j = k, m
                missing_i -= k
                missing_j -= m
    if shared == 3:
        return True
    if shared == 2:
        a, b, p, q = faces[i, missing_i], faces[j, missing_j], faces[i, turn_i], faces[i, 3 - missing_i - turn_i]
        if side_of_plane(points, p, q, a, b) != 0:
            return False
        axis = flattest_axis(points, p, q, a)
        return side_of_line(points, p, q, a, axis) * side_of_line(points, p, q, b, axis) > 0
    # The sides opposite to corner `turn` come first; with a common vertex no other can meet the other face.
    for k in range(3 - 2 * shared):
        a, b, c = faces[i, (turn_i + k) % 3], faces[i, (turn_i + k + 1) % 3], faces[i, (turn_i + k + 2) % 3]
        p, q, r = faces[j, (turn_j + k) % 3], faces[j, (turn_j + k + 1) % 3], faces[j, (turn_j + k + 2) % 3]
        if segment_meets_triangle(points, q, r, a, b, c) or segment_meets_triangle(points, b, c, p, q, r):
            return True
    return False


@inner
def boxes_meet(low, high, i, other_low, other_high, j):
    """Whether box i and another box j share a point."""
    for k in range(3):
        if low[i, k] > other_high[j, k]:
            return False
        if high[i, k] < other_low[j, k]:
            return False
    return True


@kernel
def meeting(points, faces, pairs, found):
    """Sets `found[k]` where the two faces of `pairs[k]` meet."""
    for k in range(len(pairs)):
        found[k] = faces_meet(points, faces, pairs[k, 0], pairs[k, 1])


@kernel
def box_pairs(low, high, tree_low, tree_high, start, stop, pairs):
    """Pairs i < j of faces whose boxes meet, for i from `start` until `stop` or until `pairs` is nearly full.

    `low`, `high`: (f, 3) boxes of the faces. `tree_low`, `tree_high`: (2 n, 3) boxes of a complete binary tree with its
    root at 1 and the children of node k at 2k and 2k + 1; leaf m at n + m holds the faces from 4 m to 4 m + 3.
    Gives how many pairs were written and the first face that is left.
    """
    leaves = len(tree_low) // 2
    depth = 0
    while 1 << depth < leaves:
        depth += 1
    stack = np.empty(2 * depth + 2, np.int64)
    found = 0
    for i in range(start, stop):
        before = found
        stack[0], height = 1, 1
        while height:
            height -= 1
            node = stack[height]
            span = 0  # levels below the node
            while node << span < leaves:
                span += 1
            # Faces of leaves before that of face i have been paired with it already.
            if ((node + 1) << span) - 1 - leaves < i // LEAF:
                continue
            if not boxes_meet(low, high, i, tree_low, tree_high, node):
                continue
            if node < leaves:
                stack[height], stack[height + 1] = 2 * node, 2 * node + 1
                height += 2
                continue
            first = (node - leaves) * LEAF
            for j in range(max(first, i + 1), min(first + LEAF, len(low))):
                if boxes_meet(low, high, i, low, high, j):
                    if found == len(pairs):
                        return before, i
                    pairs[found, 0], pairs[found, 1] = i, j
                    found += 1
    return found, stop
