"""Anatomy: symmetric trees, helices and cones with known answers; loops, rings, points and radii of zero."""

import csv
import json
import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from vesselsdf.anatomy import bifurcations, decisions, measure, summary, terminals
from vesselsdf.branch_shape import narrowing
from vesselsdf.branch_table import (
    bifurcation_table,
    branch_table,
    terminal_table,
    write_bifurcations,
    write_branches,
    write_terminals,
)
from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.graph import centreline_graph
from vesselsdf.murray import fit_murray, murray_exponent
from vesselsdf.synthesis.trees import grow_tree


def turn(seed):
    """A rotation and a shift: nothing here may depend on the axes."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return axes, np.array([-40.0, 12.5, 300.0])


def add(graph, u, v, points, radii, turned=None):
    """A branch along points from u to v; its nodes are made where they are new."""
    axes, shift = turned or (np.eye(3), np.zeros(3))
    points = np.asarray(points, dtype=float) @ axes.T + shift
    radii = np.broadcast_to(np.asarray(radii, dtype=float), len(points)).copy()
    for node, k in ((u, 0), (v, -1)):
        if node not in graph:
            graph.add_node(node, pos=points[k], radius=float(radii[k]))
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    graph.add_edge(u, v, start=u, points=points, radii=radii, length=length)


def line(a, b, n=9):
    return np.linspace(a, b, n)


def symmetric_tree(levels, exponent=3.0, half_angle=35.0, seed=0):
    """A planar binary tree: each fork turns by half_angle to both sides, radii follow Murray's law."""
    graph = nx.MultiGraph()
    turned = turn(seed)
    count = [1]

    def grow(node, place, heading, level, radius):
        length = 30.0 * 0.8**level
        end = place + length * np.array([math.cos(heading), math.sin(heading), 0.0])
        new = count[0]
        count[0] += 1
        # Every other branch is stored towards the root.
        if new % 2:
            add(graph, node, new, line(place, end), radius, turned)
        else:
            add(graph, new, node, line(end, place), radius, turned)
        if level + 1 < levels:
            for side in (-1, 1):
                grow(new, end, heading + side * math.radians(half_angle), level + 1, radius * 2 ** (-1 / exponent))

    grow(0, np.zeros(3), 0.3, 0, 3.0)
    graph.graph["roots"] = [0]
    graph.graph["root"] = 0
    return graph


@pytest.mark.parametrize("exponent", [2.0, 2.5, 3.0, 3.7])
@pytest.mark.parametrize("levels", [2, 4, 5])
def test_a_symmetric_tree_has_its_exponent_angles_generations_and_orders(levels, exponent):
    graph = symmetric_tree(levels, exponent, 35.0, seed=levels)
    forks = bifurcations(measure(graph))
    assert len(forks) == 2 ** (levels - 1) - 1
    for fork in forks:
        assert fork["murray_exponent"] == pytest.approx(exponent, rel=1e-9)
        assert fork["major_angle"] == pytest.approx(35, abs=1e-6)
        assert fork["minor_angle"] == pytest.approx(35, abs=1e-6)
        assert fork["between_angle"] == pytest.approx(70, abs=1e-6)
        assert fork["area_ratio"] == pytest.approx(2 ** (1 - 2 / exponent))
        assert fork["asymmetry"] == pytest.approx(1)
    rows = branch_table(graph)
    assert [row["generation"] for row in rows] == [g for g in range(levels) for _ in range(2**g)]
    assert all(row["strahler_order"] == levels - row["generation"] for row in rows)
    assert all(row["terminal"] == (row["generation"] == levels - 1) for row in rows)
    for row in rows:
        assert row["radius_mean_mm"] == pytest.approx(3 * 2 ** (-row["generation"] / exponent))
        assert row["root_distance_mm"] == pytest.approx(30 * sum(0.8**g for g in range(row["generation"])))
        assert row["tortuosity"] == pytest.approx(1)
        assert row["sum_of_angles_rad_per_mm"] == pytest.approx(0, abs=1e-6)
    whole = summary(graph)
    assert whole["murray"]["exponent"] == pytest.approx(exponent, abs=1e-4)
    assert whole["strahler_order"] == levels
    assert [row["elements"] for row in whole["orders"]] == [2 ** (levels - k) for k in range(1, levels + 1)]
    assert whole["bifurcation_ratio"] == pytest.approx(2)


def test_an_element_runs_on_through_side_branches():
    """A trunk with three side twigs: order 2 all along, one element; orders 1: the twigs and its tip."""
    graph = nx.MultiGraph(roots=[0])
    for k in range(4):
        add(graph, k, k + 1, line((10 * k, 0, 0), (10 * k + 10, 0, 0)), 2.0)
        if k:
            add(graph, k, 10 + k, line((10 * k, 0, 0), (10 * k, 8, 0)), 0.5)
    rows = {row["branch"]: row for row in branch_table(graph)}
    trunk = [row for row in rows.values() if row["distal_node"] in (1, 2, 3)]
    assert [row["strahler_order"] for row in sorted(trunk, key=lambda row: row["generation"])] == [2, 2, 2]
    orders = summary(graph)["orders"]
    assert [(row["branches"], row["elements"]) for row in orders] == [(4, 4), (3, 1)]
    assert orders[1]["length"] == pytest.approx(30)


@given(
    st.floats(0.3, 0.98),
    st.floats(0.3, 0.98),
    st.sampled_from([1.0, 0.02, 7.5]),
)
def test_the_exponent_solves_murrays_equation(first, second, scale):
    exponent, _ = murray_exponent(scale, [first * scale, second * scale])
    assert first**exponent + second**exponent == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize(
    ("parent", "children", "reason"),
    [
        (1.0, [1.0, 1.0], "not thinner"),
        (1.0, [0.2, 1.3], "not thinner"),
        (0.0, [0.1, 0.1], "zero"),
        (1.0, [0.0, 0.5], "zero"),
        (1.0, [0.5], "fewer"),
        (1.0, [], "fewer"),
    ],
)
def test_a_fork_without_an_exponent_says_why(parent, children, reason):
    exponent, why = murray_exponent(parent, children)
    assert exponent is None
    assert reason in why


@pytest.mark.parametrize("exponent", [2.0, 2.7, 3.0])
def test_a_fit_stands_noise_and_outliers_and_its_interval_holds_the_truth(exponent):
    inside, errors = 0, []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        first = generator.uniform(0.45, 0.9, 60)
        second = (1 - first**exponent) ** (1 / exponent)
        noise = np.exp(generator.normal(0, 0.03, (3, 60)))
        parents = (noise[0] * np.where(np.arange(60) < 5, 3.0, 1.0)).tolist()  # five are far too wide
        fit = fit_murray(parents, (np.stack([first, second]).T * noise[1:].T).tolist())
        errors.append(fit.exponent - exponent)
        inside += fit.low <= exponent <= fit.high
    assert np.abs(np.mean(errors)) < 0.1
    assert np.std(errors) < 0.2
    assert inside >= 16


def test_a_helix_has_its_tortuosity_and_curvature():
    a, b = 6.0, 2.0  # radius, rise per radian
    t = np.linspace(0, 6 * np.pi, 4000)
    graph = nx.MultiGraph()
    add(graph, 0, 1, np.stack([a * np.cos(t), a * np.sin(t), b * t], axis=1), 0.5, turn(3))
    (row,) = branch_table(graph)
    speed = math.hypot(a, b)
    assert row["length_mm"] == pytest.approx(6 * np.pi * speed, rel=1e-5)
    assert row["tortuosity"] == pytest.approx(speed / b, rel=1e-5)
    assert row["sum_of_angles_rad_per_mm"] == pytest.approx(a / speed**2, rel=0.01)
    assert row["volume_mm3"] == pytest.approx(np.pi * 0.25 * 6 * np.pi * speed, rel=1e-5)


def test_the_jitter_of_dense_points_is_no_bend():
    x = np.arange(0, 40, 0.05)
    jitter = np.random.default_rng(0).normal(0, 0.02, (2, len(x)))
    graph = nx.MultiGraph()
    add(graph, 0, 1, np.stack([x, *jitter], axis=1), 1.0)
    (row,) = branch_table(graph)
    assert row["sum_of_angles_rad_per_mm"] < 0.06  # the dense points themselves turn by 20 rad per mm


@pytest.mark.parametrize(("r1", "r2", "h"), [(3.0, 1.0, 12.0), (0.5, 0.5, 7.0), (2.0, 0.0, 5.0)])
def test_a_cone_has_its_volume_wall_and_taper(r1, r2, h):
    graph = nx.MultiGraph(roots=[0])
    add(graph, 0, 1, line((0, 0, 0), (0, 0, h), 13), np.linspace(r1, r2, 13), turn(1))
    (row,) = branch_table(graph)
    assert row["volume_mm3"] == pytest.approx(np.pi * h * (r1 * r1 + r1 * r2 + r2 * r2) / 3)
    assert row["wall_mm2"] == pytest.approx(np.pi * (r1 + r2) * math.hypot(h, r1 - r2))
    assert row["taper_mm_per_mm"] == pytest.approx((r2 - r1) / h)
    assert row["radius_mean_mm"] == pytest.approx((r1 + r2) / 2)
    assert row["radius_min_mm"] == min(r1, r2)
    assert row["stenosis"] == pytest.approx(0, abs=1e-12)


def test_radii_inside_the_parents_lumen_do_not_count():
    """A side branch that is drawn as wide as its parent inside the parent is still a thin branch."""
    graph = nx.MultiGraph(roots=[0])
    add(graph, 0, 1, line((-30, 0, 0), (0, 0, 0), 61), 4.0)
    add(graph, 1, 2, line((0, 0, 0), (30, 0, 0), 61), 3.9)
    s = np.linspace(0, 30, 61)
    add(graph, 1, 3, np.stack([0 * s, s, 0 * s], axis=1), np.where(s < 6, 4.0, 1.0))
    rows = {row["distal_node"]: row for row in branch_table(graph)}
    assert rows[3]["radius_mean_mm"] == pytest.approx(1)
    assert rows[3]["radius_max_mm"] == pytest.approx(1)
    assert rows[3]["clear_length_mm"] == pytest.approx(30 - 8)
    assert rows[1]["clear_length_mm"] == pytest.approx(30 - 8)
    (fork,) = bifurcations(measure(graph))
    assert fork["child_radii"] == pytest.approx([3.9, 1.0])
    expected = brentq(lambda g: (3.9 / 4) ** g + 0.25**g - 1, 0.1, 50)
    assert fork["murray_exponent"] == pytest.approx(expected, rel=1e-6)
    assert (fork["major_angle"], fork["minor_angle"]) == (pytest.approx(0, abs=1e-6), pytest.approx(90))


def test_angles_come_from_beyond_the_junction():
    """A daughter that leaves sideways inside the trunk and then runs at 40 degrees branches off at 40 degrees."""
    graph = nx.MultiGraph(roots=[0])
    add(graph, 0, 1, line((-40, 0, 0), (0, 0, 0)), 2.0)
    add(graph, 1, 2, line((0, 0, 0), (40, 0, 0)), 1.7)
    way = np.array([math.cos(math.radians(40)), math.sin(math.radians(40)), 0])
    add(graph, 1, 3, np.concatenate([[(0, 0, 0), (0, 2, 0)], (0, 2, 0) + way * line(1, 40, 60)[:, None]]), 1.2)
    (fork,) = bifurcations(measure(graph))
    assert fork["minor_angle"] == pytest.approx(40, abs=1e-6)
    assert fork["between_angle"] == pytest.approx(40, abs=1e-6)


def test_a_stenosis_is_found_with_its_depth_and_place_on_every_path_beyond_it():
    x = np.linspace(0, 40, 81)
    radii = 3.0 - 0.02 * x
    radii[40] = 1.1  # at x = 20; the lesser of the widest before (3) and after (2.59) is 2.59
    graph = nx.MultiGraph(roots=[0])
    add(graph, 0, 1, np.stack([x, 0 * x, 0 * x], axis=1), radii)
    for end, side in ((2, 1), (3, -1)):
        add(graph, 1, end, line((40, 0, 0), (60, 12 * side, 0), 30), 1.5)
    for row in terminals(measure(graph)):
        assert row["minimum_radius"] == pytest.approx(1.1)
        assert row["narrowest_place"] == [20, 0, 0]
        assert row["stenosis"] == pytest.approx(1 - 1.1 / (3 - 0.02 * 20.5))
        assert row["stenosis_place"] == [20, 0, 0]
        assert row["length"] == pytest.approx(40 + math.hypot(20, 12))
    trunk = branch_table(graph)[0]
    assert (trunk["narrowest_x_mm"], trunk["radius_min_mm"]) == (20, 1.1)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=30))
def test_a_vessel_that_only_tapers_has_no_stenosis(radii):
    assert narrowing(np.sort(np.array(radii))[::-1])[0] == 0
    assert narrowing(np.sort(np.array(radii)))[0] == 0
    assert 0 <= narrowing(np.array(radii))[0] <= 1


def looped():
    """A trunk, a ring of two branches (radii 2 and 0.5) between nodes 1 and 2, two twigs behind it."""
    graph = nx.MultiGraph(roots=[0], root=0)
    add(graph, 0, 1, line((0, 0, 0), (20, 0, 0)), 3.0)
    add(graph, 2, 1, [(40, 0, 0), (30, -9, 0), (20, 0, 0)], 0.5)
    add(graph, 1, 2, [(20, 0, 0), (30, 9, 0), (40, 0, 0)], 2.0)
    add(graph, 2, 3, line((40, 0, 0), (60, 8, 0)), 1.5)
    add(graph, 2, 4, line((40, 0, 0), (60, -8, 0)), 1.4)
    return graph


def test_a_loop_is_cut_at_its_narrowest_branch_which_is_named_and_measured():
    graph = looped()
    rows = {row["branch"]: row for row in branch_table(graph)}
    (closing,) = [row for row in rows.values() if row["closes_loop"]]
    assert closing["radius_mean_mm"] == 0.5
    assert closing["strahler_order"] is None
    assert (closing["proximal_node"], closing["distal_node"], closing["generation"]) == (1, 2, 1)
    assert closing["length_mm"] == pytest.approx(2 * math.hypot(10, 9))
    assert closing["tortuosity"] == pytest.approx(math.hypot(10, 9) / 10)
    assert sorted(row["generation"] for row in rows.values()) == [0, 1, 1, 2, 2]
    first, second = bifurcations(measure(graph))
    for fork in (first, second):
        assert fork["loop_branches"] == [closing["branch"]]
        assert fork["murray_exponent"] is None
        assert "loop" in fork["murray_reason"]
    assert first["between_angle"] == pytest.approx(2 * math.degrees(math.atan2(9, 10)))
    whole = summary(graph)
    assert (whole["loops"], whole["trees"], whole["murray"]["exponent"]) == (1, 1, None)
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert decisions(graph)["loops"] == 1


def test_a_self_loop_a_ring_and_points_have_what_makes_sense():
    t = np.linspace(0, 2 * np.pi, 401)
    ring = np.stack([5 * np.cos(t), 5 * np.sin(t), 0 * t], axis=1)
    ring[-1] = ring[0]
    graph = nx.MultiGraph()
    add(graph, "r", "r", ring, 1.0)
    add(graph, "a", "b", line((20, 0, 0), (30, 0, 0)), 1.0)
    add(graph, "b", "b", ring + np.array([25.0, 0, 0]), 0.4)
    graph.add_node("point", pos=np.array([99.0, 0, 0]), radius=2.0)
    rows = branch_table(graph)
    assert [row["closes_loop"] for row in rows if row["proximal_node"] == row["distal_node"]] == [1, 1]
    for row in rows:
        if row["closes_loop"]:
            assert row["tortuosity"] is None
            assert row["length_mm"] == pytest.approx(10 * np.pi, rel=1e-3)
            assert row["sum_of_angles_rad_per_mm"] == pytest.approx(1 / 5, rel=0.02)
    whole = summary(graph)
    assert (whole["trees"], whole["loops"], whole["terminals"]) == (3, 2, 0)
    assert whole["strahler_order"] == 1
    assert terminal_table(graph) == []
    # The root is the free end of the branch with the ring.
    assert next(row for row in rows if not row["closes_loop"])["proximal_node"] == "a"


@pytest.mark.parametrize("nodes", [0, 3])
def test_a_graph_without_branches_has_empty_tables_with_headers(nodes, tmp_path):
    graph = nx.MultiGraph()
    for k in range(nodes):
        graph.add_node(k, pos=np.array([k, 0.0, 0.0]), radius=1.0)
    whole = summary(graph)
    assert (whole["trees"], whole["branches"], whole["mean_radius"], whole["orders"]) == (nodes, 0, None, [])
    for write, name in ((write_branches, "length_mm"), (write_bifurcations, "node"), (write_terminals, "stenosis")):
        write(graph, tmp_path / "t.csv")
        (header,) = csv.reader((tmp_path / "t.csv").read_text().splitlines())
        assert name in header


def test_branches_without_length_or_radius_are_measured_as_nothing():
    graph = nx.MultiGraph(roots=[0])
    add(graph, 0, 1, line((0, 0, 0), (10, 0, 0)), 0.0)
    add(graph, 1, 2, [(10, 0, 0), (10, 0, 0)], 1.0)
    add(graph, 1, 3, line((10, 0, 0), (15, 5, 0)), 0.0)
    rows = {row["distal_node"]: row for row in branch_table(graph)}
    assert (rows[2]["length_mm"], rows[2]["volume_mm3"], rows[2]["tortuosity"]) == (0, 0, None)
    assert (rows[1]["volume_mm3"], rows[1]["wall_mm2"], rows[1]["stenosis"]) == (0, 0, 0)
    (fork,) = bifurcation_table(graph)
    assert (fork["murray_exponent"], fork["murray_reason"]) == (None, "a radius is zero")
    assert fork["major_angle_deg"] is None  # of the branch without length
    assert fork["minor_angle_deg"] == pytest.approx(45)
    assert summary(graph)["murray"]["exponent"] is None


def test_tables_are_read_by_pandas_with_their_numbers(tmp_path):
    pd = pytest.importorskip("pandas")
    graph = looped()
    for write, table in (
        (write_branches, branch_table),
        (write_bifurcations, bifurcation_table),
        (write_terminals, terminal_table),
    ):
        write(graph, tmp_path / "t.csv")
        read, rows = pd.read_csv(tmp_path / "t.csv"), table(graph)
        assert list(read.columns) == list(rows[0])
        assert len(read) == len(rows)
        for name in read.columns:
            values = [row[name] for row in rows]
            if all(isinstance(value, int | float | None) for value in values):
                expected = [math.nan if value is None else value for value in values]
                np.testing.assert_allclose(read[name].astype(float), expected, rtol=1e-6)
    branches = pd.DataFrame(branch_table(graph))
    assert branches["length_mm"].sum() == pytest.approx(summary(graph)["length"])
    assert branches["volume_mm3"].sum() == pytest.approx(summary(graph)["volume"])


def random_graph(seed, nodes, edges):
    """A graph with parallel edges, self-loops, several components and anything between."""
    generator = np.random.default_rng(seed)
    graph = nx.MultiGraph()
    places = generator.normal(size=(nodes, 3)) * 20
    for node in range(nodes):
        graph.add_node(node, pos=places[node], radius=float(generator.uniform(0.1, 3)))
    for _ in range(edges):
        u, v = generator.integers(nodes, size=2).tolist()
        bend = places[[u, v]].mean(axis=0) + generator.normal(size=3) * 5
        add(graph, u, v, [places[u], bend, places[v]], generator.uniform(0.1, 3, 3))
    return graph


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(0, 24))
def test_any_graph_is_a_forest_of_widest_paths_and_the_branches_that_close_loops(seed, nodes, edges):
    graph = random_graph(seed, nodes, edges)
    rows = branch_table(graph)
    parts = nx.number_connected_components(graph)
    assert sum(row["closes_loop"] for row in rows) == edges - nodes + parts == summary(graph)["loops"]
    assert sorted(row["branch"] for row in rows) == list(range(edges))
    by_number = {row["branch"]: row for row in rows}
    for row in rows:
        above = by_number.get(row["parent"])
        assert (above is None) == (row["root_distance_mm"] == 0)
        if above is not None:
            assert not above["closes_loop"]
            assert above["distal_node"] == row["proximal_node"]
            assert row["root_distance_mm"] == pytest.approx(above["root_distance_mm"] + above["length_mm"])
            assert row["generation"] - above["generation"] == (graph.degree(row["proximal_node"]) > 2)
    # No other way to a terminal is wider than the one that was taken.
    ends = list(graph.edges(keys=True, data=True))
    for row in terminals(measure(graph)):
        wide = nx.MultiGraph([(u, v) for u, v, _, e in ends if e["radii"].min() > row["minimum_radius"]])
        root = measure(graph).forest.roots[row["tree"]]
        assert not (root in wide and row["node"] in wide and nx.has_path(wide, root, row["node"]))


@pytest.mark.parametrize("exponent", [2.5, 3.0])
@pytest.mark.parametrize("source", ["exact distance", "mask"])
def test_murrays_exponent_of_a_grown_tree_comes_back(exponent, source):
    shape = (96, 96, 96)
    truth = grow_tree(4, shape, (1.0, 1.0, 1.0), murray=exponent, loops=1)
    field = tube_distance(truth, shape, np.eye(4), band=10.0)
    if source == "mask":
        field = signed_distance(field <= 0, (1.0, 1.0, 1.0))
    found = summary(centreline_graph(field, np.eye(4)))
    expected = summary(truth)
    assert expected["murray"]["exponent"] == pytest.approx(exponent, abs=0.15)
    assert found["murray"]["exponent"] == pytest.approx(exponent, abs=0.25 if source == "exact distance" else 0.4)
    assert found["murray"]["low"] <= exponent <= found["murray"]["high"]
    assert found["length"] == pytest.approx(expected["length"], rel=0.02)
    assert found["volume"] == pytest.approx(expected["volume"], rel=0.04)
    assert found["angles"]["between"] == pytest.approx(
        expected["angles"]["between"], abs=6 if source == "exact distance" else 12
    )
