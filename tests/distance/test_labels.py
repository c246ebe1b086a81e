"""Distances from masks and fractions: the wall below the size of a voxel, thin vessels that do not shrink."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import cKDTree
from tubes import centres, random_tubes, tube

from vesselsdf.distance import partial_volume_distance, signed_distance, tube_distance
from vesselsdf.distance.walls import walls_of_mask
from vesselsdf.errors import InputError


def straight(seed, radius, spacing, size=40):
    """A tube across the middle of a cube of `size` mm, in a random direction, and the grid's shape."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis *= 0.35 * size / np.linalg.norm(axis)
    middle = size / 2 + rng.uniform(-0.5, 0.5, 3)
    shape = tuple(int(size / step) for step in spacing)
    return tube(([middle - axis, middle + axis], [radius, radius])), shape, middle, axis / np.linalg.norm(axis)


def radius_of(field, spacing, middle, axis, reach=8.0):
    """Mean radius of the zero level around the middle, by rays across it."""
    from scipy.ndimage import map_coordinates

    across = np.linalg.svd(axis[None])[2][1:]
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rays = np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
    along = np.arange(0, reach, 0.05)
    radii = []
    for t in np.linspace(-6, 6, 25):
        places = (middle + t * axis)[:, None, None] + along[None, None] * rays.T[:, :, None]
        values = map_coordinates(field, places / np.array(spacing)[:, None, None], order=1)
        radii.append(along[(values > 0).argmax(axis=1)].mean() - 0.025)
    return float(np.mean(radii))


class TestSignedDistance:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_wall_along_the_grid_lies_half_way(self, axis):
        mask = np.zeros((20, 21, 22), bool)
        np.moveaxis(mask, axis, 0)[:9] = True
        spacing = (0.5, 1.0, 2.0)
        field = np.moveaxis(signed_distance(mask, spacing), axis, 0)
        expected = (np.arange(len(field)) - 8.5) * spacing[axis]
        np.testing.assert_allclose(field, np.broadcast_to(expected[:, None, None], field.shape), atol=1e-4)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.6, 1.5)])
    def test_a_tilted_wall(self, seed, spacing):
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        place = centres((40, 40, 40), np.diag([*spacing, 1.0])) - 20 * np.array(spacing)
        truth = place @ normal + rng.uniform(-0.5, 0.5)
        field = signed_distance(truth <= 0, spacing)
        inner = (slice(6, -6),) * 3
        near = np.abs(truth[inner]) < 3
        error = (field - truth)[inner][near] / np.linalg.norm(normal * spacing)  # in steps of the grid along the normal
        assert np.abs(error).mean() < 0.22
        assert abs(error.mean()) < 0.02
        assert np.abs(error).max() < 0.6

    @pytest.mark.parametrize("radius", [2.0, 5.0, 11.0])
    def test_a_ball(self, radius):
        centre = np.array([15.3, 16.1, 14.8])
        truth = np.linalg.norm(centres((32, 32, 32), np.eye(4)) - centre, axis=-1) - radius
        error = signed_distance(truth <= 0, (1.0, 1.0, 1.0)) - truth
        assert np.abs(error[np.abs(truth) < 3]).mean() < 0.2
        assert np.abs(error).mean() < 0.25

    def test_tubes_to_an_eighth_of_a_voxel(self):
        truth = tube_distance(random_tubes(3, 64.0, count=20), (64, 64, 64), np.eye(4))
        error = (signed_distance(truth <= 0, (1.0, 1.0, 1.0)) - truth)[np.abs(truth) < 3]
        assert np.abs(error).mean() < 0.13
        assert abs(error.mean()) < 0.08

    @settings(max_examples=60, deadline=None)
    @given(
        mask=hnp.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)),
        spacing=st.tuples(*[st.floats(0.2, 5.0)] * 3),
        band=st.none() | st.floats(0.1, 10),
    )
    def test_the_sign_is_always_the_masks(self, mask, spacing, band):
        if mask.all() or not mask.any():
            with pytest.raises(InputError):
                signed_distance(mask, spacing, band)
            return
        field = signed_distance(mask, spacing, band)
        assert field.dtype == np.float32
        assert field.shape == mask.shape
        assert np.array_equal(field < 0, mask)
        assert (field != 0).all()
        # Every voxel at the wall is at most a voxel away from it, along an axis and so in any direction.
        for axis in range(3):
            jump = np.abs(np.diff(field, axis=axis))[np.diff(mask, axis=axis)]
            assert (jump <= 2 * spacing[axis] + 1e-4).all()

    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.2)])
    def test_far_distances_are_those_to_the_nearest_place_of_the_wall(self, spacing):
        steps = np.array(spacing)
        mask = tube_distance(random_tubes(7, 40.0, count=3), (48, 48, 34), np.diag([*spacing, 1.0])) <= 0
        field = signed_distance(mask, spacing)
        wall = walls_of_mask(mask, steps).points
        far = np.abs(field) > 3.1 * steps.max()
        nearest = cKDTree(wall).query(np.argwhere(far) * steps)[0]
        difference = np.abs(field[far]) - nearest
        assert np.abs(difference).max() < 1e-3

    def test_far_from_a_ball_the_distance_is_right_to_a_fraction_of_a_voxel(self):
        truth = np.linalg.norm(centres((64, 60, 62), np.eye(4)) - [20.3, 31.1, 29.8], axis=-1) - 7
        error = (signed_distance(truth <= 0, (1.0, 1.0, 1.0)) - truth)[truth > 4]
        assert np.abs(error).mean() < 0.12  # of the wall itself
        assert np.abs(error).max() < 0.5

    @pytest.mark.parametrize("band", [1.0, 3.0, 7.0, 12.0])
    def test_a_band_clips_and_changes_nothing_else(self, band):
        mask = tube_distance(random_tubes(8, 40.0, count=3), (40, 40, 40), np.eye(4)) <= 0
        everywhere = signed_distance(mask, (1.0, 1.0, 1.0))
        np.testing.assert_allclose(
            signed_distance(mask, (1.0, 1.0, 1.0), band), everywhere.clip(-band, band), atol=1e-4
        )

    def test_an_unusable_spacing_is_refused(self):
        mask = np.zeros((3, 3, 3), bool)
        mask[1, 1, 1] = True
        with pytest.raises(InputError, match="spacing"):
            signed_distance(mask, (1.0, 0.0, 1.0))
        with pytest.raises(InputError, match="band"):
            signed_distance(mask, (1.0, 1.0, 1.0), band=-2.0)
        with pytest.raises(InputError, match="band"):
            signed_distance(mask, (1.0, 1.0, 1.0), band=np.inf)

    def test_labels_of_bytes_are_masks_and_what_is_no_mask_is_refused(self):
        mask = tube_distance(random_tubes(2, 24.0, count=2), (24, 24, 24), np.eye(4)) <= 0
        expected = signed_distance(mask, (1.0, 1.0, 1.0))
        np.testing.assert_array_equal(signed_distance(mask.astype(np.uint8) * 255, (1.0, 1.0, 1.0)), expected)
        for wrong in (mask.astype(np.float32), mask[0]):
            with pytest.raises(InputError, match="three dimensions of booleans"):
                signed_distance(wrong, (1.0, 1.0, 1.0))

    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 1.4)])
    @pytest.mark.parametrize(("radius", "most"), [(1.0, 0.06), (1.3, 0.04), (2.0, 0.03), (4.0, 0.02)])
    def test_thin_vessels_do_not_shrink(self, radius, most, spacing):
        bias = []
        for seed in range(12):
            graph, shape, middle, axis = straight(seed, radius, spacing)
            exact = tube_distance(graph, shape, np.diag([*spacing, 1.0]), band=4.0)
            # Rays through samples cut corners whatever the field, so the exact field's own are what to compare with.
            truth, found = (
                radius_of(field, spacing, middle, axis) for field in (exact, signed_distance(exact <= 0, spacing, 4.0))
            )
            bias.append(found / truth - 1)
        assert abs(np.mean(bias)) < most

    def test_turning_the_grid_turns_the_field(self):
        mask = tube_distance(random_tubes(4, 30.0, count=4), (30, 28, 26), np.eye(4)) <= 0
        field = signed_distance(mask, (1.0, 1.2, 0.9))
        turned = signed_distance(mask.transpose(2, 0, 1)[::-1], (0.9, 1.0, 1.2))
        np.testing.assert_allclose(turned, field.transpose(2, 0, 1)[::-1], atol=1e-3)

    @pytest.mark.parametrize(
        "places", [[(3, 3, 3)], [(3, 3, 3), (4, 4, 4)], [(0, 0, 0)], [(3, 3, k) for k in range(8)]]
    )
    def test_the_smallest_vessels_have_a_field(self, places):
        mask = np.zeros((8, 8, 8), bool)
        mask[tuple(np.transpose(places))] = True
        for band in (None, 2.0):
            field = signed_distance(mask, (1.0, 1.0, 1.0), band)
            assert np.array_equal(field < 0, mask)
            assert np.isfinite(field).all()


def fractions(graph, shape, spacing, fine=4):
    """Share of each voxel that is vessel, by `fine`^3 samples."""
    total = np.zeros(shape, np.float32)
    for shift in np.ndindex(fine, fine, fine):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = ((np.array(shift) + 0.5) / fine - 0.5) * spacing
        total += tube_distance(graph, shape, affine, band=0.5) <= 0
    return total / fine**3


class TestPartialVolumeDistance:
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.2)])
    def test_tubes_to_an_eightieth_of_ten_voxels(self, spacing):
        graph, shape = random_tubes(3, 40.0, count=6, low=1.0, high=3.0), tuple(int(40 / s) for s in spacing)
        truth = tube_distance(graph, shape, np.diag([*spacing, 1.0]), band=6.0)
        error = (partial_volume_distance(fractions(graph, shape, spacing), spacing, 6.0) - truth)[np.abs(truth) < 3]
        assert np.abs(error).mean() < 0.08 * np.prod(spacing) ** (1 / 3)
        assert abs(error.mean()) < 0.05

    @pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.6, 0.9])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_flat_wall_lies_where_the_fraction_says(self, share, axis):
        fraction = np.zeros((10, 11, 12))
        moved = np.moveaxis(fraction, axis, 0)
        moved[:4], moved[4] = 1.0, share
        spacing = (0.5, 1.0, 2.0)
        field = np.moveaxis(partial_volume_distance(fraction, spacing), axis, 0)
        expected = (np.arange(len(field)) - 3.5 - share) * spacing[axis]
        expected = np.where(np.abs(expected) < 0.05 * min(spacing), -0.05 * min(spacing), expected)
        np.testing.assert_allclose(
            field, np.broadcast_to(expected[:, None, None], field.shape), atol=0.03 if share == 0.5 else 1e-3
        )

    def test_fractions_of_nought_and_one_are_a_mask(self):
        mask = tube_distance(random_tubes(2, 24.0, count=2), (24, 24, 24), np.eye(4)) <= 0
        np.testing.assert_array_equal(
            partial_volume_distance(mask.astype(np.float32), (1.0, 1.0, 1.0)), signed_distance(mask, (1.0, 1.0, 1.0))
        )

    @settings(max_examples=40, deadline=None)
    @given(
        fraction=hnp.arrays(np.float32, st.tuples(*[st.integers(2, 7)] * 3), elements=st.floats(0, 1, width=32)),
        spacing=st.tuples(*[st.floats(0.3, 3.0)] * 3),
    )
    def test_a_centre_is_inside_where_half_of_its_voxel_is(self, fraction, spacing):
        inside = fraction >= 0.5
        if inside.all() or not inside.any():
            with pytest.raises(InputError, match="no wall"):
                partial_volume_distance(fraction, spacing)
            return
        field = partial_volume_distance(fraction, spacing)
        assert np.array_equal(field < 0, inside)
        assert np.isfinite(field).all()

    @pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
    def test_what_is_no_fraction_is_refused(self, value):
        fraction = np.full((4, 4, 4), 0.7)
        fraction[1, 1, 1] = value
        with pytest.raises(InputError, match="share of each voxel"):
            partial_volume_distance(fraction, (1.0, 1.0, 1.0))
