"""Band persistence held against gudhi on every kind of field that may break an engine, thousands of them.

The reference is gudhi's diagram (T-construction, Z/2) of the clipped field, bars of no length dropped. Births and
deaths are values of the field, so diagrams are equal exactly, as multisets.
"""

import math

import gudhi
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.distance import signed_distance
from vesselsdf.topology import persistence
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.persistence import diagrams, features

KINDS = (
    "smooth",
    "noise",
    "ties",
    "binary",
    "sdf",
    "anisotropic",
    "plateau",
    "checkerboard",
    "shells",
    "rods",
    "signs",
)


def make_field(kind, seed, shape):
    """A field of one kind; float32 or float64, or integers."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, generator.uniform(0.4, 1.8))
    smooth /= smooth.std() + 1e-12
    if kind == "smooth":
        return smooth.astype(generator.choice([np.float32, np.float64]))
    if kind == "noise":
        return noise
    if kind == "ties":
        return generator.integers(-3, 4, shape)
    if kind == "binary":
        return np.where(generator.random(shape) < generator.uniform(0.05, 0.95), -1.0, 1.0)
    if kind == "sdf":
        return distances(smooth < generator.normal(), (1.0, 1.0, 1.0))
    if kind == "anisotropic":
        return distances(noise < -0.5, tuple(generator.uniform(0.3, 3, 3)))
    if kind == "plateau":
        return np.round(2 * smooth).clip(-1, 1) + (generator.random(shape) < 0.1) * noise
    if kind == "checkerboard":
        return (np.indices(shape).sum(axis=0) % 2 * 2.0 - 1) * (
            1 + (generator.random(shape) < 0.3) * generator.random()
        )
    if kind == "shells":
        centre = generator.uniform(0, 1, (3, 1, 1, 1)) * np.reshape(shape, (3, 1, 1, 1))
        return np.sin(1.5 * np.sqrt(((np.indices(shape) - centre) ** 2).sum(axis=0))) + 0.1 * noise
    if kind == "rods":
        mask = np.zeros(shape, bool)
        for axis in generator.integers(0, 3, 6):
            at = [slice(None) if a == axis else int(generator.integers(shape[a])) for a in range(3)]
            mask[tuple(at)] = True
        return np.where(mask, -1.0, 1.0) * generator.integers(1, 4, shape)
    return noise * 10.0 ** generator.integers(-30, 30, shape)  # signs: values from 1e-30 to 1e30


def distances(mask, spacing):
    return signed_distance(mask, spacing) if mask.any() and not mask.all() else np.where(mask, -1.0, 1.0)


def reference(field, band=None):
    """gudhi's bars of positive length, of the clipped field, one sorted list per dimension."""
    field = np.asarray(field, np.float64)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field if band is None else np.clip(field, -band, band))
    cubical.compute_persistence(homology_coeff_field=2)
    return [sorted(map(tuple, cubical.persistence_intervals_in_dimension(k).tolist())) for k in range(3)]


def as_sorted(found):
    return [sorted(map(tuple, rows.tolist())) for rows in found]


def a_band(generator, field):
    """A band that cuts somewhere: between values, exactly at one, far below or far above them."""
    sizes = np.abs(np.asarray(field, np.float64))
    choices = [np.quantile(sizes, generator.random()), generator.choice(sizes.ravel()), 1e-3, 1.0, 10 * sizes.max()]
    return max(float(generator.choice(choices)), 1e-6)


def check(field, band):
    assert as_sorted(diagrams(field, band)) == reference(field, band)


@given(
    st.sampled_from(KINDS),
    st.integers(0, 2**32),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.sampled_from([None, "random"]),
)
@example("noise", 0, (1, 1, 1), None)
@example("ties", 1, (1, 7, 7), "random")
@example("ties", 2, (7, 1, 7), "random")
@example("ties", 3, (7, 7, 1), "random")
@settings(max_examples=600, deadline=None)
def test_diagrams_are_gudhis_on_every_kind_of_field(kind, seed, shape, band):
    field = make_field(kind, seed, shape)
    check(field, band and a_band(np.random.default_rng(seed), field))


@pytest.mark.parametrize("kind", KINDS)
def test_diagrams_are_gudhis_on_larger_fields(kind):
    for seed in range(25):
        generator = np.random.default_rng([seed, KINDS.index(kind)])
        shape = tuple(int(n) for n in generator.integers(1, 15, 3))
        field = make_field(kind, 1000 + seed, shape)
        check(field, a_band(generator, field))
        check(field, None)


THIN = [(1, 1, 40), (40, 1, 1), (1, 30, 30), (30, 1, 30), (30, 30, 1), (2, 30, 30), (2, 2, 60)]


@pytest.mark.parametrize("thin", THIN)
def test_thin_volumes(thin):
    for seed, kind in enumerate(KINDS):
        field = make_field(kind, seed, thin)
        for band in (None, a_band(np.random.default_rng(seed), field)):
            check(field, band)


@given(st.lists(st.integers(-2, 2), min_size=27, max_size=27), st.sampled_from([None, 1, 1.5, 2]))
@settings(max_examples=400, deadline=None)
def test_cubes_of_27_small_integers(values, band):
    check(np.reshape(values, (3, 3, 3)), band)


def test_all_masks_of_eight_voxels():
    for code in range(256):
        corners = np.unpackbits(np.uint8(code)).reshape(2, 2, 2)
        field = np.where(corners, -1.0, 1.0) * np.arange(1, 9).reshape(2, 2, 2)
        check(field, None)
        check(field, 2.5)
        check(np.pad(np.where(corners, -1.0, 1.0), 1, constant_values=1.0), 1.0)


def test_order_and_type_in_memory_do_not_matter():
    field = np.round(4 * make_field("smooth", 3, (9, 10, 11))).astype(np.float32) / 4
    expected = reference(field, 0.75)
    for same in (
        np.asfortranarray(field),
        np.ascontiguousarray(field[::-1])[::-1],
        np.repeat(field, 2, axis=2)[:, :, ::2],
        field.astype(np.float64),
        field.astype(np.float16),
        field.astype(">f4"),
    ):
        assert as_sorted(diagrams(same, 0.75)) == expected
    before = field.copy()
    before.flags.writeable = False
    diagrams(before, 0.75)
    assert np.array_equal(before, field)
    whole = (4 * field).astype(np.int16)
    assert as_sorted(diagrams(whole, 3)) == reference(whole, 3)


@pytest.mark.parametrize("kind", ["noise", "ties", "sdf"])
def test_flips_and_turns_of_the_axes_change_nothing(kind):
    field = make_field(kind, 8, (6, 9, 12))
    expected = as_sorted(diagrams(field, 0.8))
    for axes in [(0, 2, 1), (2, 1, 0), (1, 2, 0)]:
        assert as_sorted(diagrams(field.transpose(axes)[::-1, :, ::-1], 0.8)) == expected


@pytest.mark.parametrize("band", [None, 0.7])
def test_without_ties_the_places_are_gudhis_too(band):
    for seed in range(10):
        generator = np.random.default_rng(seed)
        shape = tuple(int(n) for n in generator.integers(4, 11, 3))
        field = ndimage.gaussian_filter(generator.normal(size=shape), seed % 3)
        field = (field / field.std()).astype(np.float32)
        cubical = gudhi.CubicalComplex(top_dimensional_cells=field.astype(np.float64))
        cubical.compute_persistence(homology_coeff_field=2)
        regular, _ = cubical.cofaces_of_persistence_pairs()
        expected = set()
        for dimension, cells in enumerate(regular):
            for born, dies in zip(*(np.transpose(np.unravel_index(c, shape, order="F")) for c in cells.T), strict=True):
                if band is None or (-band < field[tuple(born)] and field[tuple(dies)] < band):
                    expected.add((dimension, *born.tolist(), *dies.tolist()))
        found = {
            (f.dimension, *map(int, f.birth_place), *map(int, f.death_place))
            for f in features(field, band=band)
            if f.death_place is not None and (band is None or -band < f.birth)
        }
        assert found == expected


@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_arrays_of_bars_say_the_same(kind, seed, in_band):
    field = make_field(kind, seed, (6, 5, 7))
    band = a_band(np.random.default_rng(seed), field) if in_band else None
    found = persistence.bars(field, band)
    values = np.asarray(field, np.float64) if band is None else np.clip(np.asarray(field, np.float64), -band, band)
    rows = [
        sorted(zip(found.birth[found.dimension == k].tolist(), found.death[found.dimension == k].tolist(), strict=True))
        for k in range(3)
    ]
    assert rows == reference(field, band)
    assert (np.diff(found.dimension) >= 0).all()
    length = found.death - found.birth
    for k in range(3):
        assert (length[found.dimension == k][:-1] >= length[found.dimension == k][1:]).all()
    assert np.array_equal(values[tuple(found.born.T)], found.birth)
    dies = (found.dies >= 0).all(axis=1)
    assert (found.dies[~dies] == -1).all()
    assert np.array_equal(values[tuple(found.dies[dies].T)], found.death[dies])
    assert (~dies[np.isinf(found.death)]).all()
    assert dies[found.death < (math.inf if band is None else band)].all()
    assert np.array_equal(found.alive, (found.birth <= 0) & (found.death > 0))
    assert np.array_equal(found.margin, np.minimum(-found.birth, found.death))


def test_alive_bars_of_a_large_field_are_its_betti_numbers():
    generator = np.random.default_rng(0)
    field = ndimage.gaussian_filter(generator.normal(size=(96, 90, 85)), 2.5)
    sdf = signed_distance(field > 1.8 * field.std(), (0.7, 0.5, 0.9)).astype(np.float32)
    found = diagrams(sdf, 1.5)
    for threshold in (-1.0, -0.25, 0.0, 0.4, 1.2):
        alive = [int(((d[:, 0] <= threshold) & (threshold < d[:, 1])).sum()) for d in found]
        assert tuple(alive) == betti_numbers(sdf <= threshold)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_three_hundred_fields_of_each_kind(kind):
    for seed in range(300):
        generator = np.random.default_rng([seed, 7, KINDS.index(kind)])
        shape = tuple(int(n) for n in generator.integers(1, 13, 3))
        field = make_field(kind, 10**6 + seed, shape)
        check(field, [None, a_band(generator, field)][seed % 2])


@pytest.mark.slow
def test_a_field_of_forty_eight_cubed():
    field = make_field("smooth", 1, (48, 48, 48))
    check(field, 0.5)
