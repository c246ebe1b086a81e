"""Prolongation of volumes to the next finer grid, and its transpose, on a CPU."""

import numpy as np

from vesselsdf.compiled import compiled, inner


@inner
def _cells(voxel, count):
    """The coarse cell a fine voxel lies in, and the nearer neighbour of that; the border cell is repeated outwards."""
    cell = voxel // 2
    return cell, min(max(cell + 2 * (voxel % 2) - 1, 0), count - 1)


@compiled(error_model="numpy", fastmath={"contract"})
def prolong_planes(coarse, fine, start, stop):
    """Planes of (x, y, z) float32 from (x/2, y/2, z/2) rounded up: trilinear between the centres of cells."""
    _, ny, nz = fine.shape
    cx, cy, cz = coarse.shape
    most, rest = np.float32(0.75), np.float32(0.25)
    plane, line = np.empty((cy, cz), np.float32), np.empty(cz, np.float32)
    for x in range(start, stop):
        near, far = _cells(x, cx)
        for j in range(cy):
            for k in range(cz):
                plane[j, k] = coarse[near, j, k] * most + coarse[far, j, k] * rest
        for y in range(ny):
            near, far = _cells(y, cy)
            for k in range(cz):
                line[k] = plane[near, k] * most + plane[far, k] * rest
            row = fine[x, y]
            row[0] = line[0]
            for k in range(1, cz):
                row[2 * k] = line[k] * most + line[k - 1] * rest
            for k in range(cz - 1):
                row[2 * k + 1] = line[k] * most + line[k + 1] * rest
            if nz == 2 * cz:
                row[nz - 1] = line[cz - 1]


@compiled(error_model="numpy")
def prolong_box(coarse, coarse_low, fine, low):
    """A box of (x, y, z) float32 that begins at voxel `low`, from coarse cells from `coarse_low` on: the bits of
    `scales.prolong` on any machine, as the order of sums is the same and none is fused with a product.
    """
    nx, ny, nz = fine.shape
    cx, cy, cz = coarse.shape
    most, rest = np.float32(0.75), np.float32(0.25)
    line = np.empty((cy, nz), np.float32)
    planes = np.empty((2, ny, nz), np.float32)
    held = np.full(2, -1)
    for x in range(nx):
        near_x, far_x = _cells(x + low[0] - 2 * coarse_low[0], cx)
        for cell in (near_x, far_x):
            if held[cell % 2] == cell:
                continue
            held[cell % 2] = cell
            plane = planes[cell % 2]
            for j in range(cy):
                for z in range(nz):
                    near, far = _cells(z + low[2] - 2 * coarse_low[2], cz)
                    line[j, z] = coarse[cell, j, near] * most + coarse[cell, j, far] * rest
            for y in range(ny):
                near, far = _cells(y + low[1] - 2 * coarse_low[1], cy)
                for z in range(nz):
                    plane[y, z] = line[near, z] * most + line[far, z] * rest
        fine[x] = planes[near_x % 2] * most + planes[far_x % 2] * rest


@compiled(error_model="numpy", fastmath={"contract"})
def gather_planes(fine, coarse, start, stop):
    """The transpose of `prolong_planes`: planes of the coarse volume, of what each cell gave to the fine one."""
    nx, ny, nz = fine.shape
    cx, cy, cz = coarse.shape
    most, rest = np.float32(0.75), np.float32(0.25)
    plane, line = np.empty((ny, nz), np.float32), np.empty(nz, np.float32)
    for i in range(start, stop):
        plane[:] = 0
        for x in range(max(2 * i - 1, 0), min(2 * i + 3, nx)):
            near, far = _cells(x, cx)
            share = most * np.float32(near == i) + rest * np.float32(far == i)
            for y in range(ny):
                for z in range(nz):
                    plane[y, z] += fine[x, y, z] * share
        for j in range(cy):
            line[:] = 0
            for y in range(max(2 * j - 1, 0), min(2 * j + 3, ny)):
                near, far = _cells(y, cy)
                share = most * np.float32(near == j) + rest * np.float32(far == j)
                for z in range(nz):
                    line[z] += plane[y, z] * share
            for k in range(cz):
                total = np.float32(0)
                for z in range(max(2 * k - 1, 0), min(2 * k + 3, nz)):
                    near, far = _cells(z, cz)
                    total += line[z] * (most * np.float32(near == k) + rest * np.float32(far == k))
                coarse[i, j, k] = total
