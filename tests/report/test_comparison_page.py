"""The page of an evaluation: walls by their distance to each other, what was missed, several methods side by side."""

import csv
from pathlib import Path

import numpy as np
import pytest

from vesselsdf.cli import main
from vesselsdf.file_evaluation import compare, distinct_names, evaluate_files
from vesselsdf.report import packing
from vesselsdf.volume import Volume, write_volume

pytestmark = pytest.mark.skipif(not packing.available(), reason="the package was built without three.js")
TURNED = np.array([[0, 0.5, 0, -20], [0, 0, -0.5, 30], [0.5, 0, 0, 10], [0, 0, 0, 1.0]])
"""Axes of the array: up, right, back."""
X, Y, Z = np.indices((40, 40, 60)) - 20


def tube(radius, twig=True):
    """Distance (mm) to a vessel along the last axis, with a thin branch to the side."""
    field = np.hypot(X, Y) - radius
    if twig:
        field = np.minimum(field, np.maximum(np.hypot(Y, Z) - 2, -X))
    return Volume((0.5 * field).astype(np.float32), TURNED)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A reference with a branch; the same vessel thicker and without it; one that is right; one that is empty."""
    methods = {"thick <b>": tube(8, twig=False), "right": tube(6), "nothing": Volume(np.zeros(X.shape, bool), TURNED)}
    image = Volume((100 * (tube(6).array < 0)).astype(np.float32), TURNED)
    found = compare(methods, tube(6), image)
    path = tmp_path_factory.mktemp("compare") / "page.html"
    found.save(path)
    return found, path


def vertices_of(wall, parts):
    packed = np.cumsum(np.frombuffer(parts[wall["vertices"]], np.int32)).reshape(3, -1).T
    return np.array(wall["low"]) + wall["step"] * packed


def values_of(wall, parts, colour):
    share = np.frombuffer(parts[wall["channels"][colour["key"]]], np.uint8) / 255
    return colour["low"] + share * (colour["high"] - colour["low"])


def test_walls_are_coloured_by_their_distance_to_the_other(made, content):
    _, report, parts = content(made[1])
    reference, thick, right, nothing = report["surfaces"][:4]
    colour = report["colours"][0]
    outer = vertices_of(thick, parts)
    index = tube(8).to_index(outer) - 20
    # One mm outside everywhere, but where the branch leaves and at the lids of the ends.
    side = (index[:, 0] < 0) & (np.abs(index[:, 2] - 9.5) < 28)
    assert side.sum() > 1000
    assert np.abs(values_of(thick, parts, colour)[side] - 1.0).max() < 0.02
    assert np.abs(values_of(right, parts, colour)).max() < 0.05
    assert len(parts[nothing["vertices"]]) == 0
    # The reference is as near as the nearest method.
    assert np.abs(values_of(reference, parts, colour)).max() < 0.05


def test_what_was_missed_is_laid_over_the_method(made, content):
    _, report, parts = content(made[1])
    thick, right, nothing = (report["surfaces"][pane["walls"][1]] for pane in report["panes"][1:])
    index = tube(6).to_index(vertices_of(thick, parts)) - 20
    assert len(index) > 50
    assert (index[:, 0] > 8).all()
    assert index[:, 0].max() > 18
    assert len(parts[right["vertices"]]) == 0
    assert len(parts[nothing["vertices"]]) == len(parts[report["surfaces"][0]["vertices"]])


def test_what_is_lost_is_listed_with_its_place(made, content):
    _, report, _ = content(made[1])
    missed = [one for one in report["features"] if one["text"].startswith("branch missed")]
    assert missed[0]["group"] == 0
    place = tube(6).to_index(np.array([missed[0]["place"]]))[0] - 20
    assert place[0] > 8
    assert np.abs(place[1:] - [0, 0]).max() < 3
    lost = [one for one in report["features"] if one["what"] == "lost" and one["group"] == 2]
    assert any(one["text"].startswith("component") for one in lost)
    assert not [one for one in report["features"] if one["group"] == 1]


def test_metrics_stand_side_by_side_with_the_best_marked(made, content):
    found, path = made
    text, report, _ = content(path)
    table = report["tables"][0]
    assert [column["name"] for column in table["columns"][:4]] == ["metric", *(one.name for one in found.methods)]
    row = next(k for k, cells in enumerate(table["rows"]) if cells[0] == "dice")
    assert table["rows"][row][1:4] == [pytest.approx(one.metrics["dice"], abs=2e-3) for one in found.methods]
    assert table["best"][row] == [2]
    assert report["sentence"].startswith("Components, loops and cavities lost or invented: thick <b> 0, right 0")
    assert "<b>" not in text.split("<body>")[0]
    with path.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = {line["case"]: line for line in csv.DictReader(file)}
    assert float(rows["right"]["dice"]) == found.methods[1].metrics["dice"]


def test_slices_hold_the_wall_of_every_method(made, content):
    _, report, parts = content(made[1])
    grid = report["grid"]
    assert [one["name"] for one in grid["fields"]] == ["reference", *(one.name for one in made[0].methods)]
    inside = [(np.frombuffer(parts[one["part"]], np.int8) <= 0).mean() for one in grid["fields"]]
    assert inside[0] == inside[2]
    assert inside[1] > inside[0]
    assert inside[3] == 0


def test_in_a_browser(made, show):
    """Methods side by side under one camera, one alone, features that move it; silent, on a phone too."""
    shown = show(made[1])
    page, first = shown.page, shown.picture()
    assert page.locator("#names span").all_inner_texts() == ["reference", "thick <b>", "right", "nothing"]
    quarters = [
        first[rows, columns, 3] for rows in (slice(0, 45), slice(45, 90)) for columns in (slice(0, 60), slice(60, 120))
    ]
    if page.evaluate("() => window.report.space.state.columns") == 2:
        assert all((one > 0).mean() > 0.01 for one in quarters), "a pane is blank"
    page.select_option("#show", "1")
    alone = shown.picture()
    assert np.abs(first - alone).max() > 30
    assert page.locator("#names span").all_inner_texts() == ["thick <b>"]
    before = shown.camera()
    page.locator("#feature-table tbody tr:not([hidden])").first.click()
    page.wait_for_timeout(300)
    assert np.linalg.norm(np.subtract(before, shown.camera())) > 0.1
    page.select_option("#colour", "radius")
    assert np.abs(shown.picture() - alone).max() > 30
    assert page.locator("#metric-table td.best").count() > 5
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    shown.require_silence()


def test_folders_get_an_overview_with_a_page_for_each_case(tmp_path, show):
    for name in ("case 1", "case_2"):
        write_volume(tube(6), tmp_path / "r" / f"{name}.nii.gz")
        write_volume(tube(7), tmp_path / "p" / f"{name}.nii.gz")
    evaluate_files(tmp_path / "p", tmp_path / "r", folder=tmp_path / "out", levels=True)
    shown = show(tmp_path / "out" / "report.html")
    assert shown.page.locator("#case-table tbody tr").count() == 3
    assert not shown.page.locator("#space").count()
    shown.page.locator("#case-table tbody tr").first.click()
    shown.page.wait_for_selector("#view")
    shown.page.wait_for_selector("body[data-ready=yes]", timeout=60_000)
    assert "case 1" in shown.page.inner_text("#title")
    shown.require_silence()


def test_compare_from_the_command_line(tmp_path, capsys):
    write_volume(tube(6), tmp_path / "r.nii.gz")
    for name in ("a", "b"):
        write_volume(tube(7), tmp_path / name / "case.nii.gz")
    paths = [str(tmp_path / name / "case.nii.gz") for name in ("a", "b")]
    page = tmp_path / "made" / "page.html"
    assert main(["compare", *paths, "--reference", str(tmp_path / "r.nii.gz"), "-o", str(page)]) == 0
    assert "a/case" in capsys.readouterr().out
    assert page.is_file()
    assert page.with_suffix(".csv").is_file()
    assert main(["compare", paths[0], paths[0], "--reference", str(tmp_path / "r.nii.gz")]) == 2
    assert "given twice" in capsys.readouterr().err
    assert main(["compare", paths[0], "--reference", paths[1], "--image", str(tmp_path / "none.nii.gz")]) == 2


def test_an_image_needs_its_case(tmp_path, capsys):
    write_volume(tube(6), tmp_path / "r" / "one.nii.gz")
    write_volume(tube(6), tmp_path / "r" / "two.nii.gz")
    write_volume(tube(6), tmp_path / "images" / "other.nii.gz")
    both = ["evaluate", "--prediction", str(tmp_path / "r"), "--reference", str(tmp_path / "r")]
    assert main([*both, "--image", str(tmp_path / "images"), "-o", str(tmp_path / "out")]) == 2
    assert "no image for one" in capsys.readouterr().err
    assert main([*both, "--image", str(tmp_path / "images")]) == 2
    assert not (tmp_path / "out").exists()


def test_names_are_as_short_as_they_can_be(tmp_path):
    assert distinct_names([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]) == ["a", "b"]
    assert distinct_names([tmp_path / "x" / "a.nii.gz", tmp_path / "y" / "a.nii.gz"]) == ["x/a", "y/a"]
    assert distinct_names([tmp_path / "a.nii.gz", tmp_path / "a.mha"]) == ["a.nii.gz", "a.mha"]
    assert len(set(distinct_names([Path("a.nii.gz"), tmp_path / "a.nii.gz"]))) == 2
