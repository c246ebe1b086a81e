"""Patches: a pure function of seed, step and number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vesselsdf.distance import signed_distance
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import PreparedCase, _window, draw, hard_places, prepare
from vesselsdf.topology.thinning import thin
from vesselsdf.volume import Volume

REACH = 24.0


@pytest.fixture
def case(tmp_path):
    """A tube along z through noise, on voxels of 0.5 x 0.5 x 1 mm."""
    shape = (40, 44, 30)
    x, y, _ = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    vessel = np.hypot(x - 20, y - 22) < 4
    image = np.random.default_rng(0).normal(0, 0.2, shape) + vessel
    volume = Volume(image.astype(np.float32), np.diag([0.5, 0.5, 1.0, 1.0]))
    distance = volume.with_array(signed_distance(vessel, volume.spacing))
    return prepare(tmp_path, "tube", lambda: (volume, distance), Preprocessing(), REACH)


def test_a_prepared_case_lies_on_the_working_grid(case):
    assert case.image.shape == case.sdf.shape == (40, 44, 60)
    assert case.sdf.min() == pytest.approx(-4, abs=0.6)  # voxels of 0.5 mm
    assert case.sdf.max() <= REACH
    assert np.allclose(case.skeleton[:, :2].mean(axis=0), [20, 22], atol=1)


def test_a_prepared_case_is_not_prepared_twice(case, tmp_path):
    def fail():
        raise AssertionError("loaded again")

    again = prepare(tmp_path, "tube", fail, Preprocessing(), REACH)
    assert np.array_equal(again.image, case.image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tube"]


def test_draws_depend_on_nothing_but_their_numbers(case):
    first, again = draw([case], 24, 3, seed=5, step=7), draw([case], 24, 3, seed=5, step=7)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.sdf, again.sdf)
    for other in ({"seed": 6, "step": 7}, {"seed": 5, "step": 8}, {"seed": 5, "step": 7, "first": 3}):
        assert not np.array_equal(first.image, draw([case], 24, 3, **other).image)


def test_image_distance_and_skeleton_are_turned_together(case):
    for step in range(20):
        batch = draw([case], 24, 2, seed=0, step=step)
        inside = batch.sdf <= -1.5
        if inside.any():
            assert batch.image[inside].mean() > batch.image[batch.sdf > 1.5].mean()
        assert (batch.sdf[batch.skeleton > 0] <= 0).all()


def test_patches_larger_than_the_case_are_filled_up(case):
    batch = draw([case], 64, 1, seed=0, step=0)
    assert batch.image.shape == batch.sdf.shape == batch.skeleton.shape == (1, 1, 64, 64, 64)


def test_a_truth_on_a_finer_grid_than_thick_slices_is_kept(tmp_path):
    from vesselsdf.synthesis.cases import synthetic_case

    case = synthetic_case(3, (48, 48, 48), (0.5, 0.5, 0.5), "mr", slices=3)
    assert case.image.shape == (48, 48, 16)
    made = prepare(tmp_path, "thick", lambda: (case.image, case.sdf), Preprocessing(), REACH)
    assert made.image.shape == made.sdf.shape == (48, 48, 48)
    np.testing.assert_allclose(made.sdf, (case.sdf.array / 0.5).clip(-REACH, REACH), atol=0.02)


def test_thick_slices_are_told_along_the_axis_they_are_turned_to(tmp_path):
    ramp = np.broadcast_to(40 * np.arange(12, dtype=np.float32) - 100, (40, 40, 12))
    thick = Volume(np.ascontiguousarray(ramp), np.diag([1.0, 1.0, 4.0, 1.0]))
    made = prepare(tmp_path, "ramp", lambda: (thick, thick.with_array(np.ones_like(thick.array))), Preprocessing(), 9.0)
    batch = draw([made], 32, 24, seed=0, step=0)
    assert batch.acquisition.shape == (24, 4)
    seen = set()
    for field, acquisition in zip(batch.image[:, 0], batch.acquisition, strict=True):
        if np.ptp(field) == 0:  # all of it was background that is now and then cut off
            continue
        steps = [abs(np.diff(field, axis=axis).mean()) for axis in range(3)]
        assert acquisition.tolist() == [*(2.0 * (axis == np.argmax(steps)) for axis in range(3)), 1.0]
        seen.add(int(np.argmax(steps)))
    assert seen == {0, 1, 2}


def test_hard_places_are_thin_branches_forks_and_near_misses(tmp_path):
    """Two parallel tubes 2.5 voxels apart, one thin, and a fork on the thick one."""
    x, y, z = np.meshgrid(*[np.arange(48)] * 3, indexing="ij")
    thick = np.hypot(x - 20, y - 20) - 4.0
    thin_one = np.hypot(x - 20, y - 28) - 1.2  # walls 2.8 voxels apart
    side = np.maximum(np.hypot(y - 20, z - 24) - 2.2, 20 - x)
    field = np.minimum(np.minimum(thick, thin_one), side).astype(np.float32)
    skeleton = np.argwhere(thin(field <= 0, field)).astype(np.int32)
    places = hard_places(field, skeleton)
    assert abs(places["thin"][:, 1] - 28).max() <= 1
    assert len(places["thin"]) > 40
    assert len(places["forks"])
    assert np.linalg.norm(places["forks"] - [20, 20, 24], axis=1).min() < 3
    between = places["gaps"]
    midway = (abs(between[:, 0] - 20) <= 2) & (between[:, 1] >= 24) & (between[:, 1] <= 27)
    assert midway.sum() > 40
    assert (field[tuple(between.T)] > 0).all()


def test_patches_come_to_hard_places_more_often():
    line = np.stack([np.full(200, 100), np.full(200, 100), np.arange(200)], 1).astype(np.int32)
    image = np.zeros((200, 200, 200), np.float16)
    fork = np.array([[100, 100, 190]], np.int32)
    cases = [PreparedCase("a", image, image, line, np.zeros(4, np.float32), hard) for hard in ((), (fork, fork[:0]))]
    generator = np.random.default_rng(0)
    seen = [sum(_window(case, 24, generator)[1][2] > 150 for _ in range(400)) for case in cases]
    assert seen[1] > 1.4 * seen[0]


PREPARING = """
import os, sys, time
from pathlib import Path
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import prepare_all

def load(name):
    (Path(sys.argv[1]) / f"{os.getpid()}.pid").touch()
    time.sleep(300)

if __name__ == "__main__":
    prepare_all(Path(sys.argv[1]), ["one", "two", "three"], load, Preprocessing(), 8.0)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux which processes run")
def test_workers_end_when_the_run_that_started_them_is_killed(tmp_path):
    script = tmp_path / "preparing.py"
    script.write_text(PREPARING)
    run = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("*.pid")))
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert run.pid not in workers
    run.send_signal(signal.SIGKILL)
    run.wait()
    until(lambda: not any(runs(worker) for worker in workers))


def until(holds):
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.1)


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
