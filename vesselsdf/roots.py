"""Where each vessel tree begins: at its thickest end, or where the user says."""

import math
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.errors import InputError

# A given point belongs to a vessel if it lies within this many of its radii from the centreline: a point picked in a
# viewer is rarely on it.
ROOT_RADII = 4.0


def find_roots(graph: nx.MultiGraph) -> list[Any]:
    """The thickest end of each component (of a ring or a point: its thickest node), the longest component first."""
    rank = {node: k for k, node in enumerate(graph)}
    roots = []
    for nodes in nx.connected_components(graph):
        length = sum(edge["length"] for _, _, edge in graph.subgraph(nodes).edges(data=True))
        ends = [node for node in nodes if graph.degree(node) == 1] or list(nodes)
        thickest = max(ends, key=lambda node: (graph.nodes[node]["radius"], -rank[node]))
        roots.append((-length, -len(nodes), rank[thickest], thickest))
    return [root for *_, root in sorted(roots, key=lambda entry: entry[:3])]


def roots_of(graph: nx.MultiGraph) -> list[Any]:
    """One root for each component: those that `graph.graph["roots"]` (or `["root"]`) names, in its order; then the
    thickest ends of the other components.
    """
    component = {node: k for k, nodes in enumerate(nx.connected_components(graph)) for node in nodes}
    chosen: dict[int, Any] = {}
    named = [*graph.graph.get("roots", []), graph.graph.get("root")]
    for root in [*(root for root in named if root in component), *find_roots(graph)]:
        chosen.setdefault(component[root], root)
    return list(chosen.values())


def set_roots(graph: nx.MultiGraph, points: Any, reach: float | int | None = None) -> None:
    """Make the nodes nearest to the given points the roots of their components, in place.

    Args:
        graph: a centreline graph, RAS mm.
        points: (3,) or (n, 3), RAS mm, at most one for each component. Components without one keep their root (or get
            the thickest end). `graph.graph["root"]` becomes the root at the first point.
        reach: mm. A point farther than this from every centreline is refused, and an end of the component within this
            distance is preferred to nearer nodes. None: four radii of the vessel that is nearest to the point.

    Raises:
        InputError: a point is not finite, lies far from any vessel, or on the same component as an earlier one.

    >>> graph = nx.MultiGraph()
    >>> for node, x in enumerate([0.0, 20.0]):
    ...     graph.add_node(node, pos=np.array([x, 0, 0]), radius=1.0)
    >>> points = np.array([[0.0, 0, 0], [20, 0, 0]])
    >>> _ = graph.add_edge(0, 1, start=0, points=points, radii=np.ones(2), length=20.0)
    >>> set_roots(graph, [19.0, 1, 1])
    >>> graph.graph["root"]
    1
    """
    given = checked_points(points)
    component = {node: k for k, nodes in enumerate(nx.connected_components(graph)) for node in nodes}
    chosen: dict[int, Any] = {}
    for number, point in enumerate(given, start=1):
        node = root_at(graph, point, reach, number)
        if component[node] in chosen:
            raise InputError(
                f"root {number} at {place_text(point)} mm lies on the same vessel tree as an earlier root; "
                "give one point for each tree."
            )
        chosen[component[node]] = node
    graph.graph["roots"] = [chosen.get(component[root], root) for root in roots_of(graph)]
    graph.graph["root"] = next(iter(chosen.values()))


def checked_points(points: Any) -> Float[np.ndarray, "n 3"]:
    """The given point or points as (n, 3)."""
    try:
        given = np.atleast_2d(np.asarray(points, dtype=np.float64))
    except (TypeError, ValueError):
        given = np.zeros(0)
    if given.ndim != 2 or given.shape[1] != 3 or not len(given) or not np.isfinite(given).all():
        raise InputError(f"roots are {points!r}; give one point or several, each as three finite numbers in RAS mm.")
    return given


def root_at(graph: nx.MultiGraph, point: Float[np.ndarray, "3"], reach: float | int | None, number: int = 1) -> Any:
    """The node that is the root at a point (mm); see `set_roots`. `number`: of the point, for the message."""
    distance, radius, node = nearest_vessel(graph, point)
    limit = ROOT_RADII * radius if reach is None else reach
    if distance > limit:
        nearest = f"the nearest centreline is {distance:.2f} mm away" if node is not None else "there is no vessel"
        raise InputError(
            f"root {number} at {place_text(point)} mm is not at a vessel: {nearest} (limit {limit:.2f} mm); give a "
            "point (RAS mm) on the vessel, or a longer reach."
        )
    nodes = list(nx.node_connected_component(graph, node))
    away = np.linalg.norm(np.array([graph.nodes[k]["pos"] for k in nodes]) - point, axis=1)
    order = [(float(d), graph.degree(k) != 1, k) for d, k in zip(away, nodes, strict=True)]
    ends = [entry for entry in order if not entry[1] and entry[0] <= limit]
    return min(ends or order, key=lambda entry: entry[:2])[2]


def nearest_vessel(graph: nx.MultiGraph, point: Float[np.ndarray, "3"]) -> tuple[float, float, Any]:
    """Distance (mm) of a point to the nearest centreline, the radius there, and a node of that component."""
    best: tuple[float, float, Any] = (math.inf, 0.0, None)
    for node, attributes in graph.nodes(data=True):
        away = float(np.linalg.norm(np.asarray(attributes["pos"]) - point))
        best = min(best, (away, float(attributes["radius"]), node), key=lambda entry: entry[0])
    for u, _, edge in graph.edges(data=True):
        start, step = edge["points"][:-1], np.diff(edge["points"], axis=0)
        share = ((point - start) * step).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1e-300)
        share = np.clip(share, 0, 1)
        away = np.linalg.norm(start + share[:, None] * step - point, axis=1)
        k = int(away.argmin())
        if away[k] < best[0]:
            radius = edge["radii"][k] * (1 - share[k]) + edge["radii"][k + 1] * share[k]
            best = (float(away[k]), float(radius), u)
    return best


def place_text(point: Float[np.ndarray, "3"]) -> str:
    """A place in a message.

    >>> place_text(np.array([1.0, -2.25, 30]))
    '(1.0, -2.2, 30.0)'
    """
    return f"({', '.join(f'{c:.1f}' for c in point)})"
