"""Checkpoints: one safetensors file with a JSON header, so that reading one never executes anything.

A *model* holds the averaged weights and, in its header, the configuration and the preprocessing: all that a
reconstruction needs. A *training state* holds everything that the next step depends on. Each is one file, written to
a temporary name and renamed: a kill at any moment leaves the one before.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vesselsdf import __version__
from vesselsdf.config import NetworkSettings, RunConfig
from vesselsdf.errors import InputError, RunError
from vesselsdf.files import atomic_path
from vesselsdf.network import VesselNet
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.scales import REFINEMENT_CONSTANT

HEADER = "vesselsdf"
GENERAL = Path(__file__).parent / "weights" / "general.safetensors"
"""The weights that come with the package: trained on synthetic CT, MR and microscopy; see the model card beside it."""


@dataclass(frozen=True)
class Model:
    """A trained network (in evaluation mode) with what it was trained by and what it expects.

    `seen`: ranges of the figures of its training images (`vesselsdf.familiarity`).
    """

    network: VesselNet
    config: RunConfig
    preprocessing: Preprocessing
    seen: dict[str, Any] = field(default_factory=dict)


def build_network(settings: NetworkSettings) -> VesselNet:
    """An untrained network of the configured shape."""
    needed = REFINEMENT_CONSTANT[settings.operator]
    return VesselNet(levels=settings.levels, width=settings.width, kappa=settings.kappa, needed=needed)


def save_model(path: Path, model: Model, steps: int) -> None:
    """Write a model; `steps` is the number of optimisation steps that it has seen."""
    header = {
        "version": __version__,
        "steps": steps,
        "config": model.config.model_dump(mode="json"),
        "preprocessing": model.preprocessing.model_dump(mode="json"),
        "seen": model.seen,
    }
    _save(path, model.network.state_dict(), header)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """Read a model; `InputError` if the file is missing, damaged, or no model of this package."""
    tensors, header = _load(Path(path))
    try:
        config = RunConfig.model_validate(header["config"])
        preprocessing = Preprocessing.model_validate(header["preprocessing"])
        seen = {key: (float(low), float(high)) for key, (low, high) in header.get("seen", {}).items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a model of this package (its header lacks or has odd settings).") from error
    network = build_network(config.network)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(
            f"The weights in {path} do not fit the network its header describes; it is damaged."
        ) from error
    return Model(network.to(device).eval(), config, preprocessing, seen)


def starting_weights(start: str, settings: NetworkSettings) -> dict[str, Tensor]:
    """Weights to fine-tune: of the model at a path, or of the one named `general`; `InputError` if they do not fit.

    Only levels and width shape the weights; another operator or bound is something that fine-tuning learns.
    """
    path = GENERAL if start == "general" else Path(start)
    model = load_model(path)
    old, new = model.config.network, settings
    changed = [key for key in ("levels", "width") if getattr(old, key) != getattr(new, key)]
    if changed:
        differs = ", ".join(f"network.{key} is {getattr(old, key)} there, {getattr(new, key)} here" for key in changed)
        raise InputError(f"Training cannot start from {path}: {differs}; set it as it is there.")
    return model.network.state_dict()


def save_state(path: Path, step: int, weights: dict, average: dict, moments: dict[str, Tensor]) -> None:
    """Write all that the next training step depends on, after `step` steps."""
    tensors = {f"weights.{key}": value for key, value in weights.items()}
    tensors |= {f"average.{key}": value for key, value in average.items()}
    tensors |= {f"moments.{key}": value for key, value in moments.items()}
    _save(path, tensors, {"step": step})


@dataclass(frozen=True)
class TrainingState:
    """What `save_state` wrote."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, Tensor]


def load_state(path: Path) -> TrainingState:
    """Read a training state; `RunError` if it is damaged."""
    try:
        tensors, header = _load(path)
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "moments": {}}
        for key, tensor in tensors.items():
            group, name = key.split(".", 1)
            groups[group][name] = tensor
        return TrainingState(header["step"], groups["weights"], groups["average"], groups["moments"])
    except (InputError, KeyError, ValueError) as error:
        raise RunError(f"The checkpoint {path} is damaged; remove it to start again from step 0.") from error


def steps_done(path: Path) -> int:
    """Steps after which a training state was saved; 0 if there is none. `RunError` if it is damaged."""
    return load_state(path).step if path.is_file() else 0


def _save(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    from safetensors.torch import save_file

    contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(contiguous, temporary, metadata={HEADER: json.dumps(header)})


def _load(path: Path) -> tuple[dict[str, Tensor], dict]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"No checkpoint at {path}; give the model.safetensors that `vesselsdf train` wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable checkpoint of this package; it may be truncated.") from error
