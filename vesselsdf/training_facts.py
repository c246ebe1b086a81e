"""What a training run understood of its cases and settings, and how fast it goes: said before hours are spent on it.

All of it is cheap: prepared cases are looked at in part, and the pace is that of the run's own first steps.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vesselsdf.config import RunConfig
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import PreparedCase

# Of the centreline, by length, this share is thinner than "the thinnest vessels": single voxels are noise.
THINNEST = 0.05
# Cases, and skeleton voxels and voxels of each, that are looked at.
CASES, PLACES, VOXELS = 60, 2000, 1 << 20
# What is odd: a thinnest radius and a range of working spacings beyond these, and shares of vessel voxels outside.
LEAST_RADIUS, MOST_RATIO, USUAL_SHARE = 1.0, 2.0, (1e-4, 0.25)
# Steps and seconds before the clock starts (kernels are compiled, memory is had), and what is measured after that.
SETTLING, MEASURED, SECONDS = 2, (3, 20), 4.0


@dataclass(frozen=True)
class TrainingFacts:
    """What a run understood.

    `edges`, `working`: lowest and highest voxel edge of the images and of the working grids, mm (NaN: not known);
    `thinnest`: radius that a twentieth of the centreline does not reach, in working voxels (NaN: no vessels);
    `vessel_share`: of the known voxels; `smallest`: shape of the smallest case on its working grid; `done`: steps that
    an earlier process did; `remarks`: a sentence for each thing that is odd.
    """

    training: int
    held_out: int
    edges: tuple[float, float]
    working: tuple[float, float]
    thinnest: float
    vessel_share: float
    smallest: tuple[int, int, int]
    patch: int
    batch: int
    steps: int
    done: int
    levels: int
    parameters: int
    start: str | None
    device: str
    processes: int
    remarks: tuple[str, ...] = ()


def training_facts(
    config: RunConfig, cases: Sequence[PreparedCase], held_out: int, preprocessing: Preprocessing, done: int = 0
) -> TrainingFacts:
    """The facts about a run on prepared cases, of which a sample is looked at."""
    from vesselsdf import processes
    from vesselsdf.checkpoint import build_network

    settings = config.training
    edges = np.array([case.edges for case in cases])
    working = np.full(len(cases), preprocessing.spacing) if preprocessing.spacing else edges.min(axis=1)
    few = cases[:: math.ceil(len(cases) / CASES)]
    radii = np.concatenate([centreline_radii(case.sdf, case.skeleton) for case in few])
    shapes = sorted((case.image.shape for case in cases), key=lambda shape: (min(shape), math.prod(shape)))
    parameters = sum(part.numel() for part in build_network(config.network).parameters())
    facts: dict[str, Any] = {
        "training": len(cases),
        "held_out": held_out,
        "edges": _range(edges),
        "working": _range(working),
        "thinnest": float(np.quantile(radii, THINNEST)) if len(radii) else math.nan,
        "vessel_share": float(np.mean([_share(case.sdf) for case in few])),
        "smallest": shapes[0],
        "patch": settings.patch,
        "batch": settings.batch,
        "steps": settings.steps,
        "done": done,
        "levels": config.network.levels,
        "parameters": parameters,
        "start": settings.start,
        "device": _device(),
        "processes": processes.size(),
    }
    small = sum(min(shape) < settings.patch for shape in shapes)
    return TrainingFacts(**facts, remarks=tuple(_remarks(facts, small)))


def centreline_radii(sdf: np.ndarray, skeleton: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, " m"]:
    """Radii of the vessel at (some of) its skeleton voxels, in voxels; `sdf`: (X, Y, Z) voxels, negative inside.

    A skeleton voxel lies up to 0.7 voxel beside the axis, so its depth is too small a radius. But `(phi + r)^2` is the
    squared distance to the axis, a quadratic polynomial whose second differences along the three grid axes add up to 4
    for a straight vessel, so with the sums `D` of the second differences of phi and of phi^2::

        D(phi^2) + 2 r D(phi) = 4

    Exact for straight round vessels in any direction. Where `D(phi)` is small (a thick vessel seen off its axis) the
    depth itself counts.
    """
    inner = skeleton[((skeleton > 0) & (skeleton < np.array(sdf.shape) - 1)).all(axis=1)]
    inner = inner[:: math.ceil(len(inner) / PLACES)] if len(inner) else inner
    here = sdf[tuple(inner.T)].astype(np.float64)
    sums, squares = -6 * here, -6 * here**2
    for axis in range(3):
        for step in (-1, 1):
            there = sdf[tuple((inner + step * np.eye(3, dtype=int)[axis]).T)].astype(np.float64)
            sums, squares = sums + there, squares + there**2
    ridge = np.maximum(sums, 1.0)
    radii = np.where(sums > 1.0, (4 - squares) / (2 * ridge), -here)
    radii = np.clip(radii, -here, -here + 0.9)
    return radii[np.isfinite(radii)]


def _share(sdf: np.ndarray) -> float:
    """Of the known voxels that are vessel, in evenly spread planes."""
    step = max(1, math.ceil(sdf.size / VOXELS))
    planes = sdf[step // 2 :: step] if step < len(sdf) else sdf[len(sdf) // 2 :][:1]
    known = ~np.isnan(planes)
    return float((planes <= 0).sum() / max(1, known.sum()))


def _range(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else (math.nan, math.nan)


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(torch.cuda.current_device())
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _remarks(facts: Mapping[str, Any], small: int) -> list[str]:
    """A sentence for each thing that is odd; `small`: cases that are smaller than a patch."""
    found = []
    number, (low, high) = facts["training"] + facts["held_out"], facts["working"]
    if number < 3:
        found.append(f"There are only {number} cases: what is measured on one held-out case says little.")
    if facts["thinnest"] < LEAST_RADIUS:
        finer = f", as with --data.spacing {low * facts['thinnest'] / 1.5:.2g}" if math.isfinite(low) else ""
        found.append(
            f"The thinnest vessels have a radius of {facts['thinnest']:.2g} working voxels, and below one they are "
            f"easily missed: a finer working grid may help{finer}."
        )
    if small:
        size = " x ".join(map(str, facts["smallest"]))
        found.append(
            f"{small} of {facts['training']} cases are smaller than a patch (the smallest is {size} voxels): it is "
            "filled up with their edge; a smaller --training.patch loses nothing."
        )
    if high > MOST_RATIO * low:
        found.append(
            f"Working voxels are {low:.3g} to {high:.3g} mm: the network works in voxels, so the same vessel looks "
            "different from case to case; --data.spacing brings all cases to one."
        )
    if not USUAL_SHARE[0] <= facts["vessel_share"] <= USUAL_SHARE[1]:
        found.append(
            f"{100 * facts['vessel_share']:.2g}% of the voxels are vessel, which is unusual: check --data.vessel-ids."
        )
    return found


@dataclass(frozen=True)
class Pace:
    """How fast a run goes: measured over the steps `first` to `last`; `seconds` that those after them will take."""

    first: int
    last: int
    step_seconds: float
    seconds: float
    gigabytes: float


class Pacing:
    """A tracker that measures the pace of a run's first steps and says it, once."""

    def __init__(self, steps: int, say: Callable[[Pace], None]) -> None:
        self.steps, self.say = steps, say
        self.heard, self.since, self.first = 0, 0.0, 0
        self.said = False

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Look at the clock; what is not of a training step does not count."""
        if self.said or "loss/total" not in values:
            return
        self.heard += 1
        now, measured = time.monotonic(), self.heard - SETTLING
        if measured == 0:
            self.since, self.first = now, step + 1
        enough = measured >= MEASURED[1] or (measured >= MEASURED[0] and now - self.since >= SECONDS)
        if enough and step < self.steps:
            each = (now - self.since) / measured
            self.said = True
            self.say(Pace(self.first, step, each, each * (self.steps - step), memory()))

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def memory() -> float:
    """GB that this process has taken at most: of the GPU if there is one, else of the machine; NaN where not known."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
