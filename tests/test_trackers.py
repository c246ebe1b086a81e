"""Trackers: they hear every step once and in order, whatever they are, and TensorBoard keeps no step twice."""

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vesselsdf.api import train
from vesselsdf.config import parse_config
from vesselsdf.trackers import Journal, TensorBoard

TINY = {
    "network": {"levels": 3, "width": 4},
    "data": {"synthetic_cases": 2, "synthetic_size": 48, "modality": "ct"},
    "training": {"steps": 8, "batch": 1, "patch": 32, "checkpoint_every": 4, "validate_every": 4},
}


class Notebook:
    """All that it is told, in order."""

    def __init__(self, fails_at=None):
        self.heard, self.pictures, self.closed, self.fails_at = [], [], 0, fails_at

    def figures(self, step, values):
        if step == self.fails_at:
            raise OSError("the notebook is full")
        self.heard.append((step, dict(values)))

    def picture(self, step, name, image):
        self.pictures.append((step, name, image))

    def close(self):
        self.closed += 1


def steps(notebook):
    return [step for step, values in notebook.heard if "loss/total" in values]


def test_a_tracker_hears_each_step_the_validation_and_the_end_and_goes_on_after_a_failure(tmp_path):
    config = parse_config(TINY, "here")
    whole, cut, rest, late = Notebook(), Notebook(fails_at=7), Notebook(), Notebook()
    train(config, tmp_path / "whole", trackers=[whole])
    assert steps(whole) == list(range(1, 9))
    assert not (tmp_path / "whole" / "tensorboard").exists(), "trackers that are given take TensorBoard's place"
    kinds = [next(iter(values)).split("/")[0] for _, values in whole.heard]
    assert kinds == ["loss"] * 4 + ["validation"] + ["loss"] * 4 + ["held_out"]
    assert [(step, name) for step, name, _ in whole.pictures] == [(at, "validation/tree_0001") for at in (4, 8)]
    for _, _, image in whole.pictures:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3

    with pytest.raises(OSError, match="notebook is full"):
        train(config, tmp_path / "cut", trackers=[cut])
    assert cut.closed == 1
    train(config, tmp_path / "cut", trackers=[rest])
    assert steps(rest) == [5, 6, 7, 8], "it goes on from the checkpoint at step 4"
    assert (cut.heard[:5] + rest.heard) == whole.heard, "and tells the same figures"
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss/total" in line] == list(range(1, 9))
    assert not any("held_out/dice" in line for line in lines), "metrics.jsonl is what it was"

    train(config, tmp_path / "cut", trackers=[late])
    assert (late.heard, late.closed) == ([], 1), "of a run that has ended nothing is told twice"


def test_tensorboard_keeps_what_was_told_last_of_each_step(tmp_path):
    for told in (range(1, 8), range(5, 11)):
        board = TensorBoard(tmp_path)
        for step in told:
            board.figures(step, {"loss/total": float(step), "loss/odd": float("nan")})
        board.picture(told[-1], "validation/a case", np.full((20, 30, 3), 200, np.uint8))
        board.close()
    seen = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in seen.Scalars("loss/total")] == list(range(1, 11))
    assert seen.Tags()["scalars"] == ["loss/total"], "what is not finite is left out"
    (picture,) = seen.Images("validation/a case")
    assert (picture.step, picture.height, picture.width) == (10, 20, 30)


def test_a_tensorboard_that_hears_nothing_writes_nothing(tmp_path):
    TensorBoard(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


def test_lines_cut_short_or_beyond_the_checkpoint_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    with Journal(tmp_path, 2) as journal:
        journal.write(3, {"loss/total": 1.5})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss/total"] == 1.5
