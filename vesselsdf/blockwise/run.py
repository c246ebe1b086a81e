"""Reconstruction of a volume that fits into no memory, in blocks: phase after phase, by any executor."""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vesselsdf.blockwise.centreline import FOLDER, MOST, betti_of, centreline, collected
from vesselsdf.blockwise.executors import Execute, Executor, serial, undone
from vesselsdf.blockwise.outlook import unfamiliar
from vesselsdf.blockwise.plan import MESHING, SPURS, TRACING, Plan
from vesselsdf.blockwise.skeleton import THIN, settled
from vesselsdf.blockwise.tasks import FIELDS, MASK, prepare, summary
from vesselsdf.blockwise.wall import whole_mesh
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.errors import InputError, RunError
from vesselsdf.field_store import ERROR, FieldStore
from vesselsdf.files import remove_partial, write_json
from vesselsdf.inference import alignment
from vesselsdf.needs import largest_block
from vesselsdf.reconstruction import file_hash, save_graph, versions
from vesselsdf.topology import blocks
from vesselsdf.volume import isotropic_grid
from vesselsdf.zarr_volume import open_volume

log = logging.getLogger(__name__)

BLOCK = 256
"""Voxels along the edge of a block at most, if nothing else is asked for: larger ones are hardly faster."""
STEP = 32
"""In voxels, of blocks that follow from the memory: files are made of pieces that divide them."""


def make_plan(
    scan: str | Path,
    checkpoint: str | Path | None = None,
    spacing: tuple[float, float, float] | None = None,
    block: int | None = None,
    max_error: float | None = None,
    memory: float = 4.0,
) -> Plan:
    """What reconstructing a scan in blocks of `block` working voxels consists of.

    `scan`: OME-Zarr, or a plain Zarr array with its `spacing` (mm). `block`: by default the largest that `memory` (GB)
    allows a worker, but `BLOCK` at most. `max_error`: of the fields that are kept, mm; by default an eighth of a voxel
    (a 64th near the wall). Raises `InputError` for what cannot be used.
    """
    volume, path = open_volume(scan, spacing), Path(checkpoint or GENERAL).resolve()
    model = load_model(path)
    step = alignment(model.network)
    if block is None:
        block = min(BLOCK, largest_block(memory, model.network, STEP))
    if max_error is not None and not max_error > 0:
        raise InputError(f"--max-error is {max_error}: give a positive length in mm.")
    if block < step or block % step:
        raise InputError(f"--block is {block}: give a multiple of {step}.")
    working = model.preprocessing.spacing or float(min(volume.spacing))
    index_map, shape, _ = isotropic_grid(volume.shape, volume.spacing, working)
    affine = volume.affine @ index_map
    return Plan(
        source=str(Path(scan).resolve()), source_spacing=spacing, checkpoint=str(path),
        checkpoint_sha256=file_hash(path), spacing=working, shape=shape,
        affine=tuple(tuple(row) for row in affine.tolist()), block=block, levels=model.network.levels,
        max_error=max_error or ERROR * working,
    )  # fmt: skip


def reconstruct_in_blocks(plan: Plan, folder: str | Path, executor: Executor | None = None) -> dict[str, Any]:
    """Field, mask and topology of a scan, written to a folder; returns the report that `topology.json` holds.

    A run that ended early, for whatever reason, goes on where it was; blocks, executors and order make no difference.
    """
    folder = Path(folder)
    plan.save(folder)
    if not (folder / "run.json").is_file():
        prepare(folder, plan)
        seconds: dict[str, float] = {}
        with executor or serial() as execute:
            turn = _complete(folder, plan, execute, seconds)
        with _timed(seconds, "finish"):
            report, strange = _finished(folder, plan, turn)
        for one in strange:
            log.warning("%s is unlike the scans that the network was trained on: %s.", plan.source, one)
        write_json(folder / "topology.json", report)
        facts = {"fields": FIELDS, "mask": MASK, "unfamiliar": strange, "seconds_of_last_start": seconds}
        write_json(folder / "run.json", plan.model_dump() | facts | versions())
    return json.loads((folder / "topology.json").read_text(encoding="utf-8"))


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Note the time that the block takes."""
    start = time.monotonic()
    yield
    seconds[what] = round(time.monotonic() - start, 1)


def _complete(folder: Path, plan: Plan, execute: Execute, seconds: dict[str, float]) -> int:
    """Do all tasks that are not done, phase after phase; returns the number of the last turn of thinning."""

    def phase(name: str) -> None:
        if tasks := undone(folder, [(name, block) for block in plan.blocks(name)]):
            with _timed(seconds, name):
                execute(folder, tasks)

    for name in plan.phases():
        phase(name)
    phase(MESHING)
    turn = 1
    phase(f"{THIN}-{turn}")
    while not settled(folder, plan, turn):
        turn += 1
        phase(f"{THIN}-{turn}")
    for name in (f"{SPURS}-{turn}", f"{TRACING}-{turn}", *plan.joining(turn)):
        phase(name)
    return turn


def _finished(folder: Path, plan: Plan, turn: int) -> tuple[dict[str, Any], list[str]]:
    """Write graph and mesh of the whole where they fit; the report, and in what the scan is unlike the training's."""
    betti = blocks.result(summary(folder, plan.phases()[-1], (0, 0, 0)), plan.shape)
    if betti[0] == 0:
        raise RunError(
            f"In {plan.source} no vessel was found: the network was trained on images that look different; check its "
            "spacing and intensities, or train on cases like it."
        )
    names, places, ends = collected(folder, plan, turn)
    if fits := len(ends) <= MOST:
        save_graph(centreline(folder, plan, turn), folder)
    else:
        log.warning("The centreline has %d branches: it is in parts, in %s.", len(ends), folder / FOLDER)
    report = {
        "connectivity": "26 for vessels, 6 for background",
        "shape": plan.shape,
        "spacing": plan.spacing,
        "betti": betti,
        "mesh": whole_mesh(folder, plan),
        "graph": betti_of(names, ends) | {"branches": len(ends), "files": "centreline.json" if fits else FOLDER},
    }
    return report, unfamiliar(folder, plan, FieldStore.open(folder / FIELDS), places)


def tidy(folder: str | Path) -> None:
    """Remove what only an unfinished run needs; not while other parts of it are at work."""
    folder = Path(folder)
    if (folder / "run.json").is_file():
        shutil.rmtree(folder / "work", ignore_errors=True)
        remove_partial(folder)
