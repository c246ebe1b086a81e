"""Where a prediction has the wrong topology: the voxels on which its components, loops and cavities hinge.

Let `P` be the prediction's vessel, `G` the true one, `I = P & G` and `U = P | G` (closed voxels, so 26/6; homology over
Z/2). The prediction has the true topology *at the true places* when the four inclusions in

    I < G < U     and     I < P < U

induce isomorphisms on homology: every component, loop and cavity of either mask is drawn inside both of them, nothing
joins, fills or opens it in between, and beta(P) = beta(G) in each dimension.

Strategy. Each chain is made a filtration: first `I`, then the wrong voxels of one kind (missing or false), then those
of the other, within a kind by the rising value of the predicted field. An inclusion is an isomorphism exactly when no
bar that was born before its step dies in it, and no bar that is born in it outlives it. So the voxel at which such a
bar is born or dies is one on which the topology hinges, and since voxels enter by value it is the weakest place: of
a cut the last voxel to close, of a false bridge its thinnest one, of a blob the deepest, of a pin-hole the one that
fills it. (Critical voxels: Hu et al. 2019 and Clough et al. 2020 for persistence without places; Stucki et al.
2023 and Lux et al. 2025 for matching by inclusion.)

All of them lie where prediction and truth disagree about the side, so to move them towards the truth never argues with
a loss on the distance itself. When nothing hinges, the list is empty.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from vesselsdf.errors import InputError
from vesselsdf.topology.persistence import bars
from vesselsdf.topology.places import check_field

OUTSIDE = 3.0
"""Value of the voxels that never enter; steps 1 and 2 of a chain take the values in (0, 1) and (1, 2)."""


def critical_sites(field: Shaped[np.ndarray, "..."], reference: Shaped[np.ndarray, "..."]) -> Int64[np.ndarray, "n 3"]:
    """Voxels (n, 3) at which the predicted field must change its side for its vessel to get the reference's topology.

    field, reference: (X, Y, Z) on one grid, negative inside; vessel is `<= 0`. In C order, each voxel once; empty
    exactly when both vessels have the same components, loops and cavities at the same places. Mending all of them can
    reveal further ones (a cut three voxels long closes one by one). Raises InputError for NaN, or for two shapes.

    >>> truth = np.full((3, 1, 9), 1.0); truth[1] = -1
    >>> cut = truth.copy(); cut[1, 0, 4:6] = 0.5, 0.25
    >>> critical_sites(cut, truth).tolist()
    [[1, 0, 4]]
    """
    field, reference = check_field(field, "field"), check_field(reference, "reference")
    if field.shape != reference.shape:
        raise InputError(f"field has shape {field.shape} and reference {reference.shape}; compare fields on one grid.")
    vessel, truth = field <= 0, reference <= 0
    missing, false = truth & ~vessel, vessel & ~truth
    if not (missing.any() or false.any()):
        return np.zeros((0, 3), np.int64)
    found = [
        _hinges(_chain(field, truth & vessel, first, second)) for first, second in ((missing, false), (false, missing))
    ]
    return np.unique(np.concatenate(found), axis=0)


def _chain(
    field: np.ndarray, common: Bool[np.ndarray, "x y z"], first: np.ndarray, second: np.ndarray
) -> Float[np.ndarray, "x y z"]:
    """The filtration `common < common | first < common | first | second`: 0, then (0, 1), then (1, 2)."""
    values = np.full(field.shape, OUTSIDE, np.float32)
    values[common] = 0
    for step, entering in enumerate((first, second)):
        value = field[entering]
        values[entering] = step + 0.5 + 0.4 * value / (1 + np.abs(value))
    return values


def _hinges(values: Float[np.ndarray, "x y z"]) -> Int64[np.ndarray, "n 3"]:
    """Voxels that give birth or death to the bars which leave a mark on a step of the chain."""
    found = bars(values, OUTSIDE)
    first, last = np.ceil(found.birth), np.ceil(found.death)
    lasting = first < last  # the others come and go within one step
    return np.concatenate([found.born[lasting & (first > 0)], found.dies[lasting & (last < OUTSIDE)]])
