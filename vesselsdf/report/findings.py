"""What the page of a report says: in a sentence, in facts, in tables and in figures; from the topology report alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.report.text import SHOWN, plural

NAMES = {0: "component", 1: "loop", 2: "cavity"}
MOST = 2000
"""Features listed of one level; the largest first."""
FEATURE_COLUMNS = [
    {"name": "level"}, {"name": "what", "text": True}, {"name": "", "text": True}, {"name": "margin, mm"},
    {"name": "passport, mm"}, {"name": "x"}, {"name": "y"}, {"name": "z"},
]  # fmt: skip


def sentence(topology: Mapping[str, Any]) -> str:
    """The coarsest safe level, and what goes wrong first beyond it."""
    levels = topology["levels"]["levels"]
    safe = topology["levels"]["coarsest_safe_level"]
    if safe is None:
        return "No level is safe: decisions could not be compared."
    if safe + 1 >= len(levels):
        return f"All decisions are the same at every level, up to {spacing(levels[safe])} mm."
    names = [one["decision"].partition(".")[0].replace("_", " ") for one in levels[safe + 1].get("changed") or []]
    changed = ", ".join(list(dict.fromkeys(name for name in names if not name.endswith("per tree")))[:SHOWN])
    return (
        f"The coarsest safe level is {safe}, {spacing(levels[safe])} mm: at {spacing(levels[safe + 1])} mm other "
        f"decisions are made{f' ({changed})' if changed else ''}."
    )


def spacing(level: Mapping[str, Any]) -> str:
    """Edge of a level's voxels, mm."""
    return f"{min(level['spacing']):.3g}"


def facts(topology: Mapping[str, Any], graph: nx.MultiGraph) -> list[str]:
    """A few numbers."""
    beta = topology["betti"]
    mesh = topology["mesh"]
    length = sum(edge["length"] for *_, edge in graph.edges(data=True))
    ends = sum(degree == 1 for _, degree in graph.degree())
    return [
        f"{counts_of(beta)} (26 for vessels, 6 for background)",
        f"{plural(graph.number_of_edges(), 'branch', 'branches')}, {plural(ends, 'end')}, {length:,.0f} mm",
        f"{mesh['volume']:,.0f} mm³, wall {mesh['area']:,.0f} mm²",
        "field, mesh and graph agree" if topology["agreement"]["agrees"] else "field, mesh and graph do not agree",
    ]


def counts_of(beta: Sequence[int]) -> str:
    """Betti numbers in words."""
    return f"{plural(beta[0], 'component')}, {plural(beta[1], 'loop')}, {plural(beta[2], 'cavity', 'cavities')}"


def features_of(topology: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each level lost, merged or invented, the largest first: `what`, `text`, `place`, `near`, `cells`, `group`.

    Lengths in mm. Lost features are as large as their margin, branches as half their length.
    """
    found = []
    levels = topology["levels"]["levels"]
    for level in levels[1:]:
        at, known, here = level["level"], levels[0]["features"], []
        for one in level["lost"]:
            feature = known[one["feature"]] if "feature" in one else {}
            text = f"{NAMES[one['dimension']]} {one['kind']}"
            here.append((feature.get("margin") or 0.0, row(at, one["kind"], text, one["place"], feature)))
        for one in level["invented"]:
            text = f"{NAMES[one['dimension']]} that is not there at level 0"
            here.append((0.0, row(at, "new", text, one["place"], {})))
        for key, what in (("branches_lost", "end"), ("branches_invented", "new")):
            for one in level.get(key) or []:
                text = f"branch of {one['length']:.3g} mm {'lost' if what == 'end' else 'that is not there at level 0'}"
                here.append((one["length"] / 2, row(at, what, text, one["place"], {})))
        found += [one for _, one in sorted(here, key=lambda pair: -pair[0])[:MOST]]
    return found


def row(level: int, what: str, text: str, place: Sequence[float], feature: Mapping[str, Any]) -> dict[str, Any]:
    """One feature, as the page wants it."""
    passport = feature.get("passport_spacing")
    return marked(
        level, what, text, place, [number(feature.get("margin")), number(min(passport)) if passport else None]
    )


def marked(
    group: int, what: str, text: str, place: Sequence[float], figures_: Sequence[float | None], first: Any = None
) -> dict[str, Any]:
    """A place that is marked and listed: of a level or method (`group`), with figures, the first its size in mm."""
    place = [float(value) for value in place]
    return {
        "group": group,
        "what": what,
        "text": text,
        "place": place,
        "near": figures_[0] or 0.0,
        "cells": [group if first is None else first, what, text, *figures_, *(round(value, 1) for value in place)],
    }


def number(value: Any) -> float | None:
    """A finite number with three figures, or None."""
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return float(f"{value:.3g}")


def decisions_table(topology: Mapping[str, Any]) -> dict[str, Any]:
    """Level by level: what it has, what it has kept, what it decides otherwise."""
    rows = []
    for level in topology["levels"]["levels"]:
        found = level.get("changed") or []
        changed = [
            f"{one['decision'].replace('_', ' ')} {short(one['before'])} > {short(one['after'])}"
            for one in found
            if one["decision"].partition(".")[0] != "paths" and not isinstance(one["before"], list | tuple)
        ]
        if ways := sum(one["decision"].partition(".")[0] == "paths" for one in found):
            changed.append(f"{ways} figures of ways from root to end")
        made = level.get("decisions") or {}
        rows.append([
            level["level"], number(min(level["spacing"])), *level["betti"], *level["survived"],
            number(made.get("total_length")), made.get("terminals"), made.get("terminals_reached"),
            "; ".join(changed) or "none",
        ])  # fmt: skip
    names = ["level", "mm", "components", "loops", "cavities", "kept: components", "loops", "cavities"]
    names += ["length, mm", "ends", "ends reached", "decisions changed"]
    columns = [{"name": name, "text": name == names[-1]} for name in names]
    return {"key": "level", "title": "Decisions, level by level", "columns": columns, "rows": rows}


def short(value: Any) -> str:
    """A value of a decision."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def figures(topology: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Betti numbers over levels, persistence, radii, lengths."""
    levels = topology["levels"]["levels"]
    edges = [min(level["spacing"]) for level in levels]
    found: list[dict[str, Any]] = [
        {
            "title": "components and loops, level by level",
            "kind": "lines",
            "x": "voxel, mm",
            "series": [
                {"name": name, "x": edges, "y": [level["betti"][k] for level in levels]}
                for k, name in ((0, "components"), (1, "loops"))
            ],
        }
    ]
    diagram: list[dict[str, Any]] = [{"name": name, "x": [], "y": []} for name in ("components", "loops", "cavities")]
    for one in levels[0]["features"]:
        death = one["death"] if not isinstance(one["death"], str) else None
        if death is not None and math.isfinite(death) and not isinstance(one["birth"], str):
            diagram[one["dimension"]]["x"].append(number(one["birth"]))
            diagram[one["dimension"]]["y"].append(number(death))
    if any(one["x"] for one in diagram):
        title = "persistence, mm from the wall"
        series = [one for one in diagram if one["x"]]
        found.append({"title": title, "kind": "points", "x": "threshold, mm", "diagonal": True, "series": series})
    found += [
        histogram(
            "length by radius",
            "radius, mm",
            [row["radius_mean_mm"] for row in rows],
            [row["length_mm"] for row in rows],
        ),
        histogram("branches by length", "length, mm", [row["length_mm"] for row in rows], None),
    ]
    return [one for one in found if one]


def histogram(title: str, x: str, values: Sequence[float], weights: Sequence[float] | None) -> dict[str, Any]:
    """Bars; none without values."""
    if not values:
        return {}
    count, edges = np.histogram(values, bins=min(24, max(4, int(np.sqrt(len(values)) * 2))), weights=weights)
    middle = (edges[1:] + edges[:-1]) / 2
    series = [{"x": [number(value) for value in middle], "y": [number(value) for value in count.astype(float)]}]
    return {"title": title, "kind": "bars", "x": x, "series": series}
