"""Where a vessel tree begins: the thickest end of each component."""

import networkx as nx


def find_roots(graph: nx.MultiGraph) -> list[int]:
    """The thickest end of each component (of a ring or a point: its thickest node), the longest component first."""
    roots = []
    for nodes in nx.connected_components(graph):
        length = sum(edge["length"] for _, _, edge in graph.subgraph(nodes).edges(data=True))
        ends = [node for node in nodes if graph.degree(node) == 1] or list(nodes)
        thickest = max(ends, key=lambda node: (graph.nodes[node]["radius"], -node))
        roots.append((-length, -len(nodes), thickest))
    return [root for _, _, root in sorted(roots)]
