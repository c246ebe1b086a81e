"""Exact homotopic thinning: a centred skeleton with the same components, loops and cavities as the mask, always.

Strategy: a voxel is removed only while it is a simple point (`neighbourhood.simple`), one at a time in effect: voxels
whose coordinates have equal parities are never 26-neighbours, so the simple ones among them can be removed together,
and eight such sub-lattices make a pass. Voxels are taken in the order of their depth below the wall, so that what is
left lies in the middle (distance-ordered homotopic thinning, Pudney 1998); a voxel with exactly one neighbour ends a
branch and stays. Spurs that do not leave the vessel they come off are taken away at last (`pruning`).

Removing a simple voxel is a deformation retraction of the union of closed voxels, so beta0, beta1 and beta2 cannot
change, for any input: bars of even width, solid cubes, hollow shells (which stay closed surfaces), noise.
"""

from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt32
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import as_mask
from vesselsdf.topology.neighbourhood import CENTRE, Voxels, simple
from vesselsdf.topology.pruning import prune

# Depth is followed in steps of a quarter of a voxel: coarser ones leave spurs, finer ones only cost passes.
STEPS_PER_VOXEL = 4
MAX_STEPS = 1000
# Half of the slope of a wall; no vessel widens that fast along its axis.
END_SLOPE = 0.5


def thin(mask: Shaped[np.ndarray, "..."], sdf: Shaped[np.ndarray, "..."] | None = None) -> Bool[np.ndarray, "..."]:
    """Skeleton of a mask (X, Y, Z): one-voxel-wide curves with the mask's beta0, beta1 and beta2 (26/6).

    mask: (X, Y, Z) boolean (or integers, non-zero is vessel). The skeleton is a subset of it.
    sdf: (X, Y, Z), mm, negative inside: the order of removal, from the wall inwards. Without it, the distance to the
        background in voxels is used; the outside of the box is background.

    Ends of branches are kept; cavities stay enclosed by a closed surface of voxels. Raises InputError for what is no
    3D mask, and for an `sdf` of another shape or with NaN inside the vessel.

    >>> bar = np.ones((2, 2, 9), bool)
    >>> int(thin(bar).sum())
    9
    """
    mask = as_mask(mask)
    voxels = crop(mask)
    if voxels.members.size == 0:
        return np.zeros(mask.shape, bool)
    if sdf is None:
        depth = np.sqrt(squared_depth(voxels))
        order = smoothed(voxels, depth)
    else:
        order = depth = depth_in_field(mask, sdf)
    ends = Ends(voxels, depth)
    skeleton = peel(voxels, steps(order * STEPS_PER_VOXEL), ends)
    skeleton = prune(skeleton, ends.depth, voxels.shape)
    # The foot of a spur is left as a bump on the line, no longer needed to connect anything.
    rest = replace(voxels, members=skeleton)
    return voxels.in_box(peel(rest, np.zeros(skeleton.size, np.int64), ends))


def collapse(mask: Bool[np.ndarray, "x y z"], keep: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """A small set of voxels between `keep` and `mask` onto which `mask` retracts.

    keep: a subset of `mask`, both (X, Y, Z). Simple voxels outside it are removed until there are none; ends of
    branches are not spared. The inclusion of the result into `mask` is a homotopy equivalence that fixes `keep`.

    >>> bar = np.ones((2, 2, 9), bool)
    >>> int(collapse(bar, np.zeros_like(bar)).sum())
    1
    """
    voxels = crop(mask)
    if voxels.members.size == 0:
        return np.zeros(mask.shape, bool)
    kept = keep[mask]
    return voxels.in_box(peel(voxels, np.where(kept, -1, 0)))


@dataclass(frozen=True)
class Cropped:
    """The voxels of a mask in a box around them that is padded by one voxel: flat indices (C order) into `shape`."""

    members: np.ndarray
    shape: tuple[int, int, int]
    corner: tuple[int, int, int]
    full: tuple[int, ...]

    def in_box(self, voxels: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "x y z"]:
        """A mask of the original shape with these voxels."""
        result = np.zeros(self.full, bool)
        coordinates = np.unravel_index(voxels, self.shape)
        result[tuple(c + start for c, start in zip(coordinates, self.corner, strict=True))] = True
        return result


def crop(mask: Bool[np.ndarray, "x y z"]) -> Cropped:
    """The members of a mask within their padded bounding box, in C order of the mask."""
    used = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if used[0].size == 0:
        return Cropped(np.zeros(0, np.int64), (2, 2, 2), (0, 0, 0), mask.shape)
    box = np.pad(mask[tuple(slice(u[0], u[-1] + 1) for u in used)], 1)
    x, y, z = (int(u[0]) - 1 for u in used)
    return Cropped(np.flatnonzero(box), box.shape, (x, y, z), mask.shape)


def squared_depth(voxels: Cropped) -> Int64[np.ndarray, " n"]:
    """Squared distance in voxels from each member to the nearest background voxel (outside of the box included).

    Exact, one axis after the other (Saito and Toriwaki 1994), for members only: at step `k` along an axis just those
    are visited whose distance so far exceeds `k`. Thick bodies, where that is slow, take scipy's transform.
    """
    members, (_, ny, nz) = voxels.members, voxels.shape
    box = np.zeros(int(np.prod(voxels.shape)), np.int64)
    box[members] = 1
    position = np.arange(members.size)
    breaks = np.flatnonzero(np.diff(members) != 1) + 1  # between the runs along z
    starts = np.repeat(np.append(0, breaks), np.diff(np.append(np.append(0, breaks), members.size)))
    ends = np.repeat(np.append(breaks, members.size), np.diff(np.append(np.append(0, breaks), members.size)))
    along_z = np.minimum(position - starts, ends - 1 - position) + 1
    if along_z.sum() > 20 * box.size:
        box_mask = (box > 0).reshape(voxels.shape)
        return np.rint(ndimage.distance_transform_edt(box_mask).reshape(-1)[members] ** 2).astype(np.int64)
    box[members] = along_z**2
    for step in (nz, ny * nz):
        best = box[members]
        active, k = np.arange(members.size), 1
        while (active := active[best[active] > k * k]).size:
            beside = members[active]
            nearest = np.minimum(box[beside + k * step], box[beside - k * step]) + k * k
            best[active] = np.minimum(best[active], nearest)
            k += 1
        box[members] = best
    return box[members]


def smoothed(voxels: Cropped, depth: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mean depth over the 3x3x3 neighbourhood of each member, 0 outside.

    Depths in a mask take few values, and in thin vessels nearly all are equal. The mean tells corners from flat walls
    and the middle from its surroundings: with it, hardly any bump stands long enough to look like a branch.
    """
    box = np.zeros(int(np.prod(voxels.shape)), np.float32)
    box[voxels.members] = depth
    _, ny, nz = voxels.shape
    total = np.zeros(voxels.members.size, np.float64)
    for x, y, z in np.ndindex(3, 3, 3):
        total += box[voxels.members + ((x - 1) * ny + y - 1) * nz + z - 1]
    return total / 27


def depth_in_field(mask: Bool[np.ndarray, "x y z"], sdf: np.ndarray) -> Float[np.ndarray, " n"]:
    """Depth of the members below the wall in voxels, from a field whose unit is found from its slope inside."""
    if sdf.shape != mask.shape:
        raise InputError(f"sdf has shape {sdf.shape} and mask {mask.shape}; give both on the same grid.")
    depth = -sdf[mask].astype(np.float64)
    if not np.isfinite(depth).all():
        raise InputError("sdf has NaN or infinite values inside the mask; give a finite distance there.")
    slopes = []
    for axis in range(3):
        low, high = np.moveaxis(mask, axis, 0)[:-1], np.moveaxis(mask, axis, 0)[1:]
        field = np.moveaxis(sdf, axis, 0)
        pair = low & high
        slopes.append(np.abs(field[1:][pair].astype(np.float64) - field[:-1][pair]))
    # A distance changes by one spacing per voxel along its gradient; most voxels see less along the axes.
    spacing = np.percentile(np.concatenate(slopes), 95) if any(s.size for s in slopes) else 0.0
    return depth / spacing if spacing > 0 else np.zeros_like(depth)


def steps(depth: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Whole steps of depth from 0; at most MAX_STEPS, so that a wild field does not make one pass per voxel."""
    _, order = np.unique(np.floor(depth), return_inverse=True)
    deepest = int(order.max())
    return order * MAX_STEPS // deepest if deepest > MAX_STEPS else order


def peel(voxels: Cropped, order: Int64[np.ndarray, " n"], ends: "Ends | None" = None) -> Int64[np.ndarray, " m"]:
    """What is left when simple members are removed in rising `order` until there are none.

    Those of order -1 stay; with `ends`, ends of branches stay too.
    """
    state = Voxels(voxels.shape, voxels.members)
    x, y, z = np.unravel_index(voxels.members, voxels.shape)
    group = np.where(order < 0, -1, order * 8 + (x % 2) * 4 + (y % 2) * 2 + z % 2)
    by_group = np.argsort(group, kind="stable")
    sorted_members, sorted_groups = voxels.members[by_group], group[by_group]
    pending = [np.zeros(0, np.int64)] * 8
    seen = [np.zeros(0, np.uint32)] * 8  # the neighbourhood with which each pending voxel was found not removable
    for step in range(int(order.max()) + 1):
        bounds = np.searchsorted(sorted_groups, step * 8 + np.arange(9))
        for lattice in range(8):
            new = sorted_members[bounds[lattice] : bounds[lattice + 1]]
            pending[lattice] = np.concatenate([pending[lattice], new])
            seen[lattice] = np.concatenate([seen[lattice], np.zeros(new.size, np.uint32)])
        while any([sweep(state, pending, seen, lattice, ends) for lattice in range(8)]):
            pass
    fixed = sorted_members[: np.searchsorted(sorted_groups, 0)]
    return np.concatenate([fixed, *pending])


@no_type_check
def sweep(state: Voxels, pending: list, seen: list, lattice: int, ends: "Ends | None") -> bool:
    """Remove the removable voxels of one sub-lattice; True if there were any. Updates the lists in place."""
    voxels = pending[lattice]
    codes = state.neighbourhoods(voxels)
    changed = np.flatnonzero(codes != seen[lattice])
    if changed.size == 0:
        return False
    codes = codes[changed]
    removable = simple(codes)
    if ends is not None:
        removable &= ~ends.found(voxels[changed], codes)
    seen[lattice][changed] = codes
    gone = changed[removable]
    if gone.size == 0:
        return False
    state.remove(voxels[gone])
    left = np.ones(voxels.size, bool)
    left[gone] = False
    pending[lattice], seen[lattice] = voxels[left], seen[lattice][left]
    return True


class Ends:
    """Which voxels end a branch: those with one neighbour left, unless the mask gets much deeper right beside them.

    Along the middle of a vessel the depth changes slowly (it is the radius). From the wall inwards it rises by one per
    voxel: what sticks out with such a slope is a bump of the wall, or the cap of a vessel beyond the centre of its
    last cross-section, and is not kept. Depths are compared up to two voxels away, no farther: a thicker vessel that
    runs alongside, at least one background voxel away, has no great depth there and cannot eat the thin one up.
    """

    def __init__(self, voxels: Cropped, depth: Float[np.ndarray, " n"]):
        cube = np.indices((5, 5, 5)).reshape(3, -1) - 2
        length = np.sqrt((cube**2).sum(axis=0))
        near = (length > 0) & (length <= 2)
        self.steps = (cube[0] * voxels.shape[1] * voxels.shape[2] + cube[1] * voxels.shape[2] + cube[2])[near]
        self.rises = (END_SLOPE * length[near]).astype(np.float32)
        self.depth = np.zeros(int(np.prod(voxels.shape)), np.float32)
        self.depth[voxels.members] = depth

    @no_type_check
    def found(self, voxels: Int64[np.ndarray, " n"], codes: UInt32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether each voxel, with its neighbourhood as it is now, is the end of a branch."""
        ends = np.bitwise_count(codes & ~CENTRE) == 1
        single = np.flatnonzero(ends)
        beside = np.clip(voxels[single, None] + self.steps, 0, self.depth.size - 1)
        rise = self.depth[beside] - self.depth[voxels[single], None]
        ends[single] = (rise < self.rises).all(axis=1)
        return ends
