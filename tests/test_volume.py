"""A volume keeps its place in the world, on its own grid and on every other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from vesselsdf import volume as module
from vesselsdf.errors import InputError
from vesselsdf.volume import (
    Volume,
    check_image,
    check_mask,
    check_same_grid,
    facts,
    isotropic,
    orientation,
    resample,
    skew,
)


def oblique(spacing=(0.7, 0.9, 2.5), angles=(10, -25, 40), flips=(1, -1, 1), origin=(-80.5, 33.25, 410.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, flips))
    affine[:3, 3] = origin
    return affine


def grid_points(shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)


def linear_field(shape, affine, gradient=(0.3, -1.2, 0.05), offset=7.0):
    """A volume whose value is a linear function of the position in mm."""
    frame = Volume(np.zeros(shape), affine)
    return frame.with_array((frame.to_world(grid_points(shape)) @ np.array(gradient) + offset).reshape(shape))


# --- the volume itself -----------------------------------------------------------------------------------------------


def test_index_and_world_are_inverse():
    volume = Volume(np.zeros((4, 5, 6)), oblique())
    points = np.random.default_rng(0).uniform(-3, 9, (20, 3))
    assert np.allclose(volume.to_index(volume.to_world(points)), points, atol=1e-10)
    assert np.allclose(volume.spacing, (0.7, 0.9, 2.5))


@pytest.mark.parametrize(
    ("array", "affine", "part"),
    [
        (np.zeros((4, 4)), np.eye(4), r"\(4, 4\)"),
        (np.zeros((4, 4, 4, 2)), np.eye(4), "3D"),
        (np.zeros((2, 2, 2), complex), np.eye(4), "complex"),
        (np.zeros((2, 2, 2)), np.eye(3), r"\(3, 3\)"),
        (np.zeros((2, 2, 2)), np.diag([1, np.nan, 1, 1]), "NaN"),
        (np.zeros((2, 2, 2)), np.diag([1.0, 0, 1, 1]), "axis y is zero"),
        (np.zeros((2, 2, 2)), np.ones((4, 4)), "last row"),
        (np.zeros((2, 2, 2)), np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_impossible_volumes_are_refused(array, affine, part):
    with pytest.raises(InputError, match=part):
        Volume(array, affine)


def test_with_array_keeps_the_grid():
    volume = Volume(np.zeros((4, 5, 6)), oblique())
    assert np.array_equal(volume.with_array(np.ones((4, 5, 6), bool)).affine, volume.affine)
    with pytest.raises(InputError, match=r"\(4, 5, 7\)"):
        volume.with_array(np.zeros((4, 5, 7)))


def test_orientation_letters():
    assert orientation(Volume(np.zeros((2, 2, 2)), np.diag([-1.0, -1.0, 1.0, 1.0]))) == ("L", "P", "S")


# --- checks ----------------------------------------------------------------------------------------------------------


def test_images_that_hold_nothing_are_refused():
    with pytest.raises(InputError, match="scan is constant"):
        check_image(Volume(np.full((3, 3, 3), 5), np.eye(4)), "scan")
    with pytest.raises(InputError, match="no voxels"):
        check_image(Volume(np.zeros((0, 3, 3)), np.eye(4)), "scan")
    bad = np.arange(27.0).reshape(3, 3, 3)
    bad[1, 1, 1] = np.inf
    with pytest.raises(InputError, match="1 NaN or infinite"):
        check_image(Volume(bad, np.eye(4)), "scan")
    check_image(Volume(np.arange(27).reshape(3, 3, 3), np.eye(4)), "scan")


def test_masks_that_are_none_are_refused():
    mask = np.zeros((3, 3, 3))
    with pytest.raises(InputError, match="label is empty"):
        check_mask(Volume(mask, np.eye(4)), "label")
    with pytest.raises(InputError, match="label is empty"):
        check_mask(Volume(mask.astype(bool), np.eye(4)), "label")
    mask[0, 0, 0] = 0.5
    with pytest.raises(InputError, match="fractional"):
        check_mask(Volume(mask, np.eye(4)), "label")
    mask[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        check_mask(Volume(mask, np.eye(4)), "label")
    mask[0, 0, 0] = 2.0
    check_mask(Volume(mask, np.eye(4)), "label")


def changed(affine, **entries):
    affine = affine.copy()
    for name, value in entries.items():
        affine[int(name[1]), int(name[2])] += value
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "part"),
    [
        ((4, 5, 7), np.eye(4), "in shape"),
        ((4, 5, 6), np.diag([1.1, 1, 1, 1]), "in spacing"),
        ((4, 5, 6), changed(np.eye(4), m03=0.5), "in origin"),
        ((4, 5, 6), np.diag([-1.0, -1, 1, 1]), r"in direction \(RAS and LPS\)"),
        ((4, 5, 6), oblique((1, 1, 1), (0, 0, 2), (1, 1, 1), (0, 0, 0)), "in direction: "),
    ],
)
def test_different_grids_are_told_apart(shape, affine, part):
    with pytest.raises(InputError, match=f"image and label are on different grids, {part}"):
        check_same_grid(Volume(np.zeros((4, 5, 6)), np.eye(4)), Volume(np.zeros(shape), affine), ("image", "label"))


def test_rounding_does_not_make_grids_different():
    a = Volume(np.zeros((40, 50, 60)), oblique())
    check_same_grid(a, Volume(np.zeros((40, 50, 60)), oblique().astype(np.float32)), ("image", "label"))


# --- resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("spacing", [0.3, 0.7, 0.9, 1.1, 1.7, 2.6, 4.0])
def test_isotropic_is_exact_for_linear_functions_inside(spacing, order):
    source = linear_field((24, 20, 9), oblique())
    source = source.with_array(np.array(source.array, order=order))
    result = isotropic(source, spacing)
    assert np.allclose(result.spacing, spacing)
    assert skew(result.affine) < 1e-12
    expected = linear_field(result.shape, result.affine).array
    # Inside: the box that a target voxel stands for lies between the outermost source centres.
    index = source.to_index(result.to_world(grid_points(result.shape)))
    reach = np.array([spacing / h / 2 if spacing > h else 0.0 for h in source.spacing])
    inside = ((index - reach >= 0) & (index + reach <= np.array(source.shape) - 1)).all(axis=1).reshape(result.shape)
    assert inside.any()
    assert np.abs(result.array - expected)[inside].max() < 1e-9
    assert result.array.min() >= source.array.min() - 1e-9
    assert result.array.max() <= source.array.max() + 1e-9


def test_isotropic_keeps_the_outer_corner_and_covers_the_box():
    source = linear_field((24, 20, 9), oblique())
    result = isotropic(source, 1.3)
    corner = np.full((1, 3), -0.5)
    assert np.allclose(source.to_world(corner), result.to_world(corner), atol=1e-9)
    excess = np.array(result.shape) * 1.3 - np.array(source.shape) * source.spacing
    assert (excess >= -1e-9).all()
    assert (excess < 1.3).all()


def test_isotropic_at_its_own_spacing_changes_nothing():
    array = np.random.default_rng(1).normal(size=(7, 8, 9)).astype(np.float32)
    result = isotropic(Volume(array, np.diag([0.5, 0.5, 0.5, 1])), 0.5)
    assert np.array_equal(result.array, array)
    assert result.array.dtype == np.float32


def test_coarsening_is_antialiased():
    # A checkerboard has no content below its own frequency: sampling would keep it, averaging removes it.
    array = np.indices((32, 32, 32)).sum(axis=0) % 2
    result = isotropic(Volume(array.astype(np.int16), np.eye(4)), 2.0)
    assert np.abs(result.array[1:-1, 1:-1, 1:-1] - 0.5).max() < 0.01
    noise = np.random.default_rng(0).normal(size=(32, 32, 32))
    coarse = isotropic(Volume(noise, np.eye(4)), 4.0).array
    assert coarse.std() < 1.3 / 4**1.5  # white noise falls with the root of the number of voxels averaged


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan")])
def test_isotropic_refuses_impossible_spacings(spacing):
    with pytest.raises(InputError, match="positive"):
        isotropic(Volume(np.zeros((2, 2, 2)), np.eye(4)), spacing)


@st.composite
def grids(draw):
    """Two grids with parallel axes: flips, permutations, other spacings and offsets."""
    permutation = draw(st.permutations([0, 1, 2]))
    steps = [draw(st.floats(0.3, 3.0)) * draw(st.sampled_from([-1, 1])) for _ in range(3)]
    index_map = np.zeros((4, 4))
    index_map[permutation, range(3)] = steps
    index_map[:3, 3] = [draw(st.floats(-4.0, 12.0)) for _ in range(3)]
    index_map[3, 3] = 1.0
    shape = tuple(draw(st.integers(1, 7)) for _ in range(3))
    return shape, index_map


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(0, 2**31), st.sampled_from("CF"))
def test_the_separable_path_agrees_with_scipy(grid, seed, order):
    shape, index_map = grid
    source = Volume(np.array(np.random.default_rng(seed).normal(size=(5, 6, 7)), order=order), oblique())
    result = resample(source, shape, source.affine @ index_map)
    places = (grid_points(shape) @ index_map[:3, :3].T + index_map[:3, 3]).T
    expected = map_coordinates(source.array, places, order=1, mode="nearest").reshape(shape)
    assert np.abs(result.array - expected).max() < 1e-9
    assert np.array_equal(result.affine, source.affine @ index_map)


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64, np.bool_])
def test_oblique_resampling_is_exact_inside_and_never_extrapolates(kind):
    source = linear_field((20, 18, 10), oblique())
    scaled = (source.array - source.array.min()) * 1000
    source = source.with_array(scaled > scaled.mean() if kind is np.bool_ else scaled.astype(kind))
    target = oblique((1.1, 0.8, 1.3), (30, 5, -20), (1, 1, -1), tuple(source.to_world(np.array([[4, 4, 3]]))[0]))
    result = resample(source, (6, 7, 8), target)
    places = source.to_index(result.to_world(grid_points((6, 7, 8)))).T
    expected = map_coordinates(source.array.astype(float), places, order=1, mode="nearest").reshape(6, 7, 8)
    assert np.abs(result.array - expected).max() < 1e-3 * 1000
    assert result.array.dtype == (np.float64 if kind is np.float64 else np.float32)
    assert resample(source, (6, 7, 8), target, order=0).array.dtype == kind


def test_nearest_keeps_labels_and_fill_marks_the_outside():
    labels = Volume(np.arange(27, dtype=np.uint8).reshape(3, 3, 3), np.eye(4))
    shifted = np.eye(4)
    shifted[:3, 3] = 1.2
    result = resample(labels, (3, 3, 3), shifted, order=0)
    assert result.array[0, 0, 0] == labels.array[1, 1, 1]
    assert result.array[2, 2, 2] == labels.array[2, 2, 2]
    assert resample(labels, (3, 3, 3), shifted, order=0, fill=99).array[2, 2, 2] == 99
    turned = oblique((1, 1, 1), (0, 0, 45), (1, 1, 1), (0, 0, 0))
    assert resample(labels, (3, 3, 3), turned, order=0, fill=99).array[0, 2, 0] == 99


def test_resampling_refuses_what_it_cannot_do():
    volume = Volume(np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(InputError, match="order 3"):
        resample(volume, (2, 2, 2), np.eye(4), order=3)
    with pytest.raises(InputError, match="singular"):
        resample(volume, (2, 2, 2), np.diag([1.0, 0, 1, 1]))


def test_a_field_comes_back_to_the_grid_it_came_from():
    coarse = linear_field((12, 12, 6), oblique())
    fine = isotropic(coarse, 0.6)
    back = resample(fine, coarse.shape, coarse.affine)
    assert np.abs(back.array - coarse.array)[1:-1, 1:-1, 1:-1].max() < 1e-9


# --- sheared grids ---------------------------------------------------------------------------------------------------


def tilted(degrees, shape=(20, 20, 10)):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(degrees))
    return affine, shape


def test_a_tilted_gantry_is_straightened_with_a_warning(caplog):
    affine, shape = tilted(20)
    source = linear_field(shape, affine)
    straight = module._orthogonal(source, "scan")
    assert "scan is on a sheared grid" in caplog.text
    assert skew(straight.affine) < 1e-12
    assert np.allclose(straight.spacing, (1.0, 1.0, 2.0))
    expected = linear_field(straight.shape, straight.affine).array
    index = source.to_index(straight.to_world(grid_points(straight.shape)))
    inside = ((index >= 0) & (index <= np.array(shape) - 1)).all(axis=1).reshape(straight.shape)
    assert inside.sum() > 0.7 * np.prod(shape)
    assert np.abs(straight.array - expected)[inside].max() < 1e-9
    ends = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    corners = straight.to_index(source.to_world(ends))
    assert (corners >= -0.5 - 1e-6).all()
    assert (corners <= np.array(straight.shape) - 0.5 + 1e-6).all()


def test_labels_on_a_tilted_grid_stay_labels():
    affine, shape = tilted(15)
    labels = np.zeros(shape, np.uint8)
    labels[5:15, 5:15, 2:8] = 7
    straight = module._orthogonal(Volume(labels, affine), "label")
    assert set(np.unique(straight.array)) == {0, 7}
    assert straight.array.dtype == np.uint8


def test_beyond_45_degrees_is_refused():
    affine, shape = tilted(50)
    with pytest.raises(InputError, match="45 degrees"):
        module._orthogonal(linear_field(shape, affine), "scan")


# --- facts -----------------------------------------------------------------------------------------------------------


def test_facts_are_numbers_about_the_volume():
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    found = facts(Volume(array, np.diag([-0.5, 0.5, 2.0, 1.0])), "scan.nii.gz")
    assert found["shape"] == (4, 5, 6)
    assert found["spacing"] == (0.5, 0.5, 2.0)
    assert found["orientation"] == "LAS"
    assert found["thinnest_vessel"] == 4.0
    assert (found["minimum"], found["maximum"]) == (0.0, 119.0)
    assert found["percentiles"][50] == pytest.approx(59.5)
    assert found["dtype"] == "int16"


def test_label_like_arrays_are_recognised():
    assert module.label_like(np.zeros((2, 2, 2), bool))
    assert module.label_like(np.array([[[0, 1, 15]]], np.uint16))
    assert not module.label_like(np.array([[[-1000, 40, 300]]], np.int16))
    assert not module.label_like(np.arange(256, dtype=np.uint8).reshape(16, 4, 4))
    assert not module.label_like(np.zeros((2, 2, 2), np.float32))
