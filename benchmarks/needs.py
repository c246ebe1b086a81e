"""Memory and time that `vesselsdf inspect` foretells, beside what `vesselsdf reconstruct` then takes.

    python benchmarks/needs.py [--edges 96 128 192 256] [--scans FILE ...] [--blocks 64 128 192]

Synthetic CT and MR trees of so many voxels along each edge, and any scans that are given (by default those of
`../shared/data` that are there). Each is a process of its own, on one thread; memory is the peak of the whole process.
With `--blocks`: the peak of a worker of `vesselsdf blocks`, over all tasks of a volume with whole blocks within.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import measuring

from vesselsdf.report.text import columns

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SCANS = ("aorta/aorta.mha", "avf/avf_float_32.nii.gz", "dicom_chest", "head_avm/AVM.nii.gz")
SPACING = 0.5


def synthetic(folder: Path, edge: int, modality: str) -> Path:
    """A scan on disk."""
    from vesselsdf.synthesis.cases import synthetic_case
    from vesselsdf.volume import write_volume

    path = folder / f"{modality}_{edge}.nii.gz"
    if not path.exists():
        write_volume(synthetic_case(edge, (edge,) * 3, (SPACING,) * 3, modality).image, path)
    return path


def reconstructed(path: str, output: str) -> dict:
    """Runs in a process of its own."""
    import time

    from vesselsdf.api import reconstruct

    start = time.monotonic()
    made = reconstruct(path)
    made.save(output)
    taken = {"gigabytes": measuring.memory() / 1e3, "seconds": time.monotonic() - start}
    return taken | {"vessel": float((made.levels[0] <= 0).mean()), "shape": made.levels[0].shape}


def foretold(path: str) -> dict:
    """Runs in another."""
    from vesselsdf.api import inspect

    return inspect(path)["needs"]


def worker(path: str, block: int, output: str) -> dict:
    """The peak of one process that does all tasks of a volume of five blocks along each edge."""
    from vesselsdf.blockwise.run import make_plan, reconstruct_in_blocks
    from vesselsdf.checkpoint import load_model
    from vesselsdf.needs import block_memory

    plan = make_plan(path, block=block)
    reconstruct_in_blocks(plan, output)
    network = load_model(plan.checkpoint).network
    return {"gigabytes": measuring.memory() / 1e3, "foretold": block_memory(block, network)}


def pieces(given: argparse.Namespace) -> str:
    """The table of `reconstruct`."""
    scans = [synthetic(given.folder, edge, modality) for edge in given.edges for modality in ("ct", "mr")]
    scans += given.scans or [DATA / name for name in SCANS if (DATA / name).exists()]
    rows = []
    for scan in scans:
        measuring.progress(scan.name)
        with tempfile.TemporaryDirectory(dir=given.folder) as output:
            said = measuring.run(__file__, ["--foretell", str(scan)])
            taken = measuring.run(__file__, ["--reconstruct", str(scan), output])
        if "failed" in taken or "failed" in said:
            rows.append([scan.name, taken.get("failed", said.get("failed", "")), *[""] * 5])
            continue
        rows.append(
            [
                scan.name,
                " x ".join(map(str, taken["shape"])),
                f"{100 * taken['vessel']:.2f}",
                f"{said['gigabytes']:.2f}",
                f"{taken['gigabytes']:.2f}",
                f"{said['gigabytes'] / taken['gigabytes'] - 1:+.0%}",
                f"{said['seconds']:.0f}, {taken['seconds']:.0f}",
            ]
        )
    header = ["scan", "working grid", "vessel, %", "GB foretold", "GB taken", "error", "s foretold, taken"]
    return columns(header, rows)


def workers(given: argparse.Namespace) -> str:
    """The table of `blocks`."""
    from blockwise import scan_of, tiled

    rows = []
    for block in given.blocks:
        measuring.progress(f"blocks of {block}")
        source, _ = scan_of(given.folder, 256, 7)
        scan = tiled(given.folder, source, 256, 3 * block)
        with tempfile.TemporaryDirectory(dir=given.folder) as output:
            taken = measuring.run(__file__, ["--worker", str(scan), str(block), output])
        error = taken["foretold"] / taken["gigabytes"] - 1
        rows.append([str(block), f"{taken['foretold']:.2f}", f"{taken['gigabytes']:.2f}", f"{error:+.0%}"])
    return columns(["blocks of", "GB foretold", "GB taken", "error"], rows)


def main() -> None:
    """The tables, or one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[96, 128, 192, 256])
    parser.add_argument("--scans", type=Path, nargs="*")
    parser.add_argument("--blocks", type=int, nargs="*")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vesselsdf_needs")
    for name, count in (("--foretell", 1), ("--reconstruct", 2), ("--worker", 3)):
        parser.add_argument(name, nargs=count, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.foretell:
        print(json.dumps(foretold(*given.foretell)))
    elif given.reconstruct:
        print(json.dumps(reconstructed(*given.reconstruct)))
    elif given.worker:
        path, block, output = given.worker
        print(json.dumps(worker(path, int(block), output)))
    else:
        print(workers(given) if given.blocks else pieces(given))
        print(measuring.machine(("torch",)), file=sys.stderr)


if __name__ == "__main__":
    main()
