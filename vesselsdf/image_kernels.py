"""`image_features` on a CPU: the same numbers as by tensors, without their temporary volumes."""

import numpy as np

from vesselsdf.compiled import compiled, inner


@inner
def _smoothed(image, x, work, out):
    """One plane of the image smoothed by 1/4, 1/2, 1/4 along all axes; `out` has a frame of one voxel around it."""
    nx, ny, nz = image.shape
    before, here, after = image[max(x - 1, 0)], image[x], image[min(x + 1, nx - 1)]
    quarter, half = np.float32(0.25), np.float32(0.5)
    for y in range(ny):
        for z in range(nz):
            work[y, z] = here[y, z] * half + (before[y, z] + after[y, z]) * quarter
    line = work[ny]
    for y in range(ny):
        left, middle, right = work[max(y - 1, 0)], work[y], work[min(y + 1, ny - 1)]
        for z in range(nz):
            line[z] = middle[z] * half + (left[z] + right[z]) * quarter
        row = out[y + 1]
        for z in range(1, nz - 1):
            row[z + 1] = line[z] * half + (line[z - 1] + line[z + 1]) * quarter
        row[1] = line[0] * half + (line[0] + line[min(1, nz - 1)]) * quarter
        row[nz] = line[nz - 1] * half + (line[max(nz - 2, 0)] + line[nz - 1]) * quarter
        row[0], row[nz + 1] = row[1], row[nz]
    for z in range(nz + 2):  # by the element: to copy rows takes numba seconds to compile
        out[0, z], out[ny + 1, z] = out[1, z], out[ny, z]


@compiled(error_model="numpy", fastmath={"contract"})
def curvature_planes(image, other, out, start, stop):
    """`curvatures` of planes of an image (x, y, z) float32, into the last three channels of out (x, y, z, C).

    If there are five, the first two become `other` and the image themselves.
    """
    first = out.shape[3] - 3
    nx, ny, nz = image.shape
    planes = np.empty((3, ny + 2, nz + 2), np.float32)
    work = np.empty((ny + 1, nz), np.float32)
    line = np.empty((3, nz), np.float32)
    mean_line, deviation_line, product_line = line[0], line[1], line[2]
    two, third, quarter, sixth = np.float32(2), np.float32(1 / 3), np.float32(0.25), np.float32(1 / 6)
    tiny = np.float32(1e-12)
    for ahead in range(start - 1, stop + 1):
        _smoothed(image, min(max(ahead, 0), nx - 1), work, planes[ahead % 3])
        if ahead <= start:
            continue
        x = ahead - 1
        before, here, after = planes[(x - 1) % 3], planes[x % 3], planes[ahead % 3]
        for y in range(ny):
            a0, a1, a2 = before[y], before[y + 1], before[y + 2]
            b0, b1, b2 = here[y], here[y + 1], here[y + 2]
            c0, c1, c2 = after[y], after[y + 1], after[y + 2]
            for z in range(nz):
                middle = two * b1[z + 1]
                xx = a1[z + 1] + c1[z + 1] - middle
                yy = b0[z + 1] + b2[z + 1] - middle
                zz = b1[z] + b1[z + 2] - middle
                xy = (c2[z + 1] + a0[z + 1] - c0[z + 1] - a2[z + 1]) * quarter
                xz = (c1[z + 2] + a1[z] - c1[z] - a1[z + 2]) * quarter
                yz = (b2[z + 2] + b0[z] - b2[z] - b0[z + 2]) * quarter
                mean = (xx + yy + zz) * third
                xx -= mean
                yy -= mean
                zz -= mean
                square = (xx * xx + yy * yy + zz * zz) * sixth + (xy * xy + xz * xz + yz * yz) * third
                determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
                mean_line[z] = mean
                deviation_line[z] = np.sqrt(square)
                product_line[z] = determinant / (two * square + tiny)
            row = out[x, y]
            for z in range(nz):
                row[z, first] = mean_line[z]
                row[z, first + 1] = deviation_line[z]
                row[z, first + 2] = product_line[z]
            if first:
                for z in range(nz):
                    row[z, 0] = other[x, y, z]
                    row[z, 1] = image[x, y, z]


@compiled(error_model="numpy", fastmath={"contract"})
def block_moments(block, image, mean, square, start, stop):
    """Means of image (x, y, z) float32 and of its square over blocks, the border being repeated; blocks of planes."""
    nx, ny, nz = image.shape
    share = np.float32(1 / block**3)
    sums, squares = np.empty(nz, np.float32), np.empty(nz, np.float32)
    for i in range(start, stop):
        for j in range(mean.shape[1]):
            for z in range(nz):
                sums[z] = squares[z] = 0
            for x in range(i * block, (i + 1) * block):
                for y in range(j * block, (j + 1) * block):
                    row = image[min(x, nx - 1), min(y, ny - 1)]
                    for z in range(nz):
                        sums[z] += row[z]
                        squares[z] += row[z] * row[z]
            for k in range(mean.shape[2]):
                total = total_square = np.float32(0)
                for z in range(k * block, (k + 1) * block):
                    total += sums[min(z, nz - 1)]
                    total_square += squares[min(z, nz - 1)]
                mean[i, j, k] = total * share
                square[i, j, k] = total_square * share


@compiled(error_model="numpy", fastmath={"contract"})
def contrast_planes(block, image, mean, scale, first, out, start, stop):
    """Planes of the image less `mean`, times `scale`, both prolonged linearly between the centres of blocks.

    Plane `i` of `out` is plane `first + i` of the image.
    """
    ny, nz = image.shape[1:]
    across = np.empty((2, mean.shape[1], nz), np.float32)
    one = np.float32(1)
    for i in range(start, stop):
        low, high, w = _between(first + i, block, mean.shape[0])
        for z in range(nz):
            left, right, v = _between(z, block, mean.shape[2])
            for j in range(mean.shape[1]):
                for part, values in enumerate((mean, scale)):
                    near = values[low, j, left] * (one - v) + values[low, j, right] * v
                    far = values[high, j, left] * (one - v) + values[high, j, right] * v
                    across[part, j, z] = near * (one - w) + far * w
        for y in range(ny):
            below, above, u = _between(y, block, mean.shape[1])
            row, result = image[first + i, y], out[i, y]
            m0, m1, s0, s1 = across[0, below], across[0, above], across[1, below], across[1, above]
            for z in range(nz):
                m = m0[z] * (one - u) + m1[z] * u
                result[z] = (row[z] - m) * (s0[z] * (one - u) + s1[z] * u)


@inner
def _between(voxel, block, count):
    """The two blocks whose centres a voxel lies between, and its way from the first to the second."""
    place = max((voxel + 0.5) / block - 0.5, 0.0)
    low = min(int(place), count - 1)
    return low, min(low + 1, count - 1), np.float32(place - low)
