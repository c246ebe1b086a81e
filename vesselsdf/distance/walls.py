"""Where the wall of a vessel lies between voxel centres, as a set of small discs: from masks, fractions and fields.

All three give centres and unit normals (n, 3) in mm, in the frame "voxel index times spacing".

From a binary mask. As in the first-order initialisation of fast marching (Sethian 1999) the wall crosses the axis
between two face neighbours that differ. Where it does so is told by a narrow Gaussian mean `m` of the mask. On a flat
wall `m` is 1/2, on a curved one it is not: with `k` the sum of the principal curvatures and `s` the width of the
Gaussian, a paraboloid cuts off `k s^2 / 2` more on average at density `1 / (s sqrt(2 pi))`, so

    m = 1/2 - k s / (2 sqrt(2 pi)) + O(k^2 s^2).

Taking 1/2 regardless draws the wall of a vessel of one voxel radius inwards by a quarter of it. `k` is the divergence
of the normal of a wider Gaussian mean; for a straight round vessel all its level sets are coaxial, so it is right
however much the mean was blurred. All of this happens in voxel index space, where window and shape deform alike.

From fractions. Each voxel that the wall crosses gets the plane that cuts off its fraction, normal to the gradient of
the fractions (Youngs 1982): the volume in every such voxel is exact.

From a field. The wall crosses the axis between two centres of different sign where the field, interpolated linearly,
is zero; its normal is the field's gradient there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

MEAN_WIDTH = 0.8
"""Width of the Gaussian mean in voxels, cut off beyond the 27 neighbours."""
CURVATURE_WIDTH = 1.0
CURVATURE_LIMIT = 1.2
"""Per voxel. What mask noise pretends to is more; a ball of one voxel radius has 2, a tube 1."""
CORRECTION = 0.9
"""Share of the threshold's shift that is applied. Random walls put the nearest of several discs too near, which makes
up for some of it; chosen with the widths on random tubes of radius 1 to 5 voxels, where radii come out unbiased."""
KEEP_OFF = 0.05
"""A wall stays at least this share of an edge away from the voxel centres, so that the mask keeps its topology."""
ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Walls:
    """Wall discs: centres in mm and unit normals; normals point either way.

    If there is exactly one disc on every edge of the grid that the wall crosses, `axis` says along which axis it lies.
    """

    points: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    axis: Int[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class Crossings:
    """Pairs of face neighbours of which one is inside: the lower voxel of each, flat in a padded box, and its axis."""

    low: Int[np.ndarray, " n"]
    axis: Int[np.ndarray, " n"]
    shape: tuple[int, ...]
    pad: int

    @classmethod
    def of(cls, inside: Bool[np.ndarray, "x y z"], pad: int) -> "Crossings":
        """All crossings; the box is padded by `pad` voxels on each side."""
        shape = tuple(n + 2 * pad for n in inside.shape)
        found = [_places(_differ(inside, axis)) for axis in range(3)]
        axis = np.repeat(np.arange(3), [places.shape[1] for places in found])
        low = np.ravel_multi_index(tuple(np.concatenate(found, axis=1) + pad), shape)
        return cls(low, axis, shape, pad)

    @property
    def strides(self) -> Int[np.ndarray, "3"]:
        """Flat steps along the axes."""
        return np.array([self.shape[1] * self.shape[2], self.shape[2], 1])

    @property
    def high(self) -> Int[np.ndarray, " n"]:
        """The upper voxel of each pair."""
        return self.low + self.strides[self.axis]

    def points(self, share: Float[np.ndarray, " n"], spacing: Float[np.ndarray, "3"]) -> Float[np.ndarray, "n 3"]:
        """Places at a share of the way from the lower to the upper voxel, mm."""
        index = np.stack(np.unravel_index(self.low, self.shape), axis=1) - self.pad
        return (index + share[:, None] * np.eye(3)[self.axis]) * spacing

    def unit(self, vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """The vectors at length one; along the pair's axis where there is none."""
        vectors = np.where((np.abs(vectors).sum(axis=1) > 1e-9)[:, None], vectors, np.eye(3)[self.axis])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _places(found: Bool[np.ndarray, "x y z"]) -> Int[np.ndarray, "3 n"]:
    """Indices of what is set; by way of flat indices, which is several times faster than `nonzero` in 3D."""
    return np.stack(np.unravel_index(np.flatnonzero(found), found.shape))


def _differ(inside: Bool[np.ndarray, "x y z"], axis: int) -> Bool[np.ndarray, "a b c"]:
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    return inside[tuple(ahead)] != inside[tuple(behind)]


def walls_of_mask(mask: Bool[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> Walls:
    """One disc between every two face neighbours that differ; the mask goes on beyond its box as at its border."""
    pairs = Crossings.of(mask, pad=2)
    voxels, owners = np.unique(np.concatenate([pairs.low, pairs.high]), return_inverse=True)
    flat = np.pad(mask, 2, mode="edge").ravel()
    mean, gradient, curvature = _moments(flat, voxels, pairs.strides)
    at_low, at_high = np.split(owners, 2)
    k = np.clip((curvature[at_low] + curvature[at_high]) / 2, -CURVATURE_LIMIT, CURVATURE_LIMIT)
    threshold = np.clip(0.5 - CORRECTION * MEAN_WIDTH * k / (2 * np.sqrt(2 * np.pi)), 0.15, 0.85)
    upwards = np.where(flat[pairs.high], 1.0, -1.0)
    rise = (mean[at_high] - mean[at_low]) * upwards
    wanted = (threshold - mean[at_low]) * upwards
    # Where the mean does not rise from the outer to the inner voxel (thin sheets), half-way.
    share = np.where(rise > 1e-9, wanted / np.where(rise > 1e-9, rise, 1.0), 0.5)
    points = pairs.points(np.clip(share, KEEP_OFF, 1 - KEEP_OFF), spacing)
    return Walls(points, pairs.unit((gradient[at_low] + gradient[at_high]) / spacing), pairs.axis)


def _moments(
    flat: Bool[np.ndarray, " n"], voxels: Int[np.ndarray, " m"], strides: Int[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m 3"], Float[np.ndarray, " m"]]:
    """Narrow Gaussian mean of the mask, a multiple of its gradient, and the sum of the principal curvatures; voxels."""
    shifts = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    weights = _moment_weights(shifts)
    result = np.empty((len(voxels), weights.shape[1]), np.float32)
    steps = shifts @ strides
    for start in range(0, len(voxels), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        result[part] = flat[voxels[part, None] + steps].astype(np.float32) @ weights
    mean, gradient, wide = result[:, 0], result[:, 1:4], result[:, 4:7]
    xx, yy, zz, xy, xz, yz = result[:, 7:].T
    slope = np.linalg.norm(wide, axis=1)
    x, y, z = (wide / np.maximum(slope, 1e-9)[:, None]).T
    along = xx * x * x + yy * y * y + zz * z * z + 2 * (xy * x * y + xz * x * z + yz * y * z)
    # The outward normal is minus the gradient; its divergence is the Laplacian within the level set over the slope.
    curvature = -(xx + yy + zz - along) / np.maximum(slope, 1e-6)
    return mean.astype(float), gradient.astype(float), curvature.astype(float)


def _moment_weights(shifts: Int[np.ndarray, "s 3"]) -> np.ndarray:
    """Columns: mean, gradient (3), and first (3) and second (6) derivatives of the wider mean."""
    squared = (shifts**2).sum(axis=1)
    narrow = np.exp(-0.5 * squared / MEAN_WIDTH**2) * (np.abs(shifts).max(axis=1) <= 1)
    variance = CURVATURE_WIDTH**2
    wide = np.exp(-0.5 * squared / variance)
    first = shifts / variance
    # Of the window as it is, sampled and cut off: a flat wall has no curvature.
    sampled = (wide * shifts[:, 0] ** 2).sum() / wide.sum()
    second = [(shifts[:, a] * shifts[:, b] - (a == b) * sampled) / variance**2 for a, b in _SECOND]
    columns = [narrow / narrow.sum(), *(narrow[:, None] * shifts).T, *(wide[:, None] * first).T]
    columns += [wide * entry for entry in second]
    return np.stack(columns, axis=1).astype(np.float32)


_SECOND = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)]


def walls_of_field(sdf: Num[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> Walls:
    """One disc where the field crosses zero between two face neighbours; zero counts as inside."""
    pairs = Crossings.of(sdf <= 0, pad=0)
    flat = sdf.ravel()
    low, high = flat[pairs.low].astype(float), flat[pairs.high].astype(float)
    share = np.abs(low) / np.maximum(np.abs(low) + np.abs(high), 1e-30)
    slope = gradient_at(sdf, pairs.low, spacing) * (1 - share)[:, None]
    slope += gradient_at(sdf, pairs.high, spacing) * share[:, None]
    slope /= max(float(np.abs(slope).max(initial=0.0)), 1e-300)  # squares of large slopes would overflow
    return Walls(pairs.points(share, spacing), pairs.unit(slope), pairs.axis)


def gradient_at(
    field: Num[np.ndarray, "x y z"], voxels: Int[np.ndarray, " n"], spacing: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "n 3"]:
    """Central differences of a field at flat voxels, one-sided at the border, per mm."""
    index = np.unravel_index(voxels, field.shape)
    result = np.zeros((len(voxels), 3))
    for axis, n in enumerate(field.shape):
        ahead, behind = list(index), list(index)
        ahead[axis], behind[axis] = np.minimum(index[axis] + 1, n - 1), np.maximum(index[axis] - 1, 0)
        steps = np.maximum(ahead[axis] - behind[axis], 1) * spacing[axis]
        result[:, axis] = (field[tuple(ahead)].astype(float) - field[tuple(behind)]) / steps
    return result


def walls_of_fractions(
    fraction: Num[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]
) -> Walls:
    """One disc in every voxel at the wall that is partly vessel, and between full and empty neighbours."""
    partial = _partial_voxels(fraction)
    # The wall passes only through voxels that touch one of the other kind.
    kind, touches = inside[tuple(partial)], np.zeros(partial.shape[1], bool)
    for _, place in _around(partial, fraction.shape):
        touches |= inside[place] != kind
    partial = partial[:, touches]
    slope, length = _youngs_normal(fraction, partial, spacing)
    usable = length > 1e-6
    partial, outward = partial[:, usable], -slope[usable] / length[usable, None]
    depth = plane_offset(fraction[tuple(partial)].astype(float), np.abs(outward) * spacing)
    # Where neither neighbour has a plane (full beside empty, or no slope at all): where the fractions pass one half.
    pairs = Crossings.of(inside, pad=0)
    planes = np.ravel_multi_index(tuple(partial), fraction.shape)
    bare = ~(np.isin(pairs.low, planes) | np.isin(pairs.high, planes))
    between = Crossings(pairs.low[bare], pairs.axis[bare], pairs.shape, 0)
    ends = [np.stack(np.unravel_index(voxels, fraction.shape)) for voxels in (between.low, between.high)]
    at_low, at_high = (fraction[tuple(end)].astype(float) for end in ends)
    share = np.clip((0.5 - at_low) / (at_high - at_low), KEEP_OFF, 1 - KEEP_OFF)
    low, high = (_youngs_normal(fraction, end, spacing)[0] for end in ends)
    return Walls(
        np.concatenate([partial.T * spacing + depth[:, None] * outward, between.points(share, spacing)]),
        np.concatenate([outward, between.unit(low + high)]),
    )


def _partial_voxels(fraction: Num[np.ndarray, "x y z"]) -> Int[np.ndarray, "3 n"]:
    """Indices of the voxels that are partly vessel; plane by plane, since masks of the whole would take memory."""
    found = []
    for x, plane in enumerate(fraction):
        y, z = np.nonzero((plane > PURE) & (plane < 1 - PURE))
        found.append(np.stack([np.full(len(y), x), y, z]))
    return np.concatenate(found, axis=1)


def _around(index: Int[np.ndarray, "3 n"], shape: tuple[int, ...]) -> Iterator[tuple[np.ndarray, tuple]]:
    """The 27 steps to neighbours, and the indices they lead to; beyond the border, those of the voxel at the border."""
    axes = [[np.clip(at + step, 0, n - 1) for step in (-1, 0, 1)] for at, n in zip(index, shape, strict=True)]
    for shift in np.ndindex(3, 3, 3):
        yield np.array(shift) - 1, tuple(axis[k] for axis, k in zip(axes, shift, strict=True))


ROUNDS = 6
"""Of Newton's method, to find a plane in a voxel; the largest error on random planes is 1e-6 of its diagonal."""
PURE = 1e-3
"""Fractions that near to 0 or 1 are taken for it: the plane they cut off is not to be told from a corner."""


def _youngs_normal(
    fraction: Num[np.ndarray, "x y z"], index: Int[np.ndarray, "3 n"], spacing: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Gradient of the fractions per mm over 27 voxels (Youngs 1982), and its length."""
    slope = np.zeros((index.shape[1], 3))
    for step, place in _around(index, fraction.shape):
        value = fraction[place] * 2.0 ** -np.abs(step).sum()
        slope += value[:, None] * step
    slope /= spacing
    return slope, np.linalg.norm(slope, axis=1)


def plane_offset(fraction: Float[np.ndarray, " n"], sides: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Signed distance from a voxel's centre to the plane that cuts off a fraction of it, along the outward normal; mm.

    sides: absolute components of the unit normal times the voxel's edges. A plane at height `a` above the voxel's
    lowest corner cuts off `sum_S (-1)^|S| (a - sum S)_+^3 / (6 m1 m2 m3)` over the subsets S of the sides (Barrow and
    Smith 1979); inverted by Newton's method between brackets.

    >>> plane_offset(np.array([0.5, 0.75]), np.array([[1.0, 0, 0], [1.0, 0, 0]])).round(3).tolist()
    [0.0, 0.25]
    """
    sides = np.maximum(sides, 1e-4 * sides.max(axis=1, keepdims=True))
    whole = sides.sum(axis=1)
    subsets = np.array(list(np.ndindex(2, 2, 2)))
    corners, signs = sides @ subsets.T, (-1.0) ** subsets.sum(axis=1)
    wanted = np.minimum(fraction, 1 - fraction) * 6 * sides.prod(axis=1)
    low, high = np.zeros(len(fraction)), whole / 2
    height = np.minimum(np.cbrt(wanted), high)  # right if the plane cuts off no more than the corner
    for _ in range(ROUNDS):
        above = np.maximum(height[:, None] - corners, 0)
        squared = above**2
        excess = (squared * above) @ signs - wanted
        low, high = np.where(excess < 0, height, low), np.where(excess < 0, high, height)
        step = height - excess / np.maximum(3 * squared @ signs, 1e-12)
        height = np.where((step >= low) & (step <= high), step, (low + high) / 2)
    return np.where(fraction < 0.5, height - whole / 2, whole / 2 - height)
