"""Crossing faces: hand-made pairs, solids pushed into each other, agreement with testing every pair, rounding."""

import itertools

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from vtk import vtkCellArray, vtkIntersectionPolyDataFilter, vtkPoints, vtkPolyData

from vesselsdf import mesh

FLAT = [[0, 0, 0], [4, 0, 0], [0, 4, 0]]


def pairs(points, faces):
    return mesh.self_intersections(trimesh.Trimesh(np.array(points, dtype=float), faces, process=False)).tolist()


def two(other):
    """Pairs among two triangles without a common vertex."""
    return pairs([*FLAT, *other], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("other", "meet"),
    [
        ([[1, 1, -1], [1, 1, 1], [9, 9, 0]], True),  # a side pierces the face
        ([[1, 1, 1], [1, 1, 2], [9, 9, 1]], False),  # all above
        ([[3, 3, -1], [3, 3, 1], [9, 9, 0]], False),  # passes beside
        ([[1, 1, 0], [1, 1, 1], [2, 1, 1]], True),  # stands on it with a corner
        ([[2, 0, 0], [2, -1, 0], [3, -1, 0]], True),  # touches a side in its plane
        ([[1, 1, 0], [2, 1, 0], [1, 2, 0]], True),  # lies inside it
        ([[-9, -9, 0], [30, -9, 0], [-9, 30, 0]], True),  # covers it
        ([[4, 4, 0], [5, 4, 0], [4, 5, 0]], False),  # beside it in its plane
        ([[0, 0, 1e-9], [4, 0, 1e-9], [0, 4, 1e-9]], False),  # a copy just above
        (FLAT, True),  # a copy
    ],
)
def test_two_triangles_without_a_common_vertex(other, meet):
    assert two(other) == ([[0, 1]] if meet else [])


@pytest.mark.parametrize(
    ("points", "meet"),
    [
        ([[4, 0, 0], [0, 4, 0], [1, 1, -1], [1, 1, 1]], True),  # pierces the opposite face
        ([[4, 0, 0], [0, 4, 0], [-1, -1, -1], [-1, -1, 1]], False),
        ([[4, 0, 0], [0, 4, 0], [-4, 0, 0], [0, -4, 0]], False),  # opposite, in one plane, sides in line
        ([[4, 0, 0], [0, 4, 0], [0, 4, 1], [-4, 0, 0]], False),
        ([[4, 0, 0], [0, 4, 0], [4, 1, 0], [1, 4, 0]], True),  # overlaps in one plane
        ([[4, 0, 0], [0, 4, 0], [8, 0, 0], [4, -4, 0]], True),  # a side runs along a side
    ],
)
def test_two_triangles_with_a_common_vertex(points, meet):
    for turn, other in itertools.product(range(3), range(3)):
        faces = [np.roll([0, 1, 2], turn), np.roll([0, 3, 4], other)]
        assert pairs([[0, 0, 0], *points], faces) == ([[0, 1]] if meet else [])


@pytest.mark.parametrize(
    ("apex", "meet"),
    [([0, -4, 0], False), ([0, -4, 4], False), ([0, 4, 4], False), ([0, 4, 1e-9], False), ([1, 1, 0], True)],
)
def test_two_triangles_with_a_common_side_meet_only_when_folded_flat(apex, meet):
    for turn in range(3):
        faces = [np.roll([0, 1, 2], turn), [1, 0, 3]]
        assert pairs([*FLAT, apex], faces) == ([[0, 1]] if meet else [])


def test_a_face_that_occurs_twice_counts():
    assert pairs(FLAT, [[0, 1, 2], [1, 2, 0]]) == [[0, 1]]


def test_a_flat_fan_and_a_flat_grid_have_no_crossing():
    turns = np.linspace(0, 2 * np.pi, 13)[:-1]
    fan = np.vstack([np.zeros(3), np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)])
    assert pairs(fan, [[0, k, k % 12 + 1] for k in range(1, 13)]) == []
    x, y = (c.ravel() for c in np.indices((6, 6)))
    corner = np.flatnonzero((x < 5) & (y < 5))
    faces = np.concatenate([corner[:, None] + [0, 6, 7], corner[:, None] + [0, 7, 1]])
    # In a tilted plane the heights are rounded, so nothing is exactly flat.
    for points in (np.stack([x, y, 0 * x], axis=1), np.stack([x, y, (x + 2 * y) / 3 + 0.1], axis=1) * 0.7 + 400):
        assert pairs(points, faces) == []


def test_a_convex_body_has_no_crossing_and_a_vertex_pushed_through_it_makes_some():
    ball = trimesh.creation.icosphere(3)
    assert mesh.check(ball)["self_intersections"] == 0
    ball.vertices[0] *= -1.5
    crossing = mesh.self_intersections(ball)
    assert mesh.check(ball)["self_intersections"] == len(crossing) > 0
    assert (ball.faces[crossing[:, 0]] == 0).any(axis=1).sum() + (ball.faces[crossing[:, 1]] == 0).any(axis=1).sum() > 0


def vtk_crossing_segments(one, other):
    """Number of segments in which VTK finds two meshes to cross: one for each two faces that cross."""

    def polydata(body):
        points, cells = vtkPoints(), vtkCellArray()
        for vertex in body.vertices:
            points.InsertNextPoint(*vertex)
        for face in body.faces:
            cells.InsertNextCell(3, [int(k) for k in face])
        data = vtkPolyData()
        data.SetPoints(points)
        data.SetPolys(cells)
        return data

    crossing = vtkIntersectionPolyDataFilter()
    crossing.SetInputData(0, polydata(one))
    crossing.SetInputData(1, polydata(other))
    crossing.SplitFirstOutputOff()
    crossing.SplitSecondOutputOff()
    crossing.Update()
    return crossing.GetOutput().GetNumberOfLines()


@pytest.mark.parametrize("shift", [[0.9, 0.13, 0.21], [1.61, -0.37, 0.4], [0.03, 0.05, 1.71]])
def test_two_balls_cross_in_as_many_pairs_of_faces_as_vtk_finds(shift):
    one = trimesh.creation.icosphere(3)
    other = one.copy()
    other.apply_translation(shift)
    found = mesh.self_intersections(trimesh.util.concatenate([one, other]))
    assert len(found) == vtk_crossing_segments(one, other) > 20
    assert (found[:, 0] < len(one.faces)).all()
    assert (found[:, 1] >= len(one.faces)).all()


def crosses_by_sampling(points, one, other):
    """Whether two triangles in general position share a point: by solving for the crossing of every side."""
    for (p, q), face in [(side, other) for side in itertools.combinations(one, 2)] + [
        (side, one) for side in itertools.combinations(other, 2)
    ]:
        a, b, c = points[face]
        system = np.stack([b - a, c - a, points[p] - points[q]], axis=1)
        u, v, t = np.linalg.solve(system, points[p] - a)
        if u >= 0 and v >= 0 and u + v <= 1 and 0 <= t <= 1:
            return True
    return False


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6), st.sampled_from([[0, 0, 0], [400.0, -250.0, 1000.0]]))
def test_soups_of_triangles_agree_with_testing_every_pair(seed, size, shift):
    generator = np.random.default_rng(seed)
    centres = generator.random((25, 1, 3))
    points = (centres + size * generator.normal(size=(25, 3, 3))).reshape(-1, 3) + shift
    faces = np.arange(75).reshape(-1, 3)
    expected = [
        [i, j] for i, j in itertools.combinations(range(25), 2) if crosses_by_sampling(points, faces[i], faces[j])
    ]
    assert pairs(points, faces) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_answer_depends_neither_on_the_order_of_faces_nor_on_a_rotation(seed):
    generator = np.random.default_rng(seed)
    points, faces = generator.random((30, 3)), np.array([generator.choice(30, 3, replace=False) for _ in range(25)])
    order = generator.permutation(25)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    found = pairs(points, faces)
    back = sorted(
        sorted(order[pair].tolist()) for pair in np.array(pairs(points, faces[order]), dtype=int).reshape(-1, 2)
    )
    assert back == found == pairs(points @ turn, faces)


def test_no_face_and_one_face_do_not_cross():
    assert pairs(FLAT, np.zeros((0, 3), dtype=int)) == []
    assert pairs(FLAT, [[0, 1, 2]]) == []
