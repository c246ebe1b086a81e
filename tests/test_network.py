"""The bounded network: its bound, its locality, its two ways of evaluation."""

import numpy as np
import pytest
import torch

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
        # Weights as wild as these multiply rounding by 10 from level 1 to level 0; the package's own do not.
        assert torch.allclose(a, b, atol=4e-4)
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
    told = list(busy_network._stems(image, thick))
    default = list(busy_network._stems(image, None))
    cubic = list(busy_network._stems(image, torch.zeros(1, 4)))
    assert all(torch.equal(a, b) for a, b in zip(default, cubic, strict=True))
    assert torch.equal(cubic[0], told[0]), "the finest level is shown the image alone"
    assert not any(torch.allclose(a, b, atol=1e-2) for a, b in zip(cubic[1:], told[1:], strict=True))
