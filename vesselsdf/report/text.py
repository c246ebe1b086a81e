"""Results as text for the terminal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesselsdf.metrics import format_table

SHOWN = 6  # findings of one kind


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "loop"), plural(12345, "branch", "branches")
    ('1 loop', '12 345 branches')
    """
    return f"{count:,} ".replace(",", " ") + (one if count == 1 else many or one + "s")


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Right-aligned columns; floats with three significant figures.

    >>> print(columns(["level", "dice"], [[0, 0.81234], [1, 0.5]]))
    level   dice
        0  0.812
        1    0.5
    """
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_cell(item) for item in value) + ")"
    return str(value)


def reconstruction_summary(made: Any, folder: Path) -> str:
    """What was found, level by level, and where the files are."""
    topology = made.topology()
    report = topology["levels"]
    beta = topology["betti"]
    first = report["levels"][0].get("decisions") or {}
    lines = [
        f"{beta[0]} component(s), {beta[1]} loop(s), {beta[2]} cavity(ies); total length "
        f"{first.get('total_length', 0.0):.1f} mm, {first.get('branches', 0)} branches "
        "(26-connected vessel, 6-connected background)",
        "",
        survival_table(report),
    ]
    lines += warnings_of(topology, folder)
    lines += ["", f"Look at {folder / 'report.html'} in a browser; meshes, centreline and pictures lie beside it."]
    return "\n".join(lines)


def classes_table(report: Mapping[str, Any], folder: Path) -> str:
    """A line for each class of a label, and one for each pair that touches (`classes.save_classes`)."""
    names = {row["id"]: row["name"] for row in report["classes"]}
    keys = ("id", "betti", "voxels_mm3", "mesh_mm3", "length_mm", "branches")
    rows = [[row["name"], *(row[key] for key in keys)] for row in report["classes"]]
    lines = [columns(["class", "id", "beta0,1,2", "mm3", "mm3 of mesh", "length, mm", "branches"], rows)]
    if report["contacts"]:
        touching = [
            [names[one["ids"][0]], names[one["ids"][1]], one["faces"], one["area_mm2"], _place(one["places"][0])]
            for one in report["contacts"]
        ]
        header = ["touching", "and", "voxel faces", "mm2", "largest place, mm"]
        lines += ["", columns(header, touching)]
    else:
        lines.append("No two classes touch.")
    differing = [row["name"] for row in report["classes"] if not row["agrees"]]
    lines += [f"warning: field, mesh and graph of {name} do not agree; see its topology.json" for name in differing]
    return "\n".join([*lines, "", f"Each class lies in its own folder below {folder}; {folder / 'classes.json'}."])


def warnings_of(topology: Mapping[str, Any], folder: Path) -> list[str]:
    """Where field, mesh and graph disagree, the first few; and how many features are as small as noise."""
    disagreements = topology["agreement"]["disagreements"]
    lines = [f"warning: {one['message']}" for one in disagreements[:SHOWN]]
    if len(disagreements) > SHOWN:
        lines.append(f"warning: {len(disagreements)} disagreements in all; see agreement in {folder}/topology.json")
    kinds = [one["kind"] for one in topology["false_features"]]
    if kinds:
        counts = ", ".join(f"{kinds.count(kind)} {kind}(s)" for kind in sorted(set(kinds)))
        lines.append(f"as small as noise: {counts}; see false_features in {folder}/topology.json")
    return lines


def mesh_summary(made: Mapping[str, Any], path: Path) -> str:
    """What a mesh is, the caps of its ends, and which ends stayed closed."""
    facts = made["mesh"]
    closed = "closed" if facts["watertight"] else "NOT closed"
    lines = [
        f"{facts['faces']} faces, {closed}, Euler number {facts['euler_number']}, {facts['components']} component(s), "
        f"{facts['volume']:.4g} mm3, {facts['area']:.4g} mm2, {facts['self_intersections']} crossing face(s)"
    ]
    if "caps" in made:
        rows = [[cap.id, cap.name, _place(cap.centre), cap.area, cap.radius] for cap in made["caps"]]
        lines += ["", columns(["group", "name", "centre, mm", "area, mm2", "radius, mm"], rows)]
        lines += [f"The end at {_place(end.place)} mm stays closed: {end.reason}." for end in made["closed"]]
    lines += ["", f"Wrote {path}" + (f" and {Path(path).with_suffix('.csv')}." if "caps" in made else ".")]
    return "\n".join(lines)


def survival_table(report: Mapping[str, Any]) -> str:
    """What a user should know of `topology.survival`: a line per level, the coarsest safe level, the first losses.

    Per level: Betti numbers, what survived, was lost and invented against level 0, branches that end and have no
    counterpart (lost / new), and the decisions that changed.
    """
    rows = []
    for level in report["levels"]:
        rows.append(
            [
                level["level"],
                max(level["spacing"]) if isinstance(level["spacing"], (list, tuple)) else level["spacing"],
                tuple(level["betti"]),
                tuple(level["survived"]),
                len(level["lost"]),
                len(level["invented"]),
                f"{len(level.get('branches_lost', []))} / {len(level.get('branches_invented', []))}",
                _changed(level.get("changed")),
            ]
        )
    header = ["level", "mm", "beta0,1,2", "survived", "lost", "invented", "branches lost / new", "decisions changed"]
    safe = report.get("coarsest_safe_level")
    verdict = "no level" if safe is None else f"level {safe}, {rows[safe][1]:.3g} mm"
    lines = [columns(header, rows), f"Coarsest safe level (all decisions as at level 0): {verdict}."]
    return "\n".join([*lines, *_block_lines(report), *_loss_lines(report)])


def _block_lines(report: Mapping[str, Any]) -> list[str]:
    """How far up the blocks of the volume are safe, one line; nothing where there is only one of them."""
    blocks = report.get("blocks")
    if not blocks or blocks["blocks"] < 2:
        return []
    counts = [f"{n} up to level {level}" for level, n in enumerate(blocks["safe_up_to"]) if n]
    edge = blocks["edge_voxels"]
    return [f"Block by block ({blocks['blocks']} blocks of {edge} voxels with vessel), safe: {', '.join(counts)}."]


def _loss_lines(report: Mapping[str, Any], most: int = 3) -> list[str]:
    """What is lost at the first level that loses something: features of the largest margin, then ends of branches."""
    for level in report["levels"]:
        lost, twigs = level["lost"], level.get("branches_lost", [])
        if not lost and not twigs:
            continue
        known = report["levels"][0].get("features") or []
        found = [(known[entry["feature"]] if known and "feature" in entry else {}, entry) for entry in lost]
        found.sort(key=lambda pair: -float(pair[0].get("margin", 0)))
        lines = []
        for feature, entry in found[:most]:
            name = ("component", "loop", "cavity")[entry["dimension"]]
            bound = "at least " if feature.get("margin_is_lower_bound") else ""
            margin = f", margin {bound}{float(feature['margin']):.2g} mm" if feature else ""
            lines.append(f"  {name} {entry['kind']} at {_place(entry['place'])}{margin}")
        # The end of a long branch may have moved a little, a short one be gone: what matters is how far the rest is.
        for twig in sorted(twigs, key=_away)[:most]:
            left = "" if twig.get("away") is None else f", {twig['away']:.2g} mm from what is left"
            lines.append(f"  end at {_place(twig['place'])} of a branch of {twig['length']:.3g} mm{left}")
        more = len(lost) + len(twigs) - len(lines)
        lines += [f"  and {more} more, all in the report"] if more else []
        return [f"First losses, at level {level['level']} (places in mm):", *lines]
    return []


def _away(twig: Mapping[str, Any]) -> tuple[float, float]:
    """For sorting: the ends farthest from what is left first."""
    away = twig.get("away")
    return (-math.inf if away is None else -away, -twig["length"])


def _place(place: Sequence[float]) -> str:
    return "(" + ", ".join(f"{x:.1f}" for x in place) + ")"


def _changed(changed: Sequence[Mapping[str, Any]] | None) -> str:
    """The first few decisions that changed, each once, with the number of places for those taken per path or tree."""
    if not changed:
        return "none"
    counts = Counter(item["decision"] for item in changed)
    names = [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def run_table(report: Mapping[str, Any]) -> str:
    """The mean table of a run's held-out cases, and its levels."""
    mean = report["mean"]
    rows = [
        [
            row["level"], row["spacing_mm"], row["dice"], row["beta0_error"], row["beta1_error"], row["beta2_error"],
            row.get("active_share"), row.get("reachable"), row.get("bound_used"),
        ]
        for row in mean["levels"]
    ]  # fmt: skip
    header = ["level", "mm", "Dice", "beta0 err", "beta1 err", "beta2 err", "active", "reachable", "bound used"]
    return (
        f"{report['run']}: {len(report['cases'])} held-out cases\n\n{format_table(mean['metrics'])}\n\n"
        "Level by level against the coarse-grained truth (active: share of voxels refined;\nreachable: share of the "
        "true centreline active or already inside; bound used: largest correction over its bound)\n\n"
        f"{columns(header, rows)}"
    )


def evaluation_table(report: Mapping[str, Any]) -> str:
    """The table of one pair of files, or the means of several; with the levels if they were asked for."""
    cases = report["cases"]
    metrics = cases[0]["metrics"] if len(cases) == 1 else report["mean"]["metrics"]
    parts = [f"{len(cases)} cases" if len(cases) > 1 else cases[0]["case"], "", format_table(metrics)]
    for case in cases:
        if "segments" in case:
            parts += ["", f"{case['case']}, segment by segment", segments_table(case["segments"])]
        if "survival" in case:
            rows = [[r["level"], r["spacing_mm"], r["dice"], r["betti"], r["betti_reference"]] for r in case["levels"]]
            parts += [
                "",
                f"{case['case']}, level by level",
                columns(["level", "mm", "Dice", "beta0,1,2", "beta0,1,2 of the reference"], rows),
                "",
                "What survives of the prediction itself",
                survival_table(case["survival"]),
            ]
    return "\n".join(parts)


def methods_table(methods: Sequence[Any]) -> str:
    """One line for each method: the metrics that tell most."""
    keys = {
        "dice": "Dice", "cldice": "clDice", "nsd": "NSD", "tree_length_detected": "length found",
        "tree_length_precision": "precision", "beta0_error": "beta0 err", "beta1_error": "beta1 err",
        "diu0": "DIU0", "diu1": "DIU1", "radius_error": "radius err, mm",
    }  # fmt: skip
    return columns(["method", *keys.values()], [[one.name, *(one.metrics[key] for key in keys)] for one in methods])


def segments_table(report: Mapping[str, Any]) -> str:
    """One line per label id: volume, pieces and contacts in each, what was found; then the findings in sentences."""
    fit = report["alignment"]
    rows = []
    for row in report["segments"]:
        p, r = row["prediction"] or {}, row["reference"] or {}
        pieces = [len(side.get("pieces", ())) for side in (p, r)]
        figures = [p.get("volume"), r.get("volume"), *pieces, row["dice"], r.get("found"), p.get("found")]
        rows.append([report["names"].get(row["id"], "segment"), row["id"], *figures])
    header = ["segment", "id", "mm3", "mm3 ref", "pieces", "ref", "Dice", "found", "precision"]
    lines = [columns(header, rows), f"found, precision: share of the voxels within {report['tolerance']:.3g} mm of the"]
    lines[-1] += " same segment of the other"
    if fit["kind"] == "rigid":
        lines.append(
            f"aligned by a rigid motion of {len(fit['used'])} landmarks, which fit to {fit['residual']:.2g} mm (rms; "
            f"the worst to {fit['worst']:.2g} mm)"
        )
    elif fit["kind"] == "world":
        lines.append("on different grids in one frame: nothing had to be moved")
    kinds: Counter[str] = Counter()
    for finding in report["findings"]:
        kinds[finding["kind"]] += 1
        if kinds[finding["kind"]] <= SHOWN:
            lines.append(f"- {finding['text']}")
    lines += [
        f"- {count - SHOWN} more of the kind {kind}, see the report" for kind, count in kinds.items() if count > SHOWN
    ]
    return "\n".join(lines)


def inspection(facts: Mapping[str, Any]) -> str:
    """The facts of `vesselsdf inspect`."""
    needs = facts["needs"]
    percentiles = ", ".join(f"{level}%: {value:.4g}" for level, value in facts["percentiles"].items())
    kind = "looks like a mask or label" if facts["looks_like_labels"] else "looks like an image"
    pairs = [
        ("file", facts["path"]),
        ("shape", f"{' x '.join(map(str, facts['shape']))} voxels, {facts['dtype']}, {kind}"),
        ("spacing", " x ".join(f"{edge:.4g}" for edge in facts["spacing"]) + " mm"),
        ("extent", " x ".join(f"{edge:.4g}" for edge in facts["extent"]) + " mm"),
        (
            "orientation",
            f"{facts['orientation']} (voxel axes towards right/left, anterior/posterior, superior/inferior)",
        ),
        ("intensity", f"{facts['minimum']:.4g} to {facts['maximum']:.4g} ({percentiles})"),
        *([] if facts["looks_like_labels"] else [("seen as", _seen_as(facts["window"]))]),
        ("thinnest vessel", f"{facts['thinnest_vessel']:.3g} mm across; thinner ones fall between the voxels"),
        ("working grid", f"{' x '.join(map(str, facts['working_shape']))} voxels of {facts['working_spacing']:.4g} mm"),
        ("reconstruction", f"about {needs['gigabytes']:.1f} GB and {needs['seconds']:.0f} s on this machine"),
    ]
    pairs += [("unlike training", one) for one in facts["unfamiliar"]]
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in pairs)


def _seen_as(window: tuple[float, float] | None) -> str:
    """How the network takes the intensities."""
    if window is None:
        return "MR or microscopy, relative to the tissue (CT has voxels below -50 HU; if this is CT, rescale it to HU)"
    return f"through the window {window[0]:g} to {window[1]:g}, as CT in Hounsfield units"
