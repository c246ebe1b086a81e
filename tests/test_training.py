"""Training: it learns, it can be killed, it says what went wrong."""

import json
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vesselsdf.api import train
from vesselsdf.checkpoint import load_model
from vesselsdf.config import parse_config
from vesselsdf.errors import InputError, RunError
from vesselsdf.training import learning_rate

TINY = {
    "network": {"levels": 3, "width": 4},
    "loss": {"topology": 20.0},
    "data": {"synthetic_cases": 3, "synthetic_size": 48, "modality": "ct"},
    "training": {"steps": 24, "batch": 1, "patch": 32, "checkpoint_every": 4, "validate_every": 16},
}


def tensors(path):
    with safe_open(path, framework="np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def flags():
    return [f"--{group}.{key.replace('_', '-')}={value}" for group, kept in TINY.items() for key, value in kept.items()]


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vesselsdf.cli", "train", "--output", str(folder), *flags()]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[1])


def steps_done(folder: Path) -> int:
    journal = folder / "metrics.jsonl"
    return journal.read_text().count("loss/total") if journal.is_file() else 0


def test_killed_three_times_and_resumed_the_weights_are_bitwise_those_of_the_undisturbed_run(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(undisturbed).wait() == 0
    pick = random.Random(0)
    for stop in sorted(pick.sample(range(2, 23), 3)):
        process = start(disturbed)
        while process.poll() is None and steps_done(disturbed) < stop:
            time.sleep(0.02)
        time.sleep(pick.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(disturbed).wait() == 0
    for name in ("state.safetensors", "model.safetensors"):
        expected, found = tensors(undisturbed / name), tensors(disturbed / name)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[key], found[key]) for key in expected)
    lines = [json.loads(line) for line in (disturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == list(range(1, 25))
    events = EventAccumulator(str(disturbed / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(1, 25))
    assert sorted({event.step for event in events.Images("validation/tree_0002")}) == [16, 24]
    assert not list(disturbed.rglob(".partial-*")), "what a kill left half-written is removed by the next start"


def test_another_configuration_does_not_go_on_in_the_same_folder(tmp_path):
    config = parse_config(TINY | {"training": TINY["training"] | {"steps": 2}}, "here")
    train(config, tmp_path)
    other = parse_config(TINY | {"training": TINY["training"] | {"steps": 2, "learning_rate": 0.1}}, "here")
    with pytest.raises(InputError, match=r"learning_rate was 0\.003, now 0\.1"):
        train(other, tmp_path)
    model = load_model(tmp_path / "model.safetensors")
    assert model.config == config
    (tmp_path / "state.safetensors").write_bytes(b"cut short")
    with pytest.raises(RunError, match="damaged"):
        train(config, tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="No checkpoint"):
        load_model(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_model(path)


def test_the_learning_rate_warms_up_and_comes_down():
    rates = [learning_rate(step, 200, 1e-3) for step in range(200)]
    assert rates[0] < rates[9] == pytest.approx(1e-3)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert 0 < rates[-1] < 2e-5


@pytest.mark.parametrize("checkpoint_every", [1, 24])
def test_a_run_that_diverges_ends_with_a_sentence_and_never_a_bad_checkpoint(tmp_path, checkpoint_every):
    wild = TINY["training"] | {"learning_rate": 1e25, "checkpoint_every": checkpoint_every}
    with pytest.raises(RunError, match=r"The (loss|weight .*) became .* at step \d+; the last good checkpoint"):
        train(parse_config(TINY | {"training": wild}, "here"), tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        assert all(np.isfinite(value).all() for value in tensors(file).values())


def test_training_can_start_from_other_weights_of_the_same_shape(tmp_path):
    short = TINY | {"training": TINY["training"] | {"steps": 2}}
    first = train(parse_config(short, "here"), tmp_path / "first") / "model.safetensors"
    still = short["training"] | {"start": str(first), "learning_rate": 1e-12}
    averaging = TINY["network"] | {"operator": "mean", "kappa": 0.9}
    changed = short | {"network": averaging, "training": still}
    second = train(parse_config(changed, "here"), tmp_path / "second") / "model.safetensors"
    before, after = tensors(first), tensors(second)
    moved = [key for key in before if not np.allclose(before[key], after[key], atol=1e-5)]
    assert all("running" in key or "tracked" in key for key in moved)
    wide = short | {"network": {"levels": 3, "width": 6}, "training": short["training"] | {"start": str(first)}}
    with pytest.raises(InputError, match="width is 4 there, 6 here"):
        train(parse_config(wide, "here"), tmp_path / "third")
