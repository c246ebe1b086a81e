"""Reading an array at the voxel centres of another grid: linear in place, never extrapolating, lean in memory.

Strategy: where both grids have parallel axes (whatever the flips and permutations) every axis is a short weighted sum
of source planes, two for interpolation and a few more for averaging. The axes are done one after the other, slab by
slab, the one that shrinks the array most first. Any other grid goes to `scipy.ndimage.affine_transform`.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

SLAB_VOXELS = 1 << 20
Taps = tuple[np.ndarray, np.ndarray]


def regrid(
    array: np.ndarray,
    index_map: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    order: int = 1,
    fill: float | int | None = None,
    widths: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """Values of `array` (X, Y, Z) on a grid of `shape`, whose voxel index `index_map` takes to indices of `array`.

    order 0: nearest voxel, dtype kept. order 1: trilinear, float32 (float64 stays), exact for functions linear in
    position wherever the voxel centres of `array` surround the place. Outside of them the nearest edge voxel counts,
    or `fill` beyond the outer faces of the edge voxels.
    widths: per target axis, width of the box (source voxels) over which the interpolant is averaged; it needs
    parallel axes.
    """
    linear = index_map[:3, :3]
    dominant = np.abs(linear).argmax(axis=0)  # the source axis that each target axis runs along
    off_axis = linear.copy()
    off_axis[dominant, range(3)] = 0.0
    # A twentieth of a thousandth of a voxel over the whole grid: far below what float32 headers can say.
    parallel = sorted(dominant) == [0, 1, 2] and np.abs(off_axis * np.array(shape)).max() < 5e-5
    if not parallel:
        result = _oblique(array, index_map, shape, order)
        if fill is not None:
            result[_outside(index_map, shape, array.shape)] = fill
        return result
    array = array.transpose(dominant)
    places = [linear[dominant[axis], axis] * np.arange(shape[axis]) + index_map[dominant[axis], 3] for axis in range(3)]
    taps = [_taps(place, n, order, width) for place, n, width in zip(places, array.shape, widths, strict=True)]
    result = _separable(array, taps, order)
    if fill is not None:
        for axis, (place, n) in enumerate(zip(places, array.shape, strict=True)):
            np.moveaxis(result, axis, 0)[(place < -0.5 - 1e-6) | (place > n - 0.5 + 1e-6)] = fill
    return result


def regrid_part(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    source_shape: tuple[int, ...],
    index_map: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
    box: tuple[slice, ...],
    widths: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """The box of what `regrid` would make (trilinear, axes alike), from as much of the source as that needs.

    `read`: gives a box of the source, of `source_shape`, in C order; `index_map` must be diagonal. Bit for bit the same
    whatever the box.
    """
    steps, shifts = index_map.diagonal()[:3], index_map[:3, 3]
    taps, first, last = [], [], []
    for step, shift, part, n, width in zip(steps, shifts, box, source_shape, widths, strict=True):
        index, weights = _taps(step * np.arange(part.start, part.stop) + shift, n, 1, width)
        first.append(int(index.min()))
        last.append(int(index.max()) + 1)
        taps.append((index - first[-1], weights))
    source = np.ascontiguousarray(read(tuple(map(slice, first, last))))
    sequence = sorted(range(3), key=lambda axis: shape[axis] / source_shape[axis])
    return _separable(source, taps, 1, sequence)


def _taps(place: Float[np.ndarray, " m"], n: int, order: int, width: float) -> Taps:
    """Source planes (m, k) and their weights (m, k) for target planes at `place` of an axis of `n` source planes."""
    whole = width <= 0 and bool((np.abs(place - np.rint(place)) < 1e-10).all())  # crops, flips: no arithmetic
    if order == 0 or whole:
        # Half-way places go to the upper voxel everywhere, so that a shift by half a voxel keeps planes distinct.
        nearest = np.floor(place + 0.5 + 1e-9).astype(np.intp)
        return np.clip(nearest, 0, n - 1)[:, None], np.ones((len(place), 1))
    if width <= 0:
        place = np.clip(place, 0, n - 1)
        low = np.minimum(np.floor(place).astype(np.intp), max(n - 2, 0))
        upper = place - low
        return np.stack([low, np.minimum(low + 1, n - 1)], axis=1), np.stack([1 - upper, upper], axis=1)
    # Average of the linear interpolant over a box: integrals of hat functions, so linear functions stay exact.
    first = np.floor(place - width / 2).astype(np.intp)
    index = first[:, None] + np.arange(int(np.ceil(width)) + 2)
    low, high = (place - width / 2)[:, None] - index, (place + width / 2)[:, None] - index
    weights = (_hat_integral(high) - _hat_integral(low)) / width
    return np.clip(index, 0, n - 1), weights


def _hat_integral(x: Float[np.ndarray, "m k"]) -> Float[np.ndarray, "m k"]:
    """Integral from minus infinity to x of the hat function max(0, 1 - |t|)."""
    x = np.clip(x, -1.0, 1.0)
    return np.where(x < 0, 0.5 * (1 + x) ** 2, 1 - 0.5 * (1 - x) ** 2)


def _separable(array: np.ndarray, taps: list[Taps], order: int, sequence: list[int] | None = None) -> np.ndarray:
    # Nibabel's arrays are in Fortran order: work on the transpose, so that the last axis is contiguous in memory.
    axes = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    array = array.transpose(axes)
    taps = [taps[axis] for axis in axes]
    dtype = array.dtype if order == 0 or array.dtype == np.float64 else np.dtype(np.float32)
    if sequence is None:
        sequence = sorted(range(3), key=lambda axis: len(taps[axis][0]) / array.shape[axis])
    for axis in sequence:
        array = _weighted_planes(array, *taps[axis], axis, dtype)
    return array.transpose(np.argsort(axes))


def _weighted_planes(
    array: np.ndarray, index: Int[np.ndarray, "m k"], weights: Float[np.ndarray, "m k"], axis: int, dtype: np.dtype
) -> np.ndarray:
    """Sum over k of weights[:, k] times planes index[:, k] of `array` along `axis`, as `dtype`."""
    m, k = index.shape
    if m == array.shape[axis] and (weights[:, 0] == 1).all() and (index[:, 0] == np.arange(m)).all():
        return array.astype(dtype, copy=False)
    shape = list(array.shape)
    shape[axis] = m
    result = np.empty(shape, dtype)
    if axis == 0:  # each target plane is a contiguous block: no gather needed
        for plane in range(m):
            if k == 1:
                result[plane] = array[index[plane, 0]]
                continue
            total = array[index[plane, 0]] * dtype.type(weights[plane, 0])
            for tap in range(1, k):
                if weights[plane, tap] != 0:
                    total += array[index[plane, tap]] * dtype.type(weights[plane, tap])
            result[plane] = total
        return result
    rows = max(1, SLAB_VOXELS // max(1, result[:1].size))
    along = [1, 1, 1]
    along[axis] = m
    for start in range(0, shape[0], rows):
        slab = array[start : start + rows]
        if k == 1:
            result[start : start + rows] = slab.take(index[:, 0], axis=axis)
            continue
        slab = slab.astype(dtype, copy=False)
        total = slab.take(index[:, 0], axis=axis) * weights[:, 0].astype(dtype).reshape(along)
        for tap in range(1, k):
            total += slab.take(index[:, tap], axis=axis) * weights[:, tap].astype(dtype).reshape(along)
        result[start : start + rows] = total
    return result


def _oblique(array: np.ndarray, index_map: np.ndarray, shape: tuple[int, int, int], order: int) -> np.ndarray:
    from scipy.ndimage import affine_transform

    dtype = array.dtype if order == 0 or array.dtype == np.float64 else np.dtype(np.float32)
    source = array.view(np.uint8) if array.dtype == np.bool_ else array
    result = np.empty(shape, np.uint8 if dtype == np.bool_ else dtype)
    affine_transform(
        source, index_map[:3, :3], index_map[:3, 3], output_shape=shape, output=result, order=order, mode="nearest"
    )
    return result.view(np.bool_) if dtype == np.bool_ else result


def _outside(
    index_map: Float[np.ndarray, "4 4"], shape: tuple[int, int, int], source: tuple[int, ...]
) -> Bool[np.ndarray, "x y z"]:
    """Which voxels of the target lie beyond the outer faces of the source, found one source axis at a time."""
    outside = np.zeros(shape, dtype=bool)
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    for axis, n in enumerate(source):
        row = index_map[axis].astype(np.float32)
        place = row[0] * x + row[1] * y + row[2] * z + row[3]
        outside |= (place < -0.5 - 1e-4) | (place > n - 0.5 + 1e-4)
    return outside
