"""Measuring a trained network on labelled cases: whole volumes, level by level.

What nobody has labelled (the truth is NaN there) counts as background in prediction and reference alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from vesselsdf import scales
from vesselsdf.branch_persistence import Describe
from vesselsdf.checkpoint import Model
from vesselsdf.errors import InputError
from vesselsdf.inference import predict
from vesselsdf.metrics import Side, measure, summarise
from vesselsdf.network import VesselNet
from vesselsdf.overlap import cldice, dice
from vesselsdf.reconstruction import Reconstruction
from vesselsdf.report.wall_picture import wall_picture
from vesselsdf.segment_comparison import compare_segments
from vesselsdf.segment_findings import findings
from vesselsdf.segments import label_ids
from vesselsdf.sources import LabelledCase
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.survival import survival
from vesselsdf.topology.thinning import thin
from vesselsdf.volume import Volume, check_same_grid, resample

# Candidates for the value taken as the wall, in working voxels: regression to a distance shrinks vessels that it is not
# sure of, losses on the overlap widen thin ones.
THRESHOLDS = (-0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
# Sums of Dice and clDice that differ by no more say nothing about which of two thresholds is better.
AS_GOOD = 0.005
# Held-out cases of which there are pictures: enough to see what goes wrong.
PICTURES = 3


def working_truth(case: LabelledCase, grid: Volume) -> Float[np.ndarray, "x y z"]:
    """The true distance of a case on a working grid, mm, NaN where it is not known."""
    return resample(case.distance(), grid.shape, grid.affine).array


def validation(
    model: Model, cases: Sequence[LabelledCase], most: int = PICTURES
) -> tuple[dict[str, float], dict[str, UInt8[np.ndarray, "_ _ 3"]]]:
    """Mean overlap, topology errors and reachable share over whole volumes, at the wall phi = 0; and pictures.

    The pictures (`report.wall_picture`) are of the first `most` cases, by the names under which trackers show them.
    """
    rows, pictures = [], {}
    for number, case in enumerate(cases):
        working, fields, truth = _predicted(model, case)
        spacing = model.preprocessing.working_spacing(case.image)
        rows.append(_figures(fields[0], truth, spacing) | reachable(model.network, fields, truth <= 0, spacing))
        if number < most:
            pictures[f"validation/{case.name}"] = _picture(case.name, working, truth, fields[0])
    return {f"validation/{key}": float(np.mean([row[key] for row in rows])) for key in rows[0]}, pictures


def pictures_of(
    model: Model, cases: Sequence[LabelledCase], most: int = PICTURES
) -> dict[str, UInt8[np.ndarray, "_ _ 3"]]:
    """The pictures of `validation`, with the wall where the model's threshold puts it."""
    pictures = {}
    for case in cases[:most]:
        working, fields, truth = _predicted(model, case)
        offset = np.float32(model.preprocessing.threshold * model.preprocessing.working_spacing(case.image))
        pictures[f"validation/{case.name}"] = _picture(case.name, working, truth, fields[0] - offset)
    return pictures


def _predicted(model: Model, case: LabelledCase) -> tuple[Volume, list[np.ndarray], np.ndarray]:
    """The normalised image of a case on its working grid, the network's fields and the truth there, mm."""
    working = model.preprocessing.working_volume(case.image)
    spacing = model.preprocessing.working_spacing(case.image)
    fields = predict(model.network, working.array, spacing, model.preprocessing.acquisition(case.image))
    return working, fields, working_truth(case, working)


def _picture(name: str, working: Volume, truth: np.ndarray, field: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    title = f"{name}: Dice {dice((field <= 0) & ~np.isnan(truth), truth <= 0):.2f}"
    return wall_picture(working, working.with_array(truth), working.with_array(field), title)


def _figures(field: np.ndarray, distance: np.ndarray, spacing: float) -> dict[str, float]:
    predicted, truth = (field <= 0) & ~np.isnan(distance), distance <= 0
    found, wanted = betti_numbers(predicted), betti_numbers(truth)
    return {
        "dice": dice(predicted, truth),
        "cldice": cldice(predicted, truth, (spacing,) * 3),
        "beta0_error": abs(found[0] - wanted[0]),
        "beta1_error": abs(found[1] - wanted[1]),
    }


def reachable(network: VesselNet, fields: Sequence[np.ndarray], truth: np.ndarray, spacing: float) -> dict[str, float]:
    """Share of the true skeleton that each level can still make vessel, and share of all voxels that are active there.

    A skeleton voxel is reachable if it is active, or already inside with nothing left to refine. What is not reachable
    at a level can never come back at that level or below it: the ceiling that the coarser levels set.
    """
    skeleton = np.argwhere(thin(truth))
    figures = {}
    for level in range(len(fields) - 1):
        h = spacing * 2.0 ** (level + 1)
        base = scales.prolong(fields[level + 1], fields[level].shape)
        active = scales.activity(base, network.kappa * h, network.needed * h) > 0
        on_skeleton = (active | (base <= 0))[tuple((skeleton >> level).T)]
        figures[f"reachable_{level}"] = float(on_skeleton.mean()) if len(skeleton) else 1.0
        figures[f"active_share_{level}"] = float(active.mean())
    return figures


def choose_threshold(model: Model, cases: Sequence[LabelledCase]) -> tuple[float, list[dict[str, float]]]:
    """The value (working voxels) to take as the wall, and the figures of all candidates.

    The best by the sum of Dice and clDice, or one as good (`AS_GOOD`) that is nearer to zero, where walls have no bias.
    """
    curve: dict[float, list[dict[str, float]]] = {threshold: [] for threshold in THRESHOLDS}
    for case in cases:
        _, (field, *_), truth = _predicted(model, case)
        spacing = model.preprocessing.working_spacing(case.image)
        for threshold, rows in curve.items():
            rows.append(_figures(field - np.float32(threshold * spacing), truth, spacing))
    means = [
        {"threshold_voxels": threshold, **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}
        for threshold, rows in curve.items()
    ]
    enough = max(row["dice"] + row["cldice"] for row in means) - AS_GOOD
    good = [row["threshold_voxels"] for row in means if row["dice"] + row["cldice"] >= enough]
    return min(good, key=abs), means


def evaluate_case(made: Reconstruction, model: Model, case: LabelledCase) -> tuple[dict[str, Any], tuple[Side, Side]]:
    """The whole table of metrics for one reconstructed case and a row for each level; and the vessels compared."""
    reference = case.reference()
    field = resample(made.sdf, reference.shape, reference.affine, order=1).array
    if case.unlabelled is not None:
        field = np.where(case.unlabelled, np.abs(field) + 1, field)
    # A small field without any vessel could be taken for probabilities, an empty mask for nothing else.
    predicted = Volume(field if (field <= 0).any() else np.zeros(field.shape, bool), reference.affine)
    metrics, sides = measure(predicted, reference, names=(f"the reconstruction of {case.name}", "its reference"))
    rows = level_rows(made, model, working_truth(case, made.sdf))
    return {"case": case.name, "metrics": metrics, "levels": rows}, sides


def level_rows(made: Reconstruction, model: Model, truth: Float[np.ndarray, "x y z"]) -> list[dict[str, Any]]:
    """Per level: spacing, overlap and Betti numbers against the coarse-grained truth, and the largest step of the
    bound.

    `used` is the largest correction in units of its bound: it never exceeds 1.
    """
    spacing = made.sdf.spacing[0]
    targets = scales.pyramid(truth, len(made.levels), model.config.network.operator)
    offset = model.preprocessing.threshold * spacing
    figures = reachable(model.network, [field + offset for field in made.levels], truth <= 0, spacing)
    rows = []
    for level, (field, target) in enumerate(zip(made.levels, targets, strict=True)):
        predicted = (field <= 0) & ~np.isnan(target)
        row = {
            "level": level,
            "spacing_mm": spacing * 2**level,
            "dice": dice(predicted, target <= 0),
            "betti": betti_numbers(predicted),
            "betti_reference": betti_numbers(target <= 0),
        }
        if level + 1 < len(made.levels):
            step = np.abs(field - scales.prolong(made.levels[level + 1], field.shape)).max()
            row["bound_used"] = float(step) / (model.network.kappa * spacing * 2 ** (level + 1))
            row["active_share"] = figures[f"active_share_{level}"]
            row["reachable"] = figures[f"reachable_{level}"]
        rows.append(row)
    return rows


def summarise_cases(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over cases of all metrics, and per level of its figures."""
    levels = []
    for rows in zip(*[result["levels"] for result in results], strict=True):
        betti = np.abs(np.array([np.subtract(row["betti"], row["betti_reference"]) for row in rows]))
        mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if not key.startswith("betti")}
        mean |= {f"beta{k}_error": float(betti[:, k].mean()) for k in range(3)}
        levels.append(mean)
    return {"metrics": summarise([result["metrics"] for result in results]), "levels": levels}


def across_levels(prediction: Volume, reference: Volume, levels: int = 4) -> dict[str, Any]:
    """What survives of a predicted distance field at coarser levels, and the Betti numbers of the reference there."""
    fields = scales.pyramid(prediction.array.astype(np.float32), levels)
    targets = scales.pyramid(reference.array.astype(np.float32), levels)
    rows = [
        {
            "level": level,
            "spacing_mm": min(prediction.spacing) * 2**level,
            "dice": dice(field <= 0, target <= 0),
            "betti": betti_numbers(field <= 0),
            "betti_reference": betti_numbers(target <= 0),
        }
        for level, (field, target) in enumerate(zip(fields, targets, strict=True))
    ]
    report = survival(fields, prediction.spacing, prediction.affine, "mean", Describe())
    return {"levels": rows, "survival": report}


def with_segments(
    prediction: Volume,
    reference: Volume,
    files: tuple[str, str],
    names: Mapping[int, str] | None = None,
    align: bool = False,
) -> tuple[Volume | None, dict[str, Any] | None]:
    """The prediction on the reference's grid, and the report on segments where both are labels with several ids.

    `names` (of ids) and `align` (labels on different grids are brought together, see `compare_segments`) ask for that
    report: InputError where there is none to give. Without `align`, labels on different grids are refused. The
    prediction is None where no alignment fits; the report says why.
    """
    counts = [len(label_ids(volume) or ()) for volume in (prediction, reference)]
    asked = align or names is not None
    if asked and (min(counts) == 0 or max(counts) == 1 or (align and min(counts) == 1)):
        wrong = files[counts.index(min(counts))]
        option = "--align" if align else "--names"
        raise InputError(f"{option} is for labels with several ids, and {wrong} is none: leave it out, or give labels.")
    if not asked and min(counts) < 2:
        return prediction, None
    if not align:
        try:
            check_same_grid(prediction, reference, files)
        except InputError as error:
            hint = "or, as both hold several label ids, let --align bring them together by the places where they touch"
            raise InputError(f"{error}, {hint}") from error
    report, moved = compare_segments(prediction, reference, align, files=files)
    return moved, {**report, "names": dict(names or {}), "findings": findings(report, names)}
