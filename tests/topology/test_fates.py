"""Fates: which feature a lost entry is, and how far its margin carries it."""

import numpy as np
import pytest

from vesselsdf.topology.fates import Finest, alive_features, band_of, fates, identify, passports, reach
from vesselsdf.topology.matching import shared_features


def level(field, affine=None, band=100.0):
    affine = np.eye(4) if affine is None else affine
    return Finest(field, field <= 0, affine, alive_features(field, affine, band), band)


def lost_of(finest, other):
    found = shared_features(finest.mask, other, finest.affine, order=finest.field)
    return [entry for k in range(3) for entry in found[k]["lost"]]


def test_merged_components_are_told_by_the_elder_rule_however_far_their_bridge_is():
    # Three bars side by side, the middle one deepest; the other mask joins the outer ones to it far from their depths.
    field = np.full((9, 3, 40), 5.0)
    field[1, 1, :] = -1.0
    field[4, 1, :] = -1.0
    field[7, 1, :] = -1.0
    field[1, 1, 2], field[4, 1, 2], field[7, 1, 2] = -1.5, -3.0, -2.0
    finest = level(field)
    joined = finest.mask.copy()
    joined[1:8, 1, 37] = True
    lost = lost_of(finest, joined)
    assert [entry["kind"] for entry in lost] == ["merged", "merged"]
    named = identify(lost, finest, joined, 5.0)
    assert sorted(finest.features[i].birth for i in named) == [-2.0, -1.5]


def test_an_absent_component_is_known_by_its_label():
    affine = np.array([[0, -0.5, 0, 10], [2.0, 0, 0, -5], [0, 0, 3, 0], [0, 0, 0, 1]])
    field = np.full((12, 5, 5), 3.0)
    field[1:4, 2, 2], field[8:11, 2, 2] = -1.0, -2.0
    finest = level(field, affine)
    other = finest.mask.copy()
    other[:5] = False
    lost = lost_of(finest, other)
    (named,) = identify(lost, finest, other, 1.0)
    assert finest.features[named].birth == -1.0
    assert finest.voxels([lost[0]["place"]])[0].tolist() == [1, 2, 2]


def test_what_is_certified_is_never_named_as_lost():
    # Two rings; the deep one has a larger margin than the error, so a cut near it must be the other one's.
    field = np.full((5, 5, 12), 4.0)
    for z, depth in ((2, -3.0), (9, -1.0)):
        field[:, :, z] = np.where(np.pad(np.zeros((3, 3), bool), 1, constant_values=True), depth, 4.0)
    finest = level(field)
    loops = [i for i, f in enumerate(finest.features) if f.dimension == 1]
    entry = {"dimension": 1, "kind": "cut", "place": (0.0, 0.0, 3.0)}
    (named,) = identify([entry], finest, finest.mask, 1.0)
    assert finest.features[named].birth == -1.0
    assert {finest.features[i].birth for i in loops} == {-3.0, -1.0}


def test_passports_by_hand():
    field = np.array([-2.0, 1.0, -1.0, 3.0]).reshape(1, 1, 4)
    found = alive_features(field, np.diag([0.5, 0.5, 0.5, 1]), 1.5)
    deep, shallow = passports(found, 0, [0.5] * 3, 1.5, [0.0, 0.9, 1.2, 9.0], [0.0, 0.1, 1.0, 0.2])
    assert (deep["margin"], deep["margin_is_lower_bound"], deep["breaks_at"]) == (1.5, True, None)
    assert (deep["passport_level"], deep["passport_spacing"]) == (2, [2.0] * 3)
    assert (deep["certified_level"], deep["certified_spacing"]) == (3, [4.0] * 3)
    assert (shallow["margin"], shallow["margin_is_lower_bound"]) == (1.0, False)
    assert (shallow["passport_level"], shallow["certified_level"]) == (
        1,
        1,
    )  # a margin of 1 does not exceed an error of 1
    assert (shallow["breaks_by"], shallow["breaks_at"]) == ("absent", (0.0, 0.0, 1.0))
    near = np.array([-3.0, 1.0, -2.0, 3.0]).reshape(1, 1, 4)
    merged = passports(alive_features(near, np.eye(4), 9.0), 0, [1.0] * 3, 9.0, None)[1]
    assert (merged["margin"], merged["breaks_by"], merged["breaks_at"]) == (1.0, "merged", (0.0, 0.0, 1.0))
    assert "passport_level" not in merged


def test_reach_starts_at_its_own_level():
    assert reach(0.5, [0.0, 0.4, 0.6], 2, [2.0]) == (3, [4.0])
    assert reach(0.0, [0.0, 0.0], 0, [1.0]) == (0, [1.0])


def test_fates_name_the_first_level_that_loses_a_feature_and_those_where_it_is_back():
    lost = {"dimension": 1, "kind": "cut", "place": (1, 2, 3), "feature": 1}
    levels = [{"level": k, "lost": [lost] if k == 1 else []} for k in range(3)]
    first, second = fates(2, levels)
    assert first["lost_at"] is None
    assert second["lost_at"] == 1
    assert [fate["fate"] for fate in second["fates"]] == ["survives", "lost", "survives"]
    assert second["fates"][1]["kind"] == "cut"


def test_the_band_is_wide_where_it_is_cheap():
    small = np.linalg.norm(np.indices((20, 20, 20)) - 9.5, axis=0) - 4
    assert band_of(small, 0.5) == 6.0
    crowded = np.tile(np.float32([-1.0, 1.0]), (150, 150, 75))
    assert band_of(crowded, 0.5) == pytest.approx(1.5)
