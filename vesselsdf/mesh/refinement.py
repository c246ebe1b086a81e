"""Refinement of the wall where it is curved, that is, of thin vessels: edges are split and pulled onto the zero set.

Strategy. A chord of a thin vessel lies inside it: at a radius of 1.3 voxels a marching-cubes surface loses several per
cent of the volume by its chords alone. An edge is split where its middle is further than a tolerance from the zero set
of the interpolated field (`psi` of `placement`, cubic along each axis); thick vessels have no such edge. The middle of
an edge in a face of a cube of samples moves within that face, any other within its cube. Faces are cut along the new
vertices into two, three or four (red-green refinement, Bank, Sherman and Weiser 1983), so the mesh stays closed.

Why nothing crosses. A new face lies in the cube of its parent and meets a face of the cube at most in the edge that it
has there. So two faces of different cubes can meet only where edges in one cube face meet, and then the faces along
these edges meet within one cube too. Hence it is enough to compare the faces of each cube with each other. Nearly
always they are one disc that can be seen at once (`plain_discs`); of the others pairs are compared. Where two faces are
not certainly apart, or a new face is a sliver or turns too far away from the wall around it, edges of these faces are
not split after all. That leads back, at the latest, to the mesh as it was, which has no crossings: the tests prove that
of all cases of marching cubes, for all positions of the vertices on their edges.
"""

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from vesselsdf.marching import CLEARANCE
from vesselsdf.mesh.placement import FAR, STEEPEST
from vesselsdf.mesh.subdivision import certainly_apart, cross, dot, plain_discs, subdivide

TOLERANCE = 0.02
"""Distance of an edge's middle from the zero set, in smallest voxel edges, from which on the edge is split."""
BEND = 0.04
"""The same in lengths of the edge: arcs of less than 18 degrees are not split, a thick vessel loses little by them."""
LARGEST = 0.5
"""The most that a middle moves, in lengths of its edge: a half circle."""
TURN = 0.3
"""Least cosine between a new face and the normal of the mesh before, at its corners."""
SLIVER = 0.01
"""Least height of a new face in lengths of its longest side, unless a quarter of its parent's is less."""
EDGES_AT_ONCE = 1 << 13
FACES_AT_ONCE = 1 << 14
"""So many are worked on together: their surroundings stay in the processor's cache."""


def refine(
    field: Num[np.ndarray, "x y z"],
    vertices: Float[np.ndarray, "v 3"],
    kappa: Float[np.ndarray, " v"],
    faces: Int[np.ndarray, "f 3"],
    cells: Int[np.ndarray, "f 3"],
    spacing: Float[np.ndarray, "3"],
    settled: int = 0,
    rim: Int[np.ndarray, " r"] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The mesh with its curved edges split once: vertices (voxel indices), kappa, faces and cells as before.

    cells: the lower corner of the cube that each face lies in; faces of one cube follow each other. spacing: voxel edge
    lengths in mm, in which tolerances are meant. settled: edges between the first so many vertices stay. rim: of the
    first vertices, a set of bits, and edges between two that share one stay.
    """
    if not field.flags.forc:  # samples are looked up in the order of memory, whichever it is
        field = np.ascontiguousarray(field)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    # On a closed oriented mesh every edge runs once in each direction.
    (half,) = np.nonzero((start < end) & (end >= settled))
    if rim is not None:
        bits = np.concatenate([rim, np.zeros(len(vertices) - len(rim), rim.dtype)])
        half = half[bits[start[half]] & bits[end[half]] == 0]
    normals = vertex_normals(vertices * spacing, faces)
    # A chord of length l over an arc whose ends differ by an angle w is off by l w / 8 in the middle.
    turn, chord = normals[end[half]] - normals[start[half]], vertices[end[half]] - vertices[start[half]]
    half = half[np.abs(np.einsum("ei,ei->e", turn, chord * spacing)) / 8 > TOLERANCE * spacing.min() / 2]
    edges = np.stack([start[half], end[half]], axis=1)
    middles, curved = middles_on_wall(field, vertices, kappa, edges, cells[half // 3], spacing)
    edges, middles = edges[curved], middles[curved]
    sides = edge_of_sides(faces, edges, len(vertices))
    points = np.concatenate([vertices, middles])
    normals = np.concatenate([normals, normals[edges].sum(axis=1)])
    split = keep_embedded(points, normals, faces, group_of(cells), sides, len(edges), spacing)
    number = np.full(len(edges) + 1, -1, dtype=faces.dtype)
    number[:-1][split] = len(vertices) + np.arange(np.count_nonzero(split))
    points = np.concatenate([vertices, middles[split]])
    new_faces, parent = subdivide(points * spacing, faces, number[sides])
    middle_kappa = kappa[edges[split]].mean(axis=1)
    return points, np.concatenate([kappa, middle_kappa]), new_faces, cells[parent]


def vertex_normals(points: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Unit normals at the vertices, the means of the faces' around them, weighted by area."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    normals = np.empty_like(points)
    for axis, column in enumerate(np.cross(b - a, c - a).T):
        normals[:, axis] = sum(np.bincount(faces[:, k], column, minlength=len(points)) for k in range(3))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)


def middles_on_wall(
    field: Num[np.ndarray, "x y z"],
    vertices: Float[np.ndarray, "v 3"],
    kappa: Float[np.ndarray, " v"],
    edges: Int[np.ndarray, "e 2"],
    cells: Int[np.ndarray, "e 3"],
    spacing: Float[np.ndarray, "3"],
) -> tuple[Float[np.ndarray, "e 3"], Bool[np.ndarray, " e"]]:
    """Middles of edges moved onto the zero set, and whether that took them further than the tolerance."""
    one, other = vertices[edges[:, 0]], vertices[edges[:, 1]]
    middles, chords, moved = (one + other) / 2, other - one, np.zeros(len(edges), dtype=bool)
    # An edge in a face of its cube has one coordinate in common, a whole number; an edge through the cube has none.
    plane = np.full(len(edges), 3)
    for axis in range(3):
        plane[(one[:, axis] == other[:, axis]) & (one[:, axis] == np.rint(one[:, axis]))] = axis
    bend = kappa[edges].mean(axis=1)
    shape = np.array(field.shape)
    for axis in range(4):
        free = [k for k in range(3) if k != axis]
        if shape[free].min() < 4:
            continue
        inner = plane == axis
        for k in free:
            inner &= (cells[:, k] >= 0) & (cells[:, k] + 1 < shape[k])
        if axis < 3:
            inner &= (one[:, axis] >= 0) & (one[:, axis] <= shape[axis] - 1)
        (group,) = np.nonzero(inner)
        for part in np.array_split(group, len(group) // EDGES_AT_ONCE + 1):
            middles[part], moved[part] = move_onto_wall(
                field, middles[part], chords[part], cells[part], bend[part], spacing, free
            )
    return middles, moved


def move_onto_wall(
    field: Num[np.ndarray, "x y z"],
    place: Float[np.ndarray, "e 3"],
    along: Float[np.ndarray, "e 3"],
    cells: Int[np.ndarray, "e 3"],
    kappa: Float[np.ndarray, " e"],
    spacing: Float[np.ndarray, "3"],
    free: list[int],
) -> tuple[Float[np.ndarray, "e 3"], Bool[np.ndarray, " e"]]:
    """Places moved onto the zero set across their edges `along`, within the free axes of their cubes."""
    first, psi = surroundings(field, place, cells, kappa, free)
    start, corner, chord, step = (values[:, free].T for values in (place, cells, along, spacing[None]))
    value, slope = value_and_slope(psi, start - first)
    # Steepest descent in mm, less its part along the edge.
    length = np.sqrt(((chord * step) ** 2).sum(axis=0))
    across = slope / step**2 - chord * ((slope * chord).sum(axis=0) / length**2)
    rise = (slope * across).sum(axis=0)
    size = -value / np.where(rise == 0, np.inf, rise)
    before, here = np.abs(value), start
    for _ in range(2):
        here = np.clip(here + size * across, corner + CLEARANCE, corner + 1 - CLEARANCE)
        new = interpolated(psi, here - first)
        # The secant through the last two places; where it is level, no further.
        change = value - new
        size = np.where(change == 0, 0.0, size * new / np.where(change == 0, 1, change))
        value = new
    distance = np.sqrt((((here - start) * step) ** 2).sum(axis=0))
    room = ((start > corner + CLEARANCE) & (start < corner + 1 - CLEARANCE)).all(axis=0)
    good = room & (np.abs(value) < before / 4) & (distance < LARGEST * length)
    moved = place.copy()
    moved[:, free] = here.T
    return moved, good & (distance > np.maximum(TOLERANCE * spacing.min(), BEND * length))


def surroundings(
    field: Num[np.ndarray, "x y z"],
    place: Float[np.ndarray, "e 3"],
    cells: Int[np.ndarray, "e 3"],
    kappa: Float[np.ndarray, " e"],
    free: list[int],
) -> tuple[Int[np.ndarray, "k e"], Float[np.ndarray, "... e"]]:
    """First of four samples along each free axis around places; and, up to a factor, `psi` there, (4, ..., e)."""
    flat = field.reshape(-1, order="F" if field.flags.f_contiguous else "C")
    strides = np.array(field.strides) // field.itemsize
    first = np.rint(place).astype(np.int64)
    first[:, free] = np.clip(cells[:, free] - 1, 0, np.array(field.shape)[free] - 4)
    offsets = np.zeros([4] * len(free), dtype=np.int64)
    for k, axis in enumerate(free):
        offsets += (np.arange(4) * strides[axis]).reshape([4 if m == k else 1 for m in range(len(free))])
    phi = flat[offsets.ravel()[:, None] + first @ strides].astype(np.float64)
    # In units of the largest value at the corners of the cube, so that nothing overflows.
    corners = np.array(list(np.ndindex(*[2] * len(free)))) @ 4 ** np.arange(len(free))[::-1]
    inner = (cells - first)[:, free] @ 4 ** np.arange(len(free))[::-1] + corners[:, None]
    scale = np.abs(np.take_along_axis(phi, inner, axis=0)).max(axis=0)
    phi /= scale
    np.clip(phi, -FAR, FAR, out=phi)
    bend = np.clip(kappa * scale, -STEEPEST, STEEPEST)
    phi *= 1 + bend * phi
    return first[:, free].T, phi.reshape(*offsets.shape, -1)


def contracted(psi: Float[np.ndarray, "4 ... e"], weights: Float[np.ndarray, "4 e"]) -> Float[np.ndarray, "... e"]:
    """Sum of the samples along the first axis, with weights that depend on the last."""
    result = psi[0] * weights[0]
    for k in range(1, 4):
        result += psi[k] * weights[k]
    return result


def interpolated(psi: Float[np.ndarray, "... e"], place: Float[np.ndarray, "k e"]) -> Float[np.ndarray, " e"]:
    """Value of the polynomials at places, counted from the first sample of each axis."""
    for along in place:
        psi = contracted(psi, lagrange(along))
    return psi


def value_and_slope(
    psi: Float[np.ndarray, "... e"], place: Float[np.ndarray, "k e"]
) -> tuple[Float[np.ndarray, " e"], Float[np.ndarray, "k e"]]:
    """Value of the polynomials and its slopes per voxel at places, counted from the first sample of each axis."""
    slopes: list[np.ndarray] = []
    for along in place:
        weights = lagrange(along)
        slopes = [contracted(slope, weights) for slope in slopes] + [contracted(psi, lagrange_slope(along))]
        psi = contracted(psi, weights)
    return psi, np.stack(slopes)


def lagrange(x: Float[np.ndarray, " e"]) -> Float[np.ndarray, "4 e"]:
    """Weights of the samples at 0, 1, 2 and 3 for the cubic polynomial through them, at `x`."""
    a, b, c = x - 1, x - 2, x - 3
    return np.stack([-a * b * c / 6, x * b * c / 2, -x * a * c / 2, x * a * b / 6])


def lagrange_slope(x: Float[np.ndarray, " e"]) -> Float[np.ndarray, "4 e"]:
    """Weights of the samples at 0, 1, 2 and 3 for the slope of the cubic polynomial through them, at `x`."""
    return np.stack(
        [
            -((3 * x - 12) * x + 11) / 6,
            ((3 * x - 10) * x + 6) / 2,
            -((3 * x - 8) * x + 3) / 2,
            ((3 * x - 6) * x + 2) / 6,
        ]
    )


def edge_of_sides(faces: Int[np.ndarray, "f 3"], edges: Int[np.ndarray, "e 2"], n: int) -> Int[np.ndarray, "f 3"]:
    """For sides 01, 12, 20 of each face the number of its edge among `edges` (start < end), or -1."""
    touched = np.zeros(n, dtype=bool)
    touched[edges] = True
    start, end = faces, np.roll(faces, -1, axis=1)
    near = touched[start] & touched[end]
    low, high = np.minimum(start, end)[near].astype(np.int64), np.maximum(start, end)[near]
    keys = edges[:, 0].astype(np.int64) * n + edges[:, 1]
    order = np.argsort(keys)
    sides = np.full(faces.shape, -1)
    if len(keys):
        found = order[np.minimum(np.searchsorted(keys, low * n + high, sorter=order), len(keys) - 1)]
        sides[near] = np.where(keys[found] == low * n + high, found, -1)
    return sides


def group_of(cells: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " f"]:
    """Number of the cube of each face, from 0; faces of one cube follow each other."""
    return np.concatenate([[0], np.cumsum((cells[1:] != cells[:-1]).any(axis=1))])[: len(cells)]


def keep_embedded(
    points: Float[np.ndarray, "p 3"],
    normals: Float[np.ndarray, "p 3"],
    faces: Int[np.ndarray, "f 3"],
    group: Int[np.ndarray, " f"],
    sides: Int[np.ndarray, "f 3"],
    count: int,
    spacing: Float[np.ndarray, "3"],
) -> Bool[np.ndarray, " e"]:
    """Which edges can be split so that all new faces are apart from the others in their cube, and well-shaped.

    points: vertices in voxels, the last `count` of them the middles of edges. normals: at the points, of any length.
    """
    base = len(points) - count
    in_mm = points * spacing
    split = np.ones(count, dtype=bool)
    dirty = np.zeros(group.max(initial=-1) + 1, dtype=bool)
    dirty[group[(sides >= 0).any(axis=1)]] = True
    while dirty.any():
        (open_faces,) = np.nonzero(dirty[group])
        changed = np.zeros(count, dtype=bool)
        for own in whole_groups(open_faces, group):
            middles = np.where((sides[own] >= 0) & split[sides[own]], base + sides[own], -1)
            new, parent = subdivide(in_mm, faces[own], middles)
            refused = misfits(points, in_mm, normals, faces[own], group[own], new, parent, (middles >= 0).any(axis=1))
            changed[refused[refused >= base] - base] = True
        split &= ~changed
        dirty[:] = False
        dirty[group[((sides >= 0) & changed[sides]).any(axis=1)]] = True
    return split


def whole_groups(members: Int[np.ndarray, " n"], group: Int[np.ndarray, " f"]) -> list[np.ndarray]:
    """The members in parts, none of which ends within a group."""
    number = group[members]
    cuts = np.searchsorted(number, number[FACES_AT_ONCE::FACES_AT_ONCE])
    return [part for part in np.split(members, cuts) if len(part)]


def misfits(points, in_mm, normals, faces, group, new, parent, cut) -> Int[np.ndarray, "n 3"]:
    """New faces that are badly shaped, and in cubes without such a face those that may meet another.

    new: (g, 3) faces after the split, parent: (g,) the old face of each. faces, group, cut: of the old faces; whether
    they were cut.
    """
    (changed,) = np.nonzero(cut[parent])
    shaped = well_shaped(in_mm, normals, new[changed], height(in_mm, faces)[parent[changed]])
    bad = changed[~shaped]
    number = group[parent] - group[0]
    corners = np.ascontiguousarray(points[new].transpose(1, 2, 0))
    # Sides in a face of their cube, see `middles_on_wall`, are at the rim of what lies in the cube.
    flat = (corners == np.roll(corners, -1, axis=0)) & (corners == np.rint(corners))
    settled = plain_discs(corners, number, flat.any(axis=1))
    settled[number[bad]] = True
    (rest,) = np.nonzero(~settled[number])
    pairs = rest[pairs_in_groups(number[rest])]
    pairs = pairs[cut[parent[pairs[:, 0]]] | cut[parent[pairs[:, 1]]]]
    meeting = pairs[~certainly_apart(corners, np.ascontiguousarray(new.T), pairs)]
    return np.concatenate([new[bad], new[meeting].reshape(-1, 3)])


def pairs_in_groups(group: Int[np.ndarray, " f"]) -> Int[np.ndarray, "n 2"]:
    """All pairs i < j of faces with the same number, where equal numbers follow each other."""
    last = np.searchsorted(group, group, side="right")
    following = last - np.arange(len(group)) - 1
    first = np.repeat(np.arange(len(group)), following)
    step = np.arange(len(first)) - np.repeat(np.cumsum(following) - following, following)
    return np.stack([first, first + 1 + step], axis=1)


def well_shaped(
    points: Float[np.ndarray, "p 3"],
    normals: Float[np.ndarray, "p 3"],
    faces: Int[np.ndarray, "g 3"],
    parents: Float[np.ndarray, " g"],
) -> Bool[np.ndarray, " g"]:
    """Whether new faces are no slivers (their parents' heights are given) and face the way of the normals there."""
    a, b, c = (points[faces[:, k]].T for k in range(3))
    normal, outward = cross(b - a, c - a), sum(normals[faces[:, k]] for k in range(3)).T
    upright = dot(normal, outward) > TURN * np.sqrt(dot(normal, normal) * dot(outward, outward))
    return upright & (height(points, faces) > np.minimum(SLIVER, parents / 4))


def height(points: Float[np.ndarray, "p 3"], faces: Int[np.ndarray, "g 3"]) -> Float[np.ndarray, " g"]:
    """Height of each face over its longest side, in lengths of that side."""
    a, b, c = (points[faces[:, k]].T for k in range(3))
    normal = cross(b - a, c - a)
    return np.sqrt(dot(normal, normal)) / np.maximum.reduce([dot(side, side) for side in (b - a, c - b, a - c)])
