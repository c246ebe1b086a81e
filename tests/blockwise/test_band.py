"""A field in bricks is the field, where vessels are."""

import itertools

import numpy as np

from vesselsdf.blockwise.band import EDGE, REACH, Band
from vesselsdf.sections import DenseField


def test_values_near_vessels_are_those_of_the_dense_field():
    """Two vessels, in parts of different size, with the border of the grid in one of them."""
    draw = np.random.default_rng(0)
    x, y, z = np.indices((53, 40, 70))
    field = (0.4 * np.minimum(np.hypot(x - 8, y - 3), np.hypot(y - 30, z - 60)) - 1.3).astype(np.float32)
    field += draw.normal(size=field.shape).astype(np.float32) * 0.1
    parts = []
    for a, b in itertools.product((0, 32), range(0, 70, 16)):
        part = field[a : a + 32, :, b : b + 16]
        parts.append((np.array([a, 0, b]), part, np.ones([-(-n // EDGE) for n in part.shape], bool)))
    band = Band(field.shape, 0.4, parts)
    dense = DenseField(field, np.full(3, 0.4))
    points = draw.uniform(-2, 0.4 * 72, (20_000, 3))
    near = dense(points) < (REACH - 2) * 0.4
    assert near.sum() > 500
    np.testing.assert_allclose(band(points)[near], dense(points)[near], atol=1e-6)
    assert (band(points)[~near] > 0).all()
    assert np.array_equal(band.within(points), dense.within(points))
    assert band.voxel == dense.voxel
    assert len(band.bricks) * EDGE**3 < 0.8 * field.size


def test_without_vessels_it_is_outside_everywhere():
    band = Band((20, 20, 20), 0.5, [])
    assert (band(np.zeros((3, 3))) == np.float32(0.5 * REACH)).all()
