"""Kernels that read a sampled field between its samples, compiled by numba; see `zero_set`."""

import numpy as np

from vesselsdf.compiled import inner, kernel


@inner
def keys_weights(x, size, weights):
    """First of four samples around `x` along an axis, whose weights (Keys 1981, a = -1/2) are written to `weights`."""
    x = min(max(x, 0.0), size - 1.0)
    base = min(int(x), max(size - 2, 0))
    t = x - base
    weights[0] = t * (-0.5 + t * (1.0 - 0.5 * t))
    weights[1] = 1.0 + t * t * (1.5 * t - 2.5)
    weights[2] = t * (0.5 + t * (2.0 - 1.5 * t))
    weights[3] = t * t * (0.5 * t - 0.5)
    return base - 1


@inner
def value_at(field, to_index, spacing, walls, x, y, z, weights):
    """Signed distance at a point in RAS mm; `weights` is (3, 4) of scratch space."""
    i = to_index[0, 0] * x + to_index[0, 1] * y + to_index[0, 2] * z + to_index[0, 3]
    j = to_index[1, 0] * x + to_index[1, 1] * y + to_index[1, 2] * z + to_index[1, 3]
    k = to_index[2, 0] * x + to_index[2, 1] * y + to_index[2, 2] * z + to_index[2, 3]
    beyond = max(spacing[0] * max(walls[0, 0] - i, i - walls[0, 1]), spacing[1] * max(walls[1, 0] - j, j - walls[1, 1]))
    beyond = max(beyond, spacing[2] * max(walls[2, 0] - k, k - walls[2, 1]))
    start = (
        keys_weights(i, field.shape[0], weights[0]),
        keys_weights(j, field.shape[1], weights[1]),
        keys_weights(k, field.shape[2], weights[2]),
    )
    total = 0.0
    for a in range(4):
        p = min(max(start[0] + a, 0), field.shape[0] - 1)
        for b in range(4):
            q = min(max(start[1] + b, 0), field.shape[1] - 1)
            weight = weights[0, a] * weights[1, b]
            for c in range(4):
                r = min(max(start[2] + c, 0), field.shape[2] - 1)
                total += weight * weights[2, c] * field[p, q, r]
    return max(total, beyond)


@kernel
def values_at(field, to_index, spacing, walls, points):
    """`value_at` for all points (n, 3)."""
    weights = np.empty((3, 4))
    values = np.empty(len(points))
    for n in range(len(points)):
        values[n] = value_at(field, to_index, spacing, walls, points[n, 0], points[n, 1], points[n, 2], weights)
    return values
