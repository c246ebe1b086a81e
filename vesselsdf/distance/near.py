"""What fields from labels and from other fields share: the box that a band needs, and distances near the wall."""

import numpy as np
from jaxtyping import Bool, Float, Float32

from vesselsdf.distance.search import disc_distance, minimum_over_blocks
from vesselsdf.distance.walls import Walls
from vesselsdf.errors import InputError

DISC = 0.3
"""Radius of a wall disc in voxels; with the widths in `walls` chosen on random tubes, radii 1 to 5 voxels."""
NEAR = 3.0
"""Voxels from the wall up to which the nearest disc is searched exactly."""


def reach(spacing: Float[np.ndarray, "3"], band: float | None) -> float:
    """How far from the wall the nearest disc is searched, mm."""
    near = NEAR * float(spacing.max())
    return near if band is None else min(band, near)


def near_distance(
    field: Float32[np.ndarray, "x y z"], walls: Walls, spacing: Float[np.ndarray, "3"], near: float
) -> None:
    """Write the unsigned distance to the nearest disc, at most `near` (mm), into `field`."""
    discs = disc_distance(walls.points, walls.normals, DISC * float(spacing.min()))
    minimum_over_blocks(discs, len(walls.points), field.shape, spacing, near, out=field)


def require_wall(mask: Bool[np.ndarray, "x y z"], name: str) -> None:
    """Raise InputError unless there are voxels inside and outside."""
    inside = int(np.count_nonzero(mask))
    if inside == 0 or inside == mask.size:
        kind = "empty (no voxel is vessel)" if inside == 0 else "full (every voxel is vessel)"
        raise InputError(f"the {name} of shape {mask.shape} is {kind} and has no wall; give one with both kinds.")


def band_box(
    inside: Bool[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"], band: float | None
) -> tuple[slice, ...]:
    """The box around the vessel outside of which every distance is beyond the band."""
    if band is None:
        return (slice(None),) * 3
    plane = np.any(inside, axis=2)
    lines = np.any(plane, axis=1), np.any(plane, axis=0), np.any(inside, axis=(0, 1))
    # Two voxels more than the wall's neighbours, for the window in which its curvature is measured.
    margin = np.ceil(band / spacing).astype(int) + 4
    used = [np.flatnonzero(line)[[0, -1]] for line in lines]
    return tuple(slice(max(a - m, 0), b + m + 1) for (a, b), m in zip(used, margin, strict=True))


def band_field(shape: tuple[int, ...], band: float | None) -> Float32[np.ndarray, "x y z"]:
    """A field that is `band` everywhere, or not set yet; made after the walls, which take memory of their own."""
    return np.empty(shape, np.float32) if band is None else np.full(shape, band, np.float32)
