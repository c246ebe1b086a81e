"""The pictures of the documentation: of the demo's result, and of the idea, all computed by the package.

python docs/make_pictures.py [DEMO]    DEMO: the folder that `make demo` wrote, by default ./demo

Writes docs/pictures/*.png. Pictures of the report need Playwright and Chromium. Figures that are quoted in the text
beside a picture are printed.
"""

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import trimesh
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from skimage.filters import frangi, threshold_multiotsu

from vesselsdf.distance import tube_distance
from vesselsdf.field_store import FieldStore
from vesselsdf.file_evaluation import compare
from vesselsdf.graph import centreline_graph
from vesselsdf.mesh import open_ends, surface
from vesselsdf.mesh.ends import FACE_ID
from vesselsdf.report.preview import draw_projection, draw_surface, render, vertex_radii
from vesselsdf.report.text import methods_table
from vesselsdf.report.views import VIEWS, Turn
from vesselsdf.scales import REFINEMENT_CONSTANT, coarsen, level_affine, prolong
from vesselsdf.synthesis.trees import grow_tree
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.certificates import wall_error
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.persistence import certified_count, features
from vesselsdf.volume import read_volume

HERE = Path(__file__).resolve().parent / "pictures"
KAPPA = 0.95
OPERATORS = ("mean", "min", "sample")
KINDS = ("components", "loops", "cavities")
VESSEL, BACKGROUND, MARK = "#b5472f", "#e9eef2", "#1f6f9f"
LEVELS = 4
SCAN = Path("trees") / "images" / "mr_0000.nii.gz"


def save(name: str, what: Figure | Image.Image) -> None:
    """Write a figure or a picture as PNG of 256 colours, chosen for it."""
    path = HERE / f"{name}.png"
    HERE.mkdir(exist_ok=True)
    if isinstance(what, Figure):
        what.savefig(path, dpi=110, facecolor="white", bbox_inches="tight", pad_inches=0.12)
        plt.close(what)
        what = Image.open(path)
    colours = what.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    colours.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def bare(axes, title: str) -> None:
    """No ticks and no frame, but a title."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9.5, color="0.15")
    for spine in axes.spines.values():
        spine.set_visible(False)


def preview(demo: Path) -> None:
    """The scan with the outline of what was found in it, and the vessels by their radius."""
    sdf, scan = read_volume(demo / "result" / "sdf.nii.gz"), read_volume(demo / SCAN)
    mesh = surface(sdf.array, sdf.affine)
    radii = vertex_radii(mesh, centreline_graph(sdf.array, sdf.affine))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.5))
    draw_projection(left, VIEWS[1], sdf, scan)
    draw_surface(right, Turn(0.0), mesh, colormaps["plasma_r"](np.clip(radii / 3, 0, 1) ** 0.5)[:, :3])
    figure.tight_layout()
    save("demo", figure)


@contextmanager
def shown(path: Path, height: int = 860) -> Iterator[Any]:
    """A page in a browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1200, "height": height})
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("body[data-ready=yes]", timeout=120_000)
        page.wait_for_timeout(1500)
        yield page
        browser.close()


def photograph(page: Any, name: str, **what: Any) -> None:
    """A picture of what a browser shows."""
    save(name, Image.open(io.BytesIO(page.screenshot(**what))))


def report(demo: Path) -> None:
    """The demo's report in a browser: the whole tree, and what level 2 loses, by the fate of each branch."""
    with shown(demo / "result" / "report.html") as page:
        photograph(page, "report")
        page.fill("#level", "2")
        page.select_option("#colour", "fate")
        page.wait_for_timeout(1500)
        page.locator("#view").focus()
        box = page.locator("#space").bounding_box()
        clip = {"x": box["x"] - 10, "y": box["y"] - 10, "width": box["width"] + 20, "height": box["height"] + 20}
        photograph(page, "report_level", clip=clip)


def comparison(demo: Path) -> None:
    """The demo's result beside a threshold (Otsu, smoothed) and a vesselness (Frangi, as many voxels as the truth)."""
    scan, label = read_volume(demo / SCAN), read_volume(demo / "trees" / "labels" / SCAN.name)
    bright = scan.array.astype(float)
    smooth = ndimage.gaussian_filter(bright, 1.0)
    vesselness = frangi(bright, sigmas=(1, 2, 3), black_ridges=False)
    methods = {
        "vesselsdf": read_volume(demo / "result" / "vessels.nii.gz"),
        "threshold": scan.with_array(smooth > threshold_multiotsu(smooth, 3)[-1]),
        "vesselness": scan.with_array(vesselness > np.quantile(vesselness, 1 - (label.array > 0).mean())),
    }
    made = compare(methods, label, scan)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "compare.html")
        with shown(Path(folder) / "compare.html", 690) as page:
            photograph(page, "compare")
    print(methods_table(made.methods))


def levels(demo: Path) -> None:
    """The demo's field at its four levels, each as the surface of its own grid."""
    store = FieldStore.open(demo / "result" / "sdf.zarr")
    rows = json.loads((demo / "result" / "topology.json").read_text())["levels"]["levels"]
    figure, panels = plt.subplots(1, LEVELS, figsize=(12, 3.3))
    for level, axes in enumerate(panels):
        field, affine = store.read(level), level_affine(store.affine, level)
        mesh = surface(field, affine)
        palette = np.tile(to_rgb(VESSEL), (len(mesh.vertices), 1))
        seen = VIEWS[1].turned(np.asarray(mesh.vertices))[:, :2]
        low, high = seen.min(axis=0), seen.max(axis=0)
        edge = 0.03 / 0.94 * float((high - low).max())
        axes.imshow(
            render(mesh, VIEWS[1], palette, 420),
            extent=(low[0] - edge, high[0] + edge, low[1] - edge, high[1] + edge),
        )
        axes.set(xlim=(-42, 42), ylim=(-42, 42), facecolor="white")
        betti, survived = rows[level]["betti"][0], rows[level]["survived"][0]
        what = f"{betti} components" + (f", {survived} of {rows[0]['betti'][0]} survive" if level else "")
        bare(axes, f"level {level}: {rows[level]['spacing'][0]:g} mm\n{what}")
        assert betti == betti_numbers(field <= 0)[0]
    figure.tight_layout()
    save("levels", figure)


def toy(shape: tuple[int, int, int], lines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """The distance field of straight or bent tubes on voxels of 1 mm."""
    graph = nx.MultiGraph()
    for number, (points, radius) in enumerate(lines):
        graph.add_node(2 * number, pos=points[0], radius=radius)
        graph.add_node(2 * number + 1, pos=points[-1], radius=radius)
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        graph.add_edge(
            2 * number,
            2 * number + 1,
            points=points,
            radii=np.full(len(points), radius),
            length=length,
            start=2 * number,
        )
    return tube_distance(graph, shape, np.eye(4))


def operators() -> None:
    """Two near vessels and one thin vessel, made coarser by each operator."""
    shape = (48, 32, 16)
    x = np.linspace(5.0, 42.0, 60)
    near = [(np.column_stack([x, np.full(60, y), np.full(60, 7.5)]), 2.2) for y in (12.3, 18.7)]
    bent = np.column_stack([x, 15.6 + 8 * np.sin((x - 5) / 37 * 2 * np.pi), np.full(60, 7.5)])
    figure, panels = plt.subplots(2, 4, figsize=(12, 4.9))
    for row, (name, lines) in enumerate((("two near vessels", near), ("one thin vessel", [(bent, 0.95)]))):
        field = toy(shape, lines)
        draw_mask(panels[row, 0], field, f"{name}, 1 mm\nbeta {betti_numbers(field <= 0)}")
        for axes, operator in zip(panels[row, 1:], OPERATORS, strict=True):
            coarse = coarsen(field, operator)
            shared = shared_features(field <= 0, prolong(coarse, shape) <= 0, order=field)
            kept = tuple(shared[k]["shared"] for k in range(3))
            draw_mask(axes, coarse, f"{operator}, 2 mm\nbeta {betti_numbers(coarse <= 0)}, survived {kept}")
            lost = [one["kind"] for k in range(3) for one in shared[k]["lost"]]
            print(name, operator, betti_numbers(coarse <= 0), kept, lost)
    figure.tight_layout()
    save("operators", figure)


def draw_mask(axes, field: np.ndarray, title: str) -> None:
    """The vessel as seen through the box: where any voxel along z is at or below zero."""
    seen = (field <= 0).any(axis=2).T
    colours = np.where(seen[..., None], to_rgb(VESSEL), to_rgb(BACKGROUND))
    axes.imshow(colours, origin="lower", interpolation="nearest")
    if not seen.any():
        axes.text(0.5, 0.5, "nothing is left", transform=axes.transAxes, ha="center", color="0.4", fontsize=9)
    bare(axes, title)


def tree(loops: int, seed: int = 12, shape=(80, 80, 80), radius=(1.6, 2.2)) -> tuple[np.ndarray, np.ndarray]:
    """The exact field of a synthetic tree with loops on voxels of 0.5 mm, and its affine."""
    graph = grow_tree(seed, shape, (0.5, 0.5, 0.5), loops=loops, terminal_radius=radius)
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    return tube_distance(graph, shape, affine), affine


def bound() -> None:
    """One refinement: the band that the correction may use along a line, and the voxels that it can matter for."""
    field, _ = tree(2)
    coarse = coarsen(field, "sample")
    prolonged = prolong(coarse, field.shape)
    spacing = 1.0
    needed, most = REFINEMENT_CONSTANT["sample"] * spacing, KAPPA * spacing
    active = np.abs(prolonged) < most
    vessel = field <= 0
    z = int(vessel.sum(axis=(0, 1)).argmax())
    y = int(vessel[:, :, z].sum(axis=0).argmax())
    figure, (line, plane) = plt.subplots(1, 2, figsize=(12, 4.4), width_ratios=(1.75, 1))
    x = 0.5 * np.arange(field.shape[0])
    line.fill_between(x, prolonged[:, y, z] - most, prolonged[:, y, z] + most, color=MARK, alpha=0.18, lw=0)
    line.plot(x, prolonged[:, y, z], color=MARK, lw=1.3, label="U phi(1), the coarse field prolonged; band: ± b")
    line.plot(x, field[:, y, z], color=VESSEL, lw=1.6, label="phi(0), the distance field")
    line.plot(x[active[:, y, z]], np.zeros(active[:, y, z].sum()), "s", color="black", ms=3.5, label="active voxels")
    line.axhline(0, color="0.4", lw=0.8)
    deepest = x[int(field[:, y, z].argmin())]
    line.set(xlabel="mm along the dotted line", ylabel="mm", ylim=(-2.6, 4.4), xlim=(deepest - 7, deepest + 7))
    line.legend(frameon=False, fontsize=9, loc="upper center")
    shown = np.where(active[:, :, z, None], np.array(to_rgb(MARK)), np.array(to_rgb(BACKGROUND)))
    plane.imshow(shown.transpose(1, 0, 2), origin="lower", extent=(0, 40, 0, 40), interpolation="nearest")
    plane.contour(x + 0.25, x + 0.25, field[:, :, z].T, levels=[0], colors=VESSEL, linewidths=1.6)
    plane.axhline(0.5 * y + 0.25, color="black", lw=0.7, ls=":")
    bare(plane, f"one slice: active voxels and the wall\n(of the whole volume {active.mean():.1%} are active)")
    figure.tight_layout()
    save("bound", figure)
    step = float(np.abs(field - prolonged).max())
    print(f"largest step {step:.3f} mm, needed at most {needed:.3f}, bound {most:.3f}; vessel {vessel.mean():.2%}")
    beyond = (vessel != (prolonged <= 0))[~active].sum()
    print(f"active {active.mean():.2%}; voxels outside the active set whose sign differs: {beyond}")


def certificate() -> None:
    """The persistence diagram of a tree, what the uniform certificate proves of it, and what survives in truth."""
    field, affine = tree(12, seed=3, shape=(96, 96, 96), radius=(1.0, 2.4))
    coarse = prolong(coarsen(field, "mean"), field.shape)
    eps = wall_error(field, coarse)
    found = features(field, affine, band=2.0)
    proved = certified_count(found, eps)
    shared = shared_features(field <= 0, coarse <= 0, affine, order=field)
    alive = betti_numbers(field <= 0)
    figure, axes = plt.subplots(figsize=(6.6, 4.9))
    low, high = -2.2, 2.2
    axes.fill_between([low, -eps], eps, high, color=MARK, alpha=0.16, lw=0)
    axes.plot([low, high], [low, high], color="0.6", lw=0.8)
    axes.axhline(0, color="0.75", lw=0.8)
    axes.axvline(0, color="0.75", lw=0.8)
    for kind, colour, marker in ((0, "black", "o"), (1, VESSEL, "^"), (2, MARK, "s")):
        points = np.array([[f.birth, min(f.death, 2.0)] for f in found if f.dimension == kind]).reshape(-1, 2)
        axes.scatter(*points.T, s=26, color=colour, marker=marker, label=KINDS[kind], zorder=3, alpha=0.85, lw=0)
    axes.text(low + 0.08, eps + 0.07, f"certain: margin > eps = {eps:.2f} mm", fontsize=9, color=MARK)
    axes.text(low + 0.08, 0.06, "alive: birth ≤ 0 < death", fontsize=8.5, color="0.4")
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="birth, mm", ylabel="death, mm (2: or later)")
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    figure.tight_layout()
    save("certificate", figure)
    print(f"eps {eps:.3f} mm; alive {alive}; uniform {proved}; shared {[shared[k]['shared'] for k in range(3)]}")
    print("lost", [(d["kind"], [round(v, 1) for v in d["place"]]) for k in range(3) for d in shared[k]["lost"]])


def caps() -> None:
    """A small tree with its ends cut open: wall, inlet and outlets."""
    field, affine = tree(0, seed=5, shape=(64, 64, 64), radius=(2.2, 2.8))
    opened = open_ends(surface(field, affine), centreline_graph(field, affine))
    group = opened.mesh.face_attributes[FACE_ID]
    inlets = [cap.id for cap in opened.caps if cap.inlet]
    parts = [(group == 1, "0.72"), (np.isin(group, inlets), VESSEL), ((group > 1) & ~np.isin(group, inlets), MARK)]
    # Every face has its own corners, so that a cap's colour does not run into the wall.
    faces = np.concatenate([opened.mesh.faces[chosen] for chosen, _ in parts])
    colours = np.concatenate([np.tile(to_rgb(colour), (3 * chosen.sum(), 1)) for chosen, colour in parts])
    split = trimesh.Trimesh(
        opened.mesh.vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3), process=False
    )
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4))
    for axes, view in zip(panels, VIEWS, strict=True):
        axes.imshow(render(split, view, colours, 420))
        bare(axes, view.name)
    figure.tight_layout()
    save("caps", figure)
    print(f"{len(opened.caps)} caps, {len(opened.closed)} ends left closed")


def main() -> None:
    """All pictures, or those of the idea alone where there is no demo."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    for draw in (operators, bound, certificate, caps):
        draw()
    if not (demo / "result" / "report.html").is_file():
        sys.exit(f"{demo} holds no result: run `make demo` first; its pictures were left out.")
    for draw in (preview, report, comparison, levels):
        draw(demo)


if __name__ == "__main__":
    main()
