"""Two processes train as one with the same batch.

The learning rate is small here, because training in float32 is chaotic: at the usual rate, the order in which one
process sums the four patches of a batch changes the loss by a hundredth after 20 steps.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
FLAGS = [
    *("--network.levels=3", "--network.width=4"),
    *("--data.synthetic-cases=3", "--data.synthetic-size=48", "--data.modality=mr"),
    *("--training.batch=4", "--training.patch=32", "--training.checkpoint-every=10", "--training.validate-every=1000"),
    "--training.learning-rate=3e-5",
]


def run(folder: Path, processes: int, steps: int = 50, batch: int | None = None) -> subprocess.CompletedProcess:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(ROOT / "train.py"), f"--output={folder}", *FLAGS]
    command += [f"--training.steps={steps}"] + ([f"--training.batch={batch}"] if batch else [])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


def curve(folder: Path) -> np.ndarray:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return np.array([line["loss/total"] for line in lines])


def test_two_processes_have_the_losses_of_one_and_go_on_where_they_were_stopped(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder, processes in ((alone, 1), (together, 2)):
        done = run(folder, processes)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("Trained model") == 1, "the first process speaks for all"
    one, two = curve(alone), curve(together)
    assert len(one) == len(two) == 50
    np.testing.assert_allclose(two, one, rtol=1e-5)
    # As if killed between two checkpoints: what was written after the last one is dropped and computed again.
    model = load_file(together / "model.safetensors")
    done = run(together, 2)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_array_equal(curve(together), two)
    assert all(np.array_equal(value, model[key]) for key, value in load_file(together / "model.safetensors").items())


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    done = run(tmp_path, 2, batch=3)
    assert done.returncode != 0
    assert "cannot be shared by 2 processes" in done.stderr


@pytest.mark.parametrize("name", ["total", "mean"])
def test_alone_sums_and_means_are_the_values_themselves(name):
    import torch

    from vesselsdf import processes

    value = torch.tensor([1.0, 2.0])
    found = processes.total(value) if name == "total" else processes.mean({"a": value})["a"]
    assert found is value
    assert (processes.rank(), processes.size()) == (0, 1)
