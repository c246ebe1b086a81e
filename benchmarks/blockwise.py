"""Blockwise reconstruction: is the result the same whatever the blocks and the workers, and what does it take?

    python benchmarks/blockwise.py [--size 256] [--seed 7] [--folder FOLDER] [--blocks 64 96 128] [--large 1024]

A synthetic CT of a tree with loops, of `size`^3 voxels, is reconstructed in blocks: one process, two processes, the
second of three parts (which does all that the others have left), and Dask with two workers. Every run is a process of
its own; the table has its time, its peak memory (of all its processes), Betti numbers, and which of field, mask, mesh
and graph are the same bits as those of the first run.

`--large`: instead, a volume of so many voxels along each edge, made of turned copies of that scan, which are written
one after the other and never held together; Betti numbers of the copies are known. Then also seconds and kilobytes on
disk of every phase: what `docs/scaling.md` counts with.
"""

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from vesselsdf.report.text import columns
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import Volume
from vesselsdf.zarr_volume import create_volume, write_volume

SPACING = 0.5
EXECUTORS = {
    "one process": (),
    "two processes": ("--workers", "2"),
    "part 2 of 3": ("--part", "2/3"),
    "Dask, 2 workers": ("--dask", "local", "--workers", "2"),
}


def scan_of(folder: Path, size: int, seed: int) -> tuple[Path, tuple[int, int, int]]:
    """The scan, and the Betti numbers of its true mask."""
    path, facts = folder / f"scan_{size}_{seed}.zarr", folder / f"scan_{size}_{seed}.json"
    if not facts.exists():
        case = synthetic_case(seed, (size,) * 3, (SPACING,) * 3, "ct", loops=6, terminal_radius=(1.2, 1.6))
        write_volume(Volume(case.image.array, np.diag([SPACING] * 3 + [1.0])), path)
        trees = 1
        facts.write_text(json.dumps([trees, case.graph.number_of_edges() - len(case.graph) + trees, 0]))
    beta0, beta1, beta2 = json.loads(facts.read_text())
    return path, (beta0, beta1, beta2)


def tiled(folder: Path, scan: Path, size: int, edge: int) -> Path:
    """A volume of `edge`^3 voxels made of copies of the scan, one turned against the next."""
    path = folder / f"tiled_{size}_{edge}.zarr"
    if (path / "done").exists():
        return path
    import zarr

    source = zarr.open_array(str(scan / "0"), mode="r")[...]
    volume = create_volume(path, (edge,) * 3, np.diag([SPACING] * 3 + [1.0]), source.dtype, block=size)
    for number, corner in enumerate(itertools.product(range(0, edge, size), repeat=3)):
        copy = source.transpose(list(itertools.permutations(range(3)))[number % 6])
        box = tuple(slice(a, min(a + size, edge)) for a in corner)
        volume.array[box] = copy[tuple(slice(0, part.stop - part.start) for part in box)]
    (path / "done").touch()
    return path


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak memory of the process and its children together in GB, and what it wrote."""
    start, peak, pages = time.monotonic(), 0.0, 4096
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            total = 0
            waiting = [str(process.pid)]
            while waiting:
                pid = waiting.pop()
                try:
                    total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * pages
                    for task in Path(f"/proc/{pid}/task").iterdir():
                        waiting += (task / "children").read_text().split()
                except (FileNotFoundError, ProcessLookupError):
                    continue
            peak = max(peak, total / 1e9)
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")
    return time.monotonic() - start, peak, said


def fingerprint(folder: Path) -> dict[str, str]:
    """A hash of each part of a result."""
    import zarr

    from vesselsdf.field_store import FieldStore

    store = FieldStore.open(folder / "sdf.zarr")
    found = {"field": hashlib.sha256(), "mask": hashlib.sha256()}
    mask = zarr.open_array(str(folder / "vessels.zarr" / "0"), mode="r")
    for start in range(0, store.shape[0], 64):
        stop = min(start + 64, store.shape[0])
        found["field"].update(store.read(0, (start, 0, 0), (stop, *store.shape[1:])).tobytes())
        found["mask"].update(np.ascontiguousarray(mask[start:stop]).tobytes())
    for name, file in (("mesh", "mesh.ply"), ("graph", "centreline.json")):
        found[name] = hashlib.sha256((folder / file).read_bytes())
    return {name: one.hexdigest() for name, one in found.items()}


def invariance(folder: Path, scan: Path, blocks: list[int]) -> str:
    """The table over blocks and executors."""
    header, rows, first = ["blocks", "executor", "s", "GB", "beta0,1,2", "mesh", "graph", "same bits"], [], {}
    for block, (name, options) in [
        *((block, ("one process", ())) for block in blocks),
        *((blocks[-1], item) for item in EXECUTORS.items() if item[1]),
    ]:
        output = Path(tempfile.mkdtemp(dir=folder))
        command = [sys.executable, "-m", "vesselsdf.cli", "blocks", str(scan), "-o", str(output), "--block", str(block)]
        seconds, peak, _ = run([*command, *options])
        report, found = json.loads((output / "topology.json").read_text()), fingerprint(output)
        first = first or found
        same = [part for part in found if found[part] == first[part]]
        mesh = f"{report['mesh']['faces']:,} faces, Euler {report['mesh'].get('euler_number', 'n/a')}"
        graph = f"{report['graph']['components']} trees, {report['graph']['loops']} loops"
        row = [
            str(block),
            name,
            f"{seconds:.0f}",
            f"{peak:.1f}",
            str(tuple(report["betti"])),
            mesh,
            graph,
            ", ".join(same),
        ]
        rows.append(row)
        print("  ".join(row), file=sys.stderr, flush=True)
    return columns(header, rows)


def phases(folder: Path, scan: Path, block: int) -> str:
    """What each phase takes and leaves; as a job array of one job, which leaves its work to be looked at."""
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "vesselsdf.cli", "blocks", str(scan), "-o", str(output), "--block", str(block)]
    seconds, peak, said = run([*command, "--part", "1/1"])
    took = json.loads((output / "run.json").read_text())["seconds_of_last_start"]
    places = {path.name: path for path in (*output.iterdir(), *(output / "work").iterdir()) if path.name != "work"}
    rows = []
    for name in [*took, *(name for name in places if name not in took)]:
        files = [place for place in places[name].rglob("*") if place.is_file()] if name in places else []
        size = sum(file.stat().st_size for file in files or [places.get(name, output / "run.json")])
        rows.append([name, f"{took[name]:.1f}" if name in took else "", str(len(files)), f"{size / 1e3:,.0f}"])
    print(f"{seconds:.0f} s, {peak:.2f} GB, {said}")
    return columns(["phase or file", "s", "files", "kB"], rows)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--blocks", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vesselsdf_blockwise")
    parser.add_argument("--large", type=int, help="edge of a volume of copies")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    scan, truth = scan_of(given.folder, given.size, given.seed)
    if given.large:
        scan = tiled(given.folder, scan, given.size, given.large)
        copies = (-(-given.large // given.size)) ** 3
        truth = tuple(copies * number for number in truth)
    print(f"true Betti numbers {truth}")
    print(phases(given.folder, scan, given.blocks[-1]) if given.large else invariance(given.folder, scan, given.blocks))


if __name__ == "__main__":
    main()
