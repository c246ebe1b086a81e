"""`vesselsdf train`: what a run understood, how fast it goes, how it ended, and what to do next."""

import math
import shlex
from pathlib import Path
from typing import Any

from vesselsdf.options import take

DESCRIPTION = """Train the network; a run that was interrupted goes on where it stopped.

  --config FILE    settings in YAML; flags given beside it win
  --output FOLDER  (-o) of the run; by default runs/<data>-<hash of the settings>

examples:
  vesselsdf train
  vesselsdf train --data.root my_cases --data.window -100 500 --output runs/mine
  vesselsdf train --data.root my_cases --training.start general --training.steps 500   # fine-tune the package's weights
  vesselsdf train --data.root my_cases --data.vessel-ids 2 --output runs/veins         # labels with several ids
  vesselsdf train --config run.yaml --network.width 16 --training.steps 5000
  torchrun --nproc-per-node 4 -m vesselsdf.cli train --training.batch 4                # several processes"""


def train(arguments: list[str]) -> int:
    """Run the command."""
    import tyro

    from vesselsdf.config import RunConfig, load_config

    output, arguments = take(arguments, "--output", "-o")
    config_file, arguments = take(arguments, "--config")
    config = tyro.cli(
        RunConfig,
        default=load_config(config_file) if config_file else RunConfig(),
        args=arguments,
        prog="vesselsdf train",
        description=DESCRIPTION,
    )
    from vesselsdf import api, processes
    from vesselsdf.progress import above
    from vesselsdf.runs import held_out_figures, run_name
    from vesselsdf.trackers import TensorBoard
    from vesselsdf.training_facts import Pacing

    folder = Path(output) if output else api.RUNS / run_name(config)
    first = processes.rank() == 0
    if first:
        goes_on = "if it is interrupted, the same command goes on from the last checkpoint"
        print(f"Training on {config.data.root} data in {folder}; {goes_on}.", flush=True)
    pacing = Pacing(config.training.steps, lambda pace: above(pace_line(pace, fresh=config.training.start is None)))
    api.train(config, folder, [TensorBoard(folder / "tensorboard"), pacing], lambda facts: above(facts_text(facts)))
    if first:
        print(end_text(folder, held_out_figures(folder)))
    return 0


def facts_text(facts: Any) -> str:
    """What a run understood (`TrainingFacts`), one thing a line, and a sentence for each thing that is odd."""
    held_out = f"{facts.held_out} held out"
    at = f", on a working grid of {_range(facts.working)} mm" if not math.isnan(facts.working[0]) else ""
    thinnest = "no centreline" if math.isnan(facts.thinnest) else _thinnest(facts)
    start = {None: "from scratch", "general": "from the package's general weights"}.get(
        facts.start, f"from {facts.start}"
    )
    several = f", {facts.processes} processes" if facts.processes > 1 else ""
    lines = [
        ("cases", f"{facts.training} to train on, {held_out}"),
        ("voxels", f"{_range(facts.edges)} mm{at}" if at else "not known"),
        ("vessels", f"{100 * facts.vessel_share:.2g}% of the voxels; {thinnest}"),
        ("patches", f"{facts.batch} of {facts.patch}^3 voxels{_edge(facts)} a step, {facts.steps} steps"),
        ("network", f"{facts.levels} levels, {facts.parameters / 1e6:.2f} million parameters, {start}"),
        ("device", f"{facts.device}{several}"),
    ]
    if facts.done:
        lines.append(("resumed", f"{facts.done} steps are done, {max(0, facts.steps - facts.done)} are left"))
    return "\n".join([*(f"{name:<9}{value}" for name, value in lines), *(f"! {one}" for one in facts.remarks)])


def _thinnest(facts: Any) -> str:
    low, high = facts.working
    size = "" if math.isnan(low) or high > 1.05 * low else f" = {facts.thinnest * low:.2g} mm"
    return f"the thinnest 5% of the centreline have a radius up to {facts.thinnest:.2g} voxels{size}"


def _edge(facts: Any) -> str:
    low, high = facts.working
    return "" if math.isnan(low) else f" ({_range((low * facts.patch, high * facts.patch))} mm)"


def _range(values: tuple[float, float]) -> str:
    low, high = (f"{value:.3g}" for value in values)
    return low if low == high else f"{low} to {high}"


def pace_line(pace: Any, fresh: bool) -> str:
    """How fast a run goes (`Pace`). `fresh`: it began from scratch, when the first steps are the cheapest."""
    grown = ", rather more as vessels are found" if fresh and pace.first < 100 else ""
    memory = "" if math.isnan(pace.gigabytes) else f"; {pace.gigabytes:.1f} GB taken so far"
    steps = f"(steps {pace.first} to {pace.last})"
    return f"{'time':<9}{pace.step_seconds:.2g} s a step {steps}, {duration(pace.seconds)} to go{grown}{memory}"


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(42.0), duration(620.0), duration(9e3), duration(4e5)
    ('42 s', '10 min', '2.5 h', '4.6 days')
    """
    for unit, length, digits in (("s", 1, 0), ("min", 60, 0), ("h", 3600, 1)):
        if seconds < {"s": 90, "min": 5400, "h": 172800}[unit]:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def end_text(folder: Path, figures: dict[str, Any]) -> str:
    """Held-out figures of a run that has ended, and the commands that may come next."""
    cases, model = figures["cases"], folder / "model.safetensors"
    held_out = f"{cases} held-out case{'s' if cases != 1 else ''}" if cases else "held-out cases"
    longer = ["train", "--config", f"{folder / 'config.yaml'}", "--training.start", f"{model}"]
    commands = [
        (["evaluate", "--run", f"{folder}"], "all metrics, level by level"),
        (["reconstruct", "SCAN", "-o", "result", "--checkpoint", f"{model}"], "a scan of yours"),
        ([*longer, "--output", f"{folder}-longer"], "train on from these weights"),
    ]
    shown = [("vesselsdf " + shlex.join(words), why) for words, why in commands]
    shown.insert(2, (f"tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}", "curves and pictures"))
    return "\n".join(
        [
            f"Trained model: {model}",
            f"{held_out}: Dice {figures['dice']:.3f}, clDice {figures['cldice']:.3f}, beta0 error "
            f"{figures['beta0_error']:.3g}, beta1 error {figures['beta1_error']:.3g} (wall at "
            f"{figures['threshold_voxels']:+.1f} voxels, chosen on them)",
            "",
            "Next",
            *(f"  {command}\n      {why}" for command, why in shown),
        ]
    )
