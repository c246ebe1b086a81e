"""Measures of single branches: radius and taper away from junctions, tortuosity, volume, wall, narrowings.

Near a junction the lumen of a branch is part of a wider one, so its radii there say little about the branch. The
*clear* part of a branch is what lies farther along it than `ZONE_RADII` radii of the widest branch of that junction,
but each of its ends loses at most a third of its length: of a short branch the middle third is left. Mean radius, taper
and directions come from the clear part; length, volume and wall from the whole centreline, so those of a side branch
begin on the axis of its parent.
"""

import math

import numpy as np
from jaxtyping import Float

# Where two vessels part at 60 degrees or more their walls are apart within two radii of the wider one.
ZONE_RADII = 2.0


def along(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Length (mm) of a polyline from its first point to each point."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def mean_along(arc: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Mean of values that vary linearly between the points of a polyline; of a polyline without length, the plain mean.

    >>> mean_along(np.array([0.0, 1.0, 4.0]), np.array([2.0, 2.0, 4.0]))
    2.75
    """
    if arc[-1] <= arc[0]:
        return float(values.mean())
    return float(np.trapezoid(values, arc) / (arc[-1] - arc[0]))


def clear_range(length: float, zones: tuple[float, float]) -> tuple[float, float]:
    """Where the clear part of a branch begins and ends (mm along it), given the zones (mm) of its two ends."""
    return min(zones[0], length / 3), length - min(zones[1], length / 3)


def part(
    arc: Float[np.ndarray, " n"], values: Float[np.ndarray, "n *k"], first: float, last: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m *k"]]:
    """Arc and values (n,) or (n, k) of a polyline between two places along it, both included."""
    inside = (arc > first) & (arc < last)
    where = np.concatenate([[first], arc[inside], [last]])
    columns = np.atleast_2d(values.T)
    cut = np.stack([np.interp(where, arc, column) for column in columns], axis=-1)
    return where, cut if values.ndim == 2 else cut[:, 0]


def slope(arc: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Slope of the least-squares line through values along a polyline; 0 for one without length.

    >>> slope(np.array([0.0, 1.0, 5.0]), np.array([3.0, 2.5, 0.5]))
    -0.5
    """
    if arc[-1] <= arc[0]:
        return 0.0
    # Each point stands for the length around it: dense points count no more than sparse ones.
    steps = np.diff(arc) / 2
    weights = np.concatenate([steps, [0]]) + np.concatenate([[0], steps])
    centred = arc - np.average(arc, weights=weights)
    spread = float((weights * centred**2).sum())
    return float((weights * centred * values).sum() / spread)


def volume(arc: Float[np.ndarray, " n"], radii: Float[np.ndarray, " n"]) -> float:
    """Volume (mm^3) of the truncated cones along a branch.

    >>> round(volume(np.array([0.0, 3.0]), np.array([1.0, 2.0])) / np.pi, 12)
    7.0
    """
    a, b = radii[:-1], radii[1:]
    return float(math.pi / 3 * (np.diff(arc) * (a * a + a * b + b * b)).sum())


def wall_area(arc: Float[np.ndarray, " n"], radii: Float[np.ndarray, " n"]) -> float:
    """Lateral surface (mm^2) of the truncated cones along a branch, without end faces.

    >>> round(wall_area(np.array([0.0, 4.0]), np.array([4.0, 1.0])) / np.pi, 12)
    25.0
    """
    a, b = radii[:-1], radii[1:]
    return float(math.pi * ((a + b) * np.hypot(np.diff(arc), a - b)).sum())


def tortuosity(points: Float[np.ndarray, "n 3"], length: float) -> float | None:
    """Length over chord, at least 1; None of a branch that ends where it began."""
    chord = float(np.linalg.norm(points[-1] - points[0]))
    return max(length / chord, 1.0) if chord > 1e-9 * max(length, 1.0) else None


def sum_of_angles(points: Float[np.ndarray, "n 3"], step: float) -> float:
    """Sum of angles metric (Bullitt et al. 2003): how far a branch turns, in rad per mm of its length.

    The angles are those between equal steps of about `step` mm (one radius, say): the jitter of dense points is no
    bend of the vessel. A branch shorter than two steps has none.
    """
    arc = along(points)
    count = int(arc[-1] / step) if step > 0 else 0
    if count < 2:
        return 0.0
    where = np.linspace(0, arc[-1], count + 1)
    places = np.stack([np.interp(where, arc, column) for column in points.T], axis=1)
    steps = np.diff(places, axis=0)
    turn = np.arctan2(np.linalg.norm(np.cross(steps[:-1], steps[1:]), axis=1), (steps[:-1] * steps[1:]).sum(axis=1))
    # The angles stand for the length between the middles of the first and the last step.
    return float(turn.sum() / (arc[-1] * (count - 1) / count))


def narrowing(radii: Float[np.ndarray, " n"]) -> tuple[float, int]:
    """The deepest narrowing along a vessel and where it is: 1 - r / (the lesser of the widest radii before and after).

    That is the diameter stenosis in the manner of NASCET, against the narrower side; 0 for a vessel that only tapers.

    >>> narrowing(np.array([4.0, 3.0, 1.5, 2.0, 1.0]))
    (0.25, 2)
    """
    before = np.maximum.accumulate(radii)
    after = np.maximum.accumulate(radii[::-1])[::-1]
    reference = np.minimum(before, after)
    depth = 1 - radii / np.where(reference > 0, reference, 1.0)
    depth[reference <= 0] = 0.0
    k = int(depth.argmax())
    return float(depth[k]), k


def direction(points: Float[np.ndarray, "n 3"], first: float, last: float) -> Float[np.ndarray, "3"] | None:
    """Unit vector from one place along a branch (mm) to another; None if they coincide."""
    _, cut = part(along(points), points, first, last)
    step = cut[-1] - cut[0]
    size = float(np.linalg.norm(step))
    return step / size if size > 0 else None


def angle(a: Float[np.ndarray, "3"] | None, b: Float[np.ndarray, "3"] | None) -> float | None:
    """Angle between two directions in degrees; None if one is missing.

    >>> round(angle(np.array([1.0, 0, 0]), np.array([0, 2.0, 0])), 9)
    90.0
    """
    if a is None or b is None:
        return None
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b)))
