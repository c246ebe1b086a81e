"""From a volume to what the network sees: one code path for training and inference, stored in every checkpoint."""

import math
from typing import Annotated

import numpy as np
from jaxtyping import Float, Float32, Num
from pydantic import BaseModel, ConfigDict, Field

from vesselsdf.volume import Volume, isotropic

# Voxels darker than this occur in CT alone (fat is near -100 HU, air -1000), and neither in magnitudes and counts nor
# in images brought to zero mean and unit deviation: such a volume is taken to be in Hounsfield units.
FAT = -50.0
SOFT_TISSUE = (-100.0, 500.0)
# With fewer voxels than this share above the minimum, the background was masked out and only bright structures are
# left; their median is then put where vessels lie in other angiograms, this many tissue spreads above the background.
ZEROED = 0.25
VESSEL_LEVEL = 5.0
# Enough voxels for a quantile to be good to a part in a thousand.
STATISTICS_SAMPLE = 1_000_000


class Preprocessing(BaseModel):
    """How a volume is brought to the working grid and scale."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing: Annotated[float, Field(gt=0)] | None = None
    """Edge of the isotropic working voxels, mm; None: the finest voxel edge of the volume."""
    window: tuple[float, float] | None = None
    """Intensities mapped to -1 and 1; None: a soft-tissue window for CT in HU, else robust statistics."""
    threshold: float = 0.0
    """The network's value, in working voxels, that is taken to be the vessel wall; chosen on validation cases."""

    def working_spacing(self, volume: Volume) -> float:
        """Edge of the working voxels for `volume`, mm."""
        return self.spacing or float(min(volume.spacing))

    def working_volume(self, volume: Volume) -> Volume:
        """The normalised image on the isotropic working grid, float32."""
        grid = isotropic(volume, self.working_spacing(volume))
        return grid.with_array(normalise(grid.array, self.window_of(volume)))

    def window_of(self, volume: Volume) -> tuple[float, float] | None:
        """The window for `volume`: the one given; else for CT in HU (some voxels below -50) that of soft tissue."""
        return self.window or (SOFT_TISSUE if volume.array.min() < FAT else None)

    def acquisition(self, volume: Volume) -> Float32[np.ndarray, "4"]:
        """What the network is told about `volume` that its working voxels hide.

        log2 of how much longer the voxels are along each axis than along their finest (0, 0, 2: slices four times as
        thick as pixels are wide), and whether intensities are on the scale of a window (1) or of the tissue (0).
        """
        return acquisition(volume.spacing, self.window_of(volume) is not None)


def acquisition(edges: tuple[float, float, float], windowed: bool) -> Float32[np.ndarray, "4"]:
    """`Preprocessing.acquisition` of voxels with these edges, whose intensities are on the scale of a window or not."""
    longer = np.log2(np.array(edges) / min(edges))
    return np.append(longer, float(windowed)).astype(np.float32)


class Scale(BaseModel):
    """Of intensities: a window, or the centre and spread of the tissue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: tuple[float, float] | None = None
    centre: float = 0.0
    spread: float = 1.0

    def __call__(self, image: Num[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Intensities on a scale of order one, float32; see `normalise`."""
        image = image.astype(np.float32, copy=False)
        if self.window is not None:
            lower, upper = self.window
            return np.clip((image - lower) * np.float32(2 / (upper - lower)) - 1, -2, 3)
        return np.arcsinh((image - np.float32(self.centre)) / np.float32(self.spread))

    @classmethod
    def of_tissue(cls, sample: Num[np.ndarray, " n"], lowest: float) -> "Scale":
        """From evenly spread voxels of an image (`sample_stride`), and its lowest value."""
        foreground = sample[sample > lowest]
        if len(foreground) < ZEROED * len(sample):
            # Everything but bright structures was set to zero: they alone carry intensities.
            spread = (float(np.median(foreground)) - lowest) / VESSEL_LEVEL if len(foreground) else 1.0
            return cls(centre=lowest, spread=max(spread, 1e-6))
        low, median, high = np.quantile(foreground, [0.1, 0.5, 0.9])
        return cls(centre=float(median), spread=max(float(high - low) / 2, 1e-6))


def sample_stride(shape: tuple[int, ...]) -> int:
    """Every how many voxels of a flattened image of `shape` statistics look at one."""
    # No divisor of an axis, so that the sample does not run along planes of the grid.
    stride = max(1, math.prod(shape) // STATISTICS_SAMPLE)
    while stride > 1 and any(size % stride == 0 for size in shape):
        stride += 1
    return stride


def normalise(image: Num[np.ndarray, "x y z"], window: tuple[float, float] | None) -> Float[np.ndarray, "x y z"]:
    """Intensities on a scale of order one, float32.

    With a window (lower, upper): linear, lower to -1 and upper to 1, clipped at -2 and 3. Without:
    ``arcsinh((v - median) / s)``, where the median and half the range ``s`` between the 10% and 90% quantiles are taken
    over voxels above the minimum, so that a zeroed or padded background does not count. The arcsinh is linear near the
    tissue and keeps the order of the brightest voxels without letting them dominate.
    """
    if window is not None:
        return Scale(window=window)(image)
    image = image.astype(np.float32, copy=False)
    return Scale.of_tissue(image.ravel()[:: sample_stride(image.shape)], float(image.min()))(image)
