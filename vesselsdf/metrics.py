"""How good a vessel segmentation is: one table of overlap, surface, topology and graph metrics, with the worst places.

Overlap and surface metrics hardly see a cut vessel, homology is blind to a lost terminal branch, and the graph metrics
are blind to the wall: so the table always holds all four groups. `TABLE` lists what is measured, `evaluate` does it.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Bool

from vesselsdf.comparison import compare_graphs
from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.graph import centreline_graph
from vesselsdf.overlap import cldice, dice, precision, recall
from vesselsdf.surface_distance import assd, farthest, hd95, joint_box, nsd, surface_distances
from vesselsdf.topology.matching import shared_features
from vesselsdf.volume import Volume, check_finite, check_same_grid

WORST = 5  # places of each kind that are named
FEATURES = ("component", "loop", "cavity")
_OTHER = {"lost": "{} in the prediction", "invented": "{} in the reference"}


@dataclass(frozen=True)
class Row:
    """One line of the table. `better`: "higher", "lower", "zero", or "" for what only informs; `unit`: "mm", or ""."""

    key: str
    group: str
    unit: str
    better: str
    meaning: str


TABLE: tuple[Row, ...] = (
    Row("dice", "overlap", "", "higher", "shared volume / mean volume"),
    Row("cldice", "overlap", "", "higher", "centreline Dice: skeletons that lie in the other mask"),
    Row("precision", "overlap", "", "higher", "predicted volume that is vessel"),
    Row("recall", "overlap", "", "higher", "vessel volume that was predicted"),
    Row("nsd", "surface", "", "higher", "wall area within the tolerance of the other wall"),
    Row("hd95", "surface", "mm", "lower", "95% of the wall is nearer than this to the other wall"),
    Row("assd", "surface", "mm", "lower", "mean distance of the walls"),
    Row("beta0_prediction", "topology", "", "", "components of the prediction"),
    Row("beta0_reference", "topology", "", "", "components of the reference"),
    Row("beta0_error", "topology", "", "lower", "difference of the two"),
    Row("beta1_prediction", "topology", "", "", "loops of the prediction"),
    Row("beta1_reference", "topology", "", "", "loops of the reference"),
    Row("beta1_error", "topology", "", "lower", "difference of the two"),
    Row("beta2_prediction", "topology", "", "", "cavities of the prediction"),
    Row("beta2_reference", "topology", "", "", "cavities of the reference"),
    Row("beta2_error", "topology", "", "lower", "difference of the two"),
    Row("euler_error", "topology", "", "lower", "difference of beta0 - beta1 + beta2"),
    Row("diu0", "topology", "", "lower", "components that do not correspond at their places"),
    Row("diu1", "topology", "", "lower", "loops that do not correspond at their places"),
    Row("diu2", "topology", "", "lower", "cavities that do not correspond at their places"),
    Row("tree_length_detected", "graph", "", "higher", "centreline length of the reference that was found"),
    Row("tree_length_precision", "graph", "", "higher", "predicted centreline length that follows the reference"),
    Row("branches_detected", "graph", "", "higher", "branches of the reference found over 80% of their length"),
    Row("branches_precision", "graph", "", "higher", "predicted branches that follow the reference over 80%"),
    Row("false_splits", "graph", "", "lower", "places where a vessel was cut"),
    Row("false_merges", "graph", "", "lower", "places where separate vessels were joined"),
    Row("node_precision", "graph", "", "higher", "predicted junctions and ends that are real"),
    Row("node_recall", "graph", "", "higher", "real junctions and ends that were found"),
    Row("node_f1", "graph", "", "higher", "harmonic mean of the two"),
    Row("terminals_reached", "graph", "", "higher", "ends that are joined to their root in the prediction"),
    Row("path_length_error", "graph", "", "lower", "relative error of the way from root to end"),
    Row("centreline_error", "graph", "mm", "lower", "mean distance of the centrelines where both are"),
    Row("radius_error", "graph", "mm", "lower", "mean absolute error of the radius there"),
    Row("radius_bias", "graph", "mm", "zero", "mean signed error of the radius: above 0 is too thick"),
)


def evaluate(
    prediction: Volume,
    reference: Volume,
    tolerance: float | None = None,
    names: tuple[str, str] = ("the prediction", "the reference"),
) -> dict[str, Any]:
    """Measure `prediction` against `reference`: a flat dict with every key of `TABLE`, and `tolerance`, `places`, ...

    prediction, reference: on one grid; each a mask (bool or whole numbers, vessel where above 0) or a signed distance
        in mm (floats with negative values, vessel where at or below 0).
    tolerance: mm, for `nsd` and the graph group (see `comparison.compare_graphs`). None: the longest edge of a voxel,
        so that a step of one voxel in any direction is forgiven.
    names: what error messages call the two, as the paths they come from.

    What each metric is, its source and its value for empty masks stands with its function: `overlap`,
    `surface_distance`, `comparison`, and `topology_errors` here. Both masks empty: perfect scores, and `both_empty` is
    true. One empty: shares 0, distances inf, Betti errors count what is missing.

    `places` holds the worst places in RAS mm: `surface` (farthest from the other wall), `topology` (features lost or
    invented), and under `graph` the lists of `compare_graphs`.

    Raises InputError for different grids, NaN, arrays that are neither mask nor distance, or a tolerance not above 0.

    >>> vessel = np.zeros((12, 12, 40), bool); vessel[4:8, 4:8] = True
    >>> short = vessel.copy(); short[:, :, 20:] = False
    >>> result = evaluate(Volume(short, np.eye(4)), Volume(vessel, np.eye(4)))
    >>> result["recall"], result["beta0_error"], result["terminals_reached"]
    (0.5, 0, 0.0)
    """
    check_same_grid(prediction, reference, names)
    if tolerance is None:
        tolerance = max(reference.spacing)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance is {tolerance}; it must be a positive number of millimetres.")
    p, r = vessel_mask(prediction, names[0]), vessel_mask(reference, names[1])
    graph = compare_graphs(_graph_of(prediction, p), _graph_of(reference, r), tolerance)
    graph_places = graph.pop("places")
    # Beyond the border lies background for every metric, so they may all look at the box around the vessels alone.
    box = joint_box(p, r) if p.any() or r.any() else (slice(0, 1),) * 3
    grid = Volume(np.ascontiguousarray(p[box]), moved(reference.affine, [part.start for part in box]))
    p, r, spacing = grid.array, np.ascontiguousarray(r[box]), grid.spacing
    distances = surface_distances(p, r, spacing)
    topology, topology_places = topology_errors(p, r, grid.affine)
    worst = farthest(distances, spacing, apart=10 * max(spacing), most=WORST)
    return {
        "tolerance": float(tolerance),
        "both_empty": not (p.any() or r.any()),
        "dice": dice(p, r),
        "cldice": cldice(p, r, spacing),
        "precision": precision(p, r),
        "recall": recall(p, r),
        "nsd": nsd(distances, tolerance),
        "hd95": hd95(distances),
        "assd": assd(distances),
        **topology,
        **graph,
        "places": {
            "surface": [
                {"only_in": whose, "place": grid.to_world(index[None])[0].tolist(), "distance": away}
                for whose, index, away in worst
            ],
            "topology": topology_places,
            "graph": graph_places,
        },
    }


def vessel_mask(volume: Volume, name: str) -> Bool[np.ndarray, "x y z"]:
    """The vessel as a mask: whole numbers above 0, or a signed distance at or below 0; `name` is for the error message.

    Floats with a negative value are a distance; so are fractions that are all above 0 (a distance without any vessel).
    Floats that are whole numbers from 0 up are labels. Anything else, as a probability map, raises InputError.

    >>> vessel_mask(Volume(np.array([[[-0.5, 0.0, 0.5]]]), np.eye(4)), "the field").tolist()
    [[[True, True, False]]]
    """
    array = volume.array
    if array.size == 0:
        raise InputError(f"{name} has no voxels (shape {volume.shape}): check how it was made.")
    check_finite(array, name)
    if array.dtype.kind != "f":
        if array.dtype.kind == "i" and array.min() < 0:
            raise InputError(f"{name} has whole numbers below 0 ({array.min()}): give labels, or a distance as floats.")
        return array > 0
    low = array.min()
    if low < 0:
        return array <= 0
    if (array == np.rint(array)).all():
        return array > 0
    if low > 0:
        return array <= 0
    raise InputError(
        f"{name} has fractions from 0 to {array.max():.4g}, so it is no mask and no signed distance: threshold it."
    )


def topology_errors(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"], affine: np.ndarray
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Betti errors, Euler error and DIU, whole numbers from 0 up, and the features behind them with their places (mm).

    `betaK_error = |betaK(P) - betaK(R)|`, `euler_error = |chi(P) - chi(R)|` with `chi = beta0 - beta1 + beta2`:
    26-connected vessel, 6-connected background, padded by background. They compare counts: a loop lost here and one
    invented there cancel. `diuK = dim kernel + dim cokernel of H_k(P & R) -> H_k(P | R)` (Lux et al. 2025) compares
    features at their places, where nothing cancels. An empty mask has no features: both empty gives 0 everywhere, one
    empty the numbers of the other.
    """
    matched = shared_features(reference, prediction, affine)
    numbers: dict[str, int] = {}
    euler = 0
    for k, row in matched.items():
        numbers[f"beta{k}_prediction"] = row["betti_g"]
        numbers[f"beta{k}_reference"] = row["betti_p"]
        numbers[f"beta{k}_error"] = abs(row["betti_g"] - row["betti_p"])
        numbers[f"diu{k}"] = row["kernel"] + row["cokernel"]
        euler += (-1) ** k * (row["betti_g"] - row["betti_p"])
    places = [
        {
            "fate": fate,
            "feature": FEATURES[k],
            "kind": item["kind"],
            "place": list(item["place"]),
        }
        for k, row in matched.items()
        for fate in ("lost", "invented")
        for item in row[fate]
    ]
    return {**numbers, "euler_error": abs(euler)}, places


def _graph_of(volume: Volume, mask: Bool[np.ndarray, "x y z"]) -> nx.MultiGraph:
    """The centreline graph: from the volume itself if it is a distance, else from the distance of its mask."""
    if not mask.any():
        return nx.MultiGraph()
    if volume.array.dtype.kind == "f" and volume.array.min() < 0 < volume.array.max():
        return centreline_graph(volume.array, volume.affine)
    # One voxel of background all around, also at the border of the volume: a vessel that leaves it ends there.
    box = joint_box(mask, mask)
    affine = moved(volume.affine, [part.start - 1 for part in box])
    mask = np.pad(mask[box], 1)
    # Only the inside is read: a narrow band holds all of thin vessels and costs a fraction of the whole field.
    band = 4 * max(volume.spacing)
    sdf = signed_distance(mask, volume.spacing, band)
    if sdf.min() <= -0.999 * band:
        sdf = signed_distance(mask, volume.spacing)
    return centreline_graph(sdf, affine)


def moved(affine: np.ndarray, corner: Sequence[int]) -> np.ndarray:
    """The affine of the grid whose first voxel has the index `corner` in the grid of `affine`."""
    result = np.array(affine, dtype=float)
    result[:3, 3] += result[:3, :3] @ corner
    return result


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of every metric over several results of `evaluate`, their number `cases`, and the `worst` case for each.

    NaN (nothing to measure in that case) is left out; a mean over nothing is NaN, and inf in one case makes the mean
    inf. Results may carry a name under "case"; else they are named by their position. Raises InputError for no results.

    >>> [summarise([{"dice": 0.8}, {"dice": 0.6}])[key] for key in ("dice", "cases")]
    [0.7, 2]
    """
    if not results:
        raise InputError("There are no results to summarise: evaluate at least one case.")
    summary: dict[str, Any] = {"cases": len(results)}
    worst: dict[str, Any] = {}
    for row in TABLE:
        values = np.array([result.get(row.key, math.nan) for result in results], dtype=float)
        known = np.flatnonzero(~np.isnan(values))
        summary[row.key] = float(values[known].mean()) if len(known) else math.nan
        if len(known) and row.better:
            badness = {"higher": -values, "lower": values, "zero": np.abs(values)}[row.better]
            case = int(known[np.argmax(badness[known])])
            worst[row.key] = results[case].get("case", case)
    return {**summary, "worst": worst}


def format_table(result: Mapping[str, Any]) -> str:
    """The table as aligned text, with one line on what each number means, and the worst places in mm.

    Takes what `evaluate` or `summarise` return.
    """
    lines = []
    group = ""
    for row in TABLE:
        if row.key not in result:
            continue
        if row.group != group:
            group = row.group
            lines += ["", group]
        better = {"higher": "higher is better", "lower": "lower is better", "zero": "0 is best", "": ""}[row.better]
        lines.append(f"  {row.key:<22}{_number(result[row.key]):>9} {row.unit:<3} {better:<17} {row.meaning}")
    if "tolerance" in result:
        lines.append(f"\ntolerance {result['tolerance']:.4g} mm")
    if result.get("both_empty"):
        lines.append("\nBoth masks are empty: the scores say only that they agree in that.")
    return "\n".join([*lines[1:], *_worst_places(result.get("places", {}))])


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write one line per result: `case`, `tolerance` and the keys of `TABLE`; NaN is left blank, infinity is `inf`."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["case", "tolerance", *(row.key for row in TABLE)])
        for position, result in enumerate(rows):
            values = [result.get(key, math.nan) for key in ("tolerance", *(row.key for row in TABLE))]
            writer.writerow([result.get("case", position), *("" if value != value else value for value in values)])


def _number(value: float | int | str | None) -> str:
    # Results that were read back from JSON hold "inf" and null.
    if value is None or value != value:
        return "n/a"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _worst_places(places: Mapping[str, Any]) -> list[str]:
    graph = places.get("graph", {})
    surface, topology = places.get("surface", ()), places.get("topology", ())
    found = [(item, f"wall only in the {item['only_in']}, {item['distance']:.3g} mm off") for item in surface]
    found += [
        (item, f"{item['feature']} {item['fate']}: {_OTHER[item['fate']].format(item['kind'])}")
        for item in topology[:WORST]
    ]
    for key, text in (
        ("missed", "branch missed, {length:.3g} mm"),
        ("invented", "branch invented, {length:.3g} mm"),
        ("false_splits", "vessel cut"),
        ("false_merges", "vessels joined"),
        ("terminals_lost", "end not reached from its root"),
    ):
        found += [(item, text.format(**item)) for item in graph.get(key, ())[:WORST]]
    if not found:
        return []
    lines = [f"  ({', '.join(f'{value:.1f}' for value in item['place'])})  {text}" for item, text in found]
    return ["", f"worst places (x, y, z in RAS mm; at most {WORST} of each kind)", *lines]
