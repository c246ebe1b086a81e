"""Pages of reports: what is in them, and a real browser that shows them."""

import base64
import gzip
import json
import re
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def content():
    """Reads a page: its text, the report in it, and its parts by name."""

    def read(path):
        text = path.read_text(encoding="utf-8")
        parts = {
            name: gzip.decompress(base64.b64decode(data))
            for name, data in re.findall(r'<script type="text/plain" id="part-([^"]+)">([^<]*)<', text)
        }
        return text, json.loads(parts["report"]), parts

    return read


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        yield started
        started.close()


PIXELS = """() => {
  const canvas = document.getElementById("view"), copy = document.createElement("canvas");
  copy.width = 120; copy.height = 90;
  copy.getContext("2d").drawImage(canvas, 0, 0, 120, 90);
  return Array.from(copy.getContext("2d").getImageData(0, 0, 120, 90).data);
}"""


@dataclass
class Shown:
    """A page in the browser; what it said to the console, and what it asked the network for."""

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def picture(self) -> np.ndarray:
        """The view in space, small: (90, 120, 4)."""
        self.page.wait_for_timeout(300)
        return np.array(self.page.evaluate(PIXELS)).reshape(90, 120, 4)

    def camera(self) -> list[float]:
        """Where the camera is."""
        return self.page.evaluate("() => window.report.space.camera.position.toArray()")

    def target(self) -> list[float]:
        """What it looks at."""
        return self.page.evaluate("() => window.report.space.controls.target.toArray()")

    def require_silence(self) -> None:
        """Nothing said, nothing fetched."""
        assert self.said == []
        assert all(url.startswith(("file:", "blob:", "data:")) for url in self.asked)


@pytest.fixture
def show(browser):
    """Opens a page and waits until it is complete."""
    opened = []

    def opening(path, width=1200, height=900):
        shown = Shown(browser.new_page(viewport={"width": width, "height": height}))
        opened.append(shown.page)
        told = ("error", "warning")
        shown.page.on("console", lambda one: shown.said.append(one.text) if one.type in told else None)
        shown.page.on("pageerror", lambda error: shown.said.append(str(error)))
        shown.page.on("request", lambda request: shown.asked.append(request.url))
        shown.page.goto(path.as_uri())
        shown.page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
        return shown

    yield opening
    for page in opened:
        page.close()
