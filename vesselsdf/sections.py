"""Sections of a vessel normal to its branch: their centres, areas and widths, below the size of a voxel.

Strategy. Two measures, both of all points of all branches at once.

*Rings* (`ring`) find the centre from afar and never fail. Where the field is a distance, on a ring of radius `rho`
about a point `p` in the plane normal to the branch it is

    s(theta) = |rho e(theta) + p - c| - R  =  (rho - R) + (p - c) . e(theta) + O(|p - c|^2 / rho)

for a vessel with centre `c` and radius `R`. The first harmonic of s gives the centre, the mean gives the radius. The
ring stays clear of the ridge at the centre, where linear interpolation of the samples underestimates the depth by up to
half a voxel; on the ring itself that error is known (mean of t (1 - t) / 2 times the second derivative, that is h_a^2
tau_a^2 / (12 rho) per axis with tau the tangent of the ring) and is taken off.

*Rays* (`cast`) measure what is there, round or not: each runs from the centre to the wall in steps of the distance
that is left (sphere tracing, Hart 1996), so it stops at the first wall. There linear interpolation puts the wall of a
thin vessel too far inside. By how much is known: along axis a, at the fraction t_a between two samples, the field is
overestimated by t_a (1 - t_a) / 2 * h_a^2 * kappa * tau_a^2, with kappa the curvature of the wall and tau its tangent,
which the field shows beside the end of the ray. Newton steps take that off.

Space is voxel space scaled by the spacing, mm.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

RING_DIRECTIONS = 12
# Ring radius as a share of the vessel's: inside the wall, where this vessel alone decides the field.
RING = 0.7
RAYS = 24
# Steps of a ray. A wall that slopes along the ray needs many; what is left after these is closed by the Newton steps.
STEPS = 24
# A ray of more than this many radii (of the ring's measure) has left through an opening into something else.
FARTHEST = 5.0
CORRECTIONS = 2
AT_ONCE = 1 << 14


class Field(ABC):
    """A sampled distance field with its spacing, read by linear interpolation at scaled positions (mm)."""

    spacing: np.ndarray

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the grid of samples."""

    @abstractmethod
    def __call__(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
        """Values at `points`, continued from the border outwards."""

    @property
    def voxel(self) -> float:
        """Edge of a cube with the volume of a voxel, mm."""
        return float(np.prod(self.spacing) ** (1 / 3))

    def within(self, points: Float[np.ndarray, "... 3"]) -> Bool[np.ndarray, "..."]:
        """Whether points lie in the box of the grid, outer halves of the border voxels included."""
        index = points / self.spacing
        return ((index >= -0.5) & (index <= np.array(self.shape) - 0.5)).all(axis=-1)


@dataclass(frozen=True)
class DenseField(Field):
    """A field of which all samples are in memory."""

    sdf: np.ndarray
    spacing: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the samples."""
        return self.sdf.shape

    def __call__(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
        """Values at `points`, continued from the border outwards."""
        coordinates = np.moveaxis(points / self.spacing, -1, 0)
        return ndimage.map_coordinates(self.sdf, coordinates, output=np.float64, order=1, mode="nearest")


@dataclass(frozen=True)
class Widths:
    """Sections measured by rays, (n,) mm each unless said otherwise.

    `offset` (n, 3): from the points to the centroids of their sections. `area`: radius of the disc of the same area.
    `least` and `most`: smallest and largest distance from the centroid to the wall. `whole` (n,): every ray has met a
    wall; elsewhere the others count for those that have not. All are NaN where the point lies outside the vessel or
    more than half of its rays meet no wall.
    """

    offset: Float[np.ndarray, "n 3"]
    area: Float[np.ndarray, " n"]
    least: Float[np.ndarray, " n"]
    most: Float[np.ndarray, " n"]
    whole: Bool[np.ndarray, " n"]


def across(tangents: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Two unit vectors normal to each tangent and to each other."""
    first = np.cross(tangents, np.eye(3)[np.abs(tangents).argmin(axis=1)])
    first /= np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)
    return first, np.cross(tangents, first)


def ring(
    field: Field, points: Float[np.ndarray, "n 3"], tangents: Float[np.ndarray, "n 3"], rho: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Offset to the centre of each normal section, and the radius there, from rings of radius `rho`; all in mm."""
    parts = [
        ring_of_some(field, points[k : k + AT_ONCE], tangents[k : k + AT_ONCE], rho[k : k + AT_ONCE])
        for k in range(0, max(len(points), 1), AT_ONCE)
    ]
    return np.concatenate([offset for offset, _ in parts]), np.concatenate([radius for _, radius in parts])


def ring_of_some(
    field: Field, points: np.ndarray, tangents: np.ndarray, rho: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`ring` for as many points as fit in memory."""
    first, second = across(tangents)
    angle = np.arange(RING_DIRECTIONS) * 2 * np.pi / RING_DIRECTIONS
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    outward, along = cos * first + sin * second, cos * second - sin * first
    values = field(points + rho[:, None] * outward) - (along**2 @ field.spacing**2) / (12 * rho)
    offset = -2 * (values[:, :, None] * outward).mean(axis=0)
    # |rho e + d| exceeds rho + d.e by |d|^2 sin^2 / (2 rho), on average |d|^2 / (4 rho).
    return offset, rho - values.mean(axis=0) + (offset**2).sum(axis=1) / (4 * rho)


def ball(field: Field, point: Float[np.ndarray, "3"], rounds: int = 4) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and radius of the ball that best explains the field around `point`: as `ring`, in 3D."""
    outward = np.array([d for d in np.ndindex(3, 3, 3) if d != (1, 1, 1)]) - 1.0
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    centre, radius = point, max(float(-field(point[None])[0]), 0.0)
    for _ in range(rounds):
        rho = max(RING * radius, field.voxel)
        bias = ((1 - outward**2) @ field.spacing**2) / (12 * rho)
        values = field(centre + rho * outward) - bias
        step = -3 * (values[:, None] * outward).mean(axis=0)
        size = float(np.linalg.norm(step))
        centre = centre + step * min(1.0, field.voxel / 2 / max(size, 1e-12))
        radius = max(float(rho - values.mean()), 0.0)
    return (centre, radius) if np.linalg.norm(centre - point) < 2 * field.voxel else (point, radius)


def cast(
    field: Field, points: Float[np.ndarray, "n 3"], tangents: Float[np.ndarray, "n 3"], size: Float[np.ndarray, " n"]
) -> Widths:
    """The sections at points inside a vessel, normal to `tangents`; `size` is about their radius, mm."""
    parts = [
        cast_some(field, points[k : k + AT_ONCE], tangents[k : k + AT_ONCE], size[k : k + AT_ONCE])
        for k in range(0, max(len(points), 1), AT_ONCE)
    ]
    names = ("offset", "area", "least", "most", "whole")
    return Widths(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def cast_some(field: Field, points: np.ndarray, tangents: np.ndarray, size: np.ndarray) -> Widths:
    """`cast` for as many points as fit in memory."""
    first, second = across(tangents)
    angle = np.arange(RAYS) * 2 * np.pi / RAYS
    cos, sin = np.cos(angle)[None, :, None], np.sin(angle)[None, :, None]
    outward = cos * first[:, None] + sin * second[:, None]
    reach, slope = march(field, points, outward, FARTHEST * np.maximum(size, field.voxel))
    met = np.isfinite(reach)
    known = met.sum(axis=1)
    mean = np.where(met, reach, 0.0).sum(axis=1) / np.maximum(known, 1)
    reach = np.where(met, reach, mean[:, None])
    reach = np.where(met, to_wall(field, points, outward, reach, slope.clip(0.3, 1.5)), reach)
    # Area and centroid in polar coordinates. Sums over all angles are exact for the harmonics of a smooth closed curve.
    ends = reach[:, :, None] * outward
    square = np.maximum((reach**2).sum(axis=1), 1e-300)
    offset = (2 / 3) * (reach[:, :, None] ** 2 * ends).sum(axis=1) / square[:, None]
    area = np.sqrt(square / RAYS)
    distance = np.linalg.norm(ends - offset[:, None], axis=2)
    least, most = -peak(-distance), peak(distance)
    lost = 2 * known < RAYS
    area, least, most = (np.where(lost, np.nan, values) for values in (area, least, most))
    return Widths(np.where(lost[:, None], np.nan, offset), area, np.minimum(least, area), np.maximum(most, area),
                  known == RAYS)  # fmt: skip


def march(
    field: Field, points: np.ndarray, outward: Float[np.ndarray, "n m 3"], farthest: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Length of each ray to the first wall of the linearly interpolated field (NaN: none), and the field's slope there.

    A ray that leaves the grid, or is longer than `farthest`, meets none.
    """
    n, m, _ = outward.shape
    reach, slope = np.full(n * m, np.nan), np.ones(n * m)
    rays = np.flatnonzero(np.repeat((depth := -field(points)) > 0, m))
    directions, owner = outward.reshape(-1, 3), np.arange(n * m) // m
    s, value = np.zeros(rays.size), -depth[owner[rays]]
    for _ in range(STEPS):
        # Not beyond the wall by more than a quarter of a voxel: the crossing lies where the field is nearly linear.
        ahead = s + np.maximum(-value, 0) + field.voxel / 4
        place = points[owner[rays]] + ahead[:, None] * directions[rays]
        found = field(place)
        crossed = found > 0
        hit, rise = rays[crossed], (found - value)[crossed] / (ahead - s)[crossed]
        reach[hit] = s[crossed] - value[crossed] / rise
        slope[hit] = rise
        on = ~crossed & (ahead < farthest[owner[rays]]) & field.within(place)
        rays, s, value = rays[on], ahead[on], found[on]
        if not rays.size:
            break
    return reach.reshape(n, m), slope.reshape(n, m)


def to_wall(
    field: Field,
    points: np.ndarray,
    outward: Float[np.ndarray, "n m 3"],
    reach: Float[np.ndarray, "n m"],
    slope: Float[np.ndarray, "n m"],
) -> Float[np.ndarray, "n m"]:
    """Lengths of the rays to where the field itself is zero, not its linear interpolation (see the module).

    Off a wall of radius R along its tangent, by a step d, the field has risen by q = sqrt(R^2 + d^2) - R, so that 1 / R
    is 2 q / (d^2 - q^2); its linear interpolation has risen by the difference of the two excesses more.
    """
    step = float(field.spacing.max())
    ends = points[:, None] + reach[:, :, None] * outward
    tangent = np.roll(ends, -1, axis=1) - np.roll(ends, 1, axis=1)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=2, keepdims=True), 1e-12)
    weight = (tangent * field.spacing) ** 2

    def excess(places: np.ndarray) -> np.ndarray:
        """Of the linear interpolation, for curvature 1."""
        fraction = np.mod(places / field.spacing, 1.0)
        return (fraction * (1 - fraction) / 2 * weight).sum(axis=2)

    value = field(ends)
    beside = [ends + step * tangent, ends - step * tangent]
    rise = sum(field(place) for place in beside) / 2 - value
    curvature = rise / (step**2 / 2 + sum(excess(place) for place in beside) / 2 - excess(ends))
    curvature = curvature / np.maximum(1 - (curvature * step) ** 2 / 4, 0.5)
    curvature = curvature.clip(-1 / field.voxel, 2 / field.voxel)
    # Around a thin vessel the ridge is within the step: there the section can only be taken for round.
    mean = np.maximum(reach.mean(axis=1, keepdims=True), 1e-12)
    shape = ((mean / step - 1) / 1.5).clip(0, 1)
    curvature = shape * curvature + (1 - shape) * np.minimum(1 / mean, 2 / field.voxel)
    for _ in range(CORRECTIONS):
        reach = reach - ((value - curvature * excess(ends)) / slope).clip(-field.voxel / 2, field.voxel / 2)
        ends = points[:, None] + reach[:, :, None] * outward
        value = field(ends)
    return np.maximum(reach, 0.0)


def peak(values: Float[np.ndarray, "n m"]) -> Float[np.ndarray, " n"]:
    """Largest value of each row, a closed curve: of the parabola through the largest sample and its neighbours."""
    row, top = np.arange(len(values)), values.argmax(axis=1)
    m = values.shape[1]
    left, middle, right = values[row, (top - 1) % m], values[row, top], values[row, (top + 1) % m]
    bend = 2 * middle - left - right
    gain = (right - left) ** 2 / (8 * np.maximum(bend, 1e-12))
    return middle + np.where(bend > 1e-12, gain, 0.0)
