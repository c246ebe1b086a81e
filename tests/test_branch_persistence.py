"""Branches as features: trees and rings worked out by hand, and a twig that a coarser level loses."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesselsdf.branch_persistence import Describe, branches, describe, necks, rooted_near
from vesselsdf.scales import pyramid
from vesselsdf.topology.survival import survival


def graph_of(places, edges, roots=(0,)):
    """A graph with straight branches; an edge is (u, v, radii)."""
    graph = nx.MultiGraph(roots=list(roots), root=roots[0])
    for node, place in enumerate(places):
        graph.add_node(node, pos=np.array(place, float), radius=1.0)
    for u, v, radii in edges:
        points = np.linspace(graph.nodes[u]["pos"], graph.nodes[v]["pos"], len(radii))
        length = float(np.linalg.norm(points[-1] - points[0]))
        graph.add_edge(u, v, start=u, points=points, radii=np.array(radii, float), length=length)
    return graph


def tree():
    """Root at 0; a fork at 10 with a branch of 20 and one of 5; on the long one, at 16, a twig of 3."""
    places = [(0, 0, 0), (10, 0, 0), (16, 0, 0), (30, 0, 0), (10, 5, 0), (16, 0, 3)]
    edges = [(0, 1, [3, 3]), (1, 2, [2, 2]), (2, 3, [2, 1.5]), (4, 1, [1, 1.2]), (2, 5, [0.5, 0.4])]
    return graph_of(places, edges)


def test_each_branch_lives_from_its_tip_to_the_fork_with_a_longer_one():
    found = branches(tree())
    assert [(b["birth"], b["death"], b["length"]) for b in found] == [(30, 0, 30), (15, 10, 5), (19, 16, 3)]
    assert [b["place"] for b in found] == [[30, 0, 0], [10, 5, 0], [16, 0, 3]]
    assert [b["fork"] for b in found] == [[0, 0, 0], [10, 0, 0], [16, 0, 0]]
    assert [(b["minimum_radius"], b["maximum_radius"]) for b in found] == [(1.5, 3), (1, 1.2), (0.4, 0.5)]
    assert {b["kind"] for b in found} == {"end"}


@given(st.integers(0, 2**32), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_the_branches_of_a_tree_share_out_its_length(seed, n):
    generator = np.random.default_rng(seed)
    places = generator.normal(size=(n + 1, 3))
    graph = graph_of(places, [(int(generator.integers(k)), k, [1, 1]) for k in range(1, n + 1)])
    found = branches(graph)
    tips = [node for node in graph if graph.degree(node) == 1 and node != 0]
    assert len(found) == len(tips)
    assert sum(b["length"] for b in found) == pytest.approx(sum(e["length"] for _, _, e in graph.edges(data=True)))


def test_the_far_point_of_a_loop_is_the_tip_of_a_branch_of_its_own_kind():
    square = [(0, 0, 0), (10, 0, 0), (10, 10, 0), (0, 10, 0), (-4, 0, 0)]
    edges = [(4, 0, [1, 1]), (0, 1, [1, 1]), (1, 2, [1, 1]), (3, 2, [1, 1]), (3, 0, [1, 1])]
    (loop,) = branches(graph_of(square, edges, roots=(4,)))
    assert (loop["kind"], loop["place"], loop["birth"], loop["death"]) == ("loop", [10, 10, 0], 24, 0)
    # Two parallel branches of the same ends: the far point lies inside the longer one.
    graph = graph_of([(0, 0, 0), (4, 0, 0)], [(0, 1, [1, 1])])
    detour = np.array([(0, 0, 0), (0, 4, 0), (4, 4, 0), (4, 0, 0)], float)
    graph.add_edge(0, 1, start=0, points=detour, radii=np.ones(4), length=12.0)
    (far,) = branches(graph)
    assert (far["kind"], far["birth"]) == ("loop", 8)
    assert far["place"] == pytest.approx([4, 4, 0])


def test_a_ring_without_ends_and_empty_graphs():
    ring = nx.MultiGraph(roots=[0], root=0)
    ring.add_node(0, pos=np.zeros(3), radius=1.0)
    line = np.array([(0, 0, 0), (6, 0, 0), (6, 6, 0), (0, 6, 0), (0, 0, 0)], float)
    ring.add_edge(0, 0, start=0, points=line, radii=np.ones(5), length=24.0)
    (far,) = branches(ring)
    assert (far["kind"], far["length"], far["place"]) == ("loop", 12, [6, 6, 0])
    assert necks(ring) == []
    assert branches(nx.MultiGraph(roots=[])) == necks(nx.MultiGraph(roots=[])) == []
    point = nx.MultiGraph(roots=[0], root=0)
    point.add_node(0, pos=np.zeros(3), radius=1.0)
    assert branches(point) == []
    assert describe(point).decisions["trees"] == 1


def test_a_narrow_place_between_two_wide_ones_is_a_neck_and_a_taper_is_none():
    line = graph_of([(0, 0, 0), (8, 0, 0)], [(0, 1, [3, 2.5, 2, 1, 1, 1.5, 2, 2, 1])])
    (neck,) = necks(line)
    assert (neck["radius"], neck["bulge_radius"]) == (1, 2)
    assert neck["place"][0] in (3, 4)
    assert neck["bulge"][0] in (6, 7)
    assert necks(line, least=0.6) == []
    assert necks(tree()) == []


def test_roots_stay_where_they_were_if_an_end_is_near():
    graph = tree()
    moved = rooted_near(graph, np.array([[29.5, 0, 0]]), 1.0)
    assert (moved.graph["root"], moved.graph["roots"], graph.graph["root"]) == (3, [3], 0)
    assert rooted_near(graph, np.array([[29.5, 0, 0]]), 0.1).graph["root"] == 0
    assert rooted_near(graph, np.zeros((0, 3)), 1.0) is graph


def test_a_thin_twig_that_a_level_loses_is_listed_with_its_length():
    x, y, z = np.indices((40, 40, 48)) - np.array([19.5, 19.5, 23.5])[:, None, None, None]
    trunk = np.maximum(np.hypot(x, y) - 4.5, np.abs(z) - 20)
    twig = np.maximum(np.hypot(y, z - 5.0) - 1.2, np.abs(x - 8.0) - 8)
    field = np.minimum(trunk, twig).astype(np.float32)
    report = survival(pyramid(field, 3), (0.5, 0.5, 0.5), decide=Describe())
    first, _, last = report["levels"]
    assert first["decisions"]["terminals"] == 2
    (lost,) = last["branches_lost"]
    assert lost["length"] == pytest.approx(0.5 * 16, abs=1.2)
    assert lost["place"] == pytest.approx([0.5 * 35.5, 0.5 * 19.5, 0.5 * 28.5], abs=1.0)
    assert lost["away"] == pytest.approx(0.5 * 16, abs=1.2)  # from its tip to the trunk's centreline
    assert lost["maximum_radius"] < 0.5 * 4.5 + 0.1
    assert last["branches_invented"] == []
    # Homology sees nothing at all.
    assert last["lost"] == last["invented"] == []
    assert report["coarsest_safe_level"] < 2


def test_a_known_graph_is_not_computed_again():
    calls = []

    def known():
        calls.append(1)
        return tree()

    found = Describe(known)(np.zeros((2, 2, 2), np.float32), np.eye(4))
    assert calls == [1]
    assert found.lengths.sum() == pytest.approx(10 + 6 + 14 + 5 + 3)
    assert found.middles.shape == (5, 3)
