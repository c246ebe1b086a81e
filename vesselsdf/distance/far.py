"""Exact distances far from the wall, from the places where it crosses the grid's edges.

Strategy. A site on an edge along x lies on a line of voxels along x. So its squared distance to the voxels of a plane
x = const is known on that line at once, and spreads within the plane by two exact one-dimensional transforms: the lower
envelope of parabolas, along z and along y (Felzenszwalb and Huttenlocher 2012). Sites on edges along y and z are
handled in planes of y and z; the least of the three is the distance to all sites. Planes are independent: they need no
memory beyond one plane each, and several threads share them.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float, Float32

from vesselsdf.compiled import inner, kernel
from vesselsdf.distance.walls import Walls

PLANES_AT_ONCE = 16
ORDERS = ((0, 2, 1), (1, 0, 2), (2, 0, 1))
"""Axes of the views: lines first. None of them is contiguous in memory, so numba compiles the kernel once."""


def fill_far(
    distance: Float32[np.ndarray, "x y z"],
    inside: Bool[np.ndarray, "x y z"],
    spacing: Float[np.ndarray, "3"],
    near: float,
    limit: float,
    walls: Walls,
) -> None:
    """Replace the unsigned distances (mm) that are not below `near` by those to the wall's crossings with grid edges.

    In place, up to `limit`. Where the wall has no disc on every edge that it crosses, the place on the edge follows
    from the distances on both sides, linearly. The crossings are at most about a voxel apart, so beyond `near` the
    nearest of them is at most `voxel^2 / (8 near)` farther than the wall: 0.04 voxel at 3 voxels, less beyond.
    """
    distance[distance >= near] = np.inf
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for order in ORDERS:
            planes = distance.transpose(order)
            if walls.axis is None:
                places, y, z = _crossings(planes, inside.transpose(order), float(spacing[order[0]]))
            else:
                points = walls.points[walls.axis == order[0]][:, order]
                places, (y, z) = points[:, 0], np.rint(points[:, 1:] / spacing[list(order[1:])]).astype(np.int64).T
            sites = _sites(places, y, z, planes.shape[2])
            if len(sites[0]) == 0:
                continue
            arguments = (planes, *sites, spacing[list(order)], float(near), float(limit) ** 2)
            n = planes.shape[0]
            ranges = [(start, min(start + PLANES_AT_ONCE, n)) for start in range(0, n, PLANES_AT_ONCE)]
            for done in [pool.submit(far_planes, *arguments, *bounds) for bounds in ranges]:
                done.result()
    np.minimum(distance, np.float32(limit), out=distance)


def _crossings(distance: np.ndarray, inside: np.ndarray, step: float) -> tuple[np.ndarray, ...]:
    """Where the wall crosses the edges along the first axis: places in mm, and the voxels' y and z."""
    x, y, z = np.nonzero(inside[1:] != inside[:-1])
    low, high = distance[x, y, z].astype(np.float64), distance[x + 1, y, z].astype(np.float64)
    return (x + low / np.maximum(low + high, 1e-30)) * step, y, z


def _sites(places: np.ndarray, y: np.ndarray, z: np.ndarray, width: int) -> tuple[np.ndarray, ...]:
    """Crossings by lines: (line's y and z, first crossing of each line and the end, places in mm).

    Lines in order of y, then z; places rise along each line. `width`: voxels along z.
    """
    line = y * width + z
    order = np.lexsort((places, line))
    lines, first = np.unique(line[order], return_index=True)
    starts = np.append(first, len(order)).astype(np.int64)
    return lines // width, lines % width, starts, places[order]


@inner
def envelope(places, heights, count, vertex, border):
    """Lower envelope of the parabolas `(t - places)^2 + heights` (places rise): which ones, and from where on each."""
    k = -1
    for q in range(count):
        start = -np.inf
        while k >= 0:
            v = vertex[k]
            start = (heights[q] - heights[v] + places[q] ** 2 - places[v] ** 2) / (2 * (places[q] - places[v]))
            if start > border[k]:
                break
            k -= 1
            start = -np.inf
        k += 1
        vertex[k] = q
        border[k] = start
    return k + 1


@kernel
def far_planes(distance, line_y, line_z, starts, places, spacing, near, most, first, last):
    """Distances of at least `near` in planes `first` to `last`, lowered to those of the sites."""
    ny, nz = distance.shape[1], distance.shape[2]
    longest = max(ny, nz)
    at, heights = np.empty(longest), np.empty(longest)
    vertex, border = np.empty(longest, np.int64), np.empty(longest)
    rows = np.empty((ny, nz))
    row_y = np.empty(ny, np.int64)
    for x in range(first, last):
        here = x * spacing[0]
        count_rows = 0
        line = 0
        while line < line_y.size:
            y = line_y[line]
            count = 0
            while line < line_y.size and line_y[line] == y:
                a, b = starts[line], starts[line + 1]
                while a < b - 1 and places[a + 1] <= here:
                    a += 1
                best = (places[a] - here) ** 2
                if a < b - 1:
                    best = min(best, (places[a + 1] - here) ** 2)
                if best <= most:
                    at[count] = line_z[line] * spacing[2]
                    heights[count] = best
                    count += 1
                line += 1
            if count == 0:
                continue
            k = envelope(at, heights, count, vertex, border)
            j = 0
            for z in range(nz):
                t = z * spacing[2]
                while j + 1 < k and border[j + 1] < t:
                    j += 1
                rows[count_rows, z] = (t - at[vertex[j]]) ** 2 + heights[vertex[j]]
            row_y[count_rows] = y
            count_rows += 1
        if count_rows == 0:
            continue
        for z in range(nz):
            count = 0
            for r in range(count_rows):
                if rows[r, z] <= most:
                    at[count] = row_y[r] * spacing[1]
                    heights[count] = rows[r, z]
                    count += 1
            if count == 0:
                continue
            k = envelope(at, heights, count, vertex, border)
            j = 0
            for y in range(ny):
                t = y * spacing[1]
                while j + 1 < k and border[j + 1] < t:
                    j += 1
                old = distance[x, y, z]
                if old >= near:
                    new = np.sqrt((t - at[vertex[j]]) ** 2 + heights[vertex[j]])
                    if new < old:
                        distance[x, y, z] = max(new, near)
