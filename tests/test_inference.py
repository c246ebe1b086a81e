"""Slabs of active voxels or everything in one piece: the same numbers."""

import numpy as np
import pytest
import torch

from vesselsdf import inference
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.errors import RunError
from vesselsdf.inference import estimate, predict
from vesselsdf.synthesis.cases import synthetic_case

CUBIC = np.zeros(4, np.float32)


SLABS = pytest.mark.parametrize(("slab", "most"), [(1 << 24, 1 << 21), (1, 1 << 21), (40_000, 500)])


@SLABS
def test_slabs_give_the_numbers_of_one_piece_but_for_rounding(busy_network, slab, most):
    """In double precision: weights as wild as these amplify the rounding of single precision to 2e-4."""
    network = busy_network.double()
    image = torch.randn(1, 1, 43, 22, 17, dtype=torch.float64)
    acquired = torch.tensor([[0, 0.4, 0, 0.2]], dtype=torch.float64)
    with torch.inference_mode():
        whole, found = network(image, 1.0, acquired), inference._fields(network, image, acquired, slab, most)
    for a, b in zip(whole, found, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-10


@SLABS
def test_with_the_weights_of_the_package_slabs_differ_by_rounding(slab, most):
    case = synthetic_case(7, (75, 58, 49), (0.5,) * 3, "mr")
    model = load_model(GENERAL)
    image = model.preprocessing.working_volume(case.image).array
    with torch.inference_mode():
        whole = model.network(torch.from_numpy(image)[None, None], 0.5, torch.from_numpy(CUBIC)[None])
    found = predict(model.network, image, 0.5, CUBIC, slab, most)
    assert (found[0] <= 0).any()
    for a, b in zip(whole, found, strict=True):
        assert np.abs(a[0, 0].numpy() - b).max() <= 1e-4


def test_fields_scale_with_the_spacing(busy_network):
    image = np.random.default_rng(1).normal(size=(24, 24, 24)).astype(np.float32)
    small, large = (predict(busy_network, image, spacing, CUBIC)[0] for spacing in (0.5, 2.0))
    assert np.allclose(large, 4 * small, atol=1e-4)


def test_broken_weights_are_noticed(busy_network):
    busy_network.coarsest.bias.data.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        predict(busy_network, np.zeros((16, 16, 16), np.float32), 1.0, CUBIC)


def test_larger_volumes_are_expected_to_need_more():
    small, large = estimate((64, 64, 64)), estimate((256, 256, 256))
    assert large["gigabytes"] > small["gigabytes"]
    assert large["seconds"] > small["seconds"] > 0
