"""Where exactly the wall crosses a grid edge: interpolation that is exact on round vessels, however thin.

Why. A distance field has a ridge on the centreline. In a vessel of radius 1.3 voxels the ridge lies within the reach of
any interpolation of the samples: linear crossings lie 0.018 voxel too deep on average, cubic ones are off by 0.008. But
with `rho` the vessel's radius, `(phi + rho)^2` is the squared distance to the centreline, a quadratic polynomial along
every line, across the ridge too, and in a ball likewise. So not `phi` is interpolated but

    psi = phi + kappa phi^2,    kappa = 1 / (2 rho),

which has the same zero set. `kappa` is read off the samples: it is what makes the third difference of `psi` along the
crossed edges vanish, by least squares over a vertex and its neighbours on the mesh. On flat walls nothing is to be
read off, and `kappa` goes to zero. The crossing is the root of the cubic polynomial of `psi` through four samples.
Measured on random tubes of radius 0.7 to 5 voxels, straight and curved: mean error 0.0001 to 0.002 voxel.

Whatever the field holds (masks' distances, noise, values of any size), the crossing stays within its grid edge.
"""

import numpy as np
from jaxtyping import Float, Int, Num

from vesselsdf.marching import Marched, linear_crossing

FLAT = 0.1
"""Third differences well below this share of the step across the wall say nothing about its curvature."""
STEEPEST = 0.75
"""Bound of `kappa * phi` at the samples beside the wall; on the centreline of a vessel it is 1/2."""
FAR = 1e3
"""Samples beyond are cut to this many steps across the wall, so that no power of them overflows."""
ITERATIONS = 8
SETTLED = 1e-9
"""Steps of Newton's method below this many grid edges are always taken: rounding need not let them shrink further."""


def place(
    field: Num[np.ndarray, "x y z"], marched: Marched
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, " v"]]:
    """Vertices of the marched surface in voxel indices, and `kappa` at each, per unit of the field."""
    along, kappa = crossings(field, marched)
    return marched.at(along), kappa


def crossings(
    field: Num[np.ndarray, "x y z"], marched: Marched
) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Share of its edge beyond the lower end at which each vertex lies, and `kappa` there, per unit of the field.

    Both are the same bits whatever part of a volume the field is, three voxels from where it was cut.

    Edges that lead out of the grid are crossed half-way, where the mirrored field closes the surface. In a grid of less
    than four samples along an axis the crossings along it are linear.
    """
    below, above = marched.ends(field)
    along = linear_crossing(below, above)
    kappa = np.zeros(len(along))
    start = np.clip(marched.lower[np.arange(len(along)), marched.axis] - 1, 0, None)
    size = np.array(field.shape)[marched.axis]
    start = np.minimum(start, size - 4)
    position = marched.lower[np.arange(len(along)), marched.axis] - start
    (smooth,) = np.nonzero((start >= 0) & (position >= 0) & (position < 3))
    if len(smooth) == 0:
        return along, kappa
    samples = line_samples(field, marched.lower[smooth], marched.axis[smooth], start[smooth])
    step = np.abs(above - below)[smooth]
    scale = 2.0 ** np.ceil(np.log2(step.max()))  # a power of two, so that no bits depend on it
    samples, step = samples / scale, step / scale
    middle = samples[np.arange(len(smooth)), position[smooth]][:, None]
    samples = np.clip(samples, middle - FAR * step[:, None], middle + FAR * step[:, None])
    third, third_of_square = third_difference(samples), third_difference(samples**2)
    evidence = np.zeros((3, len(along)))
    evidence[:, smooth] = -third * third_of_square, third_of_square**2, step**4
    evidence = add_neighbours(evidence, marched.faces)
    kappa = evidence[0] / np.maximum(evidence[1] + FLAT**2 * evidence[2], np.finfo(float).tiny)
    largest = np.maximum(np.abs(below), np.abs(above))[smooth] / scale
    own = np.clip(kappa[smooth], -STEEPEST / largest, STEEPEST / largest)
    psi = samples + own[:, None] * samples**2
    along[smooth] = cubic_root(psi, position[smooth])
    return along, kappa / scale


def line_samples(
    field: Num[np.ndarray, "x y z"], voxel: Int[np.ndarray, "n 3"], axis: Int[np.ndarray, " n"], start: np.ndarray
) -> Float[np.ndarray, "n 4"]:
    """Four samples in a row along an axis, from `start` on."""
    index = np.repeat(voxel[:, :, None], 4, axis=2)
    index[np.arange(len(voxel)), axis] = start[:, None] + np.arange(4)
    return field[tuple(index.transpose(1, 0, 2))].astype(np.float64)


def third_difference(samples: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Third difference of four samples in a row."""
    a, b, c, d = samples.T
    return d - a + 3 * (b - c)


def add_neighbours(values: Float[np.ndarray, "k v"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "k v"]:
    """Values at each vertex plus those at all vertices that share an edge with it (on a closed, oriented mesh)."""
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    # On a closed oriented mesh every edge runs once in each direction.
    return np.stack([row + np.bincount(start, row[end], minlength=len(row)) for row in values])


def cubic_root(samples: Float[np.ndarray, "n 4"], position: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Root of the cubic polynomial through four samples, between samples `position` and `position + 1`, from 0 to 1.

    Their signs differ (zero counts as below). Newton's method, with bisection where that would leave the bracket or
    does not halve the step (Press et al. 2007, "Numerical recipes", section 9.4).
    """
    rows = np.arange(len(samples))
    a, b, c = samples[:, :3].T
    # Newton's divided differences, about sample 0.
    first, second, third = b - a, (c - 2 * b + a) / 2, third_difference(samples) / 6
    low, high = position.astype(np.float64), position + 1.0
    falls = samples[rows, position] > 0
    place = low + linear_crossing(samples[rows, position], samples[rows, position + 1])
    step = np.ones(len(samples))
    for _ in range(ITERATIONS):
        value = a + place * (first + (place - 1) * (second + (place - 2) * third))
        slope = first + (2 * place - 1) * second + (3 * place * (place - 2) + 2) * third
        beyond = (value > 0) != falls
        high = np.where(beyond, place, high)
        low = np.where(beyond, low, place)
        newton = place - value / np.where(slope == 0, np.inf, slope)
        enough = np.maximum(np.abs(step) / 2, SETTLED)
        fast = (newton >= low) & (newton <= high) & (np.abs(newton - place) <= enough) & (slope != 0)
        step = np.where(fast, newton, (low + high) / 2) - place
        place = place + step
    return place - position
