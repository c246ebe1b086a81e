"""Centreline graphs in parts: what is settled is kept apart, what touches another part's branches is handed on.

A **seam** is a node where a branch goes on in another part; both parts have it, by the same name, a negative number
(all other nodes have positive ones). Of what a part has found only branches that end at a seam can still change, and
those that meet them at their other ends. These are the **open** graph; all others are **closed**. Nodes of both keep
their place and their branches (`elsewhere`, see `vesselsdf.skeleton`).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.skeleton import WIDTHS, length_of


def split(graph: nx.MultiGraph) -> tuple[nx.MultiGraph, nx.MultiGraph]:
    """The open and the closed graph of a graph with seams."""
    seams = open_seams(graph)
    near = seams | {other for seam in seams for other in graph[seam]}
    opened, closed = nx.MultiGraph(), nx.MultiGraph()
    for u, v, edge in graph.edges(data=True):
        part = opened if u in near or v in near else closed
        for node in (u, v):
            part.add_node(node, **graph.nodes[node])
        part.add_edge(u, v, **edge)
    for node in opened:
        held = graph.degree(node) - opened.degree(node)
        opened.nodes[node]["elsewhere"] = graph.nodes[node].get("elsewhere", 0) + held
    closed.add_nodes_from((node, data) for node, data in graph.nodes(data=True) if node not in opened)
    return opened, closed


def open_seams(graph: nx.MultiGraph) -> set[int]:
    """The seams whose other branch is in no part of the graph."""
    return {node for node, data in graph.nodes(data=True) if node < 0 and data.get("elsewhere", 0)}


def united(graphs: Iterable[nx.MultiGraph]) -> nx.MultiGraph:
    """Open graphs of neighbouring parts as one; seams that two of them have hold both branches."""
    result = nx.MultiGraph()
    for graph in graphs:
        for node, data in graph.nodes(data=True):
            if node in result:
                result.nodes[node]["elsewhere"] = 0
            else:
                result.add_node(node, **data)
        result.add_edges_from(graph.edges(data=True))
    return result


def packed(graph: nx.MultiGraph, name: str) -> dict[str, np.ndarray]:
    """A measured graph as arrays, whose names begin with `name`."""
    nodes, edges = list(graph.nodes(data=True)), list(graph.edges(data=True))
    points = [edge["points"] for *_, edge in edges]
    widths = [np.stack([edge[width] for width in WIDTHS], axis=1) for *_, edge in edges]
    ends = [(u, v) if edge["start"] == u else (v, u) for u, v, edge in edges]
    arrays: dict[str, Any] = {
        "nodes": np.array([node for node, _ in nodes], np.int64),
        "pos": np.array([data["pos"] for _, data in nodes]).reshape(-1, 3),
        "radius": np.array([data["radius"] for _, data in nodes], float),
        "elsewhere": np.array([data.get("elsewhere", 0) for _, data in nodes], np.int64),
        "ends": np.array(ends, np.int64).reshape(-1, 2),
        "sizes": np.array([len(part) for part in points], np.int64),
        "points": np.concatenate([np.zeros((0, 3)), *points]),
        "widths": np.concatenate([np.zeros((0, 3)), *widths]),
    }
    return {f"{name}_{key}": value for key, value in arrays.items()}


def unpacked(arrays: Mapping[str, np.ndarray], name: str) -> nx.MultiGraph:
    """The graph again, bit for bit."""
    graph = nx.MultiGraph()
    found = {key: arrays[f"{name}_{key}"] for key in ("nodes", "pos", "radius", "elsewhere")}
    for node, place, radius, elsewhere in zip(*(found[key] for key in found), strict=True):
        graph.add_node(int(node), pos=place, radius=float(radius))
        if elsewhere:
            graph.nodes[int(node)]["elsewhere"] = int(elsewhere)
    at = np.cumsum(arrays[f"{name}_sizes"])[:-1]
    points, widths = (np.split(arrays[f"{name}_{key}"], at) for key in ("points", "widths"))
    for (u, v), line, width in zip(arrays[f"{name}_ends"].tolist(), points, widths, strict=False):
        graph.add_edge(u, v, start=u, points=line, length=length_of(line), **dict(zip(WIDTHS, width.T, strict=True)))
    return graph
