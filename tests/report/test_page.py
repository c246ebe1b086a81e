"""The page of a report: one file, complete, that shows in a real browser what is in it."""

import re

import numpy as np
import pytest
from scipy import ndimage

from vesselsdf.api import reconstruct
from vesselsdf.report import packing
from vesselsdf.report.packing import FACES, GRID, Parts, simplified, slices
from vesselsdf.report.page import Owners
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import Volume

pytestmark = pytest.mark.skipif(not packing.available(), reason="the package was built without three.js")
TURNED = np.array([[0, 0.5, 0, -20], [0, 0, -0.5, 30], [0.5, 0, 0, 10], [0, 0, 0, 1.0]])
"""Axes of the array: up, right, back."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tree with loops, from its mask, on a turned grid; with an image for the slices."""
    case = synthetic_case(5, (72, 64, 80), (0.5,) * 3, "ct", loops=2, terminal_radius=(1.0, 1.5))
    result = reconstruct(Volume((case.label.array > 0).astype(np.uint8), TURNED), mask=True)
    result.from_mask, result.input = False, Volume(case.image.array, TURNED)
    path = tmp_path_factory.mktemp("page") / "report.html"
    result.provenance["input"] = "scan <a>&b.nii.gz"
    result.write_report(path)
    return result, path


def test_it_is_one_file_that_needs_no_network(made, content):
    text, *_ = content(made[1])
    assert "{{" not in text.split("<script>")[0].replace("part-", "")
    assert not re.search(r'(src|href)="?(https?:)?//', text)
    assert "<title>scan &lt;a&gt;&amp;b.nii.gz</title>" in text
    assert len(text) < 10e6


def test_walls_and_lines_are_those_of_the_result(made, content):
    result, path = made
    _, report, parts = content(path)
    assert len(report["surfaces"]) == len(result.levels)
    level = report["surfaces"][0]
    packed = np.cumsum(np.frombuffer(parts[level["vertices"]], np.int32)).reshape(3, -1).T
    vertices = np.array(level["low"]) + level["step"] * packed
    assert np.abs(vertices - result.mesh().vertices).max() <= level["step"] / 2 * 1.001
    faces = np.cumsum(np.frombuffer(parts[level["faces"]], np.int32)).reshape(-1, 3)
    assert np.array_equal(faces, result.mesh().faces)
    owner = np.frombuffer(parts[level["owner"]], np.uint16)
    assert len(owner) == len(vertices) == len(parts[level["channels"]["radius"]])
    assert owner.max() < result.graph.number_of_edges()
    points = np.frombuffer(parts[report["lines"][0]["points"]], np.float32).reshape(-1, 2, 3)
    length = np.linalg.norm(points[:, 0] - points[:, 1], axis=1).sum()
    assert length == pytest.approx(sum(edge["length"] for *_, edge in result.graph.edges(data=True)), rel=1e-3)
    for values in report["values"].values():
        assert len(values) == result.graph.number_of_edges()
    branches = next(table for table in report["tables"] if table["key"] == "branch")
    assert len(branches["rows"]) == len(branches["places"]) == result.graph.number_of_edges()


def test_what_was_lost_is_listed_with_its_place(made, content):
    result, path = made
    _, report, _ = content(path)
    levels = result.topology()["levels"]["levels"]
    for level in levels[1:]:
        listed = [one for one in report["features"] if one["group"] == level["level"]]
        expected = sum(len(level.get(key) or []) for key in ("lost", "invented", "branches_lost", "branches_invented"))
        assert len(listed) == expected
    assert any(one["what"] == "end" for one in report["features"])
    assert f"coarsest safe level is {result.topology()['levels']['coarsest_safe_level']}" in report["sentence"]
    decisions = next(table for table in report["tables"] if table["key"] == "level")
    assert len(decisions["rows"]) == len(levels)


def test_slices_lie_where_the_image_does(made, content):
    result, path = made
    _, report, parts = content(path)
    grid = report["grid"]
    image = np.frombuffer(parts[grid["image"]], np.uint8).reshape(grid["shape"])
    field = np.frombuffer(parts[grid["fields"][0]["part"]], np.int8).reshape(grid["shape"])
    affine = np.array(grid["affine"])
    assert np.allclose(np.diag(np.diag(affine)[:3]), affine[:3, :3]), "axes are right, front, top"
    assert (np.diag(affine)[:3] > 0).all()
    index = np.argwhere(result.levels[0] <= -0.8)
    place = index @ TURNED[:3, :3].T + TURNED[:3, 3]
    voxel = (np.linalg.inv(affine) @ np.column_stack([place, np.ones(len(place))]).T)[:3]
    assert (ndimage.map_coordinates(field.astype(float), voxel, order=1) < 0).mean() > 0.99
    inside = ndimage.map_coordinates(image.astype(float), voxel, order=1).mean()
    assert inside > image.mean() + 60


def test_a_large_image_is_made_coarser(made):
    result, _ = made
    field = np.repeat(result.levels[0], 3, axis=2)
    large = Volume(field, TURNED)
    grid = slices(Parts(), large, large, [("wall", large)])
    assert max(grid["shape"]) == GRID


def test_a_large_mesh_is_made_simpler_for_the_page(made):
    mesh = made[0].mesh()
    vertices, faces = simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), 4000)
    assert 1500 < len(faces) <= 4000
    assert faces.max() < len(vertices)
    assert np.allclose([vertices.min(axis=0), vertices.max(axis=0)], mesh.bounds, atol=1.0)
    same = simplified(np.asarray(mesh.vertices), np.asarray(mesh.faces), FACES)
    assert same[1] is not None
    assert len(same[1]) == len(mesh.faces)


def test_the_wall_belongs_to_the_branch_that_it_is_around(made):
    result, _ = made
    owners = Owners(result.graph)
    edges = [edge for *_, edge in result.graph.edges(data=True)]
    for number, edge in enumerate(edges):
        middle = edge["points"][len(edge["points"]) // 2]
        assert owners.of(middle[None])[0][0] == number


def test_without_three_nothing_fails(made, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packing, "THREE", tmp_path / "none")
    made[0].write_report(tmp_path / "report.html")
    assert "built without three.js" in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_in_a_browser(made, show, content):
    """No error, no request, a picture that level and features change; by keyboard and on a phone, too."""
    shown = show(made[1])
    page, first = shown.page, shown.picture()
    assert (first[..., 3] > 0).mean() > 0.02, "the canvas is blank"
    page.fill("#level", "1")
    second = shown.picture()
    assert np.abs(first - second).max() > 30
    assert page.inner_text("#level-name").startswith("1:")
    before = shown.camera()
    row = page.locator("#feature-table tbody tr:not([hidden])").first
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert np.linalg.norm(np.subtract(before, shown.camera())) > 1
    _, report, _ = content(made[1])
    feature = next(one for one in report["features"] if one["group"] == 1)
    assert np.allclose(shown.target(), feature["place"], atol=1e-6)
    assert page.inner_text("#said") == feature["text"]
    page.click("#home")
    page.select_option("#colour", "fate")
    page.fill("#cut", "0.5")
    assert np.abs(shown.picture() - second).max() > 30
    page.click("#branch-table th:nth-child(5)")
    lengths = [float(cell) for cell in page.locator("#branch-table tbody td:nth-child(5)").all_inner_texts()]
    assert lengths == sorted(lengths)
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    shown.require_silence()
