"""What each level of a network contributes, and what stays predictive under repeated coarse-graining.

    python benchmarks/levels.py [--checkpoint runs/.../model.safetensors] [--trees 20]

On held-out synthetic trees of 128^3. First table: the network as it is, and with the corrections and features of one
level (or of all from level 0 up to it) left out at test time, so that the prolonged coarser field stands for it.
Second table: decisions taken from the field of one level alone, prolonged to the finest grid, against those of the true
field: how far off they are, and how much of the difference between trees they explain (rank correlation over trees).
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy.stats import spearmanr

from vesselsdf.anatomy import decisions
from vesselsdf.checkpoint import GENERAL, Model, load_model
from vesselsdf.graph import centreline_graph
from vesselsdf.inference import predict
from vesselsdf.losses import COARSE_WALL
from vesselsdf.metrics import evaluate
from vesselsdf.progress import track
from vesselsdf.report.text import columns
from vesselsdf.scales import prolong
from vesselsdf.synthesis.cases import SyntheticCase, synthetic_case
from vesselsdf.volume import Volume

SEED, SIZE, SPACING = 950_000, 128, 0.5
KEYS = (
    *("dice", "cldice", "nsd", "tree_length_detected", "tree_length_precision"),
    *("beta0_error", "beta1_error", "radius_error"),
)
DECISIONS = ("trees", "loops", "terminals", "total_length")


def trees(count: int) -> list[SyntheticCase]:
    """Held-out cases, a third of each modality."""
    return [
        synthetic_case(SEED + index, (SIZE,) * 3, (SPACING,) * 3, ("ct", "mr", "microscopy")[index % 3])
        for index in track(range(count), "grow", unit="tree")
    ]


@contextmanager
def without(model: Model, left_out: set[int]) -> Iterator[None]:
    """Inside, the levels in `left_out` are not refined."""
    network = model.network
    correct = network.correct

    def skipping(level, sites, share, stem, base, parents):
        if level in left_out:
            return base.new_zeros(len(sites), 1), base.new_zeros(len(sites), network.refined_channels[level])
        return correct(level, sites, share, stem, base, parents)

    network.correct = skipping
    try:
        yield
    finally:
        del network.correct


def fields_of(model: Model, case: SyntheticCase) -> list[np.ndarray]:
    working = model.preprocessing.working_volume(case.image)
    fields = predict(model.network, working.array, SPACING, model.preprocessing.acquisition(case.image))
    return [field - np.float32(model.preprocessing.threshold * SPACING) for field in fields]


def contributions(model: Model, cases: list[SyntheticCase]) -> str:
    """The first table."""
    coarsest = model.network.levels - 1
    ablations: dict[str, set[int]] = {"all levels": set()}
    for level in range(coarsest):
        ablations[f"without level {level}"] = {level}
    for level in range(1, coarsest):
        ablations[f"without levels 0 to {level}"] = set(range(level + 1))
    rows = []
    for name, left_out in track(list(ablations.items()), "ablate", unit="row"):
        found = []
        for case in cases:
            with without(model, left_out):
                field = fields_of(model, case)[0]
            table = evaluate(Volume(field <= 0, case.sdf.affine), case.sdf)
            found.append([float(table[key]) for key in KEYS])
        columns_of = [[value for value in column if np.isfinite(value)] for column in zip(*found, strict=True)]
        rows.append([name, *(float(np.mean(column)) if column else None for column in columns_of)])
    return columns(["network", *KEYS], rows)


def decided(field: np.ndarray, affine: np.ndarray) -> list[float]:
    """Decisions taken from a field; zeros if it holds no vessel."""
    if field.min() > 0:
        return [0.0] * len(DECISIONS)
    found = decisions(centreline_graph(field, affine))
    return [float(found[key]) for key in DECISIONS]


def predictions(model: Model, cases: list[SyntheticCase]) -> str:
    """The second table. Coarse fields are cut half a spacing outside their zero set, where thin vessels still are."""
    truth = np.array([decided(case.sdf.array, case.sdf.affine) for case in cases])
    levels = range(model.network.levels)
    found = np.zeros((len(levels), *truth.shape))
    for number, case in enumerate(track(cases, "decide", unit="tree")):
        fields = fields_of(model, case)
        for level in levels:
            field = fields[level] - np.float32(COARSE_WALL * SPACING * 2**level if level else 0.0)
            for finer in range(level - 1, -1, -1):
                field = prolong(field, fields[finer].shape)
            found[level, number] = decided(field, case.sdf.affine)
    rows = []
    for level in levels:
        off = np.abs(found[level] - truth).mean(axis=0) / np.maximum(truth.mean(axis=0), 1)
        rank = [rank_correlation(found[level][:, k], truth[:, k]) for k in range(len(DECISIONS))]
        rows.append([level, SPACING * 2**level, *[f"{a:.0%} / {b:.2f}" for a, b in zip(off, rank, strict=True)]])
    return columns(["level", "mm", *(f"{key}: off by / rank" for key in DECISIONS)], rows)


def rank_correlation(found: np.ndarray, truth: np.ndarray) -> float:
    """Spearman's; NaN where one of the two is the same for all trees."""
    return float(spearmanr(found, truth).statistic) if np.ptp(found) and np.ptp(truth) else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=str(GENERAL))
    parser.add_argument("--trees", type=int, default=20)
    given = parser.parse_args()
    model, cases = load_model(given.checkpoint), trees(given.trees)
    print(contributions(model, cases))
    print("\n" + predictions(model, cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
