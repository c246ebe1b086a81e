"""Pruning takes off chains that end inside the vessel they come off, and nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.neighbourhood import Voxels
from vesselsdf.topology.pruning import prune
from vesselsdf.topology.thinning import crop


def pruned(mask, depth):
    """What is left of a mask whose depth is the same everywhere."""
    voxels = crop(mask)
    state = Voxels(voxels.shape, voxels.members)
    left = prune(state, voxels.members, lambda places: np.full(places.shape, float(depth)))
    # The state holds what is left, no more and no less.
    in_state = state.planes[voxels.members] >> 4 & 1 > 0
    assert np.array_equal(voxels.members[in_state], left)
    return voxels.in_box(left)


def end_count(mask):
    return int((ndimage.convolve(mask.astype(np.uint8), np.ones((3, 3, 3)), mode="constant")[mask] == 2).sum())


@pytest.fixture
def line():
    line = np.zeros((15, 9, 30), bool)
    line[4, 4, 2:28] = True
    return line


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("depth", [0.0, 1.0, 2.5, 4.0])
def test_a_chain_is_a_spur_when_it_ends_within_the_ball_at_its_foot(line, length, depth):
    with_side = line.copy()
    with_side[5 : 5 + length, 4, 15] = True
    left = pruned(with_side, depth)
    stop = np.array([[5, 4, 15]])  # the first voxel with two ways on
    reach = np.abs(np.array([[4 + length, 4, 15]]) - stop).max()
    if length == 1:  # one voxel is no chain: it has all its ways on at once
        assert left[4, 4, 2:28].all()
        return
    is_spur = reach <= max(depth, 3**0.5)
    assert end_count(left) == (2 if is_spur else 3)
    assert left[4, 4, 2:28].all()


def test_of_spurs_that_meet_only_the_shorter_is_taken_at_a_time():
    fork = np.zeros((20, 20, 30), bool)
    fork[10, 10, 2:20] = True
    for k in range(1, 4):
        fork[10 + k, 10, 19 + k] = True
    fork[10, 11, 20] = fork[10, 12, 21] = True
    left = pruned(fork, 4.5)
    assert np.argwhere(fork & ~left).tolist() == [[10, 12, 21]]


def test_whole_components_rings_and_single_voxels_stay():
    mask = np.zeros((12, 12, 12), bool)
    mask[1, 1, 1] = True  # a voxel
    mask[4, 4, 2:6] = True  # a line
    mask[8:11, 8:11, 8] = True
    mask[9, 9, 8] = False  # a ring
    assert np.array_equal(pruned(mask, 100.0), mask)


@pytest.mark.parametrize("depth", [0.0, 2.0, 1e6])
def test_any_set_of_voxels_keeps_its_betti_numbers(depth):
    rng = np.random.default_rng(0)
    for density in (0.03, 0.06, 0.1, 0.15, 0.2, 0.3):
        mask = rng.random((14, 15, 16)) < density
        left = pruned(mask, depth)
        assert (left <= mask).all()
        assert betti_numbers(left) == betti_numbers(mask)
