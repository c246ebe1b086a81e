"""The kernel behind `decimation`: edges of a closed mesh are drawn together where nothing is broken by it."""

import numpy as np

from vesselsdf.compiled import inner, kernel
from vesselsdf.mesh.field_kernels import value_at

LEAST_TURN = 0.3
"""Cosine of the most that a face turns in one collapse."""
LEAST_SHAPE = 0.15
"""Shape of a new face, 4 sqrt(3) area / sum of squared sides (equilateral: 1), unless an old one was worse."""


@inner
def normal_and_sides(a, b, c, normal):
    """Writes the normal of a triangle with twice its area as length; gives the sum of the squared sides."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    wx, wy, wz = vx - ux, vy - uy, vz - uz
    normal[0], normal[1], normal[2] = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    return ux * ux + uy * uy + uz * uz + vx * vx + vy * vy + vz * vz + wx * wx + wy * wy + wz * wz


@inner
def length(vector):
    """Of a vector of three."""
    return np.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])


@inner
def position_of(faces, face, vertex):
    """Which corner of a face a vertex is; 3 if none."""
    for k in range(3):
        if faces[face, k] == vertex:
            return k
    return 3


@inner
def link_holds(faces, first, star, degree, u, v, seen, serial):
    """Whether a closed 2-manifold stays one of the same topology when edge `uv` is drawn together.

    The link condition of Dey, Edelsbrunner, Guha and Nekhayev (1999): what the links of `u` and of `v` have in common
    is the link of `uv`, that is two vertices and no edge. An edge in common would make one of these two a vertex of
    three faces.
    """
    for n in range(first[u], first[u + 1]):
        for k in range(3):
            seen[faces[star[n], k]] = serial
    common = 0
    for n in range(first[v], first[v + 1]):
        # Every neighbour is once the corner after v, around a vertex of a closed mesh.
        w = faces[star[n], (position_of(faces, star[n], v) + 1) % 3]
        if w != u and seen[w] == serial:
            common += 1
            if degree[w] <= 3:
                return False
    return common == 2


@inner
def stays_near(grid, tolerance, x, q, r, weights):
    """Whether vertex `x` and the middles of side `xq` and face `xqr` lie within the tolerance of the zero set."""
    field, to_index, spacing, walls = grid
    for count in range(1, 4):
        side, corner = min(count - 1, 1), count // 3
        px = (x[0] + side * q[0] + corner * r[0]) / count
        py = (x[1] + side * q[1] + corner * r[1]) / count
        pz = (x[2] + side * q[2] + corner * r[2]) / count
        if abs(value_at(field, to_index, spacing, walls, px, py, pz, weights)) > tolerance:
            return False
    return True


@inner
def stays_good(points, faces, first, star, u, v, x, grid, tolerance, scratch, weights):
    """Whether the faces around `u` and `v` stay upright, well-shaped and near the zero set when both go to `x`."""
    worst = LEAST_SHAPE
    for trial in range(2):
        for side in range(2):
            moved, other = (u, v) if side else (v, u)
            for n in range(first[moved], first[moved + 1]):
                face = star[n]
                k = position_of(faces, face, moved)
                q, r = points[faces[face, (k + 1) % 3]], points[faces[face, (k + 2) % 3]]
                sides = normal_and_sides(x if trial else points[moved], q, r, scratch[trial])
                size = length(scratch[trial])
                if not trial:
                    worst = min(worst, 2 * np.sqrt(3.0) * size / max(sides, 1e-300))
                    continue
                if position_of(faces, face, other) < 3:
                    continue
                normal_and_sides(points[moved], q, r, scratch[0])
                turn = scratch[0, 0] * scratch[1, 0] + scratch[0, 1] * scratch[1, 1] + scratch[0, 2] * scratch[1, 2]
                if not turn > LEAST_TURN * size * length(scratch[0]):
                    return False
                if not 2 * np.sqrt(3.0) * size >= worst * sides:
                    return False
                if not stays_near(grid, tolerance, x, q, r, weights):
                    return False
    return True


@kernel
def collapse(points, faces, quadrics, first, star, degree, edges, places, blocked, grid, tolerance, most):
    """Draw edges together, in the order given, where that is allowed; gives their number, at most `most`.

    points (v, 3), faces (f, 3), quadrics (v, 10) and degree (v,) are changed: an edge's first vertex goes, its second
    one moves to `places` (e, 3), faces that vanish become -1. Faces around vertex i are star[first[i]:first[i + 1]].
    blocked: (v,) uint8, vertices that take no part. After a collapse all vertices around it are blocked, so whatever is
    looked at has not changed since the stars were listed. grid: field, to_index, spacing and walls of a `ZeroSet`.
    """
    seen = np.full(len(points), -1, np.int32)
    scratch, weights = np.empty((2, 3)), np.empty((3, 4))
    done = 0
    for e in range(len(edges)):
        if done == most:
            break
        u, v, x = edges[e, 0], edges[e, 1], places[e]
        if blocked[u] or blocked[v]:
            continue
        if not link_holds(faces, first, star, degree, u, v, seen, e):
            continue
        if not stays_good(points, faces, first, star, u, v, x, grid, tolerance, scratch, weights):
            continue
        for vertex in (u, v):
            for n in range(first[vertex], first[vertex + 1]):
                for k in range(3):
                    blocked[faces[star[n], k]] = 1
        for n in range(first[u], first[u + 1]):
            face = star[n]
            k = position_of(faces, face, v)
            if k < 3:
                for corner in range(3):
                    degree[faces[face, corner]] -= 1
                    faces[face, corner] = -1
            else:
                faces[face, position_of(faces, face, u)] = v
                degree[v] += 1
        for k in range(3):
            points[v, k] = x[k]
        for k in range(10):
            quadrics[v, k] += quadrics[u, k]
        done += 1
    return done
