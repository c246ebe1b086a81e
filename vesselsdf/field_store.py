"""Fields of all levels on disk, each place at the coarsest level that tells it: a Zarr group that reads back as dense.

Level `l` of a field `phi` is read back as `f_l`, which the next coarser one and whole numbers `r_l` give::

    f_l = U f_(l+1) + q r_l,        at the coarsest level f_L = q r_L,

with `U` the trilinear prolongation and `q` a power of two, an eighth of `max_error` or less. The numbers are int32
arrays `0`, `1`, ...; they are zero, and take no space, where the coarser level prolonged tells on which side of the
wall a voxel lies, and the field to `max_error`, or near the wall (within two voxels of the level) to `q`. Elsewhere
they round to the nearest multiple; or, where that would lie across the wall, to the nearest on the same side.

**So at every level** `|f_l - phi_l| <= max_error`, near the wall `<= q`, **and** `f_l <= 0` **exactly where** `phi_l <=
0`: all topology is that of the written fields. *Proof.* Errors do not add up, as `r_l` corrects `f_(l+1)` as it is read
back. Where `r_l` is zero by choice, all holds by the condition for it. Otherwise the nearest multiple is off by `q /
2`, and both neighbours of `phi_l` among `U f_(l+1) + q Z` by less than `q`: the lower one is `<= 0` if `phi_l` is, the
upper one `> 0` if `phi_l` is. (The sign is exact, the error up to float32's rounding of `f_l`, which readers repeat.)

`f_l` at a voxel depends on the fields within two voxels at every level, so blocks may be written by anybody in any
order. The idea is the Laplacian pyramid's (Burt and Adelson 1983), with the corrections of the network as its details.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_folder
from vesselsdf.scales import level_shape

BLOCK = 256
"""Voxels of level 0 along the edge of what one file holds, if nothing else is asked for."""
CHUNKS = (32, 16, 8)
"""Edges of what is compressed at a time; the largest that divides a file's part."""
ERROR = 1 / 8
"""`max_error` in level-0 voxels, if nothing else is asked for."""
NEAR = 2.0
"""Voxels of a level around the wall where the field is kept to a step."""

Index = Sequence[int] | Int[np.ndarray, "3"]


@dataclass(frozen=True)
class FieldStore:
    """Fields on disk, opened. `shape`: of level 0; `affine`: voxel index of level 0 to RAS mm; `max_error`: mm."""

    path: Path
    levels: int
    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    max_error: float

    @classmethod
    def create(
        cls,
        path: str | Path,
        shape: Sequence[int],
        affine: Float[np.ndarray, "4 4"],
        levels: int,
        max_error: float | None = None,
        block: int = BLOCK,
    ) -> "FieldStore":
        """An empty store for blocks that begin at multiples of `block`, itself a multiple of `2**(levels - 1)`."""
        import zarr
        from zarr.codecs import BloscCodec

        if block % (1 << (levels - 1)):
            raise InputError(f"block is {block}; give a multiple of {1 << (levels - 1)} for {levels} levels.")
        error = ERROR * float(np.linalg.norm(affine[:3, :3], axis=0).min()) if max_error is None else max_error
        if not error > 0:
            raise InputError(f"max_error is {error}: give a positive length in mm.")
        group = zarr.create_group(str(path), zarr_format=3)
        for level in range(levels):
            edge = block >> level
            group.create_array(
                str(level), shape=level_shape(tuple(shape), level), dtype="int32", fill_value=0,
                chunks=(next((chunk for chunk in CHUNKS if edge % chunk == 0), edge),) * 3, shards=(edge,) * 3,
                compressors=BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), dimension_names=("x", "y", "z"),
            )  # fmt: skip
        # Last, so that a store without them is one that was not finished.
        group.attrs["vesselsdf"] = {
            "what": "signed distance, mm: f[l] = U f[l+1] + step * array[l], U trilinear between centres of cells",
            "affine": affine.tolist(), "levels": levels, "max_error": error, "step": _step(error),
        }  # fmt: skip
        return cls.open(path)

    @staticmethod
    def at(path: str | Path) -> bool:
        """Whether there is a field at a path, rather than anything else."""
        file = Path(path) / "zarr.json"
        return file.is_file() and '"max_error"' in file.read_text(encoding="utf-8", errors="replace")

    @classmethod
    def open(cls, path: str | Path) -> "FieldStore":
        """Raises InputError for what `create` did not make."""
        import zarr

        try:
            group = zarr.open_group(str(path), mode="r")
            facts: Any = group.attrs["vesselsdf"]
            levels, affine, max_error = int(facts["levels"]), np.array(facts["affine"], float), facts["max_error"]
            arrays: list[Any] = [group[str(level)] for level in range(levels)]
            shape = arrays[0].shape
            # Plain numbers only: what else an array may hold could have to be unpickled.
            sound = all(a.dtype == np.int32 and a.shape == level_shape(shape, n) for n, a in enumerate(arrays))
            if not (sound and len(shape) == 3 and affine.shape == (4, 4) and max_error > 0):
                raise ValueError("arrays or attributes are not those of a field")
        except (FileNotFoundError, KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no field that vesselsdf wrote: give the folder sdf.zarr of a result."
            ) from error
        return cls(Path(path), levels, shape, affine, float(max_error))

    @cached_property
    def arrays(self) -> list[Any]:
        """The Zarr arrays of whole numbers, finest first."""
        import zarr

        group = zarr.open_group(str(self.path), mode="r+")
        return [group[str(level)] for level in range(self.levels)]

    @property
    def step(self) -> float:
        """`q`, mm."""
        return _step(self.max_error)

    def write(
        self,
        fields: Sequence[Float32[np.ndarray, "_ _ _"]],
        low: Index,
        high: Index,
        first: Index = (0, 0, 0),
    ) -> None:
        """Write the box from `low` to `high` (voxels of level 0), whole blocks but for the end of the volume.

        `fields`: of all levels, whose first voxel lies at `first`, a multiple of `2**(levels - 1)`. They must reach
        beyond the box by two voxels of the coarsest level, or to the end of the volume.
        """
        for level, box, details in self._details(fields, np.array(low), np.array(high), np.array(first)):
            if details.any():
                self.arrays[level][box] = details

    def _details(
        self, fields: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray, first: np.ndarray
    ) -> Iterator[tuple[int, tuple[slice, ...], Int32[np.ndarray, "_ _ _"]]]:
        """Level, box in its voxels, and `r_l` there, from the coarsest level on."""
        margins = list(itertools.accumulate(range(1, self.levels), lambda margin, _: -(-margin // 2) + 1, initial=0))
        spacing = float(np.linalg.norm(self.affine[:3, :3], axis=0).min())
        above, above_low = None, np.zeros(3, int)
        for level in range(self.levels - 1, -1, -1):
            inner_low, inner_high = low >> level, -(-high >> level)
            start = np.maximum(inner_low - margins[level], 0)
            stop = np.minimum(inner_high + margins[level], level_shape(self.shape, level))
            field = fields[level][tuple(map(slice, start - (first >> level), stop - (first >> level)))]
            if above is None:
                base = np.zeros(field.shape, np.float32)
            else:
                base = _prolonged(above, above_low, start, stop)
            details = _rounded(field, base, self.step, self.max_error, NEAR * spacing * 2**level)
            above, above_low = base + np.float32(self.step) * details.astype(np.float32), start
            yield (
                level,
                tuple(map(slice, inner_low, inner_high)),
                details[tuple(map(slice, inner_low - start, inner_high - start))],
            )

    def read(self, level: int = 0, low: Index | None = None, high: Index | None = None) -> Float32[np.ndarray, "_ _ _"]:
        """The dense field of a level in mm, or of the box from `low` to `high` in its voxels."""
        shape = level_shape(self.shape, level)
        start = np.zeros(3, int) if low is None else np.array(low)
        stop = np.array(shape if high is None else high)
        details = self.arrays[level][tuple(map(slice, start.tolist(), stop.tolist()))]
        field = details.astype(np.float32)
        field *= np.float32(self.step)
        if level + 1 < self.levels:
            above_low = np.maximum(start // 2 - 1, 0)
            above_high = np.minimum(-(-stop // 2) + 1, level_shape(self.shape, level + 1))
            above = self.read(level + 1, above_low.tolist(), above_high.tolist())
            field += _prolonged(above, above_low, start, stop)
        return field


def write_fields(
    path: str | Path, fields: Sequence[Float32[np.ndarray, "_ _ _"]], affine: np.ndarray, max_error: float | None = None
) -> FieldStore:
    """Write whole fields, finest first; `affine` is that of level 0, `max_error` in mm (default an 8th of a voxel)."""
    shape = fields[0].shape
    with atomic_folder(path) as temporary:
        store = FieldStore.create(temporary, shape, affine, len(fields), max_error)
        for low in itertools.product(*(range(0, n, BLOCK) for n in shape)):
            store.write(fields, low, [min(a + BLOCK, n) for a, n in zip(low, shape, strict=True)])
    return FieldStore.open(path)


def _step(max_error: float) -> float:
    return 2.0 ** math.floor(math.log2(max_error / 8))


def _prolonged(
    coarse: Float32[np.ndarray, "_ _ _"], coarse_low: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> Float32[np.ndarray, "_ _ _"]:
    """The box from `start` to `stop` of a prolonged level, from a part of the coarser one around it."""
    from vesselsdf.prolongation_kernels import prolong_box

    fine = np.empty(tuple(stop - start), np.float32)
    prolong_box(np.ascontiguousarray(coarse), coarse_low, fine, start)
    return fine


def _rounded(
    field: Float32[np.ndarray, "_ _ _"], base: Float32[np.ndarray, "_ _ _"], step: float, max_error: float, near: float
) -> Int32[np.ndarray, "_ _ _"]:
    """The whole numbers `r` for which `base + step r` stands for the field."""
    difference = field - base
    inside = field <= 0
    told = (np.abs(difference) <= np.where(np.abs(field) <= near, step, max_error)) & (inside == (base <= 0))
    difference /= np.float32(step)
    details = np.round(difference)
    for within, nearer, further in ((inside, np.floor, -1), (~inside, np.ceil, 1)):
        across = within & ((base + np.float32(step) * details <= 0) != inside)
        np.copyto(details, nearer(difference), where=across)
        # The difference itself may have been rounded to a multiple.
        details[across & ((base + np.float32(step) * details <= 0) != inside)] += further
    details[told] = 0
    if np.abs(details).max(initial=0) >= 2**31:
        raise InputError("A field is too steep to be stored: give a larger --max-error.")
    return details.astype(np.int32)
