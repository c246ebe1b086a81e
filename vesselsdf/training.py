"""Training: one loop that reads from top to bottom, killed and resumed without a trace.

Everything a step depends on is in the checkpoint or is a function of the step: the patches (`sampling.draw`), the
learning rate (`learning_rate`), the weights, their average and the optimiser's moments. So a run that is killed at
any moment and started again ends with the weights of the undisturbed run, bit for bit (on the same machine and number
of threads).
"""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vesselsdf import processes
from vesselsdf.checkpoint import Model, build_network, load_state, save_model, save_state, starting_weights
from vesselsdf.config import RunConfig
from vesselsdf.errors import InputError, RunError
from vesselsdf.familiarity import of_image, of_vessels, ranges
from vesselsdf.losses import total_loss
from vesselsdf.network import VesselNet
from vesselsdf.optimiser import Optimiser
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.progress import track
from vesselsdf.sampling import Batch, PreparedCase, draw
from vesselsdf.scales import pyramid
from vesselsdf.trackers import Journal, Tracker

log = logging.getLogger(__name__)

WARM_UP = 0.05
FINAL_RATE = 0.01
# Share of the steps in which normalisation follows the statistics of the batch, as it must at first; in the others it
# is what it will be at inference.
ADAPTING = 0.4

Validate = Callable[[Model], tuple[dict[str, float], dict[str, np.ndarray]]]
"""Figures by name, and pictures (h, w, 3) uint8 by name, of a model."""


def fit(
    config: RunConfig,
    cases: Sequence[PreparedCase],
    folder: Path,
    preprocessing: Preprocessing,
    validate: Validate | None = None,
    trackers: Sequence[Tracker] = (),
) -> Model:
    """Train on `cases`, resuming from `folder` if it holds a checkpoint; returns the model with averaged weights.

    If `torchrun` started several processes (`vesselsdf.processes`), they share the patches of every step; the first one
    writes, validates, tells the trackers and shows its progress.

    Writes `state.safetensors` (to resume), `model.safetensors` (to reconstruct) and `metrics.jsonl` to `folder`.
    `validate` is called with the averaged model every `validate_every` steps; its figures are written, and these and
    its pictures are told to the trackers, which the caller closes.
    """
    settings, first = config.training, processes.rank() == 0
    share = _share_of(settings.batch)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(settings.seed)
    network = build_network(config.network).to(device)
    if settings.start:
        network.load_state_dict(starting_weights(settings.start, config.network))
    average = {key: value.clone() for key, value in network.state_dict().items()}
    optimiser = Optimiser(network, settings.learning_rate, settings.weight_decay)
    averaged = build_network(config.network).to(device).eval()
    seen = ranges(of_image(case.image) | of_vessels(case.image, case.sdf) for case in cases)
    model = Model(averaged, config, preprocessing, seen)
    start = _resume(folder / "state.safetensors", network, average, optimiser)

    with ThreadPoolExecutor(1) as ahead, Journal(folder, start, trackers) if first else nullcontext() as journal:

        def patches(step: int):
            return ahead.submit(draw, cases, settings.patch, len(share), settings.seed, step, share.start)

        upcoming = patches(start)
        steps = range(start, settings.steps)
        bar = track(steps, "train", settings.steps, "step", initial=start) if first else steps
        for step in bar:
            batch = upcoming.result()
            upcoming = patches(step + 1)
            rate = learning_rate(step, settings.steps, settings.learning_rate)
            network.train()
            if step >= ADAPTING * settings.steps:
                network.hold_statistics()
            losses = _loss(network, batch, config, device)
            optimiser.zero_grad()
            losses["total"].backward()
            processes.average_gradients(network)
            losses = processes.mean(losses)
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_norm)
            _require_finite(losses["total"], norm, step, folder)
            optimiser.step(rate)
            update_average(average, network.state_dict(), settings.average, step)

            done = step + 1
            if journal is None:
                continue
            figures = {f"loss/{key}": value.item() for key, value in losses.items()}
            journal.write(done, figures | {"rate": rate})
            bar.set_postfix(loss=f"{figures['loss/total']:.3f}")  # type: ignore[union-attr]
            # Before the checkpoint: a run that goes on behind it does not come back here.
            if validate and (done % settings.validate_every == 0 and done != settings.steps):
                averaged.load_state_dict(average)
                journal.write(done, *validate(model))
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                _require_finite_weights(average, step, folder)
                averaged.load_state_dict(average)
                save_model(folder / "model.safetensors", model, done)
                save_state(folder / "state.safetensors", done, network.state_dict(), average, optimiser.state())
    processes.wait()
    averaged.load_state_dict(average)
    return model


def learning_rate(step: int, steps: int, highest: float) -> float:
    """Linear warm-up over the first 5% of the steps, then a cosine down to 1% of the highest rate."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    progress = (step - warm) / max(1, steps - warm)
    return highest * (FINAL_RATE + (1 - FINAL_RATE) * (1 + math.cos(math.pi * progress)) / 2)


def _share_of(batch: int) -> range:
    """The patches of every batch that fall to this process."""
    number = processes.size()
    if batch % number:
        raise InputError(f"training.batch = {batch} cannot be shared by {number} processes; make it a multiple.")
    each = batch // number
    return range(processes.rank() * each, (processes.rank() + 1) * each)


def _loss(network: VesselNet, batch: Batch, config: RunConfig, device: torch.device) -> dict[str, Tensor]:
    image = torch.from_numpy(batch.image).to(device)
    targets = [torch.from_numpy(level).to(device) for level in _target_pyramid(batch, config)]
    # bf16 pays on a GPU; on the CPUs tried it gained nothing on channels-last convolutions this thin.
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        fields = network(image, acquisition=torch.from_numpy(batch.acquisition).to(device))
    return total_loss(fields, targets, torch.from_numpy(batch.skeleton).to(device), config.loss)


def _target_pyramid(batch: Batch, config: RunConfig) -> list[np.ndarray]:
    """Coarse-grained targets per level, (B, 1, x, y, z) in level-0 voxels."""
    levels = [pyramid(sdf[0], config.network.levels, config.network.operator) for sdf in batch.sdf]
    return [np.stack(fields)[:, None] for fields in zip(*levels, strict=True)]


def _resume(path: Path, network: VesselNet, average: dict, optimiser: Optimiser) -> int:
    if not path.is_file():
        return 0
    state = load_state(path)
    network.load_state_dict(state.weights)
    for key, value in state.average.items():
        average[key].copy_(value)
    optimiser.load(state.moments)
    log.info("Resumed %s at step %d.", path.parent, state.step)
    return state.step


def _require_finite(loss: Tensor, norm: Tensor, step: int, folder: Path) -> None:
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise _diverged("loss", loss.item(), step, folder)


def _require_finite_weights(average: dict[str, Tensor], step: int, folder: Path) -> None:
    """A good checkpoint is never replaced by one that is not; what is not finite stays so in the average."""
    for name, value in average.items():
        if not torch.isfinite(value).all():
            raise _diverged(f"weight {name}", float(value[~torch.isfinite(value)][0]), step, folder)


def _diverged(what: str, value: float, step: int, folder: Path) -> RunError:
    return RunError(
        f"The {what} became {value} at step {step + 1}; the last good checkpoint, if there is one, is in {folder}: "
        "start again with a smaller --training.learning-rate and another --output."
    )


@torch.no_grad()
def update_average(average: dict[str, Tensor], weights: dict[str, Tensor], decay: float, step: int) -> None:
    """Move the average of the weights towards them, in place, by `1 - decay`.

    The ramp lets it forget the random start (as in TensorFlow's ExponentialMovingAverage).
    """
    decay = min(decay, (1 + step) / (10 + step))
    for key, value in weights.items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)
