"""What the network is shown of an image: by kernels and by tensors, and what it means."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vesselsdf import image_features
from vesselsdf.image_features import curvatures, local_contrast, shown


@pytest.mark.parametrize("shape", [(2, 1, 9, 8, 7), (1, 1, 1, 5, 2), (1, 1, 41, 20, 33), (1, 1, 1, 1, 1)])
def test_kernels_and_tensors_give_the_same_whatever_the_threads(shape, monkeypatch):
    image = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + 1
    found = [shown(image, local_contrast(image))]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    found.append(shown(image, local_contrast(image)))
    torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert found[0].is_contiguous(memory_format=torch.channels_last_3d)
    monkeypatch.setattr(image_features, "_by_kernels", lambda image: False)
    expected = shown(image, local_contrast(image))
    # Contrast is that much more uncertain where there is none: 1 / sqrt(FLAT) is 32.
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)


def test_parts_of_a_volume_are_shown_the_same_as_the_whole():
    image = torch.randn(1, 1, 80, 40, 56, generator=torch.Generator().manual_seed(2))
    whole, part = local_contrast(image), local_contrast(image[:, :, 16:, :, :48])
    torch.testing.assert_close(part[:, :, 24:, :, :24], whole[:, :, 40:, :, :24], atol=1e-5, rtol=0)


def test_curvatures_have_the_eigenvalues_of_the_hessian_whatever_the_slabs(monkeypatch):
    image = torch.randn(2, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    found = curvatures(image)
    monkeypatch.setattr(image_features, "_by_kernels", lambda image: False)
    whole = curvatures(image)
    monkeypatch.setattr(image_features, "SLAB", 200)
    assert torch.equal(curvatures(image), whole)
    smooth = image[0, 0].numpy()
    for axis in range(3):
        smooth = ndimage.convolve1d(smooth, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    hessian = np.zeros((3, 3))
    for a, b in np.ndindex(3, 3):
        one, two = np.eye(3, dtype=int)[a], np.eye(3, dtype=int)[b]
        p = np.array([4, 4, 3])
        if a == b:
            hessian[a, a] = smooth[tuple(p + one)] + smooth[tuple(p - one)] - 2 * smooth[tuple(p)]
        else:
            same = smooth[tuple(p + one + two)] + smooth[tuple(p - one - two)]
            hessian[a, b] = (same - smooth[tuple(p + one - two)] - smooth[tuple(p - one + two)]) / 4
    mean, deviation, product = found[0, :, 4, 4, 3].tolist()
    thirds = np.arccos(product / deviation) / 3 + 2 * np.pi / 3 * np.arange(3)
    np.testing.assert_allclose(np.sort(mean + 2 * deviation * np.cos(thirds)), np.linalg.eigvalsh(hessian), atol=1e-5)


def test_curvatures_tell_tube_ball_and_plate_apart():
    x, y, z = torch.meshgrid(*[torch.arange(15.0) - 7] * 3, indexing="ij")
    plate, tube, ball = (torch.exp(-square / 72)[None, None] for square in (x**2, x**2 + y**2, x**2 + y**2 + z**2))
    for shape, expected in ((tube, (-2 / 3, 1 / 3, 1 / 3)), (ball, (-1, 0, 0)), (plate, (-1 / 3, 1 / 3, -1 / 3))):
        found = curvatures(shape)[0, :, 7, 7, 7]
        bend = -float(shape.squeeze()[:, 7, 7].diff().diff()[6])
        np.testing.assert_allclose(found / bend, expected, atol=0.05)
