"""A field becomes a distance; its zero set stays where it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from tubes import random_tubes

from vesselsdf.distance import redistance, tube_distance
from vesselsdf.errors import InputError


def shares(field, axis):
    """Where, from 0 to 1, a field crosses zero between neighbours along an axis."""
    low, high = (np.moveaxis(field, axis, 0)[part].astype(float) for part in (slice(None, -1), slice(1, None)))
    crossed = (low <= 0) != (high <= 0)
    return (np.abs(low) / np.maximum(np.abs(low) + np.abs(high), 1e-300))[crossed]


def exact(seed=3, spacing=(1.0, 1.0, 1.0)):
    shape = tuple(int(40 / step) for step in spacing)
    return tube_distance(random_tubes(seed, 40.0, count=5), shape, np.diag([*spacing, 1.0]))


def noise(shape, width, seed=0):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), width)
    return field / field.std()


DISTORTIONS = {
    "none": lambda phi: phi,
    "another unit": lambda phi: 300 * phi,
    "clipped": lambda phi: np.clip(phi, -0.8, 0.8),
    "squashed": lambda phi: np.tanh(phi),
    "uneven": lambda phi: phi * np.exp(noise(phi.shape, 4)),
    "noisy": lambda phi: phi + 0.3 * noise(phi.shape, 1),
}


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.3)])
@pytest.mark.parametrize("name", DISTORTIONS)
def test_no_crossing_moves_by_more_than_a_fiftieth_of_a_voxel(name, spacing):
    field = DISTORTIONS[name](exact(spacing=spacing)).astype(np.float32)
    result = redistance(field, spacing, 6.0)
    assert np.array_equal(field <= 0, result <= 0)
    for axis in range(3):
        assert np.abs(shares(field, axis) - shares(result, axis)).max() <= 0.02


@pytest.mark.parametrize("name", ["none", "another unit", "clipped", "squashed", "uneven"])
def test_the_distance_comes_back_whatever_was_done_to_it(name):
    phi = exact()
    result = redistance(DISTORTIONS[name](phi), (1.0, 1.0, 1.0), 6.0)
    near = np.abs(phi) < 3
    assert np.abs(result - phi)[near].mean() < 0.08
    assert np.abs(result[phi > 8] - 6.0).max() < 1e-5


def test_the_slope_is_one_within_the_band():
    phi = exact()
    result = redistance(phi * np.exp(noise(phi.shape, 4)), (1.0, 1.0, 1.0))
    slope = np.linalg.norm(np.stack(np.gradient(result.astype(float))), axis=0)[(phi > 2) & (phi < 8)]
    assert np.median(slope) == pytest.approx(1, abs=0.03)
    assert np.abs(slope - 1).mean() < 0.08


@settings(max_examples=60, deadline=None)
@given(
    field=hnp.arrays(
        np.float32, st.tuples(*[st.integers(1, 7)] * 3), elements=st.floats(-1e6, 1e6, width=32) | st.just(0.0)
    ),
    spacing=st.tuples(*[st.floats(0.3, 3.0)] * 3),
)
def test_any_field_keeps_its_signs_and_crossings(field, spacing):
    if (field > 0).all() or (field <= 0).all():
        with pytest.raises(InputError, match="no wall"):
            redistance(field, spacing)
        return
    result = redistance(field, spacing)
    assert np.isfinite(result).all()
    assert np.array_equal(field <= 0, result <= 0)
    for axis in range(3):
        moved = np.abs(shares(field, axis) - shares(result, axis))
        assert (moved <= 0.0201).all()


def test_values_that_are_not_finite_are_refused():
    for wrong in (np.nan, np.inf):
        field = np.ones((4, 4, 4))
        field[1, 1, 1] = wrong
        with pytest.raises(InputError, match="NaN or infinite"):
            redistance(field, (1.0, 1.0, 1.0))
