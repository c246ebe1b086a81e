"""Analytic solids, sampled finely, coarsely, anisotropically and on rotated grids: every number is known by hand.

Sampling error. Let f be a 1-Lipschitz field and d half the diagonal of a voxel. Every point of a closed voxel is within
d of its centre, so the union of the voxels with value <= t lies between {f <= t - d} and {f <= t + d}, and so does its
interior: the sampled bars differ from those of f by at most d, at both ends, whichever pair is counted.
"""

import itertools
import math

import numpy as np
import pytest
from solids import ALL, NEVER, ball, double_torus, norm, ring, rotation, sampled, shell, tunnel_and_cavity

from vesselsdf.errors import InputError
from vesselsdf.scales import bounds, pyramid
from vesselsdf.topology.betti import ambiguous_contacts, betti_numbers, components, euler_number
from vesselsdf.topology.blocks import betti_numbers_in_blocks
from vesselsdf.topology.persistence import diagrams, features
from vesselsdf.topology.survival import survival

GRIDS = {
    "fine": ((0.25, 0.25, 0.25), None),
    "coarse": ((0.4, 0.4, 0.4), None),
    "slices": ((0.3, 0.3, 0.6), None),
    "slices across x": ((0.6, 0.3, 0.3), None),
    "rotated": ((0.35, 0.35, 0.35), rotation(2)),
    "rotated slices": ((0.25, 0.25, 0.4), rotation(4)),
    "reflected": ((0.45, 0.45, 0.45), rotation(5)),
}
CENTRE = (12.0, -30.0, 7.5)


def on_grid(solid, grid):
    spacing, turn = GRIDS[grid]
    field, affine = sampled(solid, spacing, turn, CENTRE)
    return field, affine, float(np.linalg.norm(spacing)) / 2


def alive(field, affine):
    return [feature for feature in features(field, affine) if feature.alive]


def around(place):
    """A place in the solid's own coordinates."""
    return np.array(place) - CENTRE


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ALL)
def test_betti_numbers(name, grid):
    solid = ALL[name]
    field, affine, error = on_grid(solid, grid)
    mask = field <= 0
    assert betti_numbers(mask) == solid.betti
    assert euler_number(mask) == solid.betti[0] - solid.betti[1] + solid.betti[2]
    assert betti_numbers_in_blocks(mask, 20) == solid.betti
    assert components(mask)[1] == solid.betti[0]
    if min(itertools.chain(*solid.margins)) > 2 * error:  # well sampled: walls and gaps of more than two diagonals
        assert betti_numbers(mask, pair="6/26") == solid.betti
    # Voxels can meet diagonally on the wall only.
    assert all(abs(solid.sdf(*around(place))) <= error for place in ambiguous_contacts(mask, affine).places)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", ALL)
def test_margins(name, grid):
    solid = ALL[name]
    field, affine, error = on_grid(solid, grid)
    found = alive(field, affine)
    for dimension, expected in enumerate(solid.margins):
        margins = sorted(feature.margin for feature in found if feature.dimension == dimension)
        if len(expected) == solid.betti[dimension]:
            assert margins == pytest.approx(expected, abs=error)
        else:  # the margin of one component is not known by hand: no less than those of the loops in it
            assert len(margins) == solid.betti[dimension] == 1
            assert margins[0] >= max(solid.margins[1]) - error
    assert sum(feature.death == math.inf for feature in found) == 1


@pytest.mark.parametrize("name", ["shell", "thick shell", "torus", "thick torus", "double torus", "tunnel and cavity"])
@pytest.mark.parametrize("grid", ["fine", "slices", "rotated slices"])
def test_births_and_deaths_and_not_their_minimum_only(name, grid):
    solid = ALL[name]
    field, affine, error = on_grid(solid, grid)
    for dimension in (1, 2):
        found = [f for f in alive(field, affine) if f.dimension == dimension]
        expected = [bar[1:] for bar in solid.bars if bar[0] == dimension]
        assert sorted(f.birth for f in found) == pytest.approx(sorted(b for b, _ in expected), abs=error)
        assert sorted(f.death for f in found) == pytest.approx(sorted(d for _, d in expected), abs=error)


@pytest.mark.parametrize("grid", ["fine", "rotated", "rotated slices", "reflected"])
def test_places_are_in_world_coordinates(grid):
    """Where each feature ends is where its hole is widest; where it begins, where its wall is thinnest."""
    field, affine, error = on_grid(ALL["thick shell"], grid)
    (cavity,) = [f for f in alive(field, affine) if f.dimension == 2]
    assert norm(*around(cavity.death_place)) <= 2 * error
    field, affine, error = on_grid(tunnel_and_cavity(), grid)
    (loop,) = [f for f in alive(field, affine) if f.dimension == 1]
    (cavity,) = [f for f in alive(field, affine) if f.dimension == 2]
    assert np.hypot(*(around(loop.death_place)[:2] - (2.1, 0))) <= 2 * error
    assert around(loop.birth_place)[0] == pytest.approx((2.1 + 1.2 + 4.6) / 2, abs=2 * error)
    assert around(cavity.death_place) == pytest.approx((-1.6, 0, 0), abs=2 * error)
    assert around(cavity.birth_place)[0] == pytest.approx(0.3, abs=2 * error)  # half-way from cavity to tunnel
    field, affine, error = on_grid(double_torus(), grid)
    thin, _ = sorted((f for f in alive(field, affine) if f.dimension == 1), key=lambda f: f.margin)
    assert abs(around(thin.birth_place)[0]) <= 2 * error  # the wall between the holes


# name, spacing, kappa, and for each dimension the level that the bounds reach, by hand:
# B = kappa * spacing * (0, 2, 6, 14); the level is the last one with B < margin.
PASSPORTS = [
    ("ball", 0.3, 0.75, [[3], [], []]),  # B = 0, 0.45, 1.35, 3.15; margin 4
    ("thick shell", 0.3, 0.75, [[2], [], [1]]),  # margins 2 and 1
    ("torus", 0.3, 0.75, [[1], [1], []]),  # margins 1 and 1
    ("thick torus", 0.3, 0.75, [[2], [1], []]),  # margins 2.1 and 0.9: the hole is what breaks first
    ("3 touching rings", 0.3, 0.75, [[1], [1, 1, 1], []]),  # margin 0.8
    ("separate chain", 0.3, 0.75, [[1, 1, 1], [1, 1, 1], []]),  # margin 0.8
    ("double torus", 0.25, 0.9, [None, [1, 1], []]),  # B = 0, 0.45, 1.35, 3.15; margins 0.7 and 1
    ("tunnel and cavity", 0.25, 0.7, [None, [1], [1]]),  # B = 0, 0.35, 1.05, 2.45; margins 0.65 and 0.6
    ("linked chain", 0.4, 1.3, [[0, 0, 0], [0, 0, 0], []]),  # B = 0, 1.04, ...; margin 0.6
]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("name", "h", "kappa", "levels"), PASSPORTS)
def test_passports(name, h, kappa, levels, turned):
    solid = ALL[name]
    field, affine = sampled(solid, (h, h, h), rotation(6) if turned else None, CENTRE)
    limits = bounds(h, 4, kappa)
    report = survival(pyramid(field, 4), (h, h, h), affine, bounds=limits)
    found = report["levels"][0]["features"]
    for dimension, expected in enumerate(levels):
        rows = [row for row in found if row["dimension"] == dimension]
        assert len(rows) == solid.betti[dimension]
        if expected is None:
            continue
        error = h * math.sqrt(3) / 2  # the answer must not hang on the sampling
        assert all(not m - error <= limit <= m + error for m in solid.margins[dimension] for limit in limits[1:])
        assert [row["passport_level"] for row in rows] == expected
        assert [row["passport_spacing"] for row in rows] == [pytest.approx([h * 2**level] * 3) for level in expected]
    # What the passport promises must hold at the levels that it reaches.
    for level, row in enumerate(report["levels"]):
        if row["error"] <= limits[level]:
            for dimension in range(3):
                promised = sum(f["dimension"] == dimension and f["passport_level"] >= level for f in found)
                assert row["survived"][dimension] >= promised


def test_a_structure_on_the_border_ends_there():
    field, _ = sampled(shell(), (0.3, 0.3, 0.3))
    half = field[: field.shape[0] // 2]  # an open bowl
    assert betti_numbers(half <= 0) == betti_numbers(half <= 0, "6/26") == (1, 0, 0)
    assert [f.dimension for f in features(half) if f.alive] == [0]
    field, _ = sampled(ALL["torus"], (0.3, 0.3, 0.3))
    half = field[: field.shape[0] // 2 + 1]  # half a ring
    assert betti_numbers(half <= 0) == betti_numbers(half <= 0, "6/26") == (1, 0, 0)
    assert [f.dimension for f in features(half) if f.alive] == [0]
    # A full box with a hollow: the wall of the box is thick enough to close it.
    field, _ = sampled(ball(), (0.5, 0.5, 0.5))
    assert betti_numbers(field > 0) == (1, 0, 1)
    assert [f.dimension for f in features(-field) if f.alive] == [0, 2]


def test_volumes_one_voxel_thick():
    x, y, z = np.meshgrid(np.arange(-8, 9) * 0.5, np.arange(-8, 9) * 0.5, [0.0], indexing="ij")
    flat = ring(x, y, z, 2.5, 0.9)
    for axes in ((0, 1, 2), (2, 0, 1), (0, 2, 1)):
        field = flat.transpose(axes)
        assert betti_numbers(field <= 0) == betti_numbers(field <= 0, "6/26") == (1, 1, 0)
        component, loop = (f for f in features(field) if f.alive)
        assert (component.death, loop.dimension, loop.death) == (math.inf, 1, 1.6)
        assert loop.margin == pytest.approx(0.9, abs=0.25 * math.sqrt(2))
    line = np.array([-1.0, 2.0, -3.0, 1.0, -2.0]).reshape(1, 5, 1)
    assert betti_numbers(line <= 0) == (3, 0, 0)
    assert sorted(f.margin for f in features(line) if f.alive) == [1.0, 1.0, 3.0]


def test_one_voxel_and_constant_fields():
    for value, expected in ((-2.0, (1, 0, 0)), (0.0, (1, 0, 0)), (2.0, (0, 0, 0))):
        for shape in ((1, 1, 1), (4, 3, 2)):
            field = np.full(shape, value)
            assert betti_numbers(field <= 0) == betti_numbers(field <= 0, "6/26") == expected
            assert betti_numbers_in_blocks(field <= 0, 2) == expected
            (only,) = features(field)
            assert (only.dimension, only.birth, only.death, only.alive) == (0, value, NEVER, value <= 0)
            assert [len(d) for d in diagrams(field)] == [1, 0, 0]
    single = np.full((3, 3, 3), 1.0)
    single[1, 1, 1] = -0.5
    assert [(f.margin, f.birth_place) for f in features(single) if f.alive] == [(0.5, (1.0, 1.0, 1.0))]


def test_integers_count_as_the_floats_they_are():
    field, _ = sampled(ALL["3 touching rings"], (0.3, 0.3, 0.3))
    whole = np.round(field * 10).astype(np.int16)
    assert features(whole) == features(whole.astype(np.float64))
    assert betti_numbers(whole <= 0) == (1, 3, 0)
    labels = (whole <= 0) * np.array(3, np.uint8)  # a label volume: anything but zero is vessel
    assert betti_numbers(labels) == (1, 3, 0)
    assert len(ambiguous_contacts(labels)) == len(ambiguous_contacts(whole <= 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_one_clear_error(bad):
    field, _ = sampled(ball(2.0), (0.5, 0.5, 0.5))
    field[3, 4, 5] = bad
    for function in (features, diagrams, lambda f: survival([f], (0.5, 0.5, 0.5))):
        with pytest.raises(InputError, match="NaN or infinite"):
            function(field)
    for function in (betti_numbers, euler_number, components, ambiguous_contacts):
        with pytest.raises(InputError, match="give booleans"):
            function(field)
    with pytest.raises(InputError, match="give booleans"):
        betti_numbers_in_blocks(field, 4)


def test_a_mask_is_no_field():
    with pytest.raises(InputError, match="dtype bool"):
        features(np.ones((3, 3, 3), bool))
