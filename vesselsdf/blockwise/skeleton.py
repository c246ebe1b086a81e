"""The skeleton of a blockwise reconstruction: blocks are thinned apart, and their skeletons fit together.

`thin-1`, `thin-2`, ...: each block is thinned with a halo (`topology.thinning_parts`), again with a wider one where its
neighbours found something else, until all agree: the skeleton is that of the whole. `spurs`: then spurs are taken off
in regions, but for what touches other regions: that stays as it is, so that neighbours see the same.

Cavities are filled first, as a graph cannot follow closed surfaces: those of up to `CAVITY` voxels along each axis.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import ndimage

from vesselsdf.blockwise.band import EDGE, Band
from vesselsdf.blockwise.plan import SPURS, Block, Plan, mark
from vesselsdf.field_store import FieldStore
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.neighbourhood import SparseVoxels
from vesselsdf.topology.thinning import Ends
from vesselsdf.topology.thinning import without_spurs as pruned
from vesselsdf.topology.thinning_parts import OUTSIDE, STAYS, times

HALO = 16
"""Voxels around a block that are thinned along at first; twice as many each time."""
CAVITY = 16
PIECE = 256
"""Voxels along the edge of what is read of the field at a time; a multiple of `EDGE`."""
THIN = "thin"


def thin(folder: Path, plan: Plan, store: FieldStore, turn: int, block: Block) -> dict[str, Any]:
    """Times at which the voxels of a block go, found anew unless those of its neighbours are what it expected."""
    low, high = plan.box(block)
    halo = HALO * 2 ** (turn - 1)
    ring = plan.around(low, high, 1)
    if turn > 1:
        with np.load(mark(folder, f"{THIN}-{turn - 1}", block), allow_pickle=False) as found:
            before = {key: found[key] for key in found.files}
        if np.array_equal(_dense(before["ring"], before["ring_times"], ring), _known(folder, plan, turn - 1, *ring)):
            return before | {"changed": False}
    inner = plan.around(low, high, halo)
    first, last = plan.around(low, high, halo + 1) if turn > 1 else inner
    field = _filled(plan, store, first, last)
    mask, depth = field <= 0, field / np.float32(-plan.spacing)
    if not mask[tuple(map(slice, ring[0] - first, ring[1] - first))].any():
        none = np.zeros(0, np.int64)
        return {"changed": turn == 1, "ring": none, "ring_times": none, "own": none, "own_times": none}
    corner = tuple(first.tolist())
    if turn == 1:
        found_times = times(mask, depth, corner)
    else:
        x, y, z = map(slice, (inner[0] - first).tolist(), (inner[1] - first).tolist())
        found_times = times(mask, depth, corner, _known(folder, plan, turn - 1, first, last), (x, y, z))
    result: dict[str, Any] = {"changed": True}
    for name, (a, b) in (("ring", ring), ("own", (low, high))):
        part = found_times[tuple(map(slice, a - first, b - first))]
        result[name] = np.flatnonzero(part != OUTSIDE)
        result[f"{name}_times"] = part.reshape(-1)[result[name]]
    return result


def settled(folder: Path, plan: Plan, turn: int) -> bool:
    """Whether no block has found anything new in a turn, so that all agree."""
    for block in plan.blocks(THIN):
        with np.load(mark(folder, f"{THIN}-{turn}", block), allow_pickle=False) as found:
            if found["changed"]:
                return False
    return True


def without_spurs(folder: Path, plan: Plan, store: FieldStore, turn: int, region: Block) -> dict[str, Any]:
    """The skeleton `voxels` of a region, (n, 3) in C order, and the depth of the `deepest`, in voxels."""
    low, high = plan.region(region)
    voxels = _thinned(folder, plan, turn, low, high)
    if not len(voxels):
        return {"voxels": voxels, "deepest": 0.0}
    # Depths are looked at two voxels away.
    x, y, z = (high - low + 4).tolist()
    shape = x, y, z
    members = np.ravel_multi_index(tuple((voxels - low + 2).T), shape)
    band = band_near(folder, plan, store, voxels, 2.0)

    def depth(places: Int64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        index = [one + start - 2 for one, start in zip(np.unravel_index(places, shape), low, strict=True)]
        nearest = [np.clip(one, 0, n - 1) for one, n in zip(index, plan.shape, strict=True)]
        inside = np.all([one == other for one, other in zip(index, nearest, strict=True)], axis=0)
        return np.maximum(-band.at(tuple(nearest)).astype(np.float64) / plan.spacing, 0.0) * inside

    touching = ((voxels == low) & (low > 0) | (voxels == high - 1) & (high < plan.shape)).any(axis=1)
    left = pruned(SparseVoxels(shape, members), members, Ends(shape, depth), members[touching])
    voxels = np.stack(np.unravel_index(left, shape), axis=1) - 2 + low
    return {"voxels": voxels, "deepest": depth(left).max()}


def skeleton(folder: Path, plan: Plan, turn: int, low: np.ndarray, high: np.ndarray) -> Int64[np.ndarray, "n 3"]:
    """The voxels in a box of the skeleton without spurs, in C order."""
    found = [np.zeros((0, 3), np.int64)]
    for region in plan.regions(low, high):
        with np.load(mark(folder, f"{SPURS}-{turn}", region), allow_pickle=False) as kept:
            found.append(within(kept["voxels"], low, high))
    return in_order(np.concatenate(found))


def deepest(folder: Path, plan: Plan, turn: int, low: np.ndarray, high: np.ndarray) -> float:
    """Depth of the deepest skeleton voxel of the regions that a box meets, in voxels."""
    found = [0.0]
    for region in plan.regions(low, high):
        with np.load(mark(folder, f"{SPURS}-{turn}", region), allow_pickle=False) as kept:
            found.append(float(kept["deepest"]))
    return max(found)


def band_near(folder: Path, plan: Plan, store: FieldStore, voxels: Int64[np.ndarray, "n 3"], margin: float) -> Band:
    """The field, with small cavities filled, within `margin` voxels of some voxels at least."""
    wanted = np.zeros([-(-n // EDGE) for n in plan.shape], bool)
    wanted[tuple(np.clip(voxels // EDGE, 0, np.array(wanted.shape) - 1).T)] = True
    for axis in range(3):
        ndimage.maximum_filter1d(wanted.view(np.uint8), 2 * math.ceil(margin / EDGE) + 1, axis, wanted.view(np.uint8))
    return Band(plan.shape, plan.spacing, _pieces(plan, store, wanted), folder)


def _pieces(
    plan: Plan, store: FieldStore, wanted: Bool[np.ndarray, "_ _ _"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """First voxel, field and wanted bricks of pieces of the volume that hold such."""
    for index in np.ndindex(*(-(-n // PIECE) for n in plan.shape)):
        low = np.array(index) * PIECE
        high = np.minimum(low + PIECE, plan.shape)
        bricks = wanted[tuple(slice(a, b) for a, b in zip(low // EDGE, -(-high // EDGE), strict=True))]
        if bricks.any():
            yield low, _filled(plan, store, low, high), bricks


def _thinned(folder: Path, plan: Plan, turn: int, low: np.ndarray, high: np.ndarray) -> Int64[np.ndarray, "n 3"]:
    """The voxels in a box that stay when vessels are thinned, in C order."""
    found = [np.zeros((0, 3), np.int64)]
    for block in plan.blocks(THIN):
        first, last = plan.box(block)
        if (last > low).all() and (first < high).all():
            with np.load(mark(folder, f"{THIN}-{turn}", block), allow_pickle=False) as kept:
                stay = kept["own"][kept["own_times"] == STAYS]
            found.append(within(np.stack(np.unravel_index(stay, tuple(last - first)), axis=1) + first, low, high))
    return in_order(np.concatenate(found))


def within(voxels: Int64[np.ndarray, "n 3"], low: np.ndarray, high: np.ndarray) -> Int64[np.ndarray, "m 3"]:
    """Those of some voxels that lie in a box."""
    return voxels[((voxels >= low) & (voxels < high)).all(axis=1)]


def in_order(voxels: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, "n 3"]:
    """Voxels in C order."""
    return voxels[np.lexsort(voxels.T[::-1])]


def _dense(places: np.ndarray, values: np.ndarray, box: tuple[np.ndarray, np.ndarray]) -> Int64[np.ndarray, "_ _ _"]:
    """Times in a box from those that are not `OUTSIDE`."""
    result = np.full(tuple(box[1] - box[0]), OUTSIDE, np.int64)
    result.reshape(-1)[places] = values
    return result


def _known(folder: Path, plan: Plan, turn: int, low: np.ndarray, high: np.ndarray) -> Int64[np.ndarray, "_ _ _"]:
    """Times in a box that the blocks found to which its voxels belong."""
    result = np.full(tuple(high - low), OUTSIDE, np.int64)
    first, last = low // plan.block, -(-high // plan.block)
    for block in np.ndindex(*(last - first)):
        x, y, z = (np.array(block) + first).tolist()
        a, b = plan.box((x, y, z))
        with np.load(mark(folder, f"{THIN}-{turn}", (x, y, z)), allow_pickle=False) as found:
            places, values = found["own"], found["own_times"]
        at = np.stack(np.unravel_index(places, tuple(b - a)), axis=1) + a
        inside = ((at >= low) & (at < high)).all(axis=1)
        result[tuple((at[inside] - low).T)] = values[inside]
    return result


def _filled(plan: Plan, store: FieldStore, low: np.ndarray, high: np.ndarray) -> Float32[np.ndarray, "x y z"]:
    """The field in a box with small cavities filled; what it is at a voxel does not depend on the box."""
    first, last = plan.around(low, high, CAVITY + 1)
    stored = store.read(0, first, last)
    inner = tuple(map(slice, low - first, high - first))
    if betti_numbers(stored <= 0)[2] == 0:  # much cheaper to know than where they are
        return stored[inner]
    field = stored.copy()
    hollow, _ = ndimage.label(stored > 0)
    for number, box in enumerate(ndimage.find_objects(hollow), start=1):
        within = all(part.start > 0 and part.stop < n for part, n in zip(box, stored.shape, strict=True))
        if within and max(part.stop - part.start for part in box) <= CAVITY:
            wide = tuple(slice(part.start - 1, part.stop + 1) for part in box)
            field[wide][hollow[wide] == number] = stored[wide].min()
    return field[inner]
