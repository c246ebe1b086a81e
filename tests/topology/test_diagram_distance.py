"""Distances of diagrams: by hand, all matchings of small diagrams, Hera, and the theorems that hold for them."""

import itertools
import math

import numpy as np
import pytest
from gudhi import hera
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology import diagram_distance
from vesselsdf.topology.diagram_distance import bottleneck, diagram_distances, wasserstein, wasserstein_bounds
from vesselsdf.topology.persistence import diagrams

EMPTY = np.zeros((0, 2))
KINDS = ("any", "ties", "clipped", "near")


def random_diagram(rng, count, kind="any"):
    birth = rng.normal(size=count)
    death = birth + rng.exponential(size=count) * 10 ** rng.uniform(-3, 0)
    diagram = np.column_stack([birth, death])
    if kind == "ties":
        diagram = np.round(2 * diagram) / 2
    if kind == "clipped":
        diagram = np.clip(diagram, -0.5, 0.5)
    return diagram[diagram[:, 0] < diagram[:, 1]]


def random_pair(seed, most, kind):
    rng = np.random.default_rng(seed)
    a, b = (random_diagram(rng, rng.integers(0, most + 1), kind) for _ in range(2))
    if kind == "near":
        b = np.concatenate([a[: most - 1] + 1e-3 * rng.normal(size=(len(a[: most - 1]), 2)), b[:1]])
        b = b[b[:, 0] < b[:, 1]]
    return a, b


def all_moves(a, b):
    """The moves of every partial matching."""
    for count in range(min(len(a), len(b)) + 1):
        for rows in itertools.combinations(range(len(a)), count):
            for columns in itertools.permutations(range(len(b)), count):
                pairs = [np.abs(a[i] - b[j]).max() for i, j in zip(rows, columns, strict=True)]
                alone = [*np.delete(a, rows, axis=0), *np.delete(b, columns, axis=0)]
                yield np.array(pairs + [(death - birth) / 2 for birth, death in alone])


def same(a, b):
    return np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])


def test_distances_by_hand():
    a, b = np.array([[0.0, 4.0], [1.0, 2.0]]), np.array([[0.0, 3.0]])
    assert bottleneck(a, b) == 1.0
    assert wasserstein(a, b) == 1.5
    assert wasserstein(a, b, order=2) == pytest.approx(math.sqrt(1.25))
    # Two short bars far apart: both to the diagonal rather than to each other.
    assert bottleneck(np.array([[0, 1]]), np.array([[5, 7]])) == 1.0
    assert wasserstein(np.array([[0, 1]]), np.array([[5, 7]])) == 1.5
    # A long bar must take the partner that a short one would like too.
    a, b = np.array([[0.0, 10.0], [0.0, 9.0]]), np.array([[0.0, 9.5]])
    assert bottleneck(a, b) == 4.5
    assert wasserstein(a, b) == 5.0


def test_empty_diagrams():
    some = np.array([[0.0, 3.0], [1.0, 2.0]])
    assert bottleneck(EMPTY, EMPTY) == wasserstein(EMPTY, EMPTY) == 0.0
    assert bottleneck(some, EMPTY) == bottleneck(EMPTY, some) == 1.5
    assert wasserstein(some, EMPTY) == wasserstein(EMPTY, some) == 2.0
    assert wasserstein(some, EMPTY, order=2) == pytest.approx(math.sqrt(2.5))
    on_diagonal = np.array([[1.0, 1.0]])
    assert bottleneck(on_diagonal, EMPTY) == wasserstein(on_diagonal, on_diagonal + 1) == 0.0


def test_points_that_never_die_move_among_themselves():
    a = np.array([[3.0, math.inf], [0.0, math.inf], [0.0, 2.0]])
    b = np.array([[0.5, math.inf], [5.0, math.inf]])
    assert bottleneck(a, b) == 2.0
    assert wasserstein(a, b) == 3.5
    assert wasserstein(a, b, order=2) == pytest.approx(math.sqrt(4 + 0.25 + 1))
    assert bottleneck(a, b[:1]) == wasserstein(a, b[:1]) == math.inf
    assert wasserstein_bounds(a, EMPTY) == (math.inf, math.inf)
    assert diagram_distances([a], [b[:1]])[0]["wasserstein"] == math.inf


def test_what_crashes_or_hangs_hera():
    """gudhi 3.13: hera.wasserstein_distance is killed by a segmentation fault on the first, never returns on others."""
    end = math.inf
    assert wasserstein(np.array([[1, end], [0, 2], [3, 4]]), np.array([[0, end]])) == 2.5
    assert wasserstein(np.array([[0, end]]), np.array([[1, end], [0, 2], [3, 4]])) == 2.5
    assert wasserstein(np.array([[0, end], [2, 3]]), np.array([[1, end], [2, 3]])) == 1.0


@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([1, 1.5, 2, 5]))
@settings(max_examples=120, deadline=None)
def test_small_diagrams_against_all_matchings(seed, kind, order):
    a, b = random_pair(seed, 4, kind)
    moves = list(all_moves(a, b))
    assert bottleneck(a, b) == min(m.max(initial=0) for m in moves)
    least = min(np.linalg.norm(m, order) if m.size else 0 for m in moves)
    assert wasserstein(a, b, order) == pytest.approx(least, rel=1e-9, abs=1e-12)


@given(st.integers(0, 2**32), st.sampled_from(KINDS))
@settings(max_examples=80, deadline=None)
def test_bottleneck_is_heras(seed, kind):
    a, b = random_pair(seed, 60, kind)
    assert bottleneck(a, b) == pytest.approx(hera.bottleneck_distance(a, b, delta=0), rel=1e-12, abs=1e-15)


@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([1, 2]))
@settings(max_examples=100, deadline=None)
def test_they_are_metrics(seed, kind, order):
    a, b = random_pair(seed, 25, kind)
    c = random_diagram(np.random.default_rng(seed + 1), 20, kind)
    for distance in (bottleneck, lambda x, y: wasserstein(x, y, order)):
        assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
        assert distance(a, a[::-1]) == 0.0
        assert (distance(a, b) == 0) == same(a, b)
        assert distance(a, c) <= (distance(a, b) + distance(b, c)) * (1 + 1e-9)
    assert bottleneck(a, b) <= wasserstein(a, b, order) * (1 + 1e-9)
    assert wasserstein(a, b, 2) <= wasserstein(a, b, 1) * (1 + 1e-9)


@given(st.integers(0, 2**32), st.floats(0, 1.5), st.floats(0.01, 1.0), st.sampled_from([None, 0.3, 1.0]))
@settings(max_examples=40, deadline=None)
def test_bottleneck_distance_is_at_most_the_sup_norm(seed, sigma, size, band):
    rng = np.random.default_rng(seed)
    f, error = (ndimage.gaussian_filter(rng.normal(size=(8, 8, 8)), sigma) for _ in range(2))
    g = f + size * error
    eps = np.abs(f - g).max()
    for found in diagram_distances(diagrams(f, band), diagrams(g, band)):
        assert found["bottleneck"] <= eps * (1 + 1e-12)
        assert found["bottleneck"] <= found["wasserstein"] * (1 + 1e-9)


@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([1, 2]), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_bounds_enclose_the_distance_beyond_the_limit(seed, kind, order, limit):
    a, b = random_pair(seed, 40, kind)
    a, b = (np.concatenate([d, [[birth, math.inf]]]) for d, birth in ((a, 0.0), (b, 0.25)))
    exact = wasserstein(a, b, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagram_distance, "MAX_PAIRS", limit)
        low, high = wasserstein_bounds(a, b, order)
        assert low <= exact * (1 + 1e-9)
        assert exact <= high * (1 + 1e-9)
        if low < high:
            assert diagram_distances([a], [b], order)[0]["wasserstein"] is None
            with pytest.raises(InputError, match="too many"):
                wasserstein(a, b, order)


def test_crowded_diagrams_take_the_way_of_little_memory(monkeypatch):
    a, b = random_pair(3, 80, "ties")
    found = bottleneck(a, b)
    monkeypatch.setattr(diagram_distance, "MAX_LINKS", 5)
    assert bottleneck(a, b) == found > 0


def test_thousands_of_points():
    rng = np.random.default_rng(0)
    a = random_diagram(rng, 1500)
    b = a + rng.uniform(-0.01, 0.01, a.shape)
    b = b[b[:, 0] < b[:, 1]]
    assert bottleneck(a, b) <= 0.01
    assert wasserstein(a, b) <= 0.01 * len(a)


def test_bad_input_is_refused_in_one_sentence():
    good = np.array([[0.0, 1.0]])
    for bad in (np.zeros(3), np.zeros((2, 3)), np.array([]), np.array([["a", "b"]]), np.zeros((1, 2), bool)):
        with pytest.raises(InputError, match="second diagram has shape"):
            bottleneck(good, bad)
    for bad in ([[0.0, math.nan]], [[math.nan, 1.0]], [[-math.inf, 1.0]], [[2.0, 1.0]], [[math.inf, math.inf]]):
        with pytest.raises(InputError, match="first diagram has NaN"):
            wasserstein(np.array(bad), good)
    for order in (0.5, math.inf, math.nan):
        with pytest.raises(InputError, match="order"):
            wasserstein(good, good, order)
    with pytest.raises(InputError, match="one per dimension"):
        diagram_distances([good], [good, good])
