"""One page to look at and to send on: `report.html`, a single file that needs nothing else, with a view in space.

What the page shows is put into it as JSON and as packed arrays (gzip, base64): walls of all levels, centreline, a
coarse copy of the image with the field, tables. Drawing is three.js's and that of the scripts beside this module.
"""

import base64
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy import ndimage

from vesselsdf.branch_table import branch_table
from vesselsdf.errors import InputError
from vesselsdf.files import jsonable, write_text
from vesselsdf.mesh import surface
from vesselsdf.mesh.colours import deepest_ball
from vesselsdf.report.findings import decisions_table, facts, features_of, figures, sentence
from vesselsdf.scales import level_affine
from vesselsdf.volume import Volume

PAGE = Path(__file__).parent / "viewer"
THREE = Path(__file__).parent / "three"
SCRIPTS = ("viewer.js", "space.js", "main.js")
LIBRARY = ("three.core.min.js", "three.module.min.js", "OrbitControls.js")
FACES = 200_000
"""Of a wall that is shown as it is; larger ones are made simpler for the page."""
GRID = 144
"""Voxels along the longest edge of the slices' image."""
GRAY = (0.5, 99.8)
"""Percentiles of the image that are black and white."""
STEP = 1 / 16
"""Vertices are kept to so much of the finest voxel."""
COLUMNS = {
    "branch": "branch", "tree": "tree", "generation": "generation", "strahler_order": "Strahler order",
    "length_mm": "length, mm", "radius_mean_mm": "radius, mm", "radius_min_mm": "narrowest, mm",
    "tortuosity": "tortuosity", "taper_mm_per_mm": "taper", "stenosis": "stenosis", "volume_mm3": "volume, mm3",
}  # fmt: skip


@dataclass
class Parts:
    """Arrays and texts of the page, packed."""

    scripts: list[str] = field(default_factory=list)

    def add(self, data: np.ndarray | bytes, name: str | None = None) -> str:
        """Keep an array (or bytes) under a name, which is returned."""
        name = name or str(len(self.scripts))
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        packed = base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()
        self.scripts.append(f'<script type="text/plain" id="part-{name}">{packed}</script>')
        return name


def available() -> bool:
    """Whether the package was built with its viewer."""
    return all((THREE / name).is_file() for name in LIBRARY)


def write_page(
    path: str | Path,
    title: str,
    levels: Sequence[Float[np.ndarray, "_ _ _"]],
    affine: Float[np.ndarray, "4 4"],
    graph: nx.MultiGraph,
    mesh: trimesh.Trimesh,
    topology: dict[str, Any],
    image: Volume | None = None,
    made: str = "",
) -> None:
    """Write the page of a reconstruction, atomically.

    levels: fields, mm, finest first; `affine`, `graph`, `mesh`: of the finest. topology: the report on all of them.
    image: what it was made from, for the slices. made: how, for the foot of the page.

    Raises InputError where the package was not built with three.js.
    """
    if not available():
        raise InputError(f"three.js is not in {THREE}: install the package again (`pip install .`) with a network.")
    parts = Parts()
    for name in LIBRARY:
        parts.add((THREE / name).read_bytes(), name)
    rows = branch_table(graph)
    owners = Owners(graph)
    low, high = mesh.bounds
    report = {
        "title": title,
        "sentence": sentence(topology),
        "facts": facts(topology, graph),
        "made": made,
        "centre": (low + high) / 2,
        "half": np.maximum(high - low, 1e-6) / 2,
        "size": float(np.linalg.norm(high - low)) / 2,
        "levels": walls(parts, levels, affine, mesh, owners, topology),
        "lines": centreline(parts, graph),
        "colours": [],
        "values": values(graph, rows, levels, affine),
        "features": features_of(topology),
        "decisions": decisions_table(topology),
        "branches": branches(rows),
        "plots": figures(topology, rows),
        "grid": slices(parts, image, levels[0], affine) if image is not None else None,
    }
    report["colours"] = colours(report["values"], owners.limits, len(levels))
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    for key, text in {
        "title": html.escape(title),
        "style": (PAGE / "page.css").read_text(encoding="utf-8"),
        "report": json.dumps(jsonable(report)).replace("</", "<\\/"),
        "parts": "\n".join(parts.scripts),
        "script": "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }.items():
        page = page.replace("{{" + key + "}}", text)
    write_text(path, page)


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
        low, high = self.limits
        share = ((self.radii[nearest] - low) / (high - low)).clip(0, 1)
        return self.branch[nearest], np.rint(255 * share).astype(np.uint8)


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
        step, low = float(np.linalg.norm(affine[:3, :3], axis=0).min()) * STEP, mesh.bounds[0]
        packed = np.rint((vertices - low) / step).astype(np.int32)
        owner, radius = owners.of(vertices) if len(vertices) else (np.zeros(0, int), np.zeros(0, np.uint8))
        found.append(
            {
                "name": name,
                "sentence": about,
                "low": low,
                "step": step,
                "vertices": parts.add(differences(packed.T.reshape(-1))),
                "faces": parts.add(differences(faces.reshape(-1))),
                "owner": parts.add(np.minimum(owner, 65535).astype(np.uint16)),
                "radius": parts.add(radius),
            }
        )
    return found


def differences(values_: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each number less the one before it, int32."""
    return np.diff(values_, prepend=0).astype(np.int32)


def simplified(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], most: int
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "l 3"]]:
    """A mesh of at most about `most` faces to look at: vertices in one cell of a lattice become their mean.

    Rossignac and Borrel 1993. Its topology is not that of the mesh: it is for the eye alone.
    """
    if len(faces) <= most:
        return vertices, faces
    low, span = vertices.min(axis=0), float(np.linalg.norm(np.ptp(vertices, axis=0)))
    area = float(trimesh.triangles.area(vertices[faces]).sum())
    cell = max(np.sqrt(1.5 * area / most), 1e-6 * span)
    while True:
        index = np.floor((vertices - low) / cell).astype(np.int64)
        _, owner, count = np.unique(
            (index[:, 0] << 42) + (index[:, 1] << 21) + index[:, 2], return_inverse=True, return_counts=True
        )
        kept = owner[faces]
        kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
        if len(kept) <= most:
            means = [np.bincount(owner, vertices[:, axis]) / count for axis in range(3)]
            return np.stack(means, axis=1), kept
        cell *= 1.08


def centreline(parts: Parts, graph: nx.MultiGraph) -> dict[str, str]:
    """The branches as segments."""
    lines = [np.asarray(edge["points"], np.float32) for *_, edge in graph.edges(data=True)]
    segments = [np.stack([line[:-1], line[1:]], axis=1).reshape(-1, 3) for line in lines]
    owner = np.repeat(np.arange(len(lines)), [len(one) for one in segments])
    points = np.concatenate([np.zeros((0, 3), np.float32), *segments])
    return {"points": parts.add(points), "owner": parts.add(np.minimum(owner, 65535).astype(np.uint16))}


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
    cells = [[rounded(row[key]) for key in COLUMNS] for row in rows]
    return {"columns": list(COLUMNS.values()), "rows": cells, "places": places}


def rounded(value: Any) -> Any:
    """A number with the figures that mean something."""
    if not isinstance(value, float):
        return value
    return 0.0 if abs(value) < 1e-9 else float(f"{value:.5g}")


def slices(
    parts: Parts, image: Volume, sdf: Float[np.ndarray, "_ _ _"], affine: Float[np.ndarray, "4 4"]
) -> dict[str, Any]:
    """Image and field on a grid that is coarse enough for a page: 8 bits each, the field within two voxels of it."""
    # Axes in the order right, front, top, as the page expects them.
    turned = io_orientation(affine)
    affine = affine @ inv_ornt_aff(turned, sdf.shape)
    sdf = apply_orientation(sdf, turned)
    step = max(1.0, max(sdf.shape) / GRID)
    shape = tuple(max(2, int(n / step)) for n in sdf.shape)
    index = np.diag([step, step, step, 1.0])
    index[:3, 3] = (step - 1) / 2
    coarse = affine @ index
    way = np.linalg.inv(image.affine) @ coarse
    smooth = ndimage.gaussian_filter1d
    array = image.array.astype(np.float32)
    for axis in range(3):
        # What lies between the samples must not be lost: thin vessels above all.
        sigma = 0.4 * float(np.linalg.norm(way[axis, :3]))
        if sigma > 0.5:
            array = smooth(array, sigma, axis=axis)
    low, high = np.percentile(array[::2, ::2, ::2], GRAY)
    gray = ndimage.affine_transform(array, way[:3, :3], way[:3, 3], shape, order=1, mode="nearest")
    near = ndimage.affine_transform(sdf, index[:3, :3], index[:3, 3], shape, order=1, mode="nearest")
    width = float(np.linalg.norm(coarse[:3, 0]))
    return {
        "shape": shape,
        "affine": coarse,
        "image": parts.add(np.rint(255 * ((gray - low) / max(high - low, 1e-9)).clip(0, 1)).astype(np.uint8)),
        "field": parts.add(np.rint(60 * (near / width).clip(-2, 2)).astype(np.int8)),
    }
