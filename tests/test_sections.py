"""Sections of vessels: widths of ellipses and other shapes, known by hand, at any place and turn in the grid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from vesselsdf.sections import DenseField, cast, ring

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 1.5)]


def turned(seed):
    """A random rotation."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def ellipse_distance(places, a, b):
    """Signed distance (n,) in the plane to an ellipse with half-axes a, b: from 4000 points of it, chords refined."""
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    wall = np.stack([a * np.cos(angle), b * np.sin(angle)], axis=1)
    normal = np.stack([np.cos(angle) / a, np.sin(angle) / b], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    nearest = cKDTree(wall).query(places)[1]
    return ((places - wall[nearest]) * normal[nearest]).sum(axis=1)


def tube(section, spacing, turn, shape, centre):
    """Field of an infinite tube: `section` of the two coordinates across the third axis of `turn` through `centre`."""
    places = np.indices(shape).reshape(3, -1).T * spacing - centre
    return section((places @ turn)[:, :2]).reshape(shape)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("a", "b"), [(1.3, 1.3), (3.0, 1.5), (6.0, 2.0), (4.0, 4.0), (8.0, 6.0)])
def test_an_elliptical_tube_has_the_radii_of_its_ellipse(a, b, spacing):
    spacing = np.array(spacing)
    for seed in range(2):
        turn = turned(seed)
        centre = np.array([20, 20, 15]) * spacing + np.random.default_rng(seed).uniform(0, 1, 3)
        field = DenseField(tube(lambda p: ellipse_distance(p, a, b), spacing, turn, (41, 41, 31), centre), spacing)
        along = np.linspace(-3, 3, 13)[:, None] * turn[:, 2] * spacing.min()
        off = 0.1 * b * (turn[:, 0] - turn[:, 1])
        size = np.full(13, b)
        found = cast(field, centre + along + off, np.tile(turn[:, 2], (13, 1)), size)
        assert found.whole.all()
        np.testing.assert_allclose(found.offset, -np.tile(off, (13, 1)), atol=0.03 * field.voxel)
        np.testing.assert_allclose(found.area, np.sqrt(a * b), rtol=0.01)
        np.testing.assert_allclose(found.least, b, rtol=0.02, atol=0.06 * field.voxel)
        np.testing.assert_allclose(found.most, a, rtol=0.03, atol=0.06 * field.voxel)


def test_rays_that_leave_the_grid_or_the_vessel_are_not_counted():
    spacing = np.ones(3)
    centre = np.array([10.0, 10, 10])
    field = DenseField(tube(lambda p: np.linalg.norm(p, axis=1) - 4, spacing, np.eye(3), (12, 21, 21), centre), spacing)
    found = cast(field, centre[None], np.array([[0.0, 0, 1]]), np.array([4.0]))
    assert not found.whole[0]  # the vessel leaves the grid at x = 11.5
    assert found.area[0] == pytest.approx(4, rel=0.01)
    outside = cast(field, np.array([[2.0, 2, 2]]), np.array([[0.0, 0, 1]]), np.array([4.0]))
    assert np.isnan(outside.area[0])
    assert np.isnan(outside.offset[0]).all()
    wall = DenseField(np.indices((20, 20, 20))[0] - 9.0, spacing)  # half of the rays meet no wall
    half = cast(wall, np.array([[6.0, 10, 10]]), np.array([[0.0, 0, 1]]), np.array([1.0]))
    assert np.isnan(half.area[0])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.floats(1.0, 6.0), st.floats(0.0, 0.3))
def test_a_round_tube_has_its_radius_from_any_point_near_its_axis(seed, radius, off):
    turn, spacing, centre = turned(seed), np.ones(3), np.array([12.0, 12, 12]) + np.random.default_rng(seed).random(3)
    field = DenseField(tube(lambda p: np.linalg.norm(p, axis=1) - radius, spacing, turn, (26, 26, 26), centre), spacing)
    along = np.linspace(-2, 2, 5)[:, None] * turn[:, 2]
    shift = off * radius * turn[:, 1]
    axis = np.tile(turn[:, 2], (5, 1))
    found = cast(field, centre + along + shift, axis, np.full(5, radius))
    np.testing.assert_allclose(found.area, radius, rtol=0.01 if radius > 1.3 else 0.03)
    np.testing.assert_allclose(found.offset, -np.tile(shift, (5, 1)), atol=0.03)
    np.testing.assert_allclose([found.least, found.most], radius, rtol=0.03, atol=0.05)
    _, measured = ring(field, centre + along + shift, axis, np.full(5, max(0.7 * radius, 1.0)))
    np.testing.assert_allclose(measured, radius, rtol=0.03)
