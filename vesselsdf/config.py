"""The whole of a run's configuration: one frozen, typed, validated object; unknown keys are errors."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vesselsdf.constants import REFINEMENT_CONSTANT, Modality
from vesselsdf.errors import InputError

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of all groups of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Settings):
    """Shape of the network."""

    levels: Annotated[int, Field(ge=2, le=6)] = 4
    """Number of resolution levels; the spacing doubles with each."""
    width: Annotated[int, Field(ge=2, le=128)] = 8
    """Channels of the stem at full resolution; all other widths follow from it."""
    kappa: Positive = 0.95
    """Bound of one refinement in units of the coarse spacing; must exceed what the operator's fields can need."""
    operator: Literal["mean", "min", "sample"] = "sample"
    """Coarse-graining that makes the targets of the coarser levels."""

    @model_validator(mode="after")
    def _bound_covers_distance_fields(self) -> "NetworkSettings":
        needed = REFINEMENT_CONSTANT[self.operator]
        if self.kappa <= needed:
            raise ValueError(f"kappa must exceed {needed}, the constant of the operator '{self.operator}'")
        return self


class DataSettings(Settings):
    """Where the cases come from and how they are brought to the working grid."""

    root: str = "synthetic"
    """Folder of cases (nnU-Net, MSD or images/ + labels/), or 'synthetic' for trees grown by the package."""
    card: str | None = None
    """Dataset card (a name in datasets/ or a .toml file): label ids, intensity window. Found by layout if not given."""
    spacing: Positive | None = None
    """Edge of the isotropic working voxels in mm; by default the finest voxel edge of each volume."""
    window: tuple[float, float] | None = None
    """Intensities mapped to -1 and 1 (HU for CT); by default the card's window or statistics of each volume."""
    vessel_ids: tuple[int, ...] | None = None
    """Label values that are vessels; by default the card's, or every value above 0."""
    ignore_ids: tuple[int, ...] | None = None
    """Label values of places that nobody has labelled: nothing is learned there. By default the card's, or none."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of the cases held out for validation (at least one)."""
    synthetic_cases: Annotated[int, Field(ge=2)] = 96
    """Number of synthetic cases, if root is 'synthetic'."""
    synthetic_size: Annotated[int, Field(ge=32)] = 96
    """Voxels along each edge of a synthetic case."""
    modality: Literal["mixed"] | Modality | tuple[Modality, ...] = "mixed"
    """What the synthetic cases look like: one of them, several in turns, or 'mixed' for CT, MR and microscopy."""
    close_ups: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the synthetic training cases that show vessels from near, crowded and up to 80 voxels wide."""
    slices: tuple[Annotated[int, Field(ge=1)], ...] = (1,)
    """Layers per slice of synthetic images, drawn anew for each: (1, 3, 5) makes two thirds of them thick-sliced."""


class LossSettings(Settings):
    """Weights of the loss terms; 0 leaves a term out."""

    distance: Weight = 1.0
    """Band-limited Huber loss of the distance, on every level."""
    eikonal: Weight = 0.05
    """Unit gradient near the wall."""
    gaussian: Weight = 0.02
    """Adaptive Gaussian regulariser: smooth far from the wall, sharp near it."""
    centreline: Weight = 0.5
    """Soft clDice on the zero set."""
    overlap: Weight = 0.5
    """Soft Dice on the zero set."""
    reach: Weight = 1.5
    """Every piece of the true centreline within reach of refinement, on every coarse level."""
    topology: Weight = 0.0
    """For how many voxels one counts on which coarse topology hinges. Try 20; held-out gains were within the noise."""


class TrainingSettings(Settings):
    """The optimisation."""

    start: str | None = None
    """Weights to start from: a model.safetensors, or 'general' for those of the package (fine-tuning)."""
    steps: Annotated[int, Field(ge=1)] = 2000
    """Number of optimisation steps."""
    batch: Annotated[int, Field(ge=1)] = 2
    """Patches per step."""
    patch: Annotated[int, Field(ge=16)] = 48
    """Voxels along each edge of a patch; a multiple of 2**(levels - 1)."""
    learning_rate: Positive = 3e-3
    """Largest learning rate; a warm-up leads to it and a cosine away from it."""
    weight_decay: Weight = 1e-2
    """Decoupled weight decay."""
    gradient_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average of the weights."""
    seed: int = 0
    """Every draw follows from it."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints; a run that is killed goes on from the last one."""
    validate_every: Annotated[int, Field(ge=1)] = 1000
    """Steps between reconstructions of the validation volumes."""


class RunConfig(Settings):
    """Everything that determines a run."""

    network: NetworkSettings = NetworkSettings()
    data: DataSettings = DataSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _patch_fits_the_levels(self) -> "RunConfig":
        step = 2 ** (self.network.levels - 1)
        if self.training.patch % step:
            raise ValueError(f"training.patch = {self.training.patch} must be a multiple of {step} = 2**(levels - 1)")
        if self.data.root == "synthetic" and self.data.synthetic_size < self.training.patch:
            raise ValueError(
                f"data.synthetic_size = {self.data.synthetic_size} must be at least training.patch = "
                f"{self.training.patch}"
            )
        return self


def parse_config(values: dict[str, Any], origin: str) -> RunConfig:
    """A validated configuration from nested dictionaries; `origin` is named in the error."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{origin}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """The first problem of a pydantic error in one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "configuration"
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{where}'; check its spelling against `vesselsdf train --help`."
    return f"{where}: {first['msg'].removeprefix('Value error, ')} (got {str(first['input'])[:80]})."


def load_config(path: str | Path) -> RunConfig:
    """Read a configuration from YAML; settings that it leaves out keep their defaults."""
    import yaml

    path = Path(path)
    if not path.is_file():
        raise InputError(f"No configuration file at {path}; check the path or leave --config out for the defaults.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}, not settings such as 'network:' and 'training:'.")
    return parse_config(values, str(path))


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write the whole configuration as YAML, atomically."""
    import yaml

    from vesselsdf.files import write_text

    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def claim_folder(folder: Path, config: RunConfig) -> None:
    """Write the configuration to a run's folder; `InputError` if the folder belongs to a run with another one.

    Prepared cases and checkpoints found there are trusted, so they must come from the same configuration.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        save_config(config, path)
        return
    difference = _first_difference(load_config(path).model_dump(), config.model_dump())
    if difference:
        raise InputError(
            f"{folder} holds a run with another configuration ({difference}); choose another --output, or remove it."
        )


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    for key, value in new.items():
        if isinstance(value, dict):
            inner = _first_difference(old[key], value, f"{prefix}{key}.")
            if inner:
                return inner
        elif old[key] != value:
            return f"{prefix}{key} was {old[key]}, now {value}"
    return ""
