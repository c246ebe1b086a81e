"""Evaluation of the network on active voxels, plane by plane: the numbers of `VesselNet.forward`, without its volumes.

Strategy. Of the finest level nothing is kept but the image and the field; of the others the stem's features, with the
usual width and levels less than three values for each voxel of level 0. Stems are computed in slabs of planes. The
coarsest level, with 1/512 of the voxels (4 levels), is evaluated in one piece. Then each level is refined slab by slab:
a slab prolongs the field above it, finds its active voxels, gathers their neighbours into matrix products (`sites`),
and adds the corrections. Features are handed down as rows of active voxels alone. So beyond a few bytes for every voxel
of the box, time and memory follow the surface of the vessels.

A slab begins and ends as many planes beyond its own as its values depend on, so that each of them is computed from the
same neighbours as in one piece: fields differ from those of `forward` by rounding alone. Products are made such that
not even the last bits of a value depend on what is computed with it (`convolution`; on a CPU): whatever the slabs, and
if a volume is evaluated in parts (`coarse_stem`, `refined`), fields are the same bits. So a slab for which memory does
not suffice is done in halves, and nothing shows it.
"""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from vesselsdf.errors import RunError
from vesselsdf.image_features import BLOCK, REACH, LocalContrast, curvatures, even, shown
from vesselsdf.network import CONTEXT, VesselNet
from vesselsdf.progress import track
from vesselsdf.prolongation import prolong
from vesselsdf.scales import level_shape
from vesselsdf.sites import Rows, Sites

log = logging.getLogger(__name__)

# Voxels of level 0 that a slab covers, and active voxels that are refined at a time. On a CPU larger ones take memory
# (256^3: 0.33 GB beside weights and image, 0.43 and 0.91 with slabs 4 and 16 times as large), and more time, not less.
SLAB = 1 << 20
SITES = 1 << 18
# Planes that a slab has at least, or most of its work would be done in its margins.
PLANES = 8

Planes = Callable[[int, int], Tensor]
"""Planes `start` to `stop` of a volume, (1, C, stop - start, y, z)."""


def predict(
    network: VesselNet,
    image: Float[np.ndarray, "x y z"],
    spacing: float,
    acquisition: Float32[np.ndarray, "4"],
    slab: int = SLAB,
    most: int = SITES,
) -> list[np.ndarray]:
    """Signed distance fields of all levels, finest first, (X, Y, Z) float32 in mm.

    `image`: normalised, on the isotropic working grid of `spacing` mm. `acquisition`: see `Preprocessing.acquisition`.
    `slab`, `most`: voxels of level 0, and active voxels, that are handled at a time; the fields do not depend on them.
    The device is that of the network. Raises `MemoryError` where not even a plane at a time fits, `RunError` for values
    that are not finite.
    """
    with _evaluating(network):
        fields = _fields(network, *_tensors(network, image, acquisition), slab, most)
        return [field.mul_(spacing)[0, 0].cpu().numpy() for field in _finite(fields)]


def coarse_stem(
    network: VesselNet, image: Float[np.ndarray, "x y z"], acquisition: Float32[np.ndarray, "4"], slab: int = SLAB
) -> Float32[np.ndarray, "cx cy cz c"]:
    """Features that the coarsest level sees of an image.

    Right at least as far as `coarse_margin` from where the image was cut out of a larger one, at a place that is a
    multiple of `alignment`: there they are, bit for bit, those of the larger one.
    """
    with _evaluating(network):
        planes = _stems(network, *_tensors(network, image, acquisition), slab, network.levels - 1)[-1]
        return planes(0, level_shape(image.shape, network.levels - 1)[0])[0].movedim(0, -1).cpu().numpy()


def refined(
    network: VesselNet,
    shape: tuple[int, int, int],
    image: Callable[[], Float[np.ndarray, "x y z"]],
    acquisition: Float32[np.ndarray, "4"],
    coarse: Float32[np.ndarray, "cx cy cz c"],
    before: tuple[int, int, int],
    slab: int = SLAB,
    most: int = SITES,
) -> list[np.ndarray]:
    """Fields of all levels of an image in working voxels, from the coarsest stem of a larger part around it.

    `image`: gives the image, of `shape`, and is called only if some voxel is refined. `coarse`: reaches beyond the
    image, by `context_reach` voxels unless the volume ends before; `before`: how far, on the lower sides. Right at
    least as far as `margin` from where the image was cut, on whole voxels of every level.
    """
    with _evaluating(network):

        @functools.cache
        def stems() -> list[Planes]:
            return _stems(network, *_tensors(network, image(), acquisition), slab, network.levels - 2)

        stem = torch.from_numpy(coarse).to(_device(network))[None].movedim(-1, 1)
        field, features = network.coarsest_field(stem)
        x, y, z = (slice(low, low + n) for low, n in zip(before, level_shape(shape, network.levels - 1), strict=True))
        lazy: list[Planes] = [partial(_later, stems, level) for level in range(network.levels - 1)]
        fields = _refined(network, lazy, field[:, :, x, y, z], features[:, :, x, y, z], shape, slab, most)
        return [field[0, 0].cpu().numpy() for field in _finite(fields)]


def _later(stems: Callable[[], list[Planes]], level: int, start: int, stop: int) -> Tensor:
    return stems()[level](start, stop)


def alignment(network: VesselNet) -> int:
    """Of what a place where volumes are cut has to be a multiple: of coarsest voxels and blocks of local contrast."""
    return max(BLOCK, 2 ** (network.levels - 1))


def coarse_margin(network: VesselNet) -> int:
    """Voxels beside a cut, at the finest level, in which `coarse_stem` may be wrong; a multiple of `alignment`.

    The stem of level `l` sees two voxels for its convolutions, and as many again for the curvatures before them or
    what its finer stem sees: `2^(l+2)` voxels of level 0. Local contrast comes before all of them.
    """
    return _aligned(network, _stem_reach(network.levels - 1))


def margin(network: VesselNet) -> int:
    """Voxels beside a cut, at the finest level, in which `refined` may be wrong; a multiple of `alignment`.

    From the finest level on: each level is refined from so many of its own voxels, `refinement_reach`, whose prolonged
    field takes one more of the next coarser level; and each level's own stem has its reach.
    """
    wrong, reach = 0, 0
    for level in range(network.levels - 1):
        reach += network.refinement_reach(level)
        wrong = max(wrong, reach * 2**level + _stem_reach(level))
        reach = -(-reach // 2) + 1
    return _aligned(network, max(wrong, reach * 2 ** (network.levels - 1)))


def context_reach() -> int:
    """Coarsest voxels that a value of the coarsest field depends on, to each side."""
    return sum(2 * dilation for dilation in CONTEXT)


def _stem_reach(level: int) -> int:
    return (2 ** (level + 2) if level else 2) + REACH


def _aligned(network: VesselNet, voxels: int) -> int:
    return -(-voxels // alignment(network)) * alignment(network)


@contextmanager
def _evaluating(network: VesselNet) -> Iterator[None]:
    """Without gradients or batch statistics; torch's own ways of saying that memory ran out become Python's."""
    network.eval()
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        if ran_out(error):
            raise MemoryError("The network needs more memory than there is.") from error
        raise


def _finite(fields: list[Tensor]) -> list[Tensor]:
    """The fields, if all their values are finite."""
    for level, field in enumerate(fields):
        if not torch.isfinite(field).all():
            raise RunError(
                f"The network returned values that are not finite at level {level}; its weights are damaged."
            )
    return fields


def _tensors(network: VesselNet, image: np.ndarray, acquisition: np.ndarray) -> tuple[Tensor, Tensor]:
    """Image and acquisition as the network takes them."""
    device = _device(network)
    volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    return volume.to(device), torch.from_numpy(acquisition)[None].to(device)


def _device(network: VesselNet) -> torch.device:
    return next(network.parameters()).device


def _fields(network: VesselNet, image: Tensor, acquired: Tensor, slab: int, most: int) -> list[Tensor]:
    """Fields of all levels in level-0 voxels, finest first."""
    size = tuple(image.shape[2:])
    stems = _stems(network, image, acquired, slab, network.levels - 1)
    field, features = network.coarsest_field(stems.pop()(0, level_shape(size, network.levels - 1)[0]))
    return _refined(network, stems, field, features, size, slab, most)


def _refined(
    network: VesselNet, stems: list[Planes], field: Tensor, features: Tensor, size: tuple, slab: int, most: int
) -> list[Tensor]:
    """Fields of all levels, finest first, from the coarsest one; the stems are used up."""
    rows = Rows(None, features.movedim(1, -1).reshape(-1, features.shape[1]), tuple(features.shape[2:]))
    fields = [field]
    for level in range(network.levels - 2, -1, -1):
        refine = _Refinement(network, level, stems.pop(), fields[-1], rows, level_shape(size, level), most)
        _in_slabs(refine, refine.shape, slab, f"level {level}")
        rows = refine.rows()
        fields.append(refine.field)
    return fields[::-1]


def _stems(network: VesselNet, image: Tensor, acquired: Tensor, slab: int, last: int) -> list[Planes]:
    """Stem features of levels up to the last one; those of level 0 are computed whenever they are asked for."""
    contrast = LocalContrast(image)
    stems: list[Planes] = [partial(_shown, contrast)]
    finer, n = contrast.planes, image.shape[2]
    for level, stage in enumerate(network.stem[:last], start=1):
        shape = level_shape(tuple(image.shape[2:]), level)
        features = image.new_empty(1, *shape, network.stem_channels[level]).movedim(-1, 1)
        coarser = image.new_empty(1, 1, *shape)
        below = partial(_stem_planes, (stage, acquired), (finer, stems[-1], n), (features, coarser))
        _in_slabs(below, shape, slab >> 3, f"stem {level}")
        stems.append(partial(_planes, features))
        finer, n = partial(_planes, coarser), shape[0]
    return stems


def _stem_planes(stage: tuple, below: tuple[Planes, Planes, int], into: tuple[Tensor, Tensor], start: int, stop: int):
    """Planes `start` to `stop` of one level's stem, from contrast and features of the level below."""
    (module, acquired), (contrast, stem, n), (features, coarser) = stage, below, into
    low, high = _grown(start, stop, 2, features.shape[2])  # for two convolutions
    first, final = _grown(low, high, 2, features.shape[2])  # for the curvatures before them
    here = F.avg_pool3d(even(contrast(2 * first, min(2 * final, n))), 2)
    made = module(stem(2 * low, min(2 * high, n)), curvatures(here)[:, :, low - first : high - first], acquired)
    features[:, :, start:stop] = made[:, :, start - low : stop - low]
    coarser[:, :, start:stop] = here[:, :, start - first : stop - first]


class _Refinement:
    """One level, refined slab by slab: its `field`, and the rows of its active voxels."""

    def __init__(
        self, network: VesselNet, level: int, stem: Planes, coarse: Tensor, above: Rows, shape: tuple, most: int
    ) -> None:
        self.network, self.level, self.stem, self.coarse, self.above = network, level, stem, coarse, above
        self.shape, self.most = shape, most
        self.field = coarse.new_empty(1, 1, *shape)
        self.found: list[tuple[Tensor, Tensor]] = []

    def __call__(self, start: int, stop: int) -> None:
        """Planes `start` to `stop`, in halves where too much is active."""
        low, high = _grown(start, stop, self.network.refinement_reach(self.level), self.shape[0])
        base = self._prolonged(low, high)
        share = self.network.activity(self.level, base)
        sites = Sites.where(share[:, 0] > 0, dense=1.0)  # always gathered: the bits must not depend on the slab
        if len(sites) > self.most and stop - start > 1:
            middle = (start + stop) // 2
            self(start, middle)
            self(middle, stop)
            return
        self.field[:, :, start:stop] = base[:, :, start - low : stop - low]
        if len(sites) == 0:
            return
        correction, features = self.network.correct(
            self.level, sites, sites.gather(share), self.stem(low, high), sites.gather(base), self.above.at(sites, low)
        )
        plane = self.shape[1] * self.shape[2]
        ends = sites.flat.new_tensor([(start - low) * plane, (stop - low) * plane])
        first, last = torch.searchsorted(sites.flat, ends).tolist()
        flat = sites.flat[first:last] + low * plane
        self.field.view(-1).index_add_(0, flat, correction[first:last, 0])
        if self.level:
            self.found.append((flat, features[first:last]))

    def _prolonged(self, low: int, high: int) -> Tensor:
        first, last = _grown(low // 2, (high + 1) // 2, 1, self.coarse.shape[2])
        n = min(2 * last, self.shape[0]) - 2 * first
        return prolong(self.coarse[:, :, first:last], (n, *self.shape[1:]))[:, :, low - 2 * first : high - 2 * first]

    def rows(self) -> Rows:
        """Features of the active voxels of all slabs so far."""
        none = self.field.new_empty(0, self.network.refined_channels[self.level])
        flat = torch.cat([part for part, _ in self.found] or [none.new_empty(0, dtype=torch.long)])
        return Rows(flat, torch.cat([part for _, part in self.found] or [none]), self.shape)


def _shown(contrast: LocalContrast, start: int, stop: int) -> Tensor:
    """What is shown of planes of an image."""
    low, high = _grown(start, stop, 2, contrast.image.shape[2])
    return shown(contrast.image[:, :, low:high], contrast.planes(low, high))[:, :, start - low : stop - low]


def _planes(volume: Tensor, start: int, stop: int) -> Tensor:
    return volume[:, :, start:stop]


def _grown(start: int, stop: int, margin: int, n: int) -> tuple[int, int]:
    return max(0, start - margin), min(n, stop + margin)


def _in_slabs(work: Callable[[int, int], None], shape: tuple[int, ...], voxels: int, description: str) -> None:
    """Call `work(start, stop)` for ranges of planes with about so many voxels, but never less than `PLANES`."""
    plane = shape[1] * shape[2]
    planes = max(PLANES, voxels // plane)
    with track(None, description, shape[0] * plane, "voxel", scale=True) as bar:
        for start in range(0, shape[0], planes):
            stop = min(start + planes, shape[0])
            _halved(work, start, stop)
            bar.update((stop - start) * plane)


def _halved(work: Callable[[int, int], None], start: int, stop: int) -> None:
    """Call `work(start, stop)`; where memory runs out, in halves."""
    try:
        return work(start, stop)
    except (RuntimeError, MemoryError) as error:
        if stop - start == 1 or not ran_out(error):
            raise
        log.warning("Memory ran out at planes %d to %d: they are done in halves.", start, stop)
    # Only here what the failed call held is given back.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (start + stop) // 2
    _halved(work, start, middle)
    _halved(work, middle, stop)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory does not suffice; of the CPU's allocator it is known by its words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
