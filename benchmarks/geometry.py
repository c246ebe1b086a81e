"""Distance, surface and centreline graph side by side: ours and every peer's, on trees whose truth is known.

    python benchmarks/geometry.py [--sizes 128 256 512] [--seeds 0 1 2] [--kinds distance surface ...] [--no-peers]
        [--vmtk-python PATH] [--folder inputs]

Input: synthetic trees with loops (`grow_tree`; 23, 89 and 319 bifurcations and 2, 4 and 6 loops at 128^3, 256^3 and
512^3), filling 0.3 to 0.5% of a cube of 1 mm voxels: their exact distance, its mask, the mask with a rough wall
(noisy_masks.py, mild and strong) and its partial-volume label. Every measurement runs in a process of its own on one
thread: CPU seconds, the best of up to three calls after one on a small box that is not counted, and the peak of its
memory above that of the imports and the input. Errors are in voxels against the tube graph itself (geometry_truth.py),
means over the seeds; counts are summed over them. A seed is an offset to the size's own; more than the first are used
below 512^3 only. Peers that are not installed are left out: `pip install vesselsdf[bench]`; VMTK takes part with
`--vmtk-python`, a Python that can import it.

Single straight tubes of known radius, at random places and orientations, and on an anisotropic turned grid, show what
the thinnest vessels lose (geometry_tubes.py).
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from geometry_edits import wall_and_field
from geometry_peers import KINDS, our_distance
from geometry_scores import field_scores, graph_scores, mesh_scores
from geometry_tables import GOALS, table
from geometry_truth import Truth, fractions, truth_of
from measuring import Method, around_deepest, installed, machine, measure, progress
from measuring import run as run_script
from topology import TREES

PACKAGES = (*("numpy", "numba", "scipy", "edt", "SimpleITK", "scikit-fmm", "scikit-image", "skan", "kimimaro", "vtk"),)
VMTK_TIMEOUT = 900.0


def run(*arguments: str, cache: str | None = None) -> dict:
    return run_script(__file__, list(arguments), cache)


class Case:
    """The stored input of one size and seed, read when it is asked for."""

    def __init__(self, size: int, seed: int, folder: Path) -> None:
        self.stem = folder / f"{size}_{seed}"

    def load(self, name: str) -> np.ndarray:
        """One of its arrays."""
        return np.load(f"{self.stem}_{name}.npy")

    def save(self, name: str, array: np.ndarray) -> None:
        """Keep an array for the processes that measure."""
        np.save(f"{self.stem}_{name}.npy", array)

    @property
    def truth(self) -> Truth:
        """The tree itself."""
        with np.load(f"{self.stem}_truth.npz") as stored:
            return Truth(**{k: v if v.ndim else int(v) for k, v in stored.items()})

    @property
    def tips(self) -> np.ndarray:
        """The true ends, thickest first."""
        truth = self.truth
        return truth.nodes[truth.tips][np.argsort(-truth.node_radii[truth.tips], kind="stable")]

    def inputs(self, kind: str, who: str = "ours", near: tuple[slice, ...] = ()) -> tuple:
        """What a method of this kind is given; of a part of the grid only, if that is named."""

        def part(name: str) -> np.ndarray:
            return np.ascontiguousarray(self.load(name)[near]) if near else self.load(name)

        if who.startswith("VMTK"):
            return part("field"), self.tips
        if kind == "distance from partial volume":
            return (part("fraction").astype(np.float32),)
        if kind in ("surface", "graph", "mesh and graph"):
            return (part("field"),)
        if kind == "decimation":
            return wall_and_field(part("field"))
        if kind == "smoothing":
            return wall_and_field(our_distance(part("mask")))
        return (part(next((name for name in ("mild", "strong") if name in kind), "mask")),)


def prepare(size: int, seed: int, folder: Path) -> dict:
    """Write the input of one size and seed."""
    from noisy_masks import noisy_mask

    from vesselsdf.distance import tube_distance
    from vesselsdf.synthesis.trees import grow_tree
    from vesselsdf.topology.betti import betti_numbers
    from vesselsdf.topology.matching import shared_features

    own, loops = TREES.get(size, (5, 2))
    graph = grow_tree(own + 100 * seed, (size,) * 3, (1.0,) * 3, loops=loops)
    case, truth = Case(size, seed, folder), truth_of(graph)
    field = tube_distance(graph, (size,) * 3, np.eye(4), band=12.0)
    fraction = fractions(graph, (size,) * 3, np.eye(4))
    case.save("field", field)
    case.save("mask", field <= 0)
    case.save("fraction", fraction.astype(np.float16))  # multiples of 1/64 are exact in it
    beta = {}
    for level in ("mild", "strong"):
        mask = noisy_mask(field, (1.0,) * 3, level, own + 100 * seed)
        beta[f"{level} mask's beta"] = betti_numbers(mask)
        beta[f"true loops in {level}"] = shared_features(mask, field <= 0)[1]["shared"]  # noise tears some
        case.save(level, mask)
    np.savez(f"{case.stem}_truth.npz", **asdict(truth))
    facts = {
        "bifurcations": int(truth.bifurcations.sum()),
        "ends": int(truth.tips.sum()),
        "loops": truth.loops,
        "filling": float((field <= 0).mean()),
        "volume": float(fraction.sum(dtype=np.float64)),
        **beta,
    }
    Path(f"{case.stem}.json").write_text(json.dumps(facts))
    return facts


def one(kind: str, who: str, size: int, seed: int, folder: Path) -> dict:
    """Measure and score one method on one case; in a process of its own."""
    method, case = KINDS[kind][who], Case(size, seed, folder)
    inputs = case.inputs(kind, who)
    if not who.startswith("VMTK"):
        method.call(*case.inputs(kind, who, around_deepest(case.load("field"), 16)))  # imports, and compiled code
    answer, seconds, mb = measure(method.call, inputs, method.repeats)
    result = {"seconds": seconds, "mb": mb, "input mb": sum(getattr(one, "nbytes", 0) for one in inputs) / 1e6}
    if kind != "mesh and graph":
        found = method.read(answer)
        result |= getattr(found, "notes", {})
        result |= score(kind, found, case)
    return result


def score(kind: str, found, case: Case) -> dict:
    if kind.startswith("distance"):
        return field_scores(found, case.load("field"))
    if kind.startswith("graph"):
        return graph_scores(found, case.truth)
    from vesselsdf.topology.betti import betti_numbers

    volume = json.loads(Path(f"{case.stem}.json").read_text())["volume"]
    beta = betti_numbers(case.load("mask"))
    return mesh_scores(*found, case.truth, volume, 2 * (beta[0] - beta[1] + beta[2]))


def first_call(size: int, seed: int, folder: Path) -> dict:
    """CPU seconds of a fresh process until it has mesh and graph, imports included, and of the same call again."""
    import time

    field = Case(size, seed, folder).load("field")
    call = KINDS["mesh and graph"]["ours"].call
    call(field)
    first = time.process_time()
    call(field)
    return {"first": first, "again": time.process_time() - first}


def cold_start(size: int, folder: Path) -> list:
    """How much longer a fresh process takes with no compiled code at all than from the cache of it."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (run("--first", str(size), "0", str(folder), cache=cache) for _ in range(2))
    if "failed" in cold or "failed" in warm:
        return [size, cold.get("failed") or warm.get("failed"), None, None, None, None]
    compiled = cold["first"] - warm["first"]
    return [size, warm["again"], warm["first"], cold["first"], compiled, "yes" if compiled < 3 else "no"]


def available(name: str, method: Method, size: int, peers: bool) -> bool:
    """Whether a method takes part at this size."""
    if name.startswith("ours"):
        return True
    if name.startswith("VMTK") and "VMTK_PYTHON" not in os.environ:
        return False
    return peers and size <= method.largest and (method.package is None or installed(method.package))


def seeds_of(size: int, seeds: list[int]) -> list[int]:
    return seeds if size < 512 else seeds[:1]


def prepared(sizes: list[int], seeds: list[int], folder: Path) -> bool:
    """Grow what is not there yet, and say what was grown."""
    for size in sizes:
        for seed in seeds_of(size, seeds):
            path = folder / f"{size}_{seed}.json"
            if not path.exists():
                progress(f"{size}^3, seed {seed}: growing a tree")
                made = run("--prepare", str(size), str(seed), str(folder))
                if "failed" in made:
                    print(f"geometry: no input of {size}^3, seed {seed}: {made['failed']}", file=sys.stderr)
                    return False
            facts = json.loads(path.read_text())
            print(
                f"{size}^3, seed {seed}: "
                + ", ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
            )
    return True


def results_of(kind: str, sizes: list[int], seeds: list[int], folder: Path, peers: bool) -> list[tuple]:
    """(size, method, result of each seed), ours first at every size."""
    found = []
    for size in sizes:
        for name, method in KINDS[kind].items():
            if not available(name, method, size, peers):
                continue
            progress(f"{kind}, {size}^3, {name}")
            which = seeds_of(size, seeds)[: 1 if name.startswith("VMTK") else None]
            found.append((size, name, [run("--one", kind, name, str(size), str(seed), str(folder)) for seed in which]))
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, "tubes"], choices=[*KINDS, "tubes"])
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "vesselsdf_geometry"))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--vmtk-python", help="a Python that has VMTK (pip install vmtk, Python >= 3.12)")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(given: argparse.Namespace) -> dict | None:
    """What a process that measures does, or None in the one that asks."""
    if given.one:
        kind, who, size, seed, folder = given.one
        return one(kind, who, int(size), int(seed), Path(folder))
    for call, values in ((first_call, given.first), (prepare, given.prepare)):
        if values:
            return call(int(values[0]), int(values[1]), Path(values[2]))
    return None


def main() -> int:
    given = arguments()
    if (result := in_own_process(given)) is not None:
        print(json.dumps(result, default=float))
        return 0
    if given.vmtk_python:
        os.environ |= {"VMTK_PYTHON": given.vmtk_python, "VMTK_TIMEOUT": str(VMTK_TIMEOUT)}
    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not prepared(given.sizes, given.seeds, folder):
        return 1
    for kind in given.kinds:
        if kind == "tubes":
            from geometry_tubes import tubes

            progress("tubes")
            print("\n" + tubes())
            continue
        found = results_of(kind, given.sizes, given.seeds, folder, not given.no_peers)
        progress("")
        print(f"\n{kind}\n{table(kind, found)}", flush=True)
        if kind == "mesh and graph":
            print("\n" + table("first call", [cold_start(size, folder) for size in given.sizes if size < 512]))
        if kind in GOALS:
            print(f"goal: {GOALS[kind]}", flush=True)
    print("\n" + machine(PACKAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
