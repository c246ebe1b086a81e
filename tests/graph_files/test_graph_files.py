"""Graph files: JSON without loss, SWC with equal length, GraphML by networkx, VTP by VTK."""

import json

import networkx as nx
import numpy as np
import pytest
from vtk import vtkCellArray, vtkPoints, vtkPolyData, vtkXMLPolyDataReader, vtkXMLPolyDataWriter
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from vesselsdf import graph_files
from vesselsdf.branch_table import branch_table
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


@pytest.fixture
def rich(graph):
    """The same with more: other arrays along branches and on nodes, labels, infinities, odd keys and types."""
    for k, (_, _, edge) in enumerate(graph.edges(data=True)):
        edge["curvature"] = np.linspace(0, 1, len(edge["points"])).astype(np.float32) / 3
        edge["tangents"] = np.diff(edge["points"], axis=0, append=edge["points"][-1:] + 1)
        edge["touched"] = np.arange(len(edge["points"])) % 2 == 0
        if k % 2:
            edge["group"] = np.arange(len(edge["points"])) + 2**60
        edge["label"], edge["weight"] = f"M{k}", 1 / (k + 3)
    edge["curvature"][:2] = np.inf, np.nan
    graph.nodes[3]["normal"] = np.array([0.1, 0.2, -np.inf])
    graph.nodes[3]["side"] = "left"
    graph.add_edge(0, 1, 17, **{**graph.edges[0, 1, 0], "length": 11.0})
    graph.graph["spacing"] = np.array([0.5, 0.5, 0.7])
    graph.graph["patient"] = {"age": 61}
    return graph


def assert_same(value, other):
    """Equal to the last bit, and of the same type."""
    if isinstance(value, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert value.tobytes() == other.tobytes() or np.array_equal(value, other, equal_nan=True)
    else:
        assert type(value) is type(other)
        assert value == other


def assert_same_graph(graph, back):
    assert list(graph.nodes) == list(back.nodes)
    assert list(graph.edges(keys=True)) == list(back.edges(keys=True))
    pairs = [(graph.graph, back.graph)]
    pairs += [(graph.nodes[node], back.nodes[node]) for node in graph]
    pairs += [(graph.edges[name], back.edges[name]) for name in graph.edges]
    for one, other in pairs:
        assert set(one) == set(other)
        for name in one:
            assert_same(one[name], other[name])


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


def test_json_keeps_every_attribute_type_key_and_order(tmp_path, rich):
    graph_files.write_json(rich, tmp_path / "g.json")
    assert_same_graph(rich, graph_files.read_json(tmp_path / "g.json"))


def test_json_of_the_first_version_is_still_read(tmp_path, graph):
    graph_files.write_json(graph, tmp_path / "g.json")
    content = json.loads((tmp_path / "g.json").read_text())
    del content["arrays"]
    for edge in content["edges"]:
        del edge["key"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    assert_same_graph(graph, graph_files.read_json(tmp_path / "old.json"))


def test_a_json_with_parts_missing_is_refused(tmp_path, graph):
    graph_files.write_json(graph, tmp_path / "g.json")
    for part in ("nodes", "edges", "graph"):
        content = json.loads((tmp_path / "g.json").read_text())
        del content[part]
        (tmp_path / "x.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=rf"x\.json: .*{part}"):
            graph_files.read_json(tmp_path / "x.json")


def test_a_name_that_json_cannot_hold_is_refused(tmp_path):
    graph = nx.MultiGraph()
    graph.add_node((1, 2), pos=np.zeros(3), radius=1.0)
    with pytest.raises(InputError, match=r"node \(1, 2\)"):
        graph_files.write_json(graph, tmp_path / "g.json")
    assert list(tmp_path.iterdir()) == []


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


def test_swc_keeps_the_radii_of_every_branch(tmp_path, graph):
    graph_files.write_swc(graph, tmp_path / "g.swc")
    back = graph_files.read_swc(tmp_path / "g.swc")

    def bundle(any_graph):
        edges = [edge for *_, edge in any_graph.edges(data=True)]
        return sorted(
            min((e["points"].tolist(), e["radii"].tolist()), (e["points"][::-1].tolist(), e["radii"][::-1].tolist()))
            for e in edges
            if not np.array_equal(e["points"][0], e["points"][-1])
        )

    assert bundle(back) == bundle(graph)
    assert [back.nodes[root]["pos"].tolist() for root in back.graph["roots"]] == [
        graph.nodes[root]["pos"].tolist() for root in graph.graph["roots"]
    ]


def test_swc_begins_at_the_roots_and_counts_samples_from_one(tmp_path, graph):
    graph.graph["roots"], graph.graph["root"] = [3, 6, 7], 3
    graph_files.write_swc(graph, tmp_path / "g.swc")
    rows = [line.split() for line in (tmp_path / "g.swc").read_text().splitlines() if not line.startswith("#")]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    starts = [[float(c) for c in row[2:5]] for row in rows if row[6] == "-1"]
    assert starts == [graph.nodes[node]["pos"].tolist() for node in (3, 6, 7)]
    back = graph_files.read_swc(tmp_path / "g.swc")
    assert back.nodes[back.graph["root"]]["pos"].tolist() == graph.nodes[3]["pos"].tolist()


def test_an_swc_of_other_software_is_read_whatever_its_order_types_and_comments(tmp_path):
    text = (
        "\ufeff# traced by h\xe4nd\r\n\r\n7 2 10 0 0 1 3\r\n3 1 0 0 0 2 -1\r\n 9 6 20 5 0 1 7 extra\n8 3 20 -5 0 0 7\n"
    )
    (tmp_path / "g.swc").write_bytes(text.encode("utf-8").replace("\xe4".encode(), b"\xe4"))
    graph = graph_files.read_swc(tmp_path / "g.swc")
    assert sorted(d for _, d in graph.degree) == [1, 1, 1, 3]
    assert graph.nodes[graph.graph["root"]]["pos"].tolist() == [0, 0, 0]
    assert min(edge["radii"].min() for *_, edge in graph.edges(data=True)) == 0


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
        ("1 0 0 0 0 -2 -1\n", "negative"),
        ("1 0 0 0 0 1 1\n", "own ancestor"),
        ("1 0 0 0 0 1 3\n2 0 1 0 0 1 1\n3 0 2 0 0 1 2\n", "own ancestor"),
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


def test_graphml_reads_back_bit_for_bit(tmp_path, graph):
    graph_files.write_graphml(graph, tmp_path / "g.graphml")
    assert_same_graph(graph, graph_files.read_graphml(tmp_path / "g.graphml"))


def test_graphml_keeps_arrays_and_labels(tmp_path, rich):
    graph_files.write_graphml(rich, tmp_path / "g.graphml")
    back = graph_files.read_graphml(tmp_path / "g.graphml")
    assert list(back.edges(keys=True)) == list(rich.edges(keys=True))
    for name in rich.edges:
        for attribute, value in rich.edges[name].items():
            if isinstance(value, np.ndarray) and attribute not in ("group", "curvature"):
                np.testing.assert_array_equal(back.edges[name][attribute], value)
        assert back.edges[name]["label"] == rich.edges[name]["label"]
    assert back.graph["patient"] == {"age": 61}


@pytest.mark.parametrize("text", ["", "<graphml", "<html></html>"])
def test_what_is_no_graphml_is_refused(tmp_path, text):
    (tmp_path / "x.graphml").write_text(text)
    with pytest.raises(InputError, match=r"x\.graphml"):
        graph_files.read_graphml(tmp_path / "x.graphml")


def test_a_graphml_of_something_else_is_refused(tmp_path):
    nx.write_graphml(nx.path_graph(3), tmp_path / "x.graphml")
    with pytest.raises(InputError, match="without"):
        graph_files.read_graphml(tmp_path / "x.graphml")


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


def test_vtk_reads_arrays_along_branches_and_the_anatomy_of_each(tmp_path, rich):
    graph_files.write_vtp(rich, tmp_path / "g.vtp")
    data = read_vtp(tmp_path / "g.vtp")
    points = data.GetPointData()
    names = {points.GetArrayName(k) for k in range(points.GetNumberOfArrays())}
    assert names == {
        *("radius", "radius_min", "radius_max", "MaximumInscribedSphereRadius"),
        *("curvature", "tangents", "touched", "group"),
    }
    cells = data.GetCellData()
    tables = {cells.GetArrayName(k): vtk_to_numpy(cells.GetArray(k)) for k in range(cells.GetNumberOfArrays())}
    rows = {row["branch"]: row for row in branch_table(rich)}
    edges = list(rich.edges(data=True))
    for cell in range(data.GetNumberOfCells()):
        ids = [data.GetCell(cell).GetPointId(k) for k in range(data.GetCell(cell).GetNumberOfPoints())]
        branch = tables["branch"][cell]
        if branch < 0:
            assert np.isnan(vtk_to_numpy(points.GetArray("curvature"))[ids]).all()
            assert tables["parent"][cell] == -1
            assert np.isnan(tables["volume_mm3"][cell])
            continue
        edge, row = edges[branch][2], rows[branch]
        assert np.array_equal(vtk_to_numpy(points.GetArray("tangents"))[ids], edge["tangents"])
        assert np.array_equal(vtk_to_numpy(points.GetArray("curvature"))[ids], edge["curvature"], equal_nan=True)
        assert np.isnan(vtk_to_numpy(points.GetArray("group"))[ids]).all() == ("group" not in edge)
        for name in ("generation", "strahler_order", "closes_loop", "parent"):
            assert tables[name][cell] == (-1 if row[name] is None else row[name])
        for name in ("radius_mean_mm", "tortuosity", "volume_mm3", "stenosis"):
            assert tables[name][cell] == row[name] or (row[name] is None and np.isnan(tables[name][cell]))


def test_our_vtp_reads_back_with_its_loops_lengths_and_radii(tmp_path, graph):
    graph_files.write_vtp(graph, tmp_path / "g.vtp")
    back = graph_files.read_vtp(tmp_path / "g.vtp")
    assert betti(back) == betti(graph) == (3, 3)
    assert sorted(d for _, d in back.degree) == sorted(d for _, d in graph.degree)
    assert total_length(back) == pytest.approx(total_length(graph), rel=1e-12)
    for name in ("radii", "radii_min", "radii_max"):
        ours, theirs = (
            sorted(tuple(sorted(edge[name])) for *_, edge in any_graph.edges(data=True)) for any_graph in (graph, back)
        )
        assert ours == theirs


def write_lines(path, points, lines, radii=None, name="Radius"):
    """Lines as other software writes them, by VTK: compressed, single precision."""
    data, places, cells = vtkPolyData(), vtkPoints(), vtkCellArray()
    for point in points:
        places.InsertNextPoint(*point)
    for line in lines:
        cells.InsertNextCell(len(line), line)
    data.SetPoints(places)
    data.SetLines(cells)
    if radii is not None:
        array = numpy_to_vtk(np.array(radii, dtype=float), deep=True)
        array.SetName(name)
        data.GetPointData().AddArray(array)
    writer = vtkXMLPolyDataWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(data)
    writer.Write()


def test_lines_that_run_together_are_one_branch(tmp_path):
    """As VMTK writes centrelines: each from the inlet to an outlet, the common way repeated."""
    points = [(0, 0, 0), (5, 0, 0), (9, 3, 0), (0, 0, 0), (5, 0, 0), (9, -4, 0), (77, 0, 0)]
    write_lines(tmp_path / "g.vtp", points, [[0, 1, 2], [3, 4, 5]], [2, 1.5, 1, 2, 1.5, 0.5, 9])
    graph = graph_files.read_vtp(tmp_path / "g.vtp")
    assert sorted(d for _, d in graph.degree) == [1, 1, 1, 3]
    assert total_length(graph) == pytest.approx(5 + 5 + np.hypot(4, 4))
    assert graph.nodes[graph.graph["root"]]["pos"].tolist() == [0, 0, 0]


def test_points_near_each_other_are_joined_on_request(tmp_path):
    points = [(0, 0, 0), (5, 0, 0), (5, 0.01, 0), (9, 3, 0)]
    write_lines(tmp_path / "g.vtp", points, [[0, 1], [2, 3]], [1.0] * 4)
    assert betti(graph_files.read_vtp(tmp_path / "g.vtp")) == (2, 0)
    assert betti(graph_files.read_vtp(tmp_path / "g.vtp", merge=0.02)) == (1, 0)


def test_what_is_no_file_of_centrelines_is_refused(tmp_path):
    write_lines(tmp_path / "g.vtp", [(0, 0, 0), (1, 0, 0)], [[0, 1]], [1, 1], "Diameter")
    with pytest.raises(InputError, match=r"g\.vtp: no point array radius or .* among \['Diameter'\]"):
        graph_files.read_vtp(tmp_path / "g.vtp")
    assert betti(graph_files.read_vtp(tmp_path / "g.vtp", radius="Diameter")) == (1, 0)
    write_lines(tmp_path / "n.vtp", [(0, 0, 0), (1, 0, np.nan)], [[0, 1]], [1, 1])
    with pytest.raises(InputError, match="not finite"):
        graph_files.read_vtp(tmp_path / "n.vtp")
    (tmp_path / "x.vtp").write_text("solid")
    with pytest.raises(InputError, match="no VTK XML polydata"):
        graph_files.read_vtp(tmp_path / "x.vtp")
    whole = (tmp_path / "g.vtp").read_bytes()
    (tmp_path / "c.vtp").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"c\.vtp"):
        graph_files.read_vtp(tmp_path / "c.vtp")
    with pytest.raises(InputError, match="no such file"):
        graph_files.read_vtp(tmp_path / "none.vtp")


def test_vmtks_centreline_of_an_aorta_is_a_fork(shared_data):
    graph = graph_files.read_vtp(shared_data / "aorta" / "aorta-centerline.vtp")
    assert sorted(d for _, d in graph.degree) == [1, 1, 1, 3]
    assert 0.5 * max(r for _, r in graph.nodes(data="radius")) > 1


def test_the_microvessel_network_has_five_parts_and_four_loops(shared_data):
    graph = graph_files.read_vtp(shared_data / "microvessel" / "tapmeier_network.vtp")
    assert betti(graph) == (5, 4)


@pytest.mark.parametrize("some", [slice(0, 3), pytest.param(slice(3, None), marks=pytest.mark.slow)])
def test_traced_cerebral_arteries_are_one_tree_each(shared_data, some):
    for path in sorted((shared_data / "brava").glob("*.swc"))[some]:
        graph = graph_files.read_swc(path)
        samples = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
        place = {row[0]: np.array(row[2:5], dtype=float) for row in samples}
        expected = sum(np.linalg.norm(place[row[0]] - place[row[6]]) for row in samples if row[6] != "-1")
        assert total_length(graph) == pytest.approx(expected, rel=1e-9)
        assert betti(graph) == (1, 0)
        assert graph.number_of_edges() < len(samples) / 4
        radii = np.concatenate([edge["radii"] for *_, edge in graph.edges(data=True)])
        assert 0.1 < radii.min() < 0.5 < 1.2 < radii.max() < 3  # mm: cerebral arteries


def test_a_traced_tree_comes_back_the_same_from_our_swc(tmp_path, shared_data):
    graph = graph_files.read_swc(shared_data / "brava" / "BG001records.swc")
    graph_files.write_swc(graph, tmp_path / "again.swc")
    again = graph_files.read_swc(tmp_path / "again.swc")
    assert total_length(again) == pytest.approx(total_length(graph), rel=1e-12)
    assert sorted(d for _, d in again.degree) == sorted(d for _, d in graph.degree)
