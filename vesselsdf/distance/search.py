"""Least distance from every voxel to many primitives, by branch and bound over blocks of voxels.

Strategy: a distance to a primitive (a wall disc, a round cone) is 1-Lipschitz. The grid is halved recursively into
blocks; a block keeps only the primitives that can still be nearest to one of its voxels, which the Lipschitz bound
decides exactly. So the search approximates nothing, its cost follows the band, and all of it is flat numpy.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float32, Int

from vesselsdf.errors import InputError

_PAIRS_AT_ONCE = 1 << 16  # block-primitive pairs per step: the temporaries stay in the second-level cache

Evaluate = Callable[[Int[np.ndarray, " n"], Float32[np.ndarray, "3 n"]], Callable]


def minimum_over_blocks(
    evaluate: Evaluate,
    count: int,
    shape: tuple[int, int, int],
    spacing: Float[np.ndarray, "3"],
    band: float | None,
    out: Float32[np.ndarray, "x y z"] | None = None,
) -> Float32[np.ndarray, "x y z"]:
    """Minimum over primitives `0..count-1` at every voxel, by branch and bound on an octree of voxel blocks.

    `evaluate(ids, origins)` prepares the pairs (primitive, block origin in mm) and returns a function of an offset in
    mm that gives the distance of each pair at origin + offset. With `c` the centre of a block, `rho` the distance from
    `c` to its outermost voxel centre and `m = min_j d_j(c)`, a 1-Lipschitz primitive with `d_i(c) > m + 2 rho` is
    nearest to no voxel of the block, and one with `d_i(c) > band + rho` is beyond the band on all of it. The result is
    written to `out` if that is given.
    """
    limit = np.float32(np.inf if band is None else band)
    if out is None:
        out = np.empty(shape, np.float32)
    out[:] = limit
    size = 1 << int(max(shape) - 1).bit_length()
    slack = np.float32(1e-5 * np.linalg.norm(np.asarray(shape) * spacing))  # float32 rounding of the distances
    stack: list[tuple] = [(size, np.zeros((3, 1), np.int32), np.array([count]), np.arange(count))]
    while stack:
        size, origins, counts, ids = stack.pop()
        if len(ids) > _PAIRS_AT_ONCE and len(counts) > 1:
            cut = min(max(int(np.searchsorted(np.cumsum(counts), len(ids) // 2)), 1), len(counts) - 1)
            pairs = int(counts[:cut].sum())
            stack.append((size, origins[:, :cut], counts[:cut], ids[:pairs]))
            stack.append((size, origins[:, cut:], counts[cut:], ids[pairs:]))
            continue
        half = max(size // 2, 1)
        rho = np.float32(0.5 * (half - 1) * np.linalg.norm(spacing))
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        at = evaluate(ids, np.repeat((origins * spacing[:, None]).astype(np.float32), counts, axis=1))
        children = []
        for corner in np.ndindex(2, 2, 2) if size > 1 else [(0, 0, 0)]:
            child = origins + half * np.array(corner, np.int32)[:, None]
            valid = (child < np.array(shape)[:, None]).all(0)
            if not valid.any():
                continue
            distance = at((half * np.array(corner) + 0.5 * (half - 1)) * spacing)
            nearest = np.minimum.reduceat(distance, starts)
            if half == 1:
                out[tuple(child[:, valid])] = nearest[valid]
                continue
            reach = np.minimum(nearest + 2 * rho, limit + rho) + slack
            keep = distance <= np.repeat(np.where(valid, reach, -np.float32(np.inf)), counts)
            kept = np.add.reduceat(keep, starts, dtype=np.int64)
            children.append((child[:, kept > 0], kept[kept > 0], ids[keep]))
        if children:
            stack.append((half, *(np.concatenate(part, axis=-1) for part in zip(*children, strict=True))))
    if band is not None:
        np.clip(out, -limit, limit, out=out)
    return out


def disc_distance(points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], radius: float) -> Evaluate:
    """Unsigned distance to discs of one radius, given by centres and unit normals."""
    table = np.hstack([points, normals]).T.astype(np.float32)
    reach = np.float32(radius)

    def prepare(ids: Int[np.ndarray, " n"], origins: Float32[np.ndarray, "3 n"]) -> Callable:
        x, y, z, nx_, ny, nz = table[:, ids]
        x, y, z = origins[0] - x, origins[1] - y, origins[2] - z
        height = x * nx_ + y * ny + z * nz

        def at(offset: Float[np.ndarray, "3"]) -> Float32[np.ndarray, " n"]:
            ox, oy, oz = offset.astype(np.float32)
            above = height + (ox * nx_ + oy * ny + oz * nz)
            np.square(above, out=above)
            beside = np.square(x + ox)
            beside += np.square(y + oy)
            beside += np.square(z + oz)
            beside -= above
            np.sqrt(np.maximum(beside, 0, out=beside), out=beside)
            beside -= reach
            np.square(np.maximum(beside, 0, out=beside), out=beside)
            beside += above
            return np.sqrt(beside, out=beside)

        return at

    return prepare


def checked_spacing(spacing) -> Float[np.ndarray, "3"]:
    """The spacing as an array; InputError unless it is three positive numbers."""
    steps = np.asarray(spacing, float)
    if steps.shape != (3,) or not np.isfinite(steps).all() or (steps <= 0).any():
        raise InputError(f"spacing is {tuple(np.ravel(spacing))}; give three positive voxel edge lengths in mm.")
    return steps


def check_band(band: float | None) -> None:
    """Raise InputError unless the band is a positive distance or None."""
    if band is not None and not 0 < band < np.inf:
        raise InputError(f"band is {band}; give a positive distance in mm, or None for no limit.")
