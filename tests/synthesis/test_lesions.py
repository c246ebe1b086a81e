"""Stenoses and aneurysms: they change the lumen, never the topology."""

import numpy as np
import pytest

from vesselsdf.distance import tube_distance
from vesselsdf.synthesis import cases
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.synthesis.lesions import with_lesions
from vesselsdf.synthesis.trees import THINNEST, grow_tree
from vesselsdf.topology.betti import betti_numbers

SHAPE = (64, 64, 64)


@pytest.fixture(scope="module")
def tree():
    return grow_tree(5, SHAPE, (0.5, 0.5, 0.5), loops=1, terminal_radius=(1.8, 2.4))


def radii(graph):
    return [edge["radii"] for *_, edge in graph.edges(data=True)]


def test_lesions_narrow_and_widen_vessels_and_add_sacs(tree):
    narrowest, widest, sacs = [], [], 0
    for seed in range(40):
        ill = with_lesions(tree, 1, 0.5, np.random.default_rng(seed))
        shares = [np.min(a / b) for a, b in zip(radii(ill), radii(tree), strict=True)]
        growth = [np.max(a / b) for a, b in zip(radii(ill), radii(tree), strict=True)]
        narrowest.append(min(shares))
        widest.append(max(growth))
        sacs += len(ill) - len(tree)
        assert min(r.min() for r in radii(ill)) >= min(THINNEST * 0.5, min(r.min() for r in radii(tree))) - 1e-9
    assert min(narrowest) < 0.7
    assert max(widest) > 1.4
    assert 4 <= sacs <= 20
    assert all(np.array_equal(a, b) for a, b in zip(radii(tree), radii(tree.copy()), strict=True))


def test_a_sac_hangs_on_its_vessel(tree):
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    for seed in range(20):
        ill = with_lesions(tree, 1, 0.5, np.random.default_rng(seed))
        if len(ill) > len(tree):
            grown = tube_distance(ill, SHAPE, affine) <= 0
            assert betti_numbers(grown)[0] == 1
            assert grown.sum() > (tube_distance(tree, SHAPE, affine) <= 0).sum()


@pytest.mark.parametrize("seed", range(6))
def test_a_diseased_case_has_the_topology_of_its_graph(seed, monkeypatch):
    monkeypatch.setattr(cases, "DISEASED", 1.0)
    case = synthetic_case(seed, SHAPE, (0.5, 0.5, 0.5), "ct")
    loops = case.graph.number_of_edges() - case.graph.number_of_nodes() + 1
    assert betti_numbers(case.sdf.array <= 0) == (1, loops, 0)
    assert not any(str(node).startswith("sac") for node in case.graph)
