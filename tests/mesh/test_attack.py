"""The wall of any finite field is closed, manifold, outward, free of crossings, and has the field's topology."""

import manifold3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf import mesh
from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers


def affine(generator):
    """A rotated, perhaps flipped and sheared, anisotropic grid far from the origin."""
    matrix = np.eye(4)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    matrix[:3, :3] = turn @ np.diag(generator.choice([0.1, 0.5, 1.0, 3.0], 3))
    matrix[:3, 3] = 100 * generator.normal(size=3)
    return matrix


def assert_sound(field, matrix):
    wall = mesh.surface(field, matrix)
    report = mesh.check(wall)
    beta0, beta1, beta2 = betti_numbers(field <= 0)
    assert report["watertight"]
    assert report["winding_consistent"]
    assert report["manifold_vertices"]
    assert report["outward"]
    assert report["degenerate_faces"] == 0
    assert report["self_intersections"] == 0
    assert report["euler_number"] == 2 * (beta0 - beta1 + beta2)
    assert report["components"] == beta0 + beta2
    solid = manifold3d.Mesh(np.asarray(wall.vertices, dtype=np.float32), np.asarray(wall.faces, dtype=np.uint32))
    assert manifold3d.Manifold(solid).status() == manifold3d.Error.NoError
    return wall


def has_wall(field):
    return bool(np.isfinite(field).all() and (field <= 0).any() and (field > 0).any())


shapes = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**32 - 1)


def noise(seed, shape, sigma, order):
    """A field of noise, smoothed by `sigma` voxels, about a random level; and a grid for it."""
    generator = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(generator.normal(size=shape), sigma)
    return np.asarray(field - generator.normal() * field.std(), order=order), affine(generator)


@settings(max_examples=25, deadline=None)
@given(seeds, shapes, st.sampled_from([0.0, 0.7, 1.2]), st.sampled_from("CF"))
def test_noise(seed, shape, sigma, order):
    field, matrix = noise(seed, shape, sigma, order)
    if has_wall(field):
        assert_sound(field, matrix)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(seeds, st.tuples(*[st.integers(1, 16)] * 3), st.floats(0, 2), st.sampled_from("CF"))
def test_more_and_larger_noise(seed, shape, sigma, order):
    field, matrix = noise(seed, shape, sigma, order)
    if has_wall(field):
        assert_sound(field, matrix)


@settings(max_examples=20, deadline=None)
@given(seeds, shapes, st.floats(0, 37), st.sampled_from([np.float32, np.float64]))
def test_values_of_any_size_and_exact_zeros(seed, shape, powers, dtype):
    generator = np.random.default_rng(seed)
    field = (generator.choice([-1, 0, 1, 1], shape) * 10.0 ** generator.uniform(-powers, powers, shape)).astype(dtype)
    if has_wall(field):
        assert_sound(field, affine(generator))


@settings(max_examples=20, deadline=None)
@given(seeds, shapes)
def test_whole_numbers(seed, shape):
    generator = np.random.default_rng(seed)
    field = generator.integers(-2, 4, shape)
    if has_wall(field):
        assert_sound(field, affine(generator))


@settings(max_examples=20, deadline=None)
@given(seeds, st.tuples(*[st.integers(4, 12)] * 3))
def test_crossing_and_touching_thin_tubes_and_walls_between_them(seed, shape):
    generator = np.random.default_rng(seed)
    places = np.moveaxis(np.indices(shape), 0, -1).astype(float)
    field = np.full(shape, 9.0)
    for _ in range(generator.integers(1, 4)):
        direction = generator.normal(size=3)
        direction /= np.linalg.norm(direction)
        offset = places - generator.random(3) * shape
        across = offset - (offset @ direction)[..., None] * direction
        field = np.minimum(field, np.linalg.norm(across, axis=-1) - generator.uniform(0.4, 2))
    field *= generator.choice([-1, 1])
    if has_wall(field):
        assert_sound(field, affine(generator))


def test_a_single_voxel_is_a_small_closed_body():
    field = np.ones((5, 5, 5))
    field[2, 2, 2] = -1
    assert 0 < assert_sound(field, np.eye(4)).volume < 1


def test_a_grid_of_one_voxel_row_and_of_one_plane():
    for shape in ((5, 1, 1), (6, 6, 1), (2, 3, 3)):
        field = np.ones(shape)
        field[1:3] = -1
        if has_wall(field):
            assert_sound(field, np.eye(4))


def test_two_voxels_that_touch_at_a_corner_are_one_body():
    field = np.ones((6, 6, 6))
    field[2, 2, 2] = field[3, 3, 3] = -1
    assert mesh.check(assert_sound(field, np.eye(4)))["components"] == 1


@pytest.mark.parametrize("value", [-1.0, -0.01, -5.0, 0.0])
def test_a_vessel_one_voxel_wide(value):
    field = np.ones((12, 5, 5))
    field[2:10, 2, 2] = value
    assert_sound(field, np.diag([0.4, 0.4, 1.0, 1.0]))


def test_a_hollow_tube_has_an_inner_and_an_outer_wall():
    x, y, z = np.indices((16, 16, 16)) - 7.6
    tube = np.maximum(np.abs(np.hypot(x, y) - 4) - 1, np.abs(z) - 5)
    wall = assert_sound(tube, np.eye(4))
    assert mesh.check(wall)["euler_number"] == 0
    shell = np.abs(np.sqrt(x**2 + y**2 + z**2) - 4) - 1
    assert mesh.check(assert_sound(shell, np.eye(4)))["components"] == 2


def test_a_vessel_that_leaves_the_grid_is_closed_flat_on_every_side():
    y, z = np.indices((9, 9)) - 4.2
    for axis in range(3):
        field = np.repeat(np.expand_dims(np.hypot(y, z) - 1.6, axis), 9, axis=axis)
        wall = assert_sound(field, np.eye(4))
        assert wall.bounds[0, axis] == -0.5
        assert wall.bounds[1, axis] == 8.5
        assert wall.volume == pytest.approx(9 * np.pi * 1.6**2, rel=0.05)


def test_an_inside_out_field_is_closed_at_the_border():
    x, y, z = np.indices((9, 9, 9)) - 4.2
    assert_sound(2.5 - np.sqrt(x**2 + y**2 + z**2), np.eye(4))


def test_nothing_open_comes_of_a_field_without_a_wall():
    for field in (np.ones((4, 4, 4)), -np.ones((4, 4, 4)), np.full((4, 4, 4), np.nan), np.zeros((0, 4, 4))):
        with pytest.raises(InputError):
            mesh.surface(field, np.eye(4))
