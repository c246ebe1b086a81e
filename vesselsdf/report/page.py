"""One page to look at and to send on: `report.html` of a reconstruction, a single file, with a view in space.

What the page shows is put into it as JSON and as packed arrays (`report.packing`): walls of all levels, centreline, a
coarse copy of the image with the field, tables. Drawing is three.js's and that of the scripts beside this module.
"""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from scipy import ndimage

from vesselsdf.branch_table import branch_table
from vesselsdf.mesh import surface
from vesselsdf.mesh.colours import deepest_ball
from vesselsdf.report.findings import FEATURE_COLUMNS, decisions_table, facts, features_of, figures, sentence
from vesselsdf.report.packing import (
    FACES,
    STEP,
    Parts,
    box_of,
    new_parts,
    packed_lines,
    packed_wall,
    page_of,
    rounded,
    simplified,
    slices,
    to_bytes,
)
from vesselsdf.scales import level_affine
from vesselsdf.volume import Volume

COLUMNS = {
    "branch": "branch", "tree": "tree", "generation": "generation", "strahler_order": "Strahler order",
    "length_mm": "length, mm", "radius_mean_mm": "radius, mm", "radius_min_mm": "narrowest, mm",
    "tortuosity": "tortuosity", "taper_mm_per_mm": "taper", "stenosis": "stenosis", "volume_mm3": "volume, mm3",
}  # fmt: skip


def reconstruction_page(
    title: str,
    levels: Sequence[Float[np.ndarray, "_ _ _"]],
    affine: Float[np.ndarray, "4 4"],
    graph: nx.MultiGraph,
    mesh: trimesh.Trimesh,
    topology: dict[str, Any],
    image: Volume | None = None,
    made: str = "",
) -> str:
    """The page of a reconstruction, as HTML.

    levels: fields, mm, finest first; `affine`, `graph`, `mesh`: of the finest. topology: the report on all of them.
    image: what it was made from, for the slices. made: how, for the foot of the page.

    Raises InputError where the package was not built with three.js.
    """
    parts = new_parts()
    rows = branch_table(graph)
    owners = Owners(graph)
    of_branches = values(graph, rows, levels, affine)
    field = Volume(levels[0], affine)
    report = {
        "title": title,
        "sentence": sentence(topology),
        "facts": facts(topology, graph),
        "made": made,
        **box_of(*mesh.bounds),
        "surfaces": walls(parts, levels, affine, mesh, owners, topology),
        "lines": [packed_lines(parts, [edge["points"] for *_, edge in graph.edges(data=True)])],
        "values": of_branches,
        "colours": colours(of_branches, owners.limits, len(levels)),
        "features": features_of(topology),
        "feature_columns": FEATURE_COLUMNS,
        "feature_title": "Lost, merged and invented",
        "tables": [decisions_table(topology), branches(rows)],
        "plots": figures(topology, rows),
        "grid": slices(parts, image, field, [("wall", field)]) if image is not None else None,
    }
    return page_of(report, parts)


class Owners:
    """Which branch each place on the wall belongs to, by power distance (`mesh.colours`), and the radius there."""

    def __init__(self, graph: nx.MultiGraph):
        edges = [edge for *_, edge in graph.edges(data=True)]
        single = [node for _, node in graph.nodes(data=True)] if not edges else []
        self.points = np.concatenate([*(edge["points"] for edge in edges), *(node["pos"][None] for node in single)])
        self.radii = np.concatenate([*(edge["radii"] for edge in edges), *([node["radius"]] for node in single)])
        self.branch = np.repeat(np.arange(len(edges) or 1), [len(e["points"]) for e in edges] or [len(single)])
        low, high = np.percentile(self.radii, (2, 98))
        self.limits = float(low), float(max(high, low + 1e-9))

    def of(self, places: Float[np.ndarray, "n 3"]) -> tuple[Int[np.ndarray, " n"], UInt8[np.ndarray, " n"]]:
        """Branch, and radius between the limits as 0 to 255, of each place."""
        nearest = deepest_ball(places, self.points, self.radii)
        return self.branch[nearest], to_bytes(self.radii[nearest], *self.limits)


def walls(
    parts: Parts,
    levels: Sequence[np.ndarray],
    affine: Float[np.ndarray, "4 4"],
    mesh: trimesh.Trimesh,
    owners: Owners,
    topology: dict[str, Any],
) -> list[dict[str, Any]]:
    """The wall of every level, packed."""
    found = []
    for number, field_ in enumerate(levels):
        wall = mesh if number == 0 else surface(field_, level_affine(affine, number)) if (field_ <= 0).any() else None
        facts_of = topology["levels"]["levels"][number]
        edges = facts_of["spacing"]
        name = f"{number}: {min(edges):.3g} mm"
        about = f"Components, loops, cavities at {min(edges):.3g} mm: {tuple(facts_of['betti'])}."
        vertices, faces = (np.zeros((0, 3)), np.zeros((0, 3), np.int64))
        if wall is not None:
            vertices, faces = simplified(np.asarray(wall.vertices), np.asarray(wall.faces), FACES)
            if len(faces) < len(wall.faces):
                about += f" Shown with {len(faces):,} of {len(wall.faces):,} faces."
        step = float(np.linalg.norm(affine[:3, :3], axis=0).min()) * STEP
        owner, radius = owners.of(vertices) if len(vertices) else (np.zeros(0, int), np.zeros(0, np.uint8))
        packed = packed_wall(parts, vertices, faces, step, {"radius": radius}, owner)
        found.append({"name": name, "sentence": about} | packed)
    return found


def values(
    graph: nx.MultiGraph, rows: list[dict[str, Any]], levels: Sequence[np.ndarray], affine: Float[np.ndarray, "4 4"]
) -> dict[str, list[Any]]:
    """What branches are coloured by, in the order of the graph's edges; -1 where there is none."""
    by_number = {row["branch"]: row for row in rows}
    count = graph.number_of_edges()
    found: dict[str, list[Any]] = {
        "radius": [by_number[k]["radius_mean_mm"] for k in range(count)],
        "order": [
            -1 if by_number[k]["strahler_order"] is None else by_number[k]["strahler_order"] for k in range(count)
        ],
        "generation": [by_number[k]["generation"] for k in range(count)],
        "fate": fates(graph, levels, affine),
    }
    return found


def fates(graph: nx.MultiGraph, levels: Sequence[np.ndarray], affine: Float[np.ndarray, "4 4"]) -> list[int]:
    """For each branch the first level whose vessel holds less than half of its length; their number if none."""
    result = np.full(graph.number_of_edges(), len(levels))
    for number in range(len(levels) - 1, 0, -1):
        inverse = np.linalg.inv(level_affine(affine, number))
        for k, (*_, edge) in enumerate(graph.edges(data=True)):
            index = edge["points"] @ inverse[:3, :3].T + inverse[:3, 3]
            inside = ndimage.map_coordinates(levels[number], index.T, order=1, mode="nearest") <= 0
            if inside.mean() < 0.5:
                result[k] = number
    return result.tolist()


def colours(found: dict[str, list[Any]], limits: tuple[float, float], levels: int) -> list[dict[str, Any]]:
    """The ways to colour, as the page offers them."""
    orders = max([1, *found["order"]])
    generations = [value for value in found["generation"] if value >= 0]
    return [
        {"key": "radius", "name": "radius, mm", "low": limits[0], "high": limits[1]},
        {"key": "order", "name": "Strahler order", "low": 1, "high": max(orders, 2)},
        {"key": "generation", "name": "generation", "low": 0, "high": max([1, *generations])},
        {
            "key": "fate",
            "name": "lost at level",
            "names": ["", *(str(number) for number in range(1, levels)), "at none"],
        },
    ]


def branches(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table of branches, and where each is."""
    rows = sorted(rows, key=lambda row: row["branch"])
    places = [[(row[f"proximal_{axis}_mm"] + row[f"distal_{axis}_mm"]) / 2 for axis in "xyz"] for row in rows]
    return {
        "key": "branch",
        "title": "Branches",
        "columns": [{"name": name} for name in COLUMNS.values()],
        "rows": [[rounded(row[key]) for key in COLUMNS] for row in rows],
        "places": places,
        "said": [f"branch {row['branch']}" for row in rows],
        "file": "branches.csv",
    }
