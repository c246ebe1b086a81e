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
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter

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


# Fields and pairs of fields.


def random_shape(generator: np.random.Generator) -> tuple[int, ...]:
    """Mostly up to 6 voxels per axis, often one voxel thick, sometimes 8."""
    low, high = ((1, 7), (1, 7), (4, 9))[generator.integers(3)]
    return tuple(int(n) for n in generator.integers(low, high, 3))


def distances(mask: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance to the wall between voxels of a mask, up to half a voxel; constant where there is no wall."""
    if mask.all() or not mask.any():
        return np.where(mask, -1.5, 1.5)
    return distance_transform_edt(~mask, spacing) - distance_transform_edt(mask, spacing)


def drawn(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask with loops or cavities: lines that cross, the twelve edges of a box, or its faces."""
    mask = np.zeros(shape, bool)
    kind = generator.integers(3)
    if kind == 0:
        for axis in generator.integers(0, 3, 4):
            at = [slice(None) if a == axis else int(generator.integers(shape[a])) for a in range(3)]
            mask[tuple(at)] = True
        return mask
    low = [int(generator.integers(0, max(1, n // 3))) for n in shape]
    box = tuple(slice(start, int(generator.integers(max(start + 1, n - 2), n + 1))) for start, n in zip(low, shape))
    at = np.indices(mask[box].shape)
    on_faces = sum((a == 0) | (a == n - 1) for a, n in zip(at, mask[box].shape))
    mask[box] = on_faces >= (2 if kind == 1 else 1)
    return mask


def one_field(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth, noise, integers with ties, distances to random and to drawn masks, two values; float32 or float64."""
    noise = generator.normal(size=shape)
    kind = generator.integers(8)
    if kind <= 1:
        smooth = gaussian_filter(noise, generator.uniform(0.4, 1.5))
        return (smooth / max(smooth.std(), 1e-2) + generator.normal() / 2).astype([np.float32, np.float64][kind])
    if kind == 2:
        return noise
    if kind == 3:
        return generator.integers(-3, 4, shape).astype(np.float64)
    if kind == 4:
        return distances(gaussian_filter(noise, 0.8) < 0, tuple(generator.uniform(0.4, 2, 3)))
    if kind <= 6:
        return distances(drawn(generator, shape)) - generator.choice([0, 0.5, generator.uniform(-0.9, 0.9)])
    return np.where(generator.random(shape) < generator.uniform(0.2, 0.8), -1.0, 1.0) * generator.uniform(0.1, 1)


def another(generator, f):
    """A field that has nothing to do with f."""
    return one_field(generator, f.shape)


def disturbed(generator, f):
    """An error of any size and smoothness."""
    error = gaussian_filter(generator.normal(size=f.shape), generator.uniform(0, 1.5))
    return f + (error * generator.uniform(0, 1.5) * f.std() / max(error.std(), 1e-3)).astype(f.dtype)


def flipped(generator, f):
    """A few voxels exchanged between vessel and background, the rest untouched."""
    return np.where(generator.random(f.shape) < generator.uniform(0, 0.15), -f, f)


def at_margins(generator, f):
    """Errors as large as a margin of f, or one step of the number format more or less: the worst that a bound allows.

    Everywhere up, everywhere down, or random signs.
    """
    margins = [bar.margin for bar in features(f) if bar.alive and bar.margin > 0] or [0.5]
    eps = float(margins[generator.integers(len(margins))])
    eps = [eps, np.nextafter(eps, 0), np.nextafter(eps, 9)][generator.integers(3)]
    sign = [-1.0, 1.0, generator.choice([-1.0, 1.0], f.shape)][generator.integers(3)]
    return f.astype(np.float64) + sign * eps


def at_the_wall(generator, f):
    """Only voxels near the wall move, by just enough to reach zero or cross it."""
    limit = np.quantile(np.abs(f), generator.random())
    moved = (np.abs(f) <= limit) & (generator.random(f.shape) < 0.5)
    return np.where(moved, [0.0, -f, np.where(f <= 0, 1e-3, 0.0)][generator.integers(3)], f)


def regrown(generator, f):
    """Distances to the dilated, eroded or shifted mask of f."""
    mask = f <= 0
    change = [binary_dilation, binary_erosion, lambda m: np.roll(m, 1, axis=int(generator.integers(3)))]
    return distances(change[generator.integers(3)](mask))


def levels_apart(generator, f):
    """f coarse-grained once or twice and prolonged again."""
    level = int(generator.integers(1, 3))
    coarse = scales.pyramid(f, level + 1, scales.OPERATORS[generator.integers(3)])[level]
    return scales.prolong_to(coarse, f.shape, level)


PAIRS = (another, disturbed, flipped, at_margins, at_the_wall, regrown, levels_apart)
PYRAMIDS = ("coarse-grained", "network")
KINDS = (*(make.__name__ for make in PAIRS), *PYRAMIDS)


def make_pair(kind: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair of this kind and number: always the same."""
    generator = np.random.default_rng([KINDS.index(kind), index])
    f = one_field(generator, random_shape(generator))
    return f, np.asarray(PAIRS[KINDS.index(kind)](generator, f))


def make_pyramid(kind: str, index: int) -> tuple[list[np.ndarray], list[float]]:
    """Three or four levels, finest first, and bounds that hold, per level: `sup |phi_k - U phi_{k+1}|` added up.

    "network": from the coarsest field on, corrections of at most `kappa h`, many of them exactly as large.
    """
    generator = np.random.default_rng([KINDS.index(kind), index])
    shape = tuple(int(n) for n in generator.integers(3, 13, 3))
    levels = int(generator.integers(3, 5))
    if kind == "coarse-grained":
        fields = scales.pyramid(one_field(generator, shape), levels, scales.OPERATORS[generator.integers(3)])
        steps = [sup_distance(a, scales.prolong(b, a.shape)) for a, b in itertools.pairwise(fields)]
        return fields, [0.0, *np.cumsum(steps).tolist()]
    kappa, spacing = float(generator.choice([0.1, 0.7, 0.75, generator.uniform(0.05, 1)])), 0.5
    limits = [kappa * spacing * 2.0**level for level in range(1, levels)]
    coarsest = one_field(generator, scales.level_shape(shape, levels - 1)).astype(np.float64)
    if generator.random() < 0.3:  # margins that are exactly a bound, and a vessel that is only just missed
        coarsest = limits[0] * np.round(coarsest) + generator.choice([0.0, 1e-17])
    share = generator.choice([0.0, 0.4, 1.0])
    fields = [coarsest]
    for level in reversed(range(levels - 1)):
        prolonged = scales.prolong(fields[0], scales.level_shape(shape, level))
        correction = np.tanh(generator.normal(size=prolonged.shape) * generator.uniform(0, 2))
        saturated = generator.random(prolonged.shape) < share
        fields.insert(0, prolonged + limits[level] * np.where(saturated, np.sign(correction), correction))
    return fields, scales.bounds(spacing, levels, kappa)


# The truth, without the package.


def cubical_counts(steps: np.ndarray) -> list[dict[tuple[float, float], int]]:
    """gudhi's bars of a field of small integers, per dimension: how many there are with each birth and death."""
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=steps.astype(np.float64))
    cubical.compute_persistence(homology_coeff_field=2)
    result = []
    for dimension in range(3):
        bars, times = np.unique(cubical.persistence_intervals_in_dimension(dimension), axis=0, return_counts=True)
        result.append({tuple(bar): int(n) for bar, n in zip(bars.reshape(-1, 2).tolist(), times, strict=True)})
    return result


def rank(counts: list, low: int, high: int) -> tuple[int, ...]:
    """Ranks of `H_k(steps <= low) -> H_k(steps <= high)`: bars born by `low` that die after `high`."""
    return tuple(sum(n for (birth, death), n in of.items() if birth <= low and death > high) for of in counts)


def nested(*masks: np.ndarray) -> list:
    """Counts of a chain of masks, each within the next, as steps 0, 1, ...; AssertionError where one is not."""
    steps = np.full(masks[0].shape, len(masks))
    for step in reversed(range(len(masks))):
        assert step == 0 or not (masks[step - 1] & ~masks[step]).any(), "an inclusion on which the proof rests fails"
        steps[masks[step]] = step
    return cubical_counts(steps)


def cells_in(mask: np.ndarray) -> np.ndarray:
    """The cells of the closed voxels of a mask as voxels of a grid twice as fine: the same shape, thickened."""
    cells = np.zeros([2 * n + 1 for n in mask.shape], bool)
    cells[1::2, 1::2, 1::2] = mask
    return binary_dilation(cells, np.ones((3, 3, 3)))


def cells_of(mask: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """All cells of the closed voxels of a mask, by dimension; a cell is named by twice the index of its centre."""
    around = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    cells = {tuple(c) for v in np.argwhere(mask) for c in (2 * v + 1 + around).tolist()}
    by_dimension: list = [[], [], [], []]
    for cell in sorted(cells):
        by_dimension[sum(c % 2 for c in cell)].append(cell)
    return by_dimension


def boundary(cell: tuple[int, int, int], number: dict) -> int:
    """The boundary of a cell as a set of bits: the numbers of its faces."""
    bits = 0
    for axis in range(3):
        if cell[axis] % 2:
            for step in (-1, 1):
                bits ^= 1 << number[(*cell[:axis], cell[axis] + step, *cell[axis + 1 :])]
    return bits


def reduce(vectors: list[int], pivots: dict[int, int]) -> list[int]:
    """Gaussian elimination over Z/2: extends `pivots`; for each vector what was added to make it zero, or 0."""
    relations = []
    basis: dict[int, int] = {}
    for at, start in enumerate(vectors):
        vector, made_of = start, 1 << at
        while vector and vector.bit_length() in pivots:
            made_of ^= basis.get(vector.bit_length(), 0)
            vector ^= pivots[vector.bit_length()]
        if vector:
            pivots[vector.bit_length()], basis[vector.bit_length()] = vector, made_of
        else:
            relations.append(made_of)
    return relations


class BruteForce:
    """Dimensions of images in homology, by ranks of matrices over Z/2."""

    def __init__(self, whole: np.ndarray):
        self.cells = cells_of(whole)
        self.number = [{cell: at for at, cell in enumerate(of)} for of in self.cells]

    def boundaries(self, dimension: int) -> dict[int, int]:
        """A reduced basis of the boundaries of the whole."""
        pivots: dict[int, int] = {}
        reduce([boundary(cell, self.number[dimension]) for cell in self.cells[dimension + 1]], pivots)
        return pivots

    def cycles(self, mask: np.ndarray, dimension: int) -> list[int]:
        """A basis of the cycles of a part of the whole, as sets of cells."""
        cells = cells_of(mask)[dimension]
        number = {cell: at for at, cell in enumerate(cells_of(mask)[dimension - 1])} if dimension else {}
        edges = [boundary(cell, number) if dimension else 0 for cell in cells]
        bits = [1 << self.number[dimension][cell] for cell in cells]
        return [sum(bits[i] for i in range(len(cells)) if made >> i & 1) for made in reduce(edges, {})]

    def image(self, dimension: int, *parts: np.ndarray) -> int:
        """Dimension of the sum of the images of the homology of the parts in that of the whole."""
        pivots = self.boundaries(dimension)
        before = len(pivots)
        reduce([cycle for part in parts for cycle in self.cycles(part, dimension)], pivots)
        return len(pivots) - before


# Claims against the truth.


@dataclass
class Tally:
    """What was claimed of the pairs of one kind, and whether it was true."""

    pairs: int = 0
    brute: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros((4, 3), np.int64))  # uniform, local, true, least beta
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.pairs += other.pairs
        self.brute += other.brute
        self.counts += other.counts
        self.wrong += other.wrong


def at_most(low, high) -> bool:
    return all(a <= b for a, b in zip(low, high, strict=True))


@dataclass(frozen=True)
class Truth:
    """Of a pair of fields, by gudhi: each with a number per dimension."""

    eps: float
    uniform: tuple[int, ...]  # classes of {f < -eps} that live in {f <= eps}
    inside: tuple[int, ...]  # and in G
    local: tuple[int, ...]  # rank of H(P & G) -> H(P | G)
    survivals: tuple[int, ...]  # classes of P and of G that are the same in P | G
    beta_p: tuple[int, ...]
    beta_g: tuple[int, ...]

    @classmethod
    def of(cls, f: np.ndarray, g: np.ndarray) -> "Truth":
        f = f.astype(np.float64)
        p, g_mask = f <= 0, g <= 0
        eps = float(np.abs(f)[p != g_mask].max(initial=0.0))
        sure, possible = f < -eps, f <= eps
        through_p, through_g = nested(sure, p & g_mask, p, p | g_mask, possible), nested(sure, g_mask, possible)
        return cls(
            eps=eps,
            uniform=rank(through_p, 0, 4),
            inside=rank(through_g, 0, 1),
            local=rank(through_p, 1, 3),
            survivals=rank(nested(cells_in(p) & cells_in(g_mask), cells_in(p | g_mask)), 0, 1),
            beta_p=rank(through_p, 2, 2),
            beta_g=rank(through_g, 1, 1),
        )

    def counts(self, uniform) -> np.ndarray:
        return np.array([uniform, self.local, self.survivals, np.minimum(self.beta_p, self.beta_g)])


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
            "bound": row["error"] <= row["bound"] * (1 + 1e-6),
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
    """Levels of a trained network's output around the vessels of unseen trees; and the largest share of a bound used."""
    from vesselsdf.checkpoint import load_model
    from vesselsdf.inference import predict
    from vesselsdf.synthesis.cases import synthetic_case

    model = load_model(checkpoint)
    tally, used = Tally(), 0.0
    for index in range(outputs):
        case = synthetic_case(10**7 + index, (64, 64, 64), (0.5,) * 3, ("ct", "mr", "microscopy")[index % 3])
        working = model.preprocessing.working_volume(case.image)
        levels = predict(model.network, working.array, 0.5)
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
        shares = [
            "/".join(f"{100 * a / max(t, 1):.0f}" for a, t in zip(of, true, strict=True)) for of in (uniform, local)
        ]
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
