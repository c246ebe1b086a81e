"""3D Slicer's files: the header that Slicer reads, geometry by SimpleITK, points by the rules of the schema."""

import gzip
import json
import re

import numpy as np
import pytest
import SimpleITK
from jsonschema import Draft7Validator
from vtkmodules.vtkIOGeometry import vtkOBJReader, vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.export.slicer import ends, write_segmentation
from vesselsdf.mesh import write_mesh
from vesselsdf.roots import roots_of

TRIPLE = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
FRACTION = {"type": "number", "minimum": 0, "maximum": 1}
COLOUR = TRIPLE | {"items": FRACTION}
POINT = {
    "type": "object",
    "required": ["id", "label", "position"],
    "properties": {
        "id": {"type": "string"}, "label": {"type": "string"}, "description": {"type": "string"},
        "associatedNodeID": {"type": "string"}, "position": TRIPLE,
        "orientation": {"type": "array", "items": {"type": "number"}, "minItems": 9, "maxItems": 9},
        "selected": {"type": "boolean"}, "locked": {"type": "boolean"}, "visibility": {"type": "boolean"},
        "positionStatus": {"enum": ["undefined", "preview", "defined"]},
    },
    "additionalProperties": False,
}  # fmt: skip
MARKUP = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
        "name": {"type": "string"}, "coordinateSystem": {"enum": ["LPS", "RAS"]},
        "coordinateUnits": {"enum": ["mm", "um"]}, "locked": {"type": "boolean"}, "labelFormat": {"type": "string"},
        "controlPoints": {"type": "array", "items": POINT},
        "display": {
            "type": "object",
            "properties": {
                "color": COLOUR, "selectedColor": COLOUR, "textScale": {"type": "number", "minimum": 0},
                "glyphScale": {"type": "number", "minimum": 0}, "pointLabelsVisibility": {"type": "boolean"},
                "glyphType": {"enum": ["Vertex2D", "Cross2D", "Sphere3D", "Diamond3D"]},
            },
            "additionalProperties": False,
        },
    },
    "additionalProperties": False,
}  # fmt: skip
# The rules of Slicer's markups-schema-v1.0.3.json for what is written here, and nothing besides allowed.
SCHEMA = {
    "type": "object",
    "required": ["@schema", "markups"],
    "properties": {"@schema": {"type": "string"}, "markups": {"type": "array", "items": MARKUP}},
}


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    output = tmp_path_factory.mktemp("slicer")
    assert main(["export", "slicer", str(result), "-o", str(output)]) == 0
    return output


def header_of(path):
    head, _, data = path.read_bytes().partition(b"\n\n")
    lines = head.decode().splitlines()
    assert re.fullmatch(r"NRRD000\d", lines[0])
    standard = dict(line.split(": ", 1) for line in lines if ": " in line and ":=" not in line)
    return standard, dict(line.split(":=", 1) for line in lines if ":=" in line), data


def test_the_header_is_that_of_a_segmentation(folder, made):
    standard, own, data = header_of(folder / "vessels.seg.nrrd")
    assert standard["space"] == "left-posterior-superior"
    assert standard["encoding"] == "gzip"
    assert standard["sizes"].split() == [str(n) for n in made.input.shape]
    voxels = np.frombuffer(gzip.decompress(data), np.uint8).reshape(made.input.shape, order="F")
    assert np.array_equal(voxels, made.mask.array)
    assert own["Segment0_ID"] == "vessels"
    assert (own["Segment0_LabelValue"], own["Segment0_Layer"]) == ("1", "0")
    assert own["Segmentation_ReferenceImageExtentOffset"] == "0 0 0"
    assert own["Segmentation_MasterRepresentation"] == "Binary labelmap"
    places = np.argwhere(made.mask.array)
    extent = np.stack([places.min(axis=0), places.max(axis=0)], axis=1)
    assert own["Segment0_Extent"] == " ".join(map(str, extent.ravel()))
    assert all(0 <= float(part) <= 1 for part in own["Segment0_Color"].split())
    assert "SCT^59820001^Blood vessel" in own["Segment0_Tags"]
    rows = re.findall(r"\(([^)]*)\)", standard["space directions"])
    directions = np.array([[float(c) for c in row.split(",")] for row in rows]).T
    origin = np.array([float(c) for c in standard["space origin"].strip("()").split(",")])
    flip = np.diag([-1.0, -1, 1])
    assert np.allclose(flip @ directions, made.input.affine[:3, :3], atol=1e-6)
    assert np.allclose(flip @ origin, made.input.affine[:3, 3], atol=1e-6)


def test_simpleitk_finds_the_vessels_where_they_are(folder, made):
    image = SimpleITK.ReadImage(str(folder / "vessels.seg.nrrd"))
    for index in np.argwhere(made.mask.array)[::97].tolist():
        assert image.GetPixel(index) == 1
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(made.mask.to_world(np.array([index]))[0], [-x, -y, z], atol=1e-5)


def test_points_keep_the_rules_and_lie_on_roots_and_ends(folder, made):
    content = json.loads((folder / "ends.mrk.json").read_text())
    assert not list(Draft7Validator(SCHEMA).iter_errors(content))
    assert content["@schema"].endswith("markups-schema-v1.0.3.json#")
    (markup,) = content["markups"]
    graph = made.graph
    assert markup["coordinateSystem"] == "LPS"
    points = markup["controlPoints"]
    roots = [point for point in points if point["label"].startswith("root ")]
    assert [point["selected"] for point in points] == [True] * len(roots) + [False] * (len(points) - len(roots))
    places = [np.array(point["position"]) * [-1, -1, 1] for point in roots]
    assert np.allclose(places, [graph.nodes[node]["pos"] for node in roots_of(graph)], atol=1e-9)
    terminals = {node for node in graph if graph.degree(node) == 1} - set(roots_of(graph))
    named = {int(point["label"].removeprefix("end ")): point for point in points[len(roots) :]}
    assert set(named) == terminals
    for node, point in named.items():
        assert np.allclose(np.array(point["position"]) * [-1, -1, 1], graph.nodes[node]["pos"], atol=1e-9)
        assert f"radius {graph.nodes[node]['radius']:.3g} mm" in point["description"]
    assert len({point["id"] for point in points}) == len(points)


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".vtp"])
def test_meshes_say_that_they_are_ras(made, tmp_path, suffix):
    """Slicer looks for SPACE=RAS in the header that VTK's reader gives it, of .vtp for the field array SPACE."""
    path = tmp_path / f"mesh{suffix}"
    write_mesh(made.mesh(), path)
    kinds = {".ply": vtkPLYReader, ".stl": vtkSTLReader, ".obj": vtkOBJReader, ".vtp": vtkXMLPolyDataReader}
    reader = kinds[suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    if suffix == ".vtp":
        assert reader.GetOutput().GetFieldData().GetAbstractArray("SPACE").GetValue(0) == "RAS"
    elif suffix == ".ply":
        comments = reader.GetComments()
        assert "SPACE=RAS" in [comments.GetValue(k) for k in range(comments.GetNumberOfValues())]
    else:
        told = reader.GetHeader() if suffix == ".stl" else reader.GetComment()
        assert "SPACE=RAS" in told
    assert reader.GetOutput().GetNumberOfCells() == len(made.mesh().faces)


def test_an_empty_mask_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="no vessel"):
        write_segmentation(made.mask.with_array(made.mask.array * 0), tmp_path / "a.seg.nrrd")


def test_a_ring_has_a_root_and_no_end(made):
    import networkx as nx

    graph = nx.MultiGraph()
    angle = np.linspace(0, 2 * np.pi, 20)
    points = np.stack([5 * np.cos(angle), 5 * np.sin(angle), angle * 0], axis=1)
    graph.add_node(0, pos=points[0], radius=1.0)
    graph.add_edge(0, 0, start=0, points=points, radii=np.ones(20), length=31.4)
    (point,) = ends(graph)["markups"][0]["controlPoints"]
    assert point["label"] == "root 0"
