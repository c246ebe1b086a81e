"""Isosurface of a sampled field with exactly the topology of its 26-connected foreground.

Strategy. Classic marching cubes and its variants resolve ambiguous faces and cubes by rules that are neither 26/6 nor
6/26, so their Euler number can disagree with the Betti numbers of the field. Here the table of 256 cases is generated
by one rule instead: *within a cube of eight samples all inside corners are joined; outside corners are joined only
along cube edges*. Every outside component of a cube is cut off by the loops of its boundary; a loop is filled by a disc
of triangles, and the one component that has two loops (only two opposite corners inside) by an annulus.

Why it is exact. Let X be the union of the closed unit cubes centred at the inside samples: its Betti numbers are those
of the 26-connected foreground, and those of its complement the ones of the 6-connected background. Let M be a thin
closed neighbourhood of X. Take a cube C of eight samples around the lattice corner c. The voxels meet C in octants,
which are cones with apex c, so M in C is (up to isotopy) the cone over M in bd(C) together with a small ball at c, and
bd(M) in C is isotopic to the closure of bd(C) minus M, pushed inwards: one surface piece for each component U of the
outside on the sphere bd(C), homeomorphic to U. On bd(C) two outside corners are in one component if and only if a path
of cube edges joins them, since a face with two inside corners on its diagonal is crossed by M. U is a sphere minus as
many discs as M in bd(C) has components that touch it; any two corners of a common face are joined in M, so M in bd(C)
is connected, but for two opposite corners alone. Hence discs always, one annulus in that case, exactly as in the table.
Pieces of neighbouring cubes meet in the same segments, since the rule for a face looks at that face only. No triangle
edge except those segments joins two vertices of one cube face (checked when the table is made), so no edge gets more
than two triangles. Therefore the mesh is a closed 2-manifold, isotopic to bd(M), and

    Euler(mesh) = 2 Euler(26-foreground),   components(mesh) = components of bd(M) = beta0 + beta2.

One vertex lies on each crossed grid edge, so the mesh is watertight by construction and not by merging.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, Num

# A vertex keeps this distance, as a fraction of the grid edge, from both samples: a sample of exactly 0 would otherwise
# draw all its vertices into one point, and one near 0 would make needles of the faces around it. One vertex in fifty is
# moved by that, by 0.005 on average.
CLEARANCE = 0.01

SLAB = 1 << 22
"""Voxels that are looked at together."""

# Corner number = x + 2 y + 4 z. Edge number = 4 axis + rank of its lower corner among the corners with that bit clear.
CORNERS = np.array([[c & 1, c >> 1 & 1, c >> 2 & 1] for c in range(8)])
EDGES = [(c, c | 1 << axis) for axis in range(3) for c in range(8) if not c >> axis & 1]
EDGE_AXIS = np.repeat(np.arange(3), 4)
EDGE_NUMBER = {frozenset(edge): number for number, edge in enumerate(EDGES)}
# Corners of each face, anticlockwise as seen from outside the cube.
FACES = [(0, 4, 6, 2), (1, 3, 7, 5), (0, 1, 5, 4), (2, 6, 7, 3), (0, 2, 3, 1), (4, 5, 7, 6)]
# Faces that each edge lies on, to forbid diagonals within a face.
EDGE_FACES = [{f for f, face in enumerate(FACES) if set(edge) <= set(face)} for edge in EDGES]
MIDPOINTS = np.array([(CORNERS[a] + CORNERS[b]) / 2 for a, b in EDGES])


def face_segments(code: int) -> dict[int, int]:
    """Directed boundary segments of case `code` on all six faces, as {edge where it starts: edge where it ends}.

    Each run of outside corners around a face is cut off by one segment; that joins inside corners on a diagonal. Bit c
    of `code` is set where corner c is inside. Seen from outside the cube the outside corners lie to the left.

    >>> face_segments(0b1)  # only corner 0 inside: one triangle around it
    {4: 8, 8: 0, 0: 4}
    """
    segments = {}
    for face in FACES:
        for k in range(4):
            before, corner = face[k - 1], face[k]
            if code >> before & 1 and not code >> corner & 1:  # a run of outside corners begins
                end = k
                while not code >> face[(end + 1) % 4] & 1:
                    end += 1
                last, after = face[end % 4], face[(end + 1) % 4]
                segments[EDGE_NUMBER[frozenset((last, after))]] = EDGE_NUMBER[frozenset((before, corner))]
    return segments


def loops_of(code: int) -> list[list[int]]:
    """The closed loops of crossed cube edges of case `code`, each directed so that its triangles face outwards."""
    segments = face_segments(code)
    loops = []
    while segments:
        start, edge = segments.popitem()
        loop = [start]
        while edge != start:
            loop.append(edge)
            edge = segments.pop(edge)
        loops.append(loop)
    return loops


def fill_disc(loop: list[int]) -> list[tuple[int, int, int]]:
    """Triangles of the polygon `loop` with the least sum of squared diagonals, none of which lies in a cube face.

    Dynamic programming over the sides (Gilbert 1979, Klincsek 1980); the longest loop has 7 sides.
    """

    def cost(a: int, b: int) -> float:
        if (b - a) % len(loop) in (1, len(loop) - 1):
            return 0.0
        if EDGE_FACES[loop[a]] & EDGE_FACES[loop[b]]:
            return np.inf
        return float(((MIDPOINTS[loop[a]] - MIDPOINTS[loop[b]]) ** 2).sum())

    @cache
    def best(a: int, b: int) -> tuple[float, tuple[tuple[int, int, int], ...]]:
        if b - a < 2:
            return cost(a, b), ()
        options = []
        for apex in range(a + 1, b):
            left, right = best(a, apex), best(apex, b)
            triangles = (*left[1], (loop[a], loop[apex], loop[b]), *right[1])
            options.append((left[0] + right[0] + cost(a, b), triangles))
        return min(options)

    total, triangles = best(0, len(loop) - 1)
    assert np.isfinite(total), f"no triangulation without a diagonal in a face: {loop}"
    return list(triangles)


def fill_annulus(first: list[int], second: list[int]) -> list[tuple[int, int, int]]:
    """Six triangles between two loops of three: the sides of an antiprism, no side of which lies in a cube face."""
    # The loops are point reflections of each other but for their direction. Vertices on parallel cube edges are the
    # farthest apart; the antiprism joins all other pairs.
    parallel = {int(EDGE_AXIS[edge]): edge for edge in second}
    a, b, c = first
    over_a, over_b, over_c = (parallel[int(EDGE_AXIS[edge])] for edge in first)
    return [
        (a, b, over_c),
        (b, c, over_a),
        (c, a, over_b),
        (over_a, over_c, b),
        (over_b, over_a, c),
        (over_c, over_b, a),
    ]


def case_triangles(code: int) -> list[tuple[int, int, int]]:
    """Triangles of case `code` as triples of cube edges, facing outwards for a right-handed grid."""
    loops = loops_of(code)
    inside = [c for c in range(8) if code >> c & 1]
    if len(inside) == 2 and sum(inside) == 7 and inside[0] ^ inside[1] == 7:
        return fill_annulus(*loops)
    return [triangle for loop in loops for triangle in fill_disc(loop)]


@cache
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 256 cases as (first triangle (256,), number of triangles (256,), triangles (n, 3) of cube edges)."""
    cases = [case_triangles(code) for code in range(256)]
    count = np.array([len(case) for case in cases])
    triangles = np.array([triangle for case in cases for triangle in case], dtype=np.int64)
    return np.cumsum(count) - count, count, triangles


@dataclass(frozen=True)
class Marched:
    """The surface around `field <= 0` before its vertices are placed: one vertex on each crossed grid edge.

    `lower`: (v, 3) int32, the voxel at the lower end of the vertex's edge; -1 or the last one where the edge leads out
    of the grid. `axis`: (v,) int8, the axis that the edge runs along. `faces`: (f, 3) int32, facing outwards for a
    right-handed grid. `cells`: (f, 3) int32, lower corner of the cube of eight samples that a face lies in; faces of
    one cube follow each other.
    """

    lower: np.ndarray
    axis: np.ndarray
    faces: np.ndarray
    cells: np.ndarray

    def ends(self, field: np.ndarray) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]]:
        """Values at the lower and the upper end of the crossed edges; beyond the border the mirror image `|value|`."""
        upper = self.lower.copy()
        upper[np.arange(len(upper)), self.axis] += 1
        values = []
        for end in (self.lower, upper):
            beyond = ((end < 0) | (end >= field.shape)).any(axis=1)
            end = np.clip(end, 0, np.array(field.shape) - 1)
            value = field[tuple(end.T)].astype(np.float64)
            values.append(np.where(beyond, np.abs(value), value))
        return values[0], values[1]

    def at(self, along: Float[np.ndarray, " v"]) -> Float[np.ndarray, "v 3"]:
        """Vertices in voxel indices, that share of their edge beyond its lower end, at least `CLEARANCE` off both."""
        vertices = self.lower.astype(np.float64)
        vertices[np.arange(len(vertices)), self.axis] += np.clip(along, CLEARANCE, 1 - CLEARANCE)
        return vertices


def marching_cubes(field: Num[np.ndarray, "x y z"]) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Closed surface around `field <= 0`: vertices (v, 3) in voxel indices, faces (f, 3) facing outwards.

    The field must be finite. It is continued by one layer of outside samples, the mirror image of the border samples
    (`|value|`), so a vessel that leaves the grid is closed flat on the outer face of the border voxels. Vertices are
    placed by linear interpolation along the grid edges, at least `CLEARANCE` of an edge away from the samples. Without
    any sample at or below zero both arrays are empty.

    >>> vertices, faces = marching_cubes(np.where(np.arange(27).reshape(3, 3, 3) == 13, -1.0, 1.0))
    >>> vertices.shape, faces.shape  # one voxel gives an octahedron
    ((6, 3), (8, 3))
    """
    marched = march(field)
    return marched.at(linear_crossing(*marched.ends(field))), marched.faces


def linear_crossing(lower: Float[np.ndarray, " v"], upper: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    """Share of an edge beyond its lower end at which the line through the values at both ends is zero.

    One value is at or below zero, the other above it, or zero where it lies beyond the border: then half-way.
    """
    a, b = np.abs(lower), np.abs(upper)
    size = np.maximum(a, b)
    a, b = a / np.where(size > 0, size, 1), b / np.where(size > 0, size, 1)
    return np.where(size > 0, a / np.where(size > 0, a + b, 1), 0.5)


def march(field: Num[np.ndarray, "x y z"]) -> Marched:
    """Vertices and faces of the surface around `field <= 0`, see `marching_cubes`; only where they lie is left open.

    The dense part of the work goes through the volume in slabs, so it takes one byte per voxel of the vessel's box.
    """
    inside, origin = padded_inside(field)
    strides = np.array([inside.shape[1] * inside.shape[2], inside.shape[2], 1])
    lower, cubes, codes = crossed_edges_and_cubes(inside)
    first, count, triangles = table()
    number = count[codes]
    # Triangle k of cube i sits at first[codes[i]] + k in the table.
    k = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    edges = triangles[np.repeat(first[codes], number) + k]
    corner = np.repeat(cubes, number)
    edge_key = EDGE_AXIS * inside.size + CORNERS[[a for a, _ in EDGES]] @ strides
    keys = np.concatenate([axis * inside.size + found for axis, found in enumerate(lower)])
    faces = np.searchsorted(keys, corner[:, None] + edge_key[edges]).astype(np.int32)

    def voxels(flat: np.ndarray) -> np.ndarray:
        return (np.stack(np.unravel_index(flat, inside.shape), axis=-1) + origin).astype(np.int32)

    axis = np.repeat(np.arange(3, dtype=np.int8), [len(found) for found in lower])
    return Marched(voxels(np.concatenate(lower)), axis, faces, voxels(corner))


def padded_inside(field: Num[np.ndarray, "x y z"]) -> tuple[np.ndarray, np.ndarray]:
    """Where the field is at or below zero, in the vessel's box and one voxel around it, and the box's first voxel.

    The voxel around is outside, also beyond the border of the grid. Without vessel the box holds one voxel.
    """
    inside = field <= 0
    low, high = bounding_box(inside) if inside.any() else ([0, 0, 0], [-1, -1, -1])
    padded = np.zeros([b - a + 3 for a, b in zip(low, high, strict=True)], dtype=bool)
    padded[1:-1, 1:-1, 1:-1] = inside[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    return padded, np.array(low) - 1


def crossed_edges_and_cubes(inside: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Flat indices of the lower ends of all crossed edges, per axis, and of the cubes with a wall, and their cases."""
    lower: list[list[np.ndarray]] = [[], [], []]
    cubes, codes = [], []
    plane = inside[0].size
    step = max(SLAB // plane, 1)
    for start in range(0, len(inside), step):
        slab = inside[start : start + step + 1]
        own = slab[:step]
        for axis, (one, other) in enumerate(
            [(slab[1:], slab[:-1]), (own[:, 1:], own[:, :-1]), (own[:, :, 1:], own[:, :, :-1])]
        ):
            crossed = np.zeros(own.shape, dtype=bool)
            np.not_equal(one, other, out=crossed[tuple(map(slice, other.shape))])
            lower[axis].append(np.flatnonzero(crossed) + start * plane)
        if len(slab) > 1:
            case = np.zeros((len(slab) - 1, *inside.shape[1:]), dtype=np.uint8)
            case[:, :-1, :-1] = case_codes(slab)
            found = np.flatnonzero((case != 0) & (case != 255))
            cubes.append(found + start * plane)
            codes.append(case.ravel()[found])
    return [np.concatenate(parts) for parts in lower], np.concatenate(cubes), np.concatenate(codes)


def case_codes(inside: np.ndarray) -> np.ndarray:
    """Case number of each cube of eight samples, (x-1, y-1, z-1) uint8: bit x + 2y + 4z is set for an inside corner."""
    codes: np.ndarray = inside.view(np.uint8)
    codes = codes[:-1] | codes[1:] << 1
    codes = codes[:, :-1] | codes[:, 1:] << 2
    return codes[:, :, :-1] | codes[:, :, 1:] << 4


def bounding_box(mask: np.ndarray) -> tuple[list[int], list[int]]:
    """First and last index of the set voxels along each axis (the mask must not be empty)."""
    low, high = [], []
    plane = np.any(mask, axis=2)
    for line in (np.any(plane, axis=1), np.any(plane, axis=0), np.any(mask, axis=(0, 1))):
        hits = np.flatnonzero(line)
        low.append(int(hits[0]))
        high.append(int(hits[-1]))
    return low, high
