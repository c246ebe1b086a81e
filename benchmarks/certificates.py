"""Bounds and certificates held against gudhi: 200 random fields and 20 outputs of a trained network.

    python benchmarks/certificates.py [--checkpoint runs/.../model.safetensors]

Every pair (f, g) on one grid: the features that the uniform certificate proves, the rank that gudhi computes, and the
local certificate against gudhi's. Prints one table; exits with code 1 if any certificate is contradicted or any bound
is broken.
"""

import argparse
import sys
from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter

from vesselsdf import scales
from vesselsdf.api import newest_run
from vesselsdf.checkpoint import load_model
from vesselsdf.inference import predict
from vesselsdf.report.text import columns
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.topology.survival import check_certificates

EDGE = 40


def random_pairs(count: int):
    """Smooth random fields with errors of every size, from hardly any to as large as the field."""
    for seed in range(count):
        generator = np.random.default_rng(seed)
        shape = tuple(generator.integers(4, 13, 3))
        field = gaussian_filter(generator.normal(size=shape), generator.uniform(0.3, 1.5))
        error = gaussian_filter(generator.normal(size=shape), generator.uniform(0.0, 1.5))
        yield field, field + error * generator.uniform(0, 0.5) * field.std() / max(error.std(), 1e-9)


def network_pairs(checkpoint: str, count: int):
    """Level 0 of a network's output and each coarser level prolonged to it, around the vessels of unseen trees."""
    model = load_model(checkpoint)
    for index in range(count):
        modality = ("ct", "mr", "microscopy")[index % 3]
        case = synthetic_case(10**7 + index, (64, 64, 64), (0.5,) * 3, modality)
        working = model.preprocessing.working_volume(case.image)
        fields = predict(model.network, working.array, 0.5)
        used = max(
            float(np.abs(fine - scales.prolong(coarse, fine.shape)).max())
            / (model.network.kappa * 0.5 * 2 ** (level + 1))
            for level, (fine, coarse) in enumerate(pairwise(fields))
        )
        start = [max(0, (n - EDGE) // 2) for n in fields[0].shape]
        window = tuple(slice(s, s + EDGE) for s in start)
        for level in range(1, len(fields)):
            yield fields[0][window], scales.prolong_to(fields[level], fields[0].shape, level)[window], used


def summary(name: str, reports: list, used: list[float]) -> list:
    """One line of the table."""
    total = {key: np.sum([report[key] for report in reports], axis=0) for key in ("certified", "local", "betti")}
    wrong = sum(report["contradicted"] for report in reports)
    largest = max(used, default=None)
    return [
        name,
        len(reports),
        *(tuple(int(n) for n in total[key]) for key in ("certified", "local", "betti")),
        wrong,
        largest,
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--fields", type=int, default=200)
    parser.add_argument("--outputs", type=int, default=20)
    given = parser.parse_args()
    checkpoint = given.checkpoint or str(newest_run() / "model.safetensors")
    random_reports = [check_certificates(f, g) for f, g in random_pairs(given.fields)]
    network_reports, used = [], []
    for f, g, bound_used in network_pairs(checkpoint, given.outputs):
        network_reports.append(check_certificates(f, g))
        used.append(bound_used)
    rows = [
        summary("random fields", random_reports, []),
        summary("network outputs, levels 1 to 3", network_reports, used),
    ]
    header = [
        "pairs from",
        "pairs",
        "certified (uniform)",
        "certified (local)",
        "beta of g",
        "contradicted",
        "bound used",
    ]
    print(columns(header, rows))
    return int(any(row[5] for row in rows) or max(used) > 1 + 1e-4)


if __name__ == "__main__":
    sys.exit(main())
