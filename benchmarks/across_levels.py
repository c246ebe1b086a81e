"""What real vessel networks lose across levels, for the three operators side by side.

    python benchmarks/across_levels.py [--checkpoint run/model.safetensors] [--case pulmonary ...] [--output x.json]

Three vessel networks from the public data beside the project: the label of a pulmonary artery tree, as a signed
distance; the head angiogram with a malformation, as a trained model reconstructs it (only with a checkpoint; its own
levels are then a fourth "operator"); and a traced cerebral arterial tree, drawn at 0.4 mm. Each gets a pyramid of four
levels by `mean`, `min` and `sample`. One table for each; with --output, the whole reports as JSON.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from vesselsdf.branch_persistence import Describe
from vesselsdf.distance import tube_distance
from vesselsdf.files import write_json
from vesselsdf.graph_files import read_swc
from vesselsdf.report.text import columns
from vesselsdf.scales import Operator, pyramid
from vesselsdf.topology.survival import survival

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LEVELS = 4

# name of the network; its fields by operator, with the bounds if there are any; affine of level 0
Case = tuple[str, dict[str, tuple[list[np.ndarray], list[float] | None]], np.ndarray]


def with_operators(field: np.ndarray) -> dict[str, tuple[list[np.ndarray], list[float] | None]]:
    """The field's pyramids by all operators."""
    return {operator: (pyramid(field, LEVELS, operator), None) for operator in get_args(Operator)}


def pulmonary() -> Case:
    """The label of the pulmonary arteries, prepared as `vesselsdf reconstruct --mask` does, cropped to the vessel."""
    from vesselsdf.api import reconstruct

    made = reconstruct(DATA / "pulmonary/PA000005.nii.gz", mask=True)
    field, affine = cropped(made.levels[0], made.affine)
    return "pulmonary arteries (label)", with_operators(field), affine


def malformation(checkpoint: str) -> Case:
    """The head angiogram as the network reconstructs it: its level 0 by all operators, and its own levels."""
    from vesselsdf.api import reconstruct

    made = reconstruct(DATA / "head_avm/AVM.nii.gz", checkpoint)
    fields = with_operators(made.levels[0]) | {"model": (made.levels, made.bounds)}
    return "head AVM (reconstructed)", fields, made.affine


def cerebral(spacing: float = 0.4, name: str = "BG001records.swc") -> Case:
    """A traced tree of cerebral arteries, drawn as tubes with their radii."""
    graph = read_swc(DATA / "brava" / name)
    points = np.concatenate([edge["points"] for _, _, edge in graph.edges(data=True)])
    low, high = points.min(axis=0) - 5, points.max(axis=0) + 5
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    x, y, z = (int(n) for n in np.ceil((high - low) / spacing))
    # As far from the wall as the coarsest level looks, and somewhat more.
    field = tube_distance(graph, (x, y, z), affine, band=8 * spacing * 2 ** (LEVELS - 1))
    return f"cerebral arteries ({Path(name).stem.removesuffix('records')}, {spacing} mm)", with_operators(field), affine


def cropped(field: np.ndarray, affine: np.ndarray, margin: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """The field in the box around its vessel, with a margin, and the affine of that box."""
    vessel = np.argwhere(field <= 0)
    low = np.maximum(vessel.min(axis=0) - margin, 0)
    high = np.minimum(vessel.max(axis=0) + 1 + margin, field.shape)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ low
    return np.ascontiguousarray(field[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]), moved


def cases(names: list[str], checkpoint: str | None) -> Iterator[Case]:
    """The networks asked for, one after the other."""
    if "pulmonary" in names:
        yield pulmonary()
    if "malformation" in names and checkpoint:
        yield malformation(checkpoint)
    if "cerebral" in names:
        yield cerebral()


def rows_of(operator: str, report: dict) -> list[list]:
    """One line per level: what of components, loops and cavities is lost and new, what is certain, what changes."""
    rows = []
    alive = report["levels"][0]["betti"]
    for level in report["levels"]:
        lost, new = (
            tuple(sum(entry["dimension"] == k for entry in level[name]) for k in range(3))
            for name in ("lost", "invented")
        )
        share = [f"{sum(level['certified'][name]) / max(sum(alive), 1):.0%}" for name in ("local", "along", "uniform")]
        rows.append(
            [
                operator if level["level"] == 0 else "",
                level["level"],
                max(level["spacing"]),
                tuple(level["betti"]),
                lost,
                new,
                " / ".join(share),
                f"{len(level['branches_lost'])} / {len(level['branches_invented'])}",
                changes(level["changed"]),
            ]
        )
    return rows


def changes(changed: list[dict]) -> str:
    """What changed: numbers before and after, and how many terminals and narrowest places."""
    numbers = {"trees": "trees", "loops": "loops", "terminals_reached": "reached", "total_length": "mm"}
    parts = [
        f"{numbers[item['decision']]} {item['before']:.0f} > {item['after']:.0f}"
        for item in changed
        if item["decision"] in numbers
    ]
    counts = Counter(item["decision"] for item in changed)
    if counts["paths.minimum_radius"]:
        parts.append(f"{counts['paths.minimum_radius']} minimum radii")
    return ", ".join(parts) or (f"{len(changed)} others" if changed else "none")


def verdict(operator: str, report: dict, seconds: float) -> str:
    """Coarsest safe level of the whole and of the blocks, on one line."""
    blocks, safe = report["blocks"], report["coarsest_safe_level"]
    counts = ", ".join(f"{n} up to level {level}" for level, n in enumerate(blocks["safe_up_to"]) if n)
    return (
        f"{operator}: coarsest safe level {safe}; of {blocks['blocks']} blocks of {blocks['edge_voxels']} voxels, "
        f"safe: {counts} ({seconds:.1f} CPU s)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--case", nargs="*", default=["pulmonary", "malformation", "cerebral"])
    parser.add_argument("--output", default=None)
    given = parser.parse_args()
    if not DATA.is_dir():
        print(f"across_levels: the public data are not at {DATA}", file=sys.stderr)
        return 2
    header = ["operator", "level", "mm", "beta0,1,2", "lost", "new", "shared / all along / by bound", "branches -/+"]
    header.append("decisions changed")
    reports: dict[str, dict] = {}
    for name, fields, affine in cases(given.case, given.checkpoint):
        table, verdicts = [], []
        for operator, (levels, bounds) in fields.items():
            spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
            start = time.process_time()
            report = survival(levels, spacing, affine, operator, Describe(), bounds)
            verdicts.append(verdict(operator, report, time.process_time() - start))
            table += rows_of(operator, report)
            reports.setdefault(name, {})[operator] = report
        shape = " x ".join(map(str, next(iter(fields.values()))[0][0].shape))
        print(f"\n{name}, {shape} voxels\n{columns(header, table)}\n" + "\n".join(verdicts), flush=True)
    if given.output:
        write_json(Path(given.output), reports)
    return 0


if __name__ == "__main__":
    sys.exit(main())
