"""Crossings of the wall: exact on round vessels however thin, and within their grid edge whatever the field holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_tubes import exact_distance, random_tube, sampled

from vesselsdf.marching import CLEARANCE, linear_crossing, march
from vesselsdf.mesh.placement import cubic_root, place
from vesselsdf.synthesis.trees import grow_tree


def errors(field, distance, spacing=1.0):
    """Distances to the true wall of the placed vertices and of linear crossings, in voxels."""
    marched = march(field)
    linear = marched.at(linear_crossing(*marched.ends(field)))
    return np.abs(distance(place(field, marched)[0])), np.abs(distance(linear))


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("radius", [0.7, 0.9, 1.3, 2.0, 5.0])
def test_on_tubes_vertices_are_within_a_few_thousandths_of_a_voxel_of_the_wall(radius, curved):
    generator = np.random.default_rng(int(10 * radius))
    placed, linear = [], []
    for _ in range(4):
        graph, shape, _ = random_tube(generator, radius, curved)
        ours, theirs = errors(sampled(graph, shape), lambda x, graph=graph: exact_distance(graph, x))
        placed.append(ours)
        linear.append(theirs)
    ours, theirs = np.concatenate(placed).mean(), np.concatenate(linear).mean()
    assert ours < (0.006 if curved and radius < 1 else 0.003)
    assert ours < theirs / 8


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 1.0)])
def test_on_a_vessel_tree_the_mean_error_is_below_a_hundredth_of_a_voxel(spacing):
    shape = tuple(int(40 / h) for h in spacing)
    graph = grow_tree(4, shape, spacing, loops=1)
    field = sampled(graph, shape, np.diag([*spacing, 1.0]))
    ours, theirs = errors(field, lambda x: exact_distance(graph, x * spacing) / min(spacing))
    assert ours.mean() < 0.01
    assert ours.mean() < theirs.mean() / 4


def test_on_balls_and_their_hollows_vertices_are_exact_and_kappa_is_half_the_curvature():
    centre = np.array([7.1, 7.6, 8.2])
    distance = np.linalg.norm(np.indices((15, 16, 17)) - centre[:, None, None, None], axis=0)
    for radius, sign in ((1.4, 1), (2.5, -1), (4.3, 1), (4.3, -1)):
        marched = march(sign * (distance - radius))
        vertices, kappa = place(sign * (distance - radius), marched)
        inner = ((vertices > 0) & (vertices < np.array(distance.shape) - 1)).all(axis=1)
        off = np.linalg.norm(vertices - centre, axis=1)[inner] - radius
        assert np.abs(off).mean() < 1e-3
        if radius < 3:  # a flatter wall shows its curvature less
            assert np.median(kappa[inner]) == pytest.approx(sign / (2 * radius), rel=0.1)


def test_a_plane_is_flat():
    x, y, z = np.indices((9, 9, 9))
    field = (x + 2 * y + 2 * z) / 3 - 5.2
    marched = march(field)
    vertices, kappa = place(field, marched)
    inner = ((vertices > 0) & (vertices < 8)).all(axis=1)
    assert np.abs(kappa[inner]).max() < 1e-6
    np.testing.assert_allclose(vertices[inner] @ [1 / 3, 2 / 3, 2 / 3], 5.2, atol=1e-9)


def test_units_and_anisotropic_voxels_do_not_matter_for_a_tube():
    graph, shape, _ = random_tube(np.random.default_rng(3), 1.1, curved=False)
    field = sampled(graph, shape)
    marched = march(field)
    plain, kappa = place(field, marched)
    scaled, other = place(field * 1e-3, marched)
    np.testing.assert_allclose(scaled, plain, atol=1e-5)
    np.testing.assert_allclose(other, kappa * 1e3, rtol=1e-3, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.floats(0, 38),
    st.sampled_from([np.float32, np.float64]),
)
def test_vertices_stay_on_their_grid_edges_whatever_the_values(seed, shape, powers, dtype):
    generator = np.random.default_rng(seed)
    field = (generator.choice([-1, 0, 1], shape) * 10.0 ** generator.uniform(-powers, powers, shape)).astype(dtype)
    if not (field <= 0).any():
        return
    marched = march(field)
    vertices, kappa = place(field, marched)
    along = vertices - marched.lower
    rows = np.arange(len(along))
    assert np.isfinite(kappa).all()
    share = along[rows, marched.axis]
    assert (share >= CLEARANCE * 0.999).all()
    assert (share <= 1 - CLEARANCE * 0.999).all()
    along[rows, marched.axis] = 0
    assert (along == 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_roots_of_cubics_agree_with_numpy(seed):
    generator = np.random.default_rng(seed)
    samples, position = generator.normal(size=(20, 4)), generator.integers(0, 3, 20)
    keep = (samples[np.arange(20), position] > 0) != (samples[np.arange(20), position + 1] > 0)
    samples, position = samples[keep], position[keep]
    for row, k, share in zip(samples, position, cubic_root(samples, position), strict=True):
        roots = np.roots(np.polyfit(np.arange(4), row, 3))
        real = roots[np.abs(roots.imag) < 1e-7].real
        assert np.abs(real - (k + share)).min() < 2e-2
        assert 0 <= share <= 1
