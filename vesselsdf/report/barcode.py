"""The persistence barcode of a reconstruction: what is there at the wall, from which threshold on and up to which."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vesselsdf.files import atomic_path
from vesselsdf.report.text import plural

COLOURS = ("#0b63b5", "#e8731a", "#7a3fa0")
NAMES = (("component", "components"), ("loop", "loops"), ("cavity", "cavities"))
MOST = 60
"""Bars shown of one dimension, those of the largest margin."""


def write_barcode(path: str | Path, features: Sequence[Mapping[str, Any]]) -> None:
    """Draw the barcode of level 0 as SVG (text stays text), atomically; `features`: those of the topology report."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.4))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.04, 0.15, 0.92, 0.66))
    draw_barcode(axes, features)
    # A file that is the same for the same result, and whose text can be edited.
    with atomic_path(path) as temporary, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vesselsdf"}):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def draw_barcode(axes, features: Sequence[Mapping[str, Any]]) -> None:
    """Bars (birth to death, mm of threshold), by dimension, the largest margin first; an arrow for no end."""
    bars = [
        (one["dimension"], float(one["birth"]), float(one["death"]))
        for one in sorted(features, key=lambda one: (one["dimension"], -float(one["margin"])))
    ]
    ends = [value for _, birth, death in bars for value in (birth, death) if math.isfinite(value)]
    right = max([*ends, 1e-6]) * 1.08
    row, marks = 0, []
    for dimension, (one, many) in enumerate(NAMES):
        own = [bar for bar in bars if bar[0] == dimension]
        for _, birth, death in own[:MOST]:
            axes.plot((birth, min(death, right)), (-row, -row), color=COLOURS[dimension], linewidth=1.6)
            if not math.isfinite(death):
                axes.plot(right, -row, marker=">", color=COLOURS[dimension], markersize=3.5, clip_on=False)
            row += 1
        if own:
            shown = f", {MOST} shown" if len(own) > MOST else ""
            marks.append((plural(len(own), one, many) + shown, dimension))
    axes.axvline(0, color="0.35", linewidth=0.8, linestyle=(0, (3, 3)))
    axes.set_xlim(min([*ends, 0.0]) * 1.05 - 1e-6, right)
    axes.set_ylim(-max(row, 1) + 0.2, 0.8)
    axes.set_yticks([])
    for side in ("left", "top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel("threshold of the distance, mm (0: the wall)", fontsize=9)
    axes.tick_params(labelsize=9)
    for k, (text, dimension) in enumerate(reversed(marks)):
        axes.text(0, 1.02 + 0.065 * k, text, transform=axes.transAxes, color=COLOURS[dimension], fontsize=9)
