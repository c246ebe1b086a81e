"""From samples and the links between them, as files of traced vessels hold them, to a graph of branches."""

from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Int

from vesselsdf.roots import roots_of
from vesselsdf.skeleton import length_of, merge_degree_two


def graph_of_samples(
    positions: Float[np.ndarray, "n 3"],
    widths: dict[str, Float[np.ndarray, " n"]],
    links: Int[np.ndarray, "m 2"],
    same: Any,
    roots: list[int] | None = None,
) -> nx.MultiGraph:
    """A graph whose branches run through the samples of degree two.

    A branch keeps the widths of its own samples, a node has the largest radius at its place.

    Args:
        positions: mm.
        widths: `radii` and whatever else of `skeleton.WIDTHS` there is, mm.
        links: pairs of samples that are joined.
        same: `networkx.utils.UnionFind` of the samples, those at one place together.
        roots: samples that begin a tree, if the file names them; they are kept as roots if they are nodes of the graph.
    """
    graph = nx.MultiGraph()
    for group in same.to_sets():
        first = min(group)
        graph.add_node(same[first], pos=positions[first], radius=float(widths["radii"][list(group)].max()))
    for a, b in links.tolist():
        along = {name: values[[a, b]] for name, values in widths.items()}
        graph.add_edge(same[a], same[b], points=positions[[a, b]], start=same[a], **along)
    merge_degree_two(graph)
    for _, _, edge in graph.edges(data=True):
        edge["length"] = length_of(edge["points"])
    graph.graph["roots"] = [same[root] for root in roots or [] if same[root] in graph]
    graph.graph["roots"] = roots_of(graph)
    if graph.graph["roots"]:
        graph.graph["root"] = graph.graph["roots"][0]
    return graph
