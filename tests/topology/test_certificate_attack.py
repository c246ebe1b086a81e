"""Certificates attacked on random and adversarial pairs of fields: no claim may ever exceed the truth.

`benchmarks/certificates.py` does the same at length, with the same generators and the same independent truth.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from certificates import check_chunk, check_pair, check_pyramid
from exact_ranks import BruteForce, Truth, nested, rank
from random_pairs import KINDS, PAIRS, PYRAMIDS

from vesselsdf.scales import coarsen, prolong
from vesselsdf.topology.certificates import raised

SIZES = st.tuples(*[st.integers(1, 4)] * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_no_claim_about_a_pair_of_this_kind_is_wrong(kind):
    tally = check_chunk(kind, 10**6, 10**6 + (15 if kind in PYRAMIDS else 40))
    assert tally.wrong == []
    assert tally.pairs >= 15


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_claim_about_five_hundred_pairs_is_wrong(kind):
    assert check_chunk(kind, 2 * 10**6, 2 * 10**6 + 500).wrong == []


@given(st.data(), SIZES)
@settings(max_examples=80, deadline=None)
def test_no_claim_about_small_integer_fields_is_wrong(data, shape):
    values = st.lists(st.integers(-2, 2), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))
    f, g = (np.reshape(data.draw(values), shape).astype(float) for _ in range(2))
    assert check_pair(f, g, brute=f.size <= 36)[1] == []


@given(st.integers(0, 2**32), st.sampled_from(range(len(PAIRS))), st.integers(1, 6), st.floats(-1, 1))
@settings(max_examples=60, deadline=None)
def test_no_claim_about_thin_fields_and_shifted_walls_is_wrong(seed, kind, edge, shift):
    generator = np.random.default_rng(seed)
    f = generator.normal(size=(1, edge, 6)) + shift
    assert check_pair(f, np.asarray(PAIRS[kind](generator, f)), brute=True)[1] == []


def test_a_feature_missed_by_one_unit_in_the_last_place_has_no_passport():
    """Bounds 0, 0.7, 0.7 + 1.4: their difference is below 1.4 in floating point, and a margin of 1.4 exceeds it."""
    bounds = [0.0, 0.7, 0.7 + 2 * 0.7]
    assert bounds[2] - bounds[1] < 1.4 < raised(bounds[2] - bounds[1])
    coarsest = np.full((1, 2, 1), 1e-17)
    middle = prolong(coarsest, (2, 4, 2)) - 1.4 * (np.indices((2, 4, 2)).sum(axis=0) == 0)
    finest = prolong(middle, (4, 8, 4))
    for _, wrong in check_pyramid([finest, middle, coarsest], bounds):
        assert wrong == []


def test_the_truth_is_that_of_known_shapes():
    ring = np.ones((5, 5, 1), bool)
    ring[1:4, 1:4] = False
    cut = ring.copy()
    cut[4, 2] = False
    apart = np.zeros((3, 3, 3), bool)
    apart[0] = True
    f = np.where(ring, -1.0, 1.0)
    assert Truth.of(f, f).local == Truth.of(f, f).survivals == (1, 1, 0)
    assert Truth.of(f, np.where(cut, -1.0, 1.0)).local == (1, 0, 0)
    assert Truth.of(f, np.where(cut, -1.0, 1.0)).uniform == (0, 0, 0)
    touching = Truth.of(np.where(apart, -1.0, 1.0), np.where(np.roll(apart, 1, axis=0), -1.0, 1.0))
    assert (touching.local, touching.survivals) == ((0, 0, 0), (1, 0, 0))
    for mask in (ring, cut, apart):
        whole = BruteForce(np.ones(mask.shape, bool))
        inside = BruteForce(mask)
        assert [inside.image(k, mask) for k in range(3)] == list(rank(nested(mask), 0, 0))
        assert [whole.image(k, mask) for k in range(3)] == [1, 0, 0]


def test_a_false_claim_is_noticed(monkeypatch):
    """The attack itself works: a certificate that takes half the persistence for the margin is caught."""
    import certificates

    def by_persistence(found, eps):
        counts = [0, 0, 0]
        for feature in found:
            counts[feature.dimension] += feature.alive and feature.persistence / 2 > eps
        return tuple(counts)

    monkeypatch.setattr(certificates, "certified_count", by_persistence)
    wrong = check_chunk("disturbed", 0, 40).wrong + check_chunk("at_margins", 0, 40).wrong
    assert any("uniform" in what for what in wrong)


def test_coarse_graining_and_back_is_a_pair_too():
    f = np.fromfunction(lambda x, y, z: np.hypot(np.hypot(x - 5.5, y - 5.5) - 4, z - 3.5) - 1.6, (12, 12, 8))
    counts, wrong = check_pair(f, prolong(coarsen(f), f.shape))
    assert wrong == []
    assert counts[:, 0].tolist() == [1, 1, 1, 1]  # the ring is one component at both levels, and proved to be
