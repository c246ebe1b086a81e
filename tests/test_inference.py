"""One piece or tiles: the same numbers."""

import numpy as np
import pytest

from vesselsdf.errors import RunError
from vesselsdf.inference import estimate, predict

CUBIC = np.zeros(4, np.float32)


@pytest.mark.parametrize("tile", [24, 32])
def test_tiles_give_the_numbers_of_one_piece(busy_network, tile):
    image = np.random.default_rng(0).normal(size=(75, 58, 49)).astype(np.float32)
    acquisition = np.array([0, 0.4, 0, 0.2], np.float32)  # more would drive the random network out of its range
    whole, tiled = (predict(busy_network, image, 0.5, acquisition, edge) for edge in (None, tile))
    for a, b in zip(whole, tiled, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-4


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
