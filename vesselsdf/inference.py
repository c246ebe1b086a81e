"""Dense evaluation of the network, in one piece or in tiles: the same numbers.

Strategy of tiles. The coarsest level has 1/512 of the voxels (4 levels) and is evaluated in one piece; only its stem
features are computed slab by slab. Each finer level is then refined tile by tile: a tile needs the image within the
reach of its stem, and the coarser field and features within one voxel. No tile is evaluated twice and nothing is
blended, because the network is local.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from vesselsdf.errors import RunError
from vesselsdf.image_features import BLOCK
from vesselsdf.network import VesselNet
from vesselsdf.progress import track
from vesselsdf.prolongation import prolong
from vesselsdf.scales import level_shape

# Larger tiles repeat less of their surroundings: on 337 x 319 x 282 voxels, 41 s with 96 and 29 s with 160.
TILE = 160
# Volumes up to this size are evaluated in one piece: those 30 million voxels take 10 s and 3.4 GB.
ONE_PIECE = 320**3

# Of a whole reconstruction, measured from 0.2 to 30 million voxels: see benchmarks/real_scans.py.
BYTES_PER_VOXEL = 105.0
BYTES_AT_LEAST = 0.7e9
TILED_OVERHEAD = 1.6
SECONDS_PER_VOXEL = 2.5e-6


def predict(
    network: VesselNet,
    image: Float[np.ndarray, "x y z"],
    spacing: float,
    acquisition: Float32[np.ndarray, "4"],
    tile: int | None = None,
) -> list[np.ndarray]:
    """Signed distance fields of all levels, finest first, (X, Y, Z) float32 in mm.

    `image`: normalised, on the isotropic working grid of `spacing` mm. `acquisition`: see `Preprocessing.acquisition`.
    `tile`: edge of a tile in voxels of its level, a multiple of 2; None: in one piece if the volume is small, else in
    tiles. The device is that of the network.
    """
    device = next(network.parameters()).device
    network.eval()
    volume = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None]
    acquired = torch.from_numpy(acquisition)[None].to(device)
    with torch.inference_mode():
        if tile is None and image.size <= ONE_PIECE:
            fields = [field[0, 0].cpu() for field in network(volume.to(device), spacing, acquired)]
        else:
            fields = [field[0, 0] * spacing for field in _tiled(network, volume, acquired, tile or TILE)]
    for level, field in enumerate(fields):
        if not torch.isfinite(field).all():
            raise RunError(
                f"The network returned values that are not finite at level {level}; its weights are damaged."
            )
    return [field.numpy() for field in fields]


def _tiled(network: VesselNet, image: Tensor, acquired: Tensor, tile: int) -> list[Tensor]:
    shape = tuple(image.shape[2:])
    top = network.levels - 1
    features = _coarsest_stem(network, image, acquired, tile)
    field, features = (part.cpu() for part in network.coarsest_field(features.to(acquired.device)))
    fields = [field]
    for level in range(top - 1, -1, -1):
        field, features = _refine_in_tiles(network, level, image, acquired, field, features, tile)
        fields.append(field)
    assert [tuple(f.shape[2:]) for f in reversed(fields)] == [level_shape(shape, level) for level in range(top + 1)]
    return list(reversed(fields))


def _coarsest_stem(network: VesselNet, image: Tensor, acquired: Tensor, tile: int) -> Tensor:
    top = network.levels - 1
    shape = level_shape(tuple(image.shape[2:]), top)
    features = None
    tiles = list(_windows(shape, max(tile >> top, 1)))
    for window in track(tiles, "stem", unit="tile"):
        stem = _stem_of_window(network, top, image, acquired, window).cpu()
        if features is None:
            features = stem.new_empty(1, stem.shape[1], *shape)
        features[_last(window)] = stem
    assert features is not None
    return features


def _refine_in_tiles(
    network: VesselNet, level: int, image: Tensor, acquired: Tensor, coarse: Tensor, parent: Tensor, tile: int
) -> tuple[Tensor, Tensor]:
    device = acquired.device
    shape = level_shape(tuple(image.shape[2:]), level)
    field = image.new_empty(1, 1, *shape)
    features = image.new_zeros(1, network.refined_channels[level], *shape) if level else image.new_zeros(0)
    for core in track(list(_windows(shape, max(tile, 2))), f"level {level}", unit="tile"):
        window = _grown(core, network.refinement_reach(level), shape, 2)
        parents = tuple(slice(w.start // 2, -(-w.stop // 2)) for w in window)
        around = _grown(parents, 1, tuple(coarse.shape[2:]), 1)
        prolonged = prolong(coarse[_last(around)], [2 * (w.stop - w.start) for w in around])
        base = prolonged[_last(_relative(window, [2 * w.start for w in around]))].to(device)
        stem = _stem_of_window(network, level, image, acquired, window)
        fine, rows = network.refine(level, stem, base, parent[_last(parents)].to(device))
        inner = _last(_relative(core, [w.start for w in window]))
        field[_last(core)] = fine[inner].cpu()
        if level:
            features[_last(core)] = rows[inner].cpu()
    return field, features


def _stem_of_window(
    network: VesselNet, level: int, image: Tensor, acquired: Tensor, window: tuple[slice, ...]
) -> Tensor:
    """Stem features of `level` on a window of that level's grid, from just as much of the image as they depend on."""
    scale = 2**level
    span = tuple(slice(w.start * scale, w.stop * scale) for w in window)
    crop = _grown(span, network.stem_reach(level), tuple(image.shape[2:]), math.lcm(scale, BLOCK))
    features = network.stem_features(image[_last(crop)].to(acquired.device), acquired, level)
    return features[_last(_relative(window, [c.start // scale for c in crop]))]


def _windows(shape: tuple[int, ...], edge: int) -> Iterator[tuple[slice, ...]]:
    starts = [range(0, n, edge) for n in shape]
    for corner in itertools.product(*starts):
        yield tuple(slice(s, min(s + edge, n)) for s, n in zip(corner, shape, strict=True))


def _grown(window: tuple[slice, ...], margin: int, shape: tuple[int, ...], multiple: int) -> tuple[slice, ...]:
    """The window with a margin, its ends on multiples of `multiple` unless the volume ends first."""
    return tuple(
        slice(max(0, (w.start - margin) // multiple * multiple), min(n, -(-(w.stop + margin) // multiple) * multiple))
        for w, n in zip(window, shape, strict=True)
    )


def _relative(window: tuple[slice, ...], origin: list[int]) -> tuple[slice, ...]:
    return tuple(slice(w.start - o, w.stop - o) for w, o in zip(window, origin, strict=True))


def _last(window: tuple[slice, ...]) -> Any:
    """The window as an index of the last three axes."""
    return (..., *window)


def estimate(shape: tuple[int, ...]) -> dict[str, float]:
    """What `reconstruct` will need for a working volume of `shape`: `gigabytes` at the peak, and `seconds`.

    The speed of the network is measured here on a small piece, with a network of the default size in which few voxels
    are active; the other steps are counted by what they took per voxel on a two-core machine.
    """
    import time

    network = VesselNet().eval()
    edge = 64
    with torch.inference_mode():
        image = torch.zeros(1, 1, edge, edge, edge)
        network(image)
        start = time.monotonic()
        network(image)
        rate = (time.monotonic() - start) / edge**3
    voxels = float(np.prod(shape))
    return {
        "gigabytes": (BYTES_PER_VOXEL * voxels + BYTES_AT_LEAST) / 1e9,
        "seconds": 5 + voxels * (rate * TILED_OVERHEAD + SECONDS_PER_VOXEL),
    }
