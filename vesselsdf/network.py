"""The multi-resolution network: a bounded signed distance field, refined from coarse to fine on active voxels.

Strategy. A thin strided *stem* turns the image into a few features per level; it is the only part that is dense at full
resolution. The coarsest level predicts its field outright. Each finer level then sees its own stem features, the
features of its parent voxels and the prolonged field, and predicts a correction bounded by construction::

    phi_l = U phi_{l+1} + a_l * b_{l+1} * tanh(r_l),        b_{l+1} = kappa * h_{l+1}

where the activity ``a_l`` (`scales.activity`) is zero wherever ``|U phi_{l+1}| >= b_{l+1}``: no correction could
change the sign there. Features are zero outside the active voxels too; that is part of the definition, in training
and at inference, so a level costs what its active voxels cost. A convolution on active voxels is evaluated by
gathering their 27 neighbours into a matrix product where few are active, and as a dense convolution of the
zero-filled volume where many are: the same numbers (submanifold convolution; Graham, Engelcke, van der Maaten 2018,
arXiv 1711.10275).

Everything is local: normalisation uses running statistics at inference, nothing is pooled over the volume. What a
network with statistics of the tile gains by adapting to it, the `local_contrast` of the image gives here: a second
channel in which brightness is relative to a neighbourhood of three blocks. Its `curvatures` are further channels at
every level: whether something bright is long or round is known beforehand, in all directions alike, and need not be
learned. What the voxels of a resampled image hide is told to every level of the stem: along which axis slices were
thick, and whether grey values are CT's (`Preprocessing.acquisition`). The value at a voxel depends on the image within
a fixed distance, and evaluation in tiles gives the same numbers as in one piece.

Fields are in units of the level-0 voxel inside, and in units of `spacing` (mm) outside.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesselsdf import processes
from vesselsdf.image_features import BLOCK, curvatures, even, local_contrast
from vesselsdf.scales import REFINEMENT_CONSTANT, activity, bounds

# Where more than this share of the voxels is active, the dense convolution is the faster of the two (measured on a CPU
# for 8 to 48 channels: the break-even lies between 0.15 and 0.3).
DENSE_SHARE = 0.2

# What is known of a scan besides its voxels: `Preprocessing.acquisition`.
ACQUISITION = 4

# Values of gathered neighbourhoods held at a time.
CPU_PIECE = 1_000_000
GPU_PIECE = 64_000_000

# The coarsest field starts out as "far outside", in units of h_L: nothing is active until the coarse level has learned
# where vessels may be, so the first steps are cheap and the fine levels never train on everything.
INITIAL_DISTANCE = 1.5


# Running statistics follow those of the batches slowly: a batch is two patches of different modality.
STATISTICS_MOMENTUM = 0.03


class VesselNet(nn.Module):
    """Image in, list of signed distance fields out, finest first.

    `levels`: number of levels; `width`: channels of the stem at level 0, from which all others follow; `kappa`: bound
    of one refinement in units of the coarse spacing; `needed`: the share of it that a distance field can need
    (`scales.REFINEMENT_CONSTANT` of the coarse-graining that makes the targets), below `kappa`.

    >>> net = VesselNet(levels=3, width=4).eval()
    >>> fields = net(torch.zeros(1, 1, 16, 12, 9), spacing=0.5)
    >>> [tuple(field.shape) for field in fields]
    [(1, 1, 16, 12, 9), (1, 1, 8, 6, 5), (1, 1, 4, 3, 3)]
    """

    def __init__(
        self, levels: int = 4, width: int = 8, kappa: float = 0.9, needed: float = REFINEMENT_CONSTANT["mean"]
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"a multi-resolution network needs at least 2 levels, not {levels}")
        if not needed < kappa:
            raise ValueError(f"the bound kappa = {kappa} must exceed {needed}, which a distance field can need")
        self.levels, self.kappa, self.needed = levels, kappa, needed
        stem = [width * (1, 2, 4, 6, 8, 8)[min(level, 5)] for level in range(levels)]
        refined = [width * (2, 3, 5, 6, 8, 8)[min(level, 5)] for level in range(levels - 1)]
        self.stem = nn.ModuleList(
            [_Entry(5, stem[0])] + [_StemLevel(stem[level - 1], stem[level]) for level in range(1, levels)]
        )
        self.context = nn.Sequential(_Residual(stem[-1], 1), _Residual(stem[-1], 2))
        self.coarsest = nn.Conv3d(stem[-1], 1, 1)
        with torch.no_grad():
            self.coarsest.weight.zero_()
            self.coarsest.bias.fill_(INITIAL_DISTANCE)  # type: ignore[union-attr]
        above = [*refined[1:], stem[-1]]
        self.refined_channels = refined
        self.refinements = nn.ModuleList(
            [_Refinement(stem[level], above[level], refined[level]) for level in range(levels - 1)]
        )
        # Features lie channels-last, so that gathering the rows of the active voxels copies nothing else; the dense
        # convolutions are twice as fast that way, too (measured on a CPU: 0.135 s against 0.34 s for a training step).
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    limited = staticmethod(torch.tanh)
    """What bounds a refinement to one unit."""

    @property
    def refinement_reach(self) -> int:
        """Voxels of its own level that a refined value depends on, to each side."""
        return 3

    def stem_reach(self, level: int) -> int:
        """Voxels of level 0 that a stem feature at `level` depends on, to each side of its cell."""
        # Two voxels of the level by its curvatures and two by its convolutions; by way of finer levels it is no more.
        return 3 * BLOCK + 4 * 2**level

    def stem_features(self, image: Tensor, acquisition: Tensor | None, level: int) -> Tensor:
        """Stem features of one level, (B, C, ...) on that level's grid; arguments as for `forward`."""
        *_, features = self._stems(image, acquisition, level)
        return features

    def _stems(self, image: Tensor, acquisition: Tensor | None, last: int) -> Iterator[Tensor]:
        """Stem features of the levels 0 to `last`."""
        if acquisition is None:
            acquisition = image.new_zeros(len(image), ACQUISITION)
        contrast = local_contrast(image)
        features = torch.cat([image, contrast, curvatures(contrast)], dim=1)
        features = self.stem[0](features.contiguous(memory_format=torch.channels_last_3d), acquisition)
        yield features
        for stage in self.stem[1 : last + 1]:
            contrast = F.avg_pool3d(even(contrast), 2)
            features = stage(features, curvatures(contrast), acquisition)
            yield features

    def coarsest_field(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Field (level-0 voxels) and features of the coarsest level, from its stem features."""
        features = self.context(features)
        return self.coarsest(features).float() * 2.0 ** (self.levels - 1), features

    @staticmethod
    def prolonged(coarse: Tensor, shape: Sequence[int]) -> Tensor:
        """``U phi_{l+1}`` on the next finer grid, cropped to its `shape`."""
        fine = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
        return fine[..., : shape[0], : shape[1], : shape[2]]

    def activity(self, level: int, prolonged: Tensor) -> Tensor:
        """Share of the bound in use at each voxel of `level`, in [0, 1]; zero where the voxel is not refined."""
        spacing = 2.0 ** (level + 1)
        return activity(prolonged, self.kappa * spacing, self.needed * spacing)

    def refine(self, level: int, stem: Tensor, base: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
        """One bounded refinement: field and features of `level` from its stem features and the level above.

        `stem`: (B, C, x, y, z); `base`: ``U phi_{l+1}`` (B, 1, x, y, z) in level-0 voxels; `parent`: features of level
        l+1, whose voxel (i, j, k) holds the voxels (2i, 2j, 2k) and on of this level. Level 0 returns no channels.
        """
        share = self.activity(level, base.detach())
        sites = Sites.where(share[:, 0] > 0)
        channels = self.refined_channels[level] if level else 0  # nothing is refined from level 0, so nothing is kept
        # While several processes train, all of them must come to the same sums, so no one returns alone.
        if (_count(sites.flat) if self.training else len(sites)) == 0:
            return base, stem.new_zeros(len(stem), channels, *stem.shape[2:])
        h = 2.0 ** (level + 1)
        share, here = sites.gather(share), sites.gather(base) / h
        features, raw = self.refinements[level](sites, share, sites.gather(stem), sites.gather_parents(parent), here)
        correction = share * (self.kappa * h) * self.limited(raw.float())
        return base + sites.scatter(correction), sites.scatter(features[:, :channels])

    def forward(self, image: Tensor, spacing: float | Tensor = 1.0, acquisition: Tensor | None = None) -> list[Tensor]:
        """Signed distance fields of all levels, finest first.

        `image`: (B, 1, X, Y, Z), normalised as the checkpoint says. `spacing`: edge of a level-0 voxel, mm.
        `acquisition`: (B, 4), see `Preprocessing.acquisition`; None: cubic voxels, not CT.
        Returns fields (B, 1, x, y, z) in mm, level ``l`` with ``ceil(X / 2**l)`` voxels, negative inside.
        """
        stems = list(self._stems(image, acquisition, self.levels - 1))
        field, features = self.coarsest_field(stems[-1])
        fields = [field]
        for level in range(self.levels - 2, -1, -1):
            base = self.prolonged(field, stems[level].shape[2:])
            field, features = self.refine(level, stems[level], base, features)
            fields.append(field)
        return [field * spacing for field in reversed(fields)]

    def hold_statistics(self) -> None:
        """Normalise by the running statistics from now on, although the weights go on training (until `train()`).

        With the statistics of its patches a network adapts to each of them, and cannot at inference: held-out errors
        then stop to follow the training loss.
        """
        for module in self.modules():
            if isinstance(module, (_DenseNorm, _SiteNorm)):
                module.eval()

    def apriori_bounds(self, spacing: float) -> list[float]:
        """``B_l`` in mm on ``sup |phi_0 - U^l phi_l|``, per level, known before the network runs."""
        return bounds(spacing, self.levels, self.kappa)


@dataclass(frozen=True)
class Sites:
    """Active voxels of a batch of grids, and the table of each one's 27 neighbours among them."""

    flat: Tensor  # (n,) index into the flattened (B, x, y, z)
    shape: tuple[int, ...]  # (B, x, y, z)
    table: Tensor | None  # (n, 27) rows of the neighbours, n where a neighbour is not active; None: evaluate densely

    @classmethod
    def where(cls, active: Tensor) -> "Sites":
        """Sites of a boolean (B, x, y, z)."""
        shape = tuple(active.shape)
        flat = active.reshape(-1).nonzero()[:, 0]
        n = len(flat)
        if n == 0 or n > DENSE_SHARE * active.numel():
            return cls(flat, shape, None)
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
        return _gathered_product(rows, weight, table)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, weight, table = ctx.saved_tensors
        weight_gradient = weight.new_zeros(27 * weight.shape[1], weight.shape[2])
        for piece, columns in _columns(rows, table):
            weight_gradient.addmm_(columns.T, gradient[piece])
        mirrored = weight.flip(0).transpose(1, 2)  # if j is neighbour k of i, then i is neighbour 26 - k of j
        return _gathered_product(gradient, mirrored, table), weight_gradient.reshape(weight.shape), None


def _gathered_product(rows: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    """(n, C), (27, C, D), (n, 27) -> (n, D)."""
    matrix = weight.reshape(-1, weight.shape[2])
    product = rows.new_empty(len(table), weight.shape[2])
    for piece, columns in _columns(rows, table):
        torch.mm(columns, matrix, out=product[piece])
    return product


def _columns(rows: Tensor, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Pieces of the (n, 27 C) neighbourhoods, zero where a neighbour is not active, in a buffer that is used again.

    A piece fits the cache of a CPU, which makes this twice as fast as all at once, and bounds the memory.
    """
    extended = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    size = max(1, (CPU_PIECE if rows.device.type == "cpu" else GPU_PIECE) // (27 * rows.shape[1]))
    buffer = rows.new_empty(min(size, len(table)) * 27, rows.shape[1])
    for start in range(0, len(table), size):
        piece = slice(start, min(start + size, len(table)))
        neighbours = table[piece].reshape(-1)
        torch.index_select(extended, 0, neighbours, out=buffer[: len(neighbours)])
        yield piece, buffer[: len(neighbours)].reshape(piece.stop - piece.start, -1)


class _SiteConvolution(nn.Module):
    """3x3x3 convolution of features that live on active voxels and are zero elsewhere."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(27, channels, outputs) * (2 / (27 * channels)) ** 0.5)

    def forward(self, sites: Sites, rows: Tensor) -> Tensor:
        if torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))
        weight = self.weight.to(rows.dtype)
        if sites.table is not None:
            return _GatheredConvolution.apply(rows, weight, sites.table)
        kernel = weight.reshape(3, 3, 3, *weight.shape[1:]).permute(4, 3, 0, 1, 2)
        return sites.gather(F.conv3d(sites.scatter(rows), kernel, padding=1))


class _DenseNorm(nn.BatchNorm3d):
    """Batch normalisation over all voxels of the batches of all processes."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=STATISTICS_MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        if self.training and processes.size() > 1:
            return processes.batch_norm(self, features)
        return super().forward(features)


class _SiteNorm(nn.BatchNorm1d):
    """Batch normalisation over active voxels; too few of them to measure a variance use the running statistics."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=STATISTICS_MOMENTUM)

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training:
            return super().forward(rows)
        if _count(rows) < 32:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(rows) if processes.size() == 1 else processes.batch_norm(self, rows)


def _count(rows: Tensor) -> int:
    """Number of rows in all processes."""
    return int(processes.total(torch.tensor(len(rows), device=rows.device)))


class _Refinement(nn.Module):
    """Features and raw correction of one level, on its active voxels."""

    def __init__(self, stem: int, parent: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(parent, channels, bias=False)
        self.enter = _SiteConvolution(stem + channels + 1, channels)
        self.inner = nn.ModuleList([_SiteConvolution(channels, channels) for _ in range(2)])
        self.norms = nn.ModuleList([_SiteNorm(channels) for _ in range(3)])
        self.correction = nn.Linear(channels, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, sites: Sites, share: Tensor, stem: Tensor, parent: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        # Every set of features is damped by the activity, so that it fades to the zero outside without a jump.
        rows = torch.cat([stem, self.reduce(parent), base.to(stem.dtype)], dim=1) * share
        first = F.relu(self.norms[0](self.enter(sites, rows))) * share
        rows = F.relu(self.norms[1](self.inner[0](sites, first))) * share
        rows = F.relu(self.norms[2](self.inner[1](sites, rows)) + first) * share
        return rows, self.correction(rows)


class _Entry(nn.Module):
    """One convolution: what is dense at full resolution is dear, and the active voxels get three more of their own.

    With a second one a step of training took 1.2 times the time, inference 1.3, and there was no gain at equal time.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels, outputs, 3, padding=1, bias=False)
        self.acquired = _Acquired(outputs)
        self.norm = _DenseNorm(outputs)

    def forward(self, image: Tensor, acquisition: Tensor) -> Tensor:
        # In place where it can be: one copy of these features is the largest thing in memory.
        return F.relu(self.norm(self.convolution(image).add_(self.acquired(acquisition))), inplace=True)


class _Acquired(nn.Linear):
    """What the acquisition adds to every voxel, (B, 4) -> (B, C, 1, 1, 1)."""

    def __init__(self, outputs: int) -> None:
        super().__init__(ACQUISITION, outputs, bias=False)

    def forward(self, acquisition: Tensor) -> Tensor:
        return super().forward(acquisition)[..., None, None, None]


class _StemLevel(nn.Module):
    """Halve the resolution, cell-centred (2x2x2 patches; an odd axis repeats its last voxel), then look around.

    The curvatures of the image on the coarser grid and the acquisition come in by linear maps.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.halve = nn.Conv3d(channels, outputs, 2, stride=2, bias=False)
        self.shape = nn.Conv3d(3, outputs, 1, bias=False)
        self.acquired = _Acquired(outputs)
        self.norm = _DenseNorm(outputs)
        self.look = _Residual(outputs, 1)

    def forward(self, features: Tensor, curvature: Tensor, acquisition: Tensor) -> Tensor:
        curvature = curvature.contiguous(memory_format=torch.channels_last_3d)
        halved = self.halve(even(features)) + self.shape(curvature) + self.acquired(acquisition)
        return self.look(F.relu(self.norm(halved)))


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _wide(channels, dilation), _DenseNorm(channels), nn.ReLU(inplace=True),
            _wide(channels, dilation), _DenseNorm(channels),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.body(features))


def _wide(channels: int, dilation: int) -> nn.Conv3d:
    # The border is repeated outwards: a frame of zeros would tell the coarse levels where in the patch they are, and
    # what they learn about that (vessels lie near the middle of training patches) is wrong in a whole volume.
    return nn.Conv3d(channels, channels, 3, 1, dilation, dilation, bias=False, padding_mode="replicate")
