"""Meshes as files: what trimesh and VTK read back is what was written, with its data and colours."""

import json
import struct

import networkx as nx
import numpy as np
import pytest
import trimesh
from vtk import vtkPLYReader, vtkSTLReader, vtkXMLPolyDataReader
from vtk.util.numpy_support import vtk_to_numpy

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


def coloured_torus():
    """A torus with a radius and a number at every vertex, the region of every face, and colours."""
    graph = nx.MultiGraph()
    graph.add_node(0, pos=np.zeros(3), radius=4.0)
    graph.add_node(1, pos=np.array([20.0, 3.0, 1.0]), radius=3.0)
    ours = mesh.colour_by_radius(mesh.surface(torus(), rotated([1, 1, 1])), graph)
    ours.vertex_attributes["number"] = np.arange(len(ours.vertices), dtype=np.int32)
    ours.face_attributes["ModelFaceID"] = (np.arange(len(ours.faces)) % 7).astype(np.int64)
    return ours


def test_vtp_gives_points_faces_and_data_back_in_vtk(tmp_path):
    ours = coloured_torus()
    mesh.write_mesh(ours, tmp_path / "a.vtp")
    assert [p.name for p in tmp_path.iterdir()] == ["a.vtp"]
    reading = vtkXMLPolyDataReader()
    reading.SetFileName(str(tmp_path / "a.vtp"))
    reading.Update()
    back = reading.GetOutput()
    np.testing.assert_array_equal(vtk_to_numpy(back.GetPoints().GetData()), ours.vertices)
    np.testing.assert_array_equal(vtk_to_numpy(back.GetPolys().GetConnectivityArray()).reshape(-1, 3), ours.faces)
    assert back.GetPolys().IsHomogeneous() == 3
    for data, name, expected in (
        (back.GetPointData(), "radius", ours.vertex_attributes["radius"]),
        (back.GetPointData(), "number", ours.vertex_attributes["number"]),
        (back.GetPointData(), "RGBA", ours.visual.vertex_colors),
        (back.GetCellData(), "ModelFaceID", ours.face_attributes["ModelFaceID"]),
    ):
        array = vtk_to_numpy(data.GetArray(name))
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_ply_gives_radius_and_colours_back(tmp_path):
    ours = coloured_torus()
    mesh.write_mesh(ours, tmp_path / "a.ply")
    back = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_array_equal(back.faces, ours.faces)
    np.testing.assert_array_equal(back.visual.vertex_colors, ours.visual.vertex_colors)
    stored = back.metadata["_ply_raw"]
    np.testing.assert_array_equal(stored["face"]["data"]["ModelFaceID"].ravel(), ours.face_attributes["ModelFaceID"])
    np.testing.assert_array_equal(stored["vertex"]["data"]["radius"].ravel(), ours.vertex_attributes["radius"])
    reading = vtkPLYReader()
    reading.SetFileName(str(tmp_path / "a.ply"))
    reading.Update()
    colours = vtk_to_numpy(reading.GetOutput().GetPointData().GetArray("RGBA"))
    np.testing.assert_array_equal(colours, ours.visual.vertex_colors)


def test_glb_gives_radius_and_colours_back(tmp_path):
    ours = coloured_torus()
    mesh.write_mesh(ours, tmp_path / "a.glb")
    (back,) = trimesh.load(tmp_path / "a.glb", force="scene", process=False).geometry.values()
    np.testing.assert_array_equal(back.faces, ours.faces)
    np.testing.assert_allclose(back.vertices, ours.vertices, atol=1e-4)
    np.testing.assert_array_equal(back.vertex_attributes["_RADIUS"].ravel(), ours.vertex_attributes["radius"])
    np.testing.assert_array_equal(back.visual.vertex_colors, ours.visual.vertex_colors)
    assert sorted(ours.vertex_attributes) == ["number", "radius"]


def test_obj_gives_colours_back(tmp_path):
    ours = coloured_torus()
    mesh.write_mesh(ours, tmp_path / "a.obj")
    back = trimesh.load(tmp_path / "a.obj", process=False)
    np.testing.assert_array_equal(back.faces, ours.faces)
    np.testing.assert_allclose(back.visual.vertex_colors, ours.visual.vertex_colors, atol=1)
