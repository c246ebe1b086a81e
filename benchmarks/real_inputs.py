"""The real data of `real_geometry.py` as fields: masks, a level set, and networks of tubes brought onto a grid."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
THINNEST = 0.87  # voxels; a ball of this radius holds a voxel centre wherever it lies
MARGIN = 5  # voxels of background around a network


@dataclass(frozen=True)
class Input:
    """A field in mm (or the unit of its source), and the tubes it was made from where they are known."""

    sdf: np.ndarray
    affine: np.ndarray
    tubes: nx.MultiGraph | None = None


def level_set(path: str, again: bool) -> Input:
    """VMTK's level set: negative inside, clipped 4 voxels from the wall, in the frame of its surface.

    `again`: made a distance everywhere, with its zero set in its place.
    """
    from vesselsdf import read_volume
    from vesselsdf.distance import redistance

    volume = read_volume(DATA / path)
    return Input(redistance(volume.array, volume.spacing) if again else volume.array, volume.affine)


def polydata(path: Path):
    """A VTP file."""
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def point_array(data, name: str | None = None) -> np.ndarray:
    """The points of polydata, or values at them."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    stored = data.GetPoints().GetData() if name is None else data.GetPointData().GetArray(name)
    return vtk_to_numpy(stored).astype(float)


def microvessels(path: str, scale: float) -> nx.MultiGraph:
    """A network of lines with radii (micrometres), whose lines are joined where their points coincide."""
    data = polydata(DATA / path)
    pairs = []
    for k in range(data.GetNumberOfCells()):
        cell = data.GetCell(k)
        pairs += pairwise(cell.GetPointId(i) for i in range(cell.GetNumberOfPoints()))
    return merged_lines(point_array(data), point_array(data, "Radius") * scale, pairs)


def traced_tree(path: str) -> nx.MultiGraph:
    """An SWC file in mm. A record names its parent, the radius is its own; branches begin along those they leave."""
    rows = np.loadtxt(DATA / path, comments="#")
    number = {int(row[0]): k for k, row in enumerate(rows)}
    pairs = [(number[int(row[6])], k) for k, row in enumerate(rows) if row[6] > 0]
    return merged_lines(rows[:, 2:5], rows[:, 5], pairs)


def merged_lines(points: np.ndarray, radii: np.ndarray, pairs: list) -> nx.MultiGraph:
    """Branches of a network given by pairs of points: points that coincide are one, with the larger radius."""
    _, first, same = np.unique(np.round(points, 3), axis=0, return_index=True, return_inverse=True)
    same, radius = same.ravel(), np.zeros(len(first))
    np.maximum.at(radius, same, radii)
    lines = nx.Graph()
    lines.add_edges_from((int(same[a]), int(same[b])) for a, b in pairs if same[a] != same[b])
    return branches_of(lines, points[first], radius)


def branches_of(lines: nx.Graph, points: np.ndarray, radii: np.ndarray) -> nx.MultiGraph:
    """Chains of points between ends and junctions as edges, with our attributes. Plain rings are not handled."""
    from geometry_peers import chains

    graph = nx.MultiGraph()
    for chain in chains(lines):
        for node in (chain[0], chain[-1]):
            graph.add_node(node, pos=points[node], radius=float(radii[node]))
        length = float(np.linalg.norm(np.diff(points[chain], axis=0), axis=1).sum())
        graph.add_edge(chain[0], chain[-1], start=chain[0], points=points[chain], radii=radii[chain], length=length)
    return graph


def on_grid(graph: nx.MultiGraph, spacing: float) -> Input:
    """The exact distance of tubes on a grid around them; radii are raised to the least that the grid can show."""
    from vesselsdf.distance import tube_distance

    for _, node in graph.nodes(data=True):
        node["radius"] = max(node["radius"], THINNEST * spacing)
    for *_, edge in graph.edges(data=True):
        edge["radii"] = np.maximum(edge["radii"], THINNEST * spacing)
    points = np.concatenate([edge["points"] for *_, edge in graph.edges(data=True)])
    radii = np.concatenate([edge["radii"] for *_, edge in graph.edges(data=True)])
    low = (points - radii[:, None]).min(axis=0) - MARGIN * spacing
    high = (points + radii[:, None]).max(axis=0) + MARGIN * spacing
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    return Input(tube_distance(graph, shape, affine, band=12 * spacing), affine, graph)
