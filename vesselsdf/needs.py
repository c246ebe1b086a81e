"""What a reconstruction will need, known before it begins: memory and time by the size of the working volume.

Memory was measured (`benchmarks/needs.py`, which compares both): its parts that grow with the vessels, too, as they
are in scans with usual shares of vessel.
"""

import re
import time

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.inference import coarse_margin, margin
from vesselsdf.network import VesselNet

# Of a whole reconstruction in one piece.
BYTES_PER_VOXEL = 105.0
BYTES_AT_LEAST = 0.7e9
SECONDS_PER_VOXEL = 2.5e-6
# Of a worker that reconstructs in blocks, for every voxel of a block and what is around it.
BYTES_PER_BLOCK_VOXEL = 40.0
BYTES_OF_WORKER = 0.6e9

UNITS = {"M": 1e-3, "G": 1.0, "T": 1e3}
"""Of memory, in GB."""


def estimate(shape: tuple[int, ...]) -> dict[str, float]:
    """What `reconstruct` will need for a working volume of `shape`: `gigabytes` at the peak, and `seconds`.

    The speed of the network is measured here on a small piece, with a network of the default size in which few voxels
    are active; the other steps are counted by what they took per voxel on a two-core machine.
    """
    import torch

    network = VesselNet().eval()
    edge = 64
    with torch.inference_mode():
        image = torch.zeros(1, 1, edge, edge, edge)
        network(image)
        start = time.monotonic()
        network(image)
        rate = (time.monotonic() - start) / edge**3
    return {"gigabytes": memory(shape), "seconds": 5 + float(np.prod(shape)) * (rate + SECONDS_PER_VOXEL)}


def memory(shape: tuple[int, ...]) -> float:
    """Peak memory of `reconstruct` for a working volume of `shape`, GB."""
    return (BYTES_PER_VOXEL * float(np.prod(shape)) + BYTES_AT_LEAST) / 1e9


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


def require(shape: tuple[int, ...], limit: float | None) -> None:
    """Raise `InputError` if `reconstruct` would need more than `limit` GB for a working volume of `shape`."""
    needed = memory(shape)
    if limit is not None and needed > limit:
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
