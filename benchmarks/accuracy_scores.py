"""How `accuracy.py` scores a prediction, and a curve of scores over thresholds."""

import numpy as np
from accuracy_cases import SPACING, TestCase
from scipy.spatial import cKDTree

from vesselsdf.metrics import evaluate
from vesselsdf.overlap import cldice, dice
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.thinning import thin
from vesselsdf.volume import Volume

KEYS = (
    *("dice", "cldice", "nsd", "hd95", "beta0_error", "beta1_error", "diu0", "diu1", "diu2"),
    *("tree_length_detected", "tree_length_precision", "node_f1", "terminals_reached", "radius_error"),
)
THIN = 1.5
"""Voxels of radius below which a vessel counts as thin."""
NEAR = 1.5
"""Voxels from the true centreline within which a predicted one counts as it; in thicker vessels, their radius."""


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The 26-connected component with the most voxels."""
    from scipy.ndimage import label

    pieces, count = label(mask, np.ones((3, 3, 3)))
    return mask if count == 0 else pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])


def score(mask: np.ndarray, case: TestCase) -> dict[str, float]:
    """The table of metrics, and how much of thin vessels was found."""
    found = evaluate(Volume(mask, case.sdf.affine), case.sdf)
    table = {key: float(found[key]) for key in KEYS}
    return table | {"diu": table["diu0"] + table["diu1"] + table["diu2"], "thin_detected": thin_detected(mask, case)}


def thin_detected(mask: np.ndarray, case: TestCase) -> float:
    """Share of the length of true thin vessels with a predicted skeleton nearby; NaN without any."""
    thin_points = case.points[case.radii < THIN * SPACING]
    if len(thin_points) == 0:
        return float("nan")
    skeleton = np.argwhere(thin(mask))
    if len(skeleton) == 0:
        return 0.0
    away = cKDTree(case.sdf.to_world(skeleton)).query(thin_points)[0]
    return float((away <= NEAR * SPACING).mean())


def quick_score(mask: np.ndarray, case: TestCase) -> dict[str, float]:
    """What a curve over thresholds shows."""
    truth = case.sdf.array <= 0
    found, wanted = betti_numbers(mask), betti_numbers(truth)
    return {
        "dice": dice(mask, truth),
        "cldice": cldice(mask, truth, (SPACING,) * 3),
        "beta0_error": float(abs(found[0] - wanted[0])),
        "beta1_error": float(abs(found[1] - wanted[1])),
        "thin_detected": thin_detected(mask, case),
    }
