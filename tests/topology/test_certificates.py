"""Certificates on pairs of fields: none may ever be wrong, and they are worth something."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.topology.certificates import check_certificates, sup_distance, wall_error


def ring_field(n=40, big=10.0, small=2.2, h=1.0):
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * h] * 3, indexing="ij")
    return (np.hypot(np.hypot(x, y) - big, z) - small).astype(np.float32)


def random_field(seed, shape, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (field / field.std()).astype(np.float32)


@given(st.integers(0, 2**32), st.floats(0, 2.5), st.floats(0, 2.5), st.floats(0.001, 2), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_no_certificate_is_ever_contradicted(seed, sigma, sigma_error, size, thickness):
    shape = (thickness, 9, 9)
    f = random_field(seed, shape, sigma) if thickness > 1 or sigma < 2 else np.round(random_field(seed, shape, 1.0))
    g = f + size * random_field(seed + 1, shape, sigma_error)
    found = check_certificates(f, g)
    assert not found["contradicted"], found
    assert found["eps"] <= sup_distance(f, g)


def test_certificates_hold_on_60_fields_and_are_worth_something():
    certified = survived = 0
    for seed in range(60):
        f = random_field(seed, (8, 9, 10), 1 + seed % 3)
        g = f + 0.02 * (1 + seed % 20) * random_field(seed + 1000, f.shape, seed % 4)
        found = check_certificates(f, g)
        assert not found["contradicted"], (seed, found)
        certified += sum(found["certified"])
        survived += sum(found["local"])
    assert certified > 0.2 * survived


def test_wall_error_is_the_depth_of_what_was_exchanged():
    f = ring_field()
    assert wall_error(f, f) == 0
    g = f.copy()
    g[f <= -1.0] = 1.0
    assert wall_error(f, g) == pytest.approx(-f.min())
    assert sup_distance(f, g) == pytest.approx(1.0 - f.min())


@given(st.integers(0, 2**32), st.floats(-4, 4))
@settings(max_examples=50, deadline=None)
def test_the_distance_of_float32_fields_is_never_rounded_down(seed, exponent):
    generator = np.random.default_rng(seed)
    f, g = (generator.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    g = (f + np.float32(10.0**exponent) * g).astype(np.float32)
    exact = float(np.abs(f.astype(np.float64) - g).max())
    assert exact <= sup_distance(f, g) <= exact * (1 + 3e-7)
    assert sup_distance(f, f) == 0
