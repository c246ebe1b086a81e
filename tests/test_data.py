"""Folders of other people's data are recognised, and what is incomplete in them is named."""

import json

import numpy as np
import pytest

from vesselsdf.data import Case, cards_folder, find_cases, load_card, vessel_mask
from vesselsdf.errors import InputError
from vesselsdf.volume import Volume


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


# --- cards -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(cards_folder().glob("*.toml")), ids=lambda path: path.stem)
def test_every_card_is_valid_and_bears_its_file_name(path):
    card = load_card(path)
    assert card.name == path.stem
    assert card == load_card(path.stem)
    assert card.window is None or card.window[0] < card.window[1]
    assert set(card.vessel_ids or ()) <= set(card.label_ids.values())
    assert len(set(card.label_ids.values())) == len(card.label_ids)


def test_the_promised_cards_exist():
    names = {path.stem for path in cards_folder().glob("*.toml")}
    assert names >= {"nnunet", "msd", "plain", "msd_task08", "topcow", "imagecas", "synthetic"}


def test_cards_say_what_is_known():
    assert (load_card("msd_task08").cases, load_card("msd_task08").vessel_ids) == (303, (1,))
    assert len(load_card("topcow").label_ids) == 13
    assert load_card("imagecas").cases == 1000


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('name = "a"\ntitle = "A"\nlayout = "plain"\ncolour = 3', "wrong field colour"),
        ('name = "a"\ntitle = "A"\nlayout = "bids"', "wrong field layout"),
        ('name = "a"\nlayout = "plain"', "wrong field title"),
        ("name = ", "not valid TOML"),
    ],
)
def test_wrong_cards_are_refused(tmp_path, content, part):
    (tmp_path / "card.toml").write_text(content)
    with pytest.raises(InputError, match=part):
        load_card(tmp_path / "card.toml")


def test_unknown_cards_are_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InputError, match=r"imagecas, .*msd, msd_task08"):
        load_card("msd_task09")
    with pytest.raises(InputError, match="cannot be read"):
        load_card(tmp_path / "none.toml")


def test_cards_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        load_card("plain").cases = 3


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_plain(tmp_path):
    touch(tmp_path, "images/b.nii.gz", "images/a.mha", "images/._a.mha", "images/readme.txt", "images/c/1.dcm")
    assert find_cases(tmp_path) == [
        Case("a", tmp_path / "images/a.mha", None),
        Case("b", tmp_path / "images/b.nii.gz", None),
        Case("c", tmp_path / "images/c", None),
    ]
    touch(tmp_path, "labels/b.nrrd", "labels/a.nii.gz", "labels/c.nii.gz")
    assert [case.label.name for case in find_cases(tmp_path) if case.label] == ["a.nii.gz", "b.nrrd", "c.nii.gz"]
    assert find_cases(tmp_path) == find_cases(tmp_path, load_card("plain"))


def test_nnunet(tmp_path, caplog):
    touch(tmp_path, "imagesTr/x_1_0000.nii.gz", "imagesTr/y_0000.nii.gz", "imagesTr/y_0001.nii.gz")
    touch(tmp_path, "labelsTr/x_1.nii.gz", "labelsTr/y.nii.gz", "imagesTr/y_0000.json", "labelsTr/z.mha")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}))
    cases = find_cases(tmp_path)
    assert cases[0] == Case("x_1", tmp_path / "imagesTr/x_1_0000.nii.gz", tmp_path / "labelsTr/x_1.nii.gz")
    assert [case.name for case in cases] == ["x_1", "y"]
    assert "only channel 0000" in caplog.text


def test_topcow_keeps_its_labels_elsewhere(tmp_path, caplog):
    touch(tmp_path, "imagesTr/topcow_ct_001_0000.nii.gz", "cow_seg_labelsTr/topcow_ct_001.nii.gz")
    (case,) = find_cases(tmp_path, load_card("topcow"))
    assert case.label == tmp_path / "cow_seg_labelsTr/topcow_ct_001.nii.gz"
    assert "expects 250" in caplog.text


def test_msd(tmp_path):
    touch(tmp_path, "imagesTr/hepaticvessel_001.nii.gz", "labelsTr/hepaticvessel_001.nii.gz")
    touch(tmp_path, "imagesTr/hepaticvessel_004_0000.nii.gz", "labelsTr/hepaticvessel_004.nii.gz")
    entries = [
        {"image": f"./imagesTr/hepaticvessel_{n}.nii.gz", "label": f"./labelsTr/hepaticvessel_{n}.nii.gz"}
        for n in ("001", "004")
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "labels": {"1": "Vessel"}}))
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["hepaticvessel_001", "hepaticvessel_004"]
    assert cases[1].image.name == "hepaticvessel_004_0000.nii.gz"
    assert all(case.label and case.label.is_file() for case in cases)


def test_imagecas(tmp_path):
    touch(tmp_path, "1-200/1.img.nii.gz", "1-200/1.label.nii.gz", "201-400/201.img.nii.gz", "201-400/201.label.nii.gz")
    cases = find_cases(tmp_path, load_card("imagecas"))
    assert cases[0] == Case("1", tmp_path / "1-200/1.img.nii.gz", tmp_path / "1-200/1.label.nii.gz")
    assert [case.name for case in cases] == ["1", "201"]
    touch(tmp_path, "201-400/1.img.nii.gz", "201-400/1.label.nii.gz")
    with pytest.raises(InputError, match="same name"):
        find_cases(tmp_path, load_card("imagecas"))
    touch(tmp_path, "1-200/2.img.nii.gz")
    with pytest.raises(InputError, match=r"add .*2\.label\.nii\.gz"):
        find_cases(tmp_path, load_card("imagecas"))


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["scan.nii.gz"], "no known layout"),
        (["images/notes.txt"], "holds no cases"),
        (["images/a.nii", "images/b.nii", "labels/a.nii"], r"image .*b\.nii has no label"),
        (["images/a.nii", "labels/a.nii", "labels/b.nii"], r"label .*b\.nii has no image"),
        (["images/a.nii", "images/a.mha"], "same stem"),
        (["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"], "channel number"),
        (["imagesTr/a_0000.nii.gz"], "labelsTr does not exist"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/b.nii.gz"], r"a_0000\.nii\.gz has no label"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path, names, part):
    with pytest.raises(InputError, match=part):
        find_cases(touch(tmp_path, *names))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "JSON"),
        ("[]", "not a JSON object"),
        ('{"training": {}}', "no list"),
        ('{"training": [{"image": "a.nii"}]}', "lacks image or label"),
        ('{"training": [{"image": "a.nii", "label": "b.nii"}]}', "does not exist"),
        ('{"training": []}', "holds no cases"),
    ],
)
def test_wrong_dataset_json_is_refused(tmp_path, content, part):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=part):
        find_cases(tmp_path)


def test_a_missing_root_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_cases(tmp_path / "none")


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32])
def test_vessel_ids_choose_voxels(kind):
    label = Volume(np.arange(8).reshape(2, 2, 2).astype(kind), np.eye(4))
    assert np.flatnonzero(vessel_mask(label, None)).tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert np.flatnonzero(vessel_mask(label, (1, 5))).tolist() == [1, 5]
    assert np.flatnonzero(vessel_mask(label, None, (2, 3))).tolist() == [1, 4, 5, 6, 7]
    assert not vessel_mask(label, (9,)).any()
    assert vessel_mask(Volume(np.eye(4, dtype=bool)[:, :, None], np.eye(4)), (1,)).sum() == 4
