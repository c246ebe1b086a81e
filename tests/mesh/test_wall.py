"""Surfaces in RAS mm: orientation, sizes, files that others read back, and one sentence for bad fields."""

import json
import struct

import numpy as np
import pytest
import trimesh
from vtk import vtkPLYReader, vtkSTLReader

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
    in_voxels = mesh.surface(sdf, np.eye(4)).vertices
    in_mm = mesh.surface(sdf, affine).vertices
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


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb"])
def test_files_read_back_with_the_same_shape(tmp_path, suffix):
    ours = mesh.surface(torus() * 0.3, rotated([0.3, 0.3, 0.3], flip=True))
    path = tmp_path / f"vessels{suffix}"
    mesh.write_mesh(ours, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    back = trimesh.load(path, force="mesh") if suffix != ".glb" else trimesh.load(path, force="scene").to_mesh()
    assert len(back.faces) == len(ours.faces)
    assert back.is_watertight
    assert back.euler_number == 0
    scale = 1e-3 if suffix == ".glb" else 1.0
    assert back.volume == pytest.approx(ours.volume * scale**3, rel=1e-3)
    if suffix != ".glb":
        np.testing.assert_allclose(back.bounds, ours.bounds, atol=1e-4)


@pytest.mark.parametrize(("suffix", "reader"), [(".ply", vtkPLYReader), (".stl", vtkSTLReader)])
def test_vtk_reads_the_same_points(tmp_path, suffix, reader):
    ours = mesh.surface(torus(), np.eye(4))
    path = tmp_path / f"vessels{suffix}"
    mesh.write_mesh(ours, path)
    reading = reader()
    reading.SetFileName(str(path))
    reading.Update()
    assert reading.GetOutput().GetNumberOfCells() == len(ours.faces)
    assert reading.GetOutput().GetNumberOfPoints() == len(ours.vertices)
    np.testing.assert_allclose(np.reshape(reading.GetOutput().GetBounds(), (3, 2)).T, ours.bounds, atol=1e-4)


def test_glb_keeps_millimetres_and_stands_upright_in_metres(tmp_path):
    points = np.array([[0, 0, 0], [100.0, 0, 0], [0, 200.0, 0], [0, 0, 300.0]])
    mesh.write_mesh(
        trimesh.Trimesh(points, [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], process=False), tmp_path / "a.glb"
    )
    raw = (tmp_path / "a.glb").read_bytes()
    header = json.loads(raw[20 : 20 + struct.unpack("<I", raw[12:16])[0]])
    assert any(accessor.get("max") == [100.0, 200.0, 300.0] for accessor in header["accessors"])
    shown = trimesh.load(tmp_path / "a.glb", force="scene").to_mesh()
    # Head up is +Y, the front faces +Z, the patient's right is at -X (glTF 2.0).
    np.testing.assert_allclose(shown.bounds, [[-0.1, 0, 0], [0, 0.3, 0.2]], atol=1e-9)
    assert shown.volume > 0


def test_an_unknown_suffix_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"\.ply"):
        mesh.write_mesh(mesh.surface(torus(), np.eye(4)), tmp_path / "vessels.xyz")
    assert list(tmp_path.iterdir()) == []
