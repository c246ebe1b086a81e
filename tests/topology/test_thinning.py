"""Thinning: the skeleton has the mask's Betti numbers for every input, is centred, and keeps real ends only."""

import itertools

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.neighbourhood import Voxels, simple
from vesselsdf.topology.thinning import collapse, crop, squared_depth, thin

FULL = np.ones((3, 3, 3))


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


def test_depth_is_scipys():
    rng = np.random.default_rng(1)
    for mask in (rng.random((9, 10, 11)) < 0.8, np.ones((7, 12, 5), bool), np.ones((60, 60, 60), bool)):
        voxels = crop(mask)
        expected = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1][mask] ** 2
        assert np.allclose(squared_depth(voxels), expected)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bars_become_lines_along_their_whole_length(width, axis):
    bar = np.moveaxis(np.ones((width, width, 40), bool), 2, axis)
    along = [a for a in range(3) if a != axis]
    for skeleton in (thin(bar), thin(np.pad(bar, 2))):
        assert betti_numbers(skeleton) == (1, 0, 0)
        assert sorted(neighbour_counts(skeleton))[:2] == [1, 1]
        assert max(neighbour_counts(skeleton)) == 2
        line = np.argwhere(skeleton)
        # From half a width before one face to half a width before the other, in every layer.
        layers = np.unique(line[:, axis] - line[:, axis].min())
        assert len(layers) == len(line) >= 40 - width - 1
        shift = 0 if skeleton.shape == bar.shape else 2
        assert np.abs(line[:, along] - shift - (width - 1) / 2).max() <= 1


@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_a_square_ring_of_bars_stays_a_ring(width):
    ring = np.zeros((40, 40, width + 4), bool)
    ring[2:38, 2:38, 2 : 2 + width] = True
    ring[2 + width : 38 - width, 2 + width : 38 - width] = False
    skeleton = thin(ring)
    assert betti_numbers(skeleton) == (1, 1, 0)
    assert (neighbour_counts(skeleton) == 2).all()


def test_cube_and_ball_become_a_point_or_a_short_line():
    ball = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) <= 9
    for body in (np.ones((9, 9, 9), bool), np.ones((8, 8, 8), bool), ball):
        skeleton = thin(body)
        assert betti_numbers(skeleton) == (1, 0, 0)
        assert 1 <= skeleton.sum() <= 3


def test_a_torus_becomes_a_ring_along_its_centre_line():
    x, y, z = np.indices((45, 45, 15)) - np.array([22, 22, 7])[:, None, None, None]
    field = np.hypot(np.hypot(x, y) - 15.0, z) - 4.2
    skeleton = thin(field <= 0, field)
    assert betti_numbers(skeleton) == (1, 1, 0)
    assert (neighbour_counts(skeleton) == 2).all()
    assert field[skeleton].max() < -4.2 + 1


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


def test_a_skeleton_has_no_voxel_that_could_be_taken_off_but_ends():
    rng = np.random.default_rng(2)
    field = ndimage.gaussian_filter(rng.normal(size=(40, 40, 40)), 2)
    mask = field <= np.quantile(field, 0.15)
    voxels = crop(thin(mask))
    state = Voxels(voxels.shape, voxels.members)
    removable = simple(state.neighbourhoods(voxels.members))
    assert (np.bitwise_count(state.neighbourhoods(voxels.members[removable])) == 2).all()


def test_branches_of_lines_one_voxel_wide_are_kept_with_a_field_that_hardly_changes_along_them():
    mask = np.zeros((20, 20, 40), bool)
    mask[10, 10, 3:37] = True
    mask[11:14, 10, 12] = mask[10, 6:10, 25] = True
    field = np.where(mask, -0.4 - 0.01 * np.indices(mask.shape)[2] / 40, 0.6)
    assert (thin(mask) == thin(mask, field)).all()
    assert (neighbour_counts(thin(mask, field)) == 1).sum() == 4


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
@settings(max_examples=50, deadline=None)
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


def row_of_masks(rng, count):
    """Random masks of many shapes and densities in a row along x, one background layer apart, and where each lies."""
    masks, places, x = [], [], 0
    for k in range(count):
        shape = np.minimum(rng.integers(1, 9, 3), rng.choice([1, 8, 8, 8], 3))
        masks.append(rng.random(shape) < k / (count - 1))
        places.append(slice(x, x + shape[0]))
        x += shape[0] + 1
    row = np.zeros((x, 8, 8), bool)
    for mask, place in zip(masks, places, strict=True):
        row[place, : mask.shape[1], : mask.shape[2]] = mask
    return row, places


def gudhi_betti(mask):
    """Betti numbers of the union of closed voxels (T-construction), by persistence over Z/2."""
    field = np.pad(np.where(mask, 0.0, 1.0), 1, constant_values=1.0)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    return tuple(cubical.persistent_betti_numbers(0.5, 0.5)[:3])


@pytest.mark.parametrize("seed", range(20))
def test_two_thousand_random_masks_keep_their_betti_numbers(seed):
    # A hundred masks in each row: they are thinned together, and counted apart in the subset that gudhi counts.
    rng = np.random.default_rng(seed)
    row, places = row_of_masks(rng, 100)
    for skeleton in (thin(row), thin(row, rng.normal(size=row.shape))):
        assert (skeleton <= row).all()
        assert betti_numbers(skeleton) == betti_numbers(row) == gudhi_betti(skeleton)
        for place in places[seed % 10 :: 10]:
            assert betti_numbers(skeleton[place]) == gudhi_betti(row[place]) == gudhi_betti(skeleton[place])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_two_thousand_random_masks_one_by_one(seed):
    rng = np.random.default_rng([seed, 1])
    row, places = row_of_masks(rng, 100)
    for place in places:
        mask = row[place, : rng.integers(1, 9), : rng.integers(1, 9)]
        for skeleton in (thin(mask), thin(mask, rng.normal(size=mask.shape))):
            assert betti_numbers(skeleton) == betti_numbers(mask) == gudhi_betti(mask) == gudhi_betti(skeleton)
        assert np.array_equal(thin(skeleton), thin(thin(skeleton)))


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 10)] * 3), st.floats(0, 1), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_skeleton_is_its_own_skeleton(seed, shape, density, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    skeleton = thin(field <= np.quantile(field, density))
    assert np.array_equal(thin(skeleton), skeleton)


@pytest.mark.parametrize("radius", [1.0, 2.0, 4.0])
def test_a_skeleton_is_its_own_skeleton_in_the_field_that_it_came_from(radius):
    field = np.minimum(
        cone_field((40, 40, 60), (12, 20, 8), (12, 20, 52), radius, radius),
        cone_field((40, 40, 60), (12, 20, 30), (33, 20, 30), 1.0, 1.0),
    )
    skeleton = thin(field <= 0, field)
    assert np.array_equal(thin(skeleton, field), skeleton)
    assert np.array_equal(thin(skeleton), skeleton)


def test_the_order_of_an_array_in_memory_does_not_matter():
    rng = np.random.default_rng(4)
    field = ndimage.gaussian_filter(rng.normal(size=(20, 25, 30)), 1.5)
    mask = field <= -0.05
    skeleton, alone, kept = thin(mask, field), thin(mask), collapse(mask, mask & (field < -0.2))
    for axes in itertools.permutations(range(3)):
        mask_2, field_2 = (np.ascontiguousarray(a.transpose(axes)).transpose(np.argsort(axes)) for a in (mask, field))
        assert np.array_equal(thin(mask_2, field_2), skeleton)
        assert np.array_equal(thin(mask_2, field), skeleton)
        assert np.array_equal(thin(mask_2), alone)
        assert np.array_equal(collapse(mask_2, mask_2 & (field_2 < -0.2)), kept)


def test_an_empty_border_and_the_place_in_the_box_do_not_matter():
    field = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(20, 20, 20)), 1.5)
    mask = field <= -0.05
    wide = np.zeros((31, 30, 29), bool)
    wide[5:25, 8:28, 6:26] = mask
    # The sub-lattices are counted from the mask's first layers, not from the box.
    assert np.array_equal(thin(wide)[5:25, 8:28, 6:26], thin(mask))


def test_the_unit_and_type_of_the_field_do_not_matter():
    field = np.rint(64 * cone_field((30, 30, 40), (9, 11, 8), (20, 17, 33), 4, 3))
    skeleton = thin(field <= 0, field)
    for other in (field.astype(np.int32), field.astype(np.int16), field.astype(np.float32), field * 2.0**-40):
        assert np.array_equal(thin(field <= 0, other), skeleton)


def test_smooth_fields_keep_their_betti_numbers():
    for seed, sigma in itertools.product(range(3), (1.0, 2.0, 3.0)):
        field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(40, 40, 40)), sigma)
        mask = field <= np.quantile(field, 0.2)
        assert betti_numbers(thin(mask, field)) == betti_numbers(thin(mask)) == betti_numbers(mask)


@pytest.mark.parametrize("scale", [1e-310, 1e-30, 1e30, 1e307])
def test_fields_of_any_size_are_thinned(scale):
    field = ndimage.gaussian_filter(np.random.default_rng(6).normal(size=(12, 12, 12)), 1)
    field *= scale / np.abs(field).max()
    for mask in (field <= 0, field <= np.quantile(field, 0.8), np.ones_like(field, bool)):
        assert betti_numbers(thin(mask, field)) == betti_numbers(mask)


def test_empty_full_and_one_voxel():
    for shape in ((3, 4, 5), (1, 1, 1), (1, 9, 9)):
        for field in (None, np.zeros(shape), np.ones(shape, int)):
            assert not thin(np.zeros(shape, bool), field).any()
            assert betti_numbers(thin(np.ones(shape, bool), field)) == (1, 0, 0)
    one = np.zeros((5, 6, 7), np.uint8)
    one[4, 0, 6] = 3
    assert np.array_equal(thin(one), one > 0)
    assert thin(one).dtype == bool
    assert np.array_equal(thin(one, np.full(one.shape, -1)), one > 0)
    assert not collapse(np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool)).any()


def test_the_input_is_not_changed():
    rng = np.random.default_rng(7)
    mask, field = rng.random((9, 9, 9)) < 0.5, rng.normal(size=(9, 9, 9))
    copies = mask.copy(), field.copy()
    mask.setflags(write=False)
    field.setflags(write=False)
    thin(mask, field)
    assert np.array_equal(mask, copies[0])
    assert np.array_equal(field, copies[1])


def test_bad_input():
    mask = np.ones((4, 4, 4), bool)
    for other in (mask, np.zeros_like(mask)):
        with pytest.raises(InputError, match="same grid"):
            thin(other, np.zeros((4, 4, 5)))
    for bad in (np.nan, np.inf, -np.inf):
        field = np.zeros((4, 4, 4))
        field[1, 2, 3] = bad
        with pytest.raises(InputError, match="NaN"):
            thin(mask, field)
        outside = mask.copy()
        outside[1, 2, 3] = False
        assert betti_numbers(thin(outside, field)) == betti_numbers(outside)  # what lies outside is not read
    with pytest.raises(InputError, match="complex128"):
        thin(mask, np.zeros((4, 4, 4), complex))
    with pytest.raises(InputError, match="3D"):
        thin(np.ones((4, 4), bool))
    with pytest.raises(InputError, match="no voxel"):
        thin(np.ones((4, 0, 4), bool))
    with pytest.raises(InputError, match="dtype"):
        thin(np.zeros((4, 4, 4)))


def test_pulmonary_tree_keeps_its_five_loops(shared_data):
    import nibabel

    mask = np.asarray(nibabel.load(shared_data / "pulmonary" / "PA000005.nii.gz").dataobj) > 0
    assert betti_numbers(mask) == betti_numbers(thin(mask)) == (1, 5, 0)
