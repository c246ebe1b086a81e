"""Orthogonalised steps, and a state that goes on where it stopped."""

import pytest
import torch

from vesselsdf.network import VesselNet
from vesselsdf.optimiser import Optimiser, orthogonal


@pytest.mark.parametrize("shape", [(8, 27 * 8), (40, 40), (300, 12)])
def test_all_directions_move_by_about_the_same_length(shape):
    generator = torch.Generator().manual_seed(0)
    values = torch.logspace(0, -2, min(shape))  # a hundred times as strong in one direction as in another
    left, right = (torch.linalg.qr(torch.randn(n, min(shape), generator=generator))[0] for n in shape)
    found = orthogonal(left @ torch.diag(values) @ right.T)
    lengths = torch.linalg.svdvals(found)
    assert lengths.max() < 1.25
    assert lengths.min() > 0.4
    along = left.T @ found @ right  # the directions themselves stay
    assert torch.allclose(along, along.diagonal().diag(), atol=1e-3)
    assert along.diagonal().min() > 0.4


def losses_of(network, optimiser, steps, start=0):
    losses = []
    for step in range(start, start + steps):
        image = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(step))
        loss = sum((field - 2 * image.mean()).abs().mean() for field in network(image))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step(1e-3)
        losses.append(loss.item())
    return losses


def test_a_loaded_state_goes_on_with_the_same_numbers():
    torch.manual_seed(0)
    network = VesselNet(levels=3, width=4)
    optimiser = Optimiser(network, 1e-3, 1e-2)
    losses_of(network, optimiser, 3)
    again = VesselNet(levels=3, width=4)
    again.load_state_dict(network.state_dict())
    other = Optimiser(again, 1e-3, 1e-2)
    other.load({key: value.clone() for key, value in optimiser.state().items()})
    assert losses_of(again, other, 3, start=3) == losses_of(network, optimiser, 3, start=3)


def test_every_parameter_is_moved_by_one_of_the_two():
    network = VesselNet()
    optimiser = Optimiser(network, 1e-3, 1e-2)
    groups = [{id(p) for p in part.param_groups[0]["params"]} for part in optimiser.parts]
    assert groups[0].isdisjoint(groups[1])
    assert groups[0] | groups[1] == {id(p) for p in network.parameters()}
    muon = sum(p.numel() for p in optimiser.parts[0].param_groups[0]["params"])
    assert muon > 0.99 * sum(p.numel() for p in network.parameters()) - 2000
