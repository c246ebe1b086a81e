"""Across levels: rings whose fate is known, decisions, and certificates that no pair of fields may ever contradict."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.scales import bounds, prolong_to, pyramid
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.certificates import gudhi_rank
from vesselsdf.topology.decisions import Description
from vesselsdf.topology.survival import survival


def ring_field(n=40, big=10.0, small=2.2, h=1.0):
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * h] * 3, indexing="ij")
    return (np.hypot(np.hypot(x, y) - big, z) - small).astype(np.float32)


def random_field(seed, shape, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (field / field.std()).astype(np.float32)


def count_loops(sdf, affine):
    """A stand-in for decisions from a centreline graph."""
    volume = np.count_nonzero(sdf <= 0) * abs(np.linalg.det(affine[:3, :3]))
    return {"trees": betti_numbers(sdf <= 0)[0], "loops": betti_numbers(sdf <= 0)[1], "total_length": volume}


def test_a_ring_survives_until_the_spacing_exceeds_its_tube():
    report = survival(pyramid(ring_field(), 4), (1.0, 1.0, 1.0), decide=count_loops)
    first, second, third, last = report["levels"]
    for row in (first, second):
        assert row["betti"] == row["survived"] == [1, 1, 0]
        assert row["certified"]["uniform"] == row["certified"]["local"] == [1, 1, 0]
        assert row["lost"] == row["invented"] == []
    for row in (third, last):
        assert row["betti_on_finest_grid"] == row["survived"] == [0, 0, 0]
        assert [(d["dimension"], d["kind"]) for d in row["lost"]] == [(0, "absent"), (1, "cut")]
    assert first["error"] == first["wall_error"] == 0
    assert report["coarsest_safe_level"] == 1
    assert third["decisions"] is None
    assert third["changed"] == [{"decision": "any vessel", "before": True, "after": False}]
    assert third["spacing"] == [4, 4, 4]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_min_keeps_the_ring_at_every_level_and_fattens_it():
    report = survival(pyramid(ring_field(), 3, "min"), (1.0, 1.0, 1.0), operator="min")
    assert report["operator"] == "min"
    assert report["coarsest_safe_level"] is None
    assert [row["survived"] for row in report["levels"]] == [[1, 1, 0]] * 3
    assert report["levels"][2]["volume"] > 3 * report["levels"][0]["volume"]


def test_margins_and_passports_are_lengths_in_mm():
    h = 0.5
    field = ring_field(40, 5.0, 1.6, h)
    report = survival(pyramid(field, 4), (h, h, h), bounds=bounds(h, 4, kappa=0.8))
    component, loop = report["levels"][0]["features"]
    assert component["death"] == "inf"
    assert component["margin"] == pytest.approx(1.6, abs=h)
    assert loop["margin"] == pytest.approx(1.6, abs=h)
    assert loop["death"] == pytest.approx(3.4, abs=h)
    assert loop["passport_level"] == 1  # B_1 = 0.8 mm < 1.1 .. 1.6 mm < B_2 = 2.4 mm
    assert loop["passport_spacing"] == [1.0, 1.0, 1.0]
    assert report["levels"][1]["certified"]["a_priori"] == [1, 1, 0]
    assert report["levels"][2]["certified"]["a_priori"] == [0, 0, 0]


def test_places_follow_the_affine():
    affine = np.array([[0, -2.0, 0, 100], [2.0, 0, 0, -50], [0, 0, 2.0, 7], [0, 0, 0, 1]])
    field = 2 * ring_field()
    field[18:22, 25:] = np.maximum(field[18:22, 25:], -0.2)  # a stenosis that the first coarsening opens
    field[18:22, 28:31] = 0.5
    whole = 2 * ring_field()
    report = survival([whole, pyramid(field, 2)[1]], (2.0, 2.0, 2.0), affine=affine)
    (lost,) = report["levels"][1]["lost"]
    assert (lost["dimension"], lost["kind"]) == (1, "cut")
    index = np.linalg.solve(affine, [*lost["place"], 1])[:3]
    assert index == pytest.approx([19.5, 29, 19.5], abs=3)


@pytest.mark.parametrize("operator", ["mean", "min", "sample"])
@pytest.mark.parametrize("shape", [(13, 12, 9), (16, 16, 16)])
def test_rows_agree_with_each_other_on_random_fields(operator, shape):
    field = random_field(1, shape, 1.2)
    fields = pyramid(field, 3, operator)
    limits = [0.0, 0.4, 3.0]
    for row in survival(fields, (1.0, 1.0, 1.0), operator=operator, bounds=limits)["levels"]:
        first = np.array(survival(fields[:1], (1.0, 1.0, 1.0))["levels"][0]["betti"])
        survived = np.array(row["survived"])
        lost = np.bincount([d["dimension"] for d in row["lost"]], minlength=3)
        invented = np.bincount([d["dimension"] for d in row["invented"]], minlength=3)
        assert (survived + lost).tolist() == first.tolist()
        assert (survived + invented).tolist() == row["betti_on_finest_grid"]
        assert row["wall_error"] <= row["error"]
        assert (np.array(row["certified"]["uniform"]) <= row["betti_on_finest_grid"]).all()
        if row["error"] <= row["bound"]:
            assert (np.array(row["certified"]["a_priori"]) <= row["certified"]["uniform"]).all()


def test_empty_full_and_larger_levels():
    far = np.full((8, 8, 8), 5.0, np.float32)
    report = survival(pyramid(far, 2), (1.0, 1.0, 1.0), decide=count_loops)
    assert report["coarsest_safe_level"] is None
    assert report["levels"][1]["survived"] == [0, 0, 0]
    report = survival(pyramid(-far, 2), (1.0, 1.0, 1.0), decide=count_loops)
    assert report["levels"][1]["survived"] == [1, 0, 0]
    assert report["coarsest_safe_level"] == 1
    large = survival(pyramid(ring_field(66), 2), (1.0, 1.0, 1.0))["levels"]
    assert [len(row["features"]) for row in large] == [2, 2]
    assert large[1]["certified"]["uniform"] == [1, 1, 0]


def test_bad_pyramids_are_refused_in_one_sentence():
    field = ring_field(8, 2.0, 1.0)
    one = (1.0, 1.0, 1.0)
    with pytest.raises(InputError, match="no level"):
        survival([], one)
    with pytest.raises(InputError, match="Level 1"):
        survival([field, field], one)
    with pytest.raises(InputError, match="NaN"):
        survival([np.full((4, 4, 4), math.nan)], one)
    with pytest.raises(InputError, match="3D"):
        survival([field[0]], one)
    with pytest.raises(InputError, match="spacing"):
        survival([field], (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="affine"):
        survival([field], one, affine=np.diag([2.0, 1, 1, 1]))
    with pytest.raises(InputError, match="bounds"):
        survival([field], one, bounds=[0.0, 1.0])
    with pytest.raises(InputError, match="block"):
        survival([field], one, block=0)


def fates_of(report, dimension):
    return [feature for feature in report["levels"][0]["features"] if feature["dimension"] == dimension]


def narrowed_ring(n=48, big=14.0, wide=4.0, narrow=1.7):
    """A ring about the z axis: the radius of its tube is 4 voxels and, where x is largest and y = 0, only 1.7."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 3, indexing="ij")
    tube = np.where(x > 0, np.clip(narrow + 0.5 * (np.abs(y) - 2), narrow, wide), wide)
    return (np.hypot(np.hypot(x, y) - big, z) - tube).astype(np.float32)


@pytest.mark.parametrize("operator", ["mean", "sample"])
def test_a_loop_is_cut_at_its_narrow_place_at_the_level_that_misses_it(operator):
    # Levels of 2 voxels see a tube of radius 1.7, those of 4 voxels do not.
    report = survival(pyramid(narrowed_ring(), 3, operator), (1.0, 1.0, 1.0))
    (loop,) = fates_of(report, 1)
    assert loop["lost_at"] == 2
    assert [fate["fate"] for fate in loop["fates"]] == ["survives", "survives", "lost"]
    assert loop["fates"][2]["kind"] == loop["breaks_by"] == "cut"
    assert loop["fates"][2]["place"] == loop["breaks_at"]
    assert loop["breaks_at"] == pytest.approx([23.5 + 14, 23.5, 23.5], abs=2.5)
    # The axis runs midway between voxels: the deepest ones of the narrow part lie sqrt(1/2) from it.
    assert loop["margin"] == pytest.approx(1.7 - np.sqrt(0.5), abs=0.01)
    assert loop["certified_level"] == 1
    (component,) = fates_of(report, 0)
    assert component["lost_at"] is None
    assert report["levels"][2]["step"]["survived"] == [1, 0, 0]
    assert [entry["kind"] for entry in report["levels"][2]["step"]["lost"]] == ["cut"]


def test_min_merges_two_near_vessels_at_the_level_that_spans_their_gap():
    x, y = np.indices((32, 32, 32)).astype(np.float32)[:2]
    wide = np.hypot(x - 8.5, y - 15.5) - 4
    thin = np.hypot(x - 19.5, y - 15.5) - 2.6  # a gap of 4.4 voxels
    field = np.minimum(wide, thin)
    report = survival(pyramid(field, 4, "min"), (0.5, 0.5, 0.5), operator="min")
    first, second = sorted(fates_of(report, 0), key=lambda feature: feature["birth"])
    assert first["lost_at"] is None
    level = second["lost_at"]
    assert level in (1, 2)
    fate = second["fates"][level]
    assert fate["kind"] == second["breaks_by"] == "merged" or second["margin"] < 2.2
    assert 0.5 * 12 < fate["place"][0] < 0.5 * 17.5  # between the two walls
    assert report["levels"][level]["survived"] == [1, 0, 0]


def test_a_thin_shell_is_opened_and_a_small_cavity_filled():
    x, y, z = np.indices((32, 32, 32)) - 15.5
    away = np.sqrt(x**2 + y**2 + z**2)
    thin_shell = (np.abs(away - 8) - np.where(x > 5, 1.2, 3.0)).astype(np.float32)
    report = survival(pyramid(thin_shell, 3), (1.0, 1.0, 1.0))
    (cavity,) = fates_of(report, 2)
    assert cavity["breaks_by"] == "opened"
    lost = [fate for fate in cavity["fates"] if fate["fate"] == "lost"]
    assert cavity["lost_at"] == 2
    assert lost[-1]["kind"] == "opened"
    assert lost[-1]["place"][0] > 15.5 + 5
    small_cavity = (np.abs(away - 6) - 4).astype(np.float32)  # of radius 2
    (cavity,) = fates_of(survival(pyramid(small_cavity, 3), (1.0, 1.0, 1.0)), 2)
    assert cavity["breaks_by"] == "filled"
    assert cavity["margin"] == pytest.approx(2 - np.sqrt(0.75), abs=0.01)  # the deepest voxel is off the centre
    assert cavity["breaks_at"] == pytest.approx([15.5] * 3, abs=0.51)
    (lost,) = [fate for fate in cavity["fates"] if fate["fate"] == "lost"][:1]
    assert lost["kind"] == "filled"
    assert lost["place"] == pytest.approx([15.5] * 3, abs=2.5)


def test_a_margin_beyond_the_band_is_a_lower_bound():
    x, y, z = np.indices((48, 48, 48)) - 23.5
    (ball,) = fates_of(survival([(np.sqrt(x**2 + y**2 + z**2) - 20).astype(np.float32)], (1.0, 1.0, 1.0)), 0)
    assert ball["margin_is_lower_bound"] == (ball["margin"] < 19)
    assert (ball["breaks_at"] is None) == ball["margin_is_lower_bound"]
    assert 3 <= ball["margin"] <= 20


def mixed_field(seed, shape, sigma):
    """Smooth noise, rough noise, or small whole numbers with many ties."""
    if seed % 4 == 0:
        return np.round(2 * random_field(seed, shape, 1.0)).astype(np.float32)
    return random_field(seed, shape, sigma)


@given(st.integers(0, 2**32), st.floats(0.4, 2), st.sampled_from(["mean", "min", "sample"]), st.integers(1, 11))
@settings(max_examples=25, deadline=None)
def test_every_feature_has_one_fate_and_their_numbers_are_the_exact_ranks(seed, sigma, operator, thickness):
    field = mixed_field(seed, (thickness, 11, 12), sigma)
    report = survival(pyramid(field, 3, operator), (1.0, 1.0, 1.0), operator=operator)
    features = report["levels"][0]["features"]
    assert np.bincount([f["dimension"] for f in features], minlength=3).tolist() == report["levels"][0]["betti"]
    masks = [field <= 0]
    for level, row in enumerate(report["levels"]):
        for k in range(3):
            fates = [f["fates"][level]["fate"] for f in features if f["dimension"] == k]
            assert fates.count("survives") == row["survived"][k]
        named = [entry["feature"] for entry in row["lost"]]
        assert len(set(named)) == len(named)
        for entry in row["lost"]:
            feature = features[entry["feature"]]
            assert feature["dimension"] == entry["dimension"]
            # What the uniform certificate promises is never said to be lost.
            assert feature["margin"] <= row["wall_error"]
        certified = [np.array(row["certified"][name]) for name in ("composed", "uniform", "local")]
        assert (certified[0] <= certified[1]).all()
        assert (certified[1] <= certified[2]).all()
        along = np.array(row["certified"]["along"])
        assert (along <= certified[2]).all()
        if level:
            masks.append(prolong_to(pyramid(field, 3, operator)[level], field.shape, level) <= 0)
            common, union = np.logical_and.reduce(masks), np.logical_or.reduce(masks)
            steps = np.where(common, 0.0, np.where(union, 1.0, 2.0))
            assert tuple(along) == gudhi_rank(steps, 0.0, 1.0)


def test_a_description_tells_branches_lost_and_blocks():
    def describe(sdf, affine):
        branch = {"place": [2.0, 2.0, 2.0], "kind": "end", "length": 3.0}
        ring = {"place": [9.0, 9.0, 9.0], "kind": "loop", "length": 3.0}
        whole = sdf.shape[0] > 20
        return Description({"loops": 1}, [branch, ring] if whole else [], [], np.full((4, 3), 20.0), np.ones(4))

    report = survival(pyramid(ring_field(), 2), (1.0, 1.0, 1.0), decide=describe, block=20)
    assert report["coarsest_safe_level"] == 1
    assert [branch["place"] for branch in report["levels"][1]["branches_lost"]] == [[2.0, 2.0, 2.0]]
    assert report["levels"][1]["branches_invented"] == []
    assert report["levels"][0]["branches_lost"] == []
    assert report["blocks"]["blocks"] == 8
    assert report["blocks"]["safe_up_to"] == [0, 8]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
