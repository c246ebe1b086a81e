"""Labelled cases: synthetic or from folders, and what their labels say of distances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesselsdf import sources
from vesselsdf.config import DataSettings
from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import draw, prepare
from vesselsdf.sources import LabelledCase, known_distance, open_source
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.synthesis.scanner import smooth_field
from vesselsdf.volume import Volume, write_volume

SPACING = (0.5, 0.5, 1.0)


def test_synthetic_sources_have_slices_as_thick_as_asked():
    source = open_source(DataSettings(synthetic_cases=4, synthetic_size=48, modality="mr", slices=(3,)), seed=0)
    case = source.load(source.training[0])
    assert case.image.spacing == pytest.approx((0.5, 0.5, 1.5))
    assert case.vessel.spacing == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        ("mixed", ["ct", "mr", "microscopy", "ct"]),
        ("mr", ["mr"] * 4),
        (("in_vivo", "ct"), ["in_vivo", "ct", "in_vivo", "ct"]),
    ],
)
def test_modalities_come_in_turns(asked, seen, monkeypatch):
    drawn = []

    def spy(number, shape, spacing, modality, **settings):
        drawn.append(modality)
        return synthetic_case(number, shape, spacing, modality, **settings)

    monkeypatch.setattr(sources, "synthetic_case", spy)
    data = DataSettings(synthetic_cases=5, synthetic_size=32, modality=asked, validation=0.2)
    source = open_source(data, seed=0)
    for name in source.training:
        source.load(name)
    assert drawn == seen


def test_some_synthetic_training_cases_have_no_vessel_and_some_two_trees(tmp_path):
    import networkx as nx

    data = DataSettings(synthetic_cases=30, synthetic_size=48, slices=(1, 3))
    source = open_source(data, seed=0)
    empty = [name for name in source.training if name.startswith("none")]
    assert len(empty) == 1
    assert not [name for name in source.validation if name.startswith("none")]
    case = source.load(empty[0])
    assert case.distance().array.min() > 10
    made = prepare(tmp_path, empty[0], lambda: (case.image, case.distance()), Preprocessing(), 24.0)
    batch = draw([made], 32, 2, seed=0, step=0)
    assert not batch.skeleton.any()
    assert (batch.sdf > 0).all()
    trees = {nx.number_connected_components(source.load(name).graph) for name in source.training[:8]}
    assert trees == {1, 2}


def test_close_ups_show_wide_vessels_and_leave_the_other_cases_as_they_are():
    data = DataSettings(synthetic_cases=40, synthetic_size=48)
    usual, near = (open_source(data.model_copy(update={"close_ups": share}), seed=2) for share in (0.0, 0.3))
    close = [name for name in near.training if name.startswith("near")]
    assert 6 <= len(close) <= 18
    assert usual.validation == near.validation
    assert [name for name in near.training if not name.startswith("near")] == [
        name for name in usual.training if name.replace("tree", "near") not in close
    ]
    deepest = [-near.load(name).vessel.array.min() / 0.5 for name in close[:6]]
    # An eleventh of the box in radius is the most that a usual tree has.
    assert max(deepest) > 2 * 48 / 11
    assert min(deepest) > 2
    other = next(name for name in near.training if name.startswith("tree"))
    assert np.array_equal(usual.load(other).image.array, near.load(other).image.array)


def test_labels_without_a_vessel_are_refused():
    volume = Volume(np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4))
    for vessel, words in (
        (np.zeros(volume.shape, bool), "no vessel voxel"),
        (np.ones(volume.shape, bool), "everywhere"),
    ):
        with pytest.raises(InputError, match=f"label of bad .*{words}"):
            LabelledCase("bad", volume, vessel).distance()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_a_known_distance_does_not_hang_on_what_is_not_labelled(seed):
    generator = np.random.default_rng(seed)
    vessel = smooth_field((24, 20, 18), 4.0, generator) > 1.2
    unlabelled = smooth_field((24, 20, 18), 8.0, generator) > 0.8
    seen = vessel & ~unlabelled
    if not seen.any() or (seen | unlabelled).all():
        return
    known = known_distance(seen, unlabelled, SPACING)
    whole = signed_distance(vessel, SPACING)
    there = ~np.isnan(known)
    assert not there[unlabelled].any()
    # Walls from masks are sub-voxel estimates that look at the neighbours, so half an edge is what they leave open.
    assert np.abs(known - whole)[there].max(initial=0) <= 0.5
    assert (np.sign(known) == np.sign(whole))[there].all()


@pytest.fixture
def half_labelled(tmp_path):
    """Three cases of a tube along z; everything beyond x = 20 has the id 9 for "not labelled"."""
    for number in range(3):
        x, y, _ = np.meshgrid(np.arange(40), np.arange(32), np.arange(32), indexing="ij")
        label = (np.hypot(x - 10, y - 14 - number) < 3).astype(np.uint8)
        label[20:] = 9
        image = np.random.default_rng(number).normal(0, 0.2, label.shape) + (label == 1)
        for kind, array in (("images", image.astype(np.float32)), ("labels", label)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write_volume(Volume(array, np.diag([0.5, 0.5, 0.5, 1.0])), tmp_path / kind / f"case{number}.nii.gz")
    return tmp_path


def test_ignored_ids_are_neither_vessel_nor_background(half_labelled):
    data = DataSettings(root=str(half_labelled), ignore_ids=(9,))
    source = open_source(data, 0)
    field = source.load(source.training[0]).distance().array
    assert np.isnan(field[20:]).all()
    assert not np.isnan(field[6:15, 11:18]).any()
    assert (field[:20] <= 0).any()
    with pytest.raises(InputError, match=r"\[1\] are both vessel and to be ignored"):
        open_source(data.model_copy(update={"vessel_ids": (1,), "ignore_ids": (1, 9)}), 0)


def test_a_run_on_half_labelled_cases_learns_from_the_labelled_half(half_labelled, tmp_path):
    import json

    from vesselsdf.api import evaluate_run, train
    from vesselsdf.config import parse_config

    config = parse_config(
        {
            "network": {"levels": 3, "width": 4},
            "data": {"root": str(half_labelled), "ignore_ids": [9]},
            "training": {"steps": 3, "batch": 2, "patch": 32, "validate_every": 2},
        },
        "here",
    )
    folder = train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(value) for line in lines for value in line.values())
    assert len(evaluate_run(folder)["cases"]) == 1


def test_a_label_with_several_ids_is_named_unless_the_ids_are_chosen(half_labelled, caplog):
    open_source(DataSettings(root=str(half_labelled)), 0)
    assert "has the ids 1, 9, and all count as vessel" in caplog.text
    caplog.clear()
    open_source(DataSettings(root=str(half_labelled), vessel_ids=(1,)), 0)
    open_source(DataSettings(root=str(half_labelled), ignore_ids=(9,)), 0)
    assert not caplog.text
