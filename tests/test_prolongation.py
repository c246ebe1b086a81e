"""Prolongation by tensors: as by arrays, with the gradient of torch's own."""

import numpy as np
import pytest
import torch

from vesselsdf import prolongation, scales


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
