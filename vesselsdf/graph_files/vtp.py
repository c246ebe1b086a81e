"""Centreline graphs as VTK polydata: written for VTK, ParaView, 3D Slicer and VMTK, and read from any of them."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.branch_table import branch_table
from vesselsdf.errors import InputError
from vesselsdf.graph_files.samples import graph_of_samples
from vesselsdf.rooted import first_node
from vesselsdf.skeleton import WIDTHS
from vesselsdf.vtk_xml import write_polydata

# Names of the widths in files. VMTK's radius is that of the largest sphere inside the vessel.
WIDTH_NAMES = dict(zip(WIDTHS, ("radius", "radius_min", "radius_max"), strict=True))
VMTK_RADIUS = "MaximumInscribedSphereRadius"
RADIUS_NAMES = ("radius", "radii", VMTK_RADIUS.lower())
# Columns of the branch table that the file holds under VTK's own names, or as points.
ELSEWHERE = ("branch", "length_mm", "proximal_node", "distal_node")


def write_vtp(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the branches as polylines of a VTK XML PolyData file, RAS mm.

    Point arrays, mm: `radius` (of the section's area), `radius_min`, `radius_max` (from its centroid to the nearest and
    the farthest wall; like `radius` where a graph has only that), and `MaximumInscribedSphereRadius`, VMTK's name for
    the smallest; then every other array of the edges with one row per point, NaN where an edge has none. Cell arrays:
    `branch` (number of the edge), `start`, `end` (nodes; their places in the graph if they are no numbers), `length`
    mm, and the columns of `branch_table` except places: missing values are NaN, of whole numbers -1. A node without
    branches is a vertex cell with branch -1.
    """
    edges = list(graph.edges(data=True))
    lonely = list(nx.isolates(graph))
    named = all(isinstance(node, int | np.integer) for node in graph)
    number = {node: node if named else k for k, node in enumerate(graph)}
    starts = [first_node(graph, u, v, edge) for u, v, edge in edges]
    ends = [v if start == u else u for (u, v, _), start in zip(edges, starts, strict=True)]
    vertices = [np.asarray(graph.nodes[node]["pos"], dtype=np.float64)[None] for node in lonely]
    points = np.concatenate([*vertices, *(edge["points"] for *_, edge in edges), np.zeros((0, 3))])
    sizes = np.array([len(edge["points"]) for *_, edge in edges], dtype=np.int64)
    whole = np.arange(len(points), dtype=np.int64)
    # VTK numbers the cells of a PolyData vertices first, then lines.
    cells = {
        "branch": np.array([-1] * len(lonely) + list(range(len(edges))), dtype=np.int64),
        "start": np.array([number[node] for node in lonely + starts], dtype=np.int64),
        "end": np.array([number[node] for node in lonely + ends], dtype=np.int64),
        "length": np.array([0.0] * len(lonely) + [edge["length"] for *_, edge in edges], dtype=np.float64),
        **anatomy_arrays(graph, len(lonely)),
    }
    write_polydata(
        path,
        points,
        {"Verts": (whole[: len(lonely)], np.ones(len(lonely), dtype=np.int64)), "Lines": (whole[len(lonely) :], sizes)},
        point_arrays(graph, lonely, [edge for *_, edge in edges]),
        cells,
    )


def point_arrays(graph: nx.MultiGraph, lonely: list[Any], edges: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays with one row per point of the file: widths, and what else edges have for each of their points."""
    of_nodes = [np.array([graph.nodes[node]["radius"] for node in lonely], dtype=np.float64)]
    arrays = {
        WIDTH_NAMES[name]: np.concatenate([*of_nodes, *(edge.get(name, edge["radii"]) for edge in edges)])
        for name in WIDTHS
    }
    found = {VMTK_RADIUS: arrays["radius_min"], **arrays}
    shapes: dict[str, tuple[int, ...]] = {}
    for edge in edges:
        for name, value in edge.items():
            per_point = isinstance(value, np.ndarray) and value.ndim in (1, 2) and len(value) == len(edge["points"])
            if per_point and value.dtype.kind in "biuf" and name not in ("points", *WIDTHS):
                shapes.setdefault(name, value.shape[1:])
    for name, shape in shapes.items():
        parts = [np.full((len(lonely), *shape), np.nan)]
        for edge in edges:
            value, wanted = edge.get(name), (len(edge["points"]), *shape)
            fits = isinstance(value, np.ndarray) and value.shape == wanted
            parts.append(np.asarray(value, dtype=np.float64) if fits else np.full(wanted, np.nan))
        found[name] = np.concatenate(parts)
    return found


def anatomy_arrays(graph: nx.MultiGraph, lonely: int) -> dict[str, np.ndarray]:
    """The branch table as arrays over the cells: vertices of `lonely` nodes, then branches in the order of edges."""
    rows = sorted(branch_table(graph), key=lambda row: row["branch"])
    arrays = {}
    for name in rows[0] if rows else ():
        if name in ELSEWHERE or name.endswith(("_x_mm", "_y_mm", "_z_mm")):
            continue
        values = [row[name] for row in rows]
        real = any(isinstance(value, float) for value in values)
        missing: float | int = np.nan if real else -1
        filled = [missing] * lonely + [missing if value is None else value for value in values]
        arrays[name] = np.array(filled, dtype=np.float64 if real else np.int64)
    return arrays


def read_vtp(path: str | Path, radius: str | None = None, merge: float | int = 0.0) -> nx.MultiGraph:
    """Read centrelines from VTK polydata: ours, VMTK's, 3D Slicer's or any lines with a radius at each point.

    Lines that share points are joined there, whether they share them by number or by place, and a stretch that several
    lines run along (VMTK's centrelines all begin at the inlet) is one branch. Junctions are where lines meet; loops are
    kept. Roots are the thickest ends. Needs the package `vtk`.

    Args:
        path: a .vtp file, its coordinates taken as RAS mm (VMTK, as ITK, works in LPS: then x and y change sign; a
            file in micrometres has to be scaled).
        radius: name of the point array with the radii, in the unit of the coordinates; None: `radius`, `radii` or
            `MaximumInscribedSphereRadius`, in any case. `radius_min` and `radius_max`, if present, are kept.
        merge: mm; points this close to each other are joined. 0: only points at exactly the same place.

    Raises:
        InputError: no such file, no polydata, no such array, coordinates or radii that are not finite.
    """
    path = Path(path)
    positions, arrays, lines = vtk_lines(path)
    widths = {"radii": chosen_radii(path, arrays, radius)}
    for name in WIDTHS[1:]:
        if WIDTH_NAMES[name] in arrays and radius is None:
            widths[name] = arrays[WIDTH_NAMES[name]]
    if not (np.isfinite(positions).all() and all(np.isfinite(values).all() for values in widths.values())):
        raise InputError(f"{path}: a coordinate or a radius is not finite; correct or remove the point.")
    same = nx.utils.UnionFind(range(len(positions)))
    for group in coincident(positions, float(merge)):
        same.union(*group)
    links = np.concatenate([np.zeros((0, 2), np.int64), *(np.stack([a[:-1], a[1:]], axis=1) for a in lines)])
    place = np.array([same[k] for k in range(len(positions))], dtype=np.int64)
    ends, first = np.unique(np.sort(place[links], axis=1), axis=0, return_index=True)
    links = links[np.sort(first[ends[:, 0] != ends[:, 1]])]
    return graph_of_samples(positions, widths, links, same)


def coincident(positions: np.ndarray, merge: float) -> list[list[int]]:
    """Groups of points at one place, or within `merge` of each other."""
    _, group = np.unique(positions, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(group.ravel()[order])) + 1)
    found = [members.tolist() for members in groups if len(members) > 1]
    if merge > 0:
        from scipy.spatial import cKDTree

        found += cKDTree(positions).query_pairs(merge, output_type="ndarray").tolist()
    return found


def chosen_radii(path: Path, arrays: dict[str, np.ndarray], radius: str | None) -> np.ndarray:
    """The radii among a file's point arrays."""
    wanted = RADIUS_NAMES if radius is None else (radius.lower(),)
    scalars = {name.lower(): values for name, values in arrays.items() if values.ndim == 1}
    for name in wanted:
        if name in scalars:
            return scalars[name]
    raise InputError(
        f"{path}: no point array {' or '.join(wanted)} with one number per point among {sorted(arrays) or 'none'}; "
        "name the array of radii with `radius`."
    )


def vtk_lines(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray], list[np.ndarray]]:
    """Points (n, 3) and point arrays of the lines and vertices of a polydata file, and the point numbers of each."""
    try:
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkCommand
        from vtkmodules.vtkIOXML import vtkXMLPolyDataReader
    except ImportError:
        raise InputError(f"{path}: reading VTK files needs the package vtk; run `pip install vtk`.") from None
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give centrelines as VTK polydata (.vtp).")
    reader = vtkXMLPolyDataReader()
    messages: list[str] = []
    reader.AddObserver(vtkCommand.ErrorEvent, lambda *_: messages.append("error"))
    if not reader.CanReadFile(str(path)):
        raise InputError(f"{path}: this is no VTK XML polydata; give centrelines as .vtp.")
    reader.SetFileName(str(path))
    reader.Update()
    content = reader.GetOutput()
    if messages or content is None:
        raise InputError(f"{path}: VTK cannot read it to its end; write or download it again.")
    points = content.GetPoints()
    count = content.GetNumberOfPoints()
    positions = np.zeros((0, 3)) if not count else vtk_to_numpy(points.GetData()).astype(np.float64)
    data = content.GetPointData()
    arrays = {
        data.GetArrayName(k): vtk_to_numpy(data.GetArray(k)).astype(np.float64)
        for k in range(data.GetNumberOfArrays())
        if data.GetArray(k) is not None
    }
    cells = []
    for kind in (content.GetVerts(), content.GetLines()):
        offsets = vtk_to_numpy(kind.GetOffsetsArray()).astype(np.int64)
        connectivity = vtk_to_numpy(kind.GetConnectivityArray()).astype(np.int64)
        cells += [connectivity[a:b] for a, b in pairwise(offsets) if b > a]
    used, numbers = np.unique(np.concatenate([*cells, np.zeros(0, np.int64)]), return_inverse=True)
    lines = np.split(numbers.ravel(), np.cumsum([len(cell) for cell in cells])[:-1]) if cells else []
    return positions[used], {name: values[used] for name, values in arrays.items()}, lines
