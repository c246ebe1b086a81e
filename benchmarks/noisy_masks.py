"""Masks with a rough wall, as a segmentation makes them, from an exact signed distance.

Four things go wrong in turn, each by a share that grows with the level:

1. The wall moves: the mask is the sign of the distance plus smooth Gaussian noise (standard deviation `wall` voxels,
   made by smoothing white noise with a Gaussian of one voxel), near the wall only. A thin vessel can tear by it, two
   that nearly touch can merge: then the true mask of this noise has another topology, and no rule may undo that.
2. Salt and pepper: a share `flips` of the voxels that have a face at the wall changes side.
3. Pin-holes: a share `pinholes` of the voxels more than one and a half voxels inside turns to background.
4. Specks: isolated voxels of vessel between three and twelve voxels outside, `specks` for every voxel of the wall.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Roughness:
    """How noisy a mask is: `wall` in voxels, the others as shares of voxels."""

    wall: float
    flips: float
    pinholes: float
    specks: float


LEVELS = {"mild": Roughness(0.3, 0.02, 0.001, 0.0005), "strong": Roughness(0.45, 0.05, 0.003, 0.001)}


def noisy_mask(sdf: np.ndarray, spacing: tuple[float, float, float], level: str, seed: int) -> np.ndarray:
    """Mask (X, Y, Z) of a signed distance in mm with the noise of a level, "mild" or "strong"; the same for a seed.

    The noise has the same size in voxels along every axis. Lengths are taken in cubes of a voxel's volume.
    """
    rough, rng = LEVELS[level], np.random.default_rng(seed)
    box = tuple(
        slice(max(part.start - 13, 0), part.stop + 13) for part in ndimage.find_objects((sdf <= 0).astype(np.uint8))[0]
    )
    depth = sdf[box] / np.float32(np.prod(spacing) ** (1 / 3))
    noise = ndimage.gaussian_filter(rng.standard_normal(depth.shape, dtype=np.float32), 1.0)
    noise *= rough.wall / noise.std()
    vessel = np.where(np.abs(depth) < 3, depth + noise, depth) <= 0

    def some(among: np.ndarray, share: float) -> np.ndarray:
        places = np.flatnonzero(among)
        return rng.choice(places, round(share * places.size), replace=False)

    cross = ndimage.generate_binary_structure(3, 1)
    wall = ndimage.binary_dilation(vessel, cross) ^ ndimage.binary_erosion(vessel, cross, border_value=1)
    around = np.flatnonzero((depth > 3) & (depth < 12))
    specks = rng.choice(around, min(around.size, round(rough.specks * wall.sum())), replace=False)
    pinholes = some(vessel & (depth < -1.5), rough.pinholes)
    flips = some(wall, rough.flips)
    flat = vessel.reshape(-1)
    flat[flips] ^= True
    flat[pinholes] = False
    flat[specks] = True
    mask = np.zeros(sdf.shape, bool)
    mask[box] = vessel
    return mask
