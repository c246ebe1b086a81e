"""Decisions compared: counts, lengths, radii and records that are paired by their places."""

import numpy as np

from vesselsdf.topology.decisions import Description, changed, described, unpaired


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


def test_a_narrower_path_is_reported_at_its_narrowest_place():
    path = {"place": (0, 0, 0), "minimum_radius": 1.0, "narrowest_place": (5, 0, 0)}
    (found,) = changed({"paths": [path]}, {"paths": [path | {"minimum_radius": 0.5}]}, reach=1)
    assert (found["place"], found["terminal"]) == ((5, 0, 0), (0, 0, 0))


def test_counts_per_tree_are_compared_without_their_order():
    assert changed({"loops_per_tree": [2, 1]}, {"loops_per_tree": [1, 2]}, reach=1) == []
    assert len(changed({"loops_per_tree": [2, 1]}, {"loops_per_tree": [2, 2]}, reach=1)) == 1


def test_records_without_a_partner_on_each_side():
    old = [{"place": (0, 0, 0)}, {"place": (9, 0, 0)}]
    assert unpaired(old, [{"place": (0.5, 0, 0)}, {"place": (20, 0, 0)}], 1) == ([old[1]], [{"place": (20, 0, 0)}])
    assert unpaired([], old, 1) == ([], old)


def test_a_plain_dict_is_a_description_too():
    found = described({"loops": 1})
    assert isinstance(found, Description)
    assert found.branches == []
    assert described(found) is found
    assert np.array_equal(found.lengths, [])
