"""Homotopic thinning of a volume in parts, with the result of the whole: parts tell each other when voxels go.

`thinning.peel` removes voxels at definite times (step, turn, sub-lattice), and whether a voxel goes at a time depends
on nothing but its neighbourhood just then and depths around. So the time at which a voxel goes is a function of the
times at which its 26 neighbours go, as far as they are earlier: **times of all voxels that fit together in this way are
those of the whole** (by induction over time there is just one such set).

A part is peeled together with a halo of voxels around it, given the times of those beyond (at first as if there were
only background). If the times found in the ring of voxels next to the part are those that the parts found to which
these voxels belong, for all parts, everything fits together. Else the parts that differ are peeled again, with a wider
halo. (With the same halo it need not end: two voxels of different parts, each of which can go once the other has gone,
would put each other off for ever. In a halo that holds both they stay.) A halo that reaches as far as the volume always
ends it.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64

from vesselsdf.topology.neighbourhood import Voxels
from vesselsdf.topology.thinning import STEPS_PER_VOXEL, Ends, Events, depths_of, peel

STAYS = np.iinfo(np.int64).max
"""Time of a voxel that is not removed."""
OUTSIDE = -1
"""Time of the background."""
DEEPEST_STEP = 4095


def times(
    mask: Bool[np.ndarray, "x y z"],
    depth: Float[np.ndarray, "x y z"],
    corner: tuple[int, int, int],
    known: Int64[np.ndarray, "x y z"] | None = None,
    own: tuple[slice, slice, slice] | None = None,
) -> Int64[np.ndarray, "x y z"]:
    """When each voxel of a box goes, `STAYS` or `OUTSIDE`.

    mask, depth: of the box; depth in voxels, from the wall inwards. corner: index of its first voxel in the volume.
    known: times of voxels that are not in the part `own` of the box; without them all the box is peeled.
    """
    padded = np.pad(mask, 1)
    shape = padded.shape
    members = np.flatnonzero(padded)
    result = np.where(mask, STAYS, OUTSIDE).astype(np.int64)
    if members.size == 0:
        return result
    where = tuple(index - 1 for index in np.unravel_index(members, shape))
    depths = depth[where].astype(np.float64)
    order = np.clip(np.floor(depths * STEPS_PER_VOXEL), 0, DEEPEST_STEP).astype(np.int64)
    mine = np.ones(members.size, bool)
    others = when = members[:0]
    if known is not None and own is not None:
        inside = np.zeros(mask.shape, bool)
        inside[own] = True
        mine = inside[where]
        going = ~mine & (known[where] != STAYS)
        others, when = members[going], known[where][going]
        result[~inside] = known[~inside]
        if not mine.any():
            return result
    x, y, z = corner
    events = Events((x - 1, y - 1, z - 1), others, when, noting=True)
    peel(Voxels(shape, members), members[mine], order[mine], Ends(shape, depths_of(members, depths)), events)
    flat = np.pad(result, 1).reshape(-1)
    for time, gone in events.noted or ():
        flat[gone] = time
    return flat.reshape(shape)[1:-1, 1:-1, 1:-1].copy()
