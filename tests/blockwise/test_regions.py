"""The centreline graph traced in regions: the components and loops of the vessels, whatever the regions."""

import shutil

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from vesselsdf.blockwise import plan as plans
from vesselsdf.blockwise.centreline import betti_of, centreline, collected
from vesselsdf.blockwise.plan import Plan
from vesselsdf.blockwise.skeleton import _filled, settled
from vesselsdf.blockwise.tasks import FIELDS, run_task
from vesselsdf.distance import signed_distance
from vesselsdf.field_store import FieldStore
from vesselsdf.graph_files.whole import read_json
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.topology.betti import betti_numbers

SPACING = 0.5


def stored(field, folder, block):
    """A plan, and a folder that holds a field as the phases before thinning leave it."""
    affine = np.array([[0, -SPACING, 0, 3], [SPACING, 0, 0, -2], [0, 0, -SPACING, 1], [0, 0, 0, 1]])
    plan = Plan(
        source="scan", checkpoint="weights", checkpoint_sha256="", spacing=SPACING, shape=field.shape,
        affine=tuple(map(tuple, affine.tolist())), block=block, levels=1, max_error=0.01,
    )  # fmt: skip
    plan.save(folder)
    FieldStore.create(folder / FIELDS, field.shape, affine, 1, 0.01, block)
    store = FieldStore.open(folder / FIELDS)
    for number in plan.blocks("field"):
        low, high = plan.box(number)
        first, last = plan.around(low, high, 8)
        store.write([field[tuple(map(slice, first, last))]], low, high, first)
    return plan


def traced(plan, folder):
    """Do the phases from thinning to joining; the number of the last turn of thinning."""

    def phase(name):
        for block in plan.blocks(name):
            run_task(folder, name, block)

    turn = 1
    phase("thin-1")
    while not settled(folder, plan, turn):
        turn += 1
        phase(f"thin-{turn}")
    for name in (f"spurs-{turn}", f"trace-{turn}", *plan.joining(turn)):
        phase(name)
    return turn


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(18, 36)] * 3),
    st.sampled_from([16, 24]),
    st.sampled_from([14, 16, 24]),
    st.sampled_from([0.7, 1.0, 2.0]),
    st.sampled_from([0.03, 0.1, 0.25]),
)
@settings(max_examples=6, deadline=None)
def test_components_and_loops_of_noise_are_exact(tmp_path_factory, seed, shape, block, region, smooth, share):
    """Clumps, sheets and knots on the faces of regions."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), smooth)
    field = (noise - np.quantile(noise, share)) * (2 / np.abs(noise).max())
    folder = tmp_path_factory.mktemp("noise")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "REGION", region)
        plan = stored(field.astype(np.float32), folder, block)
        names, _, ends = collected(folder, plan, traced(plan, folder))
    filled = _filled(plan, FieldStore.open(folder / FIELDS), np.zeros(3, int), np.array(shape))
    beta0, beta1, beta2 = betti_numbers(filled <= 0)
    shutil.rmtree(folder)
    if beta2 == 0:
        assert betti_of(names, ends) == {"components": beta0, "loops": beta1}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree with loops, thinned, and its graph from one region."""
    label = synthetic_case(5, (72, 64, 96), (SPACING,) * 3, "ct", loops=4, terminal_radius=(1.0, 1.5)).label
    folder = tmp_path_factory.mktemp("tree")
    plan = stored(signed_distance(label.array > 0, (SPACING,) * 3).astype(np.float32), folder, 32)
    return plan, folder, centreline(folder, plan, traced(plan, folder))


@pytest.mark.parametrize("region", [32, 70])
def test_a_tree_has_the_branches_that_it_has_in_one_region(tree, region, tmp_path, monkeypatch):
    plan, before, expected = tree
    shutil.copytree(before, tmp_path / "result")
    for kind in ("spurs", "trace", "join"):
        for folder in (tmp_path / "result" / "work").glob(f"{kind}-*"):
            shutil.rmtree(folder)
    monkeypatch.setattr(plans, "REGION", region)
    turn = traced(plan, tmp_path / "result")
    assert plan.joining(turn), "there is one region"
    graph = centreline(tmp_path / "result", plan, turn)
    assert sorted(degree for _, degree in graph.degree()) == sorted(degree for _, degree in expected.degree())
    assert not any("elsewhere" in data for _, data in graph.nodes(data=True))
    places, others = (np.array([data["pos"] for _, data in one.nodes(data=True)]) for one in (graph, expected))
    away, which = cKDTree(others).query(places)
    assert sorted(which) == list(range(len(places)))
    assert away.max() < 1.5 * SPACING
    assert np.median(away) < 0.15 * SPACING
    name = dict(zip(graph, which.tolist(), strict=True))
    assert sorted(sorted((name[u], name[v])) for u, v in graph.edges()) == sorted(map(sorted, expected.edges()))
    for power, tolerance in ((0, 0.003), (1, 0.01)):
        found, right = (
            sum(edge["length"] * edge["radii"].mean() ** power for *_, edge in one.edges(data=True))
            for one in (graph, expected)
        )
        assert found == pytest.approx(right, rel=tolerance)


def test_a_graph_that_fits_into_no_memory_is_left_in_parts(tree, tmp_path, monkeypatch):
    plan, before, _ = tree
    shutil.copytree(before, tmp_path / "result")
    for kind in ("spurs", "trace", "join"):
        for folder in (tmp_path / "result" / "work").glob(f"{kind}-*"):
            shutil.rmtree(folder)
    monkeypatch.setattr(plans, "REGION", 48)
    turn = traced(plan, tmp_path / "result")
    whole = centreline(tmp_path / "result", plan, turn)
    parts = [read_json(path) for path in sorted((tmp_path / "result" / "centreline").glob("*.json"))]
    assert len(parts) > 1
    graph = nx.MultiGraph()
    for part in parts:
        graph.add_nodes_from(part.nodes(data=True))
        graph.add_edges_from(part.edges(data=True))
    names, _, ends = collected(tmp_path / "result", plan, turn)
    assert betti_of(names, ends) == {"components": nx.number_connected_components(whole), "loops": 4}
    assert sorted(graph) == names.tolist()
    assert np.allclose(
        sorted(data["pos"].tolist() for _, data in graph.nodes(data=True)),
        sorted(data["pos"].tolist() for _, data in whole.nodes(data=True)),
    )
    lengths = (sorted(edge["length"] for *_, edge in one.edges(data=True)) for one in (graph, whole))
    assert np.allclose(*lengths)
