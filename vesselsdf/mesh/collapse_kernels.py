"""Edge collapse behind `decimation`, compiled by numba.

Quadric error metric (Garland & Heckbert 1997), each plane weighted by its area; the new vertex lies where the error is
least among the places that keep the volume (Lindstrom & Turk 1998); an edge is collapsed only if its link condition
holds (Dey et al. 1999), so a closed 2-manifold keeps its topology, and no face may turn over or become a needle.

Faces around a vertex form a linked list of corners: `head[v]`, then `following[corner]`; corner 3 f + k is that of face
f at its vertex k. A face that has gone has -1 as its first vertex.
"""

import numpy as np

from vesselsdf.compiled import inner, kernel

TURN = 0.5
"""Least cosine between the normals of a face before and after."""
SHAPE = 0.05
"""Least quality of a new face, 4 sqrt(3) area / sum of squared sides, unless it was worse before (1: equilateral)."""

UNKNOWN = -1.0
"""Cost of an edge that has not been worked out: it comes off the heap first, and goes back with its cost."""


@inner
def normal_of(points, a, b, c):
    """Cross product (b - a) x (c - a)."""
    ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
    vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@inner
def squared(points, a, b):
    """Squared distance."""
    x, y, z = points[a, 0] - points[b, 0], points[a, 1] - points[b, 1], points[a, 2] - points[b, 2]
    return x * x + y * y + z * z


@inner
def add_star(points, faces, head, following, vertex, other, sums):
    """Add normals and volumes (from the last point) of the faces around a vertex, but for those at `other`."""
    origin = len(points) - 1
    corner = head[vertex]
    while corner >= 0:
        f = corner // 3
        corner = following[corner]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        if a == -1 or other in (a, b, c):
            continue
        x, y, z = normal_of(points, a, b, c)
        sums[0] += x
        sums[1] += y
        sums[2] += z
        for k, n in ((0, x), (1, y), (2, z)):
            sums[3] += n * (points[a, k] - points[origin, k])


@inner
def best_place(points, faces, head, following, quadrics, u, v, work):
    """Put the last point where the vertex of the collapsed edge belongs; gives its error, mm2 times mm2 of area."""
    last = len(points) - 1
    q, sums = work[:11], work[11:]
    for k in range(11):
        q[k] = quadrics[u, k] + quadrics[v, k]
    for k in range(4):
        sums[k] = 0.0
    mx, my, mz = (points[u, 0] + points[v, 0]) / 2, (points[u, 1] + points[v, 1]) / 2, (points[u, 2] + points[v, 2]) / 2
    points[last, 0], points[last, 1], points[last, 2] = mx, my, mz
    add_star(points, faces, head, following, u, -1, sums)
    add_star(points, faces, head, following, v, u, sums)
    gx, gy, gz = sums[0], sums[1], sums[2]
    # A little of the distance from the middle makes flat places definite.
    little = 1e-5 * (q[0] + q[3] + q[5]) / 3 + 1e-300
    a00, a01, a02, a11, a12, a22 = q[0] + little, q[1], q[2], q[3] + little, q[4], q[5] + little
    rx = q[6] - q[0] * mx - q[1] * my - q[2] * mz
    ry = q[7] - q[1] * mx - q[3] * my - q[4] * mz
    rz = q[8] - q[2] * mx - q[4] * my - q[5] * mz
    i00, i01, i02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    i11, i12, i22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    det = a00 * i00 + a01 * i01 + a02 * i02
    x = y = z = 0.0
    if det > 0:
        x = (i00 * rx + i01 * ry + i02 * rz) / det
        y = (i01 * rx + i11 * ry + i12 * rz) / det
        z = (i02 * rx + i12 * ry + i22 * rz) / det
        hx, hy, hz = i00 * gx + i01 * gy + i02 * gz, i01 * gx + i11 * gy + i12 * gz, i02 * gx + i12 * gy + i22 * gz
        gain = gx * hx + gy * hy + gz * hz
        if gain > 0:
            move = (sums[3] - gx * x - gy * y - gz * z) / gain
            x, y, z = x + move * hx, y + move * hy, z + move * hz
        if x * x + y * y + z * z > squared(points, u, v):
            x = y = z = 0.0
    x, y, z = x + mx, y + my, z + mz
    points[last, 0], points[last, 1], points[last, 2] = x, y, z
    error = x * (q[0] * x + 2 * q[1] * y + 2 * q[2] * z) + y * (q[3] * y + 2 * q[4] * z) + q[5] * z * z
    return max(error - 2 * (q[6] * x + q[7] * y + q[8] * z) + q[9], 0.0)


@inner
def stays_upright(points, faces, head, following, vertex, other):
    """Whether no face of a vertex, but those at `other`, turns over or gets a needle if it moves to the last point."""
    last = len(points) - 1
    corner = head[vertex]
    while corner >= 0:
        f, at = corner // 3, corner % 3
        corner = following[corner]
        b, c = faces[f, (at + 1) % 3], faces[f, (at + 2) % 3]
        if faces[f, 0] < 0 or b == other or c == other:
            continue
        nx, ny, nz = normal_of(points, vertex, b, c)
        mx, my, mz = normal_of(points, last, b, c)
        size, before = np.sqrt(mx * mx + my * my + mz * mz), np.sqrt(nx * nx + ny * ny + nz * nz)
        if mx * nx + my * ny + mz * nz < TURN * size * before:
            return False
        side = squared(points, b, c)
        shape = size / (squared(points, last, b) + squared(points, last, c) + side)
        old = before / (squared(points, vertex, b) + squared(points, vertex, c) + side)
        if shape < SHAPE / 3.4641016 and shape < old:
            return False
    return True


@inner
def alive_around(faces, head, following, vertex):
    """Number of faces around a vertex."""
    count, corner = 0, head[vertex]
    while corner >= 0:
        if faces[corner // 3, 0] >= 0:
            count += 1
        corner = following[corner]
    return count


@inner
def may_collapse(points, faces, head, following, mark, round_, u, v):
    """Whether the edge can go: link condition, no face turned over, no needle."""
    corner = head[u]
    while corner >= 0:
        f = corner // 3
        corner = following[corner]
        if faces[f, 0] >= 0:
            for k in range(3):
                mark[faces[f, k]] = round_
    common = 0
    corner = head[v]
    while corner >= 0:
        f = corner // 3
        corner = following[corner]
        if faces[f, 0] < 0:
            continue
        for k in range(3):
            w = faces[f, k]
            if w != u and w != v and mark[w] == round_:
                mark[w] = -round_
                common += 1
                if alive_around(faces, head, following, w) <= 3:
                    return False
    return (
        common == 2
        and stays_upright(points, faces, head, following, u, v)
        and stays_upright(points, faces, head, following, v, u)
    )


@inner
def push(costs, ends, count, cost, u, v, stamp):
    """Put an edge on the heap, if there is room; gives the new count."""
    if count == len(costs):
        return count
    k = count
    while k > 0 and costs[(k - 1) // 2] > cost:
        above = (k - 1) // 2
        costs[k], ends[k, 0], ends[k, 1], ends[k, 2] = costs[above], ends[above, 0], ends[above, 1], ends[above, 2]
        k = above
    costs[k], ends[k, 0], ends[k, 1], ends[k, 2] = cost, u, v, stamp
    return count + 1


@inner
def drop_first(costs, ends, count):
    """Take the first edge off the heap; gives the new count."""
    count -= 1
    cost, k = costs[count], 0
    while True:
        child = 2 * k + 1
        if child >= count:
            break
        if child + 1 < count and costs[child + 1] < costs[child]:
            child += 1
        if costs[child] >= cost:
            break
        costs[k], ends[k, 0], ends[k, 1], ends[k, 2] = costs[child], ends[child, 0], ends[child, 1], ends[child, 2]
        k = child
    costs[k], ends[k, 0], ends[k, 1], ends[k, 2] = cost, ends[count, 0], ends[count, 1], ends[count, 2]
    return count


@inner
def merge(faces, head, following, u, v):
    """Let u go into v; gives the number of faces that go. The list of v is made anew, without those that have gone."""
    corners, gone = -1, 0
    for k in range(2):
        vertex, other = (u, v) if k == 0 else (v, u)
        corner = head[vertex]
        while corner >= 0:
            f, after = corner // 3, following[corner]
            if faces[f, 0] >= 0:
                if other == faces[f, 0] or other == faces[f, 1] or other == faces[f, 2]:
                    faces[f, 0] = -1
                    gone += 1
                else:
                    faces[f, corner % 3] = v
                    following[corner] = corners
                    corners = corner
            corner = after
    head[u], head[v] = -1, corners
    return gone


@kernel
def collapse(points, faces, head, following, quadrics, limits, into, costs, ends, target):
    """Collapse edges of a closed mesh, cheapest first, down to `target` faces or as far as the limits allow.

    Changes all its arrays. points: (v + 1, 3), the last is room to work in. faces: (f, 3). head: (v,), following:
    (3 f,). quadrics: (v, 11), A (6), b (3), c and the area of v' A v - 2 b' v + c. limits: (v,), largest mean error,
    mm, of what a vertex goes into; one with a limit of 0 stays. into: (v,), each vertex itself; afterwards the vertex
    it has been merged into. costs: (n,), ends: (n, 3), room for a heap. Gives the number of faces left.
    """
    stamp, mark, work = np.zeros(len(head), np.int64), np.zeros(len(head), np.int64), np.zeros(15)
    last, count, left, round_ = len(points) - 1, 0, len(faces), 0
    for f in range(len(faces)):
        for k in range(3):
            u, v = faces[f, k], faces[f, (k + 1) % 3]
            if u < v and limits[u] > 0 and limits[v] > 0:
                count = push(costs, ends, count, UNKNOWN, u, v, 0)
    while count and left > target:
        known, u, v, when = costs[0], ends[0, 0], ends[0, 1], ends[0, 2]
        count = drop_first(costs, ends, count)
        if into[u] != u or into[v] != v or stamp[u] + stamp[v] != when:
            continue
        cost = best_place(points, faces, head, following, quadrics, u, v, work)
        if known == UNKNOWN or cost > 1.0001 * known + 1e-12:
            count = push(costs, ends, count, cost, u, v, when)
            continue
        limit = min(limits[u], limits[v])
        if cost > limit * limit * work[10]:
            continue
        round_ += 1
        if not may_collapse(points, faces, head, following, mark, round_, u, v):
            continue
        left -= merge(faces, head, following, u, v)
        into[u], limits[v] = v, limit
        for k in range(3):
            points[v, k] = points[last, k]
        for k in range(11):
            quadrics[v, k] += quadrics[u, k]
        stamp[v] += stamp[u] + 1
        corner = head[v]
        while corner >= 0:
            w = faces[corner // 3, (corner % 3 + 1) % 3]
            corner = following[corner]
            if limits[w] > 0:
                count = push(costs, ends, count, UNKNOWN, v, w, stamp[v] + stamp[w])
    return left
