"""Reconstruction in blocks: the same whatever the blocks and the workers, and after every kind of accident."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from vesselsdf.api import reconstruct_with
from vesselsdf.blockwise import executors, plan, run, tasks
from vesselsdf.blockwise.plan import Plan, mark
from vesselsdf.blockwise.run import make_plan, reconstruct_in_blocks, tidy
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.errors import InputError, RunError
from vesselsdf.field_store import FieldStore
from vesselsdf.graph_files.whole import graph_of
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume
from vesselsdf.zarr_volume import open_volume, write_volume

TURNED = np.array([[0.0, -0.5, 0, 7], [0.5, 0, 0, -3], [0, 0, -1.0, 2], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """An MR scan of 90 x 70 voxels and 22 slices twice as thick."""
    image = synthetic_case(11, (90, 70, 44), (0.5,) * 3, "mr").image.array
    path = tmp_path_factory.mktemp("scan") / "scan.zarr"
    write_volume(Volume(image.reshape(90, 70, 22, 2).mean(axis=3), TURNED), path)
    return path


@pytest.fixture(scope="module")
def whole(scan):
    volume = open_volume(scan)
    image = volume.read(tuple(slice(n) for n in volume.shape))
    return reconstruct_with(load_model(GENERAL), Volume(image, volume.affine))


def test_the_graph_is_about_that_of_one_piece(whole, in_blocks):
    """Not quite: the field is kept to a 64th of a voxel, and thinning begins at another corner."""
    graph, expected = graph_of(json.loads(in_blocks[2])), whole.graph
    assert abs(len(graph) - len(expected)) <= 2
    length, other = (sum(edge["length"] for *_, edge in one.edges(data=True)) for one in (graph, expected))
    assert length == pytest.approx(other, rel=0.02)
    places = np.array([node["pos"] for _, node in graph.nodes(data=True)])
    away = cKDTree([node["pos"] for _, node in expected.nodes(data=True)]).query(places)[0]
    assert np.quantile(away, 0.9) <= 0.5


def found(folder):
    store = FieldStore.open(folder / "sdf.zarr")
    return [store.read(level) for level in range(store.levels)]


@pytest.fixture(scope="module")
def in_blocks(scan, tmp_path_factory):
    """Fields, report and graph of blocks of 40 voxels, one after the other."""
    folder = tmp_path_factory.mktemp("serial")
    report = reconstruct_in_blocks(make_plan(scan, block=40), folder)
    return found(folder), report, (folder / "centreline.json").read_text(), (folder / "mesh.ply").read_bytes()


def test_they_are_those_of_one_piece(whole, in_blocks, scan, tmp_path):
    fields, report, *_ = in_blocks
    assert tuple(report["betti"]) == betti_numbers(whole.levels[0] <= 0)
    assert report["mesh"]["watertight"]
    beta0, beta1, beta2 = report["betti"]
    assert report["mesh"]["euler_number"] == 2 * (beta0 - beta1 + beta2)
    assert (report["graph"]["components"], report["graph"]["loops"]) == (beta0, beta1)
    assert report["graph"]["files"] == "centreline.json"
    for field, expected in zip(fields, whole.levels, strict=True):
        assert np.array_equal(field <= 0, expected <= 0)
        assert np.abs(field - expected).max() <= 0.5 / 8
    assert np.allclose(make_plan(scan).affine, whole.affine)


@pytest.mark.parametrize(
    ("block", "executor"),
    [(64, executors.serial()), (56, executors.processes(2)), (40, executors.part(2, 3))],
    ids=["serial", "processes", "part"],
)
def test_blocks_and_workers_make_no_difference(scan, in_blocks, tmp_path, block, executor):
    report = reconstruct_in_blocks(make_plan(scan, block=block), tmp_path, executor)
    assert report == in_blocks[1]
    assert (tmp_path / "centreline.json").read_text() == in_blocks[2]
    assert (tmp_path / "mesh.ply").read_bytes() == in_blocks[3]
    for field, expected in zip(found(tmp_path), in_blocks[0], strict=True):
        assert np.array_equal(field, expected)
    mask = open_volume(tmp_path / "vessels.zarr")
    assert np.array_equal(mask.read(tuple(slice(n) for n in mask.shape)), in_blocks[0][0] <= 0)
    tidy(tmp_path)
    assert not (tmp_path / "work").exists()
    assert reconstruct_in_blocks(make_plan(scan, block=block), tmp_path) == report, "what is finished is not done again"
    assert not (tmp_path / "work").exists()


def test_on_a_dask_cluster(scan, in_blocks, tmp_path):
    pytest.importorskip("distributed")
    assert reconstruct_in_blocks(make_plan(scan, block=40), tmp_path, executors.dask(None, 2)) == in_blocks[1]
    for field, expected in zip(found(tmp_path), in_blocks[0], strict=True):
        assert np.array_equal(field, expected)


def command(scan, folder, *more):
    return [sys.executable, "-m", "vesselsdf.cli", "blocks", str(scan), "-o", str(folder), "--block", "40", *more]


def waited_for(condition, seconds=90.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        time.sleep(0.02)


def test_a_run_that_was_killed_goes_on_where_it_was(scan, in_blocks, tmp_path):
    with subprocess.Popen(command(scan, tmp_path), stderr=subprocess.DEVNULL) as process:
        waited_for(lambda: len(list(tmp_path.glob("work/field/*.npz"))) >= 2)
        process.kill()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("work/*/*.npz")}
    assert not (tmp_path / "topology.json").exists()
    assert reconstruct_in_blocks(make_plan(scan, block=40), tmp_path) == in_blocks[1]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items()), "nothing is done twice"
    for field, expected in zip(found(tmp_path), in_blocks[0], strict=True):
        assert np.array_equal(field, expected)


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence(scan, in_blocks, tmp_path):
    with subprocess.Popen(command(scan, tmp_path, "--workers", "2"), stderr=subprocess.PIPE, text=True) as process:
        waited_for(lambda: len(list(tmp_path.glob("work/survey/*.npz"))) >= 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in children}
        os.kill(next(child for child, line in commands.items() if "spawn_main" in line), signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 3
    assert said.startswith("vesselsdf: A worker was killed")
    assert "Traceback" not in said
    assert reconstruct_in_blocks(make_plan(scan, block=40), tmp_path) == in_blocks[1]


def test_a_disk_that_is_full_ends_the_run_with_a_sentence(scan, in_blocks, tmp_path):
    def no_more_than_a_little():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    process = subprocess.run(
        command(scan, tmp_path), stderr=subprocess.PIPE, text=True, preexec_fn=no_more_than_a_little, check=False
    )
    assert process.returncode == 3
    assert "could not be done" in process.stderr
    assert "make room" in process.stderr
    assert "Traceback" not in process.stderr
    assert reconstruct_in_blocks(make_plan(scan, block=40), tmp_path) == in_blocks[1]


def test_background_that_is_all_the_same_makes_no_difference(tmp_path, monkeypatch):
    """Blocks without an image and blocks without a vessel take a short cut."""
    image = np.zeros((64, 64, 330), np.float32)
    image[:, :, :60] = synthetic_case(13, (64, 64, 60), (0.5,) * 3, "mr").image.array
    write_volume(Volume(image, np.diag([0.5, 0.5, 0.5, 1.0])), tmp_path / "scan.zarr")
    fields, seen = [], []
    whole = tasks.coarse_stem
    monkeypatch.setattr(tasks, "coarse_stem", lambda *given: seen.append(given[1].shape) or whole(*given))
    for block in (64, 512):
        reconstruct_in_blocks(make_plan(tmp_path / "scan.zarr", block=block), tmp_path / str(block))
        fields.append(FieldStore.open(tmp_path / str(block) / "sdf.zarr").read())
    assert (fields[0] <= 0).any()
    assert np.array_equal(*fields)
    assert (104, 104, 104) in seen, "there was no short cut"


def test_a_scan_unlike_the_training_is_reported(tmp_path, caplog):
    """As blurred along one axis as slices 16 times as thick are."""
    image = synthetic_case(11, (96, 96, 96), (0.5,) * 3, "mr", terminal_radius=(2.5, 3.0)).image.array
    thick = image.reshape(96, 96, 6, 16).mean(axis=3).repeat(16, axis=2)
    found = []
    for name, array in (("usual", image), ("thick", thick)):
        write_volume(Volume(array, np.diag([0.5, 0.5, 0.5, 1.0])), tmp_path / f"{name}.zarr")
        reconstruct_in_blocks(make_plan(tmp_path / f"{name}.zarr", block=48), tmp_path / name)
        found.append(json.loads((tmp_path / name / "run.json").read_text())["unfamiliar"])
    assert found[0] == []
    assert found[1]
    assert "thick.zarr is unlike the scans" in caplog.text
    assert "usual.zarr" not in caplog.text


def test_a_centreline_too_large_for_one_file_is_in_parts(scan, in_blocks, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run, "MOST", 3)
    monkeypatch.setattr(plan, "REGION", 32)
    report = reconstruct_in_blocks(make_plan(scan, block=40), tmp_path)
    same = {"components", "loops", "branches"}
    assert {key: report["graph"][key] for key in same} == {key: in_blocks[1]["graph"][key] for key in same}
    assert report["graph"]["files"] == "centreline"
    assert len(list((tmp_path / "centreline").glob("*.json"))) > 2
    assert not (tmp_path / "centreline.json").exists()
    assert "it is in parts" in caplog.text


def test_another_run_is_not_mixed_in(scan, tmp_path):
    make_plan(scan, block=40).save(tmp_path)
    assert Plan.load(tmp_path) == make_plan(scan, block=40)
    with pytest.raises(InputError, match="block 40 instead of 48"):
        reconstruct_in_blocks(make_plan(scan, block=48), tmp_path)


@pytest.mark.parametrize("block", [0, 12, -8])
def test_blocks_that_would_cut_coarse_voxels_are_refused(scan, block):
    with pytest.raises(InputError, match="multiple of 8"):
        make_plan(scan, block=block)


def test_summaries_are_merged_two_along_each_axis(scan):
    made = make_plan(scan, block=16)
    assert made.grid == (6, 5, 3)
    assert made.phases()[-3:] == ["merge-1", "merge-2", "merge-3"]
    assert made.blocks("merge-3") == [(0, 0, 0)]
    assert made.parts("merge-1", (2, 2, 1)) == [("field", (4, 4, 2)), ("field", (5, 4, 2))]
    for phase in ("merge-1", "merge-2", "merge-3"):
        taken = [part for block in made.blocks(phase) for part in made.parts(phase, block)]
        before = made.phases()[made.phases().index(phase) - 1]
        assert sorted(taken) == [(before, block) for block in made.blocks(before)]
    assert mark(Path("a"), "field", (0, 1, 2)).name == "0_1_2.npz"


def test_without_any_vessel_it_says_so(tmp_path):
    noise = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
    write_volume(Volume(noise, np.eye(4)), tmp_path / "noise.zarr")
    with pytest.raises(RunError, match="no vessel was found"):
        reconstruct_in_blocks(make_plan(tmp_path / "noise.zarr", block=32), tmp_path / "result")
