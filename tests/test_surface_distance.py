"""Surface metrics against answers worked out by hand, and against other implementations of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

import vesselsdf.surface_distance as module
from vesselsdf.surface_distance import assd, farthest, hd95, nsd, surface_distances


def block(low, high, shape=(24, 24, 24)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def blobs(seed: int, shape=(20, 18, 16), share=0.2) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 1 - share)


def test_a_mask_equals_itself():
    mask = blobs(0)
    d = surface_distances(mask, mask, (1.0, 2.0, 0.5))
    assert (nsd(d, 0.0), hd95(d), assd(d)) == (1.0, 0.0, 0.0)
    assert farthest(d, (1.0, 2.0, 0.5), apart=1.0) == []


def test_two_slabs_across_the_volume():
    # Slabs one voxel thick, 3 voxels of 2 mm apart. Along most of their area each wall is 6 mm from the nearer wall of
    # the other slab or 8 mm less 2 mm: walls at 2, 3 and 5, 6 voxels are 6 mm (2-5, 3-6) or 4 mm (3-5) apart.
    a, b = block((2, 0, 0), (3, 24, 24)), block((5, 0, 0), (6, 24, 24))
    d = surface_distances(a, b, (2.0, 1.0, 1.0))
    assert set(np.round(d.prediction, 6)) >= {4.0, 6.0}
    assert hd95(d) == 6.0
    assert assd(d) == pytest.approx(5.0, abs=0.1)
    assert nsd(d, 3.9) == 0.0
    assert nsd(d, 4.0) == pytest.approx(0.5, abs=0.05)
    assert nsd(d, 6.0) == 1.0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cube_shifted_along_one_axis_is_as_far_as_the_spacing_says(axis):
    spacing = (0.5, 1.0, 3.0)
    cube = block((6, 6, 6), (14, 14, 14))
    d = surface_distances(np.roll(cube, 2, axis=axis), cube, spacing)
    assert d.prediction.max() == d.reference.max() == 2 * spacing[axis]
    assert hd95(d) == 2 * spacing[axis]
    # The four faces along the shift coincide but for their rims.
    assert 0 < assd(d) < 1.5 * spacing[axis]
    assert 0.3 < nsd(d, 0.0) < 0.8


def test_single_voxels():
    a, b = block((3, 3, 3), (4, 4, 4)), block((8, 3, 3), (9, 4, 4))
    d = surface_distances(a, b, (2.0, 1.0, 1.0))
    assert len(d.prediction) == len(d.reference) == 8
    # Marching cubes makes an octahedron of a voxel, whose half axes are half a voxel: 1, 0.5 and 0.5 mm.
    assert d.prediction_areas.sum() == pytest.approx(8 * math.sqrt(0.5**2 * (2 * 1.0**2 + 0.5**2)) / 2)
    # Elements lie on the corners: at 3 and 4, and at 8 and 9, in voxels.
    assert sorted(d.prediction) == [8.0] * 4 + [10.0] * 4
    assert (hd95(d), assd(d), nsd(d, 7.9), nsd(d, 9.0), nsd(d, 10.0)) == (10.0, 9.0, 0.0, 0.5, 1.0)


def test_hd95_leaves_out_five_percent_of_the_area_and_no_more():
    flat = block((0, 0, 0), (40, 40, 2), (40, 40, 12))
    for size, seen in ((2, False), (14, True)):
        bump = flat.copy()
        bump[10 : 10 + size, 10 : 10 + size, 2:8] = True
        d = surface_distances(bump, flat, (1.0, 1.0, 1.0))
        assert (hd95(d) > 3) is seen
        assert max(d.prediction) == 6.0


def test_empty_masks():
    full, empty = block((2, 2, 2), (5, 5, 5)), np.zeros((24, 24, 24), bool)
    d = surface_distances(empty, empty, (1.0, 1.0, 1.0))
    assert (nsd(d, 1.0), hd95(d), assd(d)) == (1.0, 0.0, 0.0)
    for pair in ((full, empty), (empty, full)):
        d = surface_distances(*pair, (1.0, 1.0, 1.0))
        assert (nsd(d, 1.0), hd95(d), assd(d)) == (0.0, math.inf, math.inf)
        assert farthest(d, (1.0, 1.0, 1.0), apart=1.0) == []


def test_a_full_volume_has_its_border_as_surface():
    full = np.ones((6, 6, 6), bool)
    inner = block((1, 1, 1), (5, 5, 5), (6, 6, 6))
    d = surface_distances(full, full, (1.0, 1.0, 1.0))
    assert (nsd(d, 0.0), hd95(d)) == (1.0, 0.0)
    assert len(d.prediction) == 7**3 - 5**3
    assert 1.0 <= hd95(surface_distances(inner, full, (1.0, 1.0, 1.0))) <= math.sqrt(3)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.7, 3.0)])
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_brute_force(seed, spacing):
    a, b = blobs(seed), blobs(seed + 100)
    d = surface_distances(a, b, spacing)
    everything = cdist(d.prediction_indices * spacing, d.reference_indices * spacing)
    np.testing.assert_allclose(d.prediction, everything.min(axis=1))
    np.testing.assert_allclose(d.reference, everything.min(axis=0))


def test_the_distance_transform_gives_what_the_tree_gives(monkeypatch):
    spacing = (0.4, 0.7, 3.0)
    plain = surface_distances(blobs(1), blobs(2), spacing)
    monkeypatch.setattr(module, "NEAR", 0.5)
    monkeypatch.setattr(module, "FEW", 0)
    other = surface_distances(blobs(1), blobs(2), spacing)
    np.testing.assert_allclose(other.prediction, plain.prediction)
    np.testing.assert_allclose(other.reference, plain.reference)


def test_area_of_a_ball_is_that_of_marching_cubes():
    from skimage.measure import marching_cubes, mesh_surface_area

    spacing = (1.0, 1.0, 2.0)
    grid = (np.indices((30, 30, 30)).T - 14.5) * spacing
    ball = np.linalg.norm(grid, axis=-1).T <= 10
    d = surface_distances(ball, ball, spacing)
    expected = mesh_surface_area(*marching_cubes(ball.astype(float), 0.5, spacing=spacing)[:2])
    assert d.prediction_areas.sum() == pytest.approx(expected, rel=0.01)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hausdorff_and_average_agree_with_monai_within_a_voxel():
    monai = pytest.importorskip("monai.metrics")
    import torch

    a, b = blobs(3, (32, 32, 32), 0.05), blobs(4, (32, 32, 32), 0.05)
    d = surface_distances(a, b, (1.0, 1.0, 1.5))
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (a, b)]
    theirs = monai.compute_average_surface_distance(*tensors, True, symmetric=True, spacing=(1.0, 1.0, 1.5))
    # MONAI measures between the centres of border voxels and weights every voxel alike.
    assert assd(d) == pytest.approx(float(theirs), abs=0.75)
    theirs = monai.compute_hausdorff_distance(*tensors, True, percentile=95, spacing=(1.0, 1.0, 1.5))
    assert hd95(d) == pytest.approx(float(theirs), abs=1.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.7, 3.0)])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_package_surface_distance(seed, spacing):
    theirs = pytest.importorskip("surface_distance")
    a, b = blobs(seed, (32, 30, 28), 0.05), blobs(seed + 50, (32, 30, 28), 0.05)
    d = surface_distances(a, b, spacing)
    measured = theirs.compute_surface_distances(b, a, spacing)
    reference, prediction = (np.sort(measured[f"distances_{k}"]) for k in ("gt_to_pred", "pred_to_gt"))
    np.testing.assert_allclose(np.sort(d.reference), reference)
    np.testing.assert_allclose(np.sort(d.prediction), prediction)
    # Areas differ where a cube of eight voxels can be cut in several ways: there, ours is the mean over its images.
    assert hd95(d) == pytest.approx(theirs.compute_robust_hausdorff(measured, 95), rel=0.02)
    for tolerance in (0.0, 0.5, 1.0, 2.0, 4.0):
        expected = theirs.compute_surface_dice_at_tolerance(measured, tolerance)
        assert nsd(d, tolerance) == pytest.approx(float(expected), abs=0.01)


def test_the_worst_places_are_where_the_error_was_put():
    a = block((4, 4, 4), (8, 8, 8), (60, 24, 24))
    b = a.copy()
    b[50:53, 10:13, 10:13] = True
    a[30:32, 4:6, 4:6] = True
    spacing = (0.5, 1.0, 1.0)
    (first, place, away), (second, other, _) = farthest(surface_distances(a, b, spacing), spacing, apart=5.0, most=2)
    assert (first, second) == ("reference", "prediction")
    assert np.all((place > (49, 9, 9)) & (place < (53, 13, 13)))
    assert np.all((other > (29, 3, 3)) & (other < (32, 6, 6)))
    assert away == pytest.approx(math.dist((31.5 * 0.5, 5.5, 5.5), (52.5 * 0.5, 12.5, 12.5)))


@given(seed=st.integers(0, 10**6), axis=st.integers(0, 2), tolerance=st.floats(0, 5))
@settings(max_examples=25, deadline=None)
def test_metrics_are_symmetric_and_do_not_depend_on_where_the_masks_lie(seed, axis, tolerance):
    a, b = blobs(seed, (12, 11, 10)), blobs(seed + 1, (12, 11, 10))
    spacing = (1.0, 0.5, 2.0)
    d = surface_distances(a, b, spacing)
    pads = [(3, 5) if k == axis else (1, 2) for k in range(3)]
    flipped = [np.flip(np.pad(mask, pads), axis) for mask in (b, a)]
    other = surface_distances(flipped[0], flipped[1], spacing)
    for metric in (hd95, assd, lambda both: nsd(both, tolerance)):
        assert metric(d) == pytest.approx(metric(other))
