"""Where the figures and pictures of a training run go: `metrics.jsonl` always, and trackers, TensorBoard or your own.

A tracker is any object with the three methods of `Tracker`. One that keeps the loss at each step::

    >>> class Losses:
    ...     def __init__(self):
    ...         self.at = {}
    ...     def figures(self, step, values):
    ...         if "loss/total" in values:
    ...             self.at[step] = values["loss/total"]
    ...     def picture(self, step, name, image):
    ...         print(f"step {step}: {name}, {image.shape[1]} x {image.shape[0]} pixels")
    ...     def close(self):
    ...         print(f"{len(self.at)} losses")

It is handed over as `vesselsdf.train(config, "runs/mine", trackers=[Losses(), TensorBoard("runs/mine/tensorboard")])`,
and then hears this:

    >>> tracker: Tracker = Losses()
    >>> tracker.figures(1, {"loss/total": 12.5, "rate": 3e-5})
    >>> tracker.picture(1, "validation/case_7", np.zeros((180, 360, 3), np.uint8))
    step 1: validation/case_7, 360 x 180 pixels
    >>> tracker.close()
    1 losses
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vesselsdf.files import write_text


@runtime_checkable
class Tracker(Protocol):
    """What a training run tells about itself, in the order in which it happens.

    Steps never fall. A run that was killed goes on from its last checkpoint: then the first step that a tracker hears
    of says where, and what an earlier process told of that step and of later ones comes once more, with the same
    values. So a tracker that keeps things drops what it has from there on, as `TensorBoard` does. Of several processes
    only the first one tells. What a method raises ends the run, which can be resumed.
    """

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps: `loss/...` and `rate` at each, `validation/...` now and then, some not finite."""

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture (h, w, 3) uint8 RGB, its first row on top; `name` is the same for the same case."""

    def close(self) -> None:
        """Nothing more will be told: the run has ended, or failed."""


class TensorBoard:
    """Events that `tensorboard --logdir` shows, written to a folder.

    >>> import tempfile
    >>> board = TensorBoard(tempfile.mkdtemp())
    >>> board.figures(1, {"loss/total": 12.5})
    >>> board.close()
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None

    def _at(self, step: int) -> Any:
        """The writer; made at the first step heard of, from which on older events no longer count."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=step)
        return self._writer

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Add the figures that are finite."""
        for key, value in values.items():
            if math.isfinite(value):
                self._at(step).add_scalar(key, value, step)
        self._flush()

    def picture(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add a picture."""
        self._at(step).add_image(name, image, step, dataformats="HWC")
        self._flush()

    def _flush(self) -> None:
        """Have on disk what was told, before a checkpoint says that it need not be told again."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


class Journal:
    """`metrics.jsonl` of a run, and its trackers; lines beyond the step resumed from are dropped."""

    def __init__(self, folder: Path, start: int, trackers: Sequence[Tracker] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.trackers = folder / "metrics.jsonl", trackers
        if self.path.is_file():
            whole = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= start]
            write_text(self.path, "".join(f"{line}\n" for line in whole))
        self.file = self.path.open("a", encoding="utf-8")
        self.began = time.monotonic()

    def write(
        self, step: int, figures: Mapping[str, float], pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]] | None = None
    ) -> None:
        """Append one line: the step, seconds since the process began, and the figures; and tell the trackers."""
        line = {"step": step, "seconds": round(time.monotonic() - self.began, 2), **figures}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        tell(self.trackers, step, figures, pictures or {})

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def tell(
    trackers: Sequence[Tracker],
    step: int,
    figures: Mapping[str, float],
    pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]],
) -> None:
    """Hand figures and pictures to all trackers."""
    for tracker in trackers:
        tracker.figures(step, figures)
        for name, image in pictures.items():
            tracker.picture(step, name, image)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut short by a kill
