"""The scale on which the network sees intensities."""

import numpy as np
import pytest

from vesselsdf.preprocessing import Preprocessing, normalise
from vesselsdf.volume import Volume


def scan(seed=0, shape=(30, 31, 32)):
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def test_robust_scale_does_not_depend_on_the_scanners_units():
    image = scan()
    assert np.allclose(normalise(image, None), normalise(3 * image + 7, None), atol=1e-4)


def test_tissue_lies_near_zero_and_the_order_is_kept():
    image = scan()
    image[5, 5, 5] = 5000
    scaled = normalise(image, None)
    assert abs(np.median(scaled)) < 0.02
    assert scaled[5, 5, 5] == scaled.max()
    assert scaled.max() < 8, "one bright voxel should not dominate"


@pytest.mark.parametrize("dark", [-1000, -100])
def test_ct_is_recognised_by_its_air_or_fat_and_windowed(dark):
    volume = Volume(np.array([[[dark, -100.0, 200, 500]]], np.float32), np.eye(4))
    assert np.allclose(Preprocessing().working_volume(volume).array, [[[max((dark - 200) / 300, -2), -1, 0, 1]]])
    assert Preprocessing().acquisition(volume)[3] == 1


def test_other_images_are_not_taken_for_ct():
    counts = scan()
    for image in (counts, (counts - counts.mean()) / counts.std()):
        assert Preprocessing().window_of(Volume(image, np.eye(4))) is None


def test_the_acquisition_says_along_which_axes_voxels_are_long():
    turned = np.array([[0, 0, -2.0, 10], [0.5, 0, 0, -4], [0, 0.5, 0, 3], [0, 0, 0, 1]])
    known = Preprocessing(spacing=0.25).acquisition(Volume(scan(shape=(20, 20, 6)), turned))
    assert np.allclose(known, [0, 0, 2, 0])
    assert Preprocessing(window=(0, 1)).acquisition(Volume(scan(), np.eye(4))).tolist() == [0, 0, 0, 1]


def test_a_padded_background_does_not_shift_the_tissue():
    image = scan()
    padded = np.pad(image, 8)
    assert np.allclose(normalise(padded, None)[8:-8, 8:-8, 8:-8], normalise(image, None), atol=0.05)


def test_a_background_set_to_zero_leaves_vessels_bright():
    image = np.zeros((40, 40, 40), np.float32)
    image[18:22, 18:22] = 300
    scaled = normalise(image, None)
    assert scaled[0, 0, 0] == 0
    assert scaled[20, 20, 20] == pytest.approx(np.arcsinh(5), abs=1e-5)


def test_an_explicit_window_wins():
    assert np.allclose(normalise(np.array([[[0.0, 50.0, 100.0, 10_000.0]]]), (0.0, 100.0)), [[[-1, 0, 1, 3]]])


def test_the_working_grid_is_isotropic_at_the_finest_edge_and_keeps_the_place():
    affine = np.array([[0, 0, -2.0, 10], [0.5, 0, 0, -4], [0, 0.7, 0, 3], [0, 0, 0, 1]])
    volume = Volume(scan(shape=(20, 20, 6)), affine)
    working = Preprocessing().working_volume(volume)
    assert np.allclose(working.spacing, 0.5)
    corner = np.array([[-0.5, -0.5, -0.5]])
    assert np.allclose(working.to_world(corner), volume.to_world(corner), atol=1e-6)
    assert Preprocessing(spacing=1.0).working_volume(volume).shape == (10, 14, 12)
