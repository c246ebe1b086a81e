"""Convolution by the detour that is faster."""

import pytest
import torch
from torch.nn import functional as F

from vesselsdf.convolution import LARGE, convolve


@pytest.mark.parametrize(("batch", "edge"), [(1, 10), (2, 10), (1, 60)])
def test_it_is_the_convolution_with_its_gradients(batch, edge):
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(batch, 6, edge, edge, 7, generator=generator, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, 3, generator=generator, requires_grad=True)
    assert (volume[..., 0].numel() <= LARGE) == (edge == 10)
    results = []
    for function in (convolve, F.conv3d):
        found = function(volume, weight, dilation=2)
        results.append([found, *torch.autograd.grad(found.square().mean(), [volume, weight])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)
