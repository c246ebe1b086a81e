"""How far up a pyramid each block of the volume is safe: scale boundaries are found, not drawn by hand.

The grid of level 0 is cut into blocks. In a block, a level is safe if, against level 0, no component, loop or cavity is
lost or invented there, no terminal is lost or new there, no path has its narrowest place there and another radius, and
the centreline inside the block is as long as it was. A block's coarsest safe level is the last one before the first
unsafe one. What has no place (numbers of trees, the length of the whole) does not count for a block, nor does what
only follows from a change elsewhere (whether a terminal is reached, how long the way to it is).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from vesselsdf.topology.decisions import Description

# Changes that lie where they are: a terminal that is lost or new, and a narrowest place with another radius.
LOCAL_DECISIONS = ("paths", "paths.minimum_radius")


def block_safety(
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    levels: Sequence[dict[str, Any]],
    descriptions: Sequence[Description | None],
    edge: int,
    length_tolerance: float | int,
) -> dict[str, Any]:
    """The coarsest safe level of every block that has vessel in it.

    mask: vessel at level 0; affine: of its grid. levels: rows of the report, with `lost`, `invented`, `spacing` and, if
    there are decisions, `changed`. descriptions: of the levels' trees. edge: of a block, voxels of level 0.

    Gives `edge_voxels`, `blocks` (how many), `safe_up_to` (how many have each level as their coarsest safe one) and
    `list`, each with `voxels` (first and last + 1 index per axis), `low` and `high` (mm, corners of the box along the
    axes of the world), `coarsest_safe_level` and `reasons` (what happens there at
    the next level, each with how often; empty at the last).

    A centreline inside a block may differ in length by the tolerance or by one voxel of the level, whichever is more:
    ends move by that much when they are rounded off.
    """
    shape = np.array(mask.shape)
    count = -(-shape // edge)
    used = occupied(mask, edge)
    lengths = [lengths_in_blocks(found, affine, count, edge) for found in descriptions]
    safe = np.zeros(tuple(count), np.int64)
    still = np.ones(tuple(count), bool)
    reasons: dict[tuple[int, ...], list[str]] = {}
    for level in range(1, len(levels)):
        row = levels[level]
        where: dict[tuple[int, ...], list[str]] = {}
        for text, place in local_changes(row):
            where.setdefault(block_at(place, affine, count, edge), []).append(text)
        first, now = lengths[0], lengths[level]
        if first is not None:
            now = np.zeros_like(first) if now is None else now
            slack = np.maximum(length_tolerance * first, max(row["spacing"]))
            for block in np.argwhere(np.abs(now - first) > slack):
                key = tuple(block.tolist())
                where.setdefault(key, []).append(f"centreline {now[key]:.1f} mm instead of {first[key]:.1f} mm")
        for key, texts in where.items():
            if still[key]:
                still[key] = False
                reasons[key] = [text if n == 1 else f"{n} x {text}" for text, n in Counter(texts).items()]
        safe[still] = level
    found = [
        box_of(block, edge, shape, affine)
        | {"coarsest_safe_level": int(safe[tuple(block)]), "reasons": reasons.get(tuple(block.tolist()), [])}
        for block in np.argwhere(used)
    ]
    counts = np.bincount([block["coarsest_safe_level"] for block in found], minlength=len(levels))
    return {"edge_voxels": edge, "blocks": len(found), "safe_up_to": counts.tolist(), "list": found}


def occupied(mask: Bool[np.ndarray, "x y z"], edge: int) -> Bool[np.ndarray, "a b c"]:
    """Which blocks have vessel in them."""
    for axis in range(3):
        mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], edge), axis=axis)
    return mask


def local_changes(row: dict[str, Any]) -> list[tuple[str, Sequence[float]]]:
    """What changed at a level and has a place of its own, in words, with the place (mm)."""
    names = ("component", "loop", "cavity")
    found = [(f"{names[entry['dimension']]} {entry['kind']}", entry["place"]) for entry in row["lost"]]
    found += [(f"{names[entry['dimension']]} invented", entry["place"]) for entry in row["invented"]]
    for change in row.get("changed", []):
        if change["decision"] in LOCAL_DECISIONS:
            if change["decision"] == "paths":
                text = "terminal lost" if change["after"] is None else "new terminal"
            else:
                text = f"minimum radius {change['after']:.2g} mm instead of {change['before']:.2g} mm"
            found.append((text, change["place"]))
    return found


def block_at(
    place: Sequence[float], affine: Float[np.ndarray, "4 4"], count: Int64[np.ndarray, "3"], edge: int
) -> tuple[int, ...]:
    """The block in which a place (mm) lies; outside the grid, the nearest one."""
    index = np.linalg.solve(affine[:3, :3], np.asarray(place, float) - affine[:3, 3])
    return tuple(np.clip(np.floor((index + 0.5) / edge).astype(int), 0, count - 1).tolist())


def lengths_in_blocks(
    found: Description | None, affine: Float[np.ndarray, "4 4"], count: Int64[np.ndarray, "3"], edge: int
) -> Float[np.ndarray, "a b c"] | None:
    """Length of centreline (mm) in every block; None without a description of the centreline."""
    if found is None or not len(found.lengths):
        return None
    index = np.linalg.solve(affine[:3, :3], (found.middles - affine[:3, 3]).T).T
    block = np.clip(np.floor((index + 0.5) / edge).astype(np.int64), 0, count - 1)
    flat = np.ravel_multi_index(tuple(block.T), tuple(count.tolist()))
    return np.bincount(flat, found.lengths, minlength=int(np.prod(count))).reshape(tuple(count.tolist()))


def box_of(
    block: Int64[np.ndarray, "3"], edge: int, shape: Int64[np.ndarray, "3"], affine: Float[np.ndarray, "4 4"]
) -> dict[str, Any]:
    """A block's voxels and its box in mm."""
    low, high = block * edge, np.minimum((block + 1) * edge, shape)
    corners = np.stack(np.meshgrid(*np.stack([low, high], axis=1) - 0.5, indexing="ij"), axis=-1).reshape(-1, 3)
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    return {
        "voxels": np.stack([low, high], axis=1).tolist(),
        "low": world.min(axis=0).tolist(),
        "high": world.max(axis=0).tolist(),
    }
