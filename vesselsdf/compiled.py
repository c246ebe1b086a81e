"""Decorators for kernels that numba compiles, with a cache on disk where there is a place for one."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """numba's decorator with a cache on disk, or without one where no folder for it can be written to."""

    def decorate(function: Callable) -> Callable:
        try:
            return njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:
            return njit(nogil=True, **options)(function)

    return decorate


kernel = compiled()
inner = compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of what only other kernels call: without an entry from Python there is less to compile."""
