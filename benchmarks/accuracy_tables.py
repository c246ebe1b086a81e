"""The tables of `accuracy.py`: means over cases, then mean and spread over seeds."""

import numpy as np

from vesselsdf.report.text import columns

TREES = "synthetic trees"
"""Group of the test cases over which curves are shown."""

COLUMNS = {
    "Dice": ("dice", 3),
    "clDice": ("cldice", 3),
    "NSD": ("nsd", 3),
    "length found": ("tree_length_detected", 3),
    "thin found": ("thin_detected", 3),
    "precision": ("tree_length_precision", 3),
    "beta0 error": ("beta0_error", 1),
    "beta1 error": ("beta1_error", 1),
    "DIU": ("diu", 1),
    "reached": ("terminals_reached", 2),
    "radius error, mm": ("radius_error", 3),
}


def tables(results: list[dict]) -> str:
    """One table of each test set and way of post-processing, the curves, and what training took."""
    if not results:
        return "nothing finished yet"
    sets = {}
    for case in results[0]["cases"]:
        sets.setdefault((case["group"], case["slices"]), None)
    parts = ["training\n" + _costs(results)]
    for kind in ("as it is", "largest component"):
        for group, slices in sets:
            thick = f", slices {slices} times as thick" if slices > 1 else ""
            parts.append(
                f"{group}{thick}, {kind}\n"
                + _scores(results, kind, lambda c, g=(group, slices): (c["group"], c["slices"]) == g)
            )
        parts.append(f"all simulated scans, {kind}\n" + _scores(results, kind, lambda c: c["group"] != TREES))
    parts.append("synthetic trees over thresholds\n" + _curves(results))
    if any("reach" in result for result in results):
        parts.append("synthetic trees: centreline that each level can reach / voxels active\n" + _reach(results))
    return "\n\n".join(parts)


def _by_title(results: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for result in results:
        found.setdefault(result["title"], []).append(result)
    return found


def _costs(results: list[dict]) -> str:
    header, rows = ["row", "parameters", "steps", "CPU s", "voxels/s", "inference voxels/s", "training, GB"], []
    for title, runs in _by_title(results).items():
        mean = {
            key: float(np.mean([run[key] for run in runs]))
            for key in ("steps", "train_seconds", "voxels_per_second", "infer_voxels_per_second")
        }
        memory = [run["gigabytes"] for run in runs if "gigabytes" in run]
        shown = [f"{runs[0]['parameters']:,}", *(f"{value:,.0f}" for value in mean.values())]
        rows.append([title, *shown, f"{max(memory):.1f}" if memory else "n/a"])
    return columns(header, rows)


def _scores(results: list[dict], kind: str, chosen) -> str:
    rows = []
    for title, runs in _by_title(results).items():
        row = [title, str(len(runs))]
        for key, digits in COLUMNS.values():
            means = [_mean([case[kind][key] for case in run["cases"] if chosen(case)]) for run in runs]
            spread = f" ±{np.std(means):.{digits}f}" if len(runs) > 1 else ""
            row.append(f"{np.mean(means):.{digits}f}{spread}")
        rows.append(row)
    return columns(["row", "seeds", *COLUMNS], rows)


def _curves(results: list[dict]) -> str:
    header, rows = ["row", "threshold", "Dice", "clDice", "thin found", "beta0 error", "beta1 error"], []
    for title, runs in _by_title(results).items():
        for threshold in runs[0]["cases"][0]["curve"]:
            row = [title, threshold]
            for key in ("dice", "cldice", "thin_detected", "beta0_error", "beta1_error"):
                values = [c["curve"][threshold][key] for run in runs for c in run["cases"] if c["group"] == TREES]
                row.append(f"{_mean(values):.3f}" if "error" not in key else f"{_mean(values):.1f}")
            rows.append(row)
    return columns(header, rows)


def _reach(results: list[dict]) -> str:
    rows = []
    found = {title: [run["reach"] for run in runs if "reach" in run] for title, runs in _by_title(results).items()}
    for title, reaches in found.items():
        if reaches:
            levels = range(len(reaches[0]) // 2)
            mean = {key: float(np.mean([reach[key] for reach in reaches])) for key in reaches[0]}
            rows.append([title, *(f"{mean[f'reachable_{n}']:.3f} / {mean[f'active_share_{n}']:.3f}" for n in levels)])
    return columns(["row", *(f"level {n}" for n in range(len(rows[0]) - 1))], rows)


def _mean(values: list[float | None]) -> float:
    known = np.array(values, float)  # None, where a value does not exist, becomes NaN
    return float(np.nanmean(known)) if np.isfinite(known).any() else float("nan")
