"""A training run from its settings to its folder: cases prepared, network trained, the wall's threshold chosen."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vesselsdf.checkpoint import Model, save_model, steps_done
from vesselsdf.config import RunConfig, claim_folder
from vesselsdf.errors import InputError
from vesselsdf.evaluation import choose_threshold, pictures_of, validation
from vesselsdf.files import remove_partial, write_json
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.progress import track
from vesselsdf.sampling import prepare_all
from vesselsdf.sources import LabelledCase, Source, open_source
from vesselsdf.trackers import TensorBoard, Tracker, tell
from vesselsdf.training_facts import TrainingFacts, training_facts
from vesselsdf.volume import Volume

RUNS = Path("runs")
THRESHOLD = "threshold.json"
HELD_OUT = ("dice", "cldice", "beta0_error", "beta1_error")

Started = Callable[[TrainingFacts], None]


def train_run(
    config: RunConfig, folder: Path, trackers: Sequence[Tracker] | None = None, started: Started | None = None
) -> None:
    """Train in `folder`, or go on where that was interrupted; see `vesselsdf.train`."""
    from vesselsdf import processes

    processes.join()
    first = processes.rank() == 0
    told: Sequence[Tracker] = [TensorBoard(folder / "tensorboard")] if trackers is None else trackers
    try:
        model, held_out = _fitted(config, folder, told, started)
        if first:
            _finish(folder, model, held_out, told)
    finally:
        if first:
            for tracker in told:
                tracker.close()
        processes.leave()


def _fitted(
    config: RunConfig, folder: Path, trackers: Sequence[Tracker], started: Started | None
) -> tuple[Model, list[LabelledCase]]:
    """Cases prepared (by the first process alone) and the network trained; and the cases held out."""
    from vesselsdf import processes
    from vesselsdf.training import fit

    first = processes.rank() == 0
    source = open_source(config.data, config.training.seed)
    settings = Preprocessing(spacing=config.data.spacing, window=source.window)
    # Beyond this nothing is learned about the distance: the band of the coarsest level.
    reach = 3.0 * 2 ** (config.network.levels - 1)
    held_out: list[LabelledCase] = []
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        claim_folder(folder, config)
        prepare_all(folder / "cases", source.training, partial(_pair, source), settings, reach)
        held_out = [source.load(name) for name in track(source.validation, "load validation", unit="case")]
    processes.wait()
    training = prepare_all(folder / "cases", source.training, partial(_pair, source), settings, reach)
    if first and started:
        done = steps_done(folder / "state.safetensors")
        started(training_facts(config, training, len(held_out), settings, done))
    return fit(config, training, folder, settings, lambda model: validation(model, held_out), trackers), held_out


def _finish(folder: Path, model: Model, held_out: Sequence[LabelledCase], trackers: Sequence[Tracker]) -> None:
    """Choose the threshold on the held-out cases, tell the trackers what it gives, and write the model."""
    threshold, curve = choose_threshold(model, held_out)
    settings = model.preprocessing.model_copy(update={"threshold": threshold})
    model, steps = replace(model, preprocessing=settings), model.config.training.steps
    if not (folder / THRESHOLD).is_file():  # else an earlier process got that far and has told it
        chosen = next(row for row in curve if row["threshold_voxels"] == threshold)
        tell(trackers, steps, {f"held_out/{key}": chosen[key] for key in HELD_OUT}, pictures_of(model, held_out))
    write_json(folder / THRESHOLD, {"threshold_voxels": threshold, "cases": len(held_out), "curve": curve})
    save_model(folder / "model.safetensors", model, steps)


def _pair(source: Source, name: str) -> tuple[Volume, Volume]:
    case = source.load(name)
    return case.image, case.distance()


def held_out_figures(folder: str | Path) -> dict[str, Any]:
    """Means over the held-out cases of a finished run, its wall where the chosen threshold puts it.

    `cases`, `threshold_voxels`, `dice`, `cldice`, `beta0_error` and `beta1_error`. Raises `InputError` where the run
    has not ended.
    """
    path = Path(folder) / THRESHOLD
    if not path.is_file():
        raise InputError(f"{folder} holds no run that has ended: give its `vesselsdf train` command again.")
    content = json.loads(path.read_text(encoding="utf-8"))
    row = next(row for row in content["curve"] if row["threshold_voxels"] == content["threshold_voxels"])
    return {"cases": content.get("cases")} | {key: row[key] for key in ("threshold_voxels", *HELD_OUT)}


def run_name(config: RunConfig) -> str:
    """A name that is the same for the same configuration."""
    digest = hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    return f"{Path(config.data.root).name}-{digest}"


def newest_run() -> Path:
    """The run below ./runs that was trained last."""
    models = sorted(RUNS.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if not models:
        raise InputError(
            f"There is no trained model below {RUNS.resolve()}; run `vesselsdf train` first, or give the run's folder "
            "with --run."
        )
    return models[-1].parent
