"""The bounded network: its bound, its locality, its two ways of evaluation."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from vesselsdf import scales, sites
from vesselsdf.network import VesselNet


def test_the_small_network_is_small():
    assert 0.4e6 < sum(parameter.numel() for parameter in VesselNet().parameters()) < 0.8e6


def test_shapes_are_those_of_a_pyramid_for_odd_sizes(busy_network):
    fields = busy_network(torch.randn(1, 1, 37, 22, 19))
    assert [tuple(field.shape[2:]) for field in fields] == [(37, 22, 19), (19, 11, 10), (10, 6, 5), (5, 3, 3)]


@pytest.mark.parametrize("spacing", [0.4, 1.0])
def test_no_refinement_exceeds_its_bound(busy_network, spacing):
    with torch.no_grad():
        fields = [f[0, 0].numpy() for f in busy_network(torch.randn(1, 1, 41, 40, 33) * 3, spacing)]
    for level in range(3):
        bound = busy_network.kappa * spacing * 2 ** (level + 1)
        step = np.abs(fields[level] - scales.prolong(fields[level + 1], fields[level].shape)).max()
        assert step <= bound + 1e-5
        assert step > 0.1 * bound, "the random network should use its bound, or this test shows nothing"


def test_signs_never_change_where_nothing_is_active(busy_network):
    with torch.no_grad():
        busy_network.coarsest.bias += 0.8
        fields = [f[0, 0].numpy() for f in busy_network(torch.randn(1, 1, 40, 40, 40))]
    shares = []
    for level in range(3):
        base = scales.prolong(fields[level + 1], fields[level].shape)
        frozen = np.abs(base) >= busy_network.kappa * 2 ** (level + 1)
        shares.append(frozen.mean())
        assert np.allclose(fields[level][frozen], base[frozen], atol=1e-5)
    assert max(shares) > 0.05, "some voxels must be inactive, or this test shows nothing"


def test_gathered_and_dense_evaluation_agree_with_their_gradients(busy_network, monkeypatch):
    image = torch.randn(2, 1, 25, 32, 24)

    def evaluate(share):
        monkeypatch.setattr(sites, "DENSE_SHARE", share)
        busy_network.zero_grad()
        fields = busy_network(image)
        sum(field.square().mean() for field in fields).backward()
        return fields, [parameter.grad.clone() for parameter in busy_network.parameters()]

    dense, dense_gradients = evaluate(-1.0)
    gathered, gathered_gradients = evaluate(2.0)
    for a, b in zip(dense, gathered, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    for a, b in zip(dense_gradients, gathered_gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-3 * float(a.abs().max()) + 1e-6)


def test_the_value_at_a_voxel_does_not_depend_on_what_is_far_away(busy_network):
    image = torch.randn(1, 1, 24, 24, 200)
    changed = image.clone()
    changed[..., 180:] += 5
    with torch.no_grad():
        fields, other = busy_network(image), busy_network(changed)
    assert torch.allclose(fields[0][..., :40], other[0][..., :40], atol=1e-5)
    assert not torch.allclose(fields[0][..., 180:], other[0][..., 180:], atol=1e-2)


def test_an_untrained_network_says_far_outside_everywhere():
    fields = VesselNet().eval()(torch.randn(1, 1, 32, 32, 32))
    assert all((field > 0).all() for field in fields)


def test_a_bound_below_what_distance_fields_need_is_refused():
    with pytest.raises(ValueError, match="must exceed"):
        VesselNet(kappa=0.5)
    with pytest.raises(ValueError, match="at least 2 levels"):
        VesselNet(levels=1)


def test_every_coarser_level_of_the_stem_hears_how_the_image_was_acquired(busy_network):
    image, thick = torch.randn(1, 1, 32, 32, 32), torch.tensor([[0.0, 0.0, 2.0, 1.0]])
    told = list(busy_network._stems(image, thick, 3))
    default = list(busy_network._stems(image, None, 3))
    cubic = list(busy_network._stems(image, torch.zeros(1, 4), 3))
    assert all(torch.equal(a, b) for a, b in zip(default, cubic, strict=True))
    assert torch.equal(cubic[0], told[0]), "the finest level is shown the image alone"
    assert not any(torch.allclose(a, b, atol=1e-2) for a, b in zip(cubic[1:], told[1:], strict=True))


def test_curvatures_have_the_eigenvalues_of_the_hessian_whatever_the_slabs(monkeypatch):
    from vesselsdf import image_features as module

    image = torch.randn(2, 1, 9, 8, 7, generator=torch.Generator().manual_seed(0))
    found = module.curvatures(image)
    monkeypatch.setattr(module, "SLAB", 200)
    assert torch.equal(module.curvatures(image), found)
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
    from vesselsdf.image_features import curvatures

    x, y, z = torch.meshgrid(*[torch.arange(15.0) - 7] * 3, indexing="ij")
    plate, tube, ball = (torch.exp(-square / 72)[None, None] for square in (x**2, x**2 + y**2, x**2 + y**2 + z**2))
    for shape, expected in ((tube, (-2 / 3, 1 / 3, 1 / 3)), (ball, (-1, 0, 0)), (plate, (-1 / 3, 1 / 3, -1 / 3))):
        found = curvatures(shape)[0, :, 7, 7, 7]
        bend = -float(shape.squeeze()[:, 7, 7].diff().diff()[6])
        np.testing.assert_allclose(found / bend, expected, atol=0.05)
