"""Betti and Euler curves: how many components, loops and cavities `{sdf <= t}` has, for many thresholds in one pass.

Strategy: components and cavities from the births and deaths of a filtration's merges (see `topology.persistence`), the
Euler number from its critical voxels: one whose contact leaves `d` parts of its surface free and consists of `c` parts
changes it by `d - c`. Loops follow from `beta1 = beta0 + beta2 - chi`, so that no loop is ever traced.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Num, Shaped

from vesselsdf.errors import InputError
from vesselsdf.topology.filtration import Filtration
from vesselsdf.topology.places import check_field


@dataclass(frozen=True)
class BettiCurves:
    """Numbers of the sublevel sets `{sdf <= t}` for each threshold; 26-connected vessel, 6-connected background."""

    thresholds: Float64[np.ndarray, " n"]  # mm
    beta0: Int64[np.ndarray, " n"]
    beta1: Int64[np.ndarray, " n"]
    beta2: Int64[np.ndarray, " n"]

    @property
    def euler(self) -> Int64[np.ndarray, " n"]:
        """Euler numbers `beta0 - beta1 + beta2`."""
        return self.beta0 - self.beta1 + self.beta2


def betti_curves(sdf: Shaped[np.ndarray, "..."], thresholds: Num[np.ndarray, " n"]) -> BettiCurves:
    """Betti numbers of `{sdf <= t}` for each of some thresholds (mm, in any order), padded by background.

    sdf: (X, Y, Z), mm. The cost is that of the largest threshold alone, whatever their number. Equal to
    `betti.betti_numbers(sdf <= t)` for each. Raises InputError for what is no finite 3D field, and NaN thresholds.

    >>> two_drops = np.array([-2.0, 1.0, -1.0]).reshape(1, 1, 3)
    >>> betti_curves(two_drops, np.array([-3, -2, -1, 0, 1])).beta0.tolist()
    [0, 1, 2, 2, 1]
    """
    check_field(sdf)
    thresholds = np.asarray(thresholds, np.float64)
    if np.isnan(thresholds).any():
        raise InputError("thresholds holds NaN; give distances in mm.")
    zeros = np.zeros(thresholds.size, np.int64)
    # Voxels at the largest threshold belong to its set, so the limit is the next number above.
    filtration = Filtration(sdf, np.nextafter(thresholds.max(initial=-np.inf), np.inf))
    if filtration.voxels.size == 0:
        return BettiCurves(thresholds, zeros, zeros.copy(), zeros.copy())

    def reached(voxels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
        return np.searchsorted(np.sort(filtration.values(voxels)), thresholds, side="right")

    merged, hollow = filtration.components, filtration.cavities
    entered = filtration.keys[hollow.dies] != filtration.keys[0]
    beta0 = reached(filtration.voxels[filtration.codes == 0]) - reached(merged.dies)
    beta2 = reached(hollow.born) - reached(hollow.dies[entered])
    order = filtration.order
    change = np.concatenate([[0], np.cumsum((filtration.parts[1] - filtration.parts[0])[order])])
    euler = change[reached(filtration.voxels)]
    return BettiCurves(thresholds, beta0, beta0 + beta2 - euler, beta2)
