"""Taking short spurs off a skeleton: branches that end inside the vessel they come off.

A spur is a chain of voxels from an end to the first voxel with two ways on. It is no branch when its end lies within
the ball around that voxel whose radius is the depth there, so that it does not reach the wall of its parent, nor when
it is a single voxel. Where several chains meet, only the shortest is taken at a time: the parent keeps its own end.

Along a chain every voxel has the one before and the one after it as only neighbours. Taken off from the end, each has
one neighbour left and is a simple point: beta0, beta1 and beta2 stay as they are.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int64

from vesselsdf.topology.betti import join
from vesselsdf.topology.neighbourhood import adjacent_pairs


def prune(
    skeleton: Int64[np.ndarray, " n"], depth: Float32[np.ndarray, " size"], shape: tuple[int, int, int]
) -> Int64[np.ndarray, " m"]:
    """The skeleton without spurs. Voxels are flat indices into a padded box of that shape; depth in voxels."""
    cube = np.indices((3, 3, 3)).reshape(3, -1).T - 1
    steps = np.delete(cube, 13, axis=0) @ np.array([shape[1] * shape[2], shape[2], 1])
    present = np.zeros(depth.size, bool)
    present[skeleton] = True
    # A chain within a ball cannot wind about much. Fields that are no distances may claim any depth.
    reach = int(2 * np.clip(depth[skeleton].max(), 0, max(shape))) + 2
    while (chains := spurs(skeleton, present, depth, shape, steps, reach)).size:
        present[chains] = False
        skeleton = skeleton[present[skeleton]]
    return skeleton


def spurs(
    skeleton: Int64[np.ndarray, " n"],
    present: Bool[np.ndarray, " size"],
    depth: Float32[np.ndarray, " size"],
    shape: tuple[int, int, int],
    steps: Int64[np.ndarray, " 26"],
    reach: int,
) -> Int64[np.ndarray, " m"]:
    """The voxels of the spurs to take off now: of those that meet, the shortest."""
    ends = skeleton[present[skeleton[:, None] + steps].sum(axis=1) == 1]
    tips, stops, paths = walk(ends, present, steps, reach)
    place = np.stack(np.unravel_index(np.concatenate([tips, stops]), shape), axis=-1)
    tip_place, stop_place = place[: tips.size], place[tips.size :]
    inside = ((tip_place - stop_place) ** 2).sum(axis=1) <= np.maximum(depth[stops].clip(0) ** 2, 3)
    length = (paths >= 0).sum(axis=1)
    # Chains meet where their last voxels are the same or touch.
    forks, fork = np.unique(stops, return_inverse=True)
    if forks.size == 0:
        return forks
    voxels = np.stack(np.unravel_index(forks, shape), axis=-1)
    group = join(forks.size, *adjacent_pairs(voxels))[1][fork]
    order = np.lexsort((length, group))
    shortest = order[np.unique(group[order], return_index=True)[1]]
    taken = paths[shortest[inside[shortest]]]
    return taken[taken >= 0]


def walk(
    ends: Int64[np.ndarray, " n"], present: Bool[np.ndarray, " size"], steps: Int64[np.ndarray, " 26"], reach: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, "m reach"]]:
    """From each end along its chain: (ends, first voxels with two ways on, voxels before those, -1 behind the last).

    Chains longer than `reach`, and those that are a whole component, are left out.
    """
    paths = np.full((ends.size, reach), -1, np.int64)
    current, before = ends.copy(), np.full(ends.size, -1, np.int64)
    walking = np.arange(ends.size)
    found: list[np.ndarray] = [np.zeros(0, np.int64)]
    for step in range(reach):
        beside = current[walking, None] + steps
        ways = present[beside] & (beside != before[walking, None])
        count = ways.sum(axis=1)
        found.append(walking[count > 1])
        onward = count == 1
        walking, following = walking[onward], beside[onward][ways[onward]]
        paths[walking, step] = before[walking] = current[walking]
        current[walking] = following
    arrived = np.sort(np.concatenate(found))
    return ends[arrived], current[arrived], paths[arrived]
