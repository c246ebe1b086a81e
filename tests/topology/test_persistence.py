"""Persistence: solids with known bars, gudhi's own bars, Betti numbers at any threshold, stability, certificates."""

import math
import subprocess
import sys
from pathlib import Path

import gudhi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.persistence import certified_count, diagrams, features


def grid(n, h):
    return np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * h] * 3, indexing="ij")


def random_field(seed, shape=(9, 9, 9), sigma=1.0, ties=False):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    field /= field.std()
    return np.round(2 * field) / 2 if ties else field


def counts_at(bars, threshold):
    return tuple(int(((d[:, 0] <= threshold) & (threshold < d[:, 1])).sum()) for d in bars)


def test_a_torus_has_its_thickness_and_its_hole_as_bars():
    h = 0.5
    x, y, z = grid(33, h)
    sdf = np.hypot(np.hypot(x, y) - 5, z) - 1.5
    affine = np.diag([h, h, h, 1.0])
    affine[:3, 3] = -16 * h
    found = features(sdf, affine)
    (component,) = [f for f in found if f.dimension == 0 and f.alive]
    (loop,) = [f for f in found if f.dimension == 1 and f.alive]
    assert not [f for f in found if f.dimension == 2 and f.alive]
    assert component.birth == pytest.approx(-1.5, abs=h)
    assert component.death == math.inf
    assert loop.birth == pytest.approx(-1.5, abs=h)  # the ring closes where it is thinnest
    assert loop.death == pytest.approx(3.5, abs=1e-9)  # and fills at the centre, 5 - 1.5 from the wall
    assert loop.death_place == pytest.approx((0, 0, 0))
    assert loop.margin == -loop.birth
    assert np.hypot(np.hypot(*loop.birth_place[:2]) - 5, loop.birth_place[2]) <= h


def test_a_loop_breaks_first_at_its_stenosis():
    x, y, z = grid(33, 0.5)
    narrow = np.exp(-((np.arctan2(y, x) - 1.0) ** 2) / 0.1)
    sdf = np.hypot(np.hypot(x, y) - 5, z) - (1.5 - 0.8 * narrow)
    (loop,) = [f for f in features(sdf, np.diag([0.5, 0.5, 0.5, 1])) if f.dimension == 1 and f.alive]
    assert loop.margin == pytest.approx(0.7, abs=0.3)
    place = np.array(loop.birth_place) - 8
    assert math.atan2(place[1], place[0]) == pytest.approx(1.0, abs=0.15)


def test_a_shell_has_a_cavity_that_dies_at_its_centre():
    x, y, z = grid(25, 0.5)
    sdf = np.abs(np.sqrt(x**2 + y**2 + z**2) - 4) - 1
    (cavity,) = [f for f in features(sdf) if f.dimension == 2 and f.alive]
    assert cavity.death == pytest.approx(3.0)
    assert cavity.death_place == (12, 12, 12)


@given(st.integers(0, 2**32), st.floats(0, 2), st.booleans(), st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_bars_alive_at_a_threshold_are_the_betti_numbers(seed, sigma, ties, threshold):
    field = random_field(seed, (7, 8, 9), sigma, ties)
    bars = diagrams(field)
    assert counts_at(bars, threshold) == betti_numbers(field <= threshold)
    assert certified_count(features(field), 0.0)[0] <= betti_numbers(field <= 0)[0]


def test_bars_are_gudhis_own():
    field = random_field(5, (10, 11, 12))
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    for k, bars in enumerate(diagrams(field)):
        expected = cubical.persistence_intervals_in_dimension(k)
        assert np.array_equal(np.array(sorted(bars.tolist())), np.array(sorted(expected.tolist())))


@given(st.integers(0, 2**32), st.floats(0, 2), st.booleans(), st.floats(0.1, 1.5))
@settings(max_examples=40, deadline=None)
def test_the_band_gives_the_diagram_of_the_clipped_field(seed, sigma, ties, band):
    field = random_field(seed, (7, 8, 9), sigma, ties)
    for in_band, clipped in zip(diagrams(field, band), diagrams(np.clip(field, -band, band)), strict=True):
        assert sorted(in_band.tolist()) == sorted(clipped.tolist())


@given(st.integers(0, 2**32), st.floats(0, 2), st.booleans())
@settings(max_examples=30, deadline=None)
def test_places_have_the_values_of_birth_and_death(seed, sigma, ties):
    field = random_field(seed, (6, 7, 8), sigma, ties)
    for f in features(field):
        assert field[tuple(int(i) for i in f.birth_place)] == f.birth
        if f.death_place is not None:
            assert field[tuple(int(i) for i in f.death_place)] == f.death


def test_margin_is_not_half_the_persistence():
    (component,) = [f for f in features(np.array([[[-0.05, 10.0, -3.0]]])) if f.death < math.inf]
    assert component.persistence == pytest.approx(10.05)
    assert component.margin == 0.05
    assert certified_count([component], 0.1) == (0, 0, 0)


@given(st.integers(0, 2**32), st.floats(0, 2), st.floats(0, 2), st.floats(0.001, 1.5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_certificate_is_ever_contradicted(seed, sigma, sigma_error, size, ties):
    f = random_field(seed, (8, 8, 8), sigma, ties)
    g = f + size * random_field(seed + 1, (8, 8, 8), sigma_error)
    eps = float(np.abs(f - g).max())
    certified = certified_count(features(f), eps)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=f)
    cubical.compute_persistence(homology_coeff_field=2)
    ranks = cubical.persistent_betti_numbers(-eps, eps)
    for k, betti in enumerate(betti_numbers(g <= 0)):
        assert certified[k] <= ranks[k] <= betti


def test_constant_integer_and_border_fields():
    assert [d.tolist() for d in diagrams(np.full((3, 3, 3), 2.0))] == [[[2.0, math.inf]], [], []]
    assert diagrams(np.array([[[-1, 2, -3]]]))[0].tolist() == [[-3.0, math.inf], [-1.0, 2.0]]
    assert diagrams(np.full((3, 3, 3), 2.0), band=1.0)[0].tolist() == [[1.0, math.inf]]
    assert diagrams(np.zeros((1, 1, 1)))[0].tolist() == [[0.0, math.inf]]


def test_bad_fields_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="NaN"):
        diagrams(np.full((3, 3, 3), np.nan))
    with pytest.raises(InputError, match="3D"):
        diagrams(np.zeros((3, 3)))
    with pytest.raises(InputError, match="band"):
        diagrams(np.zeros((3, 3, 3)), band=-1.0)
    with pytest.raises(InputError, match="dtype"):
        diagrams(np.zeros((3, 3, 3), bool))


def test_a_band_lets_a_large_field_through():
    x, y, z = grid(80, 1.0)
    sdf = np.sqrt(x**2 + y**2 + z**2) - 8
    (bar,) = diagrams(sdf, band=3.0)[0]
    assert bar.tolist() == [-3.0, math.inf]


def test_where_no_cache_can_be_written_kernels_are_compiled_each_time():
    code = """
import numpy as np
from numba.core import caching
caching.CacheImpl._locator_classes = []
from vesselsdf.compiled import kernel
assert kernel(lambda x: x + 1)(2) == 3
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)
