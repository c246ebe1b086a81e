"""Dense products by the routines that are fast, and that give a voxel the same bits whatever else is computed with it.

Parts of a volume that are evaluated apart, by whomever, then fit together exactly. That rests on two things, measured
(torch 2.13, oneDNN and MKL, one and two threads) and tested: oneDNN's convolutions sum in an order that does not depend
on the extent of the volume; products of matrices do so for a row, given at least four rows and two columns.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows that a product of matrices has at least.
FEWEST = 16


def convolve(volume: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, dilation: int = 1) -> Tensor:
    """(B, C, x, y, z), (D, C, a, b, c) -> (B, D, ...), without padding.

    torch itself (2.13) takes oneDNN for batches, but for small volumes alone a way that is 3 to 19 times as slow.
    """
    plain = volume.device.type == "cpu" and volume.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if plain and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(volume, weight, bias, (0,) * 3, (stride,) * 3, (dilation,) * 3, 1)
    return F.conv3d(volume, weight, bias, stride=stride, dilation=dilation)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(n, C), (D, C) -> (n, D)."""
    n, outputs = len(rows), len(weight)
    if n < FEWEST:
        rows = F.pad(rows, (0, 0, 0, FEWEST - n))
    if outputs == 1:
        weight, bias = F.pad(weight, (0, 0, 0, 1)), None if bias is None else F.pad(bias, (0, 1))
    return F.linear(rows, weight, bias)[:n, :outputs]
