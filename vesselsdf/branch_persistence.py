"""Branches of a vessel tree as features: how long each one lives along the tree, and through which neck it hangs on.

Homology is blind to a lost twig, because a branch that ends is no component, loop or cavity. Two filtrations of the
centreline graph see it, both by components of superlevel sets (0-dimensional persistence, elder rule):

* **Distance from the root** (geodesic, along the centreline; for a tree this is the TMD of Kanari et al. 2018). As the
  threshold falls from the farthest tip, a branch is born at each tip and dies at the fork where it meets one
  that reaches farther. Birth minus death is the length of the branch from its fork to its tip; the farthest tip of
  a tree lives until the root, at 0. Loops are not cut: the place of a loop from which both ways to the root are equally
  long is a local maximum of the distance, and so the tip of a branch of kind "loop".
* **Radius.** A bulge is born at its largest radius and dies at the radius of the widest neck through which it hangs on
  a wider part. A narrow place between two wide ones (a stenosis) is such a neck; a vessel that only tapers has none.
"""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from vesselsdf.anatomy import decisions
from vesselsdf.graph import centreline_graph
from vesselsdf.topology.decisions import REACH_IN_VOXELS, Description

# A bulge that is wider than its neck by less than this share is noise of the radius.
LEAST_RELIEF = 0.10


class Describe:
    """Describes the levels of a pyramid, called for each of them, finest first: `describe(sdf, affine)`.

    The roots of the finest level are kept where a coarser level still has an end near them: another choice among ends
    of about the same thickness would look like a lost terminal and a new one.
    """

    def __init__(self, finest: Callable[[], nx.MultiGraph] | None = None):
        """finest: gives the centreline graph of the first level, if it is known already."""
        self.finest = finest
        self.roots: np.ndarray | None = None

    def __call__(self, sdf: np.ndarray, affine: Float[np.ndarray, "4 4"]) -> Description:
        """The description of one level's field (mm, negative inside) on the grid of `affine`."""
        known, self.finest = self.finest, None
        graph = centreline_graph(sdf, affine) if known is None else known()
        if self.roots is None:
            self.roots = np.array([graph.nodes[root]["pos"] for root in graph.graph["roots"]]).reshape(-1, 3)
        else:
            reach = REACH_IN_VOXELS * float(np.linalg.norm(affine[:3, :3], axis=0).max())
            graph = rooted_near(graph, self.roots, reach)
        return describe(graph)


def describe(graph: nx.MultiGraph) -> Description:
    """Decisions, branches, necks and the centreline in pieces, of a graph as `centreline_graph` makes it."""
    edges = [edge for _, _, edge in graph.edges(data=True)]
    none = np.zeros((0, 3))
    middles = np.concatenate([none, *[(edge["points"][1:] + edge["points"][:-1]) / 2 for edge in edges]])
    steps = np.concatenate([none, *[np.diff(edge["points"], axis=0) for edge in edges]])
    return Description(decisions(graph), branches(graph), necks(graph), middles, np.linalg.norm(steps, axis=1))


def rooted_near(graph: nx.MultiGraph, places: Float[np.ndarray, "n 3"], reach: float) -> nx.MultiGraph:
    """The graph with each tree's root moved to its end nearest to one of `places`, if that is within `reach`.

    `graph.graph["root"]` is the root nearest to the first place within reach; else as it was.
    """
    if not len(places) or not graph.graph["roots"]:
        return graph
    tree = cKDTree(places)
    tree_of = {node: k for k, nodes in enumerate(nx.connected_components(graph)) for node in nodes}
    nearest: dict[int, tuple[float, Any]] = {}
    for node, degree in graph.degree:
        if degree <= 1:
            nearest[tree_of[node]] = min(
                nearest.get(tree_of[node], (np.inf, node)), (tree.query(graph.nodes[node]["pos"])[0], node)
            )
    result = graph.copy()
    roots = [
        near[1] if (near := nearest.get(tree_of[root], (np.inf, root)))[0] <= reach else root
        for root in graph.graph["roots"]
    ]
    away = np.linalg.norm(np.array([graph.nodes[root]["pos"] for root in roots]) - places[0], axis=1)
    result.graph["roots"] = roots
    result.graph["root"] = roots[int(away.argmin()) if away.min() <= reach else 0]
    return result


def branches(graph: nx.MultiGraph) -> list[dict[str, Any]]:
    """The branches of the filtration by geodesic distance from the roots, longest first; see the head of this module.

    Each has `place` (the tip), `fork` (where it ends on a longer branch; of the farthest branch of a tree, the root),
    `kind` ("end" or "loop"), `birth` and `death` (distances of tip and fork from the root), `length` (the difference),
    all mm, and `minimum_radius` and `maximum_radius` along it, forks included. Branches without length are left out.

    >>> graph = nx.MultiGraph(roots=[0])
    >>> for node, x in enumerate([0.0, 6.0, 10.0]):
    ...     graph.add_node(node, pos=np.array([x, 0, 0]), radius=1.0)
    >>> for u, v, length in [(0, 1, 6.0), (1, 2, 4.0)]:
    ...     points = np.array([graph.nodes[u]["pos"], graph.nodes[v]["pos"]])
    ...     _ = graph.add_edge(u, v, points=points, radii=np.ones(2), start=u, length=length)
    >>> [(b["length"], b["place"], b["fork"]) for b in branches(graph)]
    [(10.0, [10.0, 0.0, 0.0], [0.0, 0.0, 0.0])]
    """
    ends, lengths, points, radii, positions, roots = tables(graph)
    if not len(lengths):
        return []
    distance = from_roots(ends, lengths, len(positions), roots)
    degree = np.bincount(ends.ravel(), minlength=len(positions))
    # Where the two ends of a branch are both nearer than its middle, the farthest point of it is a tip of its own.
    top = (distance[ends].sum(axis=1) + lengths) / 2
    peaked = np.flatnonzero(top > distance[ends].max(axis=1) + 1e-9 * (1 + top))
    peaks = len(distance) + np.arange(peaked.size)
    whole = np.setdiff1d(np.arange(len(lengths)), peaked)
    edges = np.concatenate([ends[whole], np.stack([ends[peaked, 0], peaks], 1), np.stack([ends[peaked, 1], peaks], 1)])
    owner = np.concatenate([whole, peaked, peaked])
    height = np.concatenate([distance, top[peaked]])
    middle = [at_arc(points[e], top[e] - distance[ends[e, 0]]) for e in peaked.tolist()]
    places = np.concatenate([positions, np.array(middle).reshape(-1, 3)])
    extremes = np.array([(r.min(), r.max()) for r in radii])

    found = []
    down = steepest(edges, height)
    for tip, fork in superlevel_bars(edges, height):
        death = height[fork] if fork >= 0 else 0.0
        way, node = [], tip
        while node >= 0 and height[node] > death + 1e-9 and down[node] >= 0:
            way.append(owner[down[node]])
            node = int(edges[down[node]].sum() - node)
        if not way:
            continue
        found.append(
            {
                "place": places[tip].tolist(),
                "fork": places[fork if fork >= 0 else node].tolist(),
                "kind": "end" if tip < len(distance) and degree[tip] == 1 else "loop",
                "birth": float(height[tip]),
                "death": float(death),
                "length": float(height[tip] - death),
                "minimum_radius": float(extremes[way, 0].min()),
                "maximum_radius": float(extremes[way, 1].max()),
            }
        )
    return sorted(found, key=lambda branch: (-branch["length"], branch["place"]))


def necks(graph: nx.MultiGraph, least: float = LEAST_RELIEF) -> list[dict[str, Any]]:
    """Bulges that hang on a wider part through a neck, by the filtration of the radius: largest relief first.

    Each has `place` (the neck), `bulge` (the widest place behind it), `radius` of the neck and `bulge_radius`, mm.
    Bulges wider than their neck by less than the share `least` are left out.
    """
    ends, _, points, radii, positions, _ = tables(graph)
    if not len(ends):
        return []
    # Only the ends of each run of rising or falling radii matter; a node is as wide as the widest branch at it.
    places, height, edges = [positions], [np.full(len(positions), -np.inf)], []
    count = len(positions)
    for (u, v), line, radius in zip(ends.tolist(), points, radii, strict=True):
        height[0][[u, v]] = np.maximum(height[0][[u, v]], radius[[0, -1]])
        kept = turning_points(radius)
        chain = np.concatenate([[u], count + np.arange(kept.size), [v]])
        edges.append(np.stack([chain[:-1], chain[1:]], axis=1))
        places.append(line[kept])
        height.append(radius[kept])
        count += kept.size
    place, level = np.concatenate(places), np.concatenate(height)
    found = [
        {
            "place": place[neck].tolist(),
            "bulge": place[bulge].tolist(),
            "radius": float(level[neck]),
            "bulge_radius": float(level[bulge]),
        }
        for bulge, neck in superlevel_bars(np.concatenate(edges), level)
        if neck >= 0 and level[bulge] - level[neck] >= least * level[bulge] and level[bulge] > level[neck]
    ]
    return sorted(found, key=lambda neck: (neck["radius"] - neck["bulge_radius"], neck["place"]))


def turning_points(radius: Float[np.ndarray, " n"]) -> Int[np.ndarray, " k"]:
    """Inner positions at which a sequence stops rising or falling."""
    step = np.diff(radius)
    moving = np.flatnonzero(step)
    turns = np.flatnonzero(np.sign(step[moving[1:]]) != np.sign(step[moving[:-1]]))
    return moving[turns + 1]


def tables(graph: nx.MultiGraph) -> tuple:
    """The graph as arrays: ends (e, 2) by position of the node, lengths, points and radii from the first end on,
    positions (n, 3) of the nodes, and the roots by position."""
    number = {node: k for k, node in enumerate(graph)}
    positions = np.array([node["pos"] for _, node in graph.nodes(data=True)], float).reshape(-1, 3)
    ends, lengths, points, radii = [], [], [], []
    for u, v, edge in graph.edges(data=True):
        first, last = (u, v) if edge["start"] == u else (v, u)
        ends.append((number[first], number[last]))
        lengths.append(edge["length"])
        points.append(edge["points"])
        radii.append(edge["radii"])
    roots = np.array([number[root] for root in graph.graph.get("roots", [])], int)
    return np.array(ends, int).reshape(-1, 2), np.array(lengths, float), points, radii, positions, roots


def from_roots(
    ends: Int[np.ndarray, "e 2"], lengths: Float[np.ndarray, " e"], count: int, roots: Int[np.ndarray, " r"]
) -> Float[np.ndarray, " n"]:
    """Distance of each node from the nearest root, along the graph; a tree without a root starts at its first node."""
    order = np.argsort(-lengths, kind="stable")
    u, v = ends[order].min(axis=1), ends[order].max(axis=1)
    shortest = dict(zip(zip(u.tolist(), v.tolist(), strict=True), lengths[order].tolist(), strict=True))
    pairs = np.array([pair for pair in shortest if pair[0] != pair[1]], int).reshape(-1, 2)
    # csgraph reads an explicit zero as "no edge".
    values = [max(length, 1e-12) for pair, length in shortest.items() if pair[0] != pair[1]]
    matrix = coo_array((np.array(values, float), pairs.T), shape=(count, count)).tocsr()
    tree = connected_components(matrix, directed=False)[1]
    first = np.unique(tree, return_index=True)[1]
    sources = np.concatenate([roots, first[~np.isin(tree[first], tree[roots])]])
    return dijkstra(matrix, directed=False, indices=sources, min_only=True)


def at_arc(line: Float[np.ndarray, "n 3"], arc: float) -> Float[np.ndarray, "3"]:
    """The point of a line at a length from its beginning."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return np.array([np.interp(arc, along, line[:, axis]) for axis in range(3)])


def steepest(edges: Int[np.ndarray, "e 2"], height: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each node the edge to its lowest neighbour below it; -1 where there is none."""
    upper = np.where(height[edges[:, 0]] > height[edges[:, 1]], edges[:, 0], edges[:, 1])
    lower = edges.sum(axis=1) - upper
    down = np.full(len(height), -1)
    order = np.argsort(-height[lower], kind="stable")
    order = order[height[upper[order]] > height[lower[order]]]
    down[upper[order]] = order
    return down


def superlevel_bars(edges: Int[np.ndarray, "e 2"], height: Float[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Bars of components of the sets of nodes above a falling threshold: (node of birth, node of death or -1).

    The elder rule: where two components meet, the one that was born lower dies. An edge is there as soon as both its
    ends are. Bars of length zero are left out, but those that never die are all given.
    """
    parent = np.arange(len(height)).tolist()
    birth = list(parent)  # of the component, at its representative

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    rank = np.empty(len(height), int)
    rank[np.argsort(-height, kind="stable")] = np.arange(len(height))
    late = np.where(rank[edges[:, 0]] > rank[edges[:, 1]], edges[:, 0], edges[:, 1])
    bars = []
    for e in np.argsort(rank[late], kind="stable").tolist():
        a, b = find(int(edges[e, 0])), find(int(edges[e, 1]))
        if a == b:
            continue
        if rank[birth[a]] > rank[birth[b]]:
            a, b = b, a
        if height[birth[b]] > height[late[e]]:
            bars.append((birth[b], int(late[e])))
        parent[b] = a
    return bars + [(birth[node], -1) for node in range(len(height)) if parent[node] == node]
