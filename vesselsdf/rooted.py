"""A centreline graph as trees of branches that lead away from their roots: who follows whom, and in which order.

Strategy: each component becomes a maximum spanning tree (Prim) by the branches' smallest radii, from its root. In that
tree the way from the root to any node is a widest path (its narrowest place is wider than on any other way), and a loop
is cut at one of its narrowest branches, as blood would prefer. Branches that are not in the tree close a loop: they
keep their geometry, but have neither followers nor a Strahler order.
"""

import heapq
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.roots import roots_of


@dataclass(frozen=True)
class Branch:
    """An edge of the graph, from its end nearer to the root (proximal) to the other (distal)."""

    number: int  # place among `graph.edges`, from 0
    tree: int  # place among the roots, from 0
    proximal: Any
    distal: Any
    points: Float[np.ndarray, "n 3"]  # mm
    radii: Float[np.ndarray, " n"]  # mm
    length: float  # mm
    parent: int | None  # number of the branch that this one follows; none at the root
    generation: int  # junctions between the root (not counted) and this branch
    root_distance: float  # mm along the tree from the root to the proximal end
    closes_loop: bool
    order: int | None  # Strahler's; none of a branch that closes a loop


@dataclass(frozen=True)
class Forest:
    """All trees of a graph. Branches are sorted by tree, generation and distance from the root."""

    roots: list[Any]
    branches: list[Branch]
    node_orders: list[dict[Any, int]]  # of each tree: Strahler order of the branch to each node, of the root: of it all

    @cached_property
    def by_number(self) -> dict[int, Branch]:
        """Branches by their numbers."""
        return {branch.number: branch for branch in self.branches}

    @cached_property
    def into(self) -> dict[Any, Branch]:
        """The branch of its tree that leads to each node; roots have none."""
        return {branch.distal: branch for branch in self.branches if not branch.closes_loop}

    def path(self, node: Any) -> list[Branch]:
        """The branches from the root to a node, the one at the root first."""
        way = []
        while (branch := self.into.get(node)) is not None:
            way.append(branch)
            node = branch.proximal
        return way[::-1]


def forest(graph: nx.MultiGraph) -> Forest:
    """Direct all branches of a graph away from the roots (`roots_of`).

    >>> graph = nx.MultiGraph(roots=[0])
    >>> for node, place in enumerate([(0, 0, 0), (5, 0, 0), (9, 3, 0), (9, -3, 0)]):
    ...     graph.add_node(node, pos=np.array(place, dtype=float), radius=1.0)
    >>> for u, v in [(1, 0), (1, 2), (3, 1)]:
    ...     points = np.array([graph.nodes[u]["pos"], graph.nodes[v]["pos"]])
    ...     _ = graph.add_edge(u, v, start=u, points=points, radii=np.ones(2), length=5.0)
    >>> [(b.proximal, b.distal, b.generation, b.root_distance, b.order) for b in forest(graph).branches]
    [(0, 1, 0, 0.0, 2), (1, 2, 1, 5.0, 1), (1, 3, 1, 5.0, 1)]
    """
    numbers = {}
    for number, (u, v, key) in enumerate(graph.edges(keys=True)):
        numbers[u, v, key] = numbers[v, u, key] = number
    roots = roots_of(graph)
    branches: list[Branch] = []
    node_orders = []
    for tree, root in enumerate(roots):
        steps = spanning_tree(graph, root)
        orders = strahler({node: parent for node, (parent, _) in steps.items()})
        node_orders.append(orders)
        branches += tree_branches(graph, tree, steps, orders, numbers)
    branches.sort(key=lambda b: (b.tree, b.generation, b.root_distance, b.number))
    return Forest(roots, branches, node_orders)


def spanning_tree(graph: nx.MultiGraph, root: Any) -> dict[Any, tuple[Any, Any]]:
    """For each node of the root's component, in the order of discovery: the node before it and the key of their edge.

    The root has (None, None). A maximum spanning tree by the smallest radius of each edge; equal ones first come, first
    served.
    """
    steps: dict[Any, tuple[Any, Any]] = {}
    queue: list[tuple[float, int, Any, Any, Any]] = [(-np.inf, 0, root, None, None)]
    count = 0
    while queue:
        _, _, node, parent, key = heapq.heappop(queue)
        if node in steps:
            continue
        steps[node] = (parent, key)
        for _, other, next_key, edge in graph.edges(node, keys=True, data=True):
            if other not in steps:
                count += 1
                heapq.heappush(queue, (-float(edge["radii"].min()), count, other, node, next_key))
    return steps


def strahler(parents: dict[Any, Any]) -> dict[Any, int]:
    """Strahler order (Strahler 1957) of the branch to each node of a tree; ends have 1.

    parents: of each node (None of the root), parents before children.

    >>> strahler({0: None, 1: 0, 2: 1, 3: 1, 4: 0})
    {4: 1, 3: 1, 2: 1, 1: 2, 0: 2}
    """
    children: dict[Any, list[int]] = {}
    orders: dict[Any, int] = {}
    for node in reversed(parents):
        below = sorted(children.pop(node, []), reverse=True)
        tied = len(below) > 1 and below[0] == below[1]
        orders[node] = (below[0] if below else 1) + tied
        children.setdefault(parents[node], []).append(orders[node])
    return orders


def tree_branches(
    graph: nx.MultiGraph,
    tree: int,
    steps: dict[Any, tuple[Any, Any]],
    orders: dict[Any, int],
    numbers: dict[tuple[Any, Any, Any], int],
) -> list[Branch]:
    """The branches of one component; `steps` from `spanning_tree`, `orders` of nodes, `numbers` of edges."""
    into: dict[Any, int | None] = {}  # number of the branch of the tree that leads to a node
    distance: dict[Any, float] = {}
    generation: dict[Any, int] = {}  # of the branches that leave a node
    for node, (parent, key) in steps.items():
        if parent is None:
            into[node], distance[node], generation[node] = None, 0.0, 0
            continue
        into[node] = numbers[parent, node, key]
        distance[node] = distance[parent] + float(graph.edges[parent, node, key]["length"])
        generation[node] = generation[parent] + (graph.degree(node) > 2)
    found = []
    for u, v, key, edge in graph.edges(list(steps), keys=True, data=True):
        number = numbers[u, v, key]
        in_tree = into[u] == number or into[v] == number
        if in_tree:
            first = u if into[v] == number else v
        else:
            first = min((u, v), key=lambda node: distance[node])
        last = v if first == u else u
        forwards = first_node(graph, u, v, edge) == first
        found.append(
            Branch(
                number=number,
                tree=tree,
                proximal=first,
                distal=last,
                points=np.asarray(edge["points"] if forwards else edge["points"][::-1], dtype=np.float64),
                radii=np.asarray(edge["radii"] if forwards else edge["radii"][::-1], dtype=np.float64),
                length=float(edge["length"]),
                parent=into[first],
                generation=generation[first],
                root_distance=distance[first],
                closes_loop=not in_tree,
                order=orders[last] if in_tree else None,
            )
        )
    return found


def first_node(graph: nx.MultiGraph, u: Any, v: Any, edge: dict[str, Any]) -> Any:
    """The node at which the points of an edge begin: its `start`, or else the nearer of its two ends."""
    if "start" in edge:
        return edge["start"]
    away = [float(np.linalg.norm(edge["points"][0] - graph.nodes[node]["pos"])) for node in (u, v)]
    return u if away[0] <= away[1] else v
