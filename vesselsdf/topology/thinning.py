"""Exact homotopic thinning: a centred skeleton with the same components, loops and cavities as the mask, always.

Strategy: a voxel is removed only while it is a simple point (`neighbourhood.simple`), one at a time in effect: voxels
whose coordinates have equal parities are never 26-neighbours, so the simple ones among them can be removed together,
and eight such sub-lattices make a pass. Voxels are taken in the order of their depth below the wall, so that what is
left lies in the middle (distance-ordered homotopic thinning, Pudney 1998); a voxel with exactly one neighbour ends a
branch and stays. Spurs that do not leave the vessel they come off are taken away at last (`pruning`).

Removing a simple voxel is a deformation retraction of the union of closed voxels, so beta0, beta1 and beta2 cannot
change, for any input: bars of even width, solid cubes, hollow shells (which stay closed surfaces), noise.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped, UInt32
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import as_mask
from vesselsdf.topology.neighbourhood import CENTRE, Voxels, VoxelSet, simple
from vesselsdf.topology.pruning import Depth, prune

# Depth is followed in steps of a quarter of a voxel: coarser ones leave spurs, finer ones only cost passes.
STEPS_PER_VOXEL = 4
MAX_STEPS = 1000
DEEPEST = 1e6  # voxels
# Half of the slope of a wall; no vessel widens that fast along its axis.
END_SLOPE = 0.5
# What a full neighbourhood adds to the depth, in voxels, where there is no field: in the mask of a thin vessel nearly
# all depths are equal. Half of it leaves spurs, twice as much shortens the ends of thin vessels.
CROWDING = 1.0


def thin(mask: Shaped[np.ndarray, "..."], sdf: Shaped[np.ndarray, "..."] | None = None) -> Bool[np.ndarray, "..."]:
    """Skeleton of a mask (X, Y, Z): one-voxel-wide curves with the mask's beta0, beta1 and beta2 (26/6).

    mask: (X, Y, Z) boolean (or integers, non-zero is vessel). The skeleton is a subset of it.
    sdf: (X, Y, Z), mm, negative inside: the order of removal, from the wall inwards. Without it, the distance to the
        background in voxels, plus the share of vessel among the 27 voxels around; the outside of the box is background.

    Ends of branches are kept; cavities stay enclosed by a closed surface of voxels. Raises InputError for what is no
    3D mask, and for an `sdf` of another shape or with NaN inside the vessel; outside the mask it is not read.

    >>> bar = np.ones((2, 2, 9), bool)
    >>> int(thin(bar).sum())
    9
    """
    mask = as_mask(mask)
    voxels = crop(mask)
    if sdf is not None:
        depth = depth_in_field(voxels, sdf)
    if voxels.members.size == 0:
        return np.zeros(mask.shape, bool)
    state = Voxels(voxels.shape, voxels.members)
    if sdf is not None:
        order = depth
    else:
        depth = np.sqrt(squared_depth(voxels))
        order = depth + CROWDING / 27 * np.bitwise_count(state.neighbourhoods(voxels.members))
    ends = Ends(voxels.shape, depths_of(voxels.members, depth))
    skeleton = peel(state, voxels.members, steps(order * STEPS_PER_VOXEL), ends)
    return voxels.in_box(without_spurs(state, skeleton, ends))


def without_spurs(
    state: VoxelSet, skeleton: Int64[np.ndarray, " n"], ends: "Ends", fixed: Int64[np.ndarray, " f"] | None = None
) -> Int64[np.ndarray, " m"]:
    """A skeleton, all that is left in `state`, pruned until there are no spurs; `fixed` members stay."""
    held = None if fixed is None else np.isin(skeleton, fixed)
    while (left := prune(state, skeleton, ends.depth, held)).size < skeleton.size:
        # The foot of a spur is left as a bump on the line, no longer needed to connect anything.
        order = np.zeros(left.size, np.int64) if fixed is None else -np.isin(left, fixed).astype(np.int64)
        skeleton = peel(state, left, order, ends)
        held = None if fixed is None else np.isin(skeleton, fixed)
    return skeleton


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
    state = Voxels(voxels.shape, voxels.members)
    return voxels.in_box(peel(state, voxels.members, np.where(keep[voxels.places()], -1, 0)))


@dataclass(frozen=True)
class Cropped:
    """The voxels of a mask in a box around them that is padded by one voxel: flat indices into `shape`, rising."""

    members: np.ndarray
    shape: tuple[int, int, int]
    corner: tuple[int, int, int]
    full: tuple[int, ...]

    def places(self, voxels: Int64[np.ndarray, " n"] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices (x, y, z) into the whole array of the voxels given, or else of all members."""
        found = np.unravel_index(self.members if voxels is None else voxels, self.shape)
        x, y, z = (index + start for index, start in zip(found, self.corner, strict=True))
        return x, y, z

    def in_box(self, voxels: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, "x y z"]:
        """A mask of the original shape with these voxels."""
        result = np.zeros(self.full, bool)
        result[self.places(voxels)] = True
        return result


def crop(mask: Bool[np.ndarray, "x y z"]) -> Cropped:
    """The members of a mask within their padded bounding box."""
    fortran = mask.flags.f_contiguous and not mask.flags.c_contiguous
    in_memory = mask.T if fortran else mask
    found = np.unravel_index(np.flatnonzero(in_memory), in_memory.shape)
    if found[0].size == 0:
        return Cropped(np.zeros(0, np.int64), (2, 2, 2), (0, 0, 0), mask.shape)
    along = found[::-1] if fortran else found
    x, y, z = (int(index.min()) - 1 for index in along)
    nx, ny, nz = (int(index.max()) + 2 - start for index, start in zip(along, (x, y, z), strict=True))
    members = ((along[0] - x) * ny + along[1] - y) * nz + along[2] - z
    return Cropped(np.sort(members) if fortran else members, (nx, ny, nz), (x, y, z), mask.shape)


def squared_depth(voxels: Cropped) -> Int64[np.ndarray, " n"]:
    """Squared distance in voxels from each member to the nearest background voxel (outside of the box included).

    Exact, one axis after the other (Saito and Toriwaki 1994), for members only: at step `k` along an axis just those
    are visited whose distance so far exceeds `k`. Thick bodies, where that is slow, take scipy's transform.
    """
    members, (_, ny, nz) = voxels.members, voxels.shape
    box = np.zeros(int(np.prod(voxels.shape)), np.int32)
    box[members] = 1
    breaks = np.flatnonzero(np.diff(members) != 1) + 1  # between the runs along z
    bounds = np.concatenate([[0], breaks, [members.size]])
    length = np.diff(bounds)
    position = np.arange(members.size)
    along_z = np.minimum(position - np.repeat(bounds[:-1], length), np.repeat(bounds[1:] - 1, length) - position) + 1
    if along_z.sum() > 20 * box.size:
        box_mask = (box > 0).reshape(voxels.shape)
        return np.rint(ndimage.distance_transform_edt(box_mask).reshape(-1)[members] ** 2).astype(np.int64)
    # No more than half of the box along any axis: keeps numbers and the search small.
    box[members] = best = (np.minimum(along_z, min(voxels.shape) // 2) ** 2).astype(np.int32)
    for step in (nz, ny * nz):
        active, k = np.arange(members.size), 1
        while (active := active[best[active] > k * k]).size:
            beside = members[active]
            nearest = np.minimum(box[beside + k * step], box[beside - k * step]) + k * k
            best[active] = np.minimum(best[active], nearest)
            k += 1
        box[members] = best
    return best.astype(np.int64)


def depth_in_field(voxels: Cropped, sdf: np.ndarray) -> Float[np.ndarray, " n"]:
    """Depth of the members below the wall in voxels, from a field whose unit is found from its slope inside."""
    if sdf.shape != voxels.full:
        raise InputError(f"sdf has shape {sdf.shape} and mask {voxels.full}; give both on the same grid.")
    if sdf.dtype.kind not in "fiu":
        raise InputError(f"sdf has dtype {sdf.dtype}; give real numbers, mm.")
    members = voxels.members
    depth = -sdf[voxels.places()].astype(np.float64)
    if not np.isfinite(depth).all():
        raise InputError("sdf has NaN or infinite values inside the mask; give a finite distance there.")
    slopes = []
    faces = np.zeros(members.size, np.int8)  # shared with other members
    with np.errstate(over="ignore", invalid="ignore"):  # fields that are no distances may hold any number
        for step in (1, voxels.shape[2], voxels.shape[1] * voxels.shape[2]):
            beside = index_of(members + step, members)
            here = np.flatnonzero(beside >= 0)
            beside = beside[here]
            faces[here] += 1
            faces[beside] += 1
            slopes.append(np.abs(depth[beside] - depth[here]))
        # A distance changes by one spacing per voxel along its gradient; most voxels see less along the axes. Vessels
        # one voxel wide have no slope inside, but voxels at the wall are at most one spacing deep.
        spacing = max(np.percentile(v, 95) for v in (np.concatenate(slopes), depth[faces < 6], [0.0]) if len(v))
        return np.clip(depth / spacing, -DEEPEST, DEEPEST) if spacing > 0 else np.zeros_like(depth)


def index_of(wanted: Int64[np.ndarray, "..."], members: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "..."]:
    """Place of each in the rising list `members`, which is not empty; -1 for those that are not in it."""
    place = np.minimum(np.searchsorted(members, wanted), members.size - 1)
    return np.where(members[place] == wanted, place, -1)


def steps(depth: Float[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Whole steps of depth from 0; at most MAX_STEPS, so that a wild field does not make one pass per voxel."""
    level = np.floor(depth)
    level -= level.min()
    if level.max() < level.size:
        whole = level.astype(np.int64)
        order = (np.cumsum(np.bincount(whole) > 0) - 1)[whole]  # steps that are not used do not count
    else:
        order = np.unique(level, return_inverse=True)[1]
    deepest = int(order.max())
    return order * MAX_STEPS // deepest if deepest > MAX_STEPS else order


def peel(
    state: VoxelSet,
    members: Int64[np.ndarray, " n"],
    order: Int64[np.ndarray, " n"],
    ends: "Ends | None" = None,
    events: "Events | None" = None,
) -> Int64[np.ndarray, " m"]:
    """What is left, rising, when simple members are taken out of `state` in rising `order` until there are none.

    Those of order -1 stay; with `ends`, ends of branches stay too. `events`: what happens meanwhile to voxels that are
    in `state` and no members, and where all that happens to members is noted.
    """
    events = events or Events()
    x, y, z = (
        place + start for place, start in zip(np.unravel_index(members, state.shape), events.corner, strict=True)
    )
    # 16 bits hold all groups, and numpy sorts them in linear time.
    group = np.where(order < 0, -1, order * 8 + (x % 2) * 4 + (y % 2) * 2 + z % 2).astype(np.int16)
    by_group = np.argsort(group, kind="stable")
    sorted_members, sorted_groups = members[by_group], group[by_group]
    pending = [np.zeros(0, np.int64)] * 8
    seen = [np.zeros(0, np.uint32)] * 8  # the neighbourhood with which each pending voxel was found not removable
    last = int(sorted_groups[-1]) // 8
    bounds = np.searchsorted(sorted_groups, np.arange(8 * (last + 1) + 1, dtype=np.int16)).tolist()
    for step in range(max(last, events.last) + 1):
        for lattice in range(8 if step <= last else 0):
            new = sorted_members[bounds[8 * step + lattice] : bounds[8 * step + lattice + 1]]
            pending[lattice] = np.concatenate([pending[lattice], new])
            seen[lattice] = np.concatenate([seen[lattice], np.zeros(new.size, np.uint32)])
        again = True
        turn = 0
        while again or events.follow(step, turn):
            again = False
            for lattice in range(8):
                gone = sweep(state, pending, seen, lattice, ends)
                again |= events.happen(state, gone, step, turn, lattice)
            turn += 1
    fixed = sorted_members[: bounds[0]]
    return np.sort(np.concatenate([fixed, *pending]))


class Events:
    """Removals of voxels and when they happen, which `peel` notes, and which it is told of voxels that are not its own.

    The time of a removal is one number: step, turn within the step, sub-lattice within the turn. `corner`: where the
    box of flat indices begins in the whole volume, for the sub-lattices to be those of the whole.
    """

    TURNS = 1 << 20

    def __init__(
        self,
        corner: tuple[int, int, int] = (0, 0, 0),
        voxels: Int64[np.ndarray, " n"] | None = None,
        times: Int64[np.ndarray, " n"] | None = None,
        noting: bool = False,
    ):
        self.corner = corner
        self.noted: list[tuple[int, np.ndarray]] | None = [] if noting else None
        self.given: dict[int, np.ndarray] = {}
        if voxels is not None and times is not None and voxels.size:
            by_time = np.argsort(times, kind="stable")
            when, first = np.unique(times[by_time], return_index=True)
            self.given = dict(zip(when.tolist(), np.split(voxels[by_time], first[1:]), strict=True))
        self.coming = sorted({time // 8 for time in self.given}, reverse=True)

    @property
    def last(self) -> int:
        """The last step in which something is given to happen."""
        return self.coming[0] // self.TURNS if self.coming else -1

    def follow(self, step: int, turn: int) -> bool:
        """Whether anything is given to happen in this turn of the step or a later one."""
        now = step * self.TURNS + turn
        while self.coming and self.coming[-1] < now:
            self.coming.pop()
        return bool(self.coming) and self.coming[-1] // self.TURNS == step

    def happen(self, state: VoxelSet, gone: Int64[np.ndarray, " n"], step: int, turn: int, lattice: int) -> bool:
        """Note what has gone from `state`, take out what is given to go now; whether there was any of either."""
        time = (step * self.TURNS + turn) * 8 + lattice
        if self.noted is not None and gone.size:
            self.noted.append((time, gone))
        others = self.given.get(time)
        if others is not None:
            state.remove(others)
        return others is not None or gone.size > 0


@no_type_check
def sweep(state: VoxelSet, pending: list, seen: list, lattice: int, ends: "Ends | None") -> Int64[np.ndarray, " n"]:
    """Remove the removable voxels of one sub-lattice, and tell which. Updates the lists in place."""
    voxels = pending[lattice]
    codes = state.neighbourhoods(voxels)
    changed = np.flatnonzero(codes != seen[lattice])
    if changed.size == 0:
        return changed
    codes = codes[changed]
    removable = simple(codes)
    if ends is not None:
        removable &= ~ends.found(voxels[changed], codes)
    seen[lattice][changed] = codes
    at = changed[removable]
    gone = voxels[at]
    if gone.size == 0:
        return gone
    state.remove(gone)
    left = np.ones(voxels.size, bool)
    left[at] = False
    pending[lattice], seen[lattice] = voxels[left], seen[lattice][left]
    return gone


def depths_of(members: Int64[np.ndarray, " n"], depth: Float[np.ndarray, " n"]) -> Depth:
    """Depth at places in a box of which `members`, rising, have one."""

    def depth_at(places: Int64[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        index = index_of(places, members)
        return np.where(index < 0, 0.0, depth[index])

    return depth_at


class Ends:
    """Which voxels end a branch: those with one neighbour left, unless the mask gets much deeper right beside them.

    Along the middle of a vessel the depth changes slowly (it is the radius). From the wall inwards it rises by one per
    voxel: what sticks out with such a slope is a bump of the wall, or the cap of a vessel beyond the centre of its
    last cross-section, and is not kept. Depths are compared up to two voxels away, no farther: a thicker vessel that
    runs alongside, at least one background voxel away, has no great depth there and cannot eat the thin one up.
    """

    def __init__(self, shape: tuple[int, int, int], depth: Depth):
        """`shape`: of the box; `depth`: at flat indices into it, 0 outside the mask."""
        cube = np.indices((5, 5, 5)).reshape(3, -1) - 2
        length = np.sqrt((cube**2).sum(axis=0))
        near = (length > 0) & (length <= 2)
        self.steps = (cube[0] * shape[1] * shape[2] + cube[1] * shape[2] + cube[2])[near]
        self.rises = END_SLOPE * length[near]
        self.depth = depth

    @no_type_check
    def found(self, voxels: Int64[np.ndarray, " n"], codes: UInt32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Whether each voxel, with its neighbourhood as it is now, is the end of a branch."""
        ends = np.bitwise_count(codes & ~CENTRE) == 1
        single = ends.nonzero()[0]
        if single.size:
            rise = self.depth(voxels[single, None] + self.steps) - self.depth(voxels[single, None])
            ends[single] = (rise < self.rises).all(axis=1)
        return ends
