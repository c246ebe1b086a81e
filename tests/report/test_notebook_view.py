"""A result in a notebook: a picture with facts, and the page in a frame that works there."""

import html
import re

import numpy as np
import pytest

from vesselsdf.api import reconstruct
from vesselsdf.report import packing
from vesselsdf.report.notebook import summary_html
from vesselsdf.volume import Volume


@pytest.fixture(scope="module")
def made():
    x, y, z = np.indices((30, 32, 40)) - 15
    mask = (np.hypot(x, y) < 4) & (z > -12)
    return reconstruct(Volume(mask.astype(np.uint8), np.diag([0.5, 0.5, 0.5, 1])), mask=True)


def test_a_cell_shows_the_picture_and_the_facts(made):
    shown = made._repr_html_()
    assert "1 component, 0 loops, 0 cavities" in shown
    assert "coarsest safe level" in shown or "All decisions" in shown
    assert shown.count("data:image/png;base64,iVBOR") == 1


def test_names_are_no_markup():
    assert "<script>" not in summary_html("<script>", "a < b", ["<b>"], b"")


@pytest.mark.skipif(not packing.available(), reason="the package was built without three.js")
def test_the_page_works_in_a_frame(made, browser, tmp_path):
    frame = made.view(500)._repr_html_()
    assert len(html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])) == len(made.view().page)
    (tmp_path / "cell.html").write_text(f"<!doctype html><title>cell</title><p>before{frame}", encoding="utf-8")
    page = browser.new_page()
    said = []
    page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
    page.goto((tmp_path / "cell.html").as_uri())
    inner = page.frames[1]
    inner.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    assert inner.locator("#view").bounding_box()["height"] > 100
    assert said == []
    page.close()
