"""Distances between the surfaces of two masks, in mm: NSD, HD95, ASSD, and where the surfaces are farthest apart.

Strategy: the surface consists of elements, one in each cube of eight neighbouring voxels that are not all alike, each
with the area that marching cubes would give it on this grid (as in surface-distance, Nikolov et al. 2021). The distance
from each element to the nearest element of the other mask is found once, and all metrics are read off the two lists.
Beyond the border of the volume lies background, so a vessel that leaves the volume has a surface there, in both masks.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from vesselsdf.marching import CORNERS, MIDPOINTS, bounding_box, case_codes, table

# Thin surfaces are near each other, and a tree over their elements is then far cheaper than a distance transform of the
# box. Elements farther than this (in voxels) are few, or the masks differ so much that the transform is the better way.
NEAR = 16.0
FEW = 20_000

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SurfaceDistances:
    """The surface elements of two masks and the distance of each to the other mask's surface."""

    prediction: Float[np.ndarray, " p"]  # mm to the reference's surface
    reference: Float[np.ndarray, " r"]  # mm to the prediction's surface
    prediction_areas: Float[np.ndarray, " p"]  # mm2
    reference_areas: Float[np.ndarray, " r"]  # mm2
    prediction_indices: Float[np.ndarray, "p 3"]  # voxel index of each element, between voxel centres
    reference_indices: Float[np.ndarray, "r 3"]

    @property
    def both_empty(self) -> bool:
        """Neither mask has a surface, hence neither has a voxel."""
        return len(self.prediction) == len(self.reference) == 0

    @property
    def one_empty(self) -> bool:
        """One of the masks has no voxel."""
        return (len(self.prediction) == 0) != (len(self.reference) == 0)


def surface_distances(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"], spacing: Spacing
) -> SurfaceDistances:
    """Surface elements of two masks on one grid (`spacing` in mm), their distances to the other surface, inf if empty.

    >>> a = np.zeros((9, 9, 9), bool); a[2:5, 2:5, 2:5] = True
    >>> b = np.roll(a, 2, axis=0)
    >>> float(surface_distances(a, b, (0.5, 1.0, 1.0)).prediction.max())
    1.0
    """
    box = joint_box(prediction, reference)
    corners = np.array([part.start for part in box])
    cells_p, cells_r = (_surface_cells(mask[box]) for mask in (prediction, reference))
    steps = np.asarray(spacing, dtype=float)
    shape = tuple(part.stop - part.start + 1 for part in box)
    return SurfaceDistances(
        prediction=_nearest(cells_p[0], cells_r[0], steps, shape),
        reference=_nearest(cells_r[0], cells_p[0], steps, shape),
        prediction_areas=_case_areas(spacing)[cells_p[1]],
        reference_areas=_case_areas(spacing)[cells_r[1]],
        prediction_indices=cells_p[0] - 0.5 + corners,
        reference_indices=cells_r[0] - 0.5 + corners,
    )


def nsd(distances: SurfaceDistances, tolerance: float | int) -> float:
    """Normalised surface Dice (Nikolov et al. 2021): share, 0 to 1, of both surfaces' area within `tolerance` mm.

    Of each surface the area that lies within the tolerance of the other one, summed, over the sum of both areas.
    Both empty: 1. One empty: 0.
    """
    if distances.both_empty:
        return 1.0
    # Distances are sums of voxel edges, often exactly the tolerance; rounding must not decide then.
    tolerance = tolerance * (1 + 1e-6)
    near = distances.prediction_areas[distances.prediction <= tolerance].sum()
    near += distances.reference_areas[distances.reference <= tolerance].sum()
    return float(near / (distances.prediction_areas.sum() + distances.reference_areas.sum()))


def hd95(distances: SurfaceDistances, percent: float | int = 95) -> float:
    """95th percentile Hausdorff distance, mm, 0 to inf: the larger of both directions, weighted by surface area.

    In each direction, the least distance that at least 95% of the surface's area does not exceed (Nikolov et al. 2021).
    Both empty: 0. One empty: inf.
    """
    if distances.both_empty:
        return 0.0
    if distances.one_empty:
        return math.inf
    return max(
        _percentile(distances.prediction, distances.prediction_areas, percent),
        _percentile(distances.reference, distances.reference_areas, percent),
    )


def assd(distances: SurfaceDistances) -> float:
    """Average symmetric surface distance, mm, 0 to inf: mean over the area of both surfaces (Heimann et al. 2009).

    Both empty: 0. One empty: inf.
    """
    if distances.both_empty:
        return 0.0
    if distances.one_empty:
        return math.inf
    both = np.concatenate([distances.prediction, distances.reference])
    return float(np.average(both, weights=np.concatenate([distances.prediction_areas, distances.reference_areas])))


def farthest(
    distances: SurfaceDistances, spacing: Spacing, apart: float | int, most: int = 5
) -> list[tuple[str, np.ndarray, float]]:
    """The worst places: (whose surface, voxel index, mm), worst first, at least `apart` mm from each other.

    "prediction" marks surface that the reference has not, "reference" surface that the prediction has not. Empty where
    one mask is empty: there is no place then that is worse than another.
    """
    if distances.one_empty or distances.both_empty:
        return []
    away = np.concatenate([distances.prediction, distances.reference])
    indices = np.concatenate([distances.prediction_indices, distances.reference_indices])
    points = indices * spacing
    left = np.flatnonzero(away > 0)
    worst: list[tuple[str, np.ndarray, float]] = []
    while len(left) and len(worst) < most:
        k = left[np.argmax(away[left])]
        whose = "prediction" if k < len(distances.prediction) else "reference"
        worst.append((whose, indices[k], float(away[k])))
        left = left[np.linalg.norm(points[left] - points[k], axis=1) > apart]
    return worst


def joint_box(a: Bool[np.ndarray, "x y z"], b: Bool[np.ndarray, "x y z"]) -> tuple[slice, slice, slice]:
    """The smallest box of voxels that holds both masks; of size zero if both are empty."""
    boxes = [bounding_box(mask) for mask in (a, b) if mask.any()]
    if not boxes:
        return slice(0, 0), slice(0, 0), slice(0, 0)
    low = np.min([box[0] for box in boxes], axis=0).tolist()
    high = np.max([box[1] for box in boxes], axis=0).tolist()
    x, y, z = (slice(start, stop + 1) for start, stop in zip(low, high, strict=True))
    return x, y, z


def _surface_cells(mask: np.ndarray) -> tuple[Int[np.ndarray, "n 3"], Shaped[np.ndarray, " n"]]:
    """Cubes of eight voxels that hold both kinds: their indices in the padded box, and their cases."""
    codes = case_codes(np.pad(mask, 1))
    cells = np.flatnonzero((codes > 0) & (codes < 255))
    return np.stack(np.unravel_index(cells, codes.shape), axis=1), codes.ravel()[cells]


@cache
def _case_areas(spacing: Spacing) -> Float[np.ndarray, "256"]:
    """Area (mm2) of the marching-cubes triangles of each case of a cube of eight voxels.

    Bent loops can be filled in several ways; the mean over the 48 images of the cube does not depend on the choice, so
    flipped and turned volumes have the same areas.
    """
    _, count, triangles = table()
    inside = np.arange(256)[:, None] >> np.arange(8) & 1
    areas = []
    for axes in permutations(range(3)):
        steps = np.array(spacing)[list(axes)]
        a, b, c = (MIDPOINTS[triangles[:, k]] * steps for k in range(3))
        each = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
        of_case = np.bincount(np.repeat(np.arange(256), count), each, minlength=256)
        corners = CORNERS[:, axes] @ np.array([1, 2, 4])
        areas += [of_case[inside @ (1 << (corners ^ mirror))] for mirror in range(8)]
    return np.mean(areas, axis=0)


def _nearest(cells: np.ndarray, others: np.ndarray, steps: np.ndarray, shape: tuple) -> Float[np.ndarray, " n"]:
    """Distance (mm) from each cell to the nearest of the others."""
    if len(cells) == 0 or len(others) == 0:
        return np.full(len(cells), np.inf)
    tree = cKDTree(others * steps)
    distance, _ = tree.query(cells * steps, distance_upper_bound=NEAR * steps.max())
    far = np.flatnonzero(np.isinf(distance))
    if len(far) <= FEW:
        distance[far] = tree.query(cells[far] * steps)[0]
        return distance
    free = np.ones(shape, bool)
    free[tuple(others.T)] = False
    # The coordinates of the nearest cell take a third of the memory that the distances of the whole box would.
    nearest = distance_transform_edt(free, sampling=steps, return_distances=False, return_indices=True)
    where = tuple(cells[far].T)
    distance[far] = np.linalg.norm((nearest[(slice(None), *where)].T - cells[far]) * steps, axis=1)
    return distance


def _percentile(values: np.ndarray, weights: np.ndarray, percent: float | int) -> float:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    # Rounding of the sums must not push the percentile one element further.
    return float(values[order][np.searchsorted(passed, passed[-1] * percent / 100 * (1 - 1e-12))])
