"""Anatomy of a centreline graph: Strahler orders, widest paths, and the decisions that rest on them."""

import heapq
from typing import Any

import networkx as nx
import numpy as np


def decisions(graph: nx.MultiGraph) -> dict[str, Any]:
    """What a reader of the tree would decide from it, as plain numbers and lists (mm).

    Keys: `trees` (components), `branches`, `loops` (independent cycles), `total_length`, `strahler_order` (the highest,
    of breadth-first trees from the roots: loops are cut), `terminals` and `terminals_reached` (ends other than the
    roots, and how many of them are connected to `graph.graph["root"]`), `terminals_per_tree` and `loops_per_tree`
    (longest tree first), `paths`: for each terminal its `place`, whether it is `reached` from the root, and the
    `length`, `minimum_radius` and `narrowest_place` of the path from the root of its tree. With loops that path is the
    widest one: the path whose narrowest place is widest.
    """
    root = graph.graph.get("root")
    trees, loops, paths, order = [], [], [], 0
    for start in graph.graph.get("roots", []):
        orders = strahler(graph, start)  # of all nodes of this tree
        loops.append(sum(graph.degree(node) for node in orders) // 2 - len(orders) + 1)
        found = [{**path, "reached": root in orders} for path in widest_paths(graph, start)]
        trees.append(len(found))
        paths.extend(found)
        order = max(order, max(orders.values()))
    return {
        "trees": len(trees),
        "branches": graph.number_of_edges(),
        "loops": sum(loops),
        "total_length": float(sum(edge["length"] for _, _, edge in graph.edges(data=True))),
        "strahler_order": order,
        "terminals": sum(trees),
        "terminals_reached": sum(path["reached"] for path in paths),
        "terminals_per_tree": trees,
        "loops_per_tree": loops,
        "paths": paths,
    }


def widest_paths(graph: nx.MultiGraph, root: int) -> list[dict[str, Any]]:
    """For each terminal of the root's tree, the path from the root whose narrowest place is widest (by Prim)."""
    state = {root: (np.inf, 0.0, graph.nodes[root]["pos"])}  # narrowest radius, length, place of the narrowest radius
    queue = [(-np.inf, 0, root, root, None)]
    done: set[int] = set()
    count = 0
    while queue:
        _, _, node, parent, edge = heapq.heappop(queue)
        if node in done:
            continue
        done.add(node)
        if edge is not None:
            width, length, place = state[parent]
            k = int(np.argmin(edge["radii"]))
            if edge["radii"][k] < width:
                width, place = float(edge["radii"][k]), edge["points"][k]
            state[node] = (width, length + edge["length"], place)
        for _, other, next_edge in graph.edges(node, data=True):
            if other not in done:
                count += 1
                width = min(state[node][0], float(next_edge["radii"].min()))
                heapq.heappush(queue, (-width, count, other, node, next_edge))
    ends = sorted(node for node in done if graph.degree(node) == 1 and node != root)
    return [
        {
            "place": graph.nodes[end]["pos"].tolist(),
            "length": state[end][1],
            "minimum_radius": state[end][0],
            "narrowest_place": np.asarray(state[end][2]).tolist(),
        }
        for end in ends
    ]


def strahler(graph: nx.MultiGraph, root: int) -> dict[int, int]:
    """Strahler order (Strahler 1957) of the branch to each node of a breadth-first tree from the root; ends have 1."""
    parents: dict[int, int] = {root: root}
    visited = [root]
    for node in visited:
        for other in graph.neighbors(node):
            if other not in parents:
                parents[other] = node
                visited.append(other)
    children: dict[int, list[int]] = {}
    orders: dict[int, int] = {}
    for node in reversed(visited):
        below = sorted(children.pop(node, []), reverse=True)
        tied = len(below) > 1 and below[0] == below[1]
        orders[node] = (below[0] if below else 1) + tied
        children.setdefault(parents[node], []).append(orders[node])
    return orders
