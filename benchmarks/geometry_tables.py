"""The tables of `geometry.py`: results of several seeds in one line, and the goals they are read against."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vesselsdf.report.text import columns

GOALS = {
    "distance": "MAE 0.145 voxel near the wall (scikit-fmm's), in half its time at 256^3, under 6 bytes a voxel",
    "distance from partial volume": "MAE 0.08 voxel (scikit-fmm's), in half its time at 256^3",
    "surface": "vertex MAE 0.01 voxel, closed, Euler number as the field's, no faces that cross, none degenerate",
    "surface of mask": "closed, Euler number as the mask's, no faces that cross; vertex MAE of marching cubes 0.167",
    "smoothing": "volume kept to 1%, closed, Euler number as before, no faces that cross",
    "decimation": "closed, Euler number as before, no faces that cross, error under a quarter of a voxel",
    "graph": "P and R 1.0, loops exact, centre 0.1 voxel, radius 1% away from junctions",
    "graph of mask": "P and R 1.0, loops exact, centre 0.3 voxel, radius 6% away from junctions",
    "graph of mild mask": "P and R 0.95, loops exact after the rule for false loops",
    "graph of strong mask": "P and R 0.95, loops exact after the rule for false loops",
    "mesh and graph": "1, 5, 20 s at 128^3, 256^3, 512^3; memory under 3 times the input field at 512^3",
}
SECONDS = {128: 1.0, 256: 5.0, 512: 20.0}


def table(kind: str, found: list) -> str:
    """The results of one kind."""
    if kind == "first call":
        header = [
            "fresh process",
            "again s",
            "first s, compiled before",
            "first s, new machine",
            "compiling s",
            "< 3 s",
        ]
        return columns(header, found)
    if kind == "mesh and graph":
        return both_table(found)
    for prefix, make in (
        ("distance", distance_row),
        ("s", surface_row),
        ("decimation", surface_row),
        ("graph", graph_row),
    ):
        if kind.startswith(prefix):
            header, rows = make(None), with_ratio(found, make)
            text = columns(["size", "who", "s", "MB", "x ours", *header], rows)
            return text + ("\n\n" + class_table(found) if prefix == "graph" else "")
    raise ValueError(f"no table for {kind}")


def with_ratio(found: list, make: Any) -> list[list]:
    """Rows with seconds, memory and the ratio of the seconds to those of our first line of this size."""
    rows, ours = [], {}
    for size, who, results in found:
        failed = next((result["failed"] for result in results if "failed" in result), None)
        if failed is not None:
            rows.append([size, who, None, None, None, failed[:60], *[None] * (len(make(None)) - 1)])
            continue
        seconds = mean(results, "seconds")
        ours.setdefault(size, seconds)
        rows.append([size, who, seconds, mean(results, "mb"), seconds / ours[size], *make(results)])
    return rows


def mean(results: Sequence[dict], key: str, part: int | None = None) -> float:
    return float(np.mean([result[key] if part is None else result[key][part] for result in results]))


def total(results: Sequence[dict], key: str, part: int) -> int:
    return sum(result[key][part] for result in results)


def distance_row(results: Sequence[dict] | None) -> list:
    if results is None:
        return ["MAE", "bias", "95%", "wrong side"]
    return [*(mean(results, key) for key in ("mae", "bias", "p95")), sum(r["flipped"] for r in results)]


def surface_row(results: Sequence[dict] | None) -> list:
    if results is None:
        return [
            *("faces", "vertex MAE", "99%", "max", "face MAE", "normal deg", "volume / true"),
            *("closed", "Euler off by", "crossing", "degenerate"),
        ]
    return [
        round(mean(results, "faces")),
        *(mean(results, key) for key in ("vertex", "p99", "max", "face", "normal")),
        f"{mean(results, 'volume'):.4f}",
        "yes" if all(result["closed"] for result in results) else "no",
        sum(abs(result["euler"]) for result in results),
        sum(result["crossing"] for result in results),
        sum(result["degenerate"] for result in results),
    ]


def graph_row(results: Sequence[dict] | None) -> list:
    if results is None:
        return [
            *("bifurcations", "P", "R", "ends", "P", "R", "loops", "beta0"),
            *("centre", "95%", "95% all", "covered", "|radius|", "bias"),
        ]
    row: list[Any] = []
    for key in ("bifurcations", "ends"):
        found, true, hits = (total(results, key, part) for part in range(3))
        row += [f"{found}/{true}", f"{hits / found if found else 0:.3f}", f"{hits / true:.3f}"]
    row += [f"{total(results, key, 0)}/{total(results, key, 1)}" for key in ("loops", "components")]
    row += [mean(results, "centre", 0), mean(results, "centre", 1), mean(results, "centre all")]
    row += [f"{mean(results, 'covered'):.4f}"]
    return [*row, f"{mean(results, 'radius', 0):.2%}", f"{mean(results, 'radius', 1):+.2%}"]


def class_table(found: list) -> str:
    """Centre (median) and radius errors by true radius, away from junctions."""
    names = sorted({name for *_, results in found for result in results for name in result.get("classes", ())})
    rows = []
    for size, who, results in found:
        row: list[Any] = [size, who]
        for name in names:
            some = [result["classes"][name] for result in results if name in result.get("classes", ())]
            centre, radius, bias = np.mean(some, axis=0) if some else (np.nan,) * 3
            row.append(f"{centre:.3f}, {radius:.2%}, {bias:+.2%}" if some else None)
        rows.append(row)
    return columns(["size", "who", *(f"r {name}: centre, |radius|, bias" for name in names)], rows)


def both_table(found: list) -> str:
    rows, ours = [], {}
    for size, who, results in found:
        if any("failed" in result for result in results):
            failed = next(result["failed"] for result in results if "failed" in result)
            rows.append([size, who, failed[:60], *[None] * 5])
            continue
        seconds, goal = mean(results, "seconds"), SECONDS.get(size)
        ours.setdefault(size, seconds)
        times = mean(results, "mb") / mean(results, "input mb")
        met = None if goal is None or who != "ours" else "yes" if seconds <= goal else "no"
        rows.append([size, who, seconds, goal, met, seconds / ours[size], mean(results, "mb"), times])
    return columns(["size", "who", "s", "goal s", "met", "x ours", "MB", "MB / input"], rows)
