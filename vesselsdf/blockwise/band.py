"""A distance field where vessels are: bricks of voxels in a file, of which memory holds what is looked at.

Bricks that no vessel comes near are left out; there the field is `reach`, which is enough to know that it is outside.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from vesselsdf.sections import Field

EDGE = 16
"""Voxels along the edge of a brick."""
REACH = 4.0
"""Voxels around vessels in which the field is kept."""


class Band(Field):
    """The field of a grid of `shape` with voxels of `spacing` mm.

    parts: index of the first voxel of a part of it, the field there, and which of its bricks are wanted. Parts begin
    and end at multiples of `EDGE`, but for the end of the grid. The file, in `folder`, has no name: it goes with the
    process, however that ends.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing: float,
        parts: Iterable[tuple[Int[np.ndarray, "3"], Float32[np.ndarray, "_ _ _"], Bool[np.ndarray, "_ _ _"]]],
        folder: Path | None = None,
    ):
        self._shape, self.spacing = shape, np.full(3, spacing)
        self.reach = np.float32(REACH * spacing)
        self.table = np.full([-(-n // EDGE) for n in shape], -1, np.int32)
        count = 0
        with tempfile.TemporaryFile(dir=folder) as file:
            for low, part, wanted in parts:
                bricks = np.pad(part, [(0, -n % EDGE) for n in part.shape], mode="edge")
                x, y, z = (n // EDGE for n in bricks.shape)
                bricks = bricks.reshape(x, EDGE, y, EDGE, z, EDGE).transpose(0, 2, 4, 1, 3, 5)
                near = wanted & (bricks.min(axis=(3, 4, 5)) <= self.reach)
                numbers = np.full(near.shape, -1, np.int32)
                numbers[near] = count + np.arange(near.sum())
                count += int(near.sum())
                self.table[tuple(slice(a, a + n) for a, n in zip(low // EDGE, near.shape, strict=True))] = numbers
                file.write(bricks[near].data)
            file.flush()
            size = (count, EDGE, EDGE, EDGE)
            self.bricks = np.asarray(np.memmap(file, np.float32, "r", shape=size)) if count else np.zeros(size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the grid."""
        return self._shape

    def at(self, index: tuple[np.ndarray, ...]) -> Float32[np.ndarray, "..."]:
        """Values at voxels of the grid."""
        brick = self.table[tuple(one // EDGE for one in index)]
        inner = tuple(one % EDGE for one in index)
        if len(self.bricks) == 0:
            return np.full(brick.shape, self.reach)
        return np.where(brick < 0, self.reach, self.bricks[(np.maximum(brick, 0), *inner)])

    def __call__(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
        """Values at `points` (mm), linear between voxel centres, continued from the border outwards."""
        place = np.clip(points / self.spacing, 0, np.array(self.shape) - 1)
        low = np.minimum(np.floor(place).astype(np.int64), np.maximum(np.array(self.shape) - 2, 0))
        share = np.moveaxis(place - low, -1, 0)
        low, high = np.moveaxis(low, -1, 0), np.moveaxis(np.minimum(low + 1, np.array(self.shape) - 1), -1, 0)
        total = np.zeros(points.shape[:-1])
        for corner in np.ndindex(2, 2, 2):
            index = tuple((high if side else low)[axis] for axis, side in enumerate(corner))
            weight = np.prod([share[axis] if side else 1 - share[axis] for axis, side in enumerate(corner)], axis=0)
            total += weight * self.at(index)
        return total
