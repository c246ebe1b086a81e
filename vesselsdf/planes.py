"""Kernels that compute a volume plane by plane: when they stand in for tensors, and how threads share the planes."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

# Planes that a thread computes at a time.
PLANES = 16


def by_kernels(volume: Tensor) -> bool:
    """Whether kernels compiled for a CPU take such a volume."""
    return volume.device.type == "cpu" and volume.dtype == torch.float32


def in_threads(function: Callable, arguments: list, count: int, planes: int = PLANES) -> None:
    """Call `function(*arguments, start, stop)` for ranges of planes, on as many threads as torch uses."""
    ranges = [(start, min(start + planes, count)) for start in range(0, count, planes)]
    threads = min(torch.get_num_threads(), len(ranges))
    if threads <= 1:
        function(*arguments, 0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(function, *arguments, *bounds) for bounds in ranges]:
            done.result()
