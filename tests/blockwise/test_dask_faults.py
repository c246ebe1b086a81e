"""A Dask cluster that loses a worker or its scheduler in the middle of a run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed")

from vesselsdf.blockwise.run import make_plan, reconstruct_in_blocks
from vesselsdf.field_store import FieldStore
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.zarr_volume import write_volume

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.zarr"
    write_volume(synthetic_case(12, (96, 80, 72), (0.5,) * 3, "mr", oblique=False).image, path)
    return path


@pytest.fixture(scope="module")
def undisturbed(scan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    reconstruct_in_blocks(make_plan(scan, block=40), folder)
    return results(folder)


@pytest.fixture
def cluster(tmp_path):
    """Scheduler, two workers, and the scheduler's address."""
    file, started = tmp_path / "scheduler.json", []

    def start(command, *options):
        line = [sys.executable, "-m", "dask", command, "--scheduler-file", str(file), *options]
        started.append(subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    start("scheduler", "--port", "0", "--no-dashboard")
    waiting_for(file.exists)
    for _ in range(2):
        start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
    yield started, json.loads(file.read_text())["address"]
    for process in started:
        process.kill()
        process.wait()


def waiting_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def results(folder):
    store = FieldStore.open(folder / "sdf.zarr")
    return store.read(), *((folder / name).read_bytes() for name in ("mesh.ply", "centreline.json", "topology.json"))


def begun(scan, folder, address):
    """The command, when it has done a few blocks."""
    command = [sys.executable, "-m", "vesselsdf.cli", "blocks", str(scan), "-o", str(folder), "--block", "40"]
    running = subprocess.Popen([*command, "--dask", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting_for(lambda: len(list((Path(folder) / "work/field").glob("[0-9]*.npz"))) >= 3 or running.poll() is not None)
    return running


def same(one, other):
    return np.array_equal(one[0], other[0]) and one[1:] == other[1:]


def test_a_worker_that_is_killed_is_done_without(scan, undisturbed, cluster, tmp_path):
    (_, worker, _), address = cluster
    running = begun(scan, tmp_path / "result", address)
    worker.send_signal(signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert same(results(tmp_path / "result"), undisturbed)


def test_a_scheduler_that_is_lost_ends_the_run_with_a_sentence_and_it_goes_on_elsewhere(
    scan, undisturbed, cluster, tmp_path
):
    (scheduler, *_), address = cluster
    running = begun(scan, tmp_path / "result", address)
    scheduler.send_signal(signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 3, said
    assert said.count("\n") == 1, said
    assert "cluster was lost" in said
    assert "same command again" in said
    done = sorted((tmp_path / "result/work").rglob("[0-9]*.npz"))
    times = [path.stat().st_mtime_ns for path in done]
    reconstruct_in_blocks(make_plan(scan, block=40), tmp_path / "result")
    assert [path.stat().st_mtime_ns for path in done] == times, "something was done twice"
    assert same(results(tmp_path / "result"), undisturbed)
