"""Losses: zero for the truth, larger for the errors that they are there to see."""

import numpy as np
import pytest
import torch

from vesselsdf import losses
from vesselsdf.config import LossSettings
from vesselsdf.scales import pyramid


def tube(shape=(24, 24, 24), radius=3.0, cut=None):
    """Exact distance of a straight tube along z, optionally with a gap around z = cut."""
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")
    across = np.hypot(x - 11.5, y - 11.5)
    field = across - radius
    if cut is not None:
        field = np.maximum(field, 3 - abs(z - cut))
    return torch.from_numpy(field)[None, None]


def skeleton(shape=(24, 24, 24)):
    line = torch.zeros(1, 1, *shape)
    line[..., 11, 11, :] = 1
    return line


def test_the_truth_costs_nothing_in_distance():
    assert losses.distance_loss(tube(), tube(), 1.0) == 0


def test_beyond_the_band_only_the_side_matters():
    far = torch.full((1, 1, 8, 8, 8), 5.0)
    assert losses.distance_loss(far, 2 * far, 1.0) == 0
    assert losses.distance_loss(-far, far, 1.0) > 1


def test_distance_is_measured_in_units_of_the_level():
    assert losses.distance_loss(2 * tube(), 2 * tube(radius=2.0), 2.0) == pytest.approx(
        float(losses.distance_loss(tube(), tube(radius=2.0), 1.0))
    )


def test_central_differences_of_a_linear_field_are_its_slope():
    x, y, z = torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij")
    slope = losses.gradient((0.5 * x - 2 * y + z)[None, None])
    assert torch.allclose(slope, torch.tensor([0.5, -2.0, 1.0]).reshape(1, 3, 1, 1, 1).expand_as(slope))


def test_eikonal_prefers_the_distance_to_its_double():
    target = tube()
    assert losses.eikonal_loss(target, target) < 0.01
    assert losses.eikonal_loss(2 * target, target) > 0.5


def test_the_gaussian_term_leaves_the_wall_alone_and_smooths_far_from_it():
    noise = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    near, far = 0.05 * noise, 2.5 + 0.05 * noise
    assert losses.adaptive_gaussian_loss(near) < 0.05 * losses.adaptive_gaussian_loss(far)


def test_overlap_is_near_zero_for_the_truth_and_near_one_for_a_miss():
    assert losses.overlap_loss(tube(), tube()) < 0.05
    assert losses.overlap_loss(tube() + 20, tube()) > 0.9


def test_centreline_sees_a_cut_that_overlap_hardly_sees():
    whole, cut = tube(radius=2.0), tube(radius=2.0, cut=12)
    gap = losses.centreline_loss(cut, whole, skeleton()) - losses.centreline_loss(whole, whole, skeleton())
    assert gap > 0.05


def test_centreline_sees_an_invented_vessel():
    whole = tube(radius=2.0)
    false = torch.minimum(whole, torch.roll(whole, 8, dims=2))
    gap = losses.centreline_loss(false, whole, skeleton()) - losses.centreline_loss(whole, whole, skeleton())
    assert gap > 0.1


@pytest.mark.parametrize("radius", [0.6, 1.0, 3.0])
def test_the_true_centreline_is_within_reach_of_the_truth_and_not_of_a_field_that_misses_it(radius):
    levels = [torch.from_numpy(level)[None, None] for level in pyramid(tube(radius=radius)[0, 0].numpy(), 4)]
    for level in (1, 2, 3):
        h, line = 2.0**level, losses.on_level(skeleton(), level - 1)
        truth = levels[level] / h
        assert losses.reach_loss(truth, truth, line) == 0
        assert losses.reach_loss(truth - 1, truth, line) == 0
        missed = losses.reach_loss(torch.full_like(truth, 1.5), truth, line)
        assert 0.6 < missed <= 1.0  # 1.5 less one half, or less the truth where that is more
        cut = truth.clone()
        cut[..., : cut.shape[-1] // 2] += 3
        assert 0.3 * missed < losses.reach_loss(cut, truth, line) < 2.0


def test_the_total_is_the_sum_of_its_terms_and_weights_switch_them_off():
    fields = [torch.from_numpy(level)[None, None] for level in pyramid(tube()[0, 0].numpy(), 3)]
    shifted = [field + 0.5 for field in fields]
    terms = losses.total_loss(shifted, fields, skeleton(), LossSettings())
    assert float(terms["total"]) == pytest.approx(sum(float(v) for k, v in terms.items() if k != "total"), rel=1e-5)
    bare = losses.total_loss(
        shifted, fields, skeleton(), LossSettings(eikonal=0, gaussian=0, centreline=0, overlap=0, reach=0)
    )
    assert set(bare) == {"total", "distance_0", "distance_1", "distance_2"}


def test_every_term_passes_gradients():
    field = (tube() + 0.4).requires_grad_()
    for loss in (
        losses.distance_loss(field, tube(), 1.0),
        losses.eikonal_loss(1.3 * field, tube()),
        losses.adaptive_gaussian_loss(field),
        losses.overlap_loss(field, tube()),
        losses.centreline_loss(field, tube(), skeleton()),
        losses.reach_loss(field[..., ::2, ::2, ::2] + 2, tube()[..., ::2, ::2, ::2], skeleton()),
    ):
        (slope,) = torch.autograd.grad(loss, field, retain_graph=True)
        assert torch.isfinite(slope).all()
        assert slope.abs().max() > 0


def test_what_nobody_knows_costs_nothing():
    truth, wrong = tube(), tube(cut=12)
    unknown = truth.clone()
    unknown[..., 7:18] = torch.nan  # the gap and more
    weights = LossSettings(topology=20.0, eikonal=0.0, gaussian=0.0)
    fields = [torch.from_numpy(field)[None, None].requires_grad_() for field in pyramid(wrong[0, 0].numpy(), 3)]
    targets = [torch.from_numpy(field)[None, None] for field in pyramid(unknown[0, 0].numpy(), 3)]
    losses_known = losses.total_loss(fields, [torch.from_numpy(f)[None, None] for f in pyramid(truth[0, 0].numpy(), 3)],
                                     skeleton(), weights)  # fmt: skip
    assert losses_known["distance_0"] > 0.01
    terms = losses.total_loss(fields, targets, skeleton(), weights)
    assert all(terms[key] < 1e-5 for key in terms if key.startswith(("distance", "reach", "topology"))), terms
    terms["distance_0"].backward()
    assert not fields[0].grad[..., 7:18].any()
