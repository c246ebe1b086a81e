"""The evaluation table: which error is seen by which metric, and what comes of odd input."""

import csv
import json
import math
import time
from functools import cache

import networkx as nx
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.files import write_json
from vesselsdf.metrics import TABLE, evaluate, format_table, summarise, topology_errors, vessel_mask, write_csv
from vesselsdf.volume import Volume

NODES = {
    "root": (3, 20, 12),
    "a": (14, 20, 12),
    "b": (32, 20, 12),
    "end": (53, 20, 12),
    "up": (14, 37, 12),
    "side": (36, 37, 12),
}
TRUNK = [("root", "a", 2.5), ("a", "b", 2.5), ("b", "end", 2.5)]
UP, SIDE = ("a", "up", 1.6), ("b", "side", 1.6)
LOOP = ("a", "b", 1.6, (18, 6, 12), (28, 6, 12))
BOX = (56.0, 40.0, 24.0)  # mm
SPACINGS = {"isotropic": (1.0, 1.0, 1.0), "thick slices": (0.8, 0.8, 1.6)}


def tubes(*edges: tuple, **nodes: tuple) -> nx.MultiGraph:
    places = {**NODES, **nodes}
    graph = nx.MultiGraph()
    for u, v, radius, *via in edges:
        points = np.array([places[u], *via, places[v]], float)
        for name in (u, v):
            graph.add_node(name, pos=np.array(places[name], float), radius=radius)
        graph.add_edge(u, v, start=u, points=points, radii=np.full(len(points), radius), length=0.0)
    return graph


def voxels(graph: nx.MultiGraph, spacing: tuple, shift: float = 0.0) -> Volume:
    shape = tuple(round(edge / step) for edge, step in zip(BOX, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    return Volume(tube_distance(graph, shape, affine) <= shift, affine)


WHOLE = [*TRUNK, UP, SIDE, LOOP]
# A cut of 3 mm between the tips of the round ends, so that no voxel bridges it.
CUT_TRUNK = [("root", "a", 2.5), ("a", "c1", 2.5), ("c2", "b", 2.5), TRUNK[2], UP, SIDE]
CUT_NODES = {"c1": (19.0, 20, 12), "c2": (27.5, 20, 12)}
CUT_LOOP = [*TRUNK, UP, SIDE, ("a", "l1", 1.6, (18, 6, 12)), ("l2", "b", 1.6, (28, 6, 12))]
CUT_LOOP_NODES = {"l1": (20, 6, 12), "l2": (26.5, 6, 12)}
MOVED_LOOP = [*TRUNK, UP, SIDE, ("b", "end", 1.6, (36, 6, 12), (48, 6, 12))]


def damaged(error: str, spacing: tuple) -> tuple[Volume, Volume]:
    """A prediction with one error, and the reference."""
    reference = voxels(tubes(*WHOLE), spacing)
    if error == "lost terminal":
        return voxels(tubes(*TRUNK, SIDE, LOOP), spacing), reference
    if error == "cut loop":
        return voxels(tubes(*CUT_LOOP, **CUT_LOOP_NODES), spacing), reference
    if error == "cut trunk":
        return voxels(tubes(*CUT_TRUNK, **CUT_NODES), spacing), voxels(tubes(*TRUNK, UP, SIDE), spacing)
    if error == "false bridge":
        bridge = ("up1", "side1", 1.6)
        branches = [("a", "up1", 1.6), ("up1", "up", 1.6), ("b", "side1", 1.6), ("side1", "side", 1.6)]
        return voxels(
            tubes(*TRUNK, *branches, LOOP, bridge, up1=(14, 33, 12), side1=(32 + 4 * 13 / 17, 33, 12)), spacing
        ), reference
    if error == "dilation":
        return voxels(tubes(*WHOLE), spacing, 0.6), reference
    if error == "erosion":
        return voxels(tubes(*WHOLE), spacing, -0.6), reference
    if error == "moved loop":
        return voxels(tubes(*MOVED_LOOP), spacing), reference
    array = reference.array.copy()
    index = tuple(np.rint(reference.to_index(np.array([[44.0, 7.0, 6.0] if error == "blob" else [24.0, 20, 12]]))[0]))
    spot = np.zeros_like(array)
    spot[tuple(int(k) for k in index)] = True
    if error == "blob":
        return reference.with_array(array | binary_dilation(spot)), reference
    assert error == "pin-hole"
    return reference.with_array(array & ~spot), reference


@cache
def measured(error: str, grid: str) -> dict:
    return evaluate(*damaged(error, SPACINGS[grid]))


# For each error: the metrics that must see it, and those that are blind to it by their nature.
SEEN = {
    "lost terminal": (
        "recall tree_length_detected branches_detected node_recall terminals_reached hd95 cldice",
        "beta0_error beta1_error beta2_error euler_error diu0 diu1 diu2 false_splits false_merges branches_precision",
    ),
    "cut loop": (
        "beta1_error euler_error diu1 false_splits tree_length_detected cldice",
        "beta0_error beta2_error diu0 diu2 false_merges branches_detected terminals_reached precision",
    ),
    "cut trunk": (
        "beta0_error euler_error diu0 false_splits terminals_reached cldice",
        "beta1_error beta2_error diu1 diu2 false_merges precision",
    ),
    "false bridge": (
        "beta1_error euler_error diu1 false_merges branches_precision tree_length_precision precision node_precision",
        "beta0_error beta2_error diu0 diu2 false_splits tree_length_detected branches_detected recall",
    ),
    "dilation": (
        "dice precision assd radius_error radius_bias",
        "recall beta0_error beta1_error beta2_error diu0 diu1 diu2 false_splits false_merges terminals_reached",
    ),
    "erosion": (
        "dice recall assd radius_error radius_bias",
        "precision beta0_error beta1_error beta2_error diu0 diu1 diu2 false_splits false_merges terminals_reached",
    ),
    "blob": (
        "beta0_error euler_error diu0 precision branches_precision node_precision",
        "recall beta1_error diu1 tree_length_detected branches_detected false_splits false_merges terminals_reached",
    ),
    "pin-hole": (
        "beta2_error euler_error diu2 recall",
        "beta0_error beta1_error diu0 diu1 precision false_splits false_merges branches_detected terminals_reached",
    ),
    "moved loop": (
        "diu1 branches_detected branches_precision tree_length_detected tree_length_precision "
        "false_splits false_merges",
        "beta0_error beta1_error beta2_error euler_error diu0 diu2 terminals_reached",
    ),
}
PERFECT = {row.key: 1.0 if row.better == "higher" else 0.0 for row in TABLE if row.better}


@pytest.mark.parametrize("grid", SPACINGS)
def test_a_mask_equals_itself(grid):
    reference = voxels(tubes(*WHOLE), SPACINGS[grid])
    result = evaluate(reference, reference)
    assert {key: result[key] for key in PERFECT} == pytest.approx(PERFECT)
    assert [result[f"beta{k}_reference"] for k in range(3)] == [1, 1, 0]
    assert result["tolerance"] == max(SPACINGS[grid])
    assert result["places"]["surface"] == result["places"]["topology"] == []
    assert not any(result["places"]["graph"].values())
    assert "worst places" not in format_table(result)


@pytest.mark.parametrize("grid", SPACINGS)
@pytest.mark.parametrize("error", SEEN)
def test_which_metric_sees_which_error(error, grid):
    result = measured(error, grid)
    seeing, blind = (keys.split() for keys in SEEN[error])
    # Centrelines of two masks agree to a fraction of a voxel, so graph metrics count as perfect within 2%.
    changed = {key for key, value in PERFECT.items() if abs(result[key] - value) > (0.02 if "length" in key else 1e-9)}
    assert set(seeing) <= changed, f"{set(seeing) - changed} did not see it"
    assert not set(blind) & changed, {key: result[key] for key in set(blind) & changed}


def near(places: list[dict], expected: tuple, within: float = 4.0) -> bool:
    return any(math.dist(item["place"], expected) <= within for item in places)


@pytest.mark.parametrize("grid", SPACINGS)
def test_the_worst_places_are_where_the_errors_are(grid):
    places = {error: measured(error, grid)["places"] for error in SEEN}
    assert near(places["lost terminal"]["surface"][:1], (14, 37, 12))
    assert near(places["lost terminal"]["graph"]["terminals_lost"], (14, 37, 12))
    assert near(places["cut loop"]["topology"], (23, 6, 12))
    assert near(places["cut loop"]["graph"]["false_splits"], (23, 6, 12))
    assert near(places["cut trunk"]["topology"], (23, 20, 12), within=8)
    assert near(places["cut trunk"]["graph"]["false_splits"], (23, 20, 12))
    assert near(places["false bridge"]["topology"], (24, 33, 12), within=8)
    assert near(places["false bridge"]["graph"]["false_merges"], (24, 33, 12))
    assert near(places["blob"]["topology"], (44, 7, 6))
    assert near(places["blob"]["surface"][:1], (44, 7, 6))
    assert near(places["pin-hole"]["topology"], (24, 20, 12))
    assert {item["fate"] for item in places["moved loop"]["topology"]} == {"lost", "invented"}


def test_dilation_and_erosion_have_their_size_and_sign():
    for error, sign in (("dilation", 1), ("erosion", -1)):
        result = measured(error, "isotropic")
        assert result["radius_bias"] == pytest.approx(0.6 * sign, abs=0.25)
        assert result["assd"] == pytest.approx(0.6, abs=0.35)
        assert result["nsd"] > 0.85


def test_results_do_not_depend_on_orientation():
    prediction, reference = damaged("cut loop", SPACINGS["thick slices"])
    plain = evaluate(prediction, reference)
    turn = np.array([[0, 0, -1, 60.0], [0.6, 0.8, 0, -7], [-0.8, 0.6, 0, 3], [0, 0, 0, 1]])
    turned = []
    for volume in (prediction, reference):
        # Flip x and swap y with z, and say so in the affine: the same thing in the world, then turned and moved.
        array = np.flip(volume.array, 0).transpose(0, 2, 1)
        step = volume.affine @ np.array([[-1, 0, 0, volume.shape[0] - 1], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
        turned.append(Volume(np.ascontiguousarray(array), turn @ step))
    other = evaluate(*turned)
    for key in (
        "dice",
        "precision",
        "recall",
        "nsd",
        "hd95",
        "assd",
        "beta1_error",
        "diu1",
        "false_splits",
        "tolerance",
    ):
        assert other[key] == pytest.approx(plain[key]), key
    for key in PERFECT:
        # Thinning takes voxels in the order of their index, so its skeletons may differ by a voxel.
        assert other[key] == pytest.approx(plain[key], abs=0.05), key
    split = plain["places"]["graph"]["false_splits"][0]["place"]
    assert near(other["places"]["graph"]["false_splits"], tuple((turn @ [*split, 1])[:3]), within=2)


def test_a_distance_and_its_mask_are_the_same_vessel():
    reference = voxels(tubes(*WHOLE), (1.0, 1.0, 1.0))
    sdf = reference.with_array(tube_distance(tubes(*WHOLE), reference.shape, reference.affine))
    result = evaluate(sdf, reference)
    for key, value in PERFECT.items():
        # A mask knows its wall to half a voxel.
        assert result[key] == pytest.approx(value, abs=0.35 if "radius" in key or "centreline" in key else 0.02), key


def block(low: int, high: int, shape=(10, 10, 10)) -> Volume:
    mask = np.zeros(shape, bool)
    mask[low:high, low:high, low:high] = True
    return Volume(mask, np.diag([0.5, 0.5, 2.0, 1.0]))


EMPTY, FULL, CUBE, VOXEL = block(0, 0), block(0, 10), block(3, 7), block(4, 5)
SHARES = [row.key for row in TABLE if row.better == "higher"]
DISTANCES = ["hd95", "assd", "path_length_error", "centreline_error", "radius_error"]


def test_two_empty_masks_agree_and_it_is_said():
    result = evaluate(EMPTY, EMPTY)
    assert {key: result[key] for key in PERFECT} == PERFECT
    assert result["both_empty"] is True
    assert "empty" in format_table(result)


@pytest.mark.parametrize("pair", [(EMPTY, CUBE), (CUBE, EMPTY), (FULL, EMPTY), (EMPTY, VOXEL)])
def test_one_empty_mask_never_scores(pair):
    result = evaluate(*pair)
    assert {key: result[key] for key in SHARES} == dict.fromkeys(SHARES, 0.0)
    assert {key: result[key] for key in DISTANCES} == dict.fromkeys(DISTANCES, math.inf)
    assert [result[f"{name}0{end}"] for name, end in (("beta", "_error"), ("diu", ""))] == [1, 1]
    assert result["euler_error"] == 1
    assert not result["both_empty"]


@pytest.mark.parametrize("mask", [FULL, CUBE, VOXEL], ids=["full", "cube", "voxel"])
def test_full_masks_and_single_voxels_equal_themselves(mask):
    result = evaluate(mask, mask)
    for key, value in PERFECT.items():
        if key in ("terminals_reached", "path_length_error") and math.isnan(result[key]):
            continue  # a lone node has no terminals to reach
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


def test_what_counts_as_vessel():
    def mask_of(values, dtype) -> list:
        return vessel_mask(Volume(np.array([[values]], dtype=dtype), np.eye(4)), "it").ravel().tolist()

    assert mask_of([0, 1], bool) == [False, True]
    assert mask_of([0, 3], np.uint8) == mask_of([0, 3], np.int16) == mask_of([0, 3], np.float64) == [False, True]
    assert mask_of([-1, 0, 0.5], np.float32) == [True, True, False]
    assert mask_of([0.5, 7.0], np.float32) == [False, False]
    assert mask_of([1, 1], np.float32) == [True, True]


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.full((3, 3, 3), np.nan), "NaN"),
        (np.full((3, 3, 3), -np.inf), "infinite"),
        (np.linspace(0, 1, 27).reshape(3, 3, 3), "threshold"),
        (np.full((3, 3, 3), -1, np.int16), "below 0"),
        (np.zeros((3, 0, 3)), "no voxels"),
    ],
)
def test_arrays_that_are_neither_mask_nor_distance_are_refused(array, says):
    volume = Volume(array, np.eye(4))
    with pytest.raises(InputError, match=says) as error:
        evaluate(volume, volume, names=("a.nii", "b.nii"))
    assert "a.nii" in str(error.value)


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
    assert sorted(item["fate"] for item in places if item["feature"] == "loop") == ["invented", "lost"]


def test_the_table_is_complete():
    result = evaluate(CUBE, VOXEL)
    keys = [row.key for row in TABLE]
    assert set(result) == {*keys, "tolerance", "both_empty", "places"}
    assert len(set(keys)) == len(keys)
    assert {row.group for row in TABLE} == {"overlap", "surface", "topology", "graph"}
    text = format_table(result)
    assert all(f"  {row.key} " in text and row.meaning in text for row in TABLE)
    assert max(len(line) for line in text.splitlines()) <= 120


def test_summaries_leave_out_what_was_not_measured():
    results = [
        {"case": "one", "dice": 0.5, "hd95": 1.0, "node_f1": math.nan, "radius_bias": 0.1, "beta0_error": 1},
        {"case": "two", "dice": 0.7, "hd95": math.inf, "node_f1": 0.5, "radius_bias": -0.3, "beta0_error": 0},
    ]
    summary = summarise(results)
    assert summary["cases"] == 2
    assert (summary["dice"], summary["hd95"], summary["node_f1"]) == (pytest.approx(0.6), math.inf, 0.5)
    assert summary["radius_bias"] == pytest.approx(-0.1)
    assert math.isnan(summary["assd"])
    assert {key: summary["worst"][key] for key in ("dice", "hd95", "node_f1", "radius_bias", "beta0_error")} == {
        "dice": "one",
        "hd95": "two",
        "node_f1": "two",
        "radius_bias": "two",
        "beta0_error": "one",
    }
    assert "n/a" in format_table(summary)
    with pytest.raises(InputError, match="no results"):
        summarise([])


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


def test_a_pair_of_trees_takes_seconds():
    from vesselsdf.synthesis.trees import grow_tree

    shape, spacing = (128, 128, 128), (0.5, 0.5, 0.5)
    affine = np.diag([*spacing, 1.0])
    field = tube_distance(grow_tree(3, shape, spacing, loops=2), shape, affine, band=2.0)
    prediction, reference = Volume(field <= 0.2, affine), Volume(field <= 0, affine)
    start = time.process_time()
    result = evaluate(prediction, reference)
    assert time.process_time() - start < 10
    assert result["recall"] == 1.0
    assert result["tree_length_detected"] > 0.99
