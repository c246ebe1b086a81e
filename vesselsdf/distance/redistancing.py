"""Signed distance fields in mm from fields that are no distances, their zero set kept in its place.

Strategy. The wall crosses the axis between two voxel centres of different sign where the field does, interpolated
linearly. Distances to discs there are right, but the field that they make does not pass zero at just those places: two
neighbours may be nearest to two different discs. So the voxels at the wall get the input's values times factors `c > 0`
instead, as near as possible to the factors that would make distances of them. Between neighbours `i` inside and `j`
outside the crossing moves by the difference of `log c` on the logistic scale,

    logit(share') = logit(share) + log c_i - log c_j,

so "no crossing moves by more than `STILL`" bounds differences of `log c`: a convex set, not empty (all factors equal),
onto which the wanted factors are projected step by step.
"""

import numpy as np
from jaxtyping import Float, Float32, Int, Num
from scipy import sparse

from vesselsdf.distance.far import fill_far
from vesselsdf.distance.near import band_box, band_field, near_distance, reach, require_wall
from vesselsdf.distance.search import check_band, checked_spacing
from vesselsdf.distance.walls import Crossings, walls_of_field
from vesselsdf.errors import InputError

STILL = 0.02
"""How far a crossing may move along its grid edge, in edges."""
ROUNDS = 300
TINY = 1e-30
"""Voxels; what lies outside by less still lies outside in float32."""


def redistance(
    sdf: Num[np.ndarray, "x y z"], spacing: tuple[float, float, float], band: float | None = None
) -> Float32[np.ndarray, "x y z"]:
    """A true signed distance in mm with the zero set of a field that need not be one, such as a network's.

    The wall crosses the axis between two voxel centres of different sign where the field does, interpolated linearly;
    no crossing moves by more than 0.02 of a voxel's edge. The sign of every voxel is the field's (zero is inside).

    Args:
        sdf: (X, Y, Z), negative inside, in any unit: only its signs and its course around zero count.
        spacing: voxel edge lengths in mm.
        band: in mm; values beyond are clipped to +-band. None: exact everywhere.

    Raises:
        InputError: NaN or infinite values, a field that does not change sign, or a bad spacing or band.

    >>> field = 7 * np.array([-1.5, -0.5, 0.5, 1.5])[:, None, None]
    >>> redistance(field, (1.0, 1.0, 1.0)).ravel().tolist()
    [-1.5, -0.5, 0.5, 1.5]
    """
    steps = checked_spacing(spacing)
    check_band(band)
    if not (sdf.size and np.isfinite(sdf.min()) and np.isfinite(sdf.max())):
        raise InputError(f"the field of shape {sdf.shape} holds NaN or infinite values (or no voxel); replace them.")
    inside = sdf <= 0
    require_wall(inside, "region at or below zero of the field")
    box = band_box(inside, steps, band)
    walls = walls_of_field(sdf[box], steps)
    result = band_field(inside.shape, band)
    field, near = result[box], reach(steps, band)
    near_distance(field, walls, steps, near)
    _hold_wall(field, sdf[box], steps)
    if band is None or band > near:
        fill_far(field, inside[box], steps, near, np.inf if band is None else band, walls)
    np.negative(field, out=field, where=inside[box])
    return result


def _hold_wall(
    distance: Float32[np.ndarray, "x y z"], sdf: Num[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]
) -> None:
    """Replace the distances of the voxels at the wall by multiples of the field that leave its crossings in place."""
    pairs = Crossings.of(sdf <= 0, pad=0)
    voxels, owners = np.unique(np.concatenate([pairs.low, pairs.high]), return_inverse=True)
    place = np.unravel_index(voxels, sdf.shape)
    size = np.abs(sdf[place].astype(np.float64))
    size /= size.max()
    # A voxel of value zero lies on the wall whatever its factor.
    wanted = np.log(np.maximum(distance[place], TINY)) - np.log(np.maximum(size, TINY))
    at_low, at_high = np.split(owners, 2)
    # No voxel at the wall is farther from it than its neighbour across it.
    most = np.log(np.linalg.norm(spacing)) - np.log(np.maximum(size, TINY))
    factors = np.exp(_projected(wanted, most, size, at_low, at_high))
    distance[place] = np.where(size > 0, np.maximum(size * factors, TINY), 0)


def _projected(
    wanted: Float[np.ndarray, " n"],
    highest: Float[np.ndarray, " n"],
    size: Float[np.ndarray, " n"],
    low: Int[np.ndarray, " m"],
    high: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " n"]:
    """Logarithms of factors near the wanted ones, none above `highest`, with which no crossing moves too far."""
    a, b = size[low], size[high]
    here = (a > 0) & (b > 0)
    low, high, share = low[here], high[here], (a / np.where(here, a + b, 1.0))[here]
    still = 0.95 * STILL  # room for the rounding to float32
    share = np.clip(share, 1e-12, 1 - 1e-12)
    logit = np.log(share) - np.log1p(-share)
    most, least = np.full(len(share), np.inf), np.full(len(share), -np.inf)
    up, down = share + still < 1, share > still
    most[up] = np.log((share[up] + still) / (1 - share[up] - still)) - logit[up]
    least[down] = np.log((share[down] - still) / (1 - share[down] + still)) - logit[down]
    result = np.minimum(wanted, highest)
    for _ in range(ROUNDS):
        difference = result[low] - result[high]
        excess = np.maximum(difference - most, 0) + np.minimum(difference - least, 0)
        wrong = np.flatnonzero(np.abs(excess) > 1e-4)
        if not len(wrong):
            return result
        # Each voxel goes the mean of what its own pairs ask for, each pair asking half of its excess of both.
        voxels = np.concatenate([low[wrong], high[wrong]])
        push = np.concatenate([-excess[wrong], excess[wrong]]) / 2
        asked = np.bincount(voxels, minlength=len(result))
        result += np.bincount(voxels, push, minlength=len(result)) / np.maximum(asked, 1)
        np.minimum(result, highest, out=result)
    # What is left over is a wall on which the field's slope jumps: one factor for all of its piece.
    linked = sparse.coo_array((np.ones(len(low), np.int8), (low, high)), shape=(len(result),) * 2)
    count, piece = sparse.csgraph.connected_components(linked, directed=False)
    bad = np.zeros(count, bool)
    bad[piece[low[wrong]]] = True
    mean = np.bincount(piece, result) / np.bincount(piece)
    np.minimum.at(mean, piece, highest)
    return np.where(bad[piece], mean[piece], result)
