"""Inference on active voxels beside dense and blockwise evaluation of the same network, and a U-Net's sliding window.

    python benchmarks/inference.py [--edges 256 512] [--shares 0.5 1 1.5] [--device cpu] [--folder FOLDER] [--no-peer]
        [--plot docs/inference.png]

Synthetic CT trees that fill about so many percent of 256^3 voxels, and larger volumes of turned copies of them; seen by
the weights that come with the package. Every measurement is a process of its own, on one thread on a CPU: CPU seconds
(on a GPU seconds), and the peak of memory above that of weights and image (on a GPU of all that torch holds).

- sparse: `vesselsdf.inference.predict`, as `reconstruct` calls it;
- in blocks: `coarse_stem` and `refined` of 128^3 voxels at a time, as `vesselsdf blocks` calls them, in memory;
- dense: the network's definition on all voxels, in one piece, masked afterwards (256^3 only);
- sliding window: MONAI's `sliding_window_inference` of a DynUNet with as many parameters (`accuracy_rows.unet`, its
  weights random, which makes no difference to time), windows of 128^3, half of which overlap, Gaussian weights. It
  depends on the size alone: on 512^3 its time is that on 256^3 for every window, times their number.

Then: share of the voxels refined at each level, and the largest difference (mm) of blocks and dense fields to sparse.
`--plot`: seconds over the vessels' surface, in boxes of different size, and over the box, for every method.
"""

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import measuring
import numpy as np

from vesselsdf.report.text import columns

SPACING = 0.5
TREE = 256
"""Edge of the scans that are simulated; larger volumes are copies."""
BLOCK = 128
WINDOW = 128
TERMINAL_RADIUS = (1.0, 1.6)
METHODS = ("sparse", "in blocks", "dense", "sliding window")


def tree(folder: Path, percent: float) -> Path:
    """A scan whose vessels fill about so many percent: more branches until they do; kept in `folder`."""
    from vesselsdf.synthesis.cases import synthetic_case

    path = folder / f"tree_{percent:g}.npz"
    if path.exists():
        return path
    branches, nearest = 200, None
    for _ in range(4):
        measuring.progress(f"growing a tree of {branches} branches")
        case = synthetic_case(
            int(100 * percent), (TREE,) * 3, (SPACING,) * 3, "ct", branches=branches, terminal_radius=TERMINAL_RADIUS
        )
        found = 100 * float((case.label.array > 0).mean())
        if nearest is None or abs(found - percent) < abs(nearest[1] - percent):
            nearest = case, found
        if abs(found - percent) < 0.1 * percent:
            break
        branches = int(branches * (percent / found) ** 1.2)
    image = nearest[0].image
    np.savez(path, image=image.array.astype(np.float32), affine=image.affine, percent=nearest[1])
    return path


def enlarged(image: np.ndarray, edge: int) -> np.ndarray:
    """Turned copies of a scan, side by side."""
    size = len(image)
    result = np.empty((edge,) * 3, image.dtype)
    for number, corner in enumerate(itertools.product(range(0, edge, size), repeat=3)):
        copy = image.transpose(list(itertools.permutations(range(3)))[number % 6])
        box = tuple(slice(a, min(a + size, edge)) for a in corner)
        result[box] = copy[tuple(slice(0, part.stop - part.start) for part in box)]
    return result


def evaluated(method: str, network, image: np.ndarray, acquisition: np.ndarray) -> list[np.ndarray]:
    """Fields of all levels, mm."""
    import torch

    from vesselsdf.inference import predict
    from vesselsdf.sites import Sites

    if method == "sparse":
        return predict(network, image, SPACING, acquisition)
    if method == "in blocks":
        return in_blocks(network, image, acquisition)
    gathered = Sites.where
    # Otherwise `forward` gathers, too, where few voxels are active.
    with torch.inference_mode(), mock.patch.object(Sites, "where", lambda active: gathered(active, dense=-1.0)):
        fields = network(torch.from_numpy(image)[None, None], SPACING, torch.from_numpy(acquisition)[None])
    return [field[0, 0].numpy() for field in fields]


def in_blocks(network, image: np.ndarray, acquisition: np.ndarray) -> list[np.ndarray]:
    """Every block from what it depends on alone."""
    from vesselsdf.inference import coarse_margin, coarse_stem, context_reach, margin, refined
    from vesselsdf.scales import level_shape

    size, step = np.array(image.shape), 2 ** (network.levels - 1)
    stem = np.empty((*level_shape(image.shape, network.levels - 1), network.stem_channels[-1]), np.float32)
    fields = [np.empty(level_shape(image.shape, level), np.float32) for level in range(network.levels)]
    boxes = [(np.array(low), np.minimum(np.array(low) + BLOCK, size)) for low in corners(image.shape)]
    for low, high in boxes:
        first, last = np.maximum(low - coarse_margin(network), 0), np.minimum(high + coarse_margin(network), size)
        seen = coarse_stem(network, image[tuple(map(slice, first, last))], acquisition)
        stem[tuple(map(slice, low // step, -(-high // step)))] = seen[
            tuple(map(slice, (low - first) // step, -(-(high - first) // step)))
        ]
    for low, high in boxes:
        first, last = np.maximum(low - margin(network), 0), np.minimum(high + margin(network), size)
        begin = np.maximum(first // step - context_reach(), 0)
        around = stem[tuple(map(slice, begin, -(-last // step) + context_reach()))]
        before = tuple((first // step - begin).tolist())
        part = image[tuple(map(slice, first, last))]
        made = refined(network, part.shape, lambda part=part: part, acquisition, around, before)
        for level, field in enumerate(made):
            n = 2**level
            inner = tuple(map(slice, (low - first) // n, -(-(high - first) // n)))
            fields[level][tuple(map(slice, low // n, -(-high // n)))] = field[inner] * np.float32(SPACING)
    return fields


def corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """First voxels of blocks."""
    return list(itertools.product(*(range(0, n, BLOCK) for n in shape)))


def windows(edge: int) -> int:
    """How many windows MONAI lays over a volume."""
    return (-(-(edge - WINDOW) // (WINDOW // 2)) + 1) ** 3


def slid(device: str, edge: int) -> Callable[[], None]:
    """The peer."""
    import torch
    from accuracy_rows import unet
    from monai.inferers import sliding_window_inference

    network = unet(supervised=False).eval().to(device)
    image = torch.randn(1, 1, edge, edge, edge, device=device)

    def call() -> None:
        with torch.inference_mode():
            sliding_window_inference(image, (WINDOW,) * 3, 1, network, overlap=0.5, mode="gaussian")

    return call


def measure(method: str, path: Path, edge: int, device: str, output: Path) -> dict:
    """Runs in a process of its own."""
    import torch

    from vesselsdf.checkpoint import GENERAL, load_model

    if method == "sliding window":
        return timed(slid(device, edge), device)
    model = load_model(GENERAL)
    with np.load(path) as stored:
        scan = enlarged(stored["image"], edge)
    from vesselsdf.volume import Volume

    scan = Volume(scan, np.diag([SPACING] * 3 + [1.0]))
    image, acquisition = model.preprocessing.working_volume(scan).array, model.preprocessing.acquisition(scan)
    network = model.network.to(device).eval()
    del scan
    evaluated("sparse", network, image[:64, :64, :64], acquisition)  # warm
    fields: list[np.ndarray] = []

    def call() -> None:
        fields[:] = evaluated(method, network, image, acquisition)

    found = timed(call, device)
    found["inside"] = float((fields[0] <= 0).mean())
    if method == "sparse":
        np.savez(output, *fields)
        found["wall"] = int((np.abs(fields[0]) < SPACING).sum())
        found["refined"] = shares(network, fields, torch)
    else:
        with np.load(output) as stored:
            found["difference"] = max(float(np.abs(a - stored[f"arr_{n}"]).max()) for n, a in enumerate(fields))
    return found


def shares(network, fields: list[np.ndarray], torch) -> list[float]:
    """Share of the voxels of each level that were refined, finest first."""
    from vesselsdf.prolongation import prolong

    found = []
    for level in range(network.levels - 1):
        coarse = torch.from_numpy(fields[level + 1] / np.float32(SPACING))[None, None]
        active, planes = 0, 32
        for start in range(0, fields[level].shape[0], 2 * planes):
            first, last = max(0, start // 2 - 1), min(coarse.shape[2], start // 2 + planes + 1)
            n = min(2 * last, fields[level].shape[0]) - 2 * first
            part = prolong(coarse[:, :, first:last], (n, *fields[level].shape[1:]))[:, :, start - 2 * first :]
            active += int((network.activity(level, part[:, :, : 2 * planes].contiguous()) > 0).sum())
        found.append(active / fields[level].size)
    return found


def timed(call: Callable[[], None], device: str) -> dict:
    """Seconds and peak memory, GB."""
    if device == "cpu":
        _, seconds, peak = measuring.measure(call, (), repeats=1)
        return {"seconds": seconds, "gigabytes": peak / 1e3}
    import torch

    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return {"seconds": time.perf_counter() - start, "gigabytes": torch.cuda.max_memory_allocated() / 1e9}


def results(given: argparse.Namespace) -> list[dict]:
    """Everything that was measured, as it comes."""
    kept = given.folder / f"inference_{given.device}.json"
    found: dict[str, dict] = json.loads(kept.read_text()) if kept.exists() else {}

    def measured(method: str, percent: float, edge: int) -> dict:
        key = f"{method}, {'' if method == 'sliding window' else percent} {edge}"
        if key not in found:
            measuring.progress(key)
            arguments = ["--one", method, str(percent), str(edge), given.device, "--folder", str(given.folder)]
            found[key] = measuring.run(__file__, arguments)
            kept.write_text(json.dumps(found, indent=1))
        return found[key]

    rows = []
    for edge, percent in itertools.product(given.edges, given.shares):
        tree(given.folder, percent)
        row = {"edge": edge, "percent": percent}
        for method in METHODS:
            if (method == "sliding window" and given.no_peer) or (method == "dense" and edge > TREE):
                continue
            if method == "sliding window" and edge > TREE:
                small = measured(method, percent, TREE)
                row[method] = {"seconds": small["seconds"] * windows(edge) / windows(TREE), "gigabytes": None}
            else:
                row[method] = measured(method, percent, edge)
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """Time, memory, shares and differences."""

    def cell(row: dict, method: str) -> str:
        one = row.get(method)
        if one is None:
            return "-"
        if "failed" in one:
            return f"failed: {one['failed'][:40]}"
        return f"{one['seconds']:.1f}" + ("" if one["gigabytes"] is None else f", {one['gigabytes']:.2f}")

    header = [
        "edge",
        "vessel, %",
        *(f"{method}: s, GB" for method in METHODS),
        "faster",
        "refined, %",
        "difference, mm",
    ]
    lines = []
    for row in rows:
        sparse = row["sparse"]
        peer = row.get("sliding window", {}).get("seconds")
        different = [row[method].get("difference") for method in ("in blocks", "dense") if method in row]
        lines.append(
            [
                str(row["edge"]),
                f"{100 * sparse['inside']:.2f}",
                *(cell(row, method) for method in METHODS),
                "-" if peer is None else f"{peer / sparse['seconds']:.1f}x",
                " ".join(f"{100 * share:.1f}" for share in sparse["refined"]),
                " ".join("-" if one is None else f"{one:.1g}" for one in different),
            ]
        )
    return columns(header, lines)


def plot(rows: list[dict], path: Path) -> None:
    """Time over the surface of the vessels and over the box."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (over_surface, over_box) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for edge in sorted({row["edge"] for row in rows}):
        points = sorted((row["sparse"]["wall"] / 1e6, row["sparse"]["seconds"]) for row in rows if row["edge"] == edge)
        over_surface.plot(*zip(*points, strict=True), "o-", label=f"sparse, box of {edge}$^3$")
    over_surface.set(xlabel="voxels within one voxel of the wall, millions", ylabel="CPU seconds, one thread")
    least = min(row["percent"] for row in rows)
    for method in METHODS:
        points = sorted(
            (row["edge"] ** 3 / 1e6, row[method]["seconds"])
            for row in rows
            if row["percent"] == least and "seconds" in row.get(method, {})
        )
        over_box.plot(*zip(*points, strict=True), "o-", label=method)
    over_box.set(xlabel=f"voxels of the box, millions (vessels fill {least:g}%)", ylabel="CPU seconds, one thread")
    over_box.set(xscale="log", yscale="log")
    for axes in (over_surface, over_box):
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """All measurements, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 1.0, 1.5])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vesselsdf_inference")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--plot", type=Path, help="write a picture of time over surface and box")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one:
        method, percent, edge, device = given.one
        path = given.folder / f"tree_{float(percent):g}.npz"
        output = given.folder / f"fields_{float(percent):g}_{edge}.npz"
        print(json.dumps(measure(method, path, int(edge), device, output)))
        return
    rows = results(given)
    print(measuring.machine(("torch", "monai")), file=sys.stderr)
    print(table(rows))
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
