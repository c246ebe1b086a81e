"""The table of metrics: what each number means, means over cases, and the table as text or CSV."""

import csv
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path

WORST = 5  # places of each kind that are named
_OTHER = {"lost": "{} in the prediction", "invented": "{} in the reference"}


@dataclass(frozen=True)
class Row:
    """One line of the table. `better`: "higher", "lower", "zero", or "" for what only informs; `unit`: "mm", or "".

    Rows of one `family` differ in the dimension only: components, loops, cavities. They are printed in one line.
    """

    key: str
    group: str
    unit: str
    better: str
    meaning: str
    family: str = ""


def _per_dimension(family: str, unit: str, better: str, meaning: str) -> list[Row]:
    return [Row(family.replace("K", str(k)), "topology", unit, better, meaning, family) for k in range(3)]


TABLE: tuple[Row, ...] = (
    Row("dice", "overlap", "", "higher", "shared volume / mean volume"),
    Row("cldice", "overlap", "", "higher", "centreline Dice: skeletons that lie in the other mask"),
    Row("precision", "overlap", "", "higher", "predicted volume that is vessel"),
    Row("recall", "overlap", "", "higher", "vessel volume that was predicted"),
    Row("nsd", "surface", "", "higher", "wall area within the tolerance of the other wall"),
    Row("hd95", "surface", "mm", "lower", "95% of the wall is nearer than this to the other wall"),
    Row("assd", "surface", "mm", "lower", "mean distance of the walls"),
    *_per_dimension("betaK_prediction", "", "", "how many the prediction has"),
    *_per_dimension("betaK_reference", "", "", "how many the reference has"),
    *_per_dimension("betaK_error", "", "lower", "difference of the two, wherever they are"),
    *_per_dimension("diuK", "", "lower", "how many do not correspond at their places"),
    *_per_dimension("betti_matchingK", "", "lower", "how many have no partner, matched over all thresholds"),
    *_per_dimension("bottleneckK", "mm", "lower", "largest shift of a threshold where one begins or ends"),
    *_per_dimension("wassersteinK", "mm", "lower", "sum of these shifts, over all features near the wall"),
    Row("euler_error", "topology", "", "lower", "difference of beta0 - beta1 + beta2"),
    Row("warping_error", "topology", "", "lower", "voxels that no change of shape alone can reconcile"),
    Row("critical_sites", "topology", "", "lower", "places where they lie: cuts, bridges, holes, blobs"),
    Row("tree_length_detected", "graph", "", "higher", "centreline length of the reference that was found"),
    Row("tree_length_precision", "graph", "", "higher", "predicted centreline length that follows the reference"),
    Row("branches_detected", "graph", "", "higher", "branches of the reference found over 80% of their length"),
    Row("branches_precision", "graph", "", "higher", "predicted branches that follow the reference over 80%"),
    Row("false_splits", "graph", "", "lower", "places where a vessel was cut"),
    Row("false_merges", "graph", "", "lower", "places where separate vessels were joined"),
    Row("node_precision", "graph", "", "higher", "predicted junctions and ends that are real"),
    Row("node_recall", "graph", "", "higher", "real junctions and ends that were found"),
    Row("node_f1", "graph", "", "higher", "harmonic mean of the two"),
    Row("terminals_reached", "graph", "", "higher", "ends that are joined to their root in the prediction"),
    Row("path_length_error", "graph", "", "lower", "relative error of the way from root to end, where it is reached"),
    Row("centreline_error", "graph", "mm", "lower", "mean distance of the centrelines where both are"),
    Row("radius_error", "graph", "mm", "lower", "mean absolute error of the radius there"),
    Row("radius_bias", "graph", "mm", "zero", "mean signed error of the radius: above 0 is too thick"),
)


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of every metric over several results of `metrics.evaluate`, with all that is needed to read it honestly.

    Keys of `TABLE`: the mean over the cases where the metric is a finite number; NaN if there is none. `cases`: how
    many there are. `left_out`: for each metric that is not finite in some case, in how many: NaN (nothing to measure
    there) or inf (a distance to an empty mask). `both_empty`: in how many cases both masks are empty, which counts as
    perfect. `worst`: for each metric that is not perfect in all cases the worst one, by its name under "case" or else
    its position; inf is worse than any number. Raises InputError for no results.

    >>> summary = summarise([{"dice": 0.8, "hd95": 1.0}, {"dice": 0.6, "hd95": math.inf}])
    >>> summary["dice"], summary["hd95"], summary["left_out"]["hd95"], summary["worst"]["hd95"], summary["cases"]
    (0.7, 1.0, 1, 1, 2)
    """
    if not results:
        raise InputError("There are no results to summarise: evaluate at least one case.")
    means: dict[str, float] = {}
    left_out: dict[str, int] = {}
    worst: dict[str, Any] = {}
    for row in TABLE:
        # Results that were read back from JSON hold "inf" and null.
        values = np.array([math.nan if (v := result.get(row.key)) is None else float(v) for result in results])
        finite = np.isfinite(values)
        means[row.key] = float(values[finite].mean()) if finite.any() else math.nan
        if not finite.all():
            left_out[row.key] = int((~finite).sum())
        known = np.flatnonzero(~np.isnan(values))
        if len(known) and row.better:
            badness = {"higher": 1 - values, "lower": values, "zero": np.abs(values)}[row.better]
            case = int(known[np.argmax(badness[known])])
            if badness[case] > 0:
                worst[row.key] = results[case].get("case", case)
    empty = sum(bool(result.get("both_empty")) for result in results)
    return {"cases": len(results), "both_empty": empty, **means, "left_out": left_out, "worst": worst}


def format_table(result: Mapping[str, Any]) -> str:
    """The table as aligned text, with one line on what each number means, and the worst places in mm.

    Takes what `metrics.evaluate` or `summarise` return. Numbers that do not exist are "n/a", and it is said why.
    """
    lines: list[str] = []
    for group in dict.fromkeys(row.group for row in TABLE):
        rows = [row for row in TABLE if row.group == group and row.key in result]
        families: dict[str, list[Row]] = {}
        for row in rows:
            families.setdefault(row.family, []).append(row)
        single = families.pop("", [])
        if families:
            lines += ["", f"{group:<24}{'components':>11}{'loops':>8}{'cavities':>10}       best   meaning"]
        for family, members in families.items():
            values = [_number(result[row.key]) for row in members]
            lines.append(f"  {family:<22}{values[0]:>11}{values[1]:>8}{values[2]:>10}{_rest(members[0])}")
        if single:
            title = f"{group}, all in all" if families else group
            lines += ["", title if lines else f"{title:<24}{'value':>9}      best   meaning"]
        lines += [f"  {row.key:<22}{_number(result[row.key]):>9}{_rest(row)}" for row in single]
    if "tolerance" in result:
        lines.append(f"\ntolerance {result['tolerance']:.4g} mm")
    if result.get("both_empty"):
        where = f"In {result['both_empty']} of {result['cases']} cases both" if "cases" in result else "Both"
        lines.append(f"\n{where} masks are empty: the scores say only that they agree in that.")
    return "\n".join([*lines[1:], *_remarks(result), *_worst_places(result.get("places", {}))])


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write one line per result: `case`, `tolerance` and the keys of `TABLE`; NaN is left blank, infinity is `inf`."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["case", "tolerance", *(row.key for row in TABLE)])
        for position, result in enumerate(rows):
            values = [result.get(key, math.nan) for key in ("tolerance", *(row.key for row in TABLE))]
            writer.writerow([result.get("case", position), *("" if value != value else value for value in values)])


def _number(value: float | int | str | None) -> str:
    # Results that were read back from JSON hold "inf" and null.
    if value is None or value != value:
        return "n/a"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _rest(row: Row) -> str:
    best = {"higher": "1", "lower": "0", "zero": "0", "": "-"}[row.better]
    return f" {row.unit:<5}{best:^4}   {row.meaning}"


def _remarks(result: Mapping[str, Any]) -> list[str]:
    """Why numbers are n/a, how many cases each mean leaves out, the worst cases; metrics of one remark share a line."""
    left_out = "mean without {} of {} cases, where it is infinite or there is nothing to measure"
    remarks = [(f"n/a because {why}", key) for key, why in result.get("reasons", {}).items()]
    remarks += [(left_out.format(n, result["cases"]), key) for key, n in result.get("left_out", {}).items()]
    if result.get("cases", 1) > 1:
        remarks += [(f"worst case {case}", key) for key, case in result.get("worst", {}).items()]
    together: dict[str, list[str]] = {}
    for remark, key in remarks:
        together.setdefault(remark, []).append(key)
    lines = [
        textwrap.fill(f"{what}: {', '.join(keys)}", 118, subsequent_indent="  ") for what, keys in together.items()
    ]
    return ["", *lines] if lines else []


def _worst_places(places: Mapping[str, Any]) -> list[str]:
    graph = places.get("graph", {})
    surface, topology = places.get("surface", ()), places.get("topology", ())
    found = [(item, f"wall only in the {item['only_in']}, {item['distance']:.3g} mm off") for item in surface]
    found += [
        (item, f"{item['feature']} {item['fate']}: {_OTHER[item['fate']].format(item['kind'])}")
        for item in topology[:WORST]
    ]
    found += [
        (item, f"critical site: {item['kind']}, {item['size']} voxel{'s' * (item['size'] > 1)} {item['sign']}")
        for item in places.get("critical", ())[:WORST]
    ]
    for key, text in (
        ("missed", "branch missed, {length:.3g} mm"),
        ("invented", "branch invented, {length:.3g} mm"),
        ("false_splits", "vessel cut"),
        ("false_merges", "vessels joined"),
        ("terminals_lost", "end not reached from its root"),
    ):
        found += [(item, text.format(**item)) for item in graph.get(key, ())[:WORST]]
    if not found:
        return []
    lines = [f"  ({', '.join(f'{value:.1f}' for value in item['place'])})  {text}" for item, text in found]
    return ["", f"worst places (x, y, z in RAS mm; at most {WORST} of each kind)", *lines]
