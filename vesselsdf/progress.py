"""Progress bars: off in the library, switched on by the command line."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import TypeVar

_shown: ContextVar[bool] = ContextVar("progress_shown", default=False)
Item = TypeVar("Item")
_lock = RLock()


@contextmanager
def shown(on: bool = True) -> Iterator[None]:
    """Show progress bars (on standard error) within the block."""
    token = _shown.set(on)
    try:
        yield
    finally:
        _shown.reset(token)


def track(
    items: Iterable[Item] | None,
    description: str,
    total: int | None = None,
    unit: str = "it",
    initial: int = 0,
    scale: bool = False,
):
    """Iterate over `items` behind a progress bar that leaves no line when it ends; returns the `tqdm` bar.

    Without items the bar is moved by hand; `scale` counts in thousands and millions.
    """
    from tqdm import tqdm

    # By itself tqdm makes a lock between processes, too, which one that is killed leaves behind.
    tqdm.set_lock(_lock)
    return tqdm(
        items, desc=description, total=total, unit=unit, initial=initial, leave=False, disable=not _shown.get(),
        dynamic_ncols=True, unit_scale=scale,
    )  # fmt: skip


def above(text: str) -> None:
    """Write a line to standard output above the progress bar, if one is shown: for the command line alone."""
    from tqdm import tqdm

    tqdm.set_lock(_lock)
    tqdm.write(text)
