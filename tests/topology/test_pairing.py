"""Pairing of places: worked out by hand, and against the dense assignment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vesselsdf.topology import pairing
from vesselsdf.topology.pairing import assign, pairs_within


def points(*xs):
    return np.array([[float(x), 0.0, 0.0] for x in xs]).reshape(-1, 3)


def test_least_total_distance_and_as_many_pairs_as_possible():
    # The nearest pair (1, 1.5) would leave 0 and 3 alone.
    assert pairs_within(points(0, 1), points(1.5, 3), 2).tolist() == [[0, 0], [1, 1]]
    assert pairs_within(points(0, 1), points(3.5), 2).tolist() == []
    assert pairs_within(points(), points(1), 2).tolist() == []
    assert pairs_within(points(4, 4), points(4, 4), 1).tolist() == [[0, 0], [1, 1]]


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_pairs_in_groups_are_those_of_one_large_assignment(seed, n, m, reach):
    generator = np.random.default_rng(seed)
    a, b = generator.random((n, 3)), generator.random((m, 3))
    distance = np.linalg.norm(a[:, None] - b, axis=-1)
    cost = np.where(distance <= reach, distance, 1000.0)
    rows, columns = linear_sum_assignment(cost)
    kept = cost[rows, columns] <= reach
    found = pairs_within(a, b, reach)
    assert len(np.unique(found[:, 0])) == len(np.unique(found[:, 1])) == len(found) == kept.sum()
    assert distance[found[:, 0], found[:, 1]].sum() == pytest.approx(cost[rows, columns][kept].sum())


def test_many_places_are_assigned_from_the_nearest_on(monkeypatch):
    monkeypatch.setattr(pairing, "DENSE", 0)
    generator = np.random.default_rng(0)
    b = generator.random((500, 3))
    order = generator.permutation(500)[:400]
    assert assign(b[order] + 1e-9, b).tolist() == order.tolist()
    crowded = assign(np.zeros((50, 3)), b)
    assert len(set(crowded.tolist())) == 50
    assert set(crowded.tolist()) == set(np.argsort(np.linalg.norm(b, axis=1))[:50].tolist())
