"""The centreline graph of a blockwise reconstruction: blocks are thinned apart, and their skeletons fit together.

`thin-1`, `thin-2`, ...: each block is thinned with a halo (`topology.thinning_parts`), again with a wider one where its
neighbours found something else, until all agree: the skeleton is that of the whole. Spurs are taken off, branches
traced, centred and measured in one process, which holds the skeleton, and of the field near the vessels (`Band`) what
it looks at; not the volume.

Cavities are filled first, as a graph cannot follow closed surfaces: those of up to `CAVITY` voxels along each axis.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float32, Int64
from scipy import ndimage

from vesselsdf.blockwise.band import EDGE, Band
from vesselsdf.blockwise.plan import Block, Plan, mark
from vesselsdf.field_store import FieldStore
from vesselsdf.graph import finished
from vesselsdf.skeleton import prune, voxel_graph
from vesselsdf.topology.neighbourhood import SparseVoxels
from vesselsdf.topology.thinning import Ends, without_spurs
from vesselsdf.topology.thinning_parts import OUTSIDE, STAYS, times

HALO = 16
"""Voxels around a block that are thinned along at first; twice as many each time."""
CAVITY = 16
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


def centreline(folder: Path, plan: Plan, store: FieldStore, turn: int) -> nx.MultiGraph:
    """The graph of `graph.centreline_graph`, from what the last turn of thinning left."""
    voxels = np.concatenate(list(_skeletons(folder, plan, turn)))
    # Depths are looked at two voxels away.
    shape = plan.shape[0] + 4, plan.shape[1] + 4, plan.shape[2] + 4
    x, y, z = voxels.T + 2
    members = np.sort((x * shape[1] + y) * shape[2] + z)
    band = Band(plan.shape, plan.spacing, _parts(folder, plan, store, turn), folder)

    def depth(places: Int64[np.ndarray, "..."]) -> np.ndarray:
        index = [one - 2 for one in np.unravel_index(places, shape)]
        nearest = [np.clip(one, 0, n - 1) for one, n in zip(index, plan.shape, strict=True)]
        inside = np.all([one == other for one, other in zip(index, nearest, strict=True)], axis=0)
        return np.maximum(-band.at(tuple(nearest)).astype(np.float64) / plan.spacing, 0.0) * inside

    left = without_spurs(SparseVoxels(shape, members), members, Ends(shape, depth))
    places = np.stack(np.unravel_index(left, shape), axis=1) - 2
    graph = voxel_graph(places, band.spacing, lambda voxels: -band.at(tuple(voxels.T)).astype(np.float64))
    prune(graph, band.voxel)
    return finished(graph, band, np.array(plan.affine), np.zeros(3, int))


def _skeletons(folder: Path, plan: Plan, turn: int) -> Iterator[Int64[np.ndarray, "n 3"]]:
    """The voxels that stay, block by block."""
    for block in plan.blocks(THIN):
        low, high = plan.box(block)
        with np.load(mark(folder, f"{THIN}-{turn}", block), allow_pickle=False) as found:
            stay = found["own"][found["own_times"] == STAYS]
        yield np.stack(np.unravel_index(stay, tuple(high - low)), axis=1) + low


def _parts(folder: Path, plan: Plan, store: FieldStore, turn: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First voxel and field of blocks that hold vessels or touch some, on whole bricks."""
    for block in plan.blocks(THIN):
        with np.load(mark(folder, f"{THIN}-{turn}", block), allow_pickle=False) as found:
            if found["ring"].size == 0:
                continue
        low, high = plan.box(block)
        low, high = low // EDGE * EDGE, np.minimum(-(-high // EDGE) * EDGE, plan.shape)
        yield low, _filled(plan, store, low, high)


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
    field = stored.copy()
    hollow, _ = ndimage.label(stored > 0)
    for number, box in enumerate(ndimage.find_objects(hollow), start=1):
        within = all(part.start > 0 and part.stop < n for part, n in zip(box, stored.shape, strict=True))
        if within and max(part.stop - part.start for part in box) <= CAVITY:
            wide = tuple(slice(part.start - 1, part.stop + 1) for part in box)
            field[wide][hollow[wide] == number] = stored[wide].min()
    return field[tuple(map(slice, low - first, high - first))]
