"""Overlap of two masks: Dice, precision, recall, and clDice with skeletons that keep the mask's topology."""

import numpy as np
from jaxtyping import Bool, Int

from vesselsdf.marching import bounding_box
from vesselsdf.topology.thinning import thin

Mask = Bool[np.ndarray, "x y z"]


def dice(prediction: Mask, reference: Mask) -> float:
    """Dice coefficient (Dice 1945), 0 to 1: `2 |P & R| / (|P| + |R|)`. Both empty: 1. One empty: 0.

    >>> dice(np.array([[[True, True]]]), np.array([[[True, False]]]))
    0.6666666666666666
    """
    return _share(2 * int(np.count_nonzero(prediction & reference)), prediction, reference, with_both=True)


def precision(prediction: Mask, reference: Mask) -> float:
    """Share of the predicted voxels that are in the reference, 0 to 1: `|P & R| / |P|`. Both empty 1, one empty 0."""
    return _share(int(np.count_nonzero(prediction & reference)), prediction, reference)


def recall(prediction: Mask, reference: Mask) -> float:
    """Share of the reference's voxels that were predicted, 0 to 1: `|P & R| / |R|`. Both empty 1, one empty 0."""
    return precision(reference, prediction)


def cldice(prediction: Mask, reference: Mask, spacing: tuple[float, float, float]) -> float:
    """Centreline Dice (Shit et al. 2021, eqs. 1 to 3), 0 to 1; `spacing` in mm. Both empty: 1. One empty: 0.

    Harmonic mean of the share of P's skeleton that lies in R and the share of R's skeleton that lies in P. Skeletons
    are thinned by exact homotopy, so no component is lost, on a grid of the finest spacing in all directions: on thick
    slices each millimetre of vessel counts the same whichever way it runs, and a skeleton is centred in mm.
    """
    p, r = skeleton_indices(prediction, spacing), skeleton_indices(reference, spacing)
    if len(p) == 0 or len(r) == 0:
        return 1.0 if len(p) == len(r) else 0.0
    topology_precision = float(np.mean(reference[tuple(p.T)]))
    topology_sensitivity = float(np.mean(prediction[tuple(r.T)]))
    if topology_precision + topology_sensitivity == 0:
        return 0.0
    return 2 * topology_precision * topology_sensitivity / (topology_precision + topology_sensitivity)


def skeleton_indices(mask: Mask, spacing: tuple[float, float, float]) -> Int[np.ndarray, "n 3"]:
    """Points of the skeleton, at most the finest spacing apart, each as the index of the voxel (X, Y, Z) it lies in.

    Each voxel is divided into cells of about the finest spacing before thinning. That copies the shape as it is, so it
    has the mask's components, loops and cavities; interpolating a distance would break one-voxel-wide oblique vessels.

    >>> thick = np.ones((1, 1, 3), bool)
    >>> skeleton_indices(thick, (1.0, 1.0, 2.0))[:, 2].tolist()
    [0, 0, 1, 1, 2, 2]
    """
    if not mask.any():
        return np.zeros((0, 3), dtype=int)
    low, high = bounding_box(mask)
    voxel_of = []
    for first, last, step in zip(low, high, spacing, strict=True):
        voxels = last - first + 1
        cells = max(voxels, round(voxels * step / min(spacing)))
        voxel_of.append(first + ((np.arange(cells) + 0.5) * voxels / cells).astype(int))
    fine = np.argwhere(thin(mask[np.ix_(*voxel_of)]))
    return np.stack([index[cell] for index, cell in zip(voxel_of, fine.T, strict=True)], axis=1)


def _share(hits: int, whole: np.ndarray, other: np.ndarray, with_both: bool = False) -> float:
    size, other_size = int(np.count_nonzero(whole)), int(np.count_nonzero(other))
    if size == 0 or other_size == 0:
        return 1.0 if size == other_size else 0.0
    return hits / (size + other_size if with_both else size)
