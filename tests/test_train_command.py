"""`vesselsdf train` says what it understood, how fast it goes, what came out and what to do next."""

import math
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.runs import held_out_figures
from vesselsdf.train_command import DESCRIPTION, end_text, facts_text, pace_line
from vesselsdf.training_facts import Pace, TrainingFacts

FACTS = TrainingFacts(
    training=11, held_out=2, edges=(0.4, 2.0), working=(0.4, 0.8), thinnest=1.34, vessel_share=0.0231,
    smallest=(96, 96, 40), patch=64, batch=2, steps=2000, done=0, levels=4, parameters=713532, start=None,
    device="CPU, 2 threads", processes=1,
)  # fmt: skip


def changed(**values):
    return TrainingFacts(**{**FACTS.__dict__, **values})


def test_what_a_run_understood_stands_in_aligned_lines():
    assert facts_text(FACTS).splitlines() == [
        "cases    11 to train on, 2 held out",
        "voxels   0.4 to 2 mm, on a working grid of 0.4 to 0.8 mm",
        "vessels  2.3% of the voxels; the thinnest 5% of the centreline have a radius up to 1.3 voxels",
        "patches  2 of 64^3 voxels (25.6 to 51.2 mm) a step, 2000 steps",
        "network  4 levels, 0.71 million parameters, from scratch",
        "device   CPU, 2 threads",
    ]
    more = facts_text(
        changed(working=(0.5, 0.5), start="general", done=300, processes=4, remarks=("Odd.",))
    ).splitlines()
    assert more[2].endswith("up to 1.3 voxels = 0.67 mm")
    assert more[4].endswith("from the package's general weights")
    assert more[5:] == ["device   CPU, 2 threads, 4 processes", "resumed  300 steps are done, 1700 are left", "! Odd."]


def test_what_is_not_known_is_left_out():
    nowhere = (math.nan, math.nan)
    text = facts_text(changed(edges=nowhere, working=nowhere, thinnest=math.nan, start="a.safetensors"))
    assert "nan" not in text
    assert "voxels   not known" in text
    assert "from a.safetensors" in text


def test_the_pace_names_the_steps_that_it_was_measured_on():
    pace = Pace(3, 12, 0.312, 620.0, 0.94)
    assert pace_line(pace, fresh=False) == "time     0.31 s a step (steps 3 to 12), 10 min to go; 0.9 GB taken so far"
    assert "rather more as vessels are found" in pace_line(pace, fresh=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the command said of a run from the package's weights, and of the same once it had ended; its folder."""
    folder = tmp_path_factory.mktemp("runs") / "my run"
    small = ["--data.synthetic-cases=2", "--data.synthetic-size=48", "--data.modality=ct", "--training.patch=32"]
    made = []
    for _ in range(2):
        with redirect_stdout(StringIO()) as said:
            assert main(["train", "--training.start=general", "--training.steps=26", *small, "-o", str(folder)]) == 0
        made.append(said.getvalue().splitlines())
    return made, folder


@pytest.mark.slow
def test_a_run_from_the_packages_weights_is_told_from_start_to_end(told):
    (lines, again), folder = told
    assert lines[1:3] == ["cases    1 to train on, 1 held out", "voxels   0.5 mm, on a working grid of 0.5 mm"]
    assert "from the package's general weights" in lines[5]
    assert any(line.startswith("! There are only 2 cases") for line in lines)
    (pace,) = [line for line in lines if line.startswith("time ")]
    assert "(steps 3 to " in pace
    assert "to go;" in pace
    assert "resumed  26 steps are done, 0 are left" in again
    assert lines[-10:] == again[-10:], "the end is told again"
    figures = held_out_figures(folder)
    assert f"1 held-out case: Dice {figures['dice']:.3f}, clDice {figures['cldice']:.3f}" in "\n".join(lines)
    assert figures["dice"] > 0.4, "26 steps do not spoil the weights of the package"


@pytest.mark.slow
def test_the_commands_that_are_shown_can_be_given(told):
    (lines, _), folder = told
    shown = [shlex.split(line) for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert [words[:2] for words in shown] == [
        ["vesselsdf", "evaluate"], ["vesselsdf", "reconstruct"], ["tensorboard", "--logdir"], ["vesselsdf", "train"],
    ]  # fmt: skip
    for words in shown:
        for path in words[2:]:
            assert not path.startswith(str(folder)) or Path(path).exists() or path == f"{folder}-longer"
    assert any(Path(shown[2][2]).glob("events*"))
    assert main(shown[0][1:]) == 0
    assert main([*shown[3][1:], "--training.steps", "2"]) == 0


def test_a_run_that_has_not_ended_has_no_figures(tmp_path):
    with pytest.raises(InputError, match="no run that has ended"):
        held_out_figures(tmp_path)
    figures = {"cases": 1, "threshold_voxels": 0.2, "dice": 0.5, "cldice": 0.6, "beta0_error": 2.0, "beta1_error": 0.5}
    assert "beta0 error 2, beta1 error 0.5 (wall at +0.2 voxels" in end_text(tmp_path, figures)


def test_the_help_shows_how_to_fine_tune_and_to_choose_ids():
    assert "--training.start general" in DESCRIPTION
    assert "--data.vessel-ids 2" in DESCRIPTION
