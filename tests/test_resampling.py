"""Parts of a resampled volume."""

import numpy as np
import pytest

from vesselsdf.resampling import regrid, regrid_part
from vesselsdf.volume import isotropic_grid


@pytest.mark.parametrize("edges", [(0.5, 0.5, 0.5), (0.31, 0.31, 1.2), (0.7, 0.2, 0.5), (0.5, 0.5, 2.5)])
def test_a_part_has_the_bits_of_the_whole(edges):
    source = np.random.default_rng(0).normal(size=(23, 31, 17)).astype(np.float32)
    index_map, shape, widths = isotropic_grid(source.shape, edges, 0.5)
    whole = regrid(source, index_map, shape, widths=widths)
    draw = np.random.default_rng(1)
    for _ in range(20):
        low = [int(draw.integers(0, n)) for n in shape]
        box = tuple(slice(a, int(draw.integers(a + 1, n + 1))) for a, n in zip(low, shape, strict=True))
        part = regrid_part(source.__getitem__, source.shape, index_map, shape, box, widths)
        assert np.array_equal(part, whole[box])
