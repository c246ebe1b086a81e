"""The barcode: an SVG with one line for each feature at the wall, in order, the same for the same result."""

import xml.etree.ElementTree as ElementTree

import numpy as np
from matplotlib.figure import Figure

from vesselsdf.report.barcode import MOST, draw_barcode, write_barcode


def feature(dimension, birth, death):
    return {"dimension": dimension, "birth": birth, "death": death, "margin": min(-birth, float(death))}


FEATURES = [feature(1, -0.2, 6.0), feature(0, -1.4, "inf"), feature(0, -0.3, 0.5), feature(2, -0.1, 0.2)]


def bars_of(features):
    axes = Figure().add_subplot()
    draw_barcode(axes, features)
    return axes, [
        line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 2 and line.get_linewidth() == 1.6
    ]


def test_bars_run_from_birth_to_death_the_largest_margin_first():
    axes, bars = bars_of(FEATURES)
    assert [tuple(bar[:, 0]) for bar in bars[1:]] == [(-0.3, 0.5), (-0.2, 6.0), (-0.1, 0.2)]
    assert bars[0][0, 0] == -1.4
    assert bars[0][1, 0] == axes.get_xlim()[1], "what never ends reaches the edge"
    assert [bar[0, 1] for bar in bars] == [0, -1, -2, -3]
    assert [text.get_text() for text in axes.texts] == ["1 cavity", "1 loop", "2 components"]


def test_many_bars_are_not_all_drawn():
    features = [feature(0, -0.1 - 0.001 * k, 0.5 + 0.001 * k) for k in range(3 * MOST)]
    axes, bars = bars_of(features)
    assert len(bars) == MOST
    assert min(-bar[0, 0] for bar in bars) > 0.1 + 0.001 * (2 * MOST - 1), "the smallest are left out"
    assert axes.texts[0].get_text() == f"{3 * MOST} components, {MOST} shown"


def test_the_file_is_svg_with_text_and_repeats_itself(tmp_path):
    for name in ("a.svg", "b.svg"):
        write_barcode(tmp_path / name, FEATURES)
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "2 components</text>" in text


def test_without_features_there_is_an_empty_frame(tmp_path):
    write_barcode(tmp_path / "none.svg", [])
    assert np.isfinite(bars_of([])[0].get_xlim()).all()
