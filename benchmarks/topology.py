"""Topology side by side: ours and gudhi, cripser, scikit-image, MONAI, surface-distance, kimimaro, Betti-Matching-3D.

    python benchmarks/topology.py [--sizes 128 256 512] [--jobs betti persistence ...] [--folder inputs]

Input: synthetic trees with loops (`grow_tree`, exact distance), filling 0.3 to 0.5% of a cube; where two masks are
compared, the other one is the tree coarse-grained, prolonged and disturbed by smooth noise of half a voxel. Every
measurement runs in a process of its own: CPU seconds, the best of up to three calls after one that is not counted, and
the peak of its memory above that of the imports and the input. Answers are compared, and a peer that gives another
answer is named with it. Peers that are not installed are left out: `pip install vesselsdf[bench]`, and for
Betti-Matching-3D its module `betti_matching` on the path, built from its sources.

A second table shows the first calls: with an empty cache of compiled code, from the cache, and again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import around_deepest, machine, measure, progress
from measuring import run as run_script
from peers import JOBS, MEMORY, TARGETS, Job

from vesselsdf.report.text import columns

TREES = {64: (1, 1), 128: (5, 2), 256: (6, 4), 512: (7, 6)}  # size: seed and loops
NOISE = 0.5
PACKAGES = ("numpy", "numba", "gudhi", "cripser", "scikit-image", "monai", "surface-distance", "kimimaro")


def prepare(size: int, folder: Path) -> None:
    """Write the field, the other field and nothing else; runs in a process of its own."""
    from scipy.ndimage import gaussian_filter

    from vesselsdf.distance import tube_distance
    from vesselsdf.scales import coarsen, prolong
    from vesselsdf.synthesis.trees import grow_tree

    seed, loops = TREES.get(size, (5, 2))
    graph = grow_tree(seed, (size,) * 3, (1.0,) * 3, loops=loops)
    bifurcations = sum(1 for _, degree in graph.degree() if degree > 2)
    field = tube_distance(graph, (size,) * 3, np.eye(4), band=12.0).astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=(size,) * 3).astype(np.float32)
    noise = gaussian_filter(noise, 1.5, output=noise)
    other = prolong(coarsen(field), field.shape) + NOISE / noise.std() * noise
    np.save(folder / f"{size}_field.npy", field)
    np.save(folder / f"{size}_other.npy", other.astype(np.float32))
    facts = {"bifurcations": bifurcations, "loops": loops, "filling": float((field <= 0).mean())}
    (folder / f"{size}.json").write_text(json.dumps(facts))


def run(arguments: list[str], cache: str | None = None) -> dict:
    """This script in a process of its own."""
    return run_script(__file__, arguments, cache)


def compare_at(job: Job, size: int, folder: Path) -> list[list]:
    """The rows of one job at one size: ours, beside each peer that goes up to this size."""
    target = TARGETS.get((job.name, size))
    ours = run(["--one", job.name, "ours", str(size), str(folder)])
    if "failed" in ours:
        return [[job.name, size, ours["failed"], *[None] * 8]]
    small = ours["mb"] <= MEMORY.get((job.name, size), np.inf)
    met = None if target is None else "yes" if ours["seconds"] <= target and small else "no"
    start = [job.name, size, ours["seconds"], ours["mb"], target, met]
    rows = []
    for name, peer in job.peers.items():
        if size > peer.largest:
            continue
        theirs = run(["--one", job.name, name, str(size), str(folder)])
        if "failed" in theirs:
            rows.append([*start, name, None, None, None, theirs["failed"][:40]])
            continue
        ratio = theirs["seconds"] / max(ours["seconds"], 1e-9)
        answer = job.compare(load(folder, job.name, "ours", size), load(folder, job.name, name, size))
        rows.append([*start, name, theirs["seconds"], theirs["mb"], ratio, answer])
    return rows or [[*start, "none", None, None, None, None]]


def load(folder: Path, job: str, who: str, size: int) -> dict:
    """The answer that a process has left."""
    with np.load(folder / f"{size}_{job}_{who}.npz") as stored:
        return dict(stored)


def one(job: str, who: str, size: int, folder: Path) -> dict:
    """Measure one side of one job; in a process of its own."""
    chosen = JOBS[job]
    call = chosen.ours if who == "ours" else chosen.peers[who].call
    field = np.load(folder / f"{size}_field.npy")
    other = np.load(folder / f"{size}_other.npy") if chosen.two else None
    near = around_deepest(field, 12)
    call(*chosen.inputs(field[near], None if other is None else other[near]))  # imports, and compiled code
    inputs = chosen.inputs(field, other)
    del field, other
    answer, best, mb = measure(call, inputs)
    np.savez(folder / f"{size}_{job}_{who}.npz", **{key: np.asarray(value) for key, value in answer.items()})
    return {"seconds": best, "mb": mb}


def first_calls(job: str, size: int, folder: Path) -> dict:
    """CPU seconds of our first and later calls on 64^3 voxels, imports included; in a process of its own."""
    import time

    field = np.load(folder / f"{size}_field.npy")
    other = np.load(folder / f"{size}_other.npy") if JOBS[job].two else None
    near = around_deepest(field, 32)
    inputs = JOBS[job].inputs(field[near], None if other is None else other[near])
    seconds = []
    for _ in range(3):
        start = time.process_time()
        JOBS[job].ours(*inputs)
        seconds.append(time.process_time() - start)
    return {"first": seconds[0], "again": min(seconds[1:])}


def overhead(job: str, size: int, folder: Path) -> list:
    """How much longer the first call takes: on a new machine, and from the cache of compiled code."""
    with tempfile.TemporaryDirectory() as cache:
        cold, warm = (run(["--first", job, str(size), str(folder)], cache) for _ in range(2))
    if "failed" in cold or "failed" in warm:
        return [job, cold.get("failed") or warm.get("failed"), None, None, None, None]
    new, cached = cold["first"] - cold["again"], warm["first"] - warm["again"]
    return [job, warm["again"], new, "yes" if new < 3 else "no", cached, "yes" if cached < 0.3 else "no"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--folder", default=str(Path(tempfile.gettempdir()) / "vesselsdf_topology"))
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--first", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], given.one[1], int(given.one[2]), Path(given.one[3]))))
        return 0
    if given.first:
        print(json.dumps(first_calls(given.first[0], int(given.first[1]), Path(given.first[2]))))
        return 0
    if given.prepare:
        prepare(int(given.prepare[0]), Path(given.prepare[1]))
        print("{}")
        return 0
    folder = Path(given.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for size in given.sizes:
        if not (folder / f"{size}.json").exists():
            progress(f"{size}^3: growing a tree")
            if "failed" in (made := run(["--prepare", str(size), str(folder)])):
                print(f"topology: no input of {size}^3: {made['failed']}", file=sys.stderr)
                return 1
        print(f"{size}^3: {json.loads((folder / f'{size}.json').read_text())}")
    rows = []
    for job in (JOBS[name] for name in given.jobs):
        for size in given.sizes:
            if size <= job.largest:
                progress(f"{job.name}, {size}^3")
                job = job if not given.no_peers else job.alone()
                rows += compare_at(job, size, folder)
    progress("first calls")
    calls = [overhead(name, min(given.sizes), folder) for name in given.jobs]
    progress("")
    header = ["job", "size", "ours s", "MB", "target s", "met", "peer", "peer s", "MB", "peer / ours", "peer's answer"]
    print(columns(header, rows))
    print()
    header = ["first calls, 64^3", "s", "on a new machine: + s", "< 3 s", "from the cache: + s", "< 0.3 s"]
    print(columns(header, calls))
    print(machine(PACKAGES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
