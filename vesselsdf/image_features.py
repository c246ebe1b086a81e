"""What the network is shown of an image besides its intensities: local contrast, and curvatures at every level.

Both are local, so that tiles see the same as the whole volume, and have no parameters. On a CPU they are computed by
`image_kernels`, without temporary volumes, elsewhere by tensors: the same numbers up to rounding.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from vesselsdf.planes import by_kernels, in_threads

# Voxels along the edge of a block of `local_contrast`, and the variance that is as good as none.
BLOCK = 8
FLAT = 1e-3
# Voxels beside a cut in which local contrast differs from that of the whole volume: the first block's mean lacks the
# block before it, and is prolonged up to the centre of the second one.
REACH = 3 * BLOCK // 2

# Voxels whose curvatures are computed at a time.
SLAB = 1 << 21


def shown(image: Tensor, contrast: Tensor) -> Tensor:
    """All that is shown of an image (B, 1, X, Y, Z): itself, its contrast and that one's curvatures, (B, 5, X, Y, Z).

    Channels-last.
    """
    if not _by_kernels(image):
        features = torch.cat([image, contrast, curvatures(contrast)], dim=1)
        return features.contiguous(memory_format=torch.channels_last_3d)
    return _by_planes(contrast, image)


class LocalContrast:
    """The image (B, 1, X, Y, Z) less its local mean, over its local deviation; all of it or some planes.

    Mean and deviation are those of 3 x 3 x 3 blocks of 8 voxels a side, prolonged linearly between the blocks' centres;
    at the border blocks are repeated. Blocks lie on the grid of the volume: a part of it that begins at a multiple of
    8 has the same values, except within `REACH` voxels of where it was cut.
    """

    def __init__(self, image: Tensor) -> None:
        moments = F.pad(_block_moments(image), (1,) * 6, mode="replicate")
        self.image = image
        self.mean, square = F.avg_pool3d(moments, 3, stride=1).split(1, dim=1)
        self.scale = torch.rsqrt((square - self.mean.square()).clamp(min=0) + FLAT)

    def planes(self, start: int, stop: int) -> Tensor:
        """(B, 1, stop - start, Y, Z)."""
        part = self.image[:, :, start:stop]
        if _by_kernels(self.image):
            from vesselsdf.image_kernels import contrast_planes

            contrast = torch.empty_like(part, memory_format=torch.contiguous_format)
            for number in range(len(part)):
                image, *blocks = (v[number, 0].contiguous().numpy() for v in (self.image, self.mean, self.scale))
                in_threads(contrast_planes, [BLOCK, image, *blocks, start, contrast[number, 0].numpy()], stop - start)
            return contrast
        first = max(start // BLOCK - 1, 0)
        around = slice(first, -(-stop // BLOCK) + 1)
        low, high, y, z = start - BLOCK * first, stop - BLOCK * first, *part.shape[3:]
        mean, scale = (
            F.interpolate(blocks[:, :, around], scale_factor=BLOCK, mode="trilinear")[:, :, low:high, :y, :z]
            for blocks in (self.mean, self.scale)
        )
        return (part - mean) * scale


def local_contrast(image: Tensor) -> Tensor:
    """`LocalContrast` of all planes."""
    return LocalContrast(image).planes(0, image.shape[2])


def _block_moments(image: Tensor) -> Tensor:
    """Means of the image and of its square over blocks of 8 voxels a side, (B, 2, X/8, Y/8, Z/8) rounded up."""
    if _by_kernels(image):
        from vesselsdf.image_kernels import block_moments

        moments = image.new_empty(len(image), 2, *(-(-size // BLOCK) for size in image.shape[2:]))
        for (one,), (mean, square) in zip(image, moments, strict=True):
            arguments = [BLOCK, one.contiguous().numpy(), mean.numpy(), square.numpy()]
            in_threads(block_moments, arguments, len(mean), planes=1)
        return moments
    short = [-size % BLOCK for size in image.shape[2:]]
    whole = F.pad(image, (0, short[2], 0, short[1], 0, short[0]), mode="replicate") if any(short) else image
    return torch.cat([F.avg_pool3d(whole, BLOCK), F.avg_pool3d(whole.square(), BLOCK)], dim=1)


def curvatures(image: Tensor) -> Tensor:
    """What is the same in all directions about the Hessian of an image (B, 1, X, Y, Z): (B, 3, X, Y, Z).

    The image is smoothed by 1/4, 1/2, 1/4; the border is repeated. Channels, in units of the image per voxel squared:
    the mean of the three eigenvalues, their deviation `s` (the root of a sixth of the sum of squares), and `s` times
    the cosine of three times Lode's angle (Smith 1961). A bright tube has eigenvalues -1, -1, 0 and channels
    -2/3, 1/3, 1/3; a plate -1, 0, 0 and -1/3, 1/3, -1/3; a ball -1, -1, -1 and -1, 0, 0. They say the same as the
    eigenvalues, which Frangi et al. (1998) use, but rounding does not grow in them where two eigenvalues meet.
    Channels-last on a CPU; evaluated slab by slab elsewhere, which bounds the memory.
    """
    if _by_kernels(image):
        return _by_planes(image)
    smooth = image
    for axis in (2, 3, 4):
        n, wide = smooth.shape[axis], F.pad(smooth, _around(axis), mode="replicate")
        smooth = wide.narrow(axis, 1, n) / 2 + (wide.narrow(axis, 0, n) + wide.narrow(axis, 2, n)) / 4
    wide = F.pad(smooth, (1,) * 6, mode="replicate")
    thickness = max(1, SLAB // max(1, image[:, :, 0].numel()))
    slabs = [_invariants(wide[:, :, start : start + thickness + 2]) for start in range(0, image.shape[2], thickness)]
    return slabs[0] if len(slabs) == 1 else torch.cat(slabs, dim=2)


def _by_planes(image: Tensor, other: Tensor | None = None) -> Tensor:
    """Curvatures of the image, behind `other` and the image itself if there is another; channels-last."""
    from vesselsdf.image_kernels import curvature_planes

    batch, _, *shape = image.shape
    result = image.new_empty(batch, *shape, 3 if other is None else 5)
    for number in range(batch):
        volumes = [part[number, 0].contiguous().numpy() for part in (image, image if other is None else other)]
        in_threads(curvature_planes, [*volumes, result[number].numpy()], shape[0])
    return result.movedim(-1, 1)


def _by_kernels(image: Tensor) -> bool:
    return by_kernels(image) and not image.requires_grad


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
