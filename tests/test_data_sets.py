"""Every data set card reads small cases in its own layout back; what is missing or odd in a copy is named."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from test_dicom import write_slice

from vesselsdf.cli import main
from vesselsdf.data import cards_folder, find_cases, load_card, text_of
from vesselsdf.data_check import check, prepare
from vesselsdf.errors import InputError
from vesselsdf.volume import Volume, read_volume, write_volume

SHAPE, SPACING = (12, 14, 10), (0.5, 0.5, 1.5)
# Images and labels as each data set has them, and files that must not be taken for cases; a label may be masks by name.
LAYOUTS: dict[str, tuple[dict[str, str | dict[str, str]], list[str]]] = {
    "asoca": (
        {
            "Normal/CTCA/Normal_1.nrrd": "Normal/Annotations/Normal_1.nrrd",
            "Diseased/CTCA/Diseased_2.nrrd": "Diseased/Annotations/Diseased_2.nrrd",
        },
        ["Normal/Testset_Normal/0.nrrd", "Normal/Centerlines/Normal_1.vtp"],
    ),
    "atm22": (
        {
            f"TrainBatch{batch}/imagesTr/ATM_{n}_0000.nii.gz": f"TrainBatch{batch}/labelsTr/ATM_{n}_0000.nii.gz"
            for batch, n in ((1, "001"), (2, "251"))
        },
        [],
    ),
    "avt_sega": (
        {
            "KiTS/K1/K1.nrrd": "KiTS/K1/K1.seg.nrrd",
            "Rider/R6 (AAA)/R6.nrrd": "Rider/R6 (AAA)/R6.seg.nrrd",
            "Dongyang/Dongyang/D1/D1.nrrd": "Dongyang/Dongyang/D1/D1.seg.nrrd",
        },
        [],
    ),
    "deepvesselnet": ({"raw/1.nii.gz": "seg/1.nii.gz", "raw/2.nii.gz": "seg/2.nii.gz"}, []),
    "imagecas": ({f"{folder}.img.nii.gz": f"{folder}.label.nii.gz" for folder in ("1-200/1", "201-400/201")}, []),
    "ircadb": (
        {
            f"3Dircadb1/3Dircadb1.{n}/PATIENT_DICOM": {
                "portalvein": f"3Dircadb1/3Dircadb1.{n}/MASKS_DICOM/portalvein{'1' if n == 10 else ''}",
                "artery": f"3Dircadb1/3Dircadb1.{n}/MASKS_DICOM/artery",
            }
            for n in (1, 10)
        },
        [],
    ),
    "ixi_mra": ({"IXI-MRA/IXI002-Guys-0828-MRA.nii.gz": ""}, []),
    "kipa22": ({"train/image/0.nii.gz": "train/label/0.nii.gz"}, ["test/image/70.nii.gz"]),
    "lausanne_tof": (
        {"sub-000/ses-20110101/anat/sub-000_ses-20110101_angio.nii.gz": ""},
        ["derivatives/manual_masks/sub-000/ses-20110101/anat/sub-000_ses-20110101_desc-brain_mask.nii.gz"],
    ),
    "minivess": ({f"raw/mv{n}.nii.gz": f"seg/mv{n}_y.nii.gz" for n in ("01", "70")}, ["json/mv01.json"]),
    "msd_task08": ({"imagesTr/hepaticvessel_001.nii.gz": "labelsTr/hepaticvessel_001.nii.gz"}, []),
    "parse2022": (
        {f"train/PA{n}/image/PA{n}.nii.gz": f"train/PA{n}/label/PA{n}.nii.gz" for n in ("000005", "000317")},
        ["evaluation/PA000013.nii.gz"],
    ),
    "smile_uhura": (
        {
            "TrainingSet/train/sub004.nii.gz": "TrainingSet/train_label/sub004.nii",
            "ValidationSet/validate/sub007.nii.gz": "ValidationSet/validate_label/sub007.nii",
        },
        ["TrainingSet/train_OMELETTElabel/sub004.nii", "TrainingSet/train/SYNAPSE_METADATA_MANIFEST.tsv"],
    ),
    "topcow": (
        {f"imagesTr/topcow_{n}_0000.nii.gz": f"cow_seg_labelsTr/topcow_{n}.nii.gz" for n in ("ct_001", "mr_001")},
        [],
    ),
    "vessel12": ({"ct_scans/VESSEL12_01.mha": ""}, ["masks/VESSEL12_01.mha"]),
    "vesselnn": (
        {
            f"denoised/{name}_BM4D_denoised.tif": f"labels/{name}_{rest}.tif"
            for name, rest in (
                ("burgess2014_tgMouse", "labels_v1"),
                ("poon2015_BBB_noLeakage", "manualLabel_v2"),
                ("burgess2014_lowerRes_hiSNR", "labels"),
            )
        },
        ["experiments/out/burgess2014_tgMouse_BM4D_denoised.tif"],
    ),
}  # fmt: skip
UNREAD = {"msd", "nnunet", "plain", "synthetic", "vesselexpress"}
"""General layouts (`test_data.py`), and one whose stacks do not say how large their voxels are."""


def case(number, ids=(1,)):
    """An image, HU about, and a label with a bright vessel for each id."""
    generator = np.random.default_rng(number)
    image = generator.normal(40, 5, SHAPE).astype(np.float32).round()
    label = np.zeros(SHAPE, np.uint8)
    for k, name in enumerate(ids):
        label[2:10, 2 + 3 * k : 4 + 3 * k, 3:6] = name
    image[label > 0] += 200
    return image.astype(np.int16), label


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = 5, -3, 2
    if not path.suffix or ("." in path.suffix and path.suffix[1:].isdigit()) or path.name in ("PATIENT_DICOM",):
        path.mkdir()
        for k in range(array.shape[2]):
            place = np.array([-5, 3, 2 + SPACING[2] * k])
            write_slice(
                path / f"image_{k}", np.ascontiguousarray(array[:, :, k].T).astype(np.int16), place, spacing=SPACING[:2]
            )
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array.T)
    elif path.suffix in (".vtp", ".json", ".tsv"):
        path.write_text("{}")
    else:
        write_volume(Volume(array, affine), path)


def laid_out(root, name):
    """Cases in the layout of a card; their images and labels."""
    card = load_card(name)
    layout, others = LAYOUTS[name]
    ids = sorted(card.label_ids.values()) or [1]
    expected = {}
    for number, (image, label) in enumerate(layout.items()):
        chosen = [card.label_ids[key] for key in label] if isinstance(label, dict) else ids[:3]
        values, truth = case(number, chosen)
        write(root / image, values)
        if isinstance(label, dict):
            for key, path in label.items():
                write(root / path, 255 * (truth == card.label_ids[key]))
        elif label:
            write(root / label, truth)
        expected[root / image] = values, truth if label else None
    for path in others:
        write(root / path, case(99)[0])
    if card.layout == "msd":
        entries = [{"image": image, "label": label} for image, label in layout.items()]
        (root / "dataset.json").write_text(json.dumps({"training": entries}))
    return card, expected


def test_every_card_is_read_or_said_not_to_be():
    assert {path.stem for path in cards_folder().glob("*.toml")} == LAYOUTS.keys() | UNREAD


@pytest.mark.parametrize("name", LAYOUTS)
def test_cases_in_the_layout_of_a_card_are_read_back(tmp_path, name):
    card, expected = laid_out(tmp_path, name)
    cases = find_cases(tmp_path, card)
    assert {one.image for one in cases} == set(expected)
    for one in cases:
        image, label = expected[one.image]
        found = one.read_image()
        assert np.array_equal(found.array, image)
        if name == "minivess":  # headers here do name their unit, mm
            assert np.allclose(found.spacing, SPACING)
        assert one.labelled == (label is not None)
        if label is not None:
            assert np.array_equal(one.read_label().array, label)
    assert "no vessel" in text_of(card) or set(card.vessel_ids or card.label_ids.values()) == set(
        card.label_ids.values()
    )


def test_lengths_without_a_unit_are_in_that_of_the_card(tmp_path):
    """As MiniVess has them: micrometres, and the header does not say so."""
    for name in ("raw/mv01.nii.gz", "seg/mv01_y.nii.gz", "raw/mv02.nii.gz", "seg/mv02_y.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image, label = case(1)
        made = nibabel.Nifti1Image(label if "seg" in name else image, np.diag([0.6, 0.6, 2.0, 1.0]))
        if "02" in name:
            made.header.set_xyzt_units("micron")
        nibabel.save(made, tmp_path / name)
    for one in find_cases(tmp_path, load_card("minivess")):
        assert np.allclose(one.read_image().spacing, (0.0006, 0.0006, 0.002))
        assert np.allclose(one.read_label().spacing, (0.0006, 0.0006, 0.002))


def test_files_without_a_spacing_have_that_of_the_card(tmp_path):
    card, _ = laid_out(tmp_path, "vesselnn")
    found = {one.name: one.read_image().spacing for one in find_cases(tmp_path, card)}
    assert np.allclose(found["burgess2014_tgMouse"], (0.000994, 0.000994, 0.005))
    assert np.allclose(found["burgess2014_lowerRes_hiSNR"], (0.00159, 0.00159, 0.005))


def test_a_whole_copy_has_nothing_missing_or_odd(tmp_path):
    card, expected = laid_out(tmp_path, "parse2022")
    facts, findings = check(tmp_path, card.model_copy(update={"cases": 2}))
    assert findings == []
    assert [(one.shape, one.ids, one.components) for one in facts] == [(SHAPE, (1,), 1)] * 2
    assert np.allclose(facts[0].spacing, SPACING)
    assert facts[0].share == pytest.approx((next(iter(expected.values()))[1] == 1).mean())


def faulty(root):
    """Cases in PARSE's layout with a fault each."""
    names = {}
    for number, fault in enumerate(("cut", "empty", "grid", "id", "dark", "twin", "none", "thick", "window")):
        name = f"PA00000{number}"
        names[fault] = name
        image, label = case(1 if fault == "twin" else number)
        folder = root / "train" / name
        if fault == "dark":
            image = (100 - image).astype(np.int16)
        if fault == "window":
            image = (image + 5000).astype(np.int16)
        write(folder / "image" / f"{name}.nii.gz", image)
        if fault == "thick":
            write_volume(Volume(image, np.diag([0.5, 0.5, 5.0, 1])), folder / "image" / f"{name}.nii.gz")
        if fault == "id":
            label[0, 0, 0] = 7
        if fault == "grid":
            write_volume(Volume(label, np.diag([0.5, 0.5, 1.0, 1])), root / "label.nii.gz")
            (folder / "label").mkdir()
            (root / "label.nii.gz").rename(folder / "label" / f"{name}.nii.gz")
        elif fault == "thick":
            (folder / "label").mkdir()
            write_volume(Volume(label, np.diag([0.5, 0.5, 5.0, 1])), folder / "label" / f"{name}.nii.gz")
        elif fault != "none":
            write(folder / "label" / f"{name}.nii.gz", label * (fault != "empty"))
        if fault == "cut":
            path = folder / "image" / f"{name}.nii.gz"
            path.write_bytes(path.read_bytes()[:-400])
    return names


def test_what_is_missing_or_odd_is_named(tmp_path, capsys):
    names = faulty(tmp_path)
    facts, findings = check(tmp_path, load_card("parse2022"))
    text = "\n".join(findings)
    for fault, part in (
        ("cut", "truncated"),
        ("empty", "is empty"),
        ("grid", "different grids"),
        ("id", "has the ids 7"),
        ("dark", "no brighter than"),
        ("none", "has no label"),
        ("thick", "10.0 times as thick"),
        ("window", "outside the card's window of -200 to 600"),
    ):
        assert any(names[fault] in line and part in line for line in findings), (fault, text)
    assert f"{names['twin']}: its image is that of {names['empty']}" in text
    assert "8 complete cases, where the card parse2022 says 100" in text
    assert len(findings) == 10
    assert len(facts) == 8
    assert main(["data", "check", "parse2022", "--root", str(tmp_path)]) == 2
    shown = capsys.readouterr().out
    assert "12x14x10" in shown
    assert all(line in shown for line in findings)


def test_a_data_set_is_prepared_for_training(tmp_path, capsys):
    _, expected = laid_out(tmp_path / "from", "ircadb")
    assert main(["data", "prepare", "ircadb", "--root", str(tmp_path / "from"), "-o", str(tmp_path / "to")]) == 0
    assert "vesselsdf train --data.root" in capsys.readouterr().out
    described = json.loads((tmp_path / "to/dataset.json").read_text())
    assert described["labels"] == {"background": 0, "vessel": 1}
    cases = find_cases(tmp_path / "to")
    assert [one.name for one in cases] == ["1", "10"]
    for one, (image, label) in zip(cases, expected.values(), strict=True):
        assert np.array_equal(one.read_image().array, image)
        assert np.array_equal(one.read_label().array, label > 0)
        assert np.allclose(one.read_image().affine, read_volume(next(iter(expected))).affine, atol=1e-4)


def test_what_nobody_labelled_is_kept_apart(tmp_path):
    laid_out(tmp_path / "from", "kipa22")
    card = load_card("kipa22").model_copy(update={"vessel_ids": (1,), "ignore_ids": (3,)})
    assert prepare(tmp_path / "from", card, tmp_path / "to") == 1
    (one,) = find_cases(tmp_path / "to")
    truth = case(0, [1, 2, 3])[1]
    assert np.array_equal(one.read_label().array, np.where(truth == 3, 2, truth == 1))
    assert json.loads((tmp_path / "to/dataset.json").read_text())["labels"]["ignore"] == 2


def test_nothing_is_written_for_a_data_set_that_is_not_whole(tmp_path):
    faulty(tmp_path / "from")
    with pytest.raises(InputError, match="has no label"):
        prepare(tmp_path / "from", load_card("parse2022"), tmp_path / "to")
    laid_out(tmp_path / "without", "ixi_mra")
    with pytest.raises(InputError, match="has no labels: there is nothing"):
        prepare(tmp_path / "without", load_card("ixi_mra"), tmp_path / "to")
    (tmp_path / "there").mkdir()
    laid_out(tmp_path / "whole", "kipa22")
    with pytest.raises(InputError, match="give a new folder"):
        prepare(tmp_path / "whole", load_card("kipa22"), tmp_path / "there")
    assert not (tmp_path / "to").exists()


def test_cards_are_listed_and_shown(capsys):
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(path.stem in listed for path in cards_folder().glob("*.toml"))
    assert main(["data", "show", "kipa22"]) == 0
    shown = capsys.readouterr().out
    assert "2 kidney (no vessel)" in shown
    assert "not known: ask" in shown
    assert main(["data"]) == 0
    assert "vesselsdf data check" in capsys.readouterr().out
    assert main(["data", "shwo"]) == 2
    assert "use one of list, show" in capsys.readouterr().err


def test_a_card_of_ones_own(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\ntitle = "Mine"\nlayout = "pairs"\nimages = "scans/*.nrrd"\nlabels = "../truth/{name}_*.nrrd"\n'
    )
    image, label = case(1)
    write(tmp_path / "scans/a[1].nrrd", image)
    write(tmp_path / "truth/a[1]_final.nrrd", label)
    (one,) = find_cases(tmp_path, load_card(tmp_path / "mine.toml"))
    assert one.label == tmp_path / "truth/a[1]_final.nrrd"
    write(tmp_path / "truth/a[1]_old.nrrd", label)
    with pytest.raises(InputError, match="has 2 labels"):
        find_cases(tmp_path, load_card(tmp_path / "mine.toml"))
    assert Path(one.image).name == "a[1].nrrd"
