"""VMTK's centrelines: what its tools rely on, read by VTK."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

from vesselsdf.anatomy import measure
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.export.vmtk import write_vmtk
from vesselsdf.graph_files import read_vtp


def read(path):
    """Lines (n, 4) with radii, and cell arrays."""
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    content = reader.GetOutput()
    radius = content.GetPointData().GetArray("MaximumInscribedSphereRadius")
    rows = np.c_[vtk_to_numpy(content.GetPoints().GetData()), vtk_to_numpy(radius)]
    offsets = vtk_to_numpy(content.GetLines().GetOffsetsArray())
    cells = content.GetCellData()
    arrays = {cells.GetArrayName(k): vtk_to_numpy(cells.GetArray(k)) for k in range(cells.GetNumberOfArrays())}
    return np.split(rows, offsets[1:-1]), arrays


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    output = tmp_path_factory.mktemp("vmtk")
    assert main(["export", "vmtk", str(result), "-o", str(output)]) == 0
    return output


def test_each_line_leads_from_a_root_to_an_end(folder, made):
    lines, arrays = read(folder / "centrelines.vtp")
    graph, trees = made.graph, measure(made.graph).forest
    ends = [node for node in graph if graph.degree(node) == 1 and sum(branch.length for branch in trees.path(node))]
    assert len(lines) == len(ends) == len(arrays["CenterlineIds"]) > 5
    for line, end in zip(lines, ends, strict=True):
        way = trees.path(end)
        assert np.allclose(line[0, :3], graph.nodes[way[0].proximal]["pos"], atol=1e-9)
        assert np.allclose(line[-1, :3], graph.nodes[end]["pos"], atol=1e-9)
        length = np.linalg.norm(np.diff(line[:, :3], axis=0), axis=1).sum()
        assert length == pytest.approx(sum(branch.length for branch in way), rel=1e-6)


def test_tracts_of_a_line_follow_each_other_branches_and_bifurcations_in_turn(folder):
    lines, arrays = read(folder / "branches.vtp")
    assert set(arrays) == {"CenterlineIds", "TractIds", "GroupIds", "Blanking"}
    whole, _ = read(folder / "centrelines.vtp")
    for number in np.unique(arrays["CenterlineIds"]):
        own = np.flatnonzero(arrays["CenterlineIds"] == number)
        assert arrays["TractIds"][own].tolist() == list(range(len(own)))
        assert arrays["Blanking"][own].tolist() == [k % 2 for k in range(len(own))]
        for before, after in pairwise(own):
            assert np.allclose(lines[before][-1], lines[after][0], atol=1e-9)
        joined = np.concatenate([lines[own[0]][:1], *(lines[k][1:] for k in own)])
        assert np.array_equal(joined, whole[number])


def test_groups_are_branches_and_bifurcations(folder, made):
    """Tracts of one branch are the same, whatever the line; those of a bifurcation meet in its node."""
    lines, arrays = read(folder / "branches.vtp")
    graph = made.graph
    inside = {branch.number for branch in measure(graph).forest.branches if not branch.closes_loop}
    assert set(arrays["GroupIds"][arrays["Blanking"] == 0]) <= inside
    for group in np.unique(arrays["GroupIds"]):
        own = np.flatnonzero(arrays["GroupIds"] == group)
        assert len(set(arrays["Blanking"][own])) == 1
        if arrays["Blanking"][own[0]] == 0:
            assert all(np.array_equal(lines[k], lines[own[0]]) for k in own)
        else:
            place = graph.nodes[list(graph)[group - graph.number_of_edges()]]["pos"]
            assert all(np.abs(lines[k][:, :3] - place).max(axis=1).min() < 1e-9 for k in own)


def test_vmtk_lines_read_as_the_tree_they_came_from(folder, made):
    """Our reader of VMTK's files joins the lines again: as many ends and loops less than the graph."""
    found = read_vtp(folder / "centrelines.vtp")
    graph = made.graph
    kept = nx.MultiGraph()
    edges = list(graph.edges(data=True))
    for branch in measure(graph).forest.branches:
        if not branch.closes_loop and edges[branch.number][2]["length"] > 0:
            kept.add_edge(branch.proximal, branch.distal)
    assert nx.number_connected_components(found) == nx.number_connected_components(kept)
    assert found.number_of_edges() - found.number_of_nodes() == kept.number_of_edges() - kept.number_of_nodes()


def test_radii_are_those_of_inscribed_balls(folder, made):
    lines, _ = read(folder / "centrelines.vtp")
    known = np.concatenate([edge["radii_min"] for *_, edge in made.graph.edges(data=True)])
    radii = np.concatenate(lines)[:, 3]
    assert known.min() - 1e-12 <= radii.min()
    assert radii.max() <= known.max() + 1e-12


def test_a_ring_has_no_line(tmp_path):
    graph = nx.MultiGraph()
    angle = np.linspace(0, 2 * np.pi, 20)
    points = np.stack([5 * np.cos(angle), 5 * np.sin(angle), angle * 0], axis=1)
    graph.add_node(0, pos=points[0], radius=1.0)
    graph.add_edge(0, 0, start=0, points=points, radii=np.ones(20), length=31.4)
    with pytest.raises(InputError, match="no way from a root to an end"):
        write_vmtk(graph, tmp_path)
