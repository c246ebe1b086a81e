"""Thinning: the skeleton has the mask's Betti numbers for every input, is centred, and keeps real ends only."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.neighbourhood import Voxels, simple
from vesselsdf.topology.pruning import prune
from vesselsdf.topology.thinning import collapse, crop, squared_depth, thin

FULL = np.ones((3, 3, 3))
FACES = ndimage.generate_binary_structure(3, 1)
NEAR_18 = ndimage.generate_binary_structure(3, 2)


def cone_field(shape, start, end, radius_start, radius_end):
    """Distance to a cone with round ends, voxels."""
    grid = np.stack(np.indices(shape), -1).astype(float)
    axis = np.subtract(end, start)
    t = np.clip((grid - start) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(grid - (start + t[..., None] * axis), axis=-1) - (
        radius_start + (radius_end - radius_start) * t
    )


def neighbour_counts(skeleton):
    return ndimage.convolve(skeleton.astype(np.uint8), np.ones((3, 3, 3), np.uint8), mode="constant")[skeleton] - 1


def simple_by_definition(cube):
    """Bertrand and Malandain (1994): T26 = 1 and T6 = 1."""
    vessel = cube.copy()
    vessel[1, 1, 1] = False
    background = ~cube & NEAR_18
    background[1, 1, 1] = False
    labels = ndimage.label(background, FACES)[0]
    touching = set(labels[FACES & background].tolist()) - {0}
    return ndimage.label(vessel, FULL)[1] == 1 and len(touching) == 1


@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_simple_points_are_those_of_the_definition(density):
    rng = np.random.default_rng(int(density * 10))
    cubes = rng.random((300, 3, 3, 3)) < density
    codes = (cubes.reshape(-1, 27) << np.arange(27, dtype=np.uint32)).sum(axis=1).astype(np.uint32)
    assert simple(codes).tolist() == [simple_by_definition(cube) for cube in cubes]


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


def test_depth_is_scipys():
    rng = np.random.default_rng(1)
    for mask in (rng.random((9, 10, 11)) < 0.8, np.ones((7, 12, 5), bool), np.ones((60, 60, 60), bool)):
        voxels = crop(mask)
        expected = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1][mask] ** 2
        assert np.allclose(squared_depth(voxels), expected)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bars_become_lines_of_nearly_their_length(width, axis):
    bar = np.moveaxis(np.ones((width, width, 40), bool), 2, axis)
    skeleton = thin(bar)
    assert betti_numbers(skeleton) == (1, 0, 0)
    assert 40 - width - 2 <= skeleton.sum() <= 40
    assert sorted(neighbour_counts(skeleton))[:2] == [1, 1]
    assert max(neighbour_counts(skeleton)) == 2
    middle = np.argwhere(skeleton)[:, [a for a in range(3) if a != axis]]
    assert np.abs(middle - (width - 1) / 2).max() <= 1


def test_cube_and_ball_become_a_point_or_a_short_line():
    ball = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) <= 9
    for body in (np.ones((9, 9, 9), bool), np.ones((8, 8, 8), bool), ball):
        skeleton = thin(body)
        assert betti_numbers(skeleton) == (1, 0, 0)
        assert 1 <= skeleton.sum() <= 3


def test_hollow_shell_stays_closed():
    r = np.linalg.norm(np.indices((31, 31, 31)) - 15, axis=0)
    skeleton = thin((r <= 14) & (r >= 7))
    assert betti_numbers(skeleton) == (1, 0, 1)
    assert skeleton.sum() < 4 * np.pi * 14**2


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_branch_has_two_ends_and_a_centred_line(radius, seed):
    rng = np.random.default_rng(seed)
    start, end = rng.uniform(9, 13, 3), rng.uniform(28, 34, 3)
    field = cone_field((44, 44, 44), start, end, radius, max(1.0, 0.8 * radius))
    skeleton = thin(field <= 0, field)
    assert betti_numbers(skeleton) == (1, 0, 0)
    assert (neighbour_counts(skeleton) == 1).sum() == 2
    line = np.argwhere(skeleton)
    axis = end - start
    t = np.clip((line - start) @ axis / (axis @ axis), 0, 1)
    assert np.linalg.norm(line - (start + t[:, None] * axis), axis=1).max() <= 1.0
    for tip in (start, end):
        assert np.linalg.norm(line - tip, axis=1).min() <= 2.5
    from_mask = thin(field <= 0)
    assert betti_numbers(from_mask) == (1, 0, 0)
    assert (neighbour_counts(from_mask) == 1).sum() == 2
    for tip in (start, end):
        assert np.linalg.norm(np.argwhere(from_mask) - tip, axis=1).min() <= 5


def test_a_thin_vessel_beside_a_thick_one_is_not_eaten():
    field = cone_field((24, 24, 60), (8, 8, 8), (8, 8, 52), 6, 6)
    mask = field <= 0
    mask[16, 8, 10:50] = True  # one background voxel between them
    for skeleton in (thin(mask), thin(mask, np.minimum(field, np.where(mask & (field > 0), -0.5, 9.0)))):
        assert betti_numbers(skeleton) == (2, 0, 0)
        assert skeleton[16, 8, 12:48].all()


@pytest.mark.parametrize("radius", [1.5, 2.0, 3.0, 5.0])
def test_a_rough_wall_grows_no_spurs(radius):
    rng = np.random.default_rng(0)
    field = cone_field((44, 44, 44), (10, 11, 12), (33, 30, 31), radius, radius)
    rough = field + ndimage.gaussian_filter(rng.normal(size=field.shape), 1)
    labels, _ = ndimage.label(rough <= 0, FULL)
    mask = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    assert (neighbour_counts(thin(mask)) == 1).sum() <= 3


def test_spurs_inside_their_vessel_are_taken_off_and_branches_stay():
    line = np.zeros((9, 9, 30), bool)
    line[4, 4, 2:28] = True
    spur, branch = line.copy(), line.copy()
    spur[5:7, 4, 15] = True
    branch[5:9, 4, 15] = True
    for mask, ends in ((spur, 2), (branch, 3)):
        voxels = crop(mask)
        depth = np.zeros(int(np.prod(voxels.shape)), np.float32)
        depth[voxels.members] = 2.5
        left = voxels.in_box(prune(voxels.members, depth, voxels.shape))
        assert (neighbour_counts(left) == 1).sum() == ends
        assert left[4, 4, 2:28].all()


def test_a_skeleton_has_no_voxel_that_could_be_taken_off_but_ends():
    rng = np.random.default_rng(2)
    field = ndimage.gaussian_filter(rng.normal(size=(40, 40, 40)), 2)
    mask = field <= np.quantile(field, 0.15)
    voxels = crop(thin(mask))
    state = Voxels(voxels.shape, voxels.members)
    removable = simple(state.neighbourhoods(voxels.members))
    assert (np.bitwise_count(state.neighbourhoods(voxels.members[removable])) == 2).all()


def test_a_side_branch_is_kept():
    trunk = cone_field((40, 40, 60), (12, 20, 8), (12, 20, 52), 5, 5)
    twig = cone_field((40, 40, 60), (12, 20, 30), (33, 20, 30), 1.2, 1.2)
    field = np.minimum(trunk, twig)
    skeleton = thin(field <= 0, field)
    assert (neighbour_counts(skeleton) == 1).sum() == 3
    assert np.argwhere(skeleton)[:, 0].max() >= 31


@pytest.mark.parametrize("density", [0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
def test_noise_keeps_its_betti_numbers(density):
    rng = np.random.default_rng(3)
    for shape in [(12, 13, 14), (1, 20, 20), (2, 30, 3), (25, 25, 25)]:
        mask = rng.random(shape) < density
        assert betti_numbers(thin(mask)) == betti_numbers(mask)
        field = rng.normal(size=shape)
        assert betti_numbers(thin(mask, field)) == betti_numbers(mask)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 10)] * 3), st.floats(0, 1), st.floats(0, 2))
@settings(max_examples=100, deadline=None)
def test_any_mask_keeps_its_betti_numbers(seed, shape, density, sigma):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.random(shape), sigma)
    mask = field <= np.quantile(field, density)
    skeleton = thin(mask)
    assert not (skeleton & ~mask).any()
    assert betti_numbers(skeleton) == betti_numbers(mask)
    assert np.array_equal(thin(mask), skeleton)
    for order in (field, -field, 1e6 * rng.normal(size=shape) ** 3, np.ones(shape)):
        assert betti_numbers(thin(mask, order)) == betti_numbers(mask)


@given(st.integers(0, 2**32), st.floats(0, 1), st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_collapse_keeps_what_it_is_told_and_the_betti_numbers(seed, density, kept):
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 9, 9)) < density
    keep = mask & (rng.random(mask.shape) < kept)
    result = collapse(mask, keep)
    assert (keep <= result).all()
    assert (result <= mask).all()
    assert betti_numbers(result) == betti_numbers(mask)


def test_smooth_fields_keep_their_betti_numbers():
    for seed, sigma in itertools.product(range(3), (1.0, 2.0, 3.0)):
        field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 40, 40)), sigma)
        mask = field <= np.quantile(field, 0.2)
        assert betti_numbers(thin(mask, field)) == betti_numbers(mask)


def test_empty_full_and_bad_input():
    assert not thin(np.zeros((3, 4, 5), bool)).any()
    assert thin(np.ones((1, 1, 1), bool)).sum() == 1
    assert betti_numbers(thin(np.ones((6, 5, 7), bool))) == (1, 0, 0)
    mask = np.ones((4, 4, 4), bool)
    with pytest.raises(InputError, match="same grid"):
        thin(mask, np.zeros((4, 4, 5)))
    with pytest.raises(InputError, match="NaN"):
        thin(mask, np.full((4, 4, 4), np.nan))
    with pytest.raises(InputError, match="3D"):
        thin(np.ones((4, 4), bool))
    with pytest.raises(InputError, match="dtype"):
        thin(np.zeros((4, 4, 4)))


def test_pulmonary_tree_keeps_its_five_loops(shared_data):
    import nibabel

    mask = np.asarray(nibabel.load(shared_data / "pulmonary" / "PA000005.nii.gz").dataobj) > 0
    assert betti_numbers(mask) == betti_numbers(thin(mask)) == (1, 5, 0)
