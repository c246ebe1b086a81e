"""Real two-photon stacks with their labels, leave-one-out; and whether the weights of the package are a good start.

    python benchmarks/two_photon.py [--rows nnunet ours tuned] [--splits ...] [--steps 200] [--seed 0] [--bf16]

Leave-one-out: every row of accuracy_rows.py is trained on three stacks and tested on the fourth. Two and two: trained
on two stacks, tested on the others. `none` is the general weights without training. `--bf16` trains in mixed precision
(see `accuracy.py`). Voxels are taken to be 2 x 2 x 5 um
(the files do not say); lengths below are in units of 4 um, so that a voxel is 0.5 wide as in `accuracy.py`. Every
finished split and row is kept in the results file and not run again, cases are kept in the folder; begin both anew when
networks, weights or the preparation have changed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from accuracy import train
from accuracy_cases import DATA, REACH, SPACING, TestCase, centreline_of, kept
from accuracy_rows import Row, rows
from accuracy_scores import score
from real_scans import STACKS, stack

from vesselsdf import read_volume
from vesselsdf.distance import signed_distance
from vesselsdf.files import write_json
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.report.text import columns
from vesselsdf.sampling import PreparedCase, prepare
from vesselsdf.volume import Volume, resample

THICKNESS = 2.5
"""Slices are so many times as thick as pixels are wide."""
NONE = "none"
SPLITS = {
    NONE: ([], list(STACKS)),
    **{f"all but {name}": ([n for n in STACKS if n != name], [name]) for name in STACKS},
    "first two": (["burgess_bbb", "burgess_mouse"], ["poon", "santos"]),
    "last two": (["poon", "santos"], ["burgess_bbb", "burgess_mouse"]),
}
KEYS = ("dice", "cldice", "tree_length_detected", "tree_length_precision", "beta0_error", "beta1_error", "diu")


def opened(name: str) -> tuple[Volume, Volume]:
    """Image and true distance, mm of a world in which a pixel is `SPACING` wide."""
    spacing = (SPACING, SPACING, THICKNESS * SPACING)
    image, label = (read_volume(stack(part), spacing) for part in STACKS[name])
    return image, label.with_array(signed_distance(label.array > 0, label.spacing))


def prepared(name: str, folder: Path) -> tuple[PreparedCase, TestCase]:
    """A stack to train on, and the same to test on."""
    case = prepare(folder, name, lambda: opened(name), Preprocessing(), REACH)
    return case, kept(folder / f"{name}.npz", lambda: to_test(name))


def to_test(name: str) -> TestCase:
    image, distance = opened(name)
    settings = Preprocessing(spacing=SPACING)
    grid = settings.working_volume(image)
    truth = resample(distance, grid.shape, grid.affine)
    points, radii = centreline_of(truth)
    return TestCase(name, "two-photon", 1, grid.array, settings.acquisition(image), truth, points, radii)


def tested(row: Row, network, case: TestCase) -> dict[str, float]:
    import torch

    with torch.inference_mode():
        return score(row.predict(network.eval(), case) <= row.usual, case)


def lines(cases: dict, split: str, name: str, seed: int, budget: dict) -> list[list]:
    """Lines of the table for a row trained on a split; for the general weights as they are, if the split is `NONE`."""
    row, (training, testing) = rows()[name], SPLITS[split]
    if training:
        network, facts = train(row, [cases[n][0] for n in training], seed, budget)
        print(f"{split}, {name}: {facts['train_seconds']:.0f} s", file=sys.stderr, flush=True)
    else:
        network = row.build()
    found = {test: tested(row, network, cases[test][1]) for test in testing}
    return [[split, name, test, *(figures[key] for key in KEYS)] for test, figures in found.items()]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=["nnunet", "ours", "tuned"])
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS, metavar="SPLIT")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="train in mixed precision")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vesselsdf_two_photon")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if not DATA.is_dir():
        print(f"two_photon: the public data are not at {DATA}", file=sys.stderr)
        return 2
    budget = {"steps": given.steps} | ({"bf16": True} if given.bf16 else {})
    cases = {name: prepared(name, given.folder) for name in STACKS}
    table = []
    for split in given.splits:
        for name in ["tuned"] if split == NONE else given.rows:
            key = json.dumps([split, name, given.seed, budget])
            known = json.loads(given.results.read_text()) if given.results.exists() else {}
            if key not in known:
                known[key] = lines(cases, split, name, given.seed, budget)
                write_json(given.results, known)
            table += known[key]
    print(columns(["trained on", "row", "tested on", *KEYS], table))
    means = {
        (split, row): np.mean([line[3:] for line in table if line[:2] == [split, row]], axis=0).tolist()
        for split, row in dict.fromkeys((line[0], line[1]) for line in table)
    }
    print("\n" + columns(["trained on", "row", *KEYS], [[*key, *values] for key, values in means.items()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
