"""From the voxels of a skeleton to a graph with exactly its components and loops; then pruned of spurs.

Strategy. The union of closed voxels is homotopy equivalent to the flag complex of their 26-adjacency graph: boxes that
meet pairwise have a common point (Helly), so the flag complex is the nerve of the voxels. Where three voxels touch each
other pairwise, that complex has a triangle and the adjacency graph a false loop of three edges. So not all edges may
stay. Order the edges by length and compute the persistence of the triangles' edges over Z/2: an edge is kept if it
joins two components or if the loop that it closes is never filled by triangles. The loops of the kept edges form a
basis of H1 of the complex (edges in no triangle can neither be filled nor fill), so beta0 and beta1 of the graph are
those of the skeleton, for every input. All that follows (contracting edges between junction voxels, tracing branches,
pruning terminal branches, merging nodes of degree two) are homotopy equivalences of graphs.

Everything here is in voxel space scaled by the spacing: mm, but not yet turned and moved to the patient.

A graph may be a part of a larger one: the attribute `elsewhere` of a node says how many of its branches are not in it.
Such nodes are as they are: not moved, joined or removed.
"""

from collections.abc import Callable, Collection

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy import sparse

# A terminal branch that reaches (with its own radius) less than this many radii of the junction from it, plus one
# voxel, is a bump of the wall. The voxel is what the resolution of a mask can pretend.
SPUR_RADII = 1.1
SPUR_VOXELS = 1.0
SPUR_STICKS = 1.5

# Radii along an edge: of the disc with the section's area; the smallest and largest from its centroid to its wall.
WIDTHS = ("radii", "radii_min", "radii_max")

HALF_NEIGHBOURHOOD = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)][14:])


def voxel_graph(
    voxels: Real[np.ndarray, "n 3"],
    spacing: Float[np.ndarray, "3"],
    depth: Callable[[np.ndarray], np.ndarray],
    pairs: Int[np.ndarray, "m 2"] | None = None,
) -> nx.MultiGraph:
    """Graph of a skeleton, given by its voxels in C order, with the same beta0 and beta1.

    Nodes are ends, junctions, and one voxel of each plain ring; they are named by the number of their first voxel, and
    carry `pos` (3,) and `radius`; edges `points` (n, 3) along the voxels and `start`. `depth` gives the distance below
    the wall, in mm, for voxel coordinates (n, 3). `pairs`: those that are joined, if it is known (`exact_edges`).
    """
    if pairs is None:
        pairs = exact_edges(voxels, adjacent_pairs(voxels), spacing)
    degree = np.bincount(pairs.ravel(), minlength=len(voxels))
    positions = voxels * spacing
    radii = np.maximum(depth(voxels), 0.0)

    cluster = junction_clusters(len(voxels), pairs, degree)
    graph = nx.MultiGraph()
    members: dict[int, list[int]] = {}
    for voxel in np.flatnonzero(degree != 2).tolist():
        members.setdefault(int(cluster[voxel]), []).append(voxel)
    for node, inside in members.items():
        graph.add_node(node, pos=positions[inside].mean(axis=0), radius=float(radii[inside].max()))
    for path in trace(pairs, degree, cluster):
        a, b = int(cluster[path[0]]), int(cluster[path[-1]])
        if a not in graph:  # a plain ring, entered at a voxel of degree two
            graph.add_node(a, pos=positions[path[0]], radius=float(radii[path[0]]))
        points = positions[path]
        points[0], points[-1] = graph.nodes[a]["pos"], graph.nodes[b]["pos"]
        graph.add_edge(a, b, points=points, start=a)
    return graph


def adjacent_pairs(voxels: Int[np.ndarray, "n 3"]) -> Int[np.ndarray, "m 2"]:
    """All pairs of 26-adjacent voxels, as indices into the list `voxels`, which is in C order."""
    if not len(voxels):
        return np.zeros((0, 2), dtype=np.int64)
    shifted = voxels - voxels.min(axis=0) + 1
    shape = shifted.max(axis=0) + 2
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    keys = shifted @ strides
    pairs = []
    for step in HALF_NEIGHBOURHOOD @ strides:
        place = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        found = np.flatnonzero(keys[place] == keys + step)
        pairs.append(np.stack([found, place[found]], axis=1))
    return np.concatenate(pairs)


def exact_edges(
    voxels: Int[np.ndarray, "n 3"], pairs: Int[np.ndarray, "m 2"], spacing: Float[np.ndarray, "3"]
) -> Int[np.ndarray, "k 2"]:
    """The edges to keep so that the graph has the beta0 and beta1 of the voxels; see the head of this module."""
    in_triangle = in_triangles(len(voxels), pairs)
    if not in_triangle.any():
        return pairs
    import gudhi

    inner = pairs[in_triangle]
    used, edges = np.unique(inner, return_inverse=True)
    length = np.linalg.norm((voxels[inner[:, 0]] - voxels[inner[:, 1]]) * spacing, axis=1)
    tree = gudhi.SimplexTree()
    tree.insert_batch(np.arange(len(used))[None], np.zeros(len(used)))
    tree.insert_batch(np.ascontiguousarray(edges.reshape(-1, 2).T), length)
    tree.expansion(2)
    tree.compute_persistence(homology_coeff_field=2, min_persistence=-1.0)
    kept = [
        death if len(birth) == 1 else birth
        for birth, death in tree.persistence_pairs()
        if (len(birth) == 1 and death) or (len(birth) == 2 and not death)
    ]
    return np.concatenate([pairs[~in_triangle], used[np.array(kept, dtype=np.int64).reshape(-1, 2)]])


def in_triangles(n: int, pairs: Int[np.ndarray, "m 2"]) -> Bool[np.ndarray, " m"]:
    """Whether some third one of `n` voxels touches both of each pair."""
    if len(pairs) == 0:
        return np.zeros(0, bool)
    adjacency = sparse.coo_matrix((np.ones(len(pairs), dtype=np.int32), pairs.T), shape=(n, n)).tocsr()
    adjacency = adjacency + adjacency.T
    common = (adjacency @ adjacency).multiply(adjacency).tocsr()
    return np.asarray(common[pairs[:, 0], pairs[:, 1]]).ravel() > 0


def junction_clusters(n: int, pairs: Int[np.ndarray, "m 2"], degree: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """First voxel of each one's cluster; voxels of degree three or more that an edge joins share one."""
    both = (degree[pairs] > 2).all(axis=1)
    matrix = sparse.coo_matrix((np.ones(both.sum(), dtype=bool), pairs[both].T), shape=(n, n))
    labels = sparse.csgraph.connected_components(matrix, directed=False)[1]
    return np.unique(labels, return_index=True)[1][labels]


def trace(
    pairs: Int[np.ndarray, "m 2"], degree: Int[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> list[list[int]]:
    """Paths of voxels between nodes, through voxels of degree two; plain rings begin and end at one of their voxels.

    Edges within a cluster of junction voxels are contracted along a spanning forest; those left over close a loop
    inside the cluster and come out as paths of two voxels.
    """
    neighbours: list[list[int]] = [[] for _ in range(len(degree))]
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    paths = []
    seen = np.zeros(len(degree), dtype=bool)

    def follow(first: int, second: int) -> list[int]:
        path = [first, second]
        while degree[path[-1]] == 2 and path[-1] != first:
            seen[path[-1]] = True
            a, b = neighbours[path[-1]]
            path.append(b if a == path[-2] else a)
        return path

    for node in np.flatnonzero((degree != 2) & (degree > 0)).tolist():
        for other in neighbours[node]:
            if degree[other] == 2:
                if not seen[other]:
                    paths.append(follow(node, other))
            elif node < other and cluster[node] != cluster[other]:
                paths.append([node, other])
    for voxel in np.flatnonzero(degree == 2).tolist():
        if not seen[voxel]:
            seen[voxel] = True
            paths.append(follow(voxel, neighbours[voxel][0]))
    return paths + leftover_cycles(pairs, degree)


def leftover_cycles(pairs: Int[np.ndarray, "m 2"], degree: Int[np.ndarray, " n"]) -> list[list[int]]:
    """Edges between junction voxels that a spanning forest of these edges leaves over."""
    inner = pairs[(degree[pairs] > 2).all(axis=1)]
    forest = nx.utils.UnionFind()
    left = []
    for a, b in inner.tolist():
        if forest[a] == forest[b]:
            left.append([a, b])
        forest.union(a, b)
    return left


def valence(graph: nx.MultiGraph, node: int) -> int:
    """How many branches meet at a node, those `elsewhere` included."""
    return graph.degree(node) + graph.nodes[node].get("elsewhere", 0)


def is_whole(graph: nx.MultiGraph, node: int) -> bool:
    """Whether all branches of a node are in the graph."""
    return not graph.nodes[node].get("elsewhere", 0)


def length_of(points: Float[np.ndarray, "n 3"]) -> float:
    """Length of a polyline."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def merge_degree_two(graph: nx.MultiGraph, nodes: Collection[int] | None = None) -> set[int]:
    """Join the two branches (`points`, and those `WIDTHS` that both have) at each node of degree two, in place.

    nodes: those to look at, all unless given. A ring keeps one node. Returns the ends of the branches that were made.
    """
    ends_of_joined: set[int] = set()
    for node in list(graph if nodes is None else nodes):
        ends = list(graph.edges(node, keys=True, data=True))
        if valence(graph, node) != 2 or len(ends) != 2:
            continue
        (_, a, _, first), (_, b, _, second) = ends
        joined = {}
        for name in ("points", *WIDTHS):
            if name in first and name in second:
                before = first[name] if first["start"] != node else first[name][::-1]
                after = second[name] if second["start"] == node else second[name][::-1]
                joined[name] = np.concatenate([before, after[1:]])
        graph.remove_node(node)
        graph.add_edge(a, b, start=a, **joined)
        ends_of_joined |= {a, b}
    return {node for node in ends_of_joined if node in graph}


def join_junctions(graph: nx.MultiGraph, reach: float) -> int:
    """Make one of two junctions that a branch shorter than `reach` joins, in place: shortest first; how many went.

    Where four branches meet, thinning leaves two junctions of three. To contract a branch changes no loop.
    """
    joined = 0
    while True:
        short = [
            (length, u, v, key)
            for u, v, key, edge in graph.edges(keys=True, data=True)
            if u != v
            and is_whole(graph, u)
            and is_whole(graph, v)
            and graph.degree(u) > 2 < graph.degree(v)
            and (length := length_of(edge["points"])) < reach
        ]
        if not short:
            return joined
        _, kept, gone, key = min(short)
        graph.remove_edge(kept, gone, key)
        place = (graph.nodes[kept]["pos"] + graph.nodes[gone]["pos"]) / 2
        radius = max(graph.nodes[kept]["radius"], graph.nodes[gone]["radius"])
        for _, other, _, edge in list(graph.edges(gone, keys=True, data=True)):
            start = kept if edge["start"] == gone else edge["start"]
            graph.add_edge(kept, kept if other == gone else other, **{**edge, "start": start})
        graph.remove_node(gone)
        graph.nodes[kept].update(pos=place, radius=radius)
        for _, other, edge in graph.edges(kept, data=True):
            edge["points"] = edge["points"].copy()
            if edge["start"] == kept:
                edge["points"][0] = place
            if edge["start"] != kept or other == kept:
                edge["points"][-1] = place
        joined += 1


def protrusion(graph: nx.MultiGraph, end: int, junction: int) -> float:
    """How far the ball at an end reaches out of the round cones along the other branches at its junction."""
    place, outside = graph.nodes[end]["pos"], np.inf
    for u, v, edge in graph.edges(junction, data=True):
        if end not in (u, v):
            starts, radii = edge["points"][:-1], edge["radii"]
            steps = np.diff(edge["points"], axis=0)
            share = ((place - starts) * steps).sum(axis=1) / np.maximum((steps**2).sum(axis=1), 1e-300)
            share = share.clip(0, 1)
            away = np.linalg.norm(starts + share[:, None] * steps - place, axis=1)
            outside = min(outside, float((away - radii[:-1] - share * np.diff(radii)).min()))
    return outside + graph.nodes[end]["radius"]


def prune(graph: nx.MultiGraph, voxel: float, measured: bool = False, near: Collection[int] | None = None) -> set[int]:
    """Remove spurs, in place, shortest first, until there are none: never a loop and never a whole component.

    A spur is a terminal branch at a junction whose length and end radius together stay below `SPUR_RADII` times the
    junction's radius plus `SPUR_VOXELS` voxels; or, where radii are `measured` (ends lie one radius before the tip),
    one whose tip sticks out of the other branches there by less than `SPUR_STICKS` of its own radii, or `SPUR_VOXELS`
    voxels: a dome on the wall. `near`: only terminal branches at these nodes are looked at, where branches have changed
    since the last time. Returns the nodes whose branches have changed now.
    """
    fresh = merge_degree_two(graph)
    changed = set(fresh)
    around = set(graph) if near is None else {node for node in near if node in graph} | fresh
    while True:
        spurs = []
        for end in terminals_at(graph, around):
            ((_, junction, branch),) = graph.edges(end, data=True)
            if graph.degree(junction) < 3 or not is_whole(graph, junction):
                continue
            reach = length_of(branch["points"]) + graph.nodes[end]["radius"]
            if measured:
                bump = protrusion(graph, end, junction) < max(
                    SPUR_STICKS * graph.nodes[end]["radius"], SPUR_VOXELS * voxel
                )
            else:
                bump = reach < SPUR_RADII * graph.nodes[junction]["radius"] + SPUR_VOXELS * voxel
            if bump:
                spurs.append((reach, end, junction))
        lost = set()
        for _, end, junction in sorted(spurs):
            # Two spurs at one junction may be all that continues a branch: the longer one stays.
            if graph.degree(junction) > 2:
                graph.remove_node(end)
                lost.add(junction)
        if not lost:
            return {node for node in changed if node in graph}
        around = merge_degree_two(graph, lost)
        around |= {node for node in lost if node in graph}
        changed |= around


def terminals_at(graph: nx.MultiGraph, nodes: Collection[int]) -> set[int]:
    """The ends of the terminal branches at some nodes."""
    ends = {node for node in nodes if valence(graph, node) == 1}
    return ends | {other for node in nodes for other in graph[node] if valence(graph, other) == 1}
