"""The centreline graph of a blockwise reconstruction: traced in regions, joined across their faces two and two.

`trace`: the graph of the skeleton in a region (`vesselsdf.graph`). A branch that goes on in the next region ends there
at a seam (`blockwise.graph_parts`). `join-1`, `join-2`, ...: the open graphs of neighbouring regions together; branches
at their common seams are put together, spurs among them taken off, and measured again. So a task holds a region, or
what lies near the faces of several.

Homotopy type. Which voxels are joined by an edge is the same seen from both sides: `exact_edges` decides it within
clusters of voxels that touch in threes, and the halo holds those of the region whole. The edges that cross a face are
divided by their seams; the union of the regions' graphs is therefore a subdivision of the graph of the whole skeleton.
What is done to it afterwards contracts branches and takes off terminal ones, which changes no component and no loop.
"""

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Int64
from scipy import sparse

from vesselsdf.blockwise.graph_parts import open_seams, packed, split, united, unpacked
from vesselsdf.blockwise.plan import JOINING, TRACING, Block, Plan, Task, mark
from vesselsdf.blockwise.skeleton import band_near, deepest, skeleton, within
from vesselsdf.errors import RunError
from vesselsdf.field_store import FieldStore
from vesselsdf.graph import in_world, measure, neighbours, renamed, to_world
from vesselsdf.graph_files.whole import write_json
from vesselsdf.skeleton import adjacent_pairs, exact_edges, in_triangles, merge_degree_two, prune, voxel_graph

HALO = 16
"""Voxels around a region that are looked at to see which voxels are joined; twice as many until that is sure."""
FOLDER = "centreline"
MOST = 300_000
"""Branches up to which the parts are written as one graph, too."""


def trace(folder: Path, plan: Plan, store: FieldStore, turn: int, region: Block) -> dict[str, Any]:
    """The graph of a region, open and closed."""
    low, high = plan.region(region)
    voxels, pairs, crossing = _edges(folder, plan, turn, low, high)
    if not len(voxels):
        return packed(nx.MultiGraph(), "open") | packed(nx.MultiGraph(), "closed")
    middles = crossing.mean(axis=1)
    points = np.concatenate([voxels, middles])
    first = _number(plan, crossing[:, 0])
    way = (crossing[:, 1] - crossing[:, 0] + 1) @ np.array([9, 3, 1])
    names = np.concatenate([_number(plan, voxels), -1 - (27 * first + way)])
    band = band_near(folder, plan, store, voxels, _margin(deepest(folder, plan, turn, low, high)))

    def depth(places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        return -band.at(tuple(np.floor(places).astype(np.int64).T)).astype(np.float64)

    graph = renamed(voxel_graph(points, band.spacing, depth, pairs), names)
    for node in graph:
        if node < 0:
            graph.nodes[node]["elsewhere"] = 1
    prune(graph, band.voxel)
    measure(graph, band)
    return _result(folder, plan, f"{TRACING}-{turn}", region, graph)


def join(folder: Path, plan: Plan, store: FieldStore, phase: str, group: Block) -> dict[str, Any]:
    """What is open in the parts of a group, put together: what is still open, and what is closed now."""
    turn, number = map(int, phase.split("-")[1:])
    graph = united(_kept(folder, part, "open") for part in plan.parts(phase, group))
    if merged := merge_degree_two(graph):
        low, high = plan.region(group, number)
        points = np.concatenate([edge["points"] for *_, edge in graph.edges(data=True)])
        voxels = np.rint(points / plan.spacing).astype(np.int64)
        band = band_near(folder, plan, store, voxels, _margin(deepest(folder, plan, turn, low, high)))
        changed = merged | prune(graph, band.voxel, near=merged | neighbours(graph, merged))
        measure(graph, band, {node for node in changed if node in graph})
    if phase == plan.joining(turn)[-1] and open_seams(graph):
        raise RunError(f"{folder}: the regions' centrelines do not fit together; please report this.")
    return _result(folder, plan, phase, group, graph)


def closed_parts(plan: Plan, turn: int) -> list[Task]:
    """The tasks that leave parts of the graph."""
    return [(phase, block) for phase in (f"{TRACING}-{turn}", *plan.joining(turn)) for block in plan.blocks(phase)]


def collected(
    folder: Path, plan: Plan, turn: int
) -> tuple[Int64[np.ndarray, " n"], Float[np.ndarray, "n 3"], Int64[np.ndarray, "m 2"]]:
    """Of all parts: names of the nodes, their voxels, and the nodes that branches join."""
    nodes, places, ends = [], [], []
    for part in closed_parts(plan, turn):
        with np.load(mark(folder, *part), allow_pickle=False) as found:
            nodes.append(found["closed_nodes"])
            places.append(found["closed_pos"])
            ends.append(found["closed_ends"])
    names, first = np.unique(np.concatenate(nodes), return_index=True)
    return names, np.concatenate(places)[first] / plan.spacing, np.concatenate(ends)


def betti_of(names: Int64[np.ndarray, " n"], ends: Int64[np.ndarray, "m 2"]) -> dict[str, int]:
    """Components and loops of a graph."""
    at = np.searchsorted(names, ends)
    matrix = sparse.coo_matrix((np.ones(len(at), bool), at.T), shape=(len(names),) * 2)
    trees = int(sparse.csgraph.connected_components(matrix, directed=False)[0])
    return {"components": trees, "loops": len(ends) - len(names) + trees}


def centreline(folder: Path, plan: Plan, turn: int) -> nx.MultiGraph:
    """The graph of the whole, RAS mm, nodes numbered from 0."""
    graph = nx.MultiGraph()
    for part in closed_parts(plan, turn):
        found = _kept(folder, part, "closed")
        graph.add_nodes_from(found.nodes(data=True))
        graph.add_edges_from(found.edges(data=True))
    for _, data in graph.nodes(data=True):
        data.pop("elsewhere", None)
    return in_world(graph, np.full(3, plan.spacing), np.array(plan.affine), np.zeros(3, int))


def _edges(
    folder: Path, plan: Plan, turn: int, low: np.ndarray, high: np.ndarray
) -> tuple[Int64[np.ndarray, "n 3"], Int64[np.ndarray, "m 2"], Int64[np.ndarray, "k 2 3"]]:
    """Voxels of a region's skeleton, the edges among them and their seams, and the voxels that each seam joins.

    Seams are numbered after the voxels.
    """
    halo, spacing = HALO, np.full(3, plan.spacing)
    while True:
        first, last = plan.around(low, high, halo)
        voxels = skeleton(folder, plan, turn, first, last)
        own = np.all((voxels >= low) & (voxels < high), axis=1)
        pairs = adjacent_pairs(voxels)
        touching = pairs[in_triangles(len(voxels), pairs)]
        matrix = sparse.coo_matrix((np.ones(len(touching), bool), touching.T), shape=(len(voxels),) * 2)
        cluster = sparse.csgraph.connected_components(matrix, directed=False)[1] if len(voxels) else own
        border = np.any((voxels == first) & (first > 0) | (voxels == last - 1) & (last < plan.shape), axis=1)
        if not np.isin(cluster[border], cluster[own]).any():
            break
        halo *= 2
    kept = exact_edges(voxels, pairs, spacing)
    inside = own[kept].sum(axis=1)
    number = np.cumsum(own) - 1
    crossing = kept[inside == 1]
    mine = np.where(own[crossing[:, 0]], crossing[:, 0], crossing[:, 1])
    seams = np.stack([number[mine], own.sum() + np.arange(len(crossing))], axis=1)
    return within(voxels, low, high), np.concatenate([number[kept[inside == 2]], seams]), voxels[crossing]


def _number(plan: Plan, voxels: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """Voxels of the volume as numbers."""
    return np.ravel_multi_index(tuple(voxels.T), plan.shape)


def _margin(deepest_voxel: float) -> float:
    """Voxels around the skeleton that measuring may look at: ends are looked for up to four radii ahead."""
    return 4 * deepest_voxel + 8


def _kept(folder: Path, part: Task, name: str) -> nx.MultiGraph:
    """A graph that a task left."""
    with np.load(mark(folder, *part), allow_pickle=False) as found:
        return unpacked(found, name)


def _result(folder: Path, plan: Plan, phase: str, block: Block, graph: nx.MultiGraph) -> dict[str, Any]:
    """What a task leaves; closed parts of several are files, too."""
    opened, closed = split(graph)
    result = packed(opened, "open") | packed(closed, "closed")
    if len(closed) and len(closed_parts(plan, 1)) > 1:
        for _, data in closed.nodes(data=True):
            data.pop("elsewhere", None)
        to_world(closed, np.array(plan.affine), np.full(3, plan.spacing), np.zeros(3, int))
        level = phase.split("-")[2] if phase.startswith(JOINING) else 0
        write_json(closed, folder / FOLDER / ("_".join(map(str, (level, *block))) + ".json"))
    return result
