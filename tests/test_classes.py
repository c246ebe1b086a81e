"""Labels with several classes: each with its own field, where they touch, and training on one of them."""

import json

import numpy as np
import pytest

import vesselsdf
from vesselsdf.api import evaluate_run
from vesselsdf.classes import contacts
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume, read_volume, write_volume

OBLIQUE = np.array([[0.0, -0.48, 0.14, 20.0], [0.5, 0.0, 0.0, -7.0], [0.0, 0.14, 0.48, 3.0], [0.0, 0.0, 0.0, 1.0]])
NAMES = {1: "artery", 2: "vein"}


def crossing(shape=(44, 40, 36)):
    """An artery (1) along x that rests on a vein (2) along y, and a ring (5) far from both; voxels."""
    x, y, z = np.indices(shape).astype(float)
    label = np.zeros(shape, np.int16)
    label[np.hypot(np.hypot(x - 34, y - 30) - 6, z - 30) < 2] = 5
    label[(np.hypot(x - 14, z - 12) < 3) & (y > 3) & (y < 37)] = 2
    label[(np.hypot(y - 12, z - 17) < 2.6) & (x > 3) & (x < 38)] = 1
    return Volume(label, OBLIQUE)


def test_each_class_has_its_own_field_with_its_topology_on_one_grid():
    label = crossing()
    made = vesselsdf.reconstruct_classes(label, NAMES)
    assert list(made) == ["artery", "vein", "5"]
    for number, one in zip((1, 2, 5), made.values(), strict=True):
        assert one.topology()["betti"] == betti_numbers(label.array == number)
        np.testing.assert_array_equal(one.mask.array, label.array == number)
        np.testing.assert_array_equal(one.sdf.affine, made["vein"].sdf.affine)
        wall = label.to_index(one.mesh().vertices)
        own = np.argwhere(label.array == number)
        assert (wall >= own.min(axis=0) - 1).all()
        assert (wall <= own.max(axis=0) + 1).all()
    assert made["5"].topology()["betti"] == (1, 1, 0)
    fields = np.stack([one.sdf.array for one in made.values()])
    assert ((fields <= 0).sum(axis=0) <= 1).all(), "no voxel is in two classes"
    assert fields[0].size < label.array.size


def test_chosen_ids_are_one_vessel():
    label = crossing()
    both = vesselsdf.reconstruct(label, mask=True, ids=(1, 2))
    assert both.topology()["betti"] == (1, 0, 0)
    np.testing.assert_array_equal(both.mask.array, np.isin(label.array, (1, 2)))
    assert both.provenance["ids"] == [1, 2]
    assert vesselsdf.reconstruct(label, mask=True, ids=[5]).topology()["betti"] == (1, 1, 0)
    with pytest.raises(InputError, match=r"no voxel with the id 4, 9; it has 1, 2, 5"):
        vesselsdf.reconstruct(label, mask=True, ids=(1, 4, 9))
    with pytest.raises(InputError, match="--mask"):
        vesselsdf.reconstruct(label, ids=(1,))
    with pytest.raises(InputError, match="Several ids have the name vessel"):
        vesselsdf.reconstruct_classes(label, {1: "vessel", 2: "vessel"})


def test_contacts_are_counted_in_faces_and_square_millimetres():
    label = np.zeros((8, 9, 10), np.uint8)
    label[2:4, 2:6, 2:7] = 1
    label[4:6, 3:6, 2:7] = 2  # 3 x 5 faces across x
    label[2:4, 6:8, 6:8] = 4  # 2 x 1 faces across y
    label[6, 6, 7] = 7  # one corner in common with 2
    found = contacts(Volume(label, np.diag([0.5, 0.8, 2.0, 1.0])))
    assert [(one["ids"], one["faces"], len(one["places"])) for one in found] == [
        ([1, 2], 15, 1), ([1, 4], 2, 1), ([2, 4], 0, 1), ([2, 7], 0, 1)
    ]  # fmt: skip
    assert [one["area_mm2"] for one in found] == pytest.approx([15 * 1.6, 2 * 1.0, 0, 0])
    np.testing.assert_allclose(found[0]["places"][0], [3.5 * 0.5, 4 * 0.8, 4 * 2.0], atol=0.5)
    assert contacts(Volume(label, np.eye(4)), (1, 7)) == []


def test_a_contact_of_smooth_vessels_is_about_as_large_as_it_is():
    """A tube of radius 6 cut across, turned against the grid: steps make the voxel faces up to 1.73 times as large."""
    points = np.indices((40, 40, 40)).reshape(3, -1).T - 19.6
    along = np.array([1.0, 0.3, 0.1]) / np.linalg.norm([1.0, 0.3, 0.1])
    height = points @ along
    inside = (np.linalg.norm(points - height[:, None] * along, axis=1) < 6) & (abs(height) < 15)
    label = np.where(inside, np.where(height > 0, 2, 1), 0).reshape(40, 40, 40)
    (one,) = contacts(Volume(label, np.diag([0.5, 0.5, 0.5, 1.0])))
    assert one["area_mm2"] == pytest.approx(np.abs(along).sum() * np.pi * 6**2 * 0.25, rel=0.05)


def test_classes_of_one_voxel_and_at_the_border_are_reconstructed(tmp_path):
    label = np.zeros((12, 12, 12), np.uint8)
    label[:, 5:7, 5:7] = 1
    label[6, 7, 6] = 2
    made = vesselsdf.reconstruct_classes(Volume(label, np.diag([1.0, 1, 1, 1])))
    assert made["1"].topology()["betti"] == made["2"].topology()["betti"] == (1, 0, 0)
    assert made["2"].mesh().is_watertight


def test_the_topology_of_every_class_counts_for_the_grid():
    label = np.zeros((40, 12, 10), np.uint8)
    for z in range(8):
        label[4 + 4 * z : 8 + 4 * z, 6, 1 + z] = 1  # joined from slice to slice by corners only
    label[2:30, 1:4, 2:8] = 2
    made = vesselsdf.reconstruct_classes(Volume(label, np.diag([0.5, 0.5, 2.0, 1.0])))
    assert made["1"].topology()["betti"] == (1, 0, 0)
    assert "of 1 would change" in made["2"].provenance["working_grid"]
    alone = vesselsdf.reconstruct_classes(Volume(label, np.diag([0.5, 0.5, 2.0, 1.0])), ids=(2,))
    assert np.allclose(alone["2"].sdf.spacing, 0.5)


def call(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_the_command_writes_a_folder_for_each_class_and_a_table(tmp_path, capsys):
    write_volume(crossing(), tmp_path / "label.nii.gz")
    each = ["reconstruct", tmp_path / "label.nii.gz", "-o", tmp_path / "out", "--mask", "--each-class"]
    code, said, _ = call(capsys, *each, "--names", "1=main artery,2=vein", "--ids", 1, 2)
    assert code == 0
    assert "touching" in said
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["classes.json", "main-artery", "vein"]
    report = json.loads((out / "classes.json").read_text())
    assert [(row["id"], row["name"], row["betti"]) for row in report["classes"]] == [
        (1, "main artery", [1, 0, 0]), (2, "vein", [1, 0, 0])
    ]  # fmt: skip
    for row in report["classes"]:
        mask = read_volume(out / row["folder"] / "vessels.nii.gz")
        assert row["voxels_mm3"] == pytest.approx(mask.array.sum() * 0.125)
        assert row["mesh_mm3"] == pytest.approx(row["voxels_mm3"], rel=0.1)
        assert 12 < row["length_mm"] < 20
        assert (out / row["folder"] / "report.html").is_file()
    (contact,) = report["contacts"]
    assert contact["ids"] == [1, 2]
    assert contact["faces"] > 10
    assert contact["area_mm2"] == pytest.approx(0.25 * contact["faces"])
    for wrong, words in ((["--mend"], "--each-class goes with"), (["--names", "1=a,2=a"], "have the name a")):
        code, _, error = call(capsys, *each, *wrong)
        assert (code, error.count("\n")) == (2, 1)
        assert words in error


@pytest.fixture
def two_classes(tmp_path):
    """Two cases of an artery (1) and a vein (2); the vein is the darker one."""
    for number in range(2):
        x, y, _ = np.indices((36, 40, 32)).astype(float)
        label = np.zeros(x.shape, np.uint8)
        label[np.hypot(x - 10, y - 14 - number) < 3] = 1
        label[np.hypot(x - 26, y - 22 + number) < 4] = 2
        noise = np.random.default_rng(number).normal(0, 0.1, label.shape)
        image = noise + np.select([label == 1, label == 2], [1.0, 0.6])
        for kind, array in (("images", image.astype(np.float32)), ("labels", label)):
            (tmp_path / "cases" / kind).mkdir(parents=True, exist_ok=True)
            affine = np.diag([0.5, 0.5, 0.5, 1.0])
            write_volume(Volume(array, affine), tmp_path / "cases" / kind / f"case{number}.nii.gz")
    return tmp_path / "cases"


def test_a_network_is_trained_on_one_class_chosen_on_the_command_line(two_classes, tmp_path, capsys, caplog):
    small = ["--network.levels=3", "--network.width=4", "--training.steps=3", "--training.patch=32"]
    run = tmp_path / "veins"
    code, said, _ = call(capsys, "train", "--data.root", two_classes, "--data.vessel-ids", 2, "--output", run, *small)
    assert code == 0
    assert "all count as vessel" not in caplog.text
    (name,) = [case["case"] for case in evaluate_run(run)["cases"]]
    for folder in (run / "cases").iterdir():
        vessel = np.load(folder / "sdf.npy") <= 0
        label = read_volume(two_classes / "labels" / f"{folder.name}.nii.gz")
        np.testing.assert_array_equal(vessel, label.array == 2, "the artery is background")
        assert folder.name != name
    shown = said.splitlines()
    assert shown[1] == "cases    1 to train on, 1 held out"
    assert any(line.startswith("1 held-out case: Dice") for line in shown)
