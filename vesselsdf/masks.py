"""Somebody's segmentation as a distance field, without losing what it says about topology."""

from typing import Any

import numpy as np
from jaxtyping import Float

from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError
from vesselsdf.false_features import false_features, flipped
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume, isotropic


def mask_distance(source: Volume, name: str) -> Float[np.ndarray, "x y z"]:
    """Signed distance of a mask on its own grid, mm; `name` is named if the mask is vessel everywhere."""
    vessel = source.array > 0
    if vessel.all():
        raise InputError(f"{name} is vessel everywhere, so it has no wall; check the file.")
    return signed_distance(vessel, source.spacing)


def mended_mask(source: Volume, name: str) -> tuple[Volume, list[dict[str, Any]]]:
    """The mask without its false features, and what these were."""
    field = mask_distance(source, name)
    features = false_features(field, source.affine)
    mask = flipped(source.array > 0, features).astype(np.uint8)
    return source.with_array(mask), [one.summary() for one in features]


def mask_field(source: Volume, name: str) -> tuple[Volume, str]:
    """The distance of a mask on the isotropic grid if that keeps its Betti numbers, else on its own; and which it is.

    Interpolating the distance between slices tears thin oblique vessels, which the mask joins by corners: the topology
    that somebody segmented counts for more than cubic voxels.
    """
    field = source.with_array(mask_distance(source, name))
    if max(source.spacing) - min(source.spacing) <= 1e-3 * min(source.spacing):
        return field, "the input's, isotropic"
    even = isotropic(field, min(source.spacing))
    before, after = betti_numbers(source.array > 0), betti_numbers(even.array <= 0)
    if before == after:
        return even, "isotropic"
    return field, f"the input's: on an isotropic grid the Betti numbers would change from {before} to {after}"
