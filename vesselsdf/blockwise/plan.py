"""What a blockwise reconstruction consists of: a grid of blocks, phases of tasks, and a folder that says what is done.

Every task is a phase and a block. It reads what earlier phases left, and leaves a file (`mark`), written last and
renamed into place: so a task that was killed has left none, one that has left it need not be done again, and two
workers that do the same task do no harm. Nothing else is shared between workers.

The blocks of a merging or joining phase are groups of two along each axis of those of the phase before, up to one.
"""

import itertools
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vesselsdf.errors import InputError
from vesselsdf.files import write_text

Block = tuple[int, int, int]
Task = tuple[str, Block]

PHASES = ("survey", "stem", "field")
"""Before merging; each needs all of the one before."""
MERGING = "merge"
MESHING = "mesh"
SPURS, TRACING, JOINING = "spurs", "trace", "join"
"""After thinning; followed by the number of its last turn, and joining by a number of its own."""
TILE = 128
"""Voxels along the edge of the parts of the mesh: the same whatever the blocks, as parts show in its triangles."""


REGION = 1024
"""Voxels along the edge of the regions in which the centreline is traced: the same whatever the blocks, as branches are
measured once up to the faces of a region and then across them. Even, for thinning to go on as it began."""


class Plan(BaseModel):
    """All that a task needs to know, and that results depend on; kept as `plan.json` in the folder of the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """The scan, an OME-Zarr group."""
    source_spacing: tuple[float, float, float] | None = None
    """Of a plain Zarr array, mm."""
    checkpoint: str
    checkpoint_sha256: str
    spacing: float
    """Edge of the isotropic working voxels, mm."""
    shape: tuple[int, int, int]
    """Of the working grid."""
    affine: tuple[tuple[float, float, float, float], ...]
    """Of the working grid: voxel index to RAS mm."""
    block: Annotated[int, Field(gt=0)]
    """Working voxels along the edge of a block."""
    levels: int
    max_error: float

    @property
    def grid(self) -> Block:
        """Number of blocks along each axis."""
        x, y, z = (-(-n // self.block) for n in self.shape)
        return x, y, z

    def box(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """First voxel of a block, and the first beyond it."""
        low = np.array(block) * self.block
        return low, np.minimum(low + self.block, self.shape)

    def region(self, number: Block, joined: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """First voxel of a region, or of the group of the phase of joining `joined`, and the first beyond it."""
        edge = REGION * 2**joined
        low = np.array(number) * edge
        return low, np.minimum(low + edge, self.shape)

    def regions(self, low: np.ndarray, high: np.ndarray) -> list[Block]:
        """The regions that a box meets."""
        x, y, z = (range(a // REGION, -(-b // REGION)) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        return list(itertools.product(x, y, z))

    def around(self, low: np.ndarray, high: np.ndarray, voxels: int) -> tuple[np.ndarray, np.ndarray]:
        """A box with so many voxels around it, as far as the volume reaches."""
        return np.maximum(low - voxels, 0), np.minimum(high + voxels, self.shape)

    def phases(self) -> list[str]:
        """Names of all phases, in order."""
        rounds = max(1, math.ceil(math.log2(max(self.grid))))
        return [*PHASES, *(f"{MERGING}-{number}" for number in range(1, rounds + 1))]

    def blocks(self, phase: str) -> list[Block]:
        """The blocks that a phase has."""
        kind, *numbers = phase.split("-")
        edge = self.block
        if kind == MESHING:
            edge = TILE
        elif kind in (SPURS, TRACING):
            edge = REGION
        elif kind == JOINING:
            edge = REGION * 2 ** int(numbers[-1])
        elif kind == MERGING:
            edge = self.block * 2 ** int(numbers[-1])
        x, y, z = (range(-(-n // edge)) for n in self.shape)
        return list(itertools.product(x, y, z))

    def joining(self, turn: int) -> list[str]:
        """The phases that join what was traced in regions after the last turn of thinning; none if there is one."""
        regions = max(-(-n // REGION) for n in self.shape)
        return [f"{JOINING}-{turn}-{number}" for number in range(1, math.ceil(math.log2(regions)) + 1)]

    def parts(self, phase: str, block: Block) -> list[Task]:
        """The tasks of the phase before whose results a merging or joining task takes together."""
        kind, *numbers = phase.split("-")
        if kind == JOINING:
            turn, number = map(int, numbers)
            before = f"{TRACING}-{turn}" if number == 1 else f"{JOINING}-{turn}-{number - 1}"
        else:
            before = self.phases()[self.phases().index(phase) - 1]
        within = set(self.blocks(before))
        x, y, z = ((2 * i, 2 * i + 1) for i in block)
        return [(before, child) for child in itertools.product(x, y, z) if child in within]

    def save(self, folder: Path) -> None:
        """Keep the plan in a folder; `InputError` if that holds a result of another plan."""
        file = folder / "plan.json"
        if file.is_file():
            known = self.load(folder)
            if known != self:
                raise InputError(f"{folder} holds a run with {_difference(known, self)}: give another --output.")
            return
        write_text(file, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """The plan of a folder."""
        try:
            return cls.model_validate_json((folder / "plan.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValidationError) as error:
            raise InputError(f"{folder} holds no plan of a blockwise reconstruction: check the path") from error


def mark(folder: Path, phase: str, block: Block) -> Path:
    """The file that says that a task is done, and holds what it found."""
    return folder / "work" / phase / ("_".join(map(str, block)) + ".npz")


def _difference(one: Plan, other: Plan) -> str:
    a: dict[str, Any]
    a, b = one.model_dump(), other.model_dump()
    return ", ".join(f"{key} {a[key]} instead of {b[key]}" for key in a if a[key] != b[key])
