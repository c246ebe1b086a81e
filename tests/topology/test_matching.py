"""Shared features: rings, shells and pieces whose answer is known, then brute-force persistence on random masks."""

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.matching import shared_features


def image_rank(inner, outer):
    """Rank of H_k(inner) -> H_k(outer), k = 0, 1, 2, by persistence of the two-step cubical filtration over Z/2."""
    field = np.pad(np.where(inner, 0.0, np.where(outer, 1.0, 2.0)), 1, constant_values=2.0)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    return tuple(cubical.persistent_betti_numbers(0.5, 1.5)[:3])


def check_against_brute_force(p, g):
    found = shared_features(p, g)
    ranks = image_rank(p & g, p | g)
    for k in range(3):
        entry = found[k]
        assert entry["shared"] == ranks[k]
        assert entry["betti_p"] == betti_numbers(p)[k]
        assert len(entry["lost"]) == betti_numbers(p)[k] - ranks[k]
        assert len(entry["invented"]) == betti_numbers(g)[k] - ranks[k]
        assert entry["kernel"] == betti_numbers(p & g)[k] - ranks[k] >= 0
        assert entry["cokernel"] == betti_numbers(p | g)[k] - ranks[k] >= 0


def ring(shape=(9, 9, 3), hole=2):
    mask = np.zeros(shape, bool)
    mask[1:8, 1:8, 1] = True
    mask[1 + hole : 8 - hole, 1 + hole : 8 - hole, 1] = False
    return mask


def test_equal_masks_share_everything():
    mask = np.random.default_rng(0).random((8, 8, 8)) < 0.4
    found = shared_features(mask, mask)
    for k in range(3):
        assert found[k]["shared"] == betti_numbers(mask)[k]
        assert found[k]["kernel"] == found[k]["cokernel"] == 0
        assert found[k]["lost"] == found[k]["invented"] == []


def test_a_cut_loop_is_found_at_the_cut_in_mm():
    whole, cut = ring(), ring()
    cut[1:3, 3:6, 1] = False
    affine = np.array([[0, -0.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3, 0], [0, 0, 0, 1]])
    found = shared_features(whole, cut, affine)
    (lost,) = found[1]["lost"]
    assert lost["kind"] == "cut"
    index = np.linalg.solve(affine, [*lost["place"], 1])[:3]
    assert 1 <= index[0] < 3
    assert index[1] == pytest.approx(4)  # the middle of the gap
    assert shared_features(cut, whole)[1]["invented"][0]["kind"] == "cut"
    assert found[0]["shared"] == 1


def test_a_filled_loop_is_found_in_the_filling():
    filled = ring()
    filled[1:8, 1:8, 1] = True
    found = shared_features(ring(), filled)[1]
    assert found["shared"] == 0
    assert found["lost"] == [{"dimension": 1, "kind": "filled", "place": (4.0, 4.0, 1.0)}]
    assert found["kernel"] == 1
    assert found["cokernel"] == 0


def test_a_loop_of_the_same_shape_elsewhere_is_not_shared():
    p = np.zeros((20, 9, 3), bool)
    g = p.copy()
    p[:9] |= ring()
    g[10:19] |= ring()
    found = shared_features(p, g)
    assert betti_numbers(p) == betti_numbers(g)
    assert [found[k]["shared"] for k in range(3)] == [0, 0, 0]
    assert [d["kind"] for d in found[0]["lost"]] == ["absent"]
    assert found[0]["lost"][0]["place"][0] < 9
    assert found[0]["invented"][0]["place"][0] >= 10
    assert found[1]["cokernel"] == 2


def test_a_bridge_merges_two_components():
    p = np.zeros((15, 3, 3), bool)
    p[1:6, 1, 1] = p[9:14, 1, 1] = True
    g = p.copy()
    g[6:9, 1, 1] = True
    found = shared_features(p, g)[0]
    assert (found["shared"], found["kernel"], found["cokernel"]) == (1, 1, 0)
    assert found["lost"] == [{"dimension": 0, "kind": "merged", "place": (7.0, 1.0, 1.0)}]
    assert found["invented"] == []


def test_cavities_opened_and_filled():
    shell = np.ones((7, 7, 7), bool)
    shell[2:5, 2:5, 2:5] = False
    opened, filled = shell.copy(), np.ones_like(shell)
    opened[3, 3, 5:] = False
    found = shared_features(shell, opened)[2]
    assert [d["kind"] for d in found["lost"]] == ["opened"]
    assert found["lost"][0]["place"][:2] == (3.0, 3.0)
    assert found["lost"][0]["place"][2] >= 5
    (lost,) = shared_features(shell, filled)[2]["lost"]
    assert lost["kind"] == "filled"
    assert lost["place"] == (3.0, 3.0, 3.0)


def test_a_moved_tube_that_still_overlaps_is_shared():
    p, g = ring(hole=3), np.roll(ring(hole=2), 0, axis=0)
    assert shared_features(p, g)[1]["shared"] == 1


@pytest.mark.parametrize("density", [0.05, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_random_masks_agree_with_brute_force(density):
    rng = np.random.default_rng(int(100 * density))
    for shape in [(6, 6, 6), (5, 8, 3), (1, 9, 9), (8, 8, 8)]:
        p = rng.random(shape) < density
        check_against_brute_force(p, rng.random(shape) < density)
        check_against_brute_force(p, p ^ (rng.random(shape) < 0.1))


@given(st.integers(0, 2**32), st.floats(0.05, 0.95), st.floats(0.4, 1.5), st.floats(0, 0.5))
@settings(max_examples=40, deadline=None)
def test_smooth_pairs_agree_with_brute_force(seed, quantile, sigma, noise):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(10, 10, 10)), sigma)
    other = field + noise * field.std() * ndimage.gaussian_filter(rng.normal(size=field.shape), sigma / 2)
    check_against_brute_force(field <= np.quantile(field, quantile), other <= np.quantile(other, quantile))


def test_empty_and_full_masks():
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    found = shared_features(empty, empty)
    assert all(found[k]["shared"] == found[k]["kernel"] == found[k]["cokernel"] == 0 for k in range(3))
    found = shared_features(full, empty)
    assert len(found[0]["lost"]) == 1
    assert found[0]["cokernel"] == 1
    assert shared_features(full, full)[0]["shared"] == 1


def test_bad_input_is_refused_in_one_sentence():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(InputError, match="one grid"):
        shared_features(mask, np.ones((3, 3, 4), bool))
    with pytest.raises(InputError, match="3D"):
        shared_features(mask[0], mask[0])
    with pytest.raises(InputError, match="affine"):
        shared_features(mask, mask, np.zeros((4, 4)))
