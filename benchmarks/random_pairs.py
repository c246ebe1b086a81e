"""Random fields, pairs of fields and pyramids that make life hard for certificates; each has a kind and a number."""

import itertools

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter

from vesselsdf import scales
from vesselsdf.topology.certificates import sup_distance
from vesselsdf.topology.persistence import features


def random_shape(generator: np.random.Generator) -> tuple[int, ...]:
    """Mostly up to 6 voxels per axis, often one voxel thick, sometimes 8."""
    low, high = ((1, 7), (1, 7), (4, 9))[generator.integers(3)]
    return tuple(int(n) for n in generator.integers(low, high, 3))


def distances(mask: np.ndarray, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance to the wall between voxels of a mask, up to half a voxel; constant where there is no wall."""
    if mask.all() or not mask.any():
        return np.where(mask, -1.5, 1.5)
    return distance_transform_edt(~mask, spacing) - distance_transform_edt(mask, spacing)


def drawn(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """A mask with loops or cavities: lines that cross, the twelve edges of a box, or its faces."""
    mask = np.zeros(shape, bool)
    kind = generator.integers(3)
    if kind == 0:
        for axis in generator.integers(0, 3, 4):
            at = [slice(None) if a == axis else int(generator.integers(shape[a])) for a in range(3)]
            mask[tuple(at)] = True
        return mask
    low = [int(generator.integers(0, max(1, n // 3))) for n in shape]
    box = tuple(
        slice(start, int(generator.integers(max(start + 1, n - 2), n + 1))) for start, n in zip(low, shape, strict=True)
    )
    at = np.indices(mask[box].shape)
    on_faces = sum((a == 0) | (a == n - 1) for a, n in zip(at, mask[box].shape, strict=True))
    mask[box] = on_faces >= (2 if kind == 1 else 1)
    return mask


def one_field(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth, noise, integers with ties, distances to random and to drawn masks, two values; float32 or float64."""
    noise = generator.normal(size=shape)
    kind = generator.integers(8)
    if kind <= 1:
        smooth = gaussian_filter(noise, generator.uniform(0.4, 1.5))
        return (smooth / max(smooth.std(), 1e-2) + generator.normal() / 2).astype([np.float32, np.float64][kind])
    if kind == 2:
        return noise
    if kind == 3:
        return generator.integers(-3, 4, shape).astype(np.float64)
    if kind == 4:
        return distances(gaussian_filter(noise, 0.8) < 0, tuple(generator.uniform(0.4, 2, 3)))
    if kind <= 6:
        return distances(drawn(generator, shape)) - generator.choice([0, 0.5, generator.uniform(-0.9, 0.9)])
    return np.where(generator.random(shape) < generator.uniform(0.2, 0.8), -1.0, 1.0) * generator.uniform(0.1, 1)


def another(generator, f):
    """A field that has nothing to do with f."""
    return one_field(generator, f.shape)


def disturbed(generator, f):
    """An error of any size and smoothness."""
    error = gaussian_filter(generator.normal(size=f.shape), generator.uniform(0, 1.5))
    return f + (error * generator.uniform(0, 1.5) * f.std() / max(error.std(), 1e-3)).astype(f.dtype)


def flipped(generator, f):
    """A few voxels exchanged between vessel and background, the rest untouched."""
    return np.where(generator.random(f.shape) < generator.uniform(0, 0.15), -f, f)


def at_margins(generator, f):
    """Errors as large as a margin of f, or one step of the number format more or less: the worst that a bound allows.

    Everywhere up, everywhere down, or random signs.
    """
    margins = [bar.margin for bar in features(f) if bar.alive and bar.margin > 0] or [0.5]
    eps = float(margins[generator.integers(len(margins))])
    eps = [eps, np.nextafter(eps, 0), np.nextafter(eps, 9)][generator.integers(3)]
    sign = [-1.0, 1.0, generator.choice([-1.0, 1.0], f.shape)][generator.integers(3)]
    return f.astype(np.float64) + sign * eps


def at_the_wall(generator, f):
    """Only voxels near the wall move, by just enough to reach zero or cross it."""
    limit = np.quantile(np.abs(f), generator.random())
    moved = (np.abs(f) <= limit) & (generator.random(f.shape) < 0.5)
    return np.where(moved, [0.0, -f, np.where(f <= 0, 1e-3, 0.0)][generator.integers(3)], f)


def regrown(generator, f):
    """Distances to the dilated, eroded or shifted mask of f."""
    mask = f <= 0
    change = [binary_dilation, binary_erosion, lambda m: np.roll(m, 1, axis=int(generator.integers(3)))]
    return distances(change[generator.integers(3)](mask))


def levels_apart(generator, f):
    """f coarse-grained once or twice and prolonged again."""
    level = int(generator.integers(1, 3))
    coarse = scales.pyramid(f, level + 1, scales.OPERATORS[generator.integers(3)])[level]
    return scales.prolong_to(coarse, f.shape, level)


PAIRS = (another, disturbed, flipped, at_margins, at_the_wall, regrown, levels_apart)
PYRAMIDS = ("coarse-grained", "network")
KINDS = (*(make.__name__ for make in PAIRS), *PYRAMIDS)


def make_pair(kind: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair of this kind and number: always the same."""
    generator = np.random.default_rng([KINDS.index(kind), index])
    f = one_field(generator, random_shape(generator))
    return f, np.asarray(PAIRS[KINDS.index(kind)](generator, f))


def make_pyramid(kind: str, index: int) -> tuple[list[np.ndarray], list[float]]:
    """Three or four levels, finest first, and bounds that hold, per level: `sup |phi_k - U phi_{k+1}|` added up.

    "network": from the coarsest field on, corrections of at most `kappa h`, many of them exactly as large.
    """
    generator = np.random.default_rng([KINDS.index(kind), index])
    shape = tuple(int(n) for n in generator.integers(3, 13, 3))
    levels = int(generator.integers(3, 5))
    if kind == "coarse-grained":
        fields = scales.pyramid(one_field(generator, shape), levels, scales.OPERATORS[generator.integers(3)])
        steps = [sup_distance(a, scales.prolong(b, a.shape)) for a, b in itertools.pairwise(fields)]
        return fields, [0.0, *np.cumsum(steps).tolist()]
    kappa, spacing = float(generator.choice([0.1, 0.7, 0.75, generator.uniform(0.05, 1)])), 0.5
    limits = [kappa * spacing * 2.0**level for level in range(1, levels)]
    coarsest = one_field(generator, scales.level_shape(shape, levels - 1)).astype(np.float64)
    if generator.random() < 0.3:  # margins that are exactly a bound, and a vessel that is only just missed
        coarsest = limits[0] * np.round(coarsest) + generator.choice([0.0, 1e-17])
    share = generator.choice([0.0, 0.4, 1.0])
    dtype = generator.choice([np.float32, np.float64])
    fields = [coarsest.astype(dtype)]
    for level in reversed(range(levels - 1)):
        prolonged = scales.prolong(fields[0], scales.level_shape(shape, level))
        correction = np.tanh(generator.normal(size=prolonged.shape) * generator.uniform(0, 2))
        saturated = generator.random(prolonged.shape) < share
        correction = limits[level] * np.where(saturated, np.sign(correction), correction)
        fields.insert(0, prolonged + correction.astype(dtype))
    return fields, scales.bounds(spacing, levels, kappa)
