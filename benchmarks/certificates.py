"""Certificates attacked: random pairs of fields and pyramids, every claim held against an independent computation.

    python benchmarks/certificates.py --pairs 100000 [--processes 2] [--checkpoint runs/.../model.safetensors]

A *claim* is a number that the package states about `G = {g <= 0}` knowing `f` and a bound, or knowing both masks: the
features that the uniform certificate proves (by the wall error, by `sup |f - g|`, within a band), the rank that the
local certificate computes, the lists of what is lost and invented, and everything that `survival` reports of a level
of a pyramid. The truth is computed by gudhi's cubical complexes and, for one small pair in fifty, by rank computations
over Z/2 that share no code with either. A claim above the truth is wrong; the local rank must equal it.

*True survivals* of a pair: the classes of `P = {f <= 0}` and of `G` that are one and the same in `P | G`, that is,
`dim(im H(P) & im H(G))` in `H(P | G)`. The local certificate wants more, a cycle that lies in both masks, where this
one also counts a cycle of P that touches one of G from outside. By the exact sequence of Mayer and Vietoris it is the
rank of `H(J) -> H(P | G)`, where J holds the points (cells, not only voxels) that belong to both. Beside it stands the
lesser of both Betti numbers, which no notion of survival can exceed.

Prints one table; exits with code 1 if anything is contradicted or any bound is broken, and names the pairs, which
`--only KIND INDEX` repeats.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from exact_ranks import BruteForce, Truth, nested, rank
from random_pairs import KINDS, PYRAMIDS, make_pair, make_pyramid

from vesselsdf import scales
from vesselsdf.report.text import columns
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.certificates import sup_distance, wall_error
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.persistence import certified_count, features
from vesselsdf.topology.survival import survival

CHUNK = 500
BRUTE_EVERY = 50
BRUTE_VOXELS = 150


@dataclass
class Tally:
    """What was claimed of the pairs of one kind, and whether it was true."""

    pairs: int = 0
    brute: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros((4, 3), np.int64))  # uniform, local, true, least beta
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Count what another tally counted too."""
        self.pairs += other.pairs
        self.brute += other.brute
        self.counts += other.counts
        self.wrong += other.wrong


def at_most(low, high) -> bool:
    return all(a <= b for a, b in zip(low, high, strict=True))


def check_pair(f: np.ndarray, g: np.ndarray, brute: bool = False) -> tuple[np.ndarray, list[str]]:
    """Counts per dimension (uniform, local, true, lesser Betti number), and the claims that are wrong."""
    truth, p, g_mask = Truth.of(f, g), f <= 0, g <= 0
    found, sup = features(f), sup_distance(f, g)
    uniform = certified_count(found, truth.eps)
    shared = shared_features(p, g_mask)
    claims = {
        "wall error": wall_error(f, g) == truth.eps <= sup,
        "uniform: every one is a class of G": at_most(uniform, truth.inside),
        "uniform: rank": at_most(uniform, truth.uniform) and at_most(truth.uniform, truth.beta_g),
        "a bound proves no more": at_most(certified_count(found, sup), uniform),
        "a band proves no more": at_most(certified_count(features(f, band=2 * sup + 0.1), sup), uniform),
        "local: rank": all(shared[k]["shared"] == truth.local[k] for k in range(3)),
        "local proves what uniform does": at_most(uniform, truth.local) and at_most(truth.local, truth.survivals),
        "Betti numbers": betti_numbers(p) == truth.beta_p and betti_numbers(g_mask) == truth.beta_g,
        "lost": all(truth.local[k] + len(shared[k]["lost"]) == truth.beta_p[k] for k in range(3)),
        "invented": all(truth.local[k] + len(shared[k]["invented"]) == truth.beta_g[k] for k in range(3)),
    }
    if brute and (p | g_mask).any():
        whole = BruteForce(p | g_mask)
        for k in range(3):
            of_p, of_g, both = whole.image(k, p), whole.image(k, g_mask), whole.image(k, p, g_mask)
            claims[f"brute force: local {k}"] = whole.image(k, p & g_mask) == truth.local[k]
            claims[f"brute force: true {k}"] = of_p + of_g - both == truth.survivals[k]
    return truth.counts(uniform), [name for name, holds in claims.items() if not holds]


def check_pyramid(fields: list[np.ndarray], bounds: list[float]) -> Iterator[tuple[np.ndarray, list[str]]]:
    """What `survival` reports of each level of a pyramid, as `check_pair`."""
    report = survival(fields, (0.5, 0.5, 0.5), bounds=bounds)["levels"]
    common = union = fields[0] <= 0
    for level in range(1, len(fields)):
        row, certified, step = report[level], report[level]["certified"], report[level]["step"]
        g = scales.prolong_to(fields[level], fields[0].shape, level)
        truth = Truth.of(fields[0], g)
        common, union = common & (g <= 0), union | (g <= 0)
        along = rank(nested(common, union), 0, 1)
        finer = fields[level - 1]
        single = Truth.of(finer, scales.prolong(fields[level], finer.shape))
        proved = np.minimum(truth.inside, truth.uniform)
        fates = [feature["fates"][level]["fate"] for feature in report[0]["features"]]
        claims = {
            "survived": tuple(row["survived"]) == tuple(certified["local"]) == truth.local,
            "along": tuple(certified["along"]) == along and at_most(along, truth.local),
            "uniform": at_most(certified["uniform"], proved),
            "composed": at_most(certified["composed"], certified["uniform"]),
            "a priori": at_most(certified["a_priori"], certified["uniform"]),
            # Not a claim but what claims rest on; the fields themselves are rounded, some of them in float32.
            "bound": row["error"] <= row["bound"] + 1e-6 * (row["bound"] + float(np.abs(fields[0]).max())),
            "wall error": row["wall_error"] == truth.eps <= row["error"],
            "betti": tuple(row["betti_on_finest_grid"]) == truth.beta_g,
            "lost": tuple(kinds_of(row["lost"]) + truth.local) == truth.beta_p,
            "invented": tuple(kinds_of(row["invented"]) + truth.local) == truth.beta_g,
            "fates": fates.count("survives") == sum(truth.local),
            "step": tuple(step["survived"]) == single.local,
            "step lost": tuple(kinds_of(step["lost"]) + single.local) == single.beta_p,
            "step invented": tuple(kinds_of(step["invented"]) + single.local) == single.beta_g,
            "passports": passports_hold(fields, report, level, "passport_level"),
            "certified levels": passports_hold(fields, report[:1], level, "certified_level"),
        }
        wrong = [f"level {level}: {name}" for name, holds in claims.items() if not holds]
        yield truth.counts(certified["uniform"]), wrong


def kinds_of(entries: list[dict]) -> np.ndarray:
    """How many entries there are of each dimension."""
    return np.bincount([entry["dimension"] for entry in entries], minlength=3)


def passports_hold(fields: list[np.ndarray], report: list[dict], level: int, name: str) -> bool:
    """Whether the features of each finer level with a passport for this one are alive in it, on their own grid."""
    for finer, row in enumerate(report[:level]):
        g = scales.prolong_to(fields[level], fields[finer].shape, level - finer)
        promised = kinds_of([feature for feature in row["features"] if feature[name] >= level])
        if not at_most(promised, Truth.of(fields[finer], g).inside):
            return False
    return True


def check_chunk(kind: str, first: int, last: int) -> Tally:
    """Pairs `first` to `last` of a kind; of pyramids, as many as have that many pairs or a few more."""
    tally = Tally()
    index = first
    while tally.pairs < last - first:
        if kind in PYRAMIDS:
            results = list(check_pyramid(*make_pyramid(kind, index)))
        else:
            f, g = make_pair(kind, index)
            brute = index % BRUTE_EVERY == 0 and f.size <= BRUTE_VOXELS
            tally.brute += brute
            results = [check_pair(f, g, brute)]
        for counts, wrong in results:
            tally.pairs += 1
            tally.counts += counts
            tally.wrong += [f"{kind} {index}: {what}" for what in wrong]
        index += 1
    return tally


def check_network(checkpoint: str, outputs: int) -> tuple[Tally, float]:
    """Levels of a trained network's output on unseen trees; and the largest share of a bound that was used."""
    from vesselsdf.checkpoint import load_model
    from vesselsdf.inference import predict
    from vesselsdf.synthesis.cases import synthetic_case

    model = load_model(checkpoint)
    tally, used = Tally(), 0.0
    for index in range(outputs):
        case = synthetic_case(10**7 + index, (64, 64, 64), (0.5,) * 3, ("ct", "mr", "microscopy")[index % 3])
        working = model.preprocessing.working_volume(case.image)
        levels = predict(model.network, working.array, 0.5, model.preprocessing.acquisition(case.image))
        for level, (fine, coarse) in enumerate(itertools.pairwise(levels)):
            largest = float(np.abs(fine - scales.prolong(coarse, fine.shape)).max())
            used = max(used, largest / (model.network.kappa * 0.5 * 2 ** (level + 1)))
        window = tuple(slice(max(0, (n - 40) // 2), max(0, (n - 40) // 2) + 40) for n in levels[0].shape)
        for level in range(1, len(levels)):
            g = scales.prolong_to(levels[level], levels[0].shape, level)
            counts, wrong = check_pair(levels[0][window], g[window])
            tally.add(Tally(1, 0, counts, [f"network output {index}, level {level}: {what}" for what in wrong]))
    return tally, used


def table(tallies: dict[str, Tally]) -> str:
    """One line for each kind of pair and one for all."""
    header = [
        "pairs",
        "number",
        "brute force",
        "uniform",
        "local",
        "true",
        "lesser beta",
        "uniform %",
        "local %",
        "wrong",
    ]
    rows = []
    for name, tally in tallies.items():
        uniform, local, true, least = tally.counts
        proofs = (uniform, local)
        shares = ["/".join(f"{100 * a / t:.0f}" if t else "-" for a, t in zip(of, true, strict=True)) for of in proofs]
        numbers = ["/".join(str(int(n)) for n in row) for row in (uniform, local, true, least)]
        rows.append([name, tally.pairs, tally.brute, *numbers, *shares, len(tally.wrong)])
    return columns(header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--checkpoint", default=None, help="also check a trained network's outputs")
    parser.add_argument("--outputs", type=int, default=20)
    parser.add_argument("--only", nargs=2, metavar=("KIND", "INDEX"), help="one pair again")
    given = parser.parse_args()
    if given.only:
        kind, index = given.only[0], int(given.only[1])
        wrong = check_chunk(kind, index, index + 1).wrong
        print("\n".join(wrong) or "nothing is wrong")
        return int(bool(wrong))
    start = time.monotonic()
    weights = [1 if kind in PYRAMIDS else 5 for kind in KINDS]
    numbers = [-(-given.pairs * weight // sum(weights)) for weight in weights]
    jobs = [
        (kind, at, min(at + CHUNK, number))
        for kind, number in zip(KINDS, numbers, strict=True)
        for at in range(0, number, CHUNK)
    ]
    tallies = {kind: Tally() for kind in KINDS}
    with ProcessPoolExecutor(given.processes) as pool:
        for done, (job, tally) in enumerate(zip(jobs, pool.map(check_chunk, *zip(*jobs, strict=True)), strict=True)):
            tallies[job[0]].add(tally)
            print(f"\r{done + 1} of {len(jobs)} chunks", end="", file=sys.stderr, flush=True)
    used = 0.0
    if given.checkpoint:
        tallies["network outputs"], used = check_network(given.checkpoint, given.outputs)
    whole = Tally()
    for tally in tallies.values():
        whole.add(tally)
    print(file=sys.stderr)
    print(table(tallies | {"all": whole}))
    print("Numbers are components/loops/cavities; shares are of the true survivals. Lesser beta: of both fields.")
    if given.checkpoint:
        print(f"The largest correction of the network used {used:.4f} of its bound.")
    print(f"{whole.pairs} pairs in {time.monotonic() - start:.0f} s; wrong claims: {len(whole.wrong)}")
    print("\n".join(whole.wrong[:20]))
    return int(bool(whole.wrong) or used > 1 + 1e-4)


if __name__ == "__main__":
    sys.exit(main())
