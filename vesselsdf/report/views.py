"""Directions to look from: along the body axes, and on a turntable."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class View:
    """A direction to look along: body axes (0 right, 1 front, 2 head), with signs, for the picture."""

    name: str
    right: tuple[int, int]
    up: tuple[int, int]
    viewer: tuple[int, int]
    letters: tuple[str, str, str, str]  # at the left, right, bottom and top

    def turned(self, vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """RAS vectors as (right, up, towards the viewer)."""
        return np.stack([sign * vectors[:, axis] for axis, sign in (self.right, self.up, self.viewer)], axis=1)


@dataclass(frozen=True)
class Turn:
    """A direction on a turntable: which body axis is up, degrees turned, and the angle from which one looks down.

    With the head up, 0 degrees are from the front, 90 from the patient's left; with the front up, from below and from
    the left; with the right up, from the front and from the head.
    """

    degrees: float
    up: int = 2
    elevation: float = 0.0

    @property
    def frame(self) -> Float[np.ndarray, "3 3"]:
        """Right of the picture, its top and the direction to the viewer, as rows in RAS."""
        turn, tilt = np.deg2rad((self.degrees, self.elevation))
        axis, start = np.eye(3)[self.up], np.array([[0, 1, 0], [0, 0, -1], [0, 1, 0]], float)[self.up]
        level = np.cos(turn) * start + np.sin(turn) * np.cross(axis, start)
        toward = np.cos(tilt) * level + np.sin(tilt) * axis
        return np.stack([np.cross(axis, level), np.cos(tilt) * axis - np.sin(tilt) * level, toward])

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """At the left, right, bottom and top of the picture."""
        right, up, _ = self.frame
        return tuple(nearest_letter(way) for way in (-right, right, -up, up))  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """Where it is seen from."""
        letter = nearest_letter(self.frame[2])
        tilted = f"turned by {self.degrees:.0f}°, seen at an angle"
        return tilted if self.elevation else SIDES[letter]

    def turned(self, vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """RAS vectors as (right, up, towards the viewer)."""
        return vectors @ self.frame.T


def nearest_letter(way: Float[np.ndarray, "3"]) -> str:
    """The letter of the body's direction that is nearest: R, L, A, P, S or I."""
    axis = int(np.argmax(np.abs(way)))
    return ("RL", "AP", "SI")[axis][int(way[axis] < 0)]


def turntable(size: Float[np.ndarray, "3"]) -> list[Turn]:
    """Four views of vessels of a size (mm along the body axes): the head is up, or what they are long or flat along."""
    thin, middle, long = np.argsort(size, kind="stable").tolist()
    if size[long] > LONG * size[middle]:
        return [Turn(degrees, long) for degrees in QUARTERS]
    if size[thin] < FLAT * size[middle]:
        return [Turn(degrees, thin, TILT) for degrees in QUARTERS]
    return [Turn(degrees) for degrees in QUARTERS]


QUARTERS = (0.0, 90.0, 180.0, 270.0)
LONG, FLAT = 1.6, 0.4
"""Longer than the other extents by this factor: long. Less than this share of the others: flat, as thin stacks are."""
TILT = 50.0
SIDES = {
    "A": "from the front", "P": "from behind", "L": "from the left", "R": "from the right", "S": "from above",
    "I": "from below",
}  # fmt: skip
VIEWS = (
    View("axial, from below", (0, -1), (1, 1), (2, -1), ("R", "L", "P", "A")),
    View("coronal, from the front", (0, -1), (2, 1), (1, 1), ("R", "L", "I", "S")),
    View("sagittal, from the left", (1, -1), (2, 1), (0, -1), ("A", "P", "I", "S")),
)
