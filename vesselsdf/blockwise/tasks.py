"""One task of a blockwise reconstruction: a function of the folder, the phase and the block, and nothing else.

- `survey`: reads a block of the scan; keeps its lowest values and the voxels that set the intensity scale.
- `stem`: what the coarsest level sees of a block. Its halo is that of the stems.
- `field`: the fields of a block, refined from the coarsest stems of a wider part: written, with the mask, and the
  topology of the block summed up (`topology.blocks`).
- `merge-1`, `merge-2`, ...: the summaries of two blocks along each axis, until there is one.
- `mesh`: the wall (`blockwise.wall`).
- `thin-1`, `thin-2`, ...: the skeleton; after the last, t, without spurs: `spurs-t` (`blockwise.skeleton`).
- `trace-t`, `join-t-1`, `join-t-2`, ...: the centreline graph (`blockwise.centreline`).

Fields have the bits of those of one piece (`inference`), so whatever the blocks, all that follows is the same.
"""

import errno
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.blockwise import centreline, skeleton, wall
from vesselsdf.blockwise.plan import Block, Plan, mark
from vesselsdf.checkpoint import Model, load_model
from vesselsdf.errors import RunError
from vesselsdf.field_store import FieldStore
from vesselsdf.files import atomic_path, new_folder
from vesselsdf.inference import alignment, coarse_margin, coarse_stem, context_reach, margin, refined
from vesselsdf.preprocessing import FAT, SOFT_TISSUE, Scale, acquisition, sample_stride
from vesselsdf.resampling import regrid_part
from vesselsdf.scales import level_shape
from vesselsdf.topology import blocks
from vesselsdf.volume import isotropic_grid
from vesselsdf.zarr_volume import ZarrVolume, create_volume, open_volume

FIELDS, MASK, STEM = "sdf.zarr", "vessels.zarr", "work/stem.zarr"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_task(folder: str | Path, phase: str, block: Block) -> None:
    """Do one task unless it is done. Raises `RunError` where the disk is full or a file cannot be written."""
    folder = Path(folder)
    done = mark(folder, phase, block)
    if done.is_file():
        return
    plan = Plan.load(folder)
    name = phase.split("-")[0]
    try:
        found = TASKS[name](folder, plan, phase, block)
        with atomic_path(done) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **found)
    except OSError as error:
        what = "make room there" if error.errno in FULL else "see to that"
        raise RunError(
            f"Block {block} could not be done in {folder} ({error}): {what}, then give the same command again; what is "
            "finished is kept."
        ) from error


def prepare(folder: Path, plan: Plan) -> None:
    """Make the empty stores that tasks write into, unless they are there; of several that try, one does."""
    channels = loaded(plan.checkpoint).network.stem_channels[-1]
    affine = np.array(plan.affine)

    def stems(path: Path) -> None:
        import zarr

        shape, edge = level_shape(plan.shape, plan.levels - 1), plan.block >> (plan.levels - 1)
        zarr.create_array(str(path), shape=(*shape, channels), dtype="float32", chunks=(edge, edge, edge, channels))

    for name, make in (
        (FIELDS, lambda path: FieldStore.create(path, plan.shape, affine, plan.levels, plan.max_error, plan.block)),
        (MASK, lambda path: create_volume(path, plan.shape, affine, "uint8", plan.block)),
        (STEM, stems),
    ):
        new_folder(folder / name, make)


def survey(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """Lowest value of the scan and of the working grid in a block, and the sample for the intensity scale."""
    low, high = plan.box(block)
    image, lowest = _working(plan, low, high)
    stride = sample_stride(plan.shape)
    _, ny, nz = plan.shape
    rows = (np.arange(low[0], high[0])[:, None] * ny + np.arange(low[1], high[1])) * nz + low[2]
    first = -rows % stride
    place = first[..., None] + stride * np.arange(-(-image.shape[2] // stride))
    inside = place < image.shape[2]
    sample = np.take_along_axis(image, np.where(inside, place, 0), axis=2)[inside]
    return {"lowest_of_scan": lowest, "lowest": image.min(), "sample": sample}


def stem(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """Features of the coarsest stem of a block, into the store of stems."""
    model, step = loaded(plan.checkpoint), 2 ** (plan.levels - 1)
    low, high = plan.box(block)
    first, last = plan.around(low, high, coarse_margin(model.network))
    start, stop = low // step, -(-high // step)
    image, acquired = seen(str(folder), first, last), _acquired(str(folder))
    if image.min() == image.max() and not (last % alignment(model.network)).any():
        # Nothing but background, as around a brain: a voxel with its halo says what all others are. (Where blocks of
        # local contrast are cut by the end of the volume, their means are rounded otherwise.)
        halo = coarse_margin(model.network)
        few = coarse_stem(model.network, np.full((2 * halo + step,) * 3, image.flat[0]), acquired)
        features = np.broadcast_to(few[(halo // step,) * 3], (*(stop - start), few.shape[-1]))
    else:
        features = coarse_stem(model.network, image, acquired)
        features = features[tuple(map(slice, start - first // step, stop - first // step))]
    _opened(folder / STEM)[tuple(map(slice, start, stop))] = features
    return {}


def field(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """Fields and mask of a block, into their stores; the summary of its topology."""
    model, step = loaded(plan.checkpoint), 2 ** (plan.levels - 1)
    low, high = plan.box(block)
    first, last = plan.around(low, high, margin(model.network))
    begin = np.maximum(first // step - context_reach(), 0)
    coarse = _opened(folder / STEM)[tuple(map(slice, begin, -(-last // step) + context_reach()))]
    shape, before = tuple((last - first).tolist()), tuple((first // step - begin).tolist())
    fields = refined(
        model.network, shape, lambda: seen(str(folder), first, last), _acquired(str(folder)), coarse, before
    )
    shift = np.float32(model.preprocessing.threshold * plan.spacing)
    fields = [level * np.float32(plan.spacing) - shift for level in fields]
    FieldStore.open(folder / FIELDS).write(fields, low, high, first)
    mask = fields[0][tuple(map(slice, low - first, high - first))] <= 0
    _opened(folder / MASK / "0")[tuple(map(slice, low, high))] = mask.astype(np.uint8)
    return blocks.partial(mask, low.tolist()).arrays()


def merge(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """The summary of two blocks of the phase before along each axis."""
    return functools.reduce(
        blocks.merge, (summary(folder, *part) for part in plan.parts(phase, block)), blocks.EMPTY
    ).arrays()


def thin(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """Times at which the voxels of a block go when the vessels are thinned."""
    return skeleton.thin(folder, plan, FieldStore.open(folder / FIELDS), int(phase.split("-")[1]), block)


def spurs(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """The skeleton of a region without its spurs."""
    return skeleton.without_spurs(folder, plan, FieldStore.open(folder / FIELDS), int(phase.split("-")[1]), block)


def trace(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """The centreline graph of a region."""
    return centreline.trace(folder, plan, FieldStore.open(folder / FIELDS), int(phase.split("-")[1]), block)


def join(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """The centreline graph across the faces of regions."""
    return centreline.join(folder, plan, FieldStore.open(folder / FIELDS), phase, block)


def mesh(folder: Path, plan: Plan, phase: str, block: Block) -> dict[str, Any]:
    """The wall in one tile."""
    return wall.mesh(folder, plan, FieldStore.open(folder / FIELDS), block)


TASKS = {
    "survey": survey, "stem": stem, "field": field, "merge": merge, "mesh": mesh,
    "thin": thin, "spurs": spurs, "trace": trace, "join": join,
}  # fmt: skip


def summary(folder: Path, phase: str, block: Block) -> blocks.Summary:
    """The summary that a task left."""
    with np.load(mark(folder, phase, block), allow_pickle=False) as found:
        return blocks.Summary.from_arrays(found)


@functools.lru_cache(maxsize=1)
def loaded(checkpoint: str) -> Model:
    """The model, read once by each process."""
    return load_model(Path(checkpoint))


@functools.lru_cache(maxsize=1)
def scale_of(folder: str) -> Scale:
    """The intensity scale of the whole scan, from the surveys of all blocks."""
    plan = Plan.load(Path(folder))
    settings = loaded(plan.checkpoint).preprocessing
    of_scan, of_grid = (min(float(one[key]) for one in _surveys(plan, folder)) for key in ("lowest_of_scan", "lowest"))
    window = settings.window or (SOFT_TISSUE if of_scan < FAT else None)
    return Scale(window=window) if window else Scale.of_tissue(sampled(Path(folder), plan), of_grid)


def sampled(folder: Path, plan: Plan) -> np.ndarray:
    """Voxels of the working grid that set the intensity scale, not normalised."""
    return np.concatenate([one["sample"] for one in _surveys(plan, str(folder))])


def _surveys(plan: Plan, folder: str) -> Iterator[dict[str, np.ndarray]]:
    for block in plan.blocks("survey"):
        with np.load(mark(Path(folder), "survey", block), allow_pickle=False) as found:
            yield {key: found[key] for key in found.files}


def seen(folder: str, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """What the network sees of a box."""
    return scale_of(folder)(_working(Plan.load(Path(folder)), low, high)[0])


def _acquired(folder: str) -> np.ndarray:
    """What it is told of the scan."""
    return acquisition(_scan(Plan.load(Path(folder))).spacing, scale_of(folder).window is not None)


def _working(plan: Plan, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, float]:
    """A box of the working grid, float32, and the lowest value of the scan that went into it."""
    scan = _scan(plan)
    index_map, shape, widths = isotropic_grid(scan.shape, scan.spacing, plan.spacing)
    lowest = []

    def read(box: tuple[slice, ...]) -> np.ndarray:
        values = scan.read(box)
        lowest.append(float(values.min()))
        return values

    image = regrid_part(read, scan.shape, index_map, shape, tuple(map(slice, low.tolist(), high.tolist())), widths)
    return image.astype(np.float32, copy=False), lowest[0]


def _scan(plan: Plan) -> ZarrVolume:
    return _scan_at(plan.source, plan.source_spacing)


@functools.lru_cache(maxsize=1)
def _scan_at(path: str, spacing: tuple[float, float, float] | None) -> ZarrVolume:
    return open_volume(path, spacing)


def _opened(path: Path) -> Any:
    import zarr

    return zarr.open_array(str(path), mode="r+")
