"""Prolongation by tensors: as by arrays, with the gradient of torch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vesselsdf import prolongation, scales
from vesselsdf.prolongation_kernels import prolong_box
from vesselsdf.scales import level_shape


@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 2, 1), (40, 3, 2), (2, 1, 33)])
def test_kernels_and_tensors_agree_with_each_other_and_with_arrays(shape, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 1, *scales.level_shape(shape, 1), generator=generator, requires_grad=True)
    weights = torch.randn(2, 1, *shape, generator=generator)
    results = []
    for kernels in (True, False):
        monkeypatch.setattr(prolongation, "by_kernels", lambda volume, kernels=kernels: kernels)
        fine = prolongation.prolong(coarse, shape)
        results.append([fine, *torch.autograd.grad((fine * weights).sum(), coarse)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    expected = scales.prolong(coarse[1, 0].detach().numpy(), shape)
    np.testing.assert_allclose(results[0][0][1, 0].detach(), expected, atol=1e-6)


@given(shape=st.tuples(*[st.integers(1, 11)] * 3), seed=st.integers(0, 99), data=st.data())
def test_boxes_have_the_bits_of_the_whole(shape, seed, data):
    """From any part of the coarse field that reaches one cell beyond the box."""
    coarse = np.random.default_rng(seed).normal(size=level_shape(shape, 1)).astype(np.float32)
    low = np.array([data.draw(st.integers(0, n - 1)) for n in shape])
    high = np.array([data.draw(st.integers(a + 1, n)) for a, n in zip(low.tolist(), shape, strict=True)])
    first = np.maximum(low // 2 - 1, 0)
    last = np.minimum(-(-high // 2) + 1, coarse.shape)
    box = np.empty(tuple(high - low), np.float32)
    prolong_box(np.ascontiguousarray(coarse[tuple(map(slice, first, last))]), first, box, low)
    assert np.array_equal(box, scales.prolong(coarse, shape)[tuple(map(slice, low, high))])
