"""Taking short spurs off a skeleton: branches that end inside the vessel they come off.

A spur is a chain of voxels from an end to the first voxel with two ways on. It is no branch when its end lies within
the ball around that voxel whose radius is the depth there, so that it does not reach the wall of its parent, nor when
it is a single voxel. Where several chains meet, only the shortest is taken at a time: the parent keeps its own end.

Along a chain every voxel has the one before and the one after it as only neighbours. Taken off from the end, each has
one neighbour left and is a simple point: beta0, beta1 and beta2 stay as they are.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int64

from vesselsdf.topology.betti import join
from vesselsdf.topology.neighbourhood import CENTRE, VoxelSet, adjacent_pairs

Depth = Callable[[Int64[np.ndarray, "..."]], Float[np.ndarray, "..."]]


def prune(
    state: VoxelSet,
    skeleton: Int64[np.ndarray, " n"],
    depth: Depth,
    fixed: Bool[np.ndarray, " n"] | None = None,
) -> Int64[np.ndarray, " m"]:
    """The skeleton without the shortest of the spurs that meet; those are taken out of `state` too.

    skeleton: the members of `state`, rising, as flat indices into its box. depth: of such indices, in voxels. fixed:
    members that stay, as do all spurs that they are part of.
    Once is not enough where several meet. Before the next time the feet of the spurs have to be thinned: a bump left
    there makes the end of a vessel look like one more spur.
    """
    # A chain within a ball cannot wind about much. Fields that are no distances may claim any depth.
    reach = int(2 * np.clip(depth(skeleton).max(), 0, max(state.shape))) + 2
    free = skeleton if fixed is None else skeleton[~fixed]
    ends = free[np.bitwise_count(state.neighbourhoods(free)) == 2]
    chains = spurs(state, ends, depth, reach, skeleton[:0] if fixed is None else skeleton[fixed])
    state.remove(chains)
    kept = np.ones(skeleton.size, bool)
    kept[np.searchsorted(skeleton, chains)] = False
    return skeleton[kept]


def spurs(
    state: VoxelSet, ends: Int64[np.ndarray, " n"], depth: Depth, reach: int, fixed: Int64[np.ndarray, " f"]
) -> Int64[np.ndarray, " m"]:
    """The voxels of the chains to take off now: of chains that meet, the shortest."""
    arrived, stops, owner, passed = walk(state, ends, reach)
    if fixed.size:
        held = np.zeros(ends.size, bool)
        held[owner[np.isin(passed, fixed)]] = True
        arrived, stops = arrived[~held[arrived]], stops[~held[arrived]]
    if stops.size == 0:
        return stops
    tip_place, stop_place = (np.stack(np.unravel_index(v, state.shape), axis=-1) for v in (ends[arrived], stops))
    inside = ((tip_place - stop_place) ** 2).sum(axis=1) <= np.maximum(depth(stops).clip(0) ** 2, 3)
    length = np.bincount(owner, minlength=ends.size)[arrived]
    # Chains meet where their last voxels are the same or touch.
    forks, first, fork = np.unique(stops, return_index=True, return_inverse=True)
    group = join(forks.size, *adjacent_pairs(stop_place[first]))[1][fork]
    order = np.lexsort((length, group))
    shortest = order[np.unique(group[order], return_index=True)[1]]
    off = np.zeros(ends.size, bool)
    off[arrived[shortest[inside[shortest]]]] = True
    return passed[off[owner]]


def walk(
    state: VoxelSet, ends: Int64[np.ndarray, " n"], reach: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """From each end along its chain: (numbers of the ends, first voxels with two ways on, owners, voxels passed).

    A voxel that was passed lies before the stop of the chain from the end number `owner`. Chains of more than `reach`
    voxels, and those that are a whole component, have no stop.
    """
    walking, current = np.arange(ends.size), ends
    behind = np.zeros(ends.size, np.uint32)  # the bit of the neighbour that the chain came from
    none = np.zeros(0, np.int64)
    arrived, stops, owner, passed = [none], [none], [none], [none]
    for _ in range(reach):
        ways = state.neighbourhoods(current) & ~(CENTRE | behind)
        count = np.bitwise_count(ways)
        arrived.append(walking[count > 1])
        stops.append(current[count > 1])
        onward = count == 1
        walking, current = walking[onward], current[onward]
        if walking.size == 0:
            break
        owner.append(walking)
        passed.append(current)
        bit = np.bitwise_count(ways[onward] - np.uint32(1))
        current = current + state.steps[bit]
        behind = np.uint32(1) << (np.uint32(26) - bit)
    found = np.concatenate(arrived)
    rising = np.argsort(found)
    return found[rising], np.concatenate(stops)[rising], np.concatenate(owner), np.concatenate(passed)
