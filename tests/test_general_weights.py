"""The weights that come with the package: small, documented, used by default, and good for scans they have not seen."""

import json
from pathlib import Path

import numpy as np
import pytest

import vesselsdf
from vesselsdf.api import inspect
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.config import load_config
from vesselsdf.evaluation import AS_GOOD, choose_threshold
from vesselsdf.familiarity import MEANING
from vesselsdf.report.text import inspection
from vesselsdf.sources import open_source
from vesselsdf.synthesis.cases import close_up, synthetic_case
from vesselsdf.volume import Volume

ROOT = Path(__file__).parents[1]


def test_they_are_small_and_come_with_card_configuration_and_log():
    assert GENERAL.stat().st_size <= 16e6
    assert "not a medical device" in (GENERAL.parent / "README.md").read_text().lower()
    model = load_model(GENERAL)
    assert model.config == load_config(ROOT / "configs/general.yaml")
    assert set(model.seen) == set(MEANING)
    lines = [json.loads(line) for line in (ROOT / "configs/general.log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == model.config.training.steps
    assert any("validation/dice" in line for line in lines)


@pytest.mark.parametrize("modality", ["ct", "mr", "microscopy", "in_vivo"])
def test_they_are_the_default_and_find_held_out_trees(modality):
    scores = []
    for seed in range(3):
        case = synthetic_case(990_000 + seed, (64, 64, 64), (0.5, 0.5, 0.5), modality)
        made = vesselsdf.reconstruct(case.image)
        assert made.provenance["checkpoint"] == str(GENERAL)
        scores.append(vesselsdf.evaluate(Volume(made.mask.array, case.label.affine), case.label)["cldice"])
    assert np.mean(scores) > 0.75, scores


def test_they_find_wide_vessels_that_fill_much_of_the_scan():
    scores = []
    for seed, modality in enumerate(("ct", "mr", "in_vivo")):
        image, field = close_up(990_100 + seed, (64, 64, 64), (0.5, 0.5, 0.5), modality, magnification=4.0)
        truth = Volume((field.array <= 0).astype(np.uint8), field.affine)
        made = vesselsdf.reconstruct(image)
        scores.append(vesselsdf.evaluate(Volume(made.mask.array, truth.affine), truth)["dice"])
    assert np.mean(scores) > 0.8, scores


def test_a_scan_unlike_the_training_images_is_reported(caplog):
    noise = np.random.default_rng(0).normal(size=(48, 48, 48)).astype(np.float32)
    noise = noise[:, :, ::12].repeat(12, axis=2)
    made = vesselsdf.reconstruct(Volume(noise, np.eye(4)))
    assert any("slice thickness" in one for one in made.provenance["unfamiliar"])
    assert "unlike the scans that the network was trained on" in caplog.text


def test_of_thresholds_as_good_as_each_other_the_nearest_to_zero_is_taken():
    model = load_model(GENERAL)
    source = open_source(model.config.data, model.config.training.seed)
    threshold, curve = choose_threshold(model, [source.load(source.validation[0])])
    scores = {row["threshold_voxels"]: row["dice"] + row["cldice"] for row in curve}
    assert scores[threshold] >= max(scores.values()) - AS_GOOD
    assert all(score < max(scores.values()) - AS_GOOD for t, score in scores.items() if abs(t) < abs(threshold))


@pytest.mark.parametrize(("modality", "words"), [("ct", "CT in Hounsfield units"), ("mr", "relative to the tissue")])
def test_how_a_scan_is_seen_is_said(tmp_path, modality, words):
    image = synthetic_case(5, (32, 32, 32), (0.5, 0.5, 0.5), modality).image
    vesselsdf.write_volume(image, tmp_path / "scan.nii.gz")
    assert words in inspection(inspect(tmp_path / "scan.nii.gz"))


def test_the_aorta_is_found_by_weights_that_never_saw_a_scan(shared_data):
    """VMTK's centreline lies inside or within 2 mm of what was found."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    made = vesselsdf.reconstruct(shared_data / "aorta/aorta.mha")
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(shared_data / "aorta/aorta-centerline.vtp"))
    reader.Update()
    points = vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).astype(float)
    index = np.rint(made.sdf.to_index(points)).astype(int)
    inside = ((index >= 0) & (index < made.sdf.shape)).all(axis=1)
    assert (made.sdf.array[tuple(index[inside].T)] <= 2.0).mean() > 0.98
    assert made.provenance["window"] is None, "an MR angiogram is not CT"
