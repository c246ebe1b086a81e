"""One piece or tiles: the same numbers."""

import numpy as np
import pytest

from vesselsdf.errors import RunError
from vesselsdf.inference import estimate, predict


@pytest.mark.parametrize("tile", [24, 32])
def test_tiles_give_the_numbers_of_one_piece(busy_network, tile):
    image = np.random.default_rng(0).normal(size=(75, 58, 49)).astype(np.float32)
    whole, tiled = predict(busy_network, image, 0.5), predict(busy_network, image, 0.5, tile=tile)
    for a, b in zip(whole, tiled, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-4


def test_fields_scale_with_the_spacing(busy_network):
    image = np.random.default_rng(1).normal(size=(24, 24, 24)).astype(np.float32)
    assert np.allclose(predict(busy_network, image, 2.0)[0], 4 * predict(busy_network, image, 0.5)[0], atol=1e-4)


def test_broken_weights_are_noticed(busy_network):
    busy_network.coarsest.bias.data.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        predict(busy_network, np.zeros((16, 16, 16), np.float32), 1.0)


def test_larger_volumes_are_expected_to_need_more():
    small, large = estimate((64, 64, 64)), estimate((256, 256, 256))
    assert large["gigabytes"] > small["gigabytes"]
    assert large["seconds"] > small["seconds"] > 0
