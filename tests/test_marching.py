"""The isosurface has the topology of the 26-connected foreground: all cases, noise, and shapes with known answers."""

import itertools
from functools import cache

import gudhi
import manifold3d
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf import marching, mesh

EVERYWHERE = np.ones((3, 3, 3), dtype=bool)


def betti(inside):
    """Components (26), cavities (6) by scipy; loops from the Euler number that gudhi counts on closed voxels."""
    padded = np.pad(inside, 1)
    beta0 = ndimage.label(padded, EVERYWHERE)[1]
    beta2 = ndimage.label(~padded)[1] - 1
    complex_ = gudhi.CubicalComplex(top_dimensional_cells=np.where(padded, -1.0, 1.0))
    complex_.compute_persistence(homology_coeff_field=2)
    return beta0, complex_.persistent_betti_numbers(0, 0)[1], beta2


def assert_exact(field):
    vertices, faces = marching.marching_cubes(field)
    report = mesh.check(trimesh.Trimesh(vertices, faces, process=False))
    beta0, beta1, beta2 = betti(field <= 0)
    assert report["watertight"]
    assert report["winding_consistent"]
    assert report["manifold_vertices"]
    assert report["outward"]
    assert report["degenerate_faces"] == 0
    assert report["vertices"] == len(vertices)
    assert report["euler_number"] == 2 * (beta0 - beta1 + beta2)
    assert report["components"] == beta0 + beta2
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    assert solid.status() == manifold3d.Error.NoError
    assert solid.volume() == pytest.approx(report["volume"], rel=1e-4)


@pytest.mark.parametrize("block", range(4))
def test_every_cube_of_eight_samples_gives_a_closed_manifold_with_the_right_euler_number(block):
    for code in range(64 * block, 64 * block + 64):
        if code:
            inside = (code >> np.arange(8).reshape(2, 2, 2).transpose(2, 1, 0) & 1).astype(bool)
            assert_exact(np.where(inside, -1.0, 1.0))


def test_all_inside_outside_patterns_of_two_neighbouring_cubes_share_their_face():
    # The segments of a face depend on its four corners only, so any two cubes agree on their common face.
    seen = {}
    for code in range(256):
        segments = marching.face_segments(code)
        for axis, side in itertools.product(range(3), range(2)):
            corners = [c for c in range(8) if (c >> axis & 1) == side]
            on_face = {
                frozenset((a, b))
                for a, b in segments.items()
                if all(set(marching.EDGES[e]) <= set(corners) for e in (a, b))
            }
            flat = {
                frozenset(tuple(sorted(c & ~(1 << axis) for c in marching.EDGES[e])) for e in pair) for pair in on_face
            }
            pattern = (axis, tuple(code >> c & 1 for c in corners))
            assert seen.setdefault(pattern, flat) == flat


def test_no_inner_triangle_edge_lies_in_a_face_of_the_cube():
    for code in range(256):
        rim = {frozenset(pair) for pair in marching.face_segments(code).items()}
        for triangle in marching.case_triangles(code):
            for a, b in itertools.combinations(triangle, 2):
                if frozenset((a, b)) not in rim:
                    assert not marching.EDGE_FACES[a] & marching.EDGE_FACES[b]


def test_two_voxels_that_touch_at_a_corner_are_one_body_without_a_handle():
    field = np.ones((4, 4, 4))
    field[1, 1, 1] = field[2, 2, 2] = -1
    assert_exact(field)
    report = mesh.check(trimesh.Trimesh(*marching.marching_cubes(field), process=False))
    assert (report["components"], report["euler_number"]) == (1, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.floats(-1.5, 1.5),
    st.sampled_from([0.0, 0.7]),
)
def test_noise_fields_have_exact_topology(seed, shape, level, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma) - level
    if (field <= 0).any():
        assert_exact(field)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_fields_full_of_exact_zeros_give_no_degenerate_face(seed, share):
    generator = np.random.default_rng(seed)
    field = np.where(generator.random((5, 5, 5)) < share, generator.integers(-1, 1, (5, 5, 5)), 1).astype(np.float32)
    if (field <= 0).any():
        assert_exact(field)


def test_a_vessel_that_leaves_the_grid_is_closed_on_the_outer_face_of_the_border_voxels():
    x, y = np.indices((9, 9)) - 4.0
    field = np.repeat((np.hypot(x, y) - 2.5)[:, :, None], 6, axis=2)
    vertices, _ = marching.marching_cubes(field)
    assert vertices[:, 2].min() == -0.5
    assert vertices[:, 2].max() == 5.5
    assert_exact(field)


def test_vertices_of_a_plane_lie_on_it():
    field = np.indices((5, 6, 7))[0] - 1.3
    vertices, _ = marching.marching_cubes(field)
    # Away from the five faces of the grid on which the block is closed.
    wall = vertices[(vertices[:, 0] > 1) & (vertices[:, 1:] >= 0).all(axis=1) & (vertices[:, 1:] <= [5, 6]).all(axis=1)]
    assert len(wall) == 6 * 7
    np.testing.assert_allclose(wall[:, 0], 1.3, atol=1e-12)


def test_vertices_of_a_sphere_are_a_fiftieth_of_a_voxel_from_it():
    field = np.linalg.norm(np.indices((40, 40, 40)) - 19.6, axis=0) - 10
    vertices, _ = marching.marching_cubes(field)
    assert np.abs(np.linalg.norm(vertices - 19.6, axis=1) - 10).max() < 0.02


def test_an_empty_foreground_has_no_surface():
    vertices, faces = marching.marching_cubes(np.ones((3, 3, 3)))
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


# The cube with sides of 2, so that its corners and the middles of its edges and faces are whole numbers.
ENDS = 2 * marching.CORNERS[np.array(marching.EDGES)]
FIXED = [(-1, *point) for point in itertools.product((0, 1, 2), repeat=3)]


@cache
def side(plane, vertex):
    """1 or -1 if a vertex keeps to one side of a plane wherever the vertices lie within their edges, else 0.

    A vertex is the number of its cube edge, a fixed point is (-1, x, y, z); the plane is given by three of them. The
    determinant is affine in the position of each vertex along its edge, so a weighted mean, with positive weights, of
    its values with all vertices at ends of their edges: if none of these is negative, and one positive, it is positive.
    """
    choices = [ENDS[p] if isinstance(p, int) else [p[1:]] for p in (*plane, vertex)]
    a, b, c, d = np.moveaxis(np.array(list(itertools.product(*choices))), 1, 0)
    values = np.einsum("ni,ni->n", np.cross(a - d, b - d), c - d)
    return 1 if values.min() >= 0 < values.max() else -1 if values.max() <= 0 > values.min() else 0


def separating_plane(one, other):
    """A plane that holds what two faces share and has the rest of them strictly on either side, or None."""
    shared, vertices = set(one) & set(other), sorted({*one, *other})
    planes = [*itertools.combinations(vertices, 3)] if len(shared) < 2 else []
    for count in (2, 1):
        for some in itertools.combinations(vertices, count):
            planes += [(*some, *points) for points in itertools.combinations(FIXED, 3 - count)]
    for plane in planes:
        if shared <= set(plane):
            a = {side(plane, vertex) for vertex in set(one) - set(plane)}
            b = {side(plane, vertex) for vertex in set(other) - set(plane)}
            if (a, b) in (({1}, {-1}), ({-1}, {1})):
                return plane
    return None


def test_faces_of_one_cube_never_cross_wherever_the_vertices_lie_on_their_edges():
    # For every two faces of every case there is a plane with one on each side. Its three points are not in line, since
    # a determinant with them is not 0, so what both faces have in the plane are the hulls of different ones of them,
    # which meet in what they share. Faces of different cubes lie in different cubes and share segments of their face.
    for code in range(1, 255):
        for one, other in itertools.combinations(marching.case_triangles(code), 2):
            assert separating_plane(one, other) is not None, (code, one, other)
