"""Surfaces in RAS mm: orientation, sizes, and one sentence for bad fields."""

import numpy as np
import pytest
import trimesh

from vesselsdf import mesh
from vesselsdf.errors import InputError


def torus(shape=(48, 48, 24), ring=14.0, tube=4.0):
    x, y, z = (np.indices(shape).T - (np.array(shape) - 1) / 2).T
    return (np.hypot(np.hypot(x, y) - ring, z) - tube).astype(np.float32)


def rotated(spacing, flip=False):
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing) @ (np.diag([1, -1, 1]) if flip else np.eye(3))
    affine[:3, 3] = [-30, 12.5, 400]
    return affine


@pytest.mark.parametrize("flip", [False, True])
def test_a_torus_has_euler_number_zero_and_its_volume_whatever_the_affine(flip):
    spacing = np.array([0.5, 0.5, 0.5])
    report = mesh.check(mesh.surface(torus() * 0.5, rotated(spacing, flip)))
    assert report["euler_number"] == 0
    assert report["components"] == 1
    assert report["watertight"]
    assert report["winding_consistent"]
    assert report["manifold_vertices"]
    assert report["outward"]
    assert report["degenerate_faces"] == 0
    assert report["volume"] == pytest.approx(2 * np.pi**2 * 7 * 2**2, rel=0.02)
    assert report["area"] == pytest.approx(4 * np.pi**2 * 7 * 2, rel=0.02)


def test_our_counts_agree_with_trimesh():
    ours = mesh.surface(torus(), np.eye(4))
    report = mesh.check(ours)
    assert report["watertight"] == ours.is_watertight
    assert report["winding_consistent"] == ours.is_winding_consistent
    assert report["euler_number"] == ours.euler_number
    assert report["components"] == ours.body_count
    assert report["volume"] == pytest.approx(ours.volume)
    assert report["area"] == pytest.approx(ours.area)


def test_a_hollow_ball_has_two_surfaces():
    distance = np.linalg.norm(np.indices((25, 25, 25)) - 12.0, axis=0)
    report = mesh.check(mesh.surface(np.abs(distance - 8) - 2, np.eye(4)))
    assert (report["components"], report["euler_number"]) == (2, 4)
    assert report["volume"] == pytest.approx(4 / 3 * np.pi * (10**3 - 6**3), rel=0.02)


def test_vertices_follow_the_affine():
    sdf = torus()
    affine = rotated([0.4, 0.6, 1.5])
    # Which edges are split depends on the spacing.
    in_voxels = mesh.surface(sdf, np.eye(4), refined=False).vertices
    in_mm = mesh.surface(sdf, affine, refined=False).vertices
    np.testing.assert_allclose(in_mm, in_voxels @ affine[:3, :3].T + affine[:3, 3])


@pytest.mark.parametrize(
    ("faces", "wrong"),
    [
        ([[0, 2, 1], [0, 1, 3], [1, 2, 3]], "watertight"),
        ([[0, 1, 2], [0, 1, 3], [1, 2, 3], [0, 3, 2]], "winding_consistent"),
        ([[0, 1, 2], [0, 3, 1], [1, 3, 2], [0, 2, 3]], "outward"),
    ],
)
def test_check_names_what_is_wrong_with_a_tetrahedron(faces, wrong):
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    assert not mesh.check(trimesh.Trimesh(points, faces, process=False))[wrong]


def test_two_tetrahedra_that_share_a_vertex_are_not_manifold_there():
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1.0]])
    one = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    other = np.where(one > 0, one + 3, 0)[:, ::-1]
    report = mesh.check(trimesh.Trimesh(points, np.concatenate([one, other]), process=False))
    assert report["watertight"]
    assert report["winding_consistent"]
    assert not report["manifold_vertices"]


def test_degenerate_faces_are_counted():
    points = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0.0]])
    report = mesh.check(trimesh.Trimesh(points, [[0, 1, 2], [0, 1, 3], [1, 1, 3]], process=False))
    assert report["degenerate_faces"] == 2


@pytest.mark.parametrize(
    ("sdf", "words"),
    [
        (np.ones((4, 4, 4)), "no vessel"),
        (-np.ones((4, 4, 4)), "no background"),
        (np.where(np.indices((4, 4, 4))[0] == 2, np.nan, 1.0), "NaN"),
        (np.where(np.indices((4, 4, 4))[0] == 2, -np.inf, 1.0), "infinite"),
    ],
)
def test_a_field_without_a_wall_is_refused_in_one_sentence(sdf, words):
    with pytest.raises(InputError, match=words) as error:
        mesh.surface(sdf, np.eye(4))
    assert str(error.value).count(". ") == 0
