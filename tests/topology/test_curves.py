"""Betti curves against one count for each threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from scipy.ndimage import gaussian_filter

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers, euler_number
from vesselsdf.topology.curves import betti_curves


def field(kind: str, shape: tuple, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape)
    return {
        "noise": noise,
        "float32": noise.astype(np.float32),
        "smooth": gaussian_filter(noise, 1.0),
        "ties": np.rint(noise),
        "integer": np.rint(2 * noise).astype(np.int16),
    }[kind]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["noise", "float32", "smooth", "ties", "integer"]),
    array_shapes(min_dims=3, max_dims=3, max_side=9),
    st.integers(0, 10**6),
    st.lists(st.floats(-3, 3), min_size=1, max_size=6),
)
def test_curves_are_the_betti_numbers_of_every_sublevel_set(kind, shape, seed, thresholds):
    sdf = field(kind, shape, seed)
    at_values = [float(value) for value in sdf.reshape(-1)[:3]]
    thresholds = np.array(thresholds + at_values)
    curves = betti_curves(sdf, thresholds)
    for i, t in enumerate(thresholds):
        mask = sdf.astype(np.float64) <= t
        assert (curves.beta0[i], curves.beta1[i], curves.beta2[i]) == betti_numbers(mask)
        assert curves.euler[i] == euler_number(mask)


def test_a_torus_is_a_ring_until_its_hole_closes():
    x, y, z = np.meshgrid(*[np.arange(-12.0, 13.0)] * 3, indexing="ij")
    sdf = np.hypot(np.hypot(x, y) - 7, z) - 3
    curves = betti_curves(sdf, np.array([-4.0, -1.0, 0.0, 2.0, 4.5, 99.0]))
    assert curves.beta0.tolist() == [0, 1, 1, 1, 1, 1]
    assert curves.beta1.tolist() == [0, 1, 1, 1, 0, 0]
    assert curves.beta2.tolist() == [0, 0, 0, 0, 0, 0]


def test_empty_sets_no_thresholds_and_bad_input():
    assert betti_curves(np.ones((3, 3, 3)), np.array([0.5])).euler.tolist() == [0]
    assert betti_curves(np.ones((3, 3, 3)), np.array([])).beta1.tolist() == []
    assert betti_curves(np.ones((1, 1, 1)), np.array([np.inf])).beta0.tolist() == [1]
    with pytest.raises(InputError, match="NaN"):
        betti_curves(np.ones((3, 3, 3)), np.array([np.nan]))
    with pytest.raises(InputError, match="3D"):
        betti_curves(np.ones((3, 3)), np.array([0.0]))
