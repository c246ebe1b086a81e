"""The graph of a set of voxels has its components and loops, whatever the voxels; pruning and merging keep them."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf import skeleton
from vesselsdf.topology.betti import betti_numbers


def graph_of(mask):
    return skeleton.voxel_graph(np.argwhere(mask), np.ones(3), lambda voxels: np.ones(len(voxels)))


def betti(graph):
    parts = nx.number_connected_components(graph) if len(graph) else 0
    return parts, graph.number_of_edges() - len(graph) + parts


def drawn(*rows):
    """A mask one voxel thick from a drawing."""
    return np.array([[c == "#" for c in row] for row in rows])[:, :, None]


@pytest.mark.parametrize(
    ("rows", "parts", "loops", "degrees"),
    [
        (["#"], 1, 0, [0]),
        (["####"], 1, 0, [1, 1]),
        (["#.#"], 2, 0, [0, 0]),
        (["##.", "#.."], 1, 0, None),  # three voxels that touch pairwise enclose nothing
        (["##", "##"], 1, 0, None),
        ([".#.", "#.#", ".#."], 1, 1, [2]),
        (["###", "#.#", "###"], 1, 1, None),
        ([".#...", "#.###", ".#..."], 1, 1, [1, 3]),
        (["..#..", "..#..", "##.##", "..#..", "..#.."], 1, 1, None),
        (["#...#", ".#.#.", "..#..", "..#..", "..#.."], 1, 0, [1, 1, 1, 3]),
        ([".###.", "#...#", "#####", "#...#", ".###."], 1, 2, None),
    ],
)
def test_small_drawings(rows, parts, loops, degrees):
    graph = graph_of(drawn(*rows))
    assert betti(graph) == (parts, loops)
    if degrees is not None:
        assert sorted(degree for _, degree in graph.degree) == degrees


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1.5), st.floats(0.05, 0.9), st.booleans())
def test_any_set_of_voxels_keeps_components_and_loops(seed, sigma, share, pruned):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(9, 10, 11)), sigma)
    mask = noise <= np.quantile(noise, share)
    graph = graph_of(mask)
    if pruned:
        skeleton.prune(graph, 1.0)
    assert betti(graph) == betti_numbers(mask)[:2]
    if pruned:
        assert all(degree != 2 or graph.has_edge(node, node) for node, degree in graph.degree)


def line(*places):
    return np.array(places, dtype=float)


def test_merging_joins_points_and_radii_in_order():
    graph = nx.MultiGraph()
    graph.add_nodes_from([0, 1, 2])
    graph.add_edge(1, 0, start=1, points=line((5, 0, 0), (2, 0, 0), (0, 0, 0)), radii=np.array([3.0, 2, 1]))
    graph.add_edge(2, 1, start=2, points=line((9, 0, 0), (5, 0, 0)), radii=np.array([4.0, 3.0]))
    skeleton.merge_degree_two(graph)
    ((u, v, edge),) = graph.edges(data=True)
    assert {u, v} == {0, 2}
    order = 1 if edge["start"] == 0 else -1
    assert edge["points"][::order, 0].tolist() == [0, 2, 5, 9]
    assert edge["radii"][::order].tolist() == [1, 2, 3, 4]


def star(*lengths, radius):
    """A junction of the given radius with straight branches that end in points."""
    graph = nx.MultiGraph()
    graph.add_node(0, pos=np.zeros(3), radius=radius)
    for k, length in enumerate(lengths, start=1):
        tip = np.eye(3)[k % 3] * length
        graph.add_node(k, pos=tip, radius=0.0)
        graph.add_edge(0, k, start=0, points=np.array([np.zeros(3), tip]))
    return graph


@pytest.mark.parametrize(
    ("lengths", "left"),
    [((20, 20, 3), 40), ((20, 20, 8), 48), ((3, 20, 3.5), 23.5), ((1, 2, 3), 5), ((1, 2, 3, 4), 7)],
)
def test_spurs_go_shortest_first_and_never_a_whole_component(lengths, left):
    graph = star(*lengths, radius=4.0)
    skeleton.prune(graph, 1.0)
    assert sum(skeleton.length_of(edge["points"]) for _, _, edge in graph.edges(data=True)) == left
    assert nx.is_connected(graph)


def test_two_junctions_within_a_voxel_become_one_and_loops_stay():
    graph = nx.MultiGraph()
    places = {0: (0, 0, 0), 1: (0.4, 0, 0), 2: (9, 0, 0), 3: (-9, 0, 0), 4: (0, 9, 0)}
    for node, place in places.items():
        graph.add_node(node, pos=np.array(place, float), radius=1.0)
    for u, v in [(0, 1), (0, 3), (0, 4), (1, 2), (4, 1)]:
        graph.add_edge(u, v, start=u, points=np.array([graph.nodes[u]["pos"], graph.nodes[v]["pos"]]))
    assert skeleton.join_junctions(graph, 0.3) == 0
    assert skeleton.join_junctions(graph, 1.0) == 1
    assert sorted(d for _, d in graph.degree) == [1, 1, 2, 4]
    assert graph.number_of_edges() - len(graph) + 1 == 1
    centre = next(n for n, d in graph.degree if d == 4)
    np.testing.assert_allclose(graph.nodes[centre]["pos"], [0.2, 0, 0])
    for u, v, edge in graph.edges(data=True):
        ends = [graph.nodes[edge["start"]]["pos"], graph.nodes[v if edge["start"] == u else u]["pos"]]
        np.testing.assert_allclose(edge["points"][[0, -1]], ends)
