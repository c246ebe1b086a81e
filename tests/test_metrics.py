"""The evaluation table: its conventions, what comes of odd input, and means over cases."""

import csv
import json
import math
import time

import numpy as np
import pytest

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.files import write_json
from vesselsdf.metric_table import TABLE, format_table, summarise, write_csv
from vesselsdf.metrics import BAND, evaluate, topology_errors, vessel_mask, wall_distance
from vesselsdf.volume import Volume

PERFECT = {row.key: 1.0 if row.better == "higher" else 0.0 for row in TABLE if row.better}


def block(low: int, high: int, shape=(10, 10, 10)) -> Volume:
    mask = np.zeros(shape, bool)
    mask[low:high, low:high, low:high] = True
    return Volume(mask, np.diag([0.5, 0.5, 2.0, 1.0]))


EMPTY, FULL, CUBE, VOXEL = block(0, 0), block(0, 10), block(3, 7), block(4, 5)
SHARES = [row.key for row in TABLE if row.better == "higher"]
DISTANCES = ["hd95", "assd"]
WHERE_FOUND = ["path_length_error", "centreline_error", "radius_error", "radius_bias"]


def test_two_empty_masks_agree_and_it_is_said():
    result = evaluate(EMPTY, EMPTY)
    assert {key: result[key] for key in PERFECT} == PERFECT
    assert result["both_empty"] is True
    assert "empty" in format_table(result)


# What one empty mask gives beside a solid body of one component: no metric is perfect but those that count what is not
# there to be counted (loops, cavities, cuts of vessels that have no counterpart).
ONE_EMPTY = {
    **dict.fromkeys(SHARES, 0.0),
    **dict.fromkeys(DISTANCES, math.inf),
    **dict.fromkeys(WHERE_FOUND, math.nan),
    **dict.fromkeys(["beta0_error", "euler_error", "diu0", "betti_matching0", "critical_sites"], 1),
    **dict.fromkeys(
        [f"{name}{k}" for name in ("diu", "betti_matching", "bottleneck", "wasserstein") for k in (1, 2)], 0
    ),
    **dict.fromkeys(["beta1_error", "beta2_error", "false_splits", "false_merges"], 0),
}


@pytest.mark.parametrize("pair", [(EMPTY, CUBE), (CUBE, EMPTY), (FULL, EMPTY), (EMPTY, FULL), (EMPTY, VOXEL)])
def test_one_empty_mask_never_scores(pair):
    result = evaluate(*pair)
    # A lost component shrinks to one voxel; where there was none, nothing can be warped.
    warping = {"warping_error": 1 if pair[1].array.any() else int(pair[0].array.sum())}
    # To make a component vanish its birth, at minus its depth, has to be lifted to the upper end of the band of 6 mm.
    sizes = [0.5 * round(volume.array.sum() ** (1 / 3)) for volume in pair]
    depth = 0.25 if (size := max(sizes)) == 0.5 else size / 2 - 0.25
    moves = dict.fromkeys(["bottleneck0", "wasserstein0"], 6 + depth)
    assert {key: result[key] for key in PERFECT} == pytest.approx(ONE_EMPTY | warping | moves, nan_ok=True, rel=0.05)
    assert result["reasons"] == dict.fromkeys(WHERE_FOUND, "one of the two is empty")
    assert result["both_empty"] is False


@pytest.mark.parametrize("mask", [FULL, CUBE, VOXEL], ids=["full", "cube", "voxel"])
def test_full_masks_and_single_voxels_equal_themselves(mask):
    result = evaluate(mask, mask)
    for key, value in PERFECT.items():
        if key in result["reasons"]:
            assert key in ("terminals_reached", "path_length_error")  # a lone node has no terminals to reach
            assert math.isnan(result[key])
        else:
            assert result[key] == pytest.approx(value), key


@pytest.mark.parametrize("pair", [(FULL, CUBE), (CUBE, VOXEL), (VOXEL, FULL)])
def test_different_masks_never_score_perfectly(pair):
    result = evaluate(*pair)
    for key in ("dice", "nsd"):
        assert 0 <= result[key] < 1
    assert min(result["precision"], result["recall"]) < 1
    assert 0 < result["hd95"] < math.inf
    assert 0 < result["assd"] < math.inf


@pytest.mark.parametrize("shape", [(1, 12, 12), (12, 1, 12), (12, 12, 1), (1, 1, 1)])
def test_volumes_one_voxel_thick(shape):
    mask = np.ones(shape, bool)
    volume, part = Volume(mask, np.eye(4)), np.zeros(shape, bool)
    part[:, :, : (shape[2] + 1) // 2] = True
    assert evaluate(volume, volume)["dice"] == 1.0
    result = evaluate(volume.with_array(part), volume)
    assert result["recall"] == part.mean()
    assert result["beta0_error"] == 0


def test_vessels_that_leave_the_volume_end_there():
    mask = np.zeros((12, 12, 30), bool)
    mask[4:8, 4:8] = True
    volume = Volume(mask, np.eye(4))
    result = evaluate(volume, volume)
    assert (result["dice"], result["hd95"], result["tree_length_detected"], result["node_f1"]) == (1, 0, 1, 1)
    short = mask.copy()
    short[..., 15:] = False
    result = evaluate(volume.with_array(short), volume)
    assert result["tree_length_detected"] == pytest.approx(0.5, abs=0.12)
    assert result["terminals_reached"] == 0.0
    assert result["hd95"] > 10


def filled(*values: float, dtype: type = np.float32) -> Volume:
    """A grid of 6^3 voxels of 0.5 mm that repeats the values along its last axis."""
    return Volume(np.resize(np.array(values, dtype), (6, 6, 6)), np.diag([0.5, 0.5, 0.5, 1.0]))


SOLID, NOTHING = filled(1, dtype=np.uint8), filled(0, dtype=np.uint8)


@pytest.mark.parametrize(
    ("volume", "same_as"),
    [
        (filled(0, 1, dtype=bool), filled(0, 1, dtype=bool)),
        (filled(0, 3, dtype=np.uint8), filled(0, 1, dtype=bool)),
        (filled(0, 3, dtype=np.int16), filled(0, 1, dtype=bool)),
        (filled(0, 3, dtype=np.float64), filled(0, 1, dtype=bool)),
        (filled(0.0), NOTHING),
        (filled(1.0), SOLID),
        (filled(7, dtype=np.int32), SOLID),
        (filled(-1.0), SOLID),
        (filled(-2.5), SOLID),
        (filled(2.5), NOTHING),
        (filled(0.5, 7.0), NOTHING),
        (filled(-0.5, 0.0, 0.5), filled(1, 1, 0, dtype=bool)),
        (filled(-2, -1, 0, 1, 2, 3), filled(1, 1, 1, 0, 0, 0, dtype=bool)),  # an integer-valued distance
    ],
)
def test_what_counts_as_vessel(volume, same_as):
    result = evaluate(volume, same_as)
    assert (result["dice"], result["hd95"], result["beta0_error"], result["diu0"]) == (1.0, 0.0, 0, 0)
    assert result["both_empty"] is bool(not vessel_mask(volume, "it").any())
    assert vessel_mask(volume, "it").tolist() == (same_as.array > 0).tolist()


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        (filled(0, np.nan), "NaN"),
        (filled(1, -np.inf), "infinite"),
        (filled(0, 0.4, 1), "threshold"),
        (filled(0.01, 0.4, 0.99), "threshold"),  # a softmax is never 0
        (filled(0.5), "threshold"),
        (filled(0, 0.4, 3.0), "threshold"),  # a distance without a sign
        (filled(2.0), "none of them is 0"),  # all vessel, or a distance that was clipped?
        (filled(1, 2, 3), "none of them is 0"),
        (filled(-2, -1, 0, 1, dtype=np.int16), "below 0"),
        (filled(-1, dtype=np.int8), "below 0"),
        (Volume(np.zeros((3, 0, 3)), np.eye(4)), "no voxels"),
    ],
)
def test_arrays_that_are_neither_mask_nor_distance_are_refused(volume, says):
    other = volume.with_array(np.zeros(volume.shape, bool))
    for pair, names in (((volume, other), ("bad.nii", "b.nii")), ((other, volume), ("a.nii", "bad.nii"))):
        with pytest.raises(InputError, match=says) as error:
            evaluate(*pair, names=names)
        assert "bad.nii" in str(error.value) or volume.array.size == 0


def test_different_grids_and_bad_tolerances_are_refused():
    with pytest.raises(InputError, match="grid"):
        evaluate(CUBE, block(3, 7, (10, 10, 11)))
    with pytest.raises(InputError, match="grid"):
        evaluate(CUBE, Volume(CUBE.array, np.eye(4)))
    for tolerance in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="tolerance"):
            evaluate(CUBE, CUBE, tolerance)


def test_a_loop_lost_here_and_one_invented_there_do_not_cancel():
    p, r = np.zeros((2, 7, 20, 3), bool)
    for mask, at in ((p, 2), (r, 12)):
        mask[1, :, 1] = True
        mask[1:6, at : at + 5, 1] = True
        mask[2:5, at + 1 : at + 4, 1] = False
    numbers, places = topology_errors(p, r, np.eye(4))
    assert numbers["beta1_error"] == 0
    assert numbers["diu1"] >= 2
    assert sorted(item["fate"] for item in places["topology"] if item["feature"] == "loop") == ["invented", "lost"]


def test_the_table_is_complete():
    result = evaluate(CUBE, VOXEL)
    keys = [row.key for row in TABLE]
    assert set(result) == {*keys, "tolerance", "both_empty", "reasons", "places"}
    assert len(set(keys)) == len(keys)
    assert {row.group for row in TABLE} == {"overlap", "surface", "topology", "graph"}
    text = format_table(result)
    assert all(f"  {row.family or row.key} " in text and row.meaning in text for row in TABLE)
    assert max(len(line) for line in text.splitlines()) <= 120


def test_summaries_leave_out_what_is_not_finite_and_say_so():
    results = [
        {"case": "one", "dice": 0.5, "hd95": 1.0, "node_f1": math.nan, "radius_bias": 0.1, "beta0_error": 1},
        {"case": "two", "dice": 0.7, "hd95": math.inf, "node_f1": 0.5, "radius_bias": -0.3, "beta0_error": 0},
        {"case": "three", "dice": 0.6, "hd95": 3.0, "node_f1": None, "radius_bias": 0.2, "beta0_error": 0},
    ]
    summary = summarise(results)
    assert summary["cases"] == 3
    assert (summary["dice"], summary["hd95"], summary["node_f1"]) == (pytest.approx(0.6), 2.0, 0.5)
    assert summary["radius_bias"] == pytest.approx(0.0)
    assert math.isnan(summary["assd"])
    assert {key: summary["left_out"].get(key) for key in ("dice", "hd95", "node_f1", "assd")} == {
        "dice": None,
        "hd95": 1,
        "node_f1": 2,
        "assd": 3,
    }
    assert {key: summary["worst"][key] for key in ("dice", "hd95", "node_f1", "radius_bias", "beta0_error")} == {
        "dice": "one",
        "hd95": "two",
        "node_f1": "two",
        "radius_bias": "two",
        "beta0_error": "one",
    }
    text = format_table(summary)
    assert "n/a" in text
    assert "mean without 1 of 3 cases, where it is infinite or there is nothing to measure: hd95\n" in text
    assert max(len(line) for line in text.splitlines()) <= 120
    with pytest.raises(InputError, match="no results"):
        summarise([])


def test_one_case_without_a_prediction_does_not_blot_out_the_others():
    good, missed, nothing = evaluate(CUBE, CUBE), evaluate(EMPTY, CUBE), evaluate(EMPTY, EMPTY)
    summary = summarise([good, missed, nothing])
    assert summary["dice"] == summary["tree_length_detected"] == pytest.approx(2 / 3)
    assert (summary["hd95"], summary["left_out"]["hd95"], summary["worst"]["hd95"]) == (0.0, 1, 1)
    assert (summary["radius_error"], summary["left_out"]["radius_error"]) == (pytest.approx(0.0), 1)
    assert summary["both_empty"] == 1
    assert "In 1 of 3 cases both masks are empty" in format_table(summary)
    # Nothing is left over for a mean, and nothing is made up for it.
    assert math.isnan(summarise([missed, missed])["hd95"])
    assert summarise([missed, missed])["left_out"]["hd95"] == 2


def test_results_can_be_written_and_read_back(tmp_path):
    results = [{"case": "a", **evaluate(EMPTY, CUBE)}, evaluate(CUBE, CUBE)]
    write_csv(results, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["case"] for row in rows] == ["a", "1"]
    assert list(rows[0]) == ["case", "tolerance", *(row.key for row in TABLE)]
    assert (rows[0]["hd95"], rows[0]["radius_bias"], float(rows[1]["dice"])) == ("inf", "", 1.0)
    write_json(tmp_path / "table.json", results)
    assert json.loads((tmp_path / "table.json").read_text())[0]["hd95"] == "inf"


def test_a_pair_of_trees_takes_a_second():
    from vesselsdf.synthesis.trees import grow_tree

    shape, spacing = (128, 128, 128), (0.5, 0.5, 0.5)
    affine = np.diag([*spacing, 1.0])
    field = tube_distance(grow_tree(3, shape, spacing, loops=2), shape, affine, band=2.0)
    prediction, reference = Volume(field <= 0.2, affine), Volume(field <= 0, affine)
    start = time.process_time()
    result = evaluate(prediction, reference)
    assert time.process_time() - start < 5  # 0.6 s without the shape checks and on an idle machine
    assert result["recall"] == 1.0
    assert result["tree_length_detected"] > 0.99


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.8, 1.2)])
def test_the_distance_in_the_middle_of_thick_vessels(spacing, monkeypatch):
    shape = tuple(round(30 / step) for step in spacing)
    grid = np.indices(shape).T * spacing - (np.array(shape) - 1) / 2 * spacing
    truth = np.linalg.norm(grid, axis=-1).T - 11.3
    few = wall_distance(truth <= 0, spacing)
    band = BAND * max(spacing)
    assert few.max() == pytest.approx(band)
    deep = truth < -band
    assert np.abs(few - truth)[deep].mean() < 0.14 * max(spacing)
    assert np.abs(few - truth)[deep].max() < 0.6 * max(spacing)
    monkeypatch.setattr("vesselsdf.metrics.MANY_DEEP", 0)
    np.testing.assert_allclose(wall_distance(truth <= 0, spacing), few, atol=0.6 * max(spacing))


def test_too_large_fields_are_not_matched_and_it_is_said(monkeypatch):
    whole = evaluate(CUBE, VOXEL)
    assert whole["betti_matching0"] == 0
    for limit, says in (("MATCHING_EDGE", "voxels"), ("MATCHING_FEATURES", "features")):
        with monkeypatch.context() as patch:
            patch.setattr(f"vesselsdf.metrics.{limit}", 0)  # a cube of no voxels, no features
            result = evaluate(CUBE, VOXEL)
        assert all(math.isnan(result[f"betti_matching{k}"]) for k in range(3))
        assert all(says in result["reasons"][f"betti_matching{k}"] for k in range(3))
        assert "n/a because " + result["reasons"]["betti_matching0"] in format_table(result)
        assert result["bottleneck0"] == whole["bottleneck0"]
    monkeypatch.setattr("vesselsdf.metrics.DIAGRAM_FEATURES", 0)
    result = evaluate(CUBE, VOXEL)
    for key in (f"{name}{k}" for name in ("bottleneck", "wasserstein") for k in range(3)):
        assert math.isnan(result[key])
        assert "features" in result["reasons"][key]


def test_a_given_distance_reaches_the_border_as_its_mask_does():
    grid = np.indices((10, 9, 30)).T - (1.0, 4.0, 15.0)
    field = Volume((np.hypot(*grid.T[:2]) - 2.6).astype(np.float32), np.eye(4))
    mask = field.with_array(field.array <= 0)
    for pair in ((field, mask), (mask, field), (field, field)):
        result = evaluate(*pair)
        assert [result[f"{name}{k}"] for name in ("diu", "betti_matching") for k in range(3)] == [0] * 6
        assert result["tree_length_detected"] == result["dice"] == 1.0


def test_the_bottleneck_distance_is_the_shift_of_a_thin_wall():
    field = np.linalg.norm(np.indices((30, 20, 20)).T - (14.5, 9.5, 9.5), axis=-1).T - 2.0
    thick, thin = (Volume((field + shift).astype(np.float32), np.eye(4)) for shift in (0.0, 0.4))
    result = evaluate(thick, thin, tolerance=1)
    assert result["bottleneck0"] == result["wasserstein0"] == pytest.approx(0.4, abs=1e-5)
    # What lies beyond the band on both sides does not count.
    assert evaluate(*(v.with_array(v.array - np.float32(3)) for v in (thick, thin)))["bottleneck0"] == 0.0
