"""Features that live on active voxels alone, and convolutions of them.

A convolution on active voxels is evaluated by gathering their 27 neighbours into a matrix product where few are active,
and as a dense convolution where many are: the same numbers (submanifold convolution; Graham, Engelcke, van der Maaten
2018, arXiv 1711.10275).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesselsdf.convolution import FEWEST, convolve

# Where more than this share of the voxels is active, the dense convolution is the faster of the two (measured on a CPU
# for 8 to 48 channels: the break-even lies between 0.15 and 0.3).
DENSE_SHARE = 0.2

# Values of gathered neighbourhoods held at a time.
CPU_PIECE = 1_000_000
GPU_PIECE = 64_000_000


@dataclass(frozen=True)
class Sites:
    """Active voxels of a batch of grids, and the table of each one's 27 neighbours among them."""

    flat: Tensor  # (n,) index into the flattened (B, x, y, z)
    shape: tuple[int, ...]  # (B, x, y, z), less than 2**31 voxels
    table: Tensor | None  # (n, 27) rows of the neighbours, n where a neighbour is not active; None: evaluate densely

    @classmethod
    def where(cls, active: Tensor, dense: float = DENSE_SHARE) -> "Sites":
        """Sites of a boolean (B, x, y, z); without a table where more than a share `dense` of the voxels is active."""
        shape = tuple(active.shape)
        flat = active.reshape(-1).nonzero()[:, 0]
        n = len(flat)
        if n == 0 or n > dense * active.numel():
            return cls(flat, shape, None)
        if _by_kernels(flat):
            from vesselsdf.site_kernels import neighbour_table

            table = flat.new_empty(n, 27, dtype=torch.int32)
            neighbour_table(flat.numpy(), shape, table.numpy())
            return cls(flat, shape, table)
        padded = tuple(size + 2 for size in shape[1:])
        strides = (padded[1] * padded[2], padded[2], 1)
        b, x, y, z = _unravel(flat, shape)
        centre = ((b * padded[0] + x + 1) * padded[1] + y + 1) * padded[2] + z + 1
        index = torch.full((shape[0] * int(np.prod(padded)),), n, dtype=torch.long, device=flat.device)
        index[centre] = torch.arange(n, device=flat.device)
        steps = torch.tensor(
            [i * strides[0] + j * strides[1] + k for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)],
            device=flat.device,
        )
        return cls(flat, shape, index[centre[:, None] + steps])

    def __len__(self) -> int:
        return len(self.flat)

    def gather(self, volume: Tensor) -> Tensor:
        """(B, C, x, y, z) -> (n, C): the values at the sites."""
        return volume.movedim(1, -1).reshape(-1, volume.shape[1]).index_select(0, self.flat)

    def around(self) -> Tensor:
        """(n, 27): where the neighbours of each site lie in the flattened (B, x, y, z), whose border is repeated."""
        if _by_kernels(self.flat):
            from vesselsdf.site_kernels import around_table

            table = self.flat.new_empty(len(self), 27, dtype=torch.int32)
            around_table(self.flat.numpy(), self.shape, table.numpy())
            return table
        b, *axes = _unravel(self.flat, self.shape)
        steps = torch.arange(-1, 2, device=self.flat.device)
        x, y, z = ((axis[:, None] + steps).clamp_(0, size - 1) for axis, size in zip(axes, self.shape[1:], strict=True))
        lines = (b[:, None] * self.shape[1] + x)[:, :, None] * self.shape[2] + y[:, None, :]
        return (lines[..., None] * self.shape[3] + z[:, None, None, :]).reshape(-1, 27)

    def gather_parents(self, coarse: Tensor) -> Tensor:
        """(B, C, cx, cy, cz) of the next coarser grid -> (n, C): the value of the coarse voxel each site lies in."""
        b, x, y, z = _unravel(self.flat, self.shape)
        cx, cy, cz = coarse.shape[2:]
        parents = ((b * cx + x // 2) * cy + y // 2) * cz + z // 2
        return coarse.movedim(1, -1).reshape(-1, coarse.shape[1]).index_select(0, parents)

    def scatter(self, rows: Tensor) -> Tensor:
        """(n, C) -> (B, C, x, y, z): the values at the sites, zero elsewhere."""
        volume = rows.new_zeros(int(np.prod(self.shape)), rows.shape[1])
        return volume.index_copy_(0, self.flat, rows).reshape(*self.shape, -1).movedim(-1, 1)


@dataclass(frozen=True)
class Rows:
    """Features of the active voxels of one grid (x, y, z), zero in all the others."""

    flat: Tensor | None  # (n,) sorted positions in the flattened grid; None: all of them
    values: Tensor  # (n, C)
    shape: tuple[int, ...]

    def at(self, sites: Sites, first: int) -> Tensor:
        """(m, C): of the voxels that sites of the next finer grid lie in, whose planes begin with the plane `first`."""
        _, x, y, z = _unravel(sites.flat, sites.shape)
        place = ((x + first) // 2 * self.shape[1] + y // 2) * self.shape[2] + z // 2
        if self.flat is None:
            return self.values.index_select(0, place)
        if len(self.flat) == 0:
            return self.values.new_zeros(len(place), self.values.shape[1])
        row = torch.searchsorted(self.flat, place).clamp_(max=len(self.flat) - 1)
        known = self.flat.index_select(0, row) == place
        return self.values.index_select(0, row) * known[:, None]


def _by_kernels(flat: Tensor) -> bool:
    return flat.device.type == "cpu"


def _unravel(flat: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Indices per axis of flat positions in a C-ordered array (torch.unravel_index needs no copy but is slower)."""
    axes = []
    for size in reversed(shape[1:]):
        axes.append(flat % size)
        flat = flat // size
    return (flat, *reversed(axes))


class _GatheredConvolution(torch.autograd.Function):
    """Sum over the 27 neighbours of rows times weights.

    The table is symmetric, so the gradient is gathered as well: nothing is scattered, hence it is deterministic.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, table)
        return _gathered_product(_with_zero(rows), weight, table)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, table = ctx.saved_tensors
        mirrored = weight.flip(0).transpose(1, 2)  # if j is neighbour k of i, then i is neighbour 26 - k of j
        row_gradient = _gathered_product(_with_zero(gradient), mirrored, table)
        return row_gradient, _weight_gradient(_with_zero(rows), weight, table, gradient), None


def _with_zero(rows: Tensor) -> Tensor:
    """The rows and one of zeros, which stands for every neighbour that is not active."""
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


class _EntryConvolution(torch.autograd.Function):
    """The same of rows of a dense volume, in which every neighbour has one, and of which no gradient is wanted."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, around: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight, around)
        return _gathered_product(rows, weight, around)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, None]:
        rows, weight, around = ctx.saved_tensors
        return None, _weight_gradient(rows, weight, around, gradient), None


def _weight_gradient(rows: Tensor, weight: Tensor, table: Tensor, gradient: Tensor) -> Tensor:
    """Of `_gathered_product`, given that of its result."""
    total = weight.new_zeros(27 * weight.shape[1], weight.shape[2])
    for piece, columns in _columns(rows, table):
        total.addmm_(columns.T, gradient[piece])
    return total.reshape(weight.shape)


def _gathered_product(rows: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """(m, C), (27, C, D), (n, 27) -> (n, D)."""
    n = len(table)
    if n < FEWEST:
        return _gathered_product(rows, weight, F.pad(table, (0, 0, 0, FEWEST - n)))[:n]
    matrix = weight.reshape(-1, weight.shape[2])
    product = rows.new_empty(n, weight.shape[2])
    for piece, columns in _columns(rows, table):
        torch.mm(columns, matrix, out=product[piece])
    return product


def _columns(rows: Tensor, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the (n, 27 C) neighbourhoods, in a buffer that is used again.

    A piece fits the cache of a CPU, which makes this twice as fast as all at once, and bounds the memory.
    """
    size = max(2 * FEWEST, (CPU_PIECE if rows.device.type == "cpu" else GPU_PIECE) // (27 * rows.shape[1]))
    while len(table) > FEWEST and 0 < len(table) % size < FEWEST:
        size += 1
    buffer = rows.new_empty(min(size, len(table)) * 27, rows.shape[1])
    for start in range(0, len(table), size):
        piece = slice(start, min(start + size, len(table)))
        neighbours = table[piece].reshape(-1)
        torch.index_select(rows, 0, neighbours, out=buffer[: len(neighbours)])
        yield piece, buffer[: len(neighbours)].reshape(piece.stop - piece.start, -1)


class SiteConvolution(nn.Module):
    """3x3x3 convolution of features that live on active voxels and are zero elsewhere."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(27, channels, outputs) * (2 / (27 * channels)) ** 0.5)

    def forward(self, sites: Sites, rows: Tensor) -> Tensor:
        """(n, C) -> (n, D)."""
        rows = _autocast(rows)
        weight = self.weight.to(rows.dtype)
        if sites.table is not None:
            return _GatheredConvolution.apply(rows, weight, sites.table)
        return sites.gather(convolve(F.pad(sites.scatter(rows), (1,) * 6), _kernel(weight)))


class EntryConvolution(SiteConvolution):
    """3x3x3 convolution of a dense volume, wanted on active voxels alone; it gives the volume no gradient."""

    def forward(self, sites: Sites, volume: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, x, y, z) -> (n, D)."""
        volume = _autocast(volume)
        weight = self.weight.to(volume.dtype)
        if sites.table is None:
            return sites.gather(convolve(F.pad(volume, (1,) * 6, mode="replicate"), _kernel(weight)))
        return _EntryConvolution.apply(volume.movedim(1, -1).reshape(-1, volume.shape[1]), weight, sites.around())


def _autocast(values: Tensor) -> Tensor:
    """In the type that an autocast asks for, of which functions of our own know nothing."""
    device = values.device.type
    return values.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else values


def _kernel(weight: Tensor) -> Tensor:
    """(27, C, D) -> (D, C, 3, 3, 3)."""
    return weight.reshape(3, 3, 3, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
