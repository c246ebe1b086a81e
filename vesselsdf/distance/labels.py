"""Signed distance fields in mm from labels: masks, and fractions of voxels.

Strategy: the wall becomes a set of small discs (`walls`). Up to a few voxels from it the distance to the nearest disc
is searched exactly (`search`), beyond that the distance to the nearest place where the wall crosses the grid (`far`).
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Num, Shaped

from vesselsdf.distance.far import fill_far
from vesselsdf.distance.near import band_box, band_field, near_distance, reach, require_wall
from vesselsdf.distance.search import check_band, checked_spacing
from vesselsdf.distance.walls import Walls, walls_of_fractions, walls_of_mask
from vesselsdf.errors import InputError

LEAST = 0.05
"""Voxels from the wall that every voxel centre keeps, so that its sign is that of the input."""


def signed_distance(
    mask: Shaped[np.ndarray, "..."],
    spacing: tuple[float, float, float],
    band: float | None = None,
) -> Float32[np.ndarray, "x y z"]:
    """Signed distance in mm of a binary label, negative inside; the wall lies between voxel centres.

    The wall crosses the axis between every two face neighbours that differ, where a narrow Gaussian mean of the mask
    says, corrected for the curvature of the wall (`vesselsdf.distance.walls`), so that thin vessels do not shrink. The
    mask's topology never changes, on anisotropic grids neither: the sign is always the mask's, and no value is zero.
    On round tubes of radius 1 to 5 voxels the mean error within 3 voxels of the wall is 0.10 to 0.12 voxel, and radii
    of 1.3 voxels and more come out right to 1% on average (1 voxel: 5% too small).

    Args:
        mask: (X, Y, Z), bool or integer, not zero inside the vessel, which is taken to go on beyond the faces of the
            box.
        spacing: voxel edge lengths in mm.
        band: in mm; values beyond are clipped to +-band, and the cost follows the band. None: exact everywhere.

    Raises:
        InputError: the mask is empty or full (it has no wall) or no mask, or the spacing is not positive.

    >>> mask = np.zeros((4, 1, 1), bool)
    >>> mask[:2] = True
    >>> signed_distance(mask, (2.0, 1.0, 1.0)).ravel().tolist()
    [-3.0, -1.0, 1.0, 3.0]
    """
    steps = checked_spacing(spacing)
    check_band(band)
    mask = _checked_mask(mask)
    require_wall(mask, "mask")
    box = band_box(mask, steps, band)
    walls = walls_of_mask(mask[box], steps)
    result = band_field(mask.shape, band)
    _fill(result[box], walls, mask[box], steps, band)
    return result


def partial_volume_distance(
    fraction: Num[np.ndarray, "x y z"], spacing: tuple[float, float, float], band: float | None = None
) -> Float32[np.ndarray, "x y z"]:
    """Signed distance in mm of a partial-volume label: the share of each voxel that is vessel.

    Every voxel at the wall gets the plane that cuts off its fraction (`vesselsdf.distance.walls`), so the wall is known
    to a few hundredths of a voxel. A voxel centre is inside where half of its voxel or more is vessel. Vessels that
    reach one half nowhere (thinner than about 0.4 voxel radius) are not seen: sample such labels more finely.

    Args:
        fraction: (X, Y, Z), 0 to 1. If no voxel is partly vessel it is taken for a mask (see `signed_distance`).
        spacing: voxel edge lengths in mm.
        band: in mm; values beyond are clipped to +-band. None: exact everywhere.

    Raises:
        InputError: fractions outside 0..1 or not finite, none or all of them one half or more, or a bad spacing.

    >>> fraction = np.array([1.0, 1.0, 0.75, 0.0])[:, None, None]
    >>> partial_volume_distance(fraction, (1.0, 1.0, 1.0)).ravel().round(2).tolist()
    [-2.25, -1.25, -0.25, 0.75]
    """
    steps = checked_spacing(spacing)
    check_band(band)
    lowest, highest = (float(fraction.min()), float(fraction.max())) if fraction.size else (np.nan, np.nan)
    if not (lowest >= 0 and highest <= 1):
        raise InputError(
            f"the fractions of shape {fraction.shape} range from {lowest:.4g} to {highest:.4g}; give the share of each "
            "voxel that is vessel, 0 to 1."
        )
    inside = fraction >= 0.5
    if np.array_equal(inside, fraction):
        return signed_distance(inside, spacing, band)
    require_wall(inside, "label (fractions of one half or more)")
    box = band_box(inside, steps, band)
    walls = walls_of_fractions(fraction[box], inside[box], steps)
    result = band_field(inside.shape, band)
    _fill(result[box], walls, inside[box], steps, band)
    return result


def _checked_mask(mask: Shaped[np.ndarray, "..."]) -> Bool[np.ndarray, "x y z"]:
    """The mask as bool; InputError unless it is three-dimensional, of booleans or integers."""
    if mask.ndim != 3 or mask.dtype.kind not in "biu":
        raise InputError(
            f"the mask has shape {mask.shape} and type {mask.dtype}; give three dimensions of booleans or integers "
            "(compare a probability map with a threshold first)."
        )
    return mask if mask.dtype == bool else mask != 0


def _fill(
    field: Float32[np.ndarray, "x y z"],
    walls: Walls,
    inside: Bool[np.ndarray, "x y z"],
    spacing: Float[np.ndarray, "3"],
    band: float | None,
) -> None:
    """Write the signed distance to the walls into `field`."""
    near = reach(spacing, band)
    near_distance(field, walls, spacing, near)
    # A disc can pass through the centre of a neighbouring voxel at a sharp corner; the input still decides the sign.
    np.maximum(field, np.float32(LEAST * spacing.min()), out=field)
    if band is None or band > near:
        fill_far(field, inside, spacing, near, np.inf if band is None else band, walls)
    np.negative(field, out=field, where=inside)
