"""What the network is shown of an image besides its intensities: local contrast, and curvatures at every level.

Both are local, so that tiles see the same as the whole volume, and have no parameters.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Voxels along the edge of a block of `local_contrast`, and the variance that is as good as none.
BLOCK = 8
FLAT = 1e-3

# Voxels whose curvatures are computed at a time.
SLAB = 1 << 21


def local_contrast(image: Tensor) -> Tensor:
    """The image (B, 1, X, Y, Z) less its local mean, over its local deviation.

    Mean and deviation are those of 3 x 3 x 3 blocks of 8 voxels a side, prolonged linearly between the blocks' centres;
    at the border blocks are repeated. Blocks lie on the grid of the volume: a part of it that begins at a multiple of
    8 has the same values, except within `3 * BLOCK` voxels of where it was cut.
    """
    shape = image.shape[2:]
    short = [-size % BLOCK for size in shape]
    whole = F.pad(image, (0, short[2], 0, short[1], 0, short[0]), mode="replicate") if any(short) else image
    moments = torch.cat([F.avg_pool3d(whole, BLOCK), F.avg_pool3d(whole.square(), BLOCK)], dim=1)
    mean, square = F.avg_pool3d(F.pad(moments, (1,) * 6, mode="replicate"), 3, stride=1).split(1, dim=1)
    scale = torch.rsqrt((square - mean.square()).clamp(min=0) + FLAT)
    mean, scale = (
        F.interpolate(part, scale_factor=BLOCK, mode="trilinear")[..., : shape[0], : shape[1], : shape[2]]
        for part in (mean, scale)
    )
    return (image - mean) * scale


def curvatures(image: Tensor) -> Tensor:
    """What is the same in all directions about the Hessian of an image (B, 1, X, Y, Z): (B, 3, X, Y, Z).

    The image is smoothed by 1/4, 1/2, 1/4; the border is repeated. Channels, in units of the image per voxel squared:
    the mean of the three eigenvalues, their deviation `s` (the root of a sixth of the sum of squares), and `s` times
    the cosine of three times Lode's angle (Smith 1961). A bright tube has eigenvalues -1, -1, 0 and channels
    -2/3, 1/3, 1/3; a plate -1, 0, 0 and -1/3, 1/3, -1/3; a ball -1, -1, -1 and -1, 0, 0. They say the same as the
    eigenvalues, which Frangi et al. (1998) use, but rounding does not grow in them where two eigenvalues meet.
    Evaluated slab by slab, which bounds the memory.
    """
    smooth = image
    for axis in (2, 3, 4):
        n, wide = smooth.shape[axis], F.pad(smooth, _around(axis), mode="replicate")
        smooth = wide.narrow(axis, 1, n) / 2 + (wide.narrow(axis, 0, n) + wide.narrow(axis, 2, n)) / 4
    wide = F.pad(smooth, (1,) * 6, mode="replicate")
    thickness = max(1, SLAB // max(1, image[:, :, 0].numel()))
    slabs = [_invariants(wide[:, :, start : start + thickness + 2]) for start in range(0, image.shape[2], thickness)]
    return slabs[0] if len(slabs) == 1 else torch.cat(slabs, dim=2)


def _around(axis: int) -> list[int]:
    """Padding by one voxel on both sides of an axis of (B, C, X, Y, Z), as `F.pad` takes it."""
    return [int(place // 2 == 4 - axis) for place in range(6)]


def _invariants(wide: Tensor) -> Tensor:
    """Channels of `curvatures` by central differences, for the voxels that have neighbours on all sides."""
    x, y, z = (size - 2 for size in wide.shape[2:])

    def at(i: int, j: int, k: int) -> Tensor:
        return wide[..., 1 + i : 1 + i + x, 1 + j : 1 + j + y, 1 + k : 1 + k + z]

    middle = 2 * at(0, 0, 0)
    xx, yy, zz = (at(*s) + at(*(-i for i in s)) - middle for s in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    xy, xz, yz = (
        (at(*s) + at(*(-i for i in s)) - at(*t) - at(*(-i for i in t))) / 4
        for s, t in (((1, 1, 0), (1, -1, 0)), ((1, 0, 1), (1, 0, -1)), ((0, 1, 1), (0, 1, -1)))
    )
    mean = (xx + yy + zz) / 3
    xx, yy, zz = xx - mean, yy - mean, zz - mean
    square = (xx * xx + yy * yy + zz * zz) / 6 + (xy * xy + xz * xz + yz * yz) / 3
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return torch.cat([mean, square.sqrt(), determinant / (2 * square + 1e-12)], dim=1)


def even(volume: Tensor) -> Tensor:
    """The volume with the last voxel of each odd axis repeated, so that it can be halved."""
    odd = [size % 2 for size in volume.shape[2:]]
    return F.pad(volume, (0, odd[2], 0, odd[1], 0, odd[0]), mode="replicate") if any(odd) else volume
