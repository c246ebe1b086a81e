"""The three jobs end to end, on small cases."""

import json
import subprocess
import sys
from pathlib import Path

import networkx as nx
import nibabel
import numpy as np
import pytest
import trimesh

import vesselsdf
from vesselsdf import api, file_evaluation
from vesselsdf.config import parse_config
from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError, RunError
from vesselsdf.volume import Volume, read_volume, write_volume

OBLIQUE = np.array(
    [[0.0, -0.48, 0.14, 20.0], [0.5, 0.0, 0.0, -7.0], [0.0, 0.14, 0.48, 3.0], [0.0, 0.0, 0.0, 1.0]]
)  # a permuted, turned grid of 0.5 mm, left-handed


def ring(affine, shape=(48, 48, 40)):
    """A ring and a separate straight tube: beta = (2, 1, 0). Positions in mm follow the affine."""
    graph = nx.MultiGraph()
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([20 + 12 * np.cos(angle), 22 + 12 * np.sin(angle), np.full(60, 20.0)], 1)
    line = np.stack([np.full(20, 40.0), np.full(20, 40.0), np.linspace(8, 32, 20)], 1)
    for number, (indices, radius) in enumerate(((circle, 1.2), (line, 1.5))):
        points = indices @ affine[:3, :3].T + affine[:3, 3]
        ends = (2 * number, 2 * number) if number == 0 else (2, 3)
        for end, place in zip(ends, (points[0], points[-1]), strict=True):
            graph.add_node(end, pos=place, radius=radius)
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        graph.add_edge(*ends, points=points, radii=np.full(len(points), radius), length=length, start=ends[0])
    return graph, tube_distance(graph, shape, affine)


def test_a_mask_becomes_field_mesh_graph_and_report_that_agree(tmp_path):
    _, sdf = ring(OBLIQUE)
    path = tmp_path / "mask.nii.gz"
    write_volume(Volume((sdf <= 0).astype(np.uint8), OBLIQUE), path)
    made = vesselsdf.reconstruct(path, mask=True)
    made.save(tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {
        "sdf.nii.gz", "sdf.zarr", "vessels.nii.gz", "mesh.ply", "mesh.stl", "mesh.glb", "mesh.vtp",
        "centreline.json", "centreline.swc", "centreline.graphml",
        "centreline.vtp", "branches.csv", "bifurcations.csv", "terminals.csv", "anatomy.json", "topology.json",
        "barcode.svg", "preview.png", "report.html", "run.json",
    }  # fmt: skip
    table = (Path(__file__).parents[1] / "docs" / "exports.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in table] == [], "docs/exports.md says what opens each file"
    report = json.loads((tmp_path / "out" / "topology.json").read_text())
    assert report["betti"] == report["betti_of_mask_on_input_grid"] == [2, 1, 0]
    anatomy = json.loads((tmp_path / "out" / "anatomy.json").read_text())
    assert (anatomy["trees"], anatomy["loops"], anatomy["branches"]) == (2, 1, made.graph.number_of_edges())
    assert len((tmp_path / "out" / "branches.csv").read_text().splitlines()) == 1 + anatomy["branches"]
    assert report["agreement"]["agrees"]
    assert report["agreement"]["mesh"] == [2, 1, 0]
    assert report["agreement"]["graph"] == [2, 1]
    assert report["false_features"] == []
    mesh = trimesh.load(tmp_path / "out" / "mesh.ply")
    assert mesh.is_watertight
    assert mesh.euler_number == 2 * (2 - 1)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(run["input_sha256"]) == 64
    assert set(run["seconds"]) >= {"distance", "mesh", "centreline graph", "topology", "writing"}


def test_a_mask_is_mended_on_request_and_the_root_is_where_it_is_asked_for(tmp_path):
    graph, sdf = ring(OBLIQUE)
    mask = (sdf <= 0).astype(np.uint8)
    tube = [graph.nodes[node]["pos"] for node in (2, 3)]
    x, y, z = np.rint(np.linalg.solve(OBLIQUE[:3, :3], np.mean(tube, axis=0) - OBLIQUE[:3, 3])).astype(int)
    mask[x, y - 4 : y + 5, z] = 0  # a pin-hole through the tube
    mask[2, 2, 2] = 1  # a speck
    path = tmp_path / "mask.nii.gz"
    write_volume(Volume(mask, OBLIQUE), path)
    as_it_is = vesselsdf.reconstruct(path, mask=True).topology()
    assert as_it_is["betti"] == (3, 2, 0)
    assert sorted(one["kind"] for one in as_it_is["false_features"]) == ["hole", "speck"]
    for end in tube:
        made = vesselsdf.reconstruct(path, mask=True, mend=True, roots=[end])
        assert made.topology()["betti"] == (2, 1, 0)
        assert sorted(one["kind"] for one in made.provenance["mended"]) == ["hole", "speck"]
        assert np.linalg.norm(made.graph.nodes[made.graph.graph["root"]]["pos"] - end) < 1.0
    with pytest.raises(InputError, match="root 1"):
        vesselsdf.reconstruct(path, mask=True, roots=[[500.0, 0, 0]]).topology()


def test_a_mesh_for_flow_simulation_has_a_wall_and_a_cap_for_each_end(tmp_path):
    _, sdf = ring(OBLIQUE)
    write_volume(Volume(sdf, OBLIQUE), tmp_path / "sdf.nii.gz")
    made = api.make_mesh(tmp_path, tmp_path / "flow.stl", smooth=True, error=0.1, open_ends=True)
    assert made["mesh"]["watertight"]
    assert made["mesh"]["euler_number"] == 2 * (2 - 1)
    assert [cap.inlet for cap in made["caps"]] == [True, False]
    assert made["closed"] == ()
    solids = [line.split()[1] for line in (tmp_path / "flow.stl").read_text().splitlines() if line.startswith("solid")]
    assert solids == ["wall", *(cap.name for cap in made["caps"])]
    assert (tmp_path / "flow.csv").read_text().count("\n") == 3
    few = api.make_mesh(tmp_path / "sdf.nii.gz", tmp_path / "few.ply", faces=1500)
    assert few["mesh"]["faces"] <= 1500
    assert trimesh.load(tmp_path / "few.ply").is_watertight
    with pytest.raises(InputError, match="ends in"):
        api.make_mesh(tmp_path, tmp_path / "mesh.obj.gz")
    write_volume(Volume((sdf <= 0).astype(np.uint8), OBLIQUE), tmp_path / "mask.nii.gz")
    with pytest.raises(InputError, match="--mask"):
        api.make_mesh(tmp_path / "mask.nii.gz", tmp_path / "mesh.stl")


def test_a_mesh_of_a_result_whose_field_is_a_store_alone(tmp_path):
    """As results of `blocks` are."""
    _, sdf = ring(OBLIQUE)
    vesselsdf.reconstruct(Volume((sdf <= 0).astype(np.uint8), OBLIQUE), mask=True).save(tmp_path / "made")
    both = api.make_mesh(tmp_path / "made", tmp_path / "both.ply")
    (tmp_path / "made" / "sdf.nii.gz").unlink()
    stored = api.make_mesh(tmp_path / "made", tmp_path / "stored.ply")
    assert stored["mesh"]["watertight"]
    assert stored["mesh"]["euler_number"] == both["mesh"]["euler_number"]
    assert stored["mesh"]["volume"] == pytest.approx(both["mesh"]["volume"], rel=0.01)


def test_the_mesh_and_centreline_lie_on_the_vessel_in_the_world(tmp_path):
    graph, sdf = ring(OBLIQUE)
    made = vesselsdf.reconstruct(Volume((sdf <= 0).astype(np.uint8), OBLIQUE), mask=True)
    wall = made.mesh().vertices
    true_points = np.concatenate([edge["points"] for _, _, edge in graph.edges(data=True)])
    nearest = np.array([np.linalg.norm(true_points - vertex, axis=1).min() for vertex in wall[::20]])
    assert abs(np.median(nearest) - 1.2) < 0.35  # radii 1.2 and 1.5 mm, voxels of 0.5 mm
    found = np.concatenate([edge["points"] for _, _, edge in made.graph.edges(data=True)])
    off = np.array([np.linalg.norm(true_points - point, axis=1).min() for point in found])
    assert np.median(off) < 0.2
    field = nibabel.Nifti1Image(made.sdf.array, made.sdf.affine)
    assert np.allclose(field.affine, OBLIQUE)


def test_thin_oblique_vessels_in_thick_slices_keep_their_topology():
    mask = np.zeros((40, 12, 10), np.uint8)
    for z in range(8):
        mask[4 + 4 * z : 8 + 4 * z, 6, 1 + z] = 1  # joined from slice to slice by corners only
    volume = Volume(mask, np.diag([0.5, 0.5, 2.0, 1.0]))
    made = vesselsdf.reconstruct(volume, mask=True)
    assert made.topology()["betti"] == (1, 0, 0)
    assert "would change" in made.provenance["working_grid"]


def test_thick_slices_of_a_wide_vessel_come_out_isotropic():
    x, y, _ = np.meshgrid(np.arange(40), np.arange(40), np.arange(12), indexing="ij")
    volume = Volume((np.hypot(x - 20, y - 20) < 8).astype(np.uint8), np.diag([0.5, 0.5, 2.0, 1.0]))
    made = vesselsdf.reconstruct(volume, mask=True)
    assert np.allclose(made.sdf.spacing, 0.5)
    assert made.mask.shape == volume.shape


TINY = {
    "network": {"levels": 3, "width": 4},
    "data": {"synthetic_cases": 3, "synthetic_size": 48, "modality": "microscopy"},
    "training": {"steps": 60, "batch": 1, "patch": 32, "checkpoint_every": 60, "validate_every": 60},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return api.train(parse_config(TINY, "test"), tmp_path_factory.mktemp("run"))


def test_a_run_is_evaluated_on_its_held_out_cases_level_by_level(run):
    report = api.evaluate_run(run)
    assert [case["case"] for case in report["cases"]] == ["tree_0002"]
    levels = report["mean"]["levels"]
    assert [level["level"] for level in levels] == [0, 1, 2]
    assert all(level["bound_used"] <= 1 + 1e-4 for level in levels[:-1])
    assert 0 <= report["mean"]["metrics"]["dice"] <= 1
    assert (run / "evaluation.json").is_file()


def test_an_image_is_reconstructed_with_the_run_and_the_mask_lies_on_its_grid(run, tmp_path):
    assert api.synthesise(tmp_path / "trees", 1, 5, "microscopy", 48, 0.5) == ["microscopy_0000"]
    for folder, suffix in (
        ("images", "nii.gz"),
        ("labels", "nii.gz"),
        ("sdf", "nii.gz"),
        ("graphs", "json"),
        ("graphs", "swc"),
    ):
        assert (tmp_path / "trees" / folder / f"microscopy_0000.{suffix}").is_file()
    image = read_volume(tmp_path / "trees" / "images" / "microscopy_0000.nii.gz")
    made = vesselsdf.reconstruct(image, run / "model.safetensors")
    assert made.mask.shape == image.shape
    assert np.allclose(made.mask.affine, image.affine)
    assert len(made.levels) == 3
    assert made.bounds[0] == 0


def test_an_image_without_any_vessel_gets_one_sentence(run):
    noise = np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32)
    made = vesselsdf.reconstruct(Volume(noise, np.eye(4)), run / "model.safetensors")
    made.levels = [np.abs(level) + 1 for level in made.levels]
    with pytest.raises(RunError, match="no vessel was found"):
        made.mesh()


def test_without_a_run_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="run `vesselsdf train` first"):
        api.evaluate_run()


def test_folders_are_compared_by_stem(tmp_path):
    _, sdf = ring(OBLIQUE)
    for folder, field in (("p", sdf - 0.2), ("r", sdf)):
        write_volume(Volume((field <= 0).astype(np.uint8), OBLIQUE), tmp_path / folder / "a.nii.gz")
        write_volume(Volume(field.astype(np.float32), OBLIQUE), tmp_path / folder / "b.nii.gz")
    report = file_evaluation.evaluate_files(tmp_path / "p", tmp_path / "r", levels=True)
    assert [case["case"] for case in report["cases"]] == ["a", "b"]
    assert not file_evaluation.topology_differences(report)
    assert report["cases"][0]["levels"][0]["betti"] == (2, 1, 0)
    file_evaluation.save_evaluation(report, tmp_path / "table")
    assert (tmp_path / "table" / "evaluation.csv").read_text().count("\n") == 3
    (tmp_path / "p" / "a.nii.gz").unlink()
    with pytest.raises(InputError, match="no prediction for a"):
        file_evaluation.evaluate_files(tmp_path / "p", tmp_path / "r")


def test_the_command_line_says_what_it_does_and_what_went_wrong(tmp_path):
    def call(*arguments):
        command = [sys.executable, "-m", "vesselsdf.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    for command in ("train", "reconstruct", "mesh", "evaluate", "synth", "inspect", "doctor"):
        helped = call(command, "--help")
        assert helped.returncode == 0
        assert "examples:" in helped.stdout
    absent = call("reconstruct", str(tmp_path / "absent.nii.gz"), "-o", str(tmp_path / "o"), "--mask")
    assert (absent.returncode, absent.stderr.count("\n")) == (2, 1)
    assert "absent.nii.gz" in absent.stderr
    assert call("segment").returncode == 2
    lonely = call("evaluate", "--prediction", "p.nii.gz")
    assert lonely.returncode == 2
    assert "--reference is missing" in lonely.stderr

    _, sdf = ring(OBLIQUE)
    whole, cut = tmp_path / "whole.nii.gz", tmp_path / "cut.nii.gz"
    mask = (sdf <= 0).astype(np.uint8)
    write_volume(Volume(mask, OBLIQUE), whole)
    mask[:, 20:24] = 0
    write_volume(Volume(mask, OBLIQUE), cut)
    same = call("evaluate", "--prediction", str(whole), "--reference", str(whole), "--require-topology")
    assert same.returncode == 0
    assert "cldice" in same.stdout
    other = call("evaluate", "--prediction", str(cut), "--reference", str(whole), "--require-topology")
    assert other.returncode == 4
    assert "beta1_error 1" in other.stderr
    seen = call("inspect", str(whole))
    assert seen.returncode == 0
    assert "0.5 x 0.5 x 0.5 mm" in seen.stdout
