"""Is a scan like those that a network was trained on? A few figures per image, and their ranges over the training set.

A network says something about every scan, and what it says of a scan unlike any it has seen is worth little. The
figures are crude on purpose: each is one that a user can act on. Their ranges are kept in the checkpoint.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Real

# Voxels of one image that are looked at, in whole planes spread evenly.
SAMPLE = 4_000_000
# A range is widened by this share of its width, below at most by this share of its lower end: images for training do
# not reach all extremes, but contrast of a few hundred somewhere does not make none at all usual.
SLACK = 0.25
# The shell of surroundings with which the vessels are compared, voxels from the wall.
INSIDE, SHELL = -0.5, (2.0, 5.0)
# Surroundings that vary less, on the normalised scale, are as good as flat.
FLAT = 0.05

MEANING = {
    "median": ("the median intensity", "the intensity window"),
    "bright": ("the brightest intensity (99.9%)", "the intensity window, and whether there is contrast agent"),
    "dark": ("the darkest intensity (0.1%)", "the intensity window, and whether the background was cut off"),
    "noise": ("the change from voxel to voxel", "for noise, or whether the scan was filtered"),
    "blur": ("the ratio of the sharpest to the blurriest axis", "the slice thickness"),
    "contrast": ("the contrast of vessels over what varies around them", "whether these are vessels at all"),
}
"""Of each figure: what it is, and what to check when it is unusual."""


def of_image(image: Real[np.ndarray, "x y z"]) -> dict[str, float]:
    """Figures of a normalised image on its isotropic working grid."""
    thinned = _planes(image)
    dark, median, bright = np.quantile(thinned, [0.001, 0.5, 0.999])
    changes = [float(np.abs(np.diff(_planes(image, axis), axis=axis)).mean()) for axis in range(3)]
    return {
        "median": float(median),
        "bright": float(bright),
        "dark": float(dark),
        "noise": min(changes),
        "blur": max(changes) / max(min(changes), 1e-6),
    }


def of_vessels(image: Real[np.ndarray, "x y z"], sdf: Real[np.ndarray, "x y z"]) -> dict[str, float]:
    """The contrast of vessels, `sdf` in voxels, to what lies around them; nothing if there are none."""
    inside = image[sdf <= INSIDE]
    around = image[(sdf >= SHELL[0]) & (sdf <= SHELL[1])]
    if len(inside) == 0 or len(around) == 0:
        return {}
    spread = float(np.diff(np.quantile(around.astype(np.float32), [0.16, 0.84]))[0]) / 2
    return {"contrast": float(np.median(inside) - np.median(around)) / max(spread, FLAT)}


def ranges(figures: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Smallest and largest of each figure.

    >>> ranges([{"noise": 0.1, "blur": 1.0}, {"noise": 0.3, "blur": 5.0}])
    {'noise': (0.1, 0.3), 'blur': (1.0, 5.0)}
    """
    found: dict[str, tuple[float, float]] = {}
    for one in figures:
        for key, value in one.items():
            low, high = found.get(key, (value, value))
            found[key] = (min(low, value), max(high, value))
    return found


def strange(figures: Mapping[str, float], seen: Mapping[str, Any]) -> list[str]:
    """One phrase for each figure outside what training has seen; empty if all is usual, or nothing is known.

    >>> strange({"blur": 9.0}, {"blur": (1.0, 5.0)})
    ['the ratio of the sharpest to the blurriest axis is 9, in training it was 1 to 5: check the slice thickness']
    """
    found = []
    for key, value in figures.items():
        if key not in seen or key not in MEANING:
            continue
        low, high = seen[key]
        width = high - low
        if not low - SLACK * min(width, abs(low)) <= value <= high + SLACK * width:
            what, check = MEANING[key]
            found.append(f"{what} is {value:.2g}, in training it was {low:.2g} to {high:.2g}: check {check}")
    return found


def _planes(image: Real[np.ndarray, "x y z"], along: int = 2) -> Float[np.ndarray, "x y z"]:
    """The image, thinned evenly across the axes other than `along`."""
    step = int(np.ceil(np.sqrt(max(1.0, image.size / SAMPLE))))
    index = tuple(slice(None) if axis == along else slice(None, None, step) for axis in range(3))
    return np.asarray(image[index], dtype=np.float32)
