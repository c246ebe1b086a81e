"""Centrelines as VMTK has them: a line from the inlet to each outlet, whole, and cut into branches and bifurcations.

VMTK (Antiga et al. 2008) knows no graph. `vmtkcenterlines` gives one line per outlet, all of which begin at the inlet;
`vmtkbranchextractor` cuts each into tracts. Tracts of several lines that run through the same branch or the same
bifurcation form a group; those of bifurcations are blanked. A loop cannot be said that way.
"""

from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.anatomy import Anatomy, measure
from vesselsdf.branch_shape import part
from vesselsdf.errors import InputError
from vesselsdf.graph_files.vtp import VMTK_RADIUS
from vesselsdf.rooted import Branch, first_node
from vesselsdf.vtk_xml import write_polydata

WHOLE, TRACTS = "centrelines.vtp", "branches.vtp"
MOST = 20_000_000
"""Points at most: every line repeats the way from its inlet."""


@dataclass(frozen=True)
class Tract:
    """A stretch of a centreline. rows: (n, 4) place in mm and radius of the largest ball inside."""

    rows: Float[np.ndarray, "n 4"]
    group: int
    blanked: bool


def write_vmtk(graph: nx.MultiGraph, folder: str | Path) -> tuple[int, int]:
    """Write `centrelines.vtp` and `branches.vtp`, RAS mm; returns the number of lines and of branches left out.

    Both have the point array `MaximumInscribedSphereRadius`. Of `branches.vtp` every cell is a tract with the arrays
    `CenterlineIds` (number of its line), `TractIds` (its place along it, from 0), `GroupIds` (of a branch its number in
    `branches.csv`; of bifurcations numbers beyond) and `Blanking` (1 in a bifurcation: from where the branches that
    meet are clear of each other, see `branch_shape`). Branches that close a loop are left out. Raises `InputError` for
    a graph without a way from a root to an end, or of too many.
    """
    anatomy = measure(graph)
    lines = centrelines(anatomy)
    if not lines:
        raise InputError("There is no way from a root to an end in this result, so VMTK has nothing to read.")
    if (points := sum(len(tract.rows) for line in lines for tract in line)) > MOST:
        raise InputError(f"VMTK's lines would have {points} points, as each begins at its root: export a smaller part.")
    whole = [np.concatenate([line[0].rows[:1], *(tract.rows[1:] for tract in line)]) for line in lines]
    _write(Path(folder) / WHOLE, whole, {"CenterlineIds": np.arange(len(lines))})
    cells = [(number, place, tract) for number, line in enumerate(lines) for place, tract in enumerate(line)]
    arrays = {
        "CenterlineIds": np.array([number for number, _, _ in cells]),
        "TractIds": np.array([place for _, place, _ in cells]),
        "GroupIds": np.array([tract.group for *_, tract in cells]),
        "Blanking": np.array([int(tract.blanked) for *_, tract in cells]),
    }
    _write(Path(folder) / TRACTS, [tract.rows for *_, tract in cells], arrays)
    return len(lines), sum(branch.closes_loop for branch in anatomy.forest.branches)


def centrelines(anatomy: Anatomy) -> list[list[Tract]]:
    """The tracts of the way from its root to each end, in the order of ends; the first begins at the root."""
    graph, trees = anatomy.graph, anatomy.forest
    # Bifurcations are numbered behind the branches.
    junctions = {node: graph.number_of_edges() + k for k, node in enumerate(graph)}
    edges = list(graph.edges(data=True))
    rows = {branch.number: _rows(graph, edges[branch.number], branch) for branch in trees.branches}
    lines = []
    for end in graph:
        way = trees.path(end)
        if graph.degree(end) != 1 or not sum(branch.length for branch in way) > 0:
            continue
        line: list[Tract] = []
        before = np.zeros((0, 4))
        for place, branch in enumerate(way):
            arc, length = anatomy.arcs[branch.number], float(anatomy.arcs[branch.number][-1])
            first, last = anatomy.clear[branch.number]
            first, last = first if place else 0.0, last if branch is not way[-1] else length
            if place:
                into = _cut(arc, rows[branch.number], 0.0, first)
                line.append(Tract(np.concatenate([before, into[1:]]), junctions[branch.proximal], True))
            line.append(Tract(_cut(arc, rows[branch.number], first, last), branch.number, False))
            before = _cut(arc, rows[branch.number], last, length)
        lines.append(line)
    return lines


def _rows(graph: nx.MultiGraph, edge: tuple, branch: Branch) -> Float[np.ndarray, "n 4"]:
    """Places and inscribed radii of a branch, from its proximal end on."""
    u, v, data = edge
    radii = np.asarray(data.get("radii_min", data["radii"]), dtype=np.float64)
    forwards = first_node(graph, u, v, data) == branch.proximal
    return np.column_stack([branch.points, radii if forwards else radii[::-1]])


def _cut(
    arc: Float[np.ndarray, " n"], rows: Float[np.ndarray, "n 4"], first: float, last: float
) -> Float[np.ndarray, "m 4"]:
    """The rows between two places along a branch, both included."""
    return part(arc, rows, first, last)[1]


def _write(path: Path, lines: list[np.ndarray], cells: dict[str, np.ndarray]) -> None:
    rows = np.concatenate(lines)
    sizes = np.array([len(line) for line in lines], dtype=np.int64)
    polylines = {"Lines": (np.arange(len(rows), dtype=np.int64), sizes)}
    integers = {name: values.astype(np.int32) for name, values in cells.items()}
    write_polydata(path, rows[:, :3], polylines, {VMTK_RADIUS: rows[:, 3]}, integers)
