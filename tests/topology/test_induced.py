"""Betti matching: known matches, images against gudhi's ranks, and what a matching must always be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from scipy.ndimage import gaussian_filter

from vesselsdf.errors import InputError
from vesselsdf.topology.filtration import Filtration, box_below
from vesselsdf.topology.induced import betti_matching, clipped, ends_of, image
from vesselsdf.topology.persistence import bars

KINDS = ("noise", "smooth", "integer", "smooth integer")


def field(kind: str, shape: tuple, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(shape)
    if "smooth" in kind:
        noise = 2 * gaussian_filter(noise, 0.8)
    return np.rint(2 * noise) if "integer" in kind else noise


def torus(radius: float, tube: float, centre: tuple = (0.0, 0.0, 0.0)) -> np.ndarray:
    x, y, z = (
        axis - c for axis, c in zip(np.meshgrid(*[np.arange(-14.0, 15.0)] * 3, indexing="ij"), centre, strict=True)
    )
    return np.hypot(np.hypot(x, y) - radius, z) - tube


def ranks(field: np.ndarray, low: float, high: float) -> tuple[int, ...]:
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=np.pad(field, 1, constant_values=9.0))
    cubical.compute_persistence(homology_coeff_field=2)
    return tuple(cubical.persistent_betti_numbers(low, high)[:3])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS),
    array_shapes(min_dims=3, max_dims=3, max_side=8),
    st.integers(0, 10**6),
    st.sampled_from([None, 1.0]),
)
def test_the_image_has_the_rank_of_every_map_between_sublevel_sets(kind, shape, seed, band):
    generator = np.random.default_rng(seed)
    f = field(kind, shape, generator)
    c = np.minimum(f, field(kind, shape, generator))
    limit = np.inf if band is None else band
    box = box_below(c, limit)
    one, both = (Filtration(a, limit, box) for a in (f, c))
    if one.voxels.size == 0:
        return
    pairs = clipped(image(one, both, limit), one, both, limit)
    birth, death = ends_of(one, limit)[0][pairs[0]], ends_of(both, limit)[1][pairs[1]]
    components = one.unmerged.size + one.components.born.size
    dimension = np.digitize(pairs[0], [components, components + one.loops.born.size])
    values = np.unique([f, c])
    values = values[(values < limit) & (values >= -limit)]
    for _ in range(5 * (values.size > 0)):
        s, t = np.sort(generator.choice(values, 2))
        steps = np.where(f <= s, 0.0, np.where(c <= t, 1.0, 2.0))
        expected = ranks(steps, 0, 1) if (f <= s).any() else (0, 0, 0)
        found = tuple(np.bincount(dimension[(birth <= s) & (death > t)], minlength=3).tolist())
        assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), array_shapes(min_dims=3, max_dims=3, max_side=7), st.integers(0, 10**6))
def test_a_matching_is_one_to_one_symmetric_and_whole_for_equal_fields(kind, shape, seed):
    generator = np.random.default_rng(seed)
    f, g = (field(kind, shape, generator) for _ in range(2))
    found, back = betti_matching(f, g), betti_matching(g, f)
    assert len(set(found.matched[:, 0])) == len(set(found.matched[:, 1])) == len(found.matched)
    assert sorted(found.matched.tolist()) == sorted(back.matched[:, ::-1].tolist())
    assert (found.f.dimension[found.matched[:, 0]] == found.g.dimension[found.matched[:, 1]]).all()
    whole = betti_matching(f, f.copy())
    assert (whole.matched == np.arange(len(whole.f.birth))[:, None]).all()
    assert whole.error == (0, 0, 0)
    np.testing.assert_array_equal(found.f.birth, bars(f).birth)


def test_a_torus_and_a_thicker_one_are_the_same():
    found = betti_matching(torus(8, 2), torus(8, 3), band=2.0)
    assert found.error == (0, 0, 0)
    assert len(found.matched) == 2


def test_a_loop_elsewhere_is_another_loop():
    left, right = torus(4, 1.5, (-7, 0, 0)), torus(4, 1.5, (7, 0, 0))
    found = betti_matching(left, right, band=1.0)
    # The Betti numbers are equal, and nothing corresponds.
    assert found.error == (2, 2, 0)
    assert found.alone_of_f().sum() == found.alone_of_g().sum() == 2


def test_a_cut_ring_and_a_shell_with_a_hole():
    whole = torus(8, 2)
    cut = whole.copy()
    cut[:, 14:, :][9:20] = np.maximum(cut[:, 14:, :][9:20], 1.0)
    assert betti_matching(whole, cut, band=2.0).error == (0, 1, 0)
    x, y, z = np.meshgrid(*[np.arange(-10.0, 11.0)] * 3, indexing="ij")
    shell = np.abs(np.sqrt(x**2 + y**2 + z**2) - 6) - 2
    open_shell = np.where(np.hypot(x, y) + 20 * (z < 0) < 2.5, 1.0, shell)
    found = betti_matching(shell, open_shell, band=2.0)
    assert found.error == (0, 0, 1)


def test_empty_fields_and_bad_input():
    none, some = np.full((4, 4, 4), 2.0), np.full((4, 4, 4), -2.0)
    assert betti_matching(none, none, band=1.0).error == (0, 0, 0)
    assert betti_matching(none, some, band=1.0).error == (1, 0, 0)
    assert betti_matching(some, some).error == (0, 0, 0)
    with pytest.raises(InputError, match="one grid"):
        betti_matching(none, some[:3])
    with pytest.raises(InputError, match="NaN"):
        betti_matching(none, np.full((4, 4, 4), np.nan))
    with pytest.raises(InputError, match="band"):
        betti_matching(none, some, band=0)
