"""Vessel trees with a known graph: space-filling, Murray's radii, tortuous, with a given number of loops.

Strategy: grow a tree of points (growth.py), drop what came too close to something else, add the anastomoses, turn the
points into a graph, and count the Betti numbers of its voxels; a tree whose voxels disagree with its graph is redrawn.
"""

import logging
from itertools import pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError, RunError
from vesselsdf.synthesis.growth import CLEARANCE, STEP, Growth, join, plant, sprout
from vesselsdf.topology.betti import betti_numbers

logger = logging.getLogger(__name__)

# A ball of radius sqrt(3)/2 voxels holds a voxel centre wherever it lies, so a thinner vessel can fall between voxels.
THINNEST = 0.87
_REDRAWS = 12
_ROUNDS = 6


class Placement(NamedTuple):
    """Spacing in mm, the mm that count as one voxel, and the bifurcations that were found to be clean."""

    spacing: Float[np.ndarray, "3"]
    unit: float
    clean: set[bytes]


def grow_tree(
    seed: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    loops: int = 0,
    branches: int | None = None,
    murray: float = 3.0,
    terminal_radius: tuple[float, float] = (1.0, 1.3),
    tortuosity: float = 0.035,
    largest: float | None = None,
    trees: int = 1,
) -> nx.MultiGraph:
    """Vessel trees with anastomoses in a box; the voxels of `{sdf <= 0}` have beta (trees, loops, 0), counted 26/6.

    Every draw comes from `numpy.random.default_rng(seed)`: the same arguments give the same graph.

    Args:
        seed: of the generator.
        shape: of the grid in voxels; positions are voxel index times spacing, in mm.
        spacing: voxel edge lengths in mm.
        loops: number of independent loops, over all trees.
        branches: number of edges to aim for (some are dropped where there is no room). None: a number that fills
            0.3 to 1.5% of the box.
        murray: exponent g of `r_parent**g = sum r_child**g`.
        terminal_radius: range of the radius of the ends, in voxels; at least 0.87, so that the voxels stay connected.
        tortuosity: amplitude of the bends over their wavelength; 0.02 is nearly straight, 0.06 strongly bent.
        largest: the largest radius in voxels; None: an eleventh of the box, at most 10.
        trees: number of separate trees.

    Returns:
        MultiGraph: node attributes `pos` (3,) mm and `radius` mm; edge attributes `points` (n, 3) mm and `radii` (n,)
        mm from node `start` to the other, `length` mm. `graph.graph['roots']`, and `['root']`, the first of them.

    Raises:
        InputError: a box or a radius that cannot hold a tree. RunError: no tree with the wanted topology was found.

    >>> graph = grow_tree(3, (48, 48, 48), (1.0, 1.0, 1.0), loops=1)
    >>> graph.number_of_edges() - graph.number_of_nodes() + 1
    1
    """
    steps = np.asarray(spacing, float)
    unit = float(np.linalg.norm(steps) / np.sqrt(3))  # one "voxel" on an anisotropic grid, by the voxel's diagonal
    extent = (np.asarray(shape) - 1) * steps / unit
    largest = min(extent.min() / 11, 10.0) if largest is None else largest
    _check(shape, steps, extent, loops, trees, terminal_radius, largest)
    if branches is None:
        size = float(np.prod(extent) ** (1 / 3))
        terminals = max(round(23 * (size / 128) ** 1.9) + 1 - loops, 3 * trees, loops + trees + 1)
    else:
        terminals = max((branches + trees - 3 * loops) // 2, trees + loops)
    for attempt in range(_REDRAWS):
        generator = np.random.default_rng([seed, attempt])
        # A tree without room for its loops may have it with a few more branches.
        wanted = round(terminals * (1 + 0.1 * attempt)) if loops else terminals
        growth = Growth(extent, generator, wanted, terminal_radius, murray, tortuosity, largest)
        graph = _grow(growth, loops, trees, Placement(steps, unit, set()))
        if graph is None:
            continue
        field = tube_distance(graph, shape, np.diag([*steps, 1.0]), band=float(steps.max()))
        found = betti_numbers(field <= 0)
        if found == (trees, loops, 0):
            return graph
        logger.debug("seed %d, attempt %d: voxels have beta %s; redrawn", seed, attempt, found)
    raise RunError(
        f"no tree of {trees} component(s) with {loops} loop(s) was found in {_REDRAWS} draws for shape {tuple(shape)}; "
        "ask for fewer loops or branches, or use another seed."
    )


def _check(shape, steps, extent, loops, trees, terminal_radius, largest) -> None:
    if (steps <= 0).any() or not np.isfinite(steps).all():
        raise InputError(f"spacing is {tuple(steps)}; give three positive voxel edge lengths in mm.")
    if extent.min() < 20:
        raise InputError(
            f"shape {tuple(shape)} is too small for a vessel tree; give at least 24 voxels along each axis."
        )
    if loops < 0 or trees < 1:
        raise InputError(f"loops is {loops} and trees is {trees}; give at least 0 loops and 1 tree.")
    if not THINNEST <= terminal_radius[0] <= terminal_radius[1] <= largest:
        raise InputError(
            f"terminal_radius is {terminal_radius} voxels; give a range between {THINNEST} and the largest radius, "
            f"{largest:.2f}."
        )


def _grow(growth: Growth, loops: int, trees: int, place: Placement) -> nx.MultiGraph | None:
    """Plant, sprout, drop what touches or does not part cleanly, sprout again, join; None if that failed."""
    if not all(plant(growth) for _ in range(trees)):
        return None
    for round_ in range(_ROUNDS):
        failures = 0
        while round_ < 2 and (growth.children() == 0).sum() < growth.terminals and failures < 12:
            failures += not sprout(growth)
        while _drop_contacts(growth):
            pass
        if not _drop_blurred(growth, place) and round_ > 0:
            break
    radii = growth.radii()
    for _ in range(loops):
        for _ in range(_ROUNDS):
            if not join(growth, radii):
                return None
            graph, names = _graph(growth, place.unit)
            joints = (growth.joins[-1][0], growth.joins[-1][2])
            if all(_parts_cleanly(graph, names[joint], place) for joint in joints if joint in names):
                break
            growth.joins.pop()
        else:
            return None
    return _graph(growth, place.unit)[0]


def _drop_blurred(growth: Growth, place: Placement) -> bool:
    """Remove the smallest branch at each bifurcation where the voxels of the branches enclose a false loop."""
    graph, names = _graph(growth, place.unit)
    children = growth.children()
    unclear = [point for point in np.flatnonzero(children > 1) if not _parts_cleanly(graph, names[int(point)], place)]
    if not unclear:
        return False
    ends = _ends_beyond(growth)
    gone = np.zeros(len(children), bool)
    for point in unclear:
        below = np.flatnonzero(growth.parent == point)
        gone[below[ends[below].argmin()]] = True
    _cut(growth, gone)
    return True


def _parts_cleanly(graph: nx.MultiGraph, node: int, place: Placement) -> bool:
    """Whether the voxels around one bifurcation, taken by itself, have the topology of a ball."""
    centre = graph.nodes[node]["pos"]
    reach = 2 * graph.nodes[node]["radius"] + 8 * place.unit
    part = nx.MultiGraph()
    for u, v, data in graph.edges(node, data=True):
        order = slice(None) if data["start"] == node else slice(None, None, -1)
        points, radii = data["points"][order], data["radii"][order]
        count = int((np.linalg.norm(points - centre, axis=1) > reach).argmax()) or len(points)
        part.add_edge(u, v, points=points[: max(count, 2)], radii=radii[: max(count, 2)])
    key = b"".join(edge[name].tobytes() for *_, edge in part.edges(data=True) for name in ("points", "radii"))
    if key in place.clean:
        return True
    wide = reach + 2 * graph.nodes[node]["radius"]
    low = np.floor((centre - wide) / place.spacing)
    affine = np.diag([*place.spacing, 1.0])
    affine[:3, 3] = low * place.spacing
    x, y, z = (int(n) for n in np.ceil((centre + wide) / place.spacing) - low + 1)
    if betti_numbers(tube_distance(part, (x, y, z), affine, band=0.5 * place.unit) <= 0) != (1, 0, 0):
        return False
    place.clean.add(key)
    return True


def _cut(growth: Growth, gone: Bool[np.ndarray, " n"]) -> None:
    """Remove the marked points and everything beyond them."""
    for point, above in enumerate(growth.parent.tolist()):
        gone[point] |= above >= 0 and gone[above]
    growth.keep(~gone)


def _ends_beyond(growth: Growth) -> Int[np.ndarray, " n"]:
    """Number of ends that are reached from the root through each point."""
    ends = (growth.children() == 0).astype(int)
    for point in range(len(ends) - 1, 0, -1):
        if growth.parent[point] >= 0:
            ends[growth.parent[point]] += ends[point]
    return ends


def _drop_contacts(growth: Growth) -> bool:
    """Remove the smaller of any two branches whose walls come closer than the clearance away from their joint."""
    radii = 1.1 * growth.radii()  # the graph's radii vary by up to a tenth around Murray's
    pairs = _close_pairs(growth.points, radii)
    edge, first = _edges(growth)
    way = _way_along_tree(growth, pairs, edge, first)
    # Two branches that part at 50 degrees have walls CLEARANCE apart after a way of 2.4 (r + r' + CLEARANCE).
    touching = pairs[way > 2.4 * (radii[pairs].sum(1) + CLEARANCE) + 2 * STEP]
    if len(touching) == 0:
        return False
    ends = _ends_beyond(growth)
    a, b = edge[touching].T
    rank = -ends[first].astype(float) + np.arange(len(first)) / len(first)  # fewest ends, then the youngest
    gone = np.zeros(len(ends), bool)
    gone[first[np.where(rank[a] > rank[b], a, b)]] = True
    gone[growth.parent < 0] = False
    if not gone.any():
        return False
    _cut(growth, gone)
    return True


def _close_pairs(points: Float[np.ndarray, "n 3"], radii: Float[np.ndarray, " n"]) -> Int[np.ndarray, "m 2"]:
    """Pairs of points whose balls come closer than the clearance; thin points are searched apart from the thick."""
    thick = np.flatnonzero(radii > 2.0)
    thin = np.flatnonzero(radii <= 2.0)
    found = [np.empty((0, 2), int)]
    if len(thin):
        found.append(thin[cKDTree(points[thin]).query_pairs(4.0 + CLEARANCE, output_type="ndarray")])
    if len(thick):
        reach = radii[thick] + np.maximum(radii[thick].max(), 2.0) + CLEARANCE
        near = cKDTree(points).query_ball_point(points[thick], reach)
        found.append(np.stack([np.repeat(thick, [len(row) for row in near]), np.concatenate(near).astype(int)], axis=1))
    pairs = np.concatenate(found)
    apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    return pairs[apart < radii[pairs].sum(1) + CLEARANCE]


def _edges(growth: Growth) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " e"]]:
    """Edge of each point (a bifurcation ends its parent's edge), and the first point of each edge."""
    children = growth.children()
    starts = (growth.parent < 0) | (children[np.maximum(growth.parent, 0)] > 1)
    first = np.flatnonzero(starts)
    edge = np.cumsum(starts) - 1
    for point, above in enumerate(growth.parent.tolist()):
        if not starts[point]:
            edge[point] = edge[above]
    return edge, first


def _way_along_tree(growth: Growth, pairs, edge, first) -> Float[np.ndarray, " m"]:
    """Length of the way along the tree between two points; infinite between trees. Edges are numbered parents first."""
    step = np.linalg.norm(growth.points - growth.points[np.maximum(growth.parent, 0)], axis=1)
    along = np.zeros(len(step))
    for point, above in enumerate(growth.parent.tolist()):
        along[point] = 0.0 if above < 0 else along[above] + step[point]
    up = growth.parent[first]
    parent_edge = np.where(up >= 0, edge[up], -1)
    entry = along[pairs]
    at = edge[pairs]
    while (open_ := (at[:, 0] != at[:, 1]) & (at.min(1) >= 0)).any():
        row = np.flatnonzero(open_)
        side = at[row].argmax(1)
        climbing = at[row, side]
        entry[row, side] = along[np.maximum(up[climbing], 0)]
        at[row, side] = parent_edge[climbing]
    way = along[pairs].sum(1) - 2 * entry.min(1)
    return np.where(at[:, 0] == at[:, 1], way, np.inf)


def _graph(growth: Growth, unit: float) -> tuple[nx.MultiGraph, dict[int, int]]:
    """The tree of points with its anastomoses as a graph of ends and bifurcations, and the node of each such point."""
    points, radii, swell, neighbours = _with_joins(growth)
    degree = np.array([len(near) for near in neighbours])
    graph = nx.MultiGraph()
    names = {int(point): name for name, point in enumerate(np.flatnonzero(degree != 2))}
    for point, name in names.items():
        graph.add_node(name, pos=points[point] * unit, radius=float(radii[point] * unit))
    walked = set()
    for point in names:
        for step in neighbours[point]:
            chain = [point, step]
            while degree[chain[-1]] == 2:
                a, b = neighbours[chain[-1]]
                chain.append(b if a == chain[-2] else a)
            if (point, step) in walked:
                continue
            walked.add((chain[-1], chain[-2]))
            _add_edge(graph, names[point], names[chain[-1]], points[chain], radii[chain], swell[chain], unit)
    graph.graph["roots"] = [names[int(root)] for root in np.flatnonzero(growth.parent < 0)]
    graph.graph["root"] = graph.graph["roots"][0]
    return graph, names


def _with_joins(growth: Growth) -> tuple:
    """Points, radii, swelling and neighbours of each point, tree and anastomoses together."""
    points, radii, swell = [growth.points], [growth.radii()], [growth.swell]
    pairs = [(int(above), point) for point, above in enumerate(growth.parent) if above >= 0]
    count = len(growth.points)
    for end, curve, target, waves in growth.joins:
        chain = [end, *range(count, count + len(curve)), target]
        pairs += list(pairwise(chain))
        points.append(curve)
        radii.append(np.full(len(curve), growth.end_radius[end]))
        swell.append(waves)
        count += len(curve)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs:
        neighbours[a].append(b)
        neighbours[b].append(a)
    return np.concatenate(points), np.concatenate(radii), np.concatenate(swell), neighbours


def _add_edge(graph: nx.MultiGraph, u: int, v: int, points, radii, swell, unit: float) -> None:
    """One edge with a slowly varying radius that widens towards a thicker vessel it leaves."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    own = float(np.median(radii[1:-1])) if len(radii) > 2 else float(radii.min())
    profile = own * swell
    for end, distance in ((0, along), (-1, along[-1] - along)):
        widening = min(radii[end], 1.3 * own) - own
        if widening > 0:
            profile = profile + widening * np.exp(-distance / (1.5 * own))
    profile = np.maximum(profile, min(THINNEST, own))
    graph.add_edge(u, v, start=u, points=points * unit, radii=profile * unit, length=float(along[-1] * unit))
