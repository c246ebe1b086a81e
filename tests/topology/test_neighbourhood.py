"""Neighbourhoods and simple points against their definitions, written out voxel by voxel."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.neighbourhood import CENTRE, Voxels, adjacent_pairs, simple

FULL = np.ones((3, 3, 3))
FACES = ndimage.generate_binary_structure(3, 1)
NEAR_18 = ndimage.generate_binary_structure(3, 2)


def simple_by_definition(cube):
    """Bertrand and Malandain (1994): T26 = 1 and T6 = 1."""
    vessel = cube.copy()
    vessel[1, 1, 1] = False
    background = ~cube & NEAR_18
    background[1, 1, 1] = False
    labels = ndimage.label(background, FACES)[0]
    touching = set(labels[FACES & background].tolist()) - {0}
    return ndimage.label(vessel, FULL)[1] == 1 and len(touching) == 1


def code_of(cubes):
    return (cubes.reshape(-1, 27) << np.arange(27, dtype=np.uint32)).sum(axis=1).astype(np.uint32)


@pytest.mark.parametrize("density", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95])
def test_simple_points_are_those_of_the_definition(density):
    rng = np.random.default_rng(int(density * 100))
    cubes = rng.random((300, 3, 3, 3)) < density
    assert simple(code_of(cubes)).tolist() == [simple_by_definition(cube) for cube in cubes]


def test_the_centre_itself_does_not_matter():
    codes = np.random.default_rng(0).integers(0, 1 << 27, 10_000, dtype=np.uint32)
    assert np.array_equal(simple(codes | CENTRE), simple(codes & ~CENTRE))


def test_simplicity_does_not_depend_on_the_orientation():
    cubes = np.random.default_rng(1).random((2000, 3, 3, 3)) < 0.4
    expected = simple(code_of(cubes))
    for axes, flips in itertools.product(itertools.permutations((1, 2, 3)), itertools.product((1, -1), repeat=3)):
        turned = cubes.transpose(0, *axes)[:, :: flips[0], :: flips[1], :: flips[2]]
        assert np.array_equal(simple(code_of(turned)), expected)


def test_removing_a_simple_voxel_changes_no_betti_number():
    cubes = np.random.default_rng(2).random((150, 3, 3, 3)) < np.linspace(0.05, 0.95, 150)[:, None, None, None]
    cubes[:, 1, 1, 1] = True
    for cube, is_simple in zip(cubes, simple(code_of(cubes)), strict=True):
        without = cube.copy()
        without[1, 1, 1] = False
        assert not is_simple or betti_numbers(without) == betti_numbers(cube)


def test_an_isolated_voxel_and_an_inner_voxel_are_not_simple():
    inner = np.ones((1, 3, 3, 3), bool)
    alone = np.zeros((1, 3, 3, 3), bool)
    alone[:, 1, 1, 1] = True
    assert not simple(code_of(np.concatenate([inner, alone]))).any()
    assert simple(np.zeros(0, np.uint32)).shape == (0,)


def test_neighbourhoods_follow_removal():
    mask = np.zeros((6, 7, 8), bool)
    mask[1:-1, 1:-1, 1:-1] = np.random.default_rng(0).random((4, 5, 6)) < 0.5
    members = np.flatnonzero(mask)
    state = Voxels(mask.shape, members)
    gone, left = members[::3], np.delete(members, np.s_[::3])
    state.remove(gone)
    mask.reshape(-1)[gone] = False
    windows = np.lib.stride_tricks.sliding_window_view(mask, (3, 3, 3)).reshape(4, 5, 6, 27)
    x, y, z = np.unravel_index(left, mask.shape)
    expected = (windows[x - 1, y - 1, z - 1] << np.arange(27)).sum(axis=1)
    assert np.array_equal(state.neighbourhoods(left), expected)
    bits = expected[:, None] >> np.arange(27) & 1
    assert np.array_equal(mask.reshape(-1)[left[:, None] + state.steps], bits > 0)


@pytest.mark.parametrize("shape", [(6, 7, 8), (1, 1, 30), (1, 9, 9), (30, 1, 1)])
def test_adjacent_pairs_are_those_one_step_apart(shape):
    for density in (0.0, 0.1, 0.5, 1.0):
        voxels = np.argwhere(np.random.default_rng(3).random(shape) < density)
        apart = np.abs(voxels[:, None] - voxels[None]).max(axis=2, initial=0)
        expected = {(i, j) for i, j in np.argwhere(apart == 1).tolist() if i < j}
        found = [tuple(pair) for pair in adjacent_pairs(voxels).T.tolist()]
        assert len(found) == len(expected)
        assert set(found) == expected
