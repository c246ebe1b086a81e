import numpy as np
import pytest

from vesselsdf.errors import InputError
from vesselsdf.synthesis.scanner import MODALITIES, scan, smooth_field, thick_affine

SPACING = (0.7, 0.7, 0.7)


@pytest.fixture(scope="module")
def sdf():
    """Three straight vessels of radius 1.5, 3 and 5 voxels along z, mm."""
    x, y = np.meshgrid(np.arange(64), np.arange(60), indexing="ij")
    field = np.min([np.hypot(x - a, y - b) - r for a, b, r in ((12, 14, 1.5), (44, 20, 3.0), (28, 44, 5.0))], axis=0)
    return np.repeat((field * 0.7)[:, :, None], 48, axis=2).astype(np.float32)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("slices", [1, 3])
def test_the_generator_decides_everything(sdf, modality, slices):
    one, two, other = (scan(sdf, SPACING, modality, np.random.default_rng(s), slices) for s in (1, 1, 2))
    assert one.dtype == np.float32
    assert one.shape == (64, 60, 48 // slices)
    assert np.isfinite(one).all()
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("seed", range(8))
def test_vessels_are_brighter_than_what_touches_them(sdf, modality, seed):
    image = scan(sdf, SPACING, modality, np.random.default_rng(seed))
    inside, around = image[sdf < -0.7], image[(sdf > 1.4) & (sdf < 3.0)]
    assert np.median(inside) > np.median(around)


@pytest.mark.parametrize("modality", MODALITIES)
def test_values_lie_where_the_modality_has_them(sdf, modality):
    images = [scan(sdf, SPACING, modality, np.random.default_rng(seed)) for seed in range(4)]
    if modality == "ct":
        assert all(np.percentile(image, 0.1) > -1400 for image in images)
        assert all(100 < np.median(image[sdf < -1]) < 700 for image in images)
    else:
        assert all(image.min() >= 0 for image in images)


def test_scans_have_bright_things_that_are_no_vessels(sdf):
    far = sdf > 4
    brighter = [
        (image[far] > np.median(image[sdf < -1])).mean() > 0.01
        for image in (scan(sdf, SPACING, "ct", np.random.default_rng(seed)) for seed in range(12))
    ]
    assert 3 <= sum(brighter) <= 12


def test_some_scans_have_lost_their_background_and_kept_their_vessels(sdf):
    kept = []
    for seed in range(60):
        image = scan(sdf, SPACING, MODALITIES[seed % 3], np.random.default_rng(seed))
        values, counts = np.unique(image[sdf > 2], return_counts=True)
        lost = values[counts.argmax()]
        if lost in (0, -1000) and counts.max() > 0.3 * counts.sum():
            kept.append((image[sdf < -1.4] != lost).mean())
    assert 2 <= len(kept) <= 15
    assert np.mean(kept) > 0.9


def test_in_vivo_vessels_are_of_unequal_brightness_and_noise_is_low(sdf):
    spread, noise = {}, {}
    for modality in ("microscopy", "in_vivo"):
        images = [scan(sdf, SPACING, modality, np.random.default_rng(seed)) for seed in range(12)]
        deep = sdf < -1.4
        spread[modality] = max(np.divide(*np.percentile(image[sdf < -0.3], [95, 5])) for image in images)
        # What is left after a second difference along the vessels is noise.
        rough = [np.abs(np.diff(image, 2, axis=2)[deep[:, :, 2:]]).mean() / image[deep].mean() for image in images]
        noise[modality] = np.median(rough)
    assert spread["in_vivo"] > 1.5 * spread["microscopy"]
    assert noise["in_vivo"] < 0.5 * noise["microscopy"]


def test_random_fields_are_smooth_and_of_unit_deviation():
    rng = np.random.default_rng(0)
    fields = [smooth_field((40, 50, 60), 8.0, rng) for _ in range(20)]
    assert np.std(fields) == pytest.approx(1, abs=0.15)
    assert np.mean(fields) == pytest.approx(0, abs=0.15)
    assert max(np.abs(np.diff(field, axis=0)).max() for field in fields) < 1.2


def test_a_thick_slice_lies_amid_its_layers():
    affine = np.diag([0.5, 0.6, 0.7, 1.0])
    thick = thick_affine(affine, 4)
    layers = np.mean([affine @ [3, 2, z, 1] for z in range(8, 12)], axis=0)
    np.testing.assert_allclose(thick @ [3, 2, 2, 1], layers)


@pytest.mark.parametrize(
    ("modality", "slices", "words"), [("pet", 1, "modality"), ("ct", 0, "slices"), ("ct", 49, "slices")]
)
def test_what_no_scanner_does_is_refused(sdf, modality, slices, words):
    with pytest.raises(InputError, match=words):
        scan(sdf, SPACING, modality, np.random.default_rng(0), slices)
