import networkx as nx
import numpy as np
import pytest

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.synthesis.trees import grow_tree
from vesselsdf.topology.betti import betti_numbers

ISOTROPIC = (1.0, 1.0, 1.0)


def loops_of(graph):
    return graph.number_of_edges() - graph.number_of_nodes() + nx.number_connected_components(graph)


@pytest.mark.parametrize(
    ("shape", "spacing", "loops", "trees"),
    [
        ((64, 64, 64), ISOTROPIC, 0, 1),
        ((96, 80, 64), ISOTROPIC, 2, 1),
        ((80, 80, 80), (0.4, 0.4, 0.4), 1, 2),
        ((96, 96, 48), (0.6, 0.6, 1.2), 1, 1),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_voxels_and_graph_have_the_topology_that_was_asked_for(shape, spacing, loops, trees, seed):
    graph = grow_tree(seed, shape, spacing, loops, trees=trees)
    assert nx.number_connected_components(graph) == trees
    assert loops_of(graph) == loops
    affine = np.diag([*spacing, 1.0])
    assert betti_numbers(tube_distance(graph, shape, affine) <= 0) == (trees, loops, 0)


def test_the_same_seed_gives_the_same_tree_and_another_seed_another():
    first, again, other = (grow_tree(seed, (64, 64, 64), ISOTROPIC, loops=1) for seed in (5, 5, 6))
    assert list(first.edges) == list(again.edges)
    for (*_, one), (*_, two) in zip(first.edges(data=True), again.edges(data=True), strict=True):
        assert np.array_equal(one["points"], two["points"])
        assert np.array_equal(one["radii"], two["radii"])
    assert not np.array_equal(first.nodes[0]["pos"], other.nodes[0]["pos"])


def test_nodes_are_ends_and_bifurcations_and_edges_lead_from_node_to_node():
    shape, spacing = (96, 96, 60), (0.5, 0.5, 0.8)
    graph = grow_tree(2, shape, spacing, loops=2)
    assert all(degree != 2 for _, degree in graph.degree())
    for u, v, edge in graph.edges(data=True):
        end = v if edge["start"] == u else u
        np.testing.assert_allclose(edge["points"][0], graph.nodes[edge["start"]]["pos"])
        np.testing.assert_allclose(edge["points"][-1], graph.nodes[end]["pos"])
        assert edge["radii"].shape == edge["points"].shape[:1]
        steps = np.linalg.norm(np.diff(edge["points"], axis=0), axis=1)
        assert edge["length"] == pytest.approx(steps.sum())
        inside = (edge["points"] >= 0) & (edge["points"] <= (np.array(shape) - 1) * spacing)
        assert inside.all()
    root = graph.graph["root"]
    assert graph.degree(root) == 1
    ends = [node for node, degree in graph.degree() if degree == 1]
    assert graph.nodes[root]["radius"] == max(graph.nodes[node]["radius"] for node in ends)


@pytest.mark.parametrize("exponent", [2.0, 3.0])
def test_radii_follow_murrays_law(exponent):
    graph = grow_tree(1, (96, 96, 96), ISOTROPIC, murray=exponent, largest=40 / 3, branches=25)
    ends = [
        graph.nodes[node]["radius"] for node, degree in graph.degree() if degree == 1 and node != graph.graph["root"]
    ]
    root = graph.nodes[graph.graph["root"]]["radius"]
    assert root**exponent == pytest.approx((np.array(ends) ** exponent).sum())


@pytest.mark.parametrize(("murray", "radii"), [(3.0, (0.87, 0.9)), (2.6, (2.0, 3.0))])
def test_trees_can_be_thin_and_thick(murray, radii):
    graph = grow_tree(4, (96, 96, 96), ISOTROPIC, loops=1, branches=20, murray=murray, terminal_radius=radii)
    ends = [graph.nodes[node]["radius"] for node, degree in graph.degree() if degree == 1]
    assert radii[0] <= min(ends) <= radii[1]
    for *_, edge in graph.edges(data=True):
        assert edge["radii"].min() >= 0.9 * radii[0] - 0.04
        assert edge["radii"].max() <= 1.5 * 96 / 11


def test_branches_bend_and_split_unevenly():
    graph = grow_tree(3, (128, 128, 128), ISOTROPIC, loops=2)
    edges = [edge for *_, edge in graph.edges(data=True)]
    chord = np.array([np.linalg.norm(edge["points"][-1] - edge["points"][0]) for edge in edges])
    tortuosity = np.array([edge["length"] for edge in edges]) / chord
    assert 1.005 < np.median(tortuosity) < 1.25
    radii = np.array([np.median(edge["radii"]) for edge in edges])
    assert radii.max() > 2 * radii.min()
    filled = (tube_distance(graph, (128, 128, 128), np.eye(4), band=1.0) <= 0).mean()
    assert 0.003 < filled < 0.015
    assert sum(degree > 2 for _, degree in graph.degree()) >= 15


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (12, 64, 64)}, "too small"),
        ({"loops": -1}, "loops is -1"),
        ({"trees": 0}, "trees is 0"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"terminal_radius": (0.3, 1.0)}, "terminal_radius"),
        ({"terminal_radius": (3.0, 20.0)}, "terminal_radius"),
    ],
)
def test_what_cannot_be_grown_is_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        grow_tree(0, **{"shape": (64, 64, 64), "spacing": ISOTROPIC, **arguments})


@pytest.mark.slow
@pytest.mark.parametrize(("size", "loops", "bifurcations"), [(256, 4, 89), (512, 6, 319)])
def test_large_trees_have_the_size_they_are_known_for(size, loops, bifurcations):
    graph = grow_tree(0, (size,) * 3, ISOTROPIC, loops)
    assert loops_of(graph) == loops
    assert sum(degree > 2 for _, degree in graph.degree()) == pytest.approx(bifurcations, rel=0.1)
