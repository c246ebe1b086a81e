"""False features: pin-holes, pits, specks and tears go; rings, slits, kissing vessels and side-by-side vessels stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.errors import InputError
from vesselsdf.false_features import KINDS, false_features, mended
from vesselsdf.graph import centreline_graph
from vesselsdf.synthesis.trees import grow_tree
from vesselsdf.topology.betti import betti_numbers

SPACINGS = [(1.0, 1.0, 1.0), (0.5, 0.5, 1.25)]


def kinds_of(mask, spacing=(1.0, 1.0, 1.0)):
    """How many false features of each kind the distance of a mask has."""
    found = [f.kind for f in false_features(signed_distance(mask, spacing), np.diag([*spacing, 1.0]))]
    return {kind: found.count(kind) for kind in KINDS if kind in found}


def tube(radius=2.5, shape=(17, 17, 40)):
    x, y = np.indices(shape)[:2] - 8.0
    mask = np.hypot(x, y) <= radius
    mask[:, :, :3] = mask[:, :, -3:] = False
    return mask


@pytest.mark.parametrize("spacing", SPACINGS)
def test_noise_of_a_voxel_or_two_is_named(spacing):
    mask = tube()
    assert kinds_of(mask, spacing) == {}
    mask[8, :, 10] = False  # through the whole vessel
    assert kinds_of(mask, spacing) == {"hole": 1}
    mask[8:10, :, 20:22] = False  # two voxels by two
    assert kinds_of(mask, spacing) == {"hole": 2}
    mask[8, 8, 30] = False
    assert kinds_of(mask, spacing) == {"hole": 2, "cavity": 1}
    mask[2, 2, 5] = True
    assert kinds_of(mask, spacing) == {"hole": 2, "cavity": 1, "speck": 1}


def test_a_tear_of_one_voxel_is_a_gap_and_one_of_three_is_not():
    mask = tube(1.0)
    mask[:, :, 20] = False
    assert kinds_of(mask) == {"gap": 1}
    mask[:, :, 20:23] = False
    assert kinds_of(mask) == {}


def test_a_torn_ring_is_closed_again():
    x, y, z = np.indices((31, 31, 9)) - np.array([15, 15, 4])[:, None, None, None]
    mask = np.hypot(np.hypot(x, y) - 10, z) <= 1
    assert betti_numbers(mask) == (1, 1, 0)
    mask[15, 20:, :] = False
    field = signed_distance(mask, (1.0, 1.0, 1.0))
    (tear,) = false_features(field, np.eye(4))
    assert (tear.kind, tear.dimension) == ("gap", 1)
    assert np.linalg.norm(np.array(tear.place) - [15, 25, 4]) <= 1.5
    assert betti_numbers(mended(field, [tear]) <= 0) == (1, 1, 0)


@pytest.mark.parametrize("hole", [3, 4, 5])
def test_a_ring_with_a_hole_of_three_voxels_is_no_noise(hole):
    mask = np.zeros((15, 15, 7), bool)
    mask[3:12, 3:12, 2:5] = True
    low = 5
    mask[low : low + hole, low : low + hole, :] = False
    assert betti_numbers(mask)[1] == 1
    assert kinds_of(mask) == {}


def test_the_slit_between_two_vessels_that_meet_twice_stays():
    mask = np.zeros((15, 9, 40), bool)
    mask[4:7, 3:6, 2:-2] = mask[8:11, 3:6, 2:-2] = True  # one voxel apart
    mask[7, 3:6, 4:6] = mask[7, 3:6, 30:32] = True
    assert betti_numbers(mask) == (1, 1, 0)
    assert kinds_of(mask) == {}


def test_vessels_that_kiss_stay_one_and_vessels_side_by_side_stay_two():
    kissing = np.zeros((30, 30, 30), bool)
    kissing[4:26, 14:17, 10:13] = kissing[14:17, 4:26, 13:16] = True
    assert betti_numbers(kissing) == (1, 0, 0)
    assert kinds_of(kissing) == {}
    apart = np.zeros((30, 30, 30), bool)
    apart[4:26, 14:17, 10:13] = apart[4:26, 14:17, 14:17] = True
    assert betti_numbers(apart) == (2, 0, 0)
    assert kinds_of(apart) == {}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.2), st.floats(-1.5, 0.3))
def test_mending_changes_the_betti_numbers_by_what_is_listed_in_any_field(seed, sigma, level):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(11, 10, 12)), sigma)
    field = noise / noise.std() - level
    found = false_features(field, np.diag([1.0, 0.7, 1.3, 1]))
    repaired = mended(field, found)
    change = np.sum([f.change for f in found], axis=0) if found else np.zeros(3)
    assert np.array_equal(np.subtract(betti_numbers(repaired <= 0), betti_numbers(field <= 0)), change)
    flips = np.argwhere((repaired <= 0) != (field <= 0))
    named = [tuple(v) for f in found for v in f.voxels.tolist()]
    assert sorted(map(tuple, flips.tolist())) == sorted(named)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_noisy_mask_has_the_loops_of_its_tree_again(seed):
    rng, shape = np.random.default_rng(seed), (96, 96, 96)
    affine = np.diag([-0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = 7, -3, 2
    tree = grow_tree(seed, shape, (0.5, 0.5, 0.5), loops=2)
    exact = tube_distance(tree, shape, np.diag([0.5, 0.5, 0.5, 1.0]))
    mask = exact <= 0
    inside = np.argwhere(exact <= 0)
    mask[tuple(inside[rng.choice(len(inside), len(inside) // 50, replace=False)].T)] = False
    field = signed_distance(mask, (0.5, 0.5, 0.5))
    before = betti_numbers(mask)
    assert before[1] > 2 or before[2] > 0
    found = false_features(field, affine)
    assert betti_numbers(mended(field, found) <= 0) == (1, 2, 0)
    for one in found:
        index = np.linalg.solve(affine, [*one.place, 1])[:3]
        assert np.abs(one.voxels - index).max() <= 3
        assert one.margin <= 0.75 * 0.5
    graph = centreline_graph(field, affine, remove_false_loops=True)
    assert graph.number_of_edges() - len(graph) + len(graph.graph["roots"]) == sum(
        betti_numbers(mended(field, false_features(field, affine, ("hole", "cavity"))) <= 0)[1:2]
    )


def test_what_cannot_be_searched_is_refused_and_fields_without_a_wall_have_none():
    assert false_features(np.ones((4, 4, 4)), np.eye(4)) == []
    assert false_features(-np.ones((4, 4, 4)), np.eye(4)) == []
    with pytest.raises(InputError, match="NaN"):
        false_features(np.full((4, 4, 4), np.nan), np.eye(4))
    with pytest.raises(InputError, match="'bridge'"):
        false_features(np.ones((4, 4, 4)), np.eye(4), ["bridge"])
