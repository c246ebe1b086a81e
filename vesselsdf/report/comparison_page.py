"""The page of an evaluation: a reference and one or several methods side by side, walls by their distance to the other.

One camera looks at all of them. What a method missed of the reference's wall is laid over its own; lost and invented
features, cuts, bridges and missed branches are marked and listed; slices show every wall over the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from vesselsdf.files import write_text
from vesselsdf.mesh import surface
from vesselsdf.metrics import Side
from vesselsdf.report.comparison_findings import (
    cases_table,
    comparison_facts,
    comparison_sentence,
    curves,
    metrics_table,
    overview_sentence,
    places_of,
)
from vesselsdf.report.packing import (
    FACES,
    STEP,
    Parts,
    box_of,
    new_parts,
    packed_lines,
    packed_wall,
    page_of,
    simplified,
    slices,
    to_bytes,
)
from vesselsdf.report.page import Owners
from vesselsdf.volume import Volume

ALL_FACES = 400_000
"""Of all walls of a page together."""
REACH = 2.0
"""Tolerances up to which distances have colours of their own."""
MISSED = "#d62728"
COLUMNS = [
    {"name": "method", "text": True}, {"name": "what", "text": True}, {"name": "", "text": True},
    {"name": "size, mm"}, {"name": "x"}, {"name": "y"}, {"name": "z"},
]  # fmt: skip
Wall = tuple[Float[np.ndarray, "_ 3"], Int[np.ndarray, "_ 3"]]


@dataclass(frozen=True)
class Method:
    """A prediction and what `metrics.measure` found; `levels`: rows of `evaluation.across_levels`, where known."""

    name: str
    metrics: dict[str, Any]
    side: Side
    levels: Sequence[dict[str, Any]] = ()


def write_comparison(
    path: str | Path,
    title: str,
    methods: Sequence[Method],
    reference: Side,
    grid: Volume,
    image: Volume | None = None,
    made: str = "",
) -> None:
    """Write the page of `methods` beside their reference, atomically.

    grid: any volume on the grid that they were compared on, for the slices; image: the scan, on any grid. made: how,
    for the foot of the page. Raises InputError where the package was built without three.js.
    """
    parts = new_parts()
    tolerance = methods[0].metrics["tolerance"]
    sides = [reference, *(method.side for method in methods)]
    names = ["reference", *(method.name for method in methods)]
    walls = [_wall(side, min(FACES, ALL_FACES // len(sides))) for side in sides]
    missed = [_outside(walls[0][0], method.side, tolerance) for method in methods]
    errors = [nearest(missed), *(_outside(wall[0], reference, tolerance) for wall in walls[1:])]
    limits = _radius_limits(sides)
    step = STEP * min(grid.spacing)
    surfaces = [
        _packed(parts, name, wall, side, error, limits, REACH * tolerance, step)
        for name, wall, side, error in zip(names, walls, sides, errors, strict=True)
    ]
    panes: list[dict[str, Any]] = [{"name": names[0], "walls": [0], "lines": 0, "group": -1}]
    for number, method in enumerate(methods):
        panes.append({
            "name": method.name, "walls": [number + 1, len(surfaces)], "lines": number + 1, "group": number
        })  # fmt: skip
        surfaces.append(
            {"name": "missed", "plain": MISSED}
            | packed_wall(parts, *_beyond(walls[0], missed[number], tolerance), step, {})
        )
    corners = np.concatenate([np.zeros((0, 3)), *(wall[0] for wall in walls)])
    corners = corners if len(corners) else grid.to_world(np.zeros((1, 3)))
    report = {
        "title": title,
        "sentence": comparison_sentence(methods),
        "facts": comparison_facts(methods, reference, grid),
        "made": made,
        **box_of(corners.min(axis=0), corners.max(axis=0)),
        "surfaces": surfaces,
        "lines": [packed_lines(parts, [edge["points"] for *_, edge in side.graph.edges(data=True)]) for side in sides],
        "panes": panes,
        "about": "Laid over each method in translucent red: where the reference's wall lies more than "
        f"{tolerance:.3g} mm (the tolerance) outside the method's, so what was missed.",
        "values": {},
        "colours": [
            {
                "key": "error", "name": "distance of the walls",
                "legend": "outside (red) or inside (blue) the other's wall, mm",
                "low": -REACH * tolerance, "high": REACH * tolerance, "diverging": True,
            },
            {"key": "radius", "name": "radius, mm", "low": limits[0], "high": limits[1]},
        ],
        "features": [one for k, method in enumerate(methods) for one in places_of(k, method.name, method.metrics)],
        "feature_columns": COLUMNS,
        "feature_title": "Lost and invented",
        "tables": [metrics_table(methods)],
        "plots": curves(methods, reference, tolerance, errors[1:], REACH * tolerance),
        "grid": slices(parts, image, grid, [(name, side.field) for name, side in zip(names, sides, strict=True)]),
    }  # fmt: skip
    write_text(path, page_of(report, parts))


def write_overview(
    path: str | Path,
    title: str,
    rows: Sequence[dict[str, Any]],
    mean: dict[str, Any],
    links: Sequence[str | None],
    made: str = "",
) -> None:
    """Write the page that lists several cases: metrics, and a link (relative to this one) to the page of each."""
    nothing: dict[str, Any] = {"surfaces": [], "features": [], "feature_title": "", "feature_columns": [], "grid": None}
    report = {
        "title": title,
        "sentence": overview_sentence(rows, mean),
        "facts": ["26 for vessels, 6 for background", "a click on a line opens the page of the case"],
        "made": made,
        "tables": [cases_table(rows, mean, links)],
        "plots": [],
        **nothing,
    }
    write_text(path, page_of(report, Parts()))


def _wall(side: Side, most: int) -> Wall:
    """The wall of a vessel, simple enough for the page."""
    if side.field is None:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    mesh = surface(side.field.array, side.field.affine)
    return simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), most)


def _outside(points: Float[np.ndarray, "n 3"], other: Side, tolerance: float) -> Float[np.ndarray, " n"]:
    """Signed distance (mm) of points to the wall of another vessel, positive outside, up to a limit."""
    limit = REACH * tolerance
    if other.field is None or not len(points):
        return np.full(len(points), limit)
    return _distance(other.field, points).clip(-limit, limit)


def nearest(distances: Sequence[Float[np.ndarray, " n"]]) -> Float[np.ndarray, " n"]:
    """Of several signed distances of each point the least, by its amount.

    >>> nearest([np.array([0.5, -2.0]), np.array([-0.1, 1.0])]).tolist()
    [-0.1, 1.0]
    """
    stacked = np.stack(distances)
    return np.take_along_axis(stacked, np.abs(stacked).argmin(axis=0)[None], axis=0)[0]


def _distance(field: Volume, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """The field at points; a vessel that leaves its grid ends in a lid at the outer face of the border voxels."""
    index, half = field.to_index(points), np.array(field.shape) / 2
    values = ndimage.map_coordinates(field.array, index.T, np.float64, order=1, mode="nearest")
    beyond = ((np.abs(index - (half - 0.5)) - half) * field.spacing).max(axis=1)
    return np.where(beyond > 0, np.maximum(values, 0) + beyond, np.maximum(values, beyond))


def _beyond(wall: Wall, outside: Float[np.ndarray, " n"], tolerance: float) -> Wall:
    """The faces of a wall whose corners all lie more than the tolerance outside."""
    vertices, faces = wall
    kept = faces[(outside > tolerance)[faces].all(axis=1)] if len(faces) else faces
    used, numbers = np.unique(kept, return_inverse=True)
    return vertices[used], numbers.reshape(-1, 3)


def _radius_limits(sides: Sequence[Side]) -> tuple[float, float]:
    radii = [edge["radii"] for side in sides for *_, edge in side.graph.edges(data=True)]
    low, high = np.percentile(np.concatenate(radii), (2, 98)) if radii else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-9))


def _packed(
    parts: Parts,
    name: str,
    wall: Wall,
    side: Side,
    error: Float[np.ndarray, " n"],
    limits: tuple[float, float],
    reach: float,
    step: float,
) -> dict[str, Any]:
    vertices, faces = wall
    channels = {"error": to_bytes(error, -reach, reach)}
    if len(vertices) and side.graph.number_of_nodes():
        owners = Owners(side.graph)
        owners.limits = limits
        channels["radius"] = owners.of(vertices)[1]
    return {"name": name} | packed_wall(parts, vertices, faces, step, channels)
