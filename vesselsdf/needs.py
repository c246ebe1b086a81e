"""What a reconstruction will need, known before it begins: memory and time.

Both grow with the voxels of the working grid, and with the wall: its mesh, its graph, what is lost across levels. How
much wall there is, and how fast the network is here, is found by running it on some bricks of the scan; of a mask it is
counted. The constants are fits to `benchmarks/needs.py`, which compares what is foretold with what is taken.
"""

import itertools
import math
import re
import time

import numpy as np
from jaxtyping import Float, Float32, Num

from vesselsdf.errors import InputError
from vesselsdf.inference import coarse_margin, margin, predict
from vesselsdf.network import VesselNet

# Of a whole reconstruction in one piece; a crossing is a pair of neighbouring voxels with the wall between them.
BYTES_AT_LEAST = 0.65e9
BYTES_PER_VOXEL = 22.0
BYTES_PER_CROSSING = 2400.0
SECONDS_AT_LEAST = 3.0
SECONDS_PER_VOXEL = 0.5e-6
SECONDS_PER_CROSSING = 2.3e-4
# Of a worker that reconstructs in blocks, for every voxel of a block and what is around it.
BYTES_PER_BLOCK_VOXEL = 60.0
BYTES_OF_WORKER = 0.65e9

BRICK = 64
"""Voxels along the edge of what is looked at of a scan."""
SAMPLE = 1 << 22
"""Voxels that are looked at."""

UNITS = {"M": 1e-3, "G": 1.0, "T": 1e3}
"""Of memory, in GB."""


def of_image(
    network: VesselNet, image: Float[np.ndarray, "x y z"], acquisition: Float32[np.ndarray, "4"]
) -> dict[str, float]:
    """What `reconstruct` will need for a normalised image on its working grid: `gigabytes` at the peak, and `seconds`.

    Bricks are spread evenly over the image; their speed is that of this machine as busy as it is.
    """
    bricks = [
        tuple(slice(low, low + BRICK) for low in corner)
        for corner in itertools.product(*(range(0, max(n - BRICK // 2, 1), BRICK) for n in image.shape))
    ]
    few = max(1, SAMPLE // BRICK**3)
    chosen = bricks[:: math.ceil(len(bricks) / few)]
    predict(network, np.zeros((16, 16, 16), np.float32), 1.0, acquisition)  # kernels are compiled, memory is had
    start, seen, found = time.monotonic(), 0, 0
    for brick in chosen:
        part = image[brick]
        found += crossings(predict(network, part, 1.0, acquisition)[0] <= 0)
        seen += part.size
    rate = (time.monotonic() - start) / seen
    return _needs(float(image.size), found * image.size / seen, rate)


def of_mask(mask: Num[np.ndarray, "x y z"], shape: tuple[int, ...]) -> dict[str, float]:
    """The same of a mask, vessel above 0, whose working grid has `shape`."""
    finer = float(np.prod(shape)) / mask.size
    return _needs(float(np.prod(shape)), crossings(mask > 0) * finer ** (2 / 3), 0.0)


def crossings(inside: np.ndarray) -> int:
    """Pairs of neighbouring voxels of which one is inside."""
    return sum(int(np.count_nonzero(np.diff(inside, axis=axis))) for axis in range(3))


def _needs(voxels: float, wall: float, rate: float) -> dict[str, float]:
    return {
        "gigabytes": (BYTES_AT_LEAST + BYTES_PER_VOXEL * voxels + BYTES_PER_CROSSING * wall) / 1e9,
        "seconds": SECONDS_AT_LEAST + (SECONDS_PER_VOXEL + rate) * voxels + SECONDS_PER_CROSSING * wall,
    }


def block_memory(block: int, network: VesselNet) -> float:
    """Peak memory of a worker that reconstructs blocks of `block` voxels along each edge, GB."""
    edge = block + 2 * max(margin(network), coarse_margin(network))
    return (BYTES_PER_BLOCK_VOXEL * edge**3 + BYTES_OF_WORKER) / 1e9


def largest_block(limit: float, network: VesselNet, step: int) -> int:
    """The largest block, a multiple of `step`, that a worker with `limit` GB can do; `InputError` if there is none."""
    if block_memory(step, network) > limit:
        least = block_memory(step, network)
        raise InputError(f"--memory is {limit:.3g} GB, but a worker needs {least:.2g} GB for the smallest block.")
    block = step
    while block_memory(block + step, network) <= limit:
        block += step
    return block


def require(needed: float, limit: float, shape: tuple[int, ...]) -> None:
    """Raise `InputError` if `reconstruct` needs more than `limit` GB for a working volume of `shape`."""
    if needed > limit:
        size = " x ".join(map(str, shape))
        raise InputError(
            f"A working volume of {size} voxels takes about {needed:.1f} GB, more than the {limit:.3g} GB allowed: "
            "convert the scan with `vesselsdf convert` and reconstruct it with `vesselsdf blocks`."
        )


def gigabytes(text: str) -> float:
    """Memory as people write it.

    >>> gigabytes("4GB"), gigabytes("500 MB"), gigabytes("1.5g")
    (4.0, 0.5, 1.5)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT])i?B?\s*", text, re.IGNORECASE)
    if not found:
        raise InputError(f"--memory is {text}: give it as 4GB or 500MB.")
    return float(found[1]) * UNITS[found[2].upper()]
