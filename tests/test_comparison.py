"""Two centreline graphs whose differences are known by hand."""

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesselsdf.comparison import COUNTS, ERRORS, SHARES, _distinct, compare_graphs
from vesselsdf.errors import InputError


def tube_graph(nodes: dict, edges: list, radius: float = 0.5, root=None) -> nx.MultiGraph:
    graph = nx.MultiGraph(root=root)
    for name, pos in nodes.items():
        graph.add_node(name, pos=np.asarray(pos, float), radius=radius)
    for u, v, *via in edges:
        points = np.array([nodes[u], *via, nodes[v]], float)
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        graph.add_edge(u, v, start=u, points=points, radii=np.full(len(points), radius), length=length)
    return graph


NODES = {"root": (0, 0, 0), "a": (20, 0, 0), "b": (40, 0, 0), "end": (60, 0, 0), "up": (20, 20, 0), "side": (40, 20, 0)}
TREE = [("root", "a"), ("a", "b"), ("b", "end"), ("a", "up"), ("b", "side")]


def tree(edges: list = TREE, nodes: dict = NODES, radius: float = 0.5) -> nx.MultiGraph:
    used = {name for edge in edges for name in edge[:2]}
    return tube_graph({name: pos for name, pos in nodes.items() if name in used}, edges, radius, root="root")


def without_places(result: dict) -> dict:
    return {key: value for key, value in result.items() if key not in ("places", "reasons")}


PERFECT = {**dict.fromkeys(SHARES, 1.0), **dict.fromkeys(COUNTS, 0), **dict.fromkeys(ERRORS, 0.0)}


def test_a_graph_equals_itself():
    result = compare_graphs(tree(), tree(), 1.0)
    assert without_places(result) == pytest.approx(PERFECT)
    assert all(places == [] for places in result["places"].values())


def test_a_lost_terminal_branch_is_seen_although_homology_is_blind_to_it():
    result = compare_graphs(tree([("root", "a"), ("a", "b"), ("b", "end"), ("b", "side")]), tree(), 1.0)
    # 100 mm in all; of the lost 20 mm the first 1 mm lies within the tolerance of the trunk.
    assert result["tree_length_detected"] == pytest.approx(0.81, abs=0.003)
    assert result["branches_detected"] == 4 / 5
    assert result["tree_length_precision"] == result["branches_precision"] == 1.0
    assert result["terminals_reached"] == 2 / 3
    assert result["node_precision"] == 1.0
    assert result["node_recall"] == 4 / 6  # the lost end, and the junction that is none any more
    assert (result["false_splits"], result["false_merges"]) == (0, 0)
    assert result["places"]["terminals_lost"] == [{"place": [20, 20, 0]}]
    assert result["places"]["missed"][0]["place"] == [20, 20, 0]
    assert result["places"]["missed"][0]["length"] == pytest.approx(19, abs=0.3)


def test_roles_exchanged_give_the_twins():
    lost = tree([("root", "a"), ("a", "b"), ("b", "end"), ("b", "side")])
    missed, invented = compare_graphs(lost, tree(), 1.0), compare_graphs(tree(), lost, 1.0)
    for recall, precision in (
        ("tree_length_detected", "tree_length_precision"),
        ("branches_detected", "branches_precision"),
        ("node_recall", "node_precision"),
    ):
        assert missed[recall] == invented[precision]
        assert missed[precision] == invented[recall]
    assert missed["places"]["missed"] == invented["places"]["invented"]


@pytest.mark.parametrize("gap", [0.5, 1.5, 6.0])
def test_a_cut_trunk_is_one_false_split_at_its_place(gap):
    nodes = {**NODES, "stump": (30 - gap / 2, 0, 0), "stump2": (30 + gap / 2, 0, 0)}
    cut = tree([("root", "a"), ("a", "stump"), ("stump2", "b"), *TREE[2:]], nodes)
    result = compare_graphs(cut, tree(), 1.0)
    assert (result["false_splits"], result["false_merges"]) == (1, 0)
    assert np.linalg.norm(np.subtract(result["places"]["false_splits"][0]["place"], (30, 0, 0))) < 0.5
    assert result["terminals_reached"] == 1 / 3
    exchanged = compare_graphs(tree(), cut, 1.0)
    assert (exchanged["false_splits"], exchanged["false_merges"]) == (0, 1)


@pytest.mark.parametrize("gap", [0.5, 6.0])
def test_a_cut_loop_is_a_false_split_although_nothing_falls_apart(gap):
    ring = [*TREE, ("up", "side")]
    nodes = {**NODES, "stump": (30 - gap / 2, 20, 0), "stump2": (30 + gap / 2, 20, 0)}
    cut = [*TREE, ("up", "stump"), ("side", "stump2")]
    result = compare_graphs(tree(cut, nodes), tree(ring), 1.0)
    assert (result["false_splits"], result["false_merges"]) == (1, 0)
    assert np.linalg.norm(np.subtract(result["places"]["false_splits"][0]["place"], (30, 20, 0))) < 0.5
    assert result["terminals_reached"] == 1.0
    assert result["path_length_error"] == pytest.approx(0, abs=1e-12)


def test_a_false_bridge_is_one_false_merge():
    nodes = {**NODES, "c": (20, 15, 0), "d": (40, 15, 0)}
    branches = [("root", "a"), ("a", "b"), ("b", "end"), ("a", "c"), ("c", "up"), ("b", "d"), ("d", "side")]
    result = compare_graphs(tree([*branches, ("c", "d")], nodes), tree(), 1.0)
    assert (result["false_splits"], result["false_merges"]) == (0, 1)
    assert result["places"]["false_merges"][0]["place"] == pytest.approx([30, 15, 0], abs=0.5)
    assert result["tree_length_detected"] == 1.0
    assert result["branches_precision"] == 7 / 8
    assert result["node_precision"] == 6 / 8


def test_vessels_that_touch_are_one_merge_even_without_a_bridge():
    apart = tube_graph(
        {"p": (0, 0, 0), "q": (40, 0, 0), "s": (20, -20, 1.4), "t": (20, 20, 1.4)}, [("p", "q"), ("s", "t")], radius=0.5
    )
    crossed = tube_graph(
        {"p": (0, 0, 0), "q": (40, 0, 0), "s": (20, -20, 1.4), "t": (20, 20, 1.4), "x": (20, 0, 0.7)},
        [("p", "x"), ("q", "x"), ("s", "x"), ("t", "x")],
        radius=0.5,
    )
    result = compare_graphs(crossed, apart, 1.0)
    assert (result["false_splits"], result["false_merges"]) == (0, 1)
    assert result["tree_length_detected"] == 1.0


def test_a_detached_blob_lowers_precision_only():
    predicted = tree()
    predicted.add_node("blob", pos=np.array([0.0, 0, 30]), radius=1.0)
    result = compare_graphs(predicted, tree(), 1.0)
    assert result["branches_precision"] == 5 / 6
    assert result["node_precision"] == 6 / 7
    assert result["tree_length_detected"] == result["node_recall"] == 1.0
    assert result["places"]["invented"] == [{"place": [0, 0, 30], "length": 0.0}]


def test_the_path_length_error_is_that_of_the_ends_that_are_reached():
    # Two ends of three are cut off; the way to the third is 5% longer than it should be.
    nodes = {**NODES, "stump": (25, 0, 0), "bend": (10, 3.2, 0)}
    cut = tree(
        [("root", "a", (10, 3.2015621187164243, 0)), ("a", "up"), ("a", "stump"), ("b", "end"), ("b", "side")], nodes
    )
    result = compare_graphs(cut, tree(), 4.0)
    assert result["terminals_reached"] == 1 / 3
    assert result["path_length_error"] == pytest.approx((2 * math.hypot(10, 3.2015621187164243) - 20) / 40, rel=1e-6)
    assert result["reasons"] == {}
    # None is reached: there is no error to speak of, and no perfect one either.
    gone = tree([("a", "b"), ("b", "end"), ("b", "side")])
    result = compare_graphs(gone, tree(), 1.0)
    assert result["terminals_reached"] == 0.0
    assert math.isnan(result["path_length_error"])
    assert result["reasons"] == {"path_length_error": "no end is reached"}


@pytest.mark.parametrize(("short", "reached"), [(2.0, 1.0), (3.5, 1.0), (6.0, 0.0)])
def test_a_root_that_is_somewhat_short_is_still_the_root(short, reached):
    nodes = {**NODES, "root": (NODES["root"][0] + short, *NODES["root"][1:])}
    assert compare_graphs(tree(nodes=nodes), tree(), 1.0)["terminals_reached"] == reached


def test_radius_and_path_errors_have_the_size_that_was_put_in():
    result = compare_graphs(tree(radius=0.8), tree(radius=0.5), 1.0)
    assert result["radius_error"] == pytest.approx(0.3)
    assert result["radius_bias"] == pytest.approx(0.3)
    assert compare_graphs(tree(radius=0.3), tree(radius=0.5), 1.0)["radius_bias"] == pytest.approx(-0.2)
    straight = tube_graph({"root": (0, 0, 0), "end": (40, 0, 0)}, [("root", "end")])
    zigzag = [(10 * k + 5, 3 * (-1) ** k, 0) for k in range(4)]
    wound = tube_graph({"root": (0, 0, 0), "end": (40, 0, 0)}, [("root", "end", *zigzag)])
    expected = (2 * math.hypot(5, 3) + 3 * math.hypot(10, 6)) / 40 - 1
    result = compare_graphs(wound, straight, 4.0)
    assert result["path_length_error"] == pytest.approx(expected, rel=0.02)
    assert 0 < result["centreline_error"] < 3


def test_a_vessel_that_runs_elsewhere_is_missed_and_invented_but_not_cut():
    nodes = {"root": (0, 0, 0), "u": (10, 0, 0), "v": (50, 0, 0), "end": (60, 0, 0)}
    outer = [("root", "u"), ("v", "end")]
    straight, bent = [*outer, ("u", "v")], [*outer, ("u", "v", (20, 12, 0), (40, 12, 0))]
    result = compare_graphs(tree(bent, nodes), tree(straight, nodes), 1.0)
    assert (result["false_splits"], result["false_merges"]) == (0, 0)
    assert result["branches_detected"] == result["branches_precision"] == 2 / 3
    assert result["terminals_reached"] == 1.0
    assert result["path_length_error"] == pytest.approx((2 * math.hypot(10, 12) - 20) / 60)


def test_a_thick_vessel_allows_its_radius():
    shifted = {name: np.add(pos, (0, 0, 2)) for name, pos in NODES.items()}
    assert compare_graphs(tree(nodes=shifted), tree(), 1.0)["tree_length_detected"] == 0.0
    thick = compare_graphs(tree(nodes=shifted, radius=3.0), tree(radius=3.0), 1.0)
    assert thick["tree_length_detected"] == thick["node_f1"] == 1.0
    assert thick["centreline_error"] == pytest.approx(2.0)
    # It is the reference's radius that counts: a prediction cannot buy tolerance by being thick.
    assert compare_graphs(tree(nodes=shifted, radius=3.0), tree(), 1.0)["tree_length_precision"] == 0.0


def test_empty_graphs():
    empty = nx.MultiGraph()
    assert without_places(compare_graphs(empty, empty, 1.0)) == PERFECT
    for predicted, reference, key in ((empty, tree(), "missed"), (tree(), empty, "invented")):
        result = compare_graphs(predicted, reference, 1.0)
        assert {result[name] for name in SHARES} == {0.0}
        assert all(math.isnan(result[name]) for name in ERRORS)
        assert result["reasons"] == dict.fromkeys(ERRORS, "one of the two is empty")
        assert len(result["places"][key]) == 5


def test_two_graphs_far_apart_share_nothing():
    away = {name: np.add(pos, (0, 0, 500)) for name, pos in NODES.items()}
    result = compare_graphs(tree(nodes=away), tree(), 1.0)
    assert {result[name] for name in SHARES} == {0.0}
    assert all(math.isnan(result[name]) for name in ERRORS)
    assert set(result["reasons"]) == set(ERRORS)
    assert (result["false_splits"], result["false_merges"]) == (0, 0)


def test_rings_have_no_ends_and_lone_nodes_have_no_length():
    angle = np.linspace(0, 2 * np.pi, 60)[1:-1]
    points = np.stack([10 * np.cos(angle), 10 * np.sin(angle), 0 * angle], axis=1)
    ring = tube_graph({"o": (10, 0, 0)}, [("o", "o", *points)])
    result = compare_graphs(ring, ring, 1.0)
    assert result["tree_length_detected"] == result["branches_detected"] == 1.0
    assert math.isnan(result["node_f1"])
    assert math.isnan(result["terminals_reached"])
    assert (result["false_splits"], result["false_merges"]) == (0, 0)
    blob, far = tube_graph({"o": (0, 0, 0)}, []), tube_graph({"o": (9, 0, 0)}, [])
    assert compare_graphs(blob, blob, 1.0)["tree_length_detected"] == 1.0
    assert compare_graphs(far, blob, 1.0)["tree_length_detected"] == 0.0


def test_two_parallel_edges_between_the_same_nodes_are_a_loop():
    nodes = {"root": (0, 0, 0), "u": (10, 0, 0), "v": (50, 0, 0), "end": (60, 0, 0)}
    outer = [("root", "u"), ("v", "end")]
    double = [*outer, ("u", "v", (30, 10, 0)), ("u", "v", (30, -10, 0))]
    single = [*outer, ("u", "v", (30, 10, 0))]
    assert without_places(compare_graphs(tree(double, nodes), tree(double, nodes), 1.0)) == pytest.approx(PERFECT)
    result = compare_graphs(tree(single, nodes), tree(double, nodes), 1.0)
    # The way round the other arm is as long, but it is another vessel.
    assert (result["false_splits"], result["false_merges"]) == (1, 0)
    assert result["places"]["false_splits"][0]["place"] == pytest.approx([30, -10, 0], abs=3)
    assert result["branches_detected"] == 3 / 4
    assert result["terminals_reached"] == 1.0


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_results_do_not_depend_on_names_directions_or_position(seed):
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    shift = rng.normal(scale=100, size=3)
    predicted, reference = tree([*TREE[:3], ("up", "side"), ("b", "side")]), tree()
    moved = []
    for graph in (predicted, reference):
        copy = nx.MultiGraph(root=f"{seed}-root")
        for node, data in graph.nodes(data=True):
            copy.add_node(f"{seed}-{node}", pos=rotation @ data["pos"] + shift, radius=data["radius"])
        edges = list(graph.edges(data=True))
        for k in rng.permutation(len(edges)):
            u, v, data = edges[k]
            points, radii, start = data["points"] @ rotation.T + shift, data["radii"], data["start"]
            if rng.random() < 0.5:
                points, radii, start = points[::-1], radii[::-1], v if start == u else u
            copy.add_edge(f"{seed}-{v}", f"{seed}-{u}", start=f"{seed}-{start}", points=points, radii=radii)
        moved.append(copy)
    plain, other = compare_graphs(predicted, reference, 1.03), compare_graphs(*moved, 1.03)
    assert without_places(other) == pytest.approx(without_places(plain), abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan, math.inf])
def test_a_tolerance_must_be_positive(tolerance):
    with pytest.raises(InputError, match="tolerance"):
        compare_graphs(tree(), tree(), tolerance)


@pytest.mark.parametrize("seed", range(3))
def test_places_within_reach_of_each_other_count_once(seed):
    rng = np.random.default_rng(seed)
    places, reach = rng.random((700, 3)) * 10, rng.exponential(0.4, 700)
    graph = nx.Graph()
    graph.add_nodes_from(range(700))
    away = np.linalg.norm(places[:, None] - places[None], axis=-1)
    graph.add_edges_from(np.argwhere(away <= np.maximum(reach[:, None], reach[None])).tolist())
    found = _distinct(places, reach)
    assert len(found) == nx.number_connected_components(graph)
    of = [int(np.flatnonzero((places == place).all(axis=1))[0]) for place in found]
    assert all(sum(k in component for k in of) == 1 for component in nx.connected_components(graph))


def test_tangles_can_be_compared():
    rng = np.random.default_rng(0)
    crowd, other = nx.MultiGraph(), nx.MultiGraph()
    for graph in (crowd, other):
        for node, place in enumerate(rng.random((500, 3)) * 12):
            graph.add_node(node, pos=place, radius=0.4)
            if node:
                points = np.array([graph.nodes[node - 1]["pos"], place])
                graph.add_edge(node - 1, node, start=node - 1, points=points, radii=np.full(2, 0.4), length=1.0)
    result = compare_graphs(crowd, other, 1.0)
    assert result["tree_length_detected"] > 0.95
