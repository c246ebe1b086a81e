"""Thinning in parts is thinning of the whole, whatever the parts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.thinning_parts import OUTSIDE, STAYS, times


def in_parts(mask, depth, edge, halo):
    """Times of the whole from its parts, and how often all had to be done."""
    shape = mask.shape
    found = np.full(shape, OUTSIDE, np.int64)
    parts = [
        tuple(slice(low, min(low + edge, n)) for low, n in zip(corner, shape, strict=True))
        for corner in itertools.product(*(range(0, n, edge) for n in shape))
    ]

    def around(part, width):
        return tuple(slice(max(s.start - width, 0), min(s.stop + width, n)) for s, n in zip(part, shape, strict=True))

    def within(part, box):
        return tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(part, box, strict=True))

    seen = []
    for part in parts:
        box, ring = around(part, halo), around(part, 1)
        made = times(mask[box], depth[box], tuple(s.start for s in box))
        found[part] = made[within(part, box)]
        seen.append(made[within(ring, box)])
    rounds = 1
    while wrong := [k for k, part in enumerate(parts) if not np.array_equal(seen[k], found[around(part, 1)])]:
        before, halo = found.copy(), 2 * halo
        for k in wrong:
            part = parts[k]
            box, own = around(part, halo + 1), around(part, halo)
            made = times(mask[box], depth[box], tuple(s.start for s in box), before[box], within(own, box))
            found[part] = made[within(part, box)]
            seen[k] = made[within(around(part, 1), box)]
        rounds += 1
    return found, rounds


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 10)] * 3),
    edge=st.integers(2, 9),
    halo=st.integers(2, 4),
    rough=st.floats(0.3, 2.0),
    ties=st.booleans(),
)
def test_random_masks(seed, shape, edge, halo, rough, ties):
    """With a halo that is far too thin, so that parts have to be done again."""
    draw = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(draw.normal(size=shape), rough) * 4
    mask = field > 0
    depth = np.where(ties, mask.astype(float), field)
    whole = times(mask, depth, (0, 0, 0))
    found, _ = in_parts(mask, depth, edge, halo)
    assert np.array_equal(found, whole)
    assert betti_numbers(whole == STAYS) == betti_numbers(mask)


@pytest.mark.parametrize(("edge", "halo"), [(20, 2), (24, 8), (32, 16)])
def test_a_tree(edge, halo):
    sdf = synthetic_case(5, (64, 60, 56), (0.5,) * 3, "ct").sdf.array
    mask, depth = sdf <= 0, -sdf / 0.5
    whole = times(mask, depth, (0, 0, 0))
    found, rounds = in_parts(mask, depth, edge, halo)
    assert np.array_equal(found, whole)
    assert rounds <= (5 if halo < 8 else 2)
