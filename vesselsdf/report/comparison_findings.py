"""What the page of an evaluation says: sentences, marked places, the table of metrics and figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from vesselsdf.centreline_points import Line, sample
from vesselsdf.metrics import TABLE, Side
from vesselsdf.report.findings import counts_of, marked, number
from vesselsdf.volume import Volume

BINS = 8
"""Classes of radii in figures."""
# Of the metrics that one sentence compares methods by: what it says, the key, whether more is better.
HEADLINES = (("Best overlap", "dice", True), ("most length found", "tree_length_detected", True))
TEXTS = {
    "missed": ("lost", "branch missed, {length:.3g} mm"),
    "invented": ("new", "branch that the reference has not, {length:.3g} mm"),
    "false_splits": ("cut", "vessel cut"),
    "false_merges": ("joined", "separate vessels joined"),
    "terminals_lost": ("end", "end that is not reached from its root"),
}


def wrong_features(metrics: Mapping[str, Any]) -> int:
    """Components, loops and cavities that do not correspond at their places."""
    return sum(int(metrics[f"diu{k}"]) for k in range(3))


def comparison_sentence(methods: Sequence[Any]) -> str:
    """The outcome in a sentence or two."""
    if len(methods) == 1:
        found = methods[0].metrics
        lost = sum(one["fate"] == "lost" for one in found["places"]["topology"])
        return (
            f"{methods[0].name} finds {100 * found['tree_length_detected']:.0f}% of the vessels' length at a precision "
            f"of {100 * found['tree_length_precision']:.0f}%; of components, loops and cavities it loses {lost} and "
            f"invents {wrong_features(found) - lost}."
        )
    order = sorted(methods, key=lambda method: wrong_features(method.metrics))
    count = ", ".join(f"{method.name} {wrong_features(method.metrics)}" for method in order)
    said = [f"Components, loops and cavities lost or invented: {count}."]
    for what, key, more in HEADLINES:
        known = [method for method in methods if math.isfinite(float(method.metrics[key]))]
        if known:
            best = max(known, key=lambda method: float(method.metrics[key]) * (1 if more else -1))
            said.append(f"{what} {best.name} ({float(best.metrics[key]):.3g})")
    return said[0] + (" " + ", ".join(said[1:]) + "." if said[1:] else "")


def comparison_facts(methods: Sequence[Any], reference: Side, grid: Volume) -> list[str]:
    """What was compared."""
    found = methods[0].metrics
    length = sum(edge["length"] for *_, edge in reference.graph.edges(data=True))
    beta = [found[f"beta{k}_reference"] for k in range(3)]
    edges = " x ".join(f"{edge:.3g}" for edge in grid.spacing)
    return [
        f"reference: {counts_of(beta)}, {length:,.0f} mm",
        "26 for vessels, 6 for background",
        f"{' x '.join(map(str, grid.shape))} voxels of {edges} mm",
        f"tolerance {found['tolerance']:.3g} mm",
    ]


def places_of(group: int, name: str, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a method lost, invented, cut and joined, the largest first, as the page lists it."""
    places = metrics["places"]
    found = []
    for one in places["topology"]:
        lost = one["fate"] == "lost"
        text = f"{one['feature']} {one['kind']}" if lost else f"{one['feature']} {one['kind']} in the reference"
        found.append(marked(group, "lost" if lost else "new", text, one["place"], [None], name))
    for key, (what, text) in TEXTS.items():
        for one in places["graph"].get(key, ()):
            size = [number(one["length"])] if "length" in one else [None]
            found.append(marked(group, what, text.format(**one), one["place"], size, name))
    for one in places["surface"]:
        text = f"wall only in the {one['only_in']}"
        found.append(marked(group, "wall", text, one["place"], [number(one["distance"])], name))
    return sorted(found, key=lambda one: -one["near"])


def metrics_table(methods: Sequence[Any]) -> dict[str, Any]:
    """Every metric of every method, the best of several marked."""
    rows, best = [], []
    for row in TABLE:
        values = [method.metrics.get(row.key) for method in methods]
        rows.append([row.key.replace("_", " "), *map(cell, values), row.unit, row.better, row.meaning])
        best.append([1 + k for k in _best(values, row.better)])
    columns = [{"name": "metric", "text": True}, *({"name": method.name} for method in methods)]
    columns += [{"name": name, "text": True} for name in ("", "better", "meaning")]
    return {
        "key": "metric", "title": "Metrics", "columns": columns, "rows": rows, "best": best, "file": "metrics.csv"
    }  # fmt: skip


def _best(values: Sequence[Any], better: str) -> list[int]:
    """Which of several values are the best, if they differ at all."""
    known = {k: float(value) for k, value in enumerate(values) if value is not None and math.isfinite(float(value))}
    if not better or len(known) < 2:
        return []
    cost = {k: {"higher": -value, "lower": value, "zero": abs(value)}[better] for k, value in known.items()}
    least, most = min(cost.values()), max(cost.values())
    return [k for k, value in cost.items() if value == least and least < most]


def overview_sentence(rows: Sequence[Mapping[str, Any]], mean: Mapping[str, Any]) -> str:
    """Several cases in a sentence."""
    counts = [wrong_features(row) for row in rows if "diu0" in row]
    features = float(np.mean(counts)) if counts else math.nan
    return (
        f"{len(rows)} cases, in the mean: Dice {mean['dice']:.3f}, {100 * mean['tree_length_detected']:.0f}% of the "
        f"length found at {100 * mean['tree_length_precision']:.0f}% precision, {features:,.1f} components, loops and "
        "cavities lost or invented."
    )


def cases_table(
    rows: Sequence[Mapping[str, Any]], mean: Mapping[str, Any], links: Sequence[str | None]
) -> dict[str, Any]:
    """One line for each case, with a link to its page; then their mean."""
    shown = [row for row in TABLE if row.better]
    columns = [{"name": "case", "text": True}, *({"name": row.key.replace("_", " ")} for row in shown)]
    cells = [[row["case"], *(cell(row.get(one.key)) for one in shown)] for row in rows]
    cells.append(["mean", *(cell(mean[one.key]) for one in shown)])
    return {
        "key": "case", "title": "Cases", "columns": columns, "rows": cells, "links": [*links, None], "file": "cases.csv"
    }  # fmt: skip


def cell(value: Any) -> Any:
    """A metric as a table shows it: counts as they are, other numbers with three figures, None where there is none."""
    return value if isinstance(value, int) else number(value)


def curves(
    methods: Sequence[Any],
    reference: Side,
    tolerance: float,
    errors: Sequence[Float[np.ndarray, "_"]],
    reach: float,
) -> list[dict[str, Any]]:
    """Length found by radius, lengths by radius, distances of the walls, and components level by level."""
    lines = [sample(side.graph, tolerance / 4) for side in (reference, *(method.side for method in methods))]
    names = ["reference", *(method.name for method in methods)]
    figures = []
    if len(lines[0].points):
        figures += _by_radius(lines, names, tolerance)
    edges = np.linspace(-reach, reach, 26)
    middle = [number(float(value)) for value in (edges[1:] + edges[:-1]) / 2]
    series = [
        {"name": method.name, "x": middle, "y": [number(float(v)) for v in np.histogram(error, edges)[0] / len(error)]}
        for method, error in zip(methods, errors, strict=True)
        if len(error)
    ]
    if series:
        figures.append(
            {"title": "share of the wall", "kind": "lines", "x": "outside the other's wall, mm", "series": series}
        )
    if all(method.levels for method in methods):
        known = methods[0].levels
        x = [row["spacing_mm"] for row in known]
        series = [{"name": "reference", "x": x, "y": [row["betti_reference"][0] for row in known]}]
        series += [{"name": method.name, "x": x, "y": [row["betti"][0] for row in method.levels]} for method in methods]
        figures.append({"title": "components, level by level", "kind": "lines", "x": "voxel, mm", "series": series})
    return figures


def _by_radius(lines: Sequence[Line], names: Sequence[str], tolerance: float) -> list[dict[str, Any]]:
    """Of the reference's length in each class of radii what each method found; and all lengths in each class."""
    real = lines[0]
    edges = np.geomspace(max(real.radii.min(), 1e-6), max(real.radii.max(), 1.001 * real.radii.min()), BINS + 1)
    middle = [number(float(value)) for value in np.sqrt(edges[1:] * edges[:-1])]
    edges[[0, -1]] = 0.0, np.inf
    length = np.histogram(real.radii, edges, weights=real.weights)[0]
    shares = []
    for line, name in zip(lines[1:], names[1:], strict=True):
        away = cKDTree(line.points).query(real.points)[0] if len(line.points) else np.full(len(real.points), np.inf)
        near = away <= np.maximum(tolerance, real.radii)
        found = np.histogram(real.radii, edges, weights=real.weights * near)[0]
        kept = [k for k in range(BINS) if length[k] > 0]
        share = [number(float(found[k] / length[k])) for k in kept]
        shares.append({"name": name, "x": [middle[k] for k in kept], "y": share})
    lengths = [
        {
            "name": name,
            "x": middle,
            "y": [number(float(v)) for v in np.histogram(line.radii, edges, weights=line.weights)[0]],
        }
        for name, line in zip(names, lines, strict=True)
    ]
    return [
        {"title": "share of the length that is found", "kind": "lines", "x": "radius, mm", "series": shares},
        {"title": "length by radius, mm", "kind": "lines", "x": "radius, mm", "series": lengths},
    ]
