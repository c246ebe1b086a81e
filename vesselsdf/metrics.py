"""How good a vessel segmentation is: one table of overlap, surface, topology and graph metrics, with the worst places.

Overlap and surface metrics hardly see a cut vessel, homology is blind to a lost terminal branch, and the graph metrics
are blind to the wall: so the table always holds all four groups. `metric_table.TABLE` lists what is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.spatial import cKDTree

from vesselsdf.comparison import compare_graphs
from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError
from vesselsdf.graph import centreline_graph
from vesselsdf.metric_table import TABLE, WORST, format_table, summarise, write_csv
from vesselsdf.overlap import cldice, dice, precision, recall
from vesselsdf.surface_distance import assd, farthest, hd95, joint_box, nsd, surface_distances
from vesselsdf.topology.diagram_distance import diagram_distances
from vesselsdf.topology.induced import betti_matching
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.persistence import diagrams
from vesselsdf.topology.warping import warping_error
from vesselsdf.volume import Volume, check_finite, check_same_grid

__all__ = [
    "TABLE", "Side", "evaluate", "format_table", "measure", "summarise", "topology_errors", "vessel_mask", "write_csv",
]  # fmt: skip

FEATURES = ("component", "loop", "cavity")
# In voxels. Fields are exact up to here on both sides of the wall, which is all that is read of them outside.
BAND = 3.0
MARGIN = 3  # voxels of a given field around the vessel that are read
# Largest fields whose features are matched, as the edge of a cube around the vessels: beyond, it takes longer than all
# other metrics together.
MATCHING_EDGE = 128
MATCHING_FEATURES = 5000
# Features of a field in the band up to which its diagram is compared: a tree in 512^3 voxels has about that many, noise
# has more.
DIAGRAM_FEATURES = 10_000
# Voxels deeper than the band (few, in vessels) up to which each is measured by itself.
MANY_DEEP = 100_000


@dataclass(frozen=True)
class Side:
    """One of two vessels as they are measured: its distance field (mm) in a box around both, and its centreline graph.

    The field is None where there is no vessel; outside it is right up to `BAND` voxels, and so is what lies around it.
    """

    field: Volume | None
    graph: nx.MultiGraph


def evaluate(
    prediction: Volume,
    reference: Volume,
    tolerance: float | int | None = None,
    names: tuple[str, str] = ("the prediction", "the reference"),
) -> dict[str, Any]:
    """Measure `prediction` against `reference`: a flat dict with every key of `TABLE`, and `tolerance`, `places`, ...

    prediction, reference: on one grid; each a mask (bool or whole numbers, vessel where above 0) or a signed distance
        in mm (floats with negative values, vessel where at or below 0).
    tolerance: mm, for `nsd` and the graph group (see `comparison.compare_graphs`). None: the longest edge of a voxel,
        so that a step of one voxel in any direction is forgiven.
    names: what error messages call the two, as the paths they come from.

    What each metric is, its source, range and value for empty masks stands with its function: `overlap`,
    `surface_distance`, `comparison`, `topology_errors` and `field_errors` here. Both masks empty: perfect scores, and
    `both_empty` is true. One empty: shares 0, distances of walls inf, topological errors count what is missing, and
    errors of what was found (centreline, radius, path) are NaN. For every NaN `reasons` says why there is nothing to
    measure.

    `places` holds the worst places in RAS mm: `surface` (farthest from the other wall), `topology` (features lost or
    invented), `critical` (sites of the warping error), and under `graph` the lists of `compare_graphs`.

    Raises InputError for different grids, NaN, arrays that are neither mask nor distance, or a tolerance not above 0.

    >>> vessel = np.zeros((12, 12, 40), bool); vessel[4:8, 4:8] = True
    >>> short = vessel.copy(); short[:, :, 20:] = False
    >>> result = evaluate(Volume(short, np.eye(4)), Volume(vessel, np.eye(4)))
    >>> result["recall"], result["beta0_error"], result["terminals_reached"]
    (0.5, 0, 0.0)
    """
    return measure(prediction, reference, tolerance, names)[0]


def measure(
    prediction: Volume,
    reference: Volume,
    tolerance: float | int | None = None,
    names: tuple[str, str] = ("the prediction", "the reference"),
    reference_graph: nx.MultiGraph | None = None,
) -> tuple[dict[str, Any], tuple[Side, Side]]:
    """What `evaluate` returns, and the two vessels that it is read from: of the prediction and of the reference.

    `reference_graph`: of an earlier comparison with the same reference, whose graph need not be made again.
    """
    check_same_grid(prediction, reference, names)
    tolerance = max(reference.spacing) if tolerance is None else float(tolerance)
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance is {tolerance}; it must be a positive number of millimetres.")
    p, r = vessel_mask(prediction, names[0]), vessel_mask(reference, names[1])
    # Beyond the border lies background for every metric, so they may all look at the box around the vessels alone.
    box = joint_box(p, r) if p.any() or r.any() else (slice(0, 1),) * 3
    fields = [_field_around(volume, mask, box) for volume, mask in ((prediction, p), (reference, r))]
    graphs = [
        known if known is not None else centreline_graph(f.array, f.affine) if f else nx.MultiGraph()
        for f, known in zip(fields, (None, reference_graph), strict=True)
    ]
    graph = compare_graphs(graphs[0], graphs[1], tolerance)
    graph_places, reasons = graph.pop("places"), graph.pop("reasons")
    grid = Volume(np.ascontiguousarray(p[box]), moved(reference.affine, [part.start for part in box]))
    p, r, spacing = grid.array, np.ascontiguousarray(r[box]), grid.spacing
    distances = surface_distances(p, r, spacing)
    topology, topology_places = topology_errors(p, r, grid.affine)
    whole = [_on_grid(field, grid) for field in fields]
    across, unknown = field_errors(whole[0].array, whole[1].array, BAND * max(spacing))
    worst = farthest(distances, spacing, apart=10 * max(spacing), most=WORST)
    result = {
        "tolerance": tolerance,
        "both_empty": not (p.any() or r.any()),
        "dice": dice(p, r),
        "cldice": cldice(p, r, spacing),
        "precision": precision(p, r),
        "recall": recall(p, r),
        "nsd": nsd(distances, tolerance),
        "hd95": hd95(distances),
        "assd": assd(distances),
        **topology,
        **across,
        **graph,
        "reasons": unknown | reasons,
        "places": {
            "surface": [
                {"only_in": whose, "place": grid.to_world(index[None])[0].tolist(), "distance": away}
                for whose, index, away in worst
            ],
            **topology_places,
            "graph": graph_places,
        },
    }
    return result, (Side(fields[0], graphs[0]), Side(fields[1], graphs[1]))


def vessel_mask(volume: Volume, name: str) -> Bool[np.ndarray, "x y z"]:
    """The vessel as a mask: whole numbers above 0, or a signed distance at or below 0; `name` is for the error message.

    Floats with a negative value are a distance; so are fractions that are all above 0 and reach beyond 1 mm: a distance
    without any vessel. Floats that are whole numbers, some of them 0 or all of them 1, are labels. What could be one as
    well as the other, or is neither, as a probability map, raises InputError.

    >>> vessel_mask(Volume(np.array([[[-0.5, 0.0, 0.5]]]), np.eye(4)), "the field").tolist()
    [[[True, True, False]]]
    """
    array = volume.array
    if array.size == 0:
        raise InputError(f"{name} has no voxels (shape {volume.shape}): check how it was made.")
    check_finite(array, name)
    low, high = array.min(), array.max()
    if array.dtype.kind != "f":
        if low < 0:
            raise InputError(f"{name} has whole numbers below 0 ({low}): give labels, or a distance as floats.")
        return array > 0
    if low < 0:
        return array <= 0
    if (array == np.rint(array)).all():
        if low > 0 and not low == high == 1:
            raise InputError(
                f"{name} has whole numbers from {low:g} to {high:g} as floats and none of them is 0: give labels as "
                "integers if all of it is vessel, and zeros if nothing is."
            )
        return array > 0
    if low > 0 and high > 1:
        return array <= 0
    raise InputError(
        f"{name} has fractions from {low:.4g} to {high:.4g}, so it is no mask and no signed distance with a vessel: "
        "threshold it (vessel 1, background 0)."
    )


def topology_errors(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"], affine: np.ndarray
) -> tuple[dict[str, int], dict[str, list[dict[str, Any]]]]:
    """Topological errors of a mask, whole numbers from 0 up, and under `topology` and `critical` where they lie (mm).

    - `betaK_error` = |betaK(P) - betaK(R)|; `euler_error` = |chi(P) - chi(R)| with `chi = beta0 - beta1 + beta2`:
      26-connected vessel, 6-connected background, padded by background. They compare counts: a loop lost here and one
      invented there cancel.
    - `diuK` = dim kernel + dim cokernel of `H_k(P & R) -> H_k(P | R)` (Lux et al. 2025, "Topograph") compares features
      at their places, where nothing cancels. `topology` lists the features lost and invented.
    - `warping_error` = voxels that still differ when the reference has been warped to the prediction without a change
      of topology (Jain et al. 2010); `critical_sites` = places where they do, each a cut, bridge, hole or blob.
      `critical` lists them, the largest first. See `topology.warping` for what the order of flips can change.

    An empty mask has no features. Both empty: 0 everywhere. One empty: the numbers of the other, for `warping_error`
    one voxel per lost component, or all voxels where the reference is the empty one.
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
    warping = warping_error(prediction, reference, affine)
    numbers |= {
        "euler_error": abs(euler),
        "warping_error": warping.voxels,
        "critical_sites": len(warping.sites),
    }
    features = [
        {"fate": fate, "feature": FEATURES[k], "kind": item["kind"], "place": list(item["place"])}
        for k, row in matched.items()
        for fate in ("lost", "invented")
        for item in row[fate]
    ]
    sites = [
        {"kind": site.kind, "sign": site.sign, "size": site.size, "place": list(site.place)}
        for site in sorted(warping.sites, key=lambda site: -site.size)
    ]
    return numbers, {"topology": features, "critical": sites}


def field_errors(
    prediction: Float32[np.ndarray, "x y z"], reference: Float32[np.ndarray, "x y z"], band: float | int
) -> tuple[dict[str, float | int], dict[str, str]]:
    """Distances of the persistence diagrams of two distance fields (mm) in a band around the wall, per dimension.

    Both fields are clipped to +-`band`; a field that is nowhere below it holds no vessel. 0 for equal fields.

    - `bottleneckK`: the largest move, mm, 0 to the band (twice that for the last component), that the best matching of
      births and deaths needs; at most `sup |prediction - reference|` (Cohen-Steiner, Edelsbrunner, Harer 2007).
    - `wassersteinK`: the sum of all moves of the best matching, mm, 0 to inf; many small features count like a large
      one. Neither looks at places: a feature may be matched to another one far away.
    - `betti_matchingK`: components, loops or cavities of either vessel that have no partner in the other one, 0 to inf:
      the Betti matching error (Stucki et al. 2023), which matches features through the field `min(prediction,
      reference)`, so at their places. At least `betaK_error`.

    Both empty: 0. One empty: `betti_matchingK` is the Betti number of the other one, `bottleneckK` and `wassersteinK`
    what it takes to remove its features. Secondly returned: why a number is NaN, where fields are too large.
    """
    numbers: dict[str, float | int] = {}
    reasons: dict[str, str] = {}
    found = diagrams(prediction, band), diagrams(reference, band)
    features = max(sum(len(points) for points in field) for field in found)
    matching = [f"betti_matching{k}" for k in range(3)]
    if prediction.size > (MATCHING_EDGE + 2) ** 3:
        reasons |= dict.fromkeys(matching, f"the box around the vessels has more than {MATCHING_EDGE}^3 voxels")
    elif features > MATCHING_FEATURES:
        reasons |= dict.fromkeys(matching, f"there are more than {MATCHING_FEATURES} features in the band")
    error = (math.nan,) * 3 if reasons else betti_matching(prediction, reference, band).error
    nothing = dict.fromkeys(("bottleneck", "wasserstein"))
    distances = diagram_distances(*found) if features <= DIAGRAM_FEATURES else [nothing] * 3
    for k, distance in enumerate(distances):
        numbers[matching[k]] = error[k]
        for name in nothing:
            numbers[f"{name}{k}"] = math.nan if distance[name] is None else distance[name]
            if distance[name] is None:
                reasons[f"{name}{k}"] = "there are too many features in the band"
    return numbers, reasons


def _on_grid(field: Volume | None, grid: Volume) -> Volume:
    """The field on the grid and one voxel around it: background where there is none, or beyond the border."""
    shape = tuple(n + 2 for n in grid.shape)
    affine = moved(grid.affine, (-1, -1, -1))
    if field is None:
        return Volume(np.full(shape, BAND * max(grid.spacing), np.float32), affine)
    first = np.rint(field.to_index(affine[None, :3, 3])[0]).astype(int)
    inner = [slice(max(start, 0), start + n) for start, n in zip(first, shape, strict=True)]
    array = field.array[tuple(inner)].astype(np.float32, copy=False)
    before = [max(-start, 0) for start in first.tolist()]
    pads = [(a, n - a - held) for a, n, held in zip(before, shape, array.shape, strict=True)]
    if not any(map(any, pads)):
        return Volume(array, affine)
    padded = np.pad(array, pads, mode="edge")
    outside = np.pad(np.zeros(array.shape, bool), pads, constant_values=True)
    return Volume(np.where(outside, np.abs(padded), padded), affine)


def _field_around(volume: Volume, mask: Bool[np.ndarray, "x y z"], box: tuple[slice, slice, slice]) -> Volume | None:
    """The signed distance around the vessel: the volume itself if it is one, else made from its mask; None if empty."""
    if not mask.any():
        return None
    if volume.array.dtype.kind == "f" and volume.array.min() < 0 < volume.array.max():
        keep = tuple(slice(max(part.start - MARGIN, 0), part.stop + MARGIN) for part in box)
        return Volume(np.ascontiguousarray(volume.array[keep]), moved(volume.affine, [part.start for part in keep]))
    # One voxel of background all around, also at the border of the volume: a vessel that leaves it ends there.
    affine = moved(volume.affine, [part.start - 1 for part in box])
    return Volume(wall_distance(np.pad(mask[box], 1), volume.spacing), affine)


def wall_distance(mask: Bool[np.ndarray, "x y z"], spacing: tuple[float, float, float]) -> Float32[np.ndarray, "x y z"]:
    """Signed distance (mm) of a mask that is neither empty nor full, outside it only up to `BAND` voxels.

    As `distance.signed_distance` up to the band. The few voxels that lie deeper are measured to the points where the
    field passes zero between neighbours: in balls of 6 to 14 voxels the mean error there is 0.12 voxel, with
    `signed_distance` 0.14, at several times the cost.

    >>> thick = np.zeros((23, 23, 23), bool); thick[1:-1, 1:-1, 1:-1] = True
    >>> float(wall_distance(thick, (1.0, 1.0, 1.0))[11, 11, 11])
    -10.5
    """
    band = BAND * max(spacing)
    sdf = signed_distance(mask, spacing, band)
    deep = np.argwhere(sdf <= -0.999 * band)
    if len(deep) > MANY_DEEP:
        return np.minimum(signed_distance(mask, spacing), np.float32(band))
    if len(deep):
        depth, _ = cKDTree(zero_crossings(sdf) * spacing).query(deep * spacing)
        sdf[tuple(deep.T)] = -np.maximum(depth, band)
    return sdf


def zero_crossings(sdf: Float32[np.ndarray, "x y z"]) -> Float[np.ndarray, "n 3"]:
    """Where a field passes zero between face neighbours, by linear interpolation, in voxels."""
    inside = sdf <= 0
    voxels = np.argwhere(inside)
    found = []
    for axis, sign in np.ndindex(3, 2):
        step = (2 * sign - 1) * np.eye(3, dtype=int)[axis]
        within = (voxels[:, axis] < sdf.shape[axis] - 1) if sign else (voxels[:, axis] > 0)
        ends = voxels[within]
        ends = ends[~inside[tuple((ends + step).T)]]
        a, b = np.abs(sdf[tuple(ends.T)]), np.abs(sdf[tuple((ends + step).T)])
        found.append(ends + (a / (a + b))[:, None] * step)
    return np.concatenate(found)


def moved(affine: np.ndarray, corner: Sequence[int]) -> np.ndarray:
    """The affine of the grid whose first voxel has the index `corner` in the grid of `affine`."""
    result = np.array(affine, dtype=float)
    result[:3, 3] += result[:3, :3] @ corner
    return result
