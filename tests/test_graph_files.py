"""Graph files: JSON without loss, SWC with equal length, GraphML by networkx, VTP by VTK."""

import json

import networkx as nx
import numpy as np
import pytest
from vtk import vtkXMLPolyDataReader
from vtk.util.numpy_support import vtk_to_numpy

from vesselsdf import graph_files
from vesselsdf.errors import InputError


def add_branch(graph, u, v, bend, radius):
    """A branch through a point beside its chord (for a self-loop: around a square)."""
    a, b = graph.nodes[u]["pos"], graph.nodes[v]["pos"]
    middle = [(a + b) / 2 + bend] if u != v else [a + bend * [1, 0, 0], a + bend, a + bend * [0, 1, 1]]
    points = np.array([a, *middle, b])
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    radii = np.linspace(radius, radius / 3, len(points))
    widths = {"radii": radii, "radii_min": radii * 0.8, "radii_max": radii * 1.3}
    graph.add_edge(u, v, start=u, points=points, length=length, **widths)


@pytest.fixture
def graph():
    """Two trees and a point: parallel edges, a self-loop, a plain branch, three loops in all."""
    graph = nx.MultiGraph(root=0, roots=[0, 5, 7])
    places = [(0, 0, 0), (10, 0, 0), (20, 1, 0), (30, 0, 1 / 3), (20, 9, 2), (0, 50, 0), (9, 50, 1e-7), (70, 0, 0)]
    for node, place in enumerate(places):
        graph.add_node(node, pos=np.array(place, dtype=float), radius=1.0 + node / 7)
    add_branch(graph, 0, 1, np.array([0, 1.0, 0]), 2.0)
    add_branch(graph, 1, 2, np.array([0, 2.0, 1]), 1.5)
    add_branch(graph, 2, 1, np.array([0, -2.0, 1]), 1.4)
    add_branch(graph, 1, 2, np.array([0, -4.0, 3]), 1.3)
    add_branch(graph, 2, 3, np.array([1, 1.0, 1]), 1.0)
    add_branch(graph, 4, 2, np.array([0, 0, 1 / 3]), 0.7)
    add_branch(graph, 4, 4, np.array([3.0, 3, 0]), 0.6)
    add_branch(graph, 5, 6, np.array([0, 0, 0]), 3.0)
    return graph


def total_length(graph):
    return sum(edge["length"] for _, _, edge in graph.edges(data=True))


def betti(graph):
    parts = nx.number_connected_components(graph)
    return parts, graph.number_of_edges() - graph.number_of_nodes() + parts


def test_json_reads_back_bit_for_bit(tmp_path, graph):
    graph_files.write_json(graph, tmp_path / "g.json")
    back = graph_files.read_json(tmp_path / "g.json")
    assert back.graph == graph.graph
    assert list(back.nodes) == list(graph.nodes)
    for node in graph:
        assert np.array_equal(back.nodes[node]["pos"], graph.nodes[node]["pos"])
        assert back.nodes[node]["radius"] == graph.nodes[node]["radius"]
    names = ("points", "radii", "radii_min", "radii_max")
    ours, theirs = (
        sorted((e["start"], e["length"], *(e[name].tolist() for name in names)) for *_, e in g.edges(data=True))
        for g in (graph, back)
    )
    assert ours == theirs
    assert betti(back) == betti(graph) == (3, 3)


def test_an_empty_graph_survives_every_format(tmp_path):
    empty = nx.MultiGraph(roots=[])
    graph_files.write_json(empty, tmp_path / "g.json")
    graph_files.write_swc(empty, tmp_path / "g.swc")
    graph_files.write_graphml(empty, tmp_path / "g.graphml")
    graph_files.write_vtp(empty, tmp_path / "g.vtp")
    assert len(graph_files.read_json(tmp_path / "g.json")) == 0
    assert len(graph_files.read_swc(tmp_path / "g.swc")) == 0
    assert len(nx.read_graphml(tmp_path / "g.graphml")) == 0
    assert read_vtp(tmp_path / "g.vtp").GetNumberOfCells() == 0


@pytest.mark.parametrize("text", ["{", '{"nodes": []}', "[1]"])
def test_a_foreign_json_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json"):
        graph_files.read_json(tmp_path / "x.json")


def test_swc_lists_parents_first_and_keeps_length_loops_and_radii(tmp_path, graph):
    graph_files.write_swc(graph, tmp_path / "g.swc")
    rows = [line.split() for line in (tmp_path / "g.swc").read_text().splitlines() if not line.startswith("#")]
    assert all(int(parent) < int(sample) for sample, *_, parent in rows)
    assert sum(row[-1] == "-1" for row in rows) == 3
    assert "# loops cut: 3" in (tmp_path / "g.swc").read_text()
    back = graph_files.read_swc(tmp_path / "g.swc")
    assert betti(back) == (3, 3)
    assert total_length(back) == pytest.approx(total_length(graph), rel=1e-12)
    assert sorted(d for _, d in back.degree) == sorted(d for _, d in graph.degree)


def test_swc_without_its_comments_is_a_forest_of_the_same_length(tmp_path, graph):
    graph_files.write_swc(graph, tmp_path / "g.swc")
    rows = [line for line in (tmp_path / "g.swc").read_text().splitlines() if not line.startswith("#")]
    (tmp_path / "bare.swc").write_text("\n".join(rows))
    back = graph_files.read_swc(tmp_path / "bare.swc")
    assert betti(back) == (3, 0)
    assert total_length(back) == pytest.approx(total_length(graph), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0 0 0 0 1 -1\n2 0 1 0 0 one 1\n", "line 2"),
        ("1 0 0 0 0 1 -1\n2 0 1 0 0 1 9\n", "parent 9"),
        ("1 0 0 0 0 1 -1\n1 0 1 0 0 1 1\n", "twice"),
        ("1 0 0 nan 0 1 -1\n", "not finite"),
        ("1 0 0 0\n", "line 1"),
    ],
)
def test_a_broken_swc_is_refused_with_the_place(tmp_path, text, words):
    (tmp_path / "x.swc").write_text(text)
    with pytest.raises(InputError, match=words):
        graph_files.read_swc(tmp_path / "x.swc")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.swc"):
        graph_files.read_swc(tmp_path / "none.swc")
    with pytest.raises(InputError, match=r"none\.json"):
        graph_files.read_json(tmp_path / "none.json")


def test_graphml_reads_back_in_networkx(tmp_path, graph):
    graph_files.write_graphml(graph, tmp_path / "g.graphml")
    back = nx.read_graphml(tmp_path / "g.graphml", node_type=int, force_multigraph=True)
    assert betti(back) == (3, 3)
    assert back.nodes[6]["z"] == 1e-7
    assert json.loads(back.graph["roots"]) == [0, 5, 7]
    lengths = sorted(edge["length"] for _, _, edge in back.edges(data=True))
    assert lengths == sorted(edge["length"] for _, _, edge in graph.edges(data=True))
    points = {tuple(map(tuple, json.loads(edge["points"]))) for _, _, edge in back.edges(data=True)}
    assert points == {tuple(map(tuple, edge["points"].tolist())) for _, _, edge in graph.edges(data=True)}


def read_vtp(path):
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_vtk_reads_branches_and_radii(tmp_path, graph):
    graph_files.write_vtp(graph, tmp_path / "g.vtp")
    data = read_vtp(tmp_path / "g.vtp")
    assert data.GetNumberOfLines() == graph.number_of_edges()
    assert data.GetNumberOfVerts() == 1
    branch = vtk_to_numpy(data.GetCellData().GetArray("branch")).tolist()
    assert branch == [-1, *range(8)]
    radius = vtk_to_numpy(data.GetPointData().GetArray("radius"))
    widths = {name: vtk_to_numpy(data.GetPointData().GetArray(name)) for name in ("radius_min", "radius_max")}
    assert np.array_equal(
        widths["radius_min"], vtk_to_numpy(data.GetPointData().GetArray("MaximumInscribedSphereRadius"))
    )
    points = vtk_to_numpy(data.GetPoints().GetData())
    cell = 1 + branch[1:].index(4)
    ids = [data.GetCell(cell).GetPointId(k) for k in range(data.GetCell(cell).GetNumberOfPoints())]
    edge = list(graph.edges(data=True))[4][2]
    assert np.array_equal(points[ids], edge["points"])
    assert np.array_equal(radius[ids], edge["radii"])
    assert np.array_equal(widths["radius_min"][ids], edge["radii_min"])
    assert np.array_equal(widths["radius_max"][ids], edge["radii_max"])
    assert vtk_to_numpy(data.GetCellData().GetArray("length"))[cell] == edge["length"]


def test_traced_cerebral_arteries_are_one_tree_each(shared_data):
    for path in sorted((shared_data / "brava").glob("*.swc"))[:4]:
        graph = graph_files.read_swc(path)
        samples = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
        place = {row[0]: np.array(row[2:5], dtype=float) for row in samples}
        expected = sum(np.linalg.norm(place[row[0]] - place[row[6]]) for row in samples if row[6] != "-1")
        assert total_length(graph) == pytest.approx(expected, rel=1e-9)
        assert betti(graph) == (1, 0)
        assert graph.number_of_edges() < len(samples) / 4


def test_a_traced_tree_comes_back_the_same_from_our_swc(tmp_path, shared_data):
    graph = graph_files.read_swc(shared_data / "brava" / "BG001records.swc")
    graph_files.write_swc(graph, tmp_path / "again.swc")
    again = graph_files.read_swc(tmp_path / "again.swc")
    assert total_length(again) == pytest.approx(total_length(graph), rel=1e-12)
    assert sorted(d for _, d in again.degree) == sorted(d for _, d in graph.degree)
