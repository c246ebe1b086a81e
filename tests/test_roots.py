"""Roots: the thickest end, or the node at a point that the user gives."""

import networkx as nx
import numpy as np
import pytest

from vesselsdf.anatomy import decisions, terminals
from vesselsdf.anatomy import measure as measured
from vesselsdf.errors import InputError
from vesselsdf.roots import find_roots, roots_of, set_roots


def graph_of(nodes, edges):
    """Straight branches between nodes (place, radius)."""
    graph = nx.MultiGraph()
    for name, (place, radius) in nodes.items():
        graph.add_node(name, pos=np.array(place, dtype=float), radius=radius)
    for u, v in edges:
        points = np.linspace(graph.nodes[u]["pos"], graph.nodes[v]["pos"], 11)
        radii = np.linspace(graph.nodes[u]["radius"], graph.nodes[v]["radius"], 11)
        length = float(np.linalg.norm(points[-1] - points[0]))
        graph.add_edge(u, v, start=u, points=points, radii=radii, length=length)
    return graph


@pytest.fixture
def two_trees():
    """A fork 0-1-(2, 3), a longer vessel 4-5 100 mm beside it, and a lone point 6."""
    nodes = {
        0: ((0, 0, 0), 3.0),
        1: ((30, 0, 0), 2.5),
        2: ((60, 10, 0), 1.0),
        3: ((60, -10, 0), 1.5),
        4: ((0, 100, 0), 1.0),
        5: ((150, 100, 0), 2.0),
        6: ((0, 0, 500), 4.0),
    }
    return graph_of(nodes, [(0, 1), (1, 2), (1, 3), (4, 5)])


def test_the_thickest_end_of_each_component_is_its_root_the_longest_component_first(two_trees):
    assert find_roots(two_trees) == [5, 0, 6]
    two_trees.graph["roots"] = [3]
    assert roots_of(two_trees) == [3, 5, 6]


def test_nodes_may_have_any_names():
    graph = graph_of({"a": ((0, 0, 0), 1.0), (1, 2): ((5, 0, 0), 1.0)}, [("a", (1, 2))])
    assert find_roots(graph) == ["a"]


@pytest.mark.parametrize(
    ("point", "root"),
    [
        ((59, 11, 1), 2),
        ((62, -11, 0), 3),
        ((0, 5, 0), 0),
        ((31, 0, 0), 1),  # no end within reach: the nearest node
        ((27, 2, 0), 1),
        ((4, 99, 0), 4),
        ((0, 0, 510), 6),
    ],
)
def test_the_root_is_the_node_at_the_given_point(two_trees, point, root):
    set_roots(two_trees, point)
    assert two_trees.graph["root"] == root
    assert root in two_trees.graph["roots"]
    assert len(two_trees.graph["roots"]) == 3


def test_an_end_within_reach_is_preferred_to_a_nearer_junction(two_trees):
    set_roots(two_trees, (28, 0, 0), reach=30)
    assert two_trees.graph["root"] == 0


def test_several_points_root_several_trees_and_the_first_is_the_root(two_trees):
    set_roots(two_trees, [(60, 10, 0), (0, 100, 0)])
    assert two_trees.graph["roots"] == [4, 2, 6]  # the longest component first
    assert two_trees.graph["root"] == 2
    assert decisions(two_trees)["terminals_reached"] == 2
    ways = {row["node"]: row["length"] for row in terminals(measured(two_trees))}
    assert ways == {5: 150, 0: pytest.approx(30 + np.hypot(30, 10)), 3: pytest.approx(2 * np.hypot(30, 10))}


def test_a_point_far_from_any_vessel_is_refused_with_the_distance(two_trees):
    with pytest.raises(InputError, match=r"root 1 at \(30\.0, 40\.0, 0\.0\) mm .* 37\.95 mm away"):
        set_roots(two_trees, (30, 40, 0))
    with pytest.raises(InputError, match=r"root 2 .* 37\.95 mm away \(limit 1\.00 mm\)"):
        set_roots(two_trees, [(0, 0, 0.5), (30, 40, 0)], reach=1)
    assert "roots" not in two_trees.graph


def test_two_points_on_one_tree_are_refused(two_trees):
    with pytest.raises(InputError, match=r"root 2 at \(60\.0, 10\.0, 0\.0\) mm lies on the same vessel tree"):
        set_roots(two_trees, [(0, 0, 0), (60, 10, 0)])


@pytest.mark.parametrize("points", [[], [1, 2], [np.nan, 0, 0], [[0, 0, 0, 0]], np.zeros((1, 1, 3)), "here"])
def test_what_is_no_point_is_refused(two_trees, points):
    with pytest.raises(InputError, match="three finite numbers"):
        set_roots(two_trees, points)


def test_a_graph_without_vessels_has_no_roots_and_takes_none():
    assert roots_of(nx.MultiGraph()) == []
    with pytest.raises(InputError, match="there is no vessel"):
        set_roots(nx.MultiGraph(), (0, 0, 0))
