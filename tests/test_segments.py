"""Segments of a label and what they touch; two labels of one circle: what is missing, where, and what it does."""

import json
from functools import cache

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from vesselsdf import file_evaluation
from vesselsdf.errors import InputError
from vesselsdf.files import write_json
from vesselsdf.report.text import evaluation_table
from vesselsdf.segment_comparison import compare_segments
from vesselsdf.segment_findings import findings, read_names
from vesselsdf.segments import label_ids, labelled, ring_over, ring_through
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume, read_volume, write_volume

NAMES = {1: "front", 2: "right front", 3: "right back", 4: "back", 5: "left back", 6: "left front", 7: "stem", 8: "arm"}
STEM, ARM = 7, 8
TURN = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
MOTION = np.eye(4)
MOTION[:3, :3] = Rotation.from_rotvec([-0.3, 0.5, 2.0]).as_matrix()
MOTION[:3, 3] = (-110.0, 35.0, 260.0)


def centred(shape, spacing, rotation=None):
    """The affine of a grid whose middle is the origin."""
    affine = np.eye(4)
    affine[:3, :3] = spacing * (np.eye(3) if rotation is None else rotation)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


@cache
def painted(turned=False):
    """Label of a warped ring of six named arcs with a stem on arc 4 and an arm on arc 2: beta = (1, 1, 0)."""
    shape = (68, 70, 72) if turned else (56, 60, 44)
    affine = centred(shape, 0.45 if turned else 0.5, TURN if turned else None)
    points = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]
    angle = np.linspace(0, 2 * np.pi, 721)[:-1]
    # Off the plane and not symmetric, so that a turned and a mirrored circle are different things.
    line = np.stack([9 * np.cos(angle), 7 * np.sin(angle), 2 * np.cos(2 * angle) + np.sin(angle)], axis=1)
    arc = (angle / (2 * np.pi) * 6).astype(int) + 1
    pieces = [(line[arc == k], k) for k in range(1, 7)]
    pieces.append((line[arc == 4][60] + np.linspace(0.2, 1, 60)[:, None] * [-1.0, -4.0, -7.0], STEM))
    pieces.append((line[arc == 2][60] + np.linspace(0.2, 1, 60)[:, None] * [3.0, 5.0, 6.0], ARM))
    places = np.concatenate([piece for piece, _ in pieces])
    ids = np.concatenate([np.full(len(piece), number) for piece, number in pieces])
    distance, nearest = cKDTree(places).query(points, distance_upper_bound=1.1)
    label = np.where(distance <= 1.1, ids[np.minimum(nearest, len(ids) - 1)], 0)
    return Volume(label.reshape(shape).astype(np.uint8), affine)


def circle(missing=(), swap=None, turned=False):
    """The circle without some segments, or with names swapped; in mm around the origin, maybe on a turned grid."""
    volume = painted(turned)
    rename = {number: 0 for number in missing} | (swap or {})
    return volume.with_array(np.array([rename.get(k, k) for k in range(9)], np.uint8)[volume.array])


def elsewhere(missing=(), swap=None):
    """The circle on a turned grid in the frame of another scanner, and the motion into that frame."""
    volume = circle(missing, swap, turned=True)
    return Volume(volume.array, MOTION @ volume.affine), MOTION


def texts(report, names=None, kind=None):
    return [finding["text"] for finding in findings(report, names) if kind is None or finding["kind"] == kind]


def row(report, number):
    return next(entry for entry in report["segments"] if entry["id"] == number)


@pytest.fixture(scope="module")
def whole():
    return circle()


# One label


def test_the_ring_is_the_only_ring_and_each_arc_touches_its_neighbours(whole):
    label = labelled(whole)
    assert label.ids == tuple(range(1, 9))
    assert label.betti == betti_numbers(whole.array > 0) == (1, 1, 0)
    assert label.rings == 1
    assert set(label.contacts) == {(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (1, 6), (4, STEM), (2, ARM)}
    assert all(len(contact.places) == 1 for contact in label.contacts.values())
    assert sorted(ring_through(label.graph, 5)) == [1, 2, 3, 4, 5, 6]
    assert ring_through(label.graph, STEM) == []
    assert ring_over(label.graph, 1, 6) == [1, 2, 3, 4, 5, 6]
    assert ring_over(label.graph, 2, ARM) == []


def test_volumes_and_centroids_are_in_mm_on_any_grid(whole):
    turned = circle(turned=True)
    for number in range(1, 9):
        here, there = (labelled(volume).segments[number] for volume in (whole, turned))
        assert here.volume == pytest.approx(np.count_nonzero(whole.array == number) * 0.125)
        assert here.volume == pytest.approx(there.volume, rel=0.05)
        np.testing.assert_allclose(here.centroid, there.centroid, atol=0.15)
        assert here.pieces == (here.volume,)
        assert not here.at_border


def test_two_blocks_worked_out_by_hand():
    array = np.zeros((6, 4, 4), np.int16)
    array[0:2, 0:2, 0:2] = 3
    array[2:4, 2:4, 2:4] = 40  # touches by one corner
    array[5, 0, 0] = 40
    label = labelled(Volume(array, np.diag([1.0, 2.0, 3.0, 1.0])))
    assert label.segments[3].volume == 8 * 6
    assert label.segments[40].pieces == (48.0, 6.0)
    assert label.segments[3].centroid == (0.5, 1.0, 1.5)
    assert label.segments[3].at_border
    assert label.contacts[3, 40].places == ((1.5, 3.0, 4.5),)
    assert label.betti == (2, 0, 0)
    assert label.rings == 0


def test_segments_that_touch_twice_have_two_places_of_contact():
    array = np.zeros((9, 5, 3), np.uint8)
    array[:, 0, 1] = 1
    array[[0, 0, 8, 8], [1, 2, 1, 2], 1] = 1
    array[:, 4, 1] = 2
    array[[0, 8], [3, 3], 1] = 2
    (contact,) = labelled(Volume(array, np.eye(4))).contacts.values()
    assert sorted(round(x) for x, _, _ in contact.places) == [0, 8]
    assert all(y == 2.5 for _, y, _ in contact.places)


def test_what_is_no_label_is_told_from_what_is():
    grid = np.eye(4)
    assert label_ids(Volume(np.zeros((2, 2, 2)), grid)) == ()
    assert label_ids(Volume(np.full((2, 2, 2), 7.0), grid)) == (7,)
    assert label_ids(Volume(np.array([[[0.5, 1.0]]]), grid)) is None
    assert label_ids(Volume(np.array([[[-1, 1]]]), grid)) is None
    assert label_ids(Volume(np.arange(1000).reshape(10, 10, 10), grid)) is None
    for array in (
        np.array([[[0.5, 1.0]]]),
        np.array([[[-1, 1]]]),
        np.zeros((2, 2, 2), int),
        np.full((1, 1, 2), np.nan),
    ):
        with pytest.raises(InputError, match="scan"):
            labelled(Volume(array, grid), "scan")


# Two labels on one grid


def test_a_label_lacks_nothing_that_itself_has(whole):
    report, on_grid = compare_segments(whole, whole)
    assert on_grid is whole
    assert all(entry["dice"] == entry["reference"]["found"] == 1 for entry in report["segments"])
    assert report["parts"] == []
    assert [finding["kind"] for finding in findings(report)] == ["topology"]


@pytest.mark.parametrize(
    ("number", "role"),
    [(3, "closes a ring of right back, "), (STEM, "changes no Betti number"), (ARM, "changes no Betti number")],
)
def test_a_missing_segment_is_named_with_its_place_and_what_it_does(whole, number, role):
    report, _ = compare_segments(circle(missing=[number]), whole)
    (text,) = texts(report, NAMES, "segment")
    assert text.startswith(f"{NAMES[number][0].upper()}{NAMES[number][1:]} ({number}) is missing in the prediction")
    assert role in text
    truth = labelled(whole).segments[number]
    np.testing.assert_allclose(row(report, number)["reference"]["places"]["prediction"], truth.place)
    assert np.linalg.norm(np.subtract(truth.place, truth.centroid)) < 2
    assert texts(report, NAMES, "part") == []  # it is not told twice


def test_an_invented_segment_is_missing_in_the_reference(whole):
    report, _ = compare_segments(whole, circle(missing=[5]))
    (text,) = texts(report, NAMES, "segment")
    assert text.startswith("Left back (5) is missing in the reference; in the prediction")
    assert "(1, 1, 0) with it, (1, 0, 0) without" in text
    assert "both are (1, 0, 0): that explains the difference" in texts(report, kind="topology")[0]


def test_an_arc_that_joins_is_told_from_one_that_closes():
    report, _ = compare_segments(circle(missing=[1, 4]), circle(missing=[1]))
    (text,) = texts(report, NAMES, "segment")
    # Without the arc the stem hangs in the air, and the rest falls in two.
    assert "joins what would be 3 components (beta0, 1, 2 (1, 0, 0) with it, (3, 0, 0) without)" in text


def test_a_cut_inside_a_segment_is_a_missing_part_two_pieces_and_the_gap_between_them(whole):
    array = whole.array.copy()
    cut = labelled(whole).segments[6].place
    points = whole.to_world(np.indices(whole.shape).reshape(3, -1).T).reshape(*whole.shape, 3)
    array[(np.linalg.norm(points - cut, axis=-1) < 2) & (array == 6)] = 0
    report, _ = compare_segments(whole.with_array(array), whole)
    (part,) = texts(report, NAMES, "part")
    assert part.startswith("Left front (6): a part of ")
    assert "carries a loop (beta0, 1, 2 (1, 1, 0) with it, (1, 0, 0) without)" in part
    (gap,) = texts(report, NAMES, "pieces")
    assert "is in 2 pieces in the prediction and in 1 in the reference" in gap
    facts = row(report, 6)["prediction"]["gap"]
    assert np.linalg.norm(np.subtract(facts["place"], cut)) < 1.5
    assert not facts["at_border"]


def test_contacts_lost_and_invented_are_named_with_their_places(whole):
    array = whole.array.copy()
    between = np.array(labelled(whole).contacts[1, 6].places[0])
    points = whole.to_world(np.indices(whole.shape).reshape(3, -1).T).reshape(*whole.shape, 3)
    array[(np.linalg.norm(points - between, axis=-1) < 1.6)] = 0
    opened = whole.with_array(array)
    report, _ = compare_segments(opened, whole)
    (text,) = texts(report, NAMES, "contact")
    assert text.startswith("Front (1) and left front (6) touch in the reference at ")
    assert "they close a ring of front, right front, right back, back, left back and left front" in text
    (entry,) = [entry for entry in report["contacts"] if entry["ids"] == (1, 6)]
    assert 1.0 < entry["prediction"]["apart"]["distance"] < 4.0
    assert np.linalg.norm(np.subtract(entry["prediction"]["apart"]["place"], between)) < 1.5
    back, _ = compare_segments(whole, opened)
    assert texts(back, NAMES, "contact")[0].startswith("Front (1) and left front (6) touch in the prediction at ")


def test_swapped_names_are_said_to_be_named_otherwise(whole):
    report, _ = compare_segments(circle(swap={3: 5, 5: 3}), whole)
    assert row(report, 3)["dice"] == 0
    assert "Right back (3) of the reference: 100% of it are labelled left back (5) in the prediction." in texts(
        report, NAMES, "name"
    )
    assert report["parts"] == []


def test_a_loop_inside_one_segment_is_found_at_its_thinnest_place():
    array = np.zeros((30, 30, 9), np.uint8)
    x, y, z = np.indices(array.shape)
    ring = (np.hypot(np.hypot(x - 12, y - 14) - 8, z - 4) < 2.2) & ~(
        (np.abs(y - 14) < 2) & (x > 12) & (np.abs(z - 4) > 0)
    )
    array[ring] = 1
    array[20:, 14, 4] = np.where(array[20:, 14, 4] > 0, 1, 2)
    opened = array.copy()
    opened[18:24, 12:14, :] = np.where(opened[18:24, 12:14, :] == 1, 0, opened[18:24, 12:14, :])
    grid = np.eye(4)
    report, _ = compare_segments(Volume(opened, grid), Volume(array, grid), tolerance=3)
    (text,) = texts(report, kind="loop")
    assert text.startswith("Segment 1 alone has a loop in the reference and none in the prediction")
    place = row(report, 1)["reference"]["loops"][0]["places"]["reference"]
    assert place[0] > 12
    assert abs(place[1] - 14) <= 2


def test_of_many_parts_the_largest_are_counted_and_the_first_are_shown(tmp_path):
    base = np.zeros((90, 16, 40), np.uint8)
    base[:, 2, 2] = 1
    base[:, 4:7, 2] = 2
    specks = base.copy()
    for k in range(40):
        specks[4 * (k % 20) + 2, 12 : 14 + (k == 0), 12 + 20 * (k // 20)] = 2
    write_volume(Volume(base, np.eye(4)), tmp_path / "p.nii.gz")
    write_volume(Volume(specks, np.eye(4)), tmp_path / "r.nii.gz")
    report = file_evaluation.evaluate_files(tmp_path / "p.nii.gz", tmp_path / "r.nii.gz")
    parts = report["cases"][0]["segments"]["parts"]
    assert [part["volume"] for part in parts] == [3.0] + [2.0] * 39
    assert [part["betti_without"] for part in parts] == [(41, 0, 0)] * 30 + [None] * 10
    shown = evaluation_table(report)
    assert shown.count("a part of") == 6
    assert "34 more of the kind part" in shown


def test_labels_without_a_common_id_are_a_result(whole):
    other = whole.with_array(np.where(whole.array > 0, whole.array + 20, 0).astype(np.uint8))
    report, _ = compare_segments(whole, other)
    assert all(entry["prediction"] is None or entry["reference"] is None for entry in report["segments"])
    assert len(report["segments"]) == 16
    assert "no id in common" in texts(report)[0]
    assert any(
        "Segment 21 is missing in the prediction" in text and "are labelled segment 1" in text for text in texts(report)
    )


# Two labels in different frames


@pytest.mark.parametrize("number", [3, STEM])
def test_in_another_frame_the_missing_segment_is_expected_at_its_true_place(whole, number):
    reference, motion = elsewhere()
    report, on_grid = compare_segments(circle(missing=[number]), reference, alignment=True)
    assert report["alignment"]["kind"] == "rigid"
    assert report["alignment"]["residual"] < 0.4
    np.testing.assert_allclose(report["alignment"]["transform"], motion, atol=0.6)
    (text,) = texts(report, NAMES, "segment")
    assert f"({number}) is missing in the prediction; in the reference it lies at" in text
    assert "expected in the prediction at" in text
    places = row(report, number)["reference"]["places"]
    truth = labelled(whole).segments[number].place
    assert np.linalg.norm(np.subtract(places["prediction"], truth)) < 1.2
    assert np.linalg.norm(motion[:3, :3] @ truth + motion[:3, 3] - places["reference"]) < 1.2
    assert on_grid.shape == reference.shape
    assert min(entry["dice"] for entry in report["segments"] if entry["id"] != number) > 0.75
    assert row(report, number)["dice"] == 0


def test_without_being_asked_nothing_is_aligned(whole):
    reference, _ = elsewhere()
    report, on_grid = compare_segments(circle(missing=[3]), reference)
    assert on_grid is None
    assert "no alignment was asked for" in texts(report, NAMES)[0]
    (text,) = texts(report, NAMES, "segment")
    assert "expected" not in text
    assert row(report, 3)["reference"]["places"]["prediction"] is None
    assert row(report, 1)["dice"] is None


def test_a_mirrored_label_is_recognised_and_not_aligned(whole):
    report, on_grid = compare_segments(Volume(whole.array[::-1], whole.affine), elsewhere()[0], alignment=True)
    assert on_grid is None
    assert findings(report)[0]["kind"] == "mirrored"
    assert "left and right are swapped" in findings(report)[0]["text"]


def test_names_swapped_in_another_frame_fit_no_motion(whole):
    reference, _ = elsewhere(swap={2: 6, 6: 2, 3: 5, 5: 3, STEM: ARM, ARM: STEM})
    report, on_grid = compare_segments(whole, reference, alignment=True)
    assert on_grid is None
    assert report["alignment"]["kind"] == "none"


def test_one_frame_on_two_grids_is_not_moved(whole):
    other = circle([2], turned=True)
    report, on_grid = compare_segments(whole, other, alignment=True)
    assert report["alignment"]["kind"] == "world"
    (text,) = texts(report, NAMES, "segment")
    assert "is missing in the reference" in text
    assert "inside its box" in text
    assert on_grid.shape == other.shape


def test_too_little_in_common_gives_the_place_in_one_only(whole):
    reference, _ = elsewhere(missing=[2, 3, 4, 6])
    report, on_grid = compare_segments(circle(missing=[1, 4, 5, STEM, ARM]), reference, alignment=True)
    assert on_grid is None
    assert "landmark(s) in common" in texts(report)[0]
    assert len(texts(report, NAMES, "segment")) == 7


# Names, files and the command line


def test_names_come_from_a_list_a_card_and_files(tmp_path):
    assert read_names("1=BA,2=R-PCA") == {1: "BA", 2: "R-PCA"}
    assert read_names("topcow")[1] == "basilar artery"
    contents = {
        "a.json": {"1": "BA", "2": "R-PCA"},
        "b.json": {"BA": 1, "R-PCA": 2},
        "c.json": {"labels": {"background": 0, "BA": 1, "R-PCA": 2}, "numTraining": 4},
        "d.json": {"labels": {"0": "background", "1": "BA", "2": "R-PCA"}},
    }
    for name, content in contents.items():
        write_json(tmp_path / name, content)
        assert read_names(str(tmp_path / name)) == {1: "BA", 2: "R-PCA"}
    (tmp_path / "e.toml").write_text('name = "x"\n[label_ids]\nBA = 1\nR-PCA = 2\n')
    assert read_names(str(tmp_path / "e.toml")) == {1: "BA", 2: "R-PCA"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1=BA,1=X", "twice"),
        ("BA=artery", "no id and name"),
        ("absent.json", "cannot be read"),
        ("nothing", "no dataset card"),
        ("0=background", "no id above 0"),
        ("1=", "no id and name"),
    ],
)
def test_names_that_cannot_be_read_get_one_sentence(text, match):
    with pytest.raises(InputError, match=match):
        read_names(text)


def test_damaged_name_files_get_one_sentence(tmp_path):
    for name, content, match in (
        ("a.json", "{", "no valid JSON"),
        ("b.json", "[1, 2]", "no table"),
        ("c.toml", "= 3", "no valid TOML"),
        ("d.json", '{"labels": {"vessel": [1, 2]}}', "no id and name"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=match):
            read_names(str(tmp_path / name))


@pytest.fixture
def files(tmp_path, whole):
    reference, _ = elsewhere()
    write_volume(circle(missing=[3]), tmp_path / "p.nii.gz")
    write_volume(whole, tmp_path / "same.nii.gz")
    write_volume(reference, tmp_path / "r.nii.gz")
    write_volume(whole.with_array((whole.array > 0).astype(np.uint8)), tmp_path / "mask.nii.gz")
    return tmp_path


def test_files_of_several_ids_get_a_table_of_segments(files):
    report = file_evaluation.evaluate_files(files / "p.nii.gz", files / "same.nii.gz", names="3=right back")
    shown = evaluation_table(report)
    assert "p, segment by segment" in shown
    assert "- Right back (3) is missing in the prediction" in shown
    assert "dice" in shown
    assert "1 segment(s) missing" in file_evaluation.topology_differences(report)[0]
    file_evaluation.save_evaluation(report, files / "out")
    saved = json.loads((files / "out" / "evaluation.json").read_text())
    assert saved["cases"][0]["segments"]["findings"][0]["kind"] == "segment"


def test_frames_are_only_brought_together_on_request(files):
    with pytest.raises(InputError, match="--align"):
        file_evaluation.evaluate_files(files / "p.nii.gz", files / "r.nii.gz")
    report = file_evaluation.evaluate_files(files / "p.nii.gz", files / "r.nii.gz", align=True)
    assert report["cases"][0]["metrics"]["dice"] > 0.7
    assert report["cases"][0]["metrics"]["beta1_error"] == 1
    assert "aligned by a rigid motion" in evaluation_table(report)
    result = file_evaluation.evaluate(files / "p.nii.gz", files / "r.nii.gz", names={3: "right back"}, align=True)
    assert result["segments"]["names"] == {3: "right back"}


def test_masks_are_refused_as_before_and_options_for_labels_are_not_swallowed(files):
    with pytest.raises(InputError, match="different grids") as error:
        file_evaluation.evaluate_files(files / "mask.nii.gz", files / "r.nii.gz")
    assert "--align" not in str(error.value)
    with pytest.raises(InputError, match=r"--align is for labels with several ids, and .*mask.nii.gz is none"):
        file_evaluation.evaluate_files(files / "mask.nii.gz", files / "r.nii.gz", align=True)
    named = file_evaluation.evaluate_files(files / "mask.nii.gz", files / "same.nii.gz", names="3=right back")
    assert "- Right back (3) is missing in the prediction" in evaluation_table(named)
    with pytest.raises(InputError, match="--names is for labels"):
        file_evaluation.evaluate_files(files / "mask.nii.gz", files / "mask.nii.gz", names="1=vessel")
    assert "segments" not in file_evaluation.evaluate_files(files / "mask.nii.gz", files / "same.nii.gz")["cases"][0]
    fractions = Volume(np.linspace(0, 1, 27, dtype=np.float32).reshape(3, 3, 3), np.eye(4))
    write_volume(fractions, files / "probability.nii.gz")
    with pytest.raises(InputError, match=r"probability.nii.gz is none"):
        file_evaluation.evaluate_files(files / "probability.nii.gz", files / "r.nii.gz", align=True)


def test_frames_that_do_not_fit_leave_the_segments_alone(files, whole):
    write_volume(Volume(whole.array[::-1], whole.affine), files / "mirrored.nii.gz")
    report = file_evaluation.evaluate_files(files / "mirrored.nii.gz", files / "r.nii.gz", align=True)
    assert report["cases"][0]["metrics"] == {}
    assert "left and right are swapped" in evaluation_table(report)
    assert "side(s) swapped" in file_evaluation.topology_differences(report)[0]
    file_evaluation.save_evaluation(report, files / "out")


def test_ct_and_mr_of_one_circle_of_willis(shared_data):
    """Both have the same twelve segments and contacts, but beta (1, 0, 0) and (2, 1, 0): CT lacks a piece of the left
    internal carotid artery, and the part of the right one that closes a loop in MR."""
    ct, mr = (read_volume(shared_data / "circle_of_willis" / f"topcow_{name}_roi_003.nii.gz") for name in ("ct", "mr"))
    report, on_grid = compare_segments(ct, mr, alignment=True)
    assert on_grid.shape == mr.shape
    assert report["alignment"]["residual"] < 0.6
    assert report["topology"]["prediction"]["betti"] == (1, 0, 0)
    assert report["topology"]["reference"]["betti"] == (2, 1, 0)
    missing = [part for part in report["parts"] if part["missing_in"] == "prediction"]
    left, right = missing[:2]
    assert left["ids"] == [6]
    assert left["betti_without"] == (1, 1, 0)
    assert left["inside"] > 0.9
    np.testing.assert_allclose(left["places"]["reference"], (-11.1, -14.3, 8.0), atol=0.5)
    np.testing.assert_allclose(left["places"]["prediction"], (-15.7, 197.9, -188.0), atol=1.5)
    assert right["ids"] == [4]
    assert right["betti_without"] == (2, 0, 0)
    np.testing.assert_allclose(right["places"]["reference"], (3.9, -5.8, 6.7), atol=0.5)
    assert [finding["kind"] for finding in findings(report)] == [
        *("part", "part", "loop", "pieces", "outside", "outside", "topology")
    ]
    sentences = texts(report, read_names("topcow"))
    assert sentences[0].startswith("Left internal carotid artery (6): a part of 202 mm3 is missing in the prediction")
    assert "without what the other one lacks, both are (1, 0, 0): that explains the difference" in sentences[-1]
    # The same, seen from the other side.
    back, _ = compare_segments(mr, ct, alignment=True)
    assert texts(back, read_names("topcow"))[0].startswith(
        "Left internal carotid artery (6): a part of 202 mm3 is missing in the reference"
    )
