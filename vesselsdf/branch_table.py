"""Anatomy as tables: one row per branch, per bifurcation, and per way from a root to a terminal; CSV.

The names of columns carry their units. Missing values (the parent of a branch at a root, say) are None in the rows and
empty cells in the files. Numbers of trees, branches and nodes start at 0; a branch has the number of its edge among
`graph.edges`, which is also the cell array `branch` of the VTP file.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.anatomy import Anatomy, bifurcations, measure, terminals
from vesselsdf.branch_shape import narrowing, part, slope, sum_of_angles, tortuosity, volume, wall_area
from vesselsdf.files import write_text
from vesselsdf.rooted import Branch

Row = dict[str, Any]


def branch_table(graph: nx.MultiGraph) -> list[Row]:
    """One row per branch, sorted by tree (longest first), generation, and distance from the root.

    Columns:
        tree, branch: numbers. parent: number of the branch that this one follows, None at a root.
        generation: junctions between the root and the branch. strahler_order: None of a branch that closes a loop.
        terminal, closes_loop: 0 or 1. Loops: see `vesselsdf.anatomy`.
        proximal_node, distal_node: the end nearer to the root, and the other. proximal_degree, distal_degree: branches
            that meet there.
        root_distance_mm: way from the root to the proximal end. length_mm, chord_mm: along the branch, and straight.
        tortuosity: length / chord, None of a self-loop. sum_of_angles_rad_per_mm: Bullitt et al. 2003.
        radius_mean_mm, radius_max_mm, taper_mm_per_mm (slope of the radius; below 0 it narrows away from the root): of
            the part that is clear of junctions (`vesselsdf.branch_shape`), clear_length_mm long.
        radius_min_mm: of the whole branch (junctions only widen it), at narrowest_x_mm, _y_mm, _z_mm.
        stenosis: depth of the deepest narrowing, 0 to 1, see `branch_shape.narrowing`.
        volume_mm3, wall_mm2: of the truncated cones along the whole branch.
        proximal_x_mm to distal_z_mm: places of the two ends, RAS.
    """
    anatomy = measure(graph)
    return [branch_row(anatomy, branch) for branch in anatomy.forest.branches]


def branch_row(anatomy: Anatomy, branch: Branch) -> Row:
    """The row of one branch; see `branch_table`."""
    graph, arc = anatomy.graph, anatomy.arcs[branch.number]
    first, last = anatomy.clear[branch.number]
    clear_arc, clear_radii = part(arc, branch.radii, first, last)
    mean, narrowest = anatomy.radii[branch.number], int(branch.radii.argmin())
    return {
        "tree": branch.tree,
        "branch": branch.number,
        "parent": branch.parent,
        "generation": branch.generation,
        "strahler_order": branch.order,
        "terminal": int(graph.degree(branch.distal) == 1),
        "closes_loop": int(branch.closes_loop),
        "proximal_node": branch.proximal,
        "distal_node": branch.distal,
        "proximal_degree": graph.degree(branch.proximal),
        "distal_degree": graph.degree(branch.distal),
        "root_distance_mm": branch.root_distance,
        "length_mm": branch.length,
        "chord_mm": float(np.linalg.norm(branch.points[-1] - branch.points[0])),
        "tortuosity": tortuosity(branch.points, branch.length),
        "sum_of_angles_rad_per_mm": sum_of_angles(branch.points, mean),
        "radius_mean_mm": mean,
        "radius_min_mm": float(branch.radii[narrowest]),
        "radius_max_mm": float(clear_radii.max()),
        "taper_mm_per_mm": slope(clear_arc, clear_radii),
        "stenosis": narrowing(branch.radii)[0],
        "clear_length_mm": last - first,
        "volume_mm3": volume(arc, branch.radii),
        "wall_mm2": wall_area(arc, branch.radii),
        **place_columns("proximal", branch.points[0]),
        **place_columns("distal", branch.points[-1]),
        **place_columns("narrowest", branch.points[narrowest]),
    }


def bifurcation_table(graph: nx.MultiGraph) -> list[Row]:
    """One row per junction; see `anatomy.bifurcations`. `children` and `loop_branches` are lists of numbers."""
    rows = []
    for fork in bifurcations(measure(graph)):
        radii = [*fork["child_radii"], None, None]
        rows.append(
            {
                **{key: fork[key] for key in ("tree", "node", "generation")},
                "root_distance_mm": fork["root_distance"],
                **{key: fork[key] for key in ("parent", "children", "loop_branches")},
                "parent_radius_mm": fork["parent_radius"],
                "major_radius_mm": radii[0],
                "minor_radius_mm": radii[1],
                **{key: fork[key] for key in ("murray_exponent", "murray_reason", "area_ratio", "asymmetry")},
                **{f"{name}_angle_deg": fork[f"{name}_angle"] for name in ("major", "minor", "between")},
                **place_columns("", fork["place"]),
            }
        )
    return rows


def terminal_table(graph: nx.MultiGraph) -> list[Row]:
    """One row per terminal, with the way from its root; see `anatomy.terminals`."""
    return [
        {
            **{key: end[key] for key in ("tree", "node", "branch", "generation")},
            "length_mm": end["length"],
            "chord_mm": end["chord"],
            "radius_min_mm": end["minimum_radius"],
            "stenosis": end["stenosis"],
            **place_columns("", end["place"]),
            **place_columns("narrowest", end["narrowest_place"]),
            **place_columns("stenosis", end["stenosis_place"]),
        }
        for end in terminals(measure(graph))
    ]


def place_columns(name: str, place: Any) -> Row:
    """A place (mm) as three columns.

    >>> place_columns("distal", [1.0, 2.0, 3.0])
    {'distal_x_mm': 1.0, 'distal_y_mm': 2.0, 'distal_z_mm': 3.0}
    """
    return {f"{name}_{axis}_mm".lstrip("_"): float(c) for axis, c in zip("xyz", place, strict=True)}


def write_branches(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write `branch_table` as CSV. A graph without branches gives a file without rows, but with its header."""
    write_csv(path, branch_table(graph), columns_of(branch_table))


def write_bifurcations(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write `bifurcation_table` as CSV; the numbers in `children` and `loop_branches` are separated by blanks."""
    write_csv(path, bifurcation_table(graph), columns_of(bifurcation_table))


def write_terminals(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write `terminal_table` as CSV."""
    write_csv(path, terminal_table(graph), columns_of(terminal_table))


def columns_of(table: Callable[[nx.MultiGraph], list[Row]]) -> list[str]:
    """The columns of a table: those of a small fork, so that a table without rows has them too."""
    fork = nx.MultiGraph(roots=[0])
    for node, place in enumerate([(0, 0, 0), (4, 0, 0), (7, 4, 0), (7, -4, 0)]):
        fork.add_node(node, pos=np.array(place, dtype=np.float64), radius=1.0)
    for u, v in ((0, 1), (1, 2), (1, 3)):
        points = np.stack([fork.nodes[u]["pos"], fork.nodes[v]["pos"]])
        length = float(np.linalg.norm(points[1] - points[0]))
        fork.add_edge(u, v, start=u, points=points, radii=np.ones(2), length=length)
    return list(table(fork)[0])


def write_csv(path: str | Path, rows: list[Row], columns: list[str]) -> None:
    """Write rows as comma-separated values with a header: seven digits, decimal points, missing values empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[cell(row[name]) for name in columns] for row in rows])
    write_text(path, stream.getvalue())


def cell(value: Any) -> Any:
    """A value as it stands in a cell.

    >>> [cell(value) for value in (None, 12, 1 / 3, [4, 5], "why")]
    ['', 12, '0.3333333', '4 5', 'why']
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(str(item) for item in value)
    return f"{value:.7g}" if isinstance(value, float) else value
