"""Dense products: what they compute, and that it does not depend on what else is computed."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vesselsdf.convolution import convolve, linear


@pytest.mark.parametrize(("batch", "edge"), [(1, 10), (2, 10), (1, 60)])
def test_it_is_the_convolution_with_its_gradients(batch, edge):
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(batch, 6, edge, edge, 7, generator=generator, requires_grad=True)
    weight = torch.randn(4, 6, 3, 3, 3, generator=generator, requires_grad=True)
    results = []
    for function in (convolve, F.conv3d):
        found = function(volume, weight, dilation=2)
        results.append([found, *torch.autograd.grad(found.square().mean(), [volume, weight])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("n", "outputs"), [(1, 1), (1, 5), (7, 1), (7, 5)])
def test_it_is_the_linear_map(n, outputs):
    rows, weight, bias = torch.randn(n, 3), torch.randn(outputs, 3), torch.randn(outputs)
    torch.testing.assert_close(linear(rows, weight, bias), F.linear(rows, weight, bias))
    torch.testing.assert_close(linear(rows, weight), F.linear(rows, weight))


@pytest.mark.parametrize(("channels", "outputs", "kernel", "stride"), [(16, 16, 3, 1), (5, 16, 2, 2), (48, 1, 1, 1)])
def test_bits_of_a_convolution_do_not_depend_on_the_extent(channels, outputs, kernel, stride):
    generator, draw = torch.Generator().manual_seed(0), np.random.default_rng(0)
    volume = torch.randn(1, channels, 20, 22, 40, generator=generator).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(outputs, channels, kernel, kernel, kernel, generator=generator)
    whole = convolve(volume, weight, stride=stride)
    for _ in range(20):
        low = draw.integers(0, 8, 3) * 2
        part = volume[:, :, low[0] : low[0] + draw.integers(3, 9), low[1] :, low[2] : low[2] + draw.integers(3, 30)]
        found = convolve(part.contiguous(memory_format=torch.channels_last_3d), weight, stride=stride)
        x, y, z = low // stride
        same = whole[:, :, x : x + found.shape[2], y : y + found.shape[3], z : z + found.shape[4]]
        assert torch.equal(found, same)


@pytest.mark.parametrize(("channels", "outputs"), [(16, 1), (24, 16), (48, 40)])
def test_bits_of_a_row_do_not_depend_on_the_others(channels, outputs):
    generator, draw = torch.Generator().manual_seed(0), np.random.default_rng(0)
    rows = torch.randn(900, channels, generator=generator)
    weight, bias = torch.randn(outputs, channels, generator=generator), torch.randn(outputs, generator=generator)
    whole = linear(rows, weight, bias)
    for n in (1, 2, *draw.integers(1, 300, 60).tolist()):
        first = int(draw.integers(0, 600))
        assert torch.equal(linear(rows[first : first + n], weight, bias), whole[first : first + n])
