"""The multi-resolution network: a bounded signed distance field, refined from coarse to fine on active voxels.

Strategy. Nothing learned is dense at full resolution: there the image is only *shown* by five channels without
weights, and a thin strided *stem* turns them into a few features per coarser level. The coarsest level predicts its
field outright. Each finer level then sees its own stem features (level 0: what is shown around its active voxels), the
features of its parent voxels and the prolonged field, and predicts a correction bounded by construction::

    phi_l = U phi_{l+1} + a_l * b_{l+1} * tanh(r_l),        b_{l+1} = kappa * h_{l+1}

where the activity ``a_l`` (`scales.activity`) is zero wherever ``|U phi_{l+1}| >= b_{l+1}``: no correction could
change the sign there. Features are zero outside the active voxels too; that is part of the definition, in training
and at inference, so a level costs what its active voxels cost (`sites`).

Everything is local: normalisation uses running statistics at inference, nothing is pooled over the volume. What a
network with statistics of the tile gains by adapting to it, the `local_contrast` of the image gives here: a second
channel in which brightness is relative to a neighbourhood of three blocks. Its `curvatures` are further channels at
every level: whether something bright is long or round is known beforehand, in all directions alike, and need not be
learned. What the voxels of a resampled image hide is told to every level of the stem: along which axis slices were
thick, and whether grey values are CT's (`Preprocessing.acquisition`). The value at a voxel depends on the image within
a fixed distance, and evaluation in tiles gives the same numbers as in one piece.

Fields are in units of the level-0 voxel inside, and in units of `spacing` (mm) outside.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vesselsdf import processes
from vesselsdf.convolution import convolve, linear
from vesselsdf.image_features import curvatures, even, local_contrast, shown
from vesselsdf.prolongation import prolong
from vesselsdf.scales import REFINEMENT_CONSTANT, activity, bounds
from vesselsdf.sites import EntryConvolution, SiteConvolution, Sites

# Channels that are shown of an image: itself, its local contrast and three curvatures of that.
SHOWN = 5

# What is known of a scan besides its voxels: `Preprocessing.acquisition`.
ACQUISITION = 4

# How wide each pair of convolutions looks around at the coarsest level.
CONTEXT = (1, 2)

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
        self, levels: int = 4, width: int = 8, kappa: float = 0.95, needed: float = REFINEMENT_CONSTANT["sample"]
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"a multi-resolution network needs at least 2 levels, not {levels}")
        if not needed < kappa:
            raise ValueError(f"the bound kappa = {kappa} must exceed {needed}, which a distance field can need")
        self.levels, self.kappa, self.needed = levels, kappa, needed
        stem = [width * (1, 2, 4, 6, 8, 8)[min(level, 5)] for level in range(levels)]
        refined = [width * (2, 3, 5, 6, 8, 8)[min(level, 5)] for level in range(levels - 1)]
        inputs = [SHOWN, *stem[1:]]
        self.entry = _Entry(SHOWN, stem[0])
        self.stem = nn.ModuleList([_StemLevel(inputs[level], inputs[level + 1]) for level in range(levels - 1)])
        self.context = nn.Sequential(*(_Residual(stem[-1], dilation) for dilation in CONTEXT))
        self.coarsest = nn.Conv3d(stem[-1], 1, 1)
        with torch.no_grad():
            self.coarsest.weight.zero_()
            self.coarsest.bias.fill_(INITIAL_DISTANCE)  # type: ignore[union-attr]
        above = [*refined[1:], stem[-1]]
        self.stem_channels, self.refined_channels = stem, refined
        self.refinements = nn.ModuleList(
            [_Refinement(stem[level], above[level], refined[level]) for level in range(levels - 1)]
        )
        # Features lie channels-last, so that gathering the rows of the active voxels copies nothing else; the dense
        # convolutions are twice as fast that way, too (measured on a CPU: 0.135 s against 0.34 s for a training step).
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    limited = staticmethod(torch.tanh)
    """What bounds a refinement to one unit."""

    def refinement_reach(self, level: int) -> int:
        """Voxels of its own level that a refined value depends on, to each side."""
        return 3 if level else 4

    def _stems(self, image: Tensor, acquisition: Tensor | None) -> Iterator[Tensor]:
        """Stem features of all levels, finest first; of level 0 they are what is shown of the image."""
        if acquisition is None:
            acquisition = image.new_zeros(len(image), ACQUISITION)
        contrast = local_contrast(image)
        features = shown(image, contrast)
        yield features
        for stage in self.stem:
            contrast = F.avg_pool3d(even(contrast), 2)
            features = stage(features, curvatures(contrast), acquisition)
            yield features

    def coarsest_field(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Field (level-0 voxels) and features of the coarsest level, from its stem features."""
        features = self.context(features)
        return convolve(features, self.coarsest.weight, self.coarsest.bias).float() * 2.0 ** (self.levels - 1), features

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
        parents = sites.gather_parents(parent)
        correction, features = self.correct(level, sites, sites.gather(share), stem, sites.gather(base), parents)
        return base + sites.scatter(correction), sites.scatter(features[:, :channels])

    def correct(
        self, level: int, sites: Sites, share: Tensor, stem: Tensor, base: Tensor, parents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What `refine` adds to the field at the active voxels, (n, 1), and their features, (n, C).

        `share`, `base`, `parents`: their activity, prolonged field and parents' features, (n, C); `stem` is a volume.
        """
        h = 2.0 ** (level + 1)
        seen = sites.gather(stem) if level else self.entry(sites, stem)
        features, raw = self.refinements[level](sites, share, seen, parents, base / h)
        return share * (self.kappa * h) * self.limited(raw.float()), features

    def forward(self, image: Tensor, spacing: float | Tensor = 1.0, acquisition: Tensor | None = None) -> list[Tensor]:
        """Signed distance fields of all levels, finest first.

        `image`: (B, 1, X, Y, Z), normalised as the checkpoint says. `spacing`: edge of a level-0 voxel, mm.
        `acquisition`: (B, 4), see `Preprocessing.acquisition`; None: cubic voxels, not CT.
        Returns fields (B, 1, x, y, z) in mm, level ``l`` with ``ceil(X / 2**l)`` voxels, negative inside.
        """
        stems = list(self._stems(image, acquisition))
        field, features = self.coarsest_field(stems[-1])
        fields = [field]
        for level in range(self.levels - 2, -1, -1):
            base = prolong(field, stems[level].shape[2:])
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


class _DenseNorm(nn.BatchNorm3d):
    """Batch normalisation over all voxels of the batches of all processes."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=STATISTICS_MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        if self.training and processes.size() > 1:
            return processes.batch_norm(self, features)
        return super().forward(features)

    def after(self, convolution: Callable[..., Tensor], features: Tensor) -> Tensor:
        """This of a convolution; by running statistics, the two are one convolution."""
        if self.training:
            return self(convolution(features))
        scale, shift = self.held()
        return convolution(features, scale, shift)

    def held(self) -> tuple[Tensor, Tensor]:
        """By what the running statistics multiply each channel, and what they add to it."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


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
        self.enter = SiteConvolution(stem + channels + 1, channels)
        self.inner = nn.ModuleList([SiteConvolution(channels, channels) for _ in range(2)])
        self.norms = nn.ModuleList([_SiteNorm(channels) for _ in range(3)])
        self.correction = nn.Linear(channels, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)

    def forward(self, sites: Sites, share: Tensor, stem: Tensor, parent: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
        # Every set of features is damped by the activity, so that it fades to the zero outside without a jump.
        rows = torch.cat([stem, linear(parent, self.reduce.weight), base.to(stem.dtype)], dim=1) * share
        first = F.relu(self.norms[0](self.enter(sites, rows))) * share
        rows = F.relu(self.norms[1](self.inner[0](sites, first))) * share
        rows = F.relu(self.norms[2](self.inner[1](sites, rows)) + first) * share
        return rows, linear(rows, self.correction.weight, self.correction.bias)


class _Entry(nn.Module):
    """Features of the finest level, of what is shown of the image around the active voxels."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.convolution = EntryConvolution(channels, outputs)
        self.norm = _SiteNorm(outputs)

    def forward(self, sites: Sites, shown: Tensor) -> Tensor:
        return F.relu(self.norm(self.convolution(sites, shown)))


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
        self.halve = _Halve(channels, outputs)
        self.shape = nn.Conv3d(3, outputs, 1, bias=False)
        self.acquired = _Acquired(outputs)
        self.norm = _DenseNorm(outputs)
        self.look = _Residual(outputs, 1)

    def forward(self, features: Tensor, curvature: Tensor, acquisition: Tensor) -> Tensor:
        curvature = curvature.contiguous(memory_format=torch.channels_last_3d)
        acquired = self.acquired(acquisition)
        if self.norm.training:
            return self.look(F.relu(self.norm(self.halve(features) + self.shape(curvature) + acquired)))
        scale, shift = self.norm.held()
        halved = self.halve(features, scale, shift) + convolve(curvature, _scaled(self.shape.weight, scale))
        return self.look(F.relu_(halved.add_(acquired * scale[:, None, None, None])))


class _Residual(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _Wide(channels, dilation), _DenseNorm(channels), nn.ReLU(inplace=True),
            _Wide(channels, dilation), _DenseNorm(channels),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        first, norm, _, second, last = self.body
        assert isinstance(norm, _DenseNorm)
        assert isinstance(last, _DenseNorm)
        looked = last.after(second, F.relu_(norm.after(first, features)))
        return F.relu_(looked.add_(features))


class _Wide(nn.Conv3d):
    """3x3x3 convolution that keeps the shape.

    The border is repeated outwards: a frame of zeros would tell the coarse levels where in the patch they are, and what
    they learn about that (vessels lie near the middle of training patches) is wrong in a whole volume.
    """

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__(channels, channels, 3, dilation=dilation, bias=False)

    def forward(self, features: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        reach = self.dilation[0]
        wide = F.pad(features, (reach,) * 6, mode="replicate")
        return convolve(wide, _scaled(self.weight, scale), shift, dilation=reach)


class _Halve(nn.Conv3d):
    """Weighted sum of 2x2x2 voxels; an odd axis repeats its last one."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(channels, outputs, 2, bias=False)

    def forward(self, features: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return convolve(even(features), _scaled(self.weight, scale), shift, stride=2)


def _scaled(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Weights of a convolution with its channels scaled."""
    return weight if scale is None else weight * scale[:, None, None, None, None]
