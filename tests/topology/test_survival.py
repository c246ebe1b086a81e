"""Across levels: rings whose fate is known, decisions, and certificates that no pair of fields may ever contradict."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.scales import bounds, pyramid
from vesselsdf.topology.decisions import changed
from vesselsdf.topology.survival import check_certificates, sup_distance, survival, wall_error


def ring_field(n=40, big=10.0, small=2.2, h=1.0):
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * h] * 3, indexing="ij")
    return (np.hypot(np.hypot(x, y) - big, z) - small).astype(np.float32)


def random_field(seed, shape, sigma):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return (field / field.std()).astype(np.float32)


def count_loops(sdf, affine):
    """A stand-in for decisions from a centreline graph."""
    volume = np.count_nonzero(sdf <= 0) * abs(np.linalg.det(affine[:3, :3]))
    from vesselsdf.topology.betti import betti_numbers

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


@given(st.integers(0, 2**32), st.floats(0, 2.5), st.floats(0, 2.5), st.floats(0.001, 2), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_no_certificate_is_ever_contradicted(seed, sigma, sigma_error, size, thickness):
    shape = (thickness, 9, 9)
    f = random_field(seed, shape, sigma) if thickness > 1 or sigma < 2 else np.round(random_field(seed, shape, 1.0))
    g = f + size * random_field(seed + 1, shape, sigma_error)
    found = check_certificates(f, g)
    assert not found["contradicted"], found
    assert found["eps"] <= sup_distance(f, g)


def test_certificates_hold_on_200_fields_and_are_worth_something():
    certified = survived = 0
    for seed in range(200):
        f = random_field(seed, (8, 9, 10), 1 + seed % 3)
        g = f + 0.02 * (1 + seed % 20) * random_field(seed + 1000, f.shape, seed % 4)
        found = check_certificates(f, g)
        assert not found["contradicted"], (seed, found)
        certified += sum(found["certified"])
        survived += sum(found["local"])
    assert certified > 0.2 * survived


def test_decisions_compare_counts_lengths_radii_and_records():
    before = {
        "trees": 1,
        "branches": 3,
        "total_length": 100.0,
        "paths": [
            {"place": (0, 0, 0), "reached": True, "length": 50.0, "minimum_radius": 1.0},
            {"place": (9, 0, 0), "reached": True, "length": 70.0, "minimum_radius": 1.0},
        ],
    }
    assert changed(before, before, reach=1) == []
    after = {
        "trees": 1,
        "branches": 5,
        "total_length": 96.0,
        "paths": [
            {"place": (9, 0.5, 0), "reached": False, "length": 72.0, "minimum_radius": 0.8},
            {"place": (40, 0, 0), "reached": True, "length": 1.0, "minimum_radius": 1.0},
        ],
    }
    found = changed(before, after, reach=1)
    assert [(d["decision"], d["place"]) for d in found] == [
        ("paths", (0, 0, 0)),
        ("paths.reached", (9, 0, 0)),
        ("paths.minimum_radius", (9, 0, 0)),
        ("paths", (40, 0, 0)),
    ]
    assert found[0]["after"] is None
    assert found[3]["before"] is None
    assert changed({"total_length": 100.0}, {"total_length": 90.0}, reach=1) == [
        {"decision": "total_length", "before": 100.0, "after": 90.0}
    ]
    assert len(changed(before, before | {"paths": []}, reach=1)) == 2


def test_empty_full_and_large_levels():
    far = np.full((8, 8, 8), 5.0, np.float32)
    report = survival(pyramid(far, 2), (1.0, 1.0, 1.0), decide=count_loops)
    assert report["coarsest_safe_level"] is None
    assert report["levels"][1]["survived"] == [0, 0, 0]
    report = survival(pyramid(-far, 2), (1.0, 1.0, 1.0), decide=count_loops)
    assert report["levels"][1]["survived"] == [1, 0, 0]
    assert report["coarsest_safe_level"] == 1
    large = survival(pyramid(ring_field(66), 2), (1.0, 1.0, 1.0))["levels"]
    assert large[0]["features"] is None
    assert large[1]["certified"]["uniform"] is None
    assert "64^3" in large[1]["certified"]["reason"]
    assert len(large[1]["features"]) == 2


def test_wall_error_is_the_depth_of_what_was_exchanged():
    f = ring_field()
    assert wall_error(f, f) == 0
    g = f.copy()
    g[f <= -1.0] = 1.0
    assert wall_error(f, g) == pytest.approx(-f.min())
    assert sup_distance(f, g) == pytest.approx(1.0 - f.min())


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
