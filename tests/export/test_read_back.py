"""Every file of one reconstruction, by readers of others: all of them say the same places in mm (docs/exports.md)."""

import csv
import json
import re
import xml.etree.ElementTree
from pathlib import Path

import networkx as nx
import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
import trimesh
import zarr
from scipy.ndimage import map_coordinates
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from vesselsdf.api import make_mesh
from vesselsdf.field_store import write_fields
from vesselsdf.files import write_json
from vesselsdf.mesh import write_mesh
from vesselsdf.reconstruction import save_graph
from vesselsdf.volume import write_volume

TABLE = Path(__file__).resolve().parents[2] / "docs" / "exports.md"
MM = 1e-5
# Positions near 100 mm in float32 are known to 4e-6 mm; STL, OBJ and GLB have nothing better.
FLOAT32 = 1.2e-5


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """What `Reconstruction.save` and `vesselsdf mesh` write, but for report and preview, which `tests/report` opens."""
    folder = tmp_path_factory.mktemp("result")
    write_volume(made.sdf, folder / "sdf.nii.gz")
    write_fields(folder / "sdf.zarr", made.levels, made.affine)
    write_volume(made.mask, folder / "vessels.nii.gz")
    for suffix in ("ply", "stl", "obj", "glb", "vtp"):
        write_mesh(made.mesh(), folder / f"mesh.{suffix}")
    save_graph(made.graph, folder)
    write_json(folder / "topology.json", {"betti": made.topology()["betti"]})
    return folder


def inside(made, places):
    """The distance field by scipy at those places (RAS mm) that lie between its voxels."""
    index = np.linalg.solve(made.affine, np.c_[places, np.ones(len(places))].T)[:3]
    within = ((index >= 0) & (index <= np.array(made.levels[0].shape)[:, None] - 1)).all(axis=0)
    return map_coordinates(made.levels[0], index[:, within], order=1)


def test_the_table_lists_every_file(folder):
    listed = set(re.findall(r"`([a-z.]+\.[a-z]+(?:\.gz)?)`", TABLE.read_text(encoding="utf-8")))
    written = {path.name for path in folder.iterdir()} | {"report.html", "preview.png", "run.json"}
    written |= {"flow.vtp", "flow.stl", "flow.obj", "flow.csv", "model.onnx", "vessels.dcm", "vessels.zarr"}
    written |= {"vessels.seg.nrrd", "ends.mrk.json"}
    assert written <= listed


@pytest.mark.parametrize("name", ["sdf.nii.gz", "vessels.nii.gz"])
def test_volumes_by_nibabel_and_simpleitk(folder, made, name):
    expected = made.sdf if name == "sdf.nii.gz" else made.mask
    file = nibabel.load(folder / name)
    assert np.array_equal(np.asanyarray(file.dataobj), expected.array)
    assert np.abs(file.affine - expected.affine).max() <= MM
    assert file.header.get_xyzt_units()[0] == "mm"
    assert file.header["qform_code"] == file.header["sform_code"] == 1
    assert np.abs(file.get_qform() - file.get_sform()).max() <= MM
    image = SimpleITK.ReadImage(str(folder / name))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, expected.array)
    for index in ([0, 0, 0], [n - 1 for n in expected.shape], [3, 17, 5]):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        assert np.abs(expected.to_world(np.array([index]))[0] - [-x, -y, z]).max() <= 2 * MM


def test_fields_by_zarr_and_torch(folder, made):
    group = zarr.open_group(str(folder / "sdf.zarr"), mode="r")
    facts = group.attrs["vesselsdf"]
    assert np.abs(np.array(facts["affine"]) - made.affine).max() == 0
    field = None
    for level in range(facts["levels"] - 1, -1, -1):
        details = torch.from_numpy(group[str(level)][...].astype(np.float32) * np.float32(facts["step"]))
        if field is not None:
            finer = torch.nn.functional.interpolate(field[None, None], scale_factor=2, mode="trilinear")[0, 0]
            details = details + finer[tuple(slice(n) for n in details.shape)]
        field = details
        expected = made.levels[level]
        assert np.abs(field.numpy() - expected).max() <= facts["max_error"] * 1.001
        sure = np.abs(expected) > 1e-5  # torch rounds in another order
        assert np.array_equal((field.numpy() <= 0)[sure], (expected <= 0)[sure])


def by_vtk(path):
    kinds = {".ply": vtkPLYReader, ".stl": vtkSTLReader, ".obj": vtkOBJReader, ".vtp": vtkXMLPolyDataReader}
    reader = kinds[path.suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def mesh_of(polydata):
    faces = vtk_to_numpy(polydata.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    return trimesh.Trimesh(vtk_to_numpy(polydata.GetPoints().GetData()).astype(float), faces, process=False)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb", ".vtp"])
def test_meshes_by_trimesh_and_vtk(folder, made, suffix):
    path, expected = folder / f"mesh{suffix}", made.mesh()
    found = []
    if suffix != ".vtp":
        found.append(trimesh.load(path, process=False, force="mesh"))
    if suffix == ".glb":  # metres, x to the patient's left, y up
        x, y, z = found[0].vertices.T
        found[0].vertices = np.stack([-x, z, y], axis=1) * 1000
    else:
        found.append(mesh_of(by_vtk(path)))
    for mesh in found:
        assert len(mesh.faces) == len(expected.faces)
        assert np.abs(mesh.triangles - expected.triangles).max() <= FLOAT32
        assert mesh.volume == pytest.approx(expected.volume, rel=1e-5)
        away = np.abs(inside(made, mesh.vertices)) / made.sdf.spacing[0]  # trilinear, which the wall is not
        assert np.quantile(away, 0.99) < 0.3
        assert away.max() < 0.5
    if suffix == ".vtp":
        assert np.array_equal(found[0].vertices, expected.vertices)


def nodes_of_json(path):
    content = json.loads(path.read_text())
    return np.array([node["pos"] for node in content["nodes"]])


def nodes_of_graphml(path):
    graph = nx.read_graphml(path)
    return np.array([[data[axis] for axis in "xyz"] for _, data in graph.nodes(data=True)])


def nodes_of_vtp(path):
    content = by_vtk(path)
    points = vtk_to_numpy(content.GetPoints().GetData())
    offsets = vtk_to_numpy(content.GetLines().GetOffsetsArray())
    lines = vtk_to_numpy(content.GetLines().GetConnectivityArray())
    verts = vtk_to_numpy(content.GetVerts().GetConnectivityArray())
    return points[np.concatenate([lines[offsets[:-1]], lines[offsets[1:] - 1], verts]).astype(int)]


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def nodes_of_tables(path):
    places = []
    for name in ("branches", "bifurcations", "terminals"):
        rows = table(path.parent / f"{name}.csv")
        ends = ("proximal_", "distal_") if name == "branches" else ("",)
        places += [[float(row[f"{end}{axis}_mm"]) for axis in "xyz"] for row in rows for end in ends]
    return np.array(places)


@pytest.mark.parametrize(
    ("name", "read", "digits"),
    [
        ("centreline.json", nodes_of_json, 0.0), ("centreline.graphml", nodes_of_graphml, 0.0),
        ("centreline.vtp", nodes_of_vtp, 1e-12), ("branches.csv", nodes_of_tables, 6e-5),
    ],
)  # fmt: skip
def test_nodes_of_the_centreline(folder, made, name, read, digits):
    """Tables are written with seven digits: 100 mm to 5e-5 mm."""
    expected = np.array([data["pos"] for _, data in made.graph.nodes(data=True)])
    found = read(folder / name)
    away = np.abs(found[:, None] - expected[None]).max(axis=2)
    assert away.min(axis=1).max() <= digits  # each one read is a node
    connected = [k for k, node in enumerate(made.graph) if made.graph.degree(node)]
    assert away[:, connected].min(axis=0).max() <= digits  # and each node was read
    assert inside(made, found).max() < made.sdf.spacing[0]


def test_centreline_by_numpy_as_swc(folder, made):
    rows = np.loadtxt(folder / "centreline.swc")
    number = {int(sample): k for k, sample in enumerate(rows[:, 0])}
    pairs = [(k, number[int(parent)]) for k, parent in enumerate(rows[:, 6]) if parent > 0]
    a, b = np.array(pairs).T
    length = np.linalg.norm(rows[a, 2:5] - rows[b, 2:5], axis=1).sum()
    assert length == pytest.approx(sum(edge["length"] for *_, edge in made.graph.edges(data=True)), rel=1e-9)
    places = np.array([data["pos"] for _, data in made.graph.nodes(data=True)])
    assert np.abs(rows[None, :, 2:5] - places[:, None]).max(axis=2).min(axis=1).max() == 0


def test_radii_are_the_same_in_all_formats(folder, made):
    expected = np.sort(np.concatenate([edge["radii"] for *_, edge in made.graph.edges(data=True)]))
    content = json.loads((folder / "centreline.json").read_text())
    assert np.array_equal(np.sort(np.concatenate([edge["radii"] for edge in content["edges"]])), expected)
    points = by_vtk(folder / "centreline.vtp").GetPointData()
    assert np.isin(expected, vtk_to_numpy(points.GetArray("radius"))).all()
    inscribed = vtk_to_numpy(points.GetArray("MaximumInscribedSphereRadius"))
    assert (inscribed <= vtk_to_numpy(points.GetArray("radius")) + 1e-9).all()


def test_topology_is_that_of_the_graph_by_networkx(folder):
    graph = nx.MultiGraph(nx.read_graphml(folder / "centreline.graphml"))
    trees = nx.number_connected_components(graph)
    loops = graph.number_of_edges() - graph.number_of_nodes() + trees
    assert json.loads((folder / "topology.json").read_text())["betti"][:2] == [trees, loops]
    anatomy = json.loads((folder / "anatomy.json").read_text())
    assert (anatomy["trees"], anatomy["loops"]) == (trees, loops)


def test_meshes_and_masks_enclose_the_same_vessels(folder, made):
    """Volume and centre: a mask counts voxels, so they agree to a share of one."""
    file = nibabel.load(folder / "vessels.nii.gz")
    index = np.argwhere(np.asanyarray(file.dataobj))
    centre = (index @ file.affine[:3, :3].T + file.affine[:3, 3]).mean(axis=0)
    mesh = trimesh.load(folder / "mesh.ply")
    assert np.linalg.norm(mesh.center_mass - centre) < 0.5 * min(made.input.spacing)
    assert mesh.volume == pytest.approx(len(index) * np.prod(made.input.spacing), rel=0.1)


@pytest.fixture(scope="module")
def opened(folder):
    """What `vesselsdf mesh --open-ends` writes, and what it says."""
    said = {suffix: make_mesh(folder, folder / f"flow{suffix}", open_ends=True) for suffix in (".vtp", ".stl", ".obj")}
    return said[".vtp"]


def test_opened_ends_by_vtk_and_trimesh(folder, opened):
    caps = table(folder / "flow.csv")
    assert len(caps) == len(opened["caps"]) > 2
    content = by_vtk(folder / "flow.vtp")
    label = vtk_to_numpy(content.GetCellData().GetArray("ModelFaceID"))
    whole = mesh_of(content)
    assert whole.is_watertight
    assert set(label) == {1, *(int(cap["id"]) for cap in caps)}
    for cap in caps:
        own = whole.submesh([label == int(cap["id"])], append=True)
        assert own.area == pytest.approx(float(cap["area_mm2"]), rel=1e-5)
        centre = np.average(own.triangles_center, axis=0, weights=own.area_faces)
        assert np.abs(centre - [float(cap[f"{axis}_mm"]) for axis in "xyz"]).max() <= 10 * MM
    names = {"wall", *(cap["name"] for cap in caps)}
    assert set(re.findall(r"^solid (\S+)", (folder / "flow.stl").read_text(), re.MULTILINE)) == names
    solids = trimesh.load(folder / "flow.stl")
    area = sum(one.area for one in solids.geometry.values()) if isinstance(solids, trimesh.Scene) else solids.area
    assert area == pytest.approx(whole.area, rel=1e-5)
    text = (folder / "flow.obj").read_text()
    assert set(re.findall(r"^g (\S+)", text, re.MULTILINE)) == names
    assert trimesh.load(folder / "flow.obj", force="mesh").area == pytest.approx(whole.area, rel=1e-5)


def test_vtp_files_are_xml(folder):
    for name in ("mesh.vtp", "centreline.vtp"):
        root = xml.etree.ElementTree.parse(folder / name).getroot()
        assert (root.tag, root.get("type")) == ("VTKFile", "PolyData")
