"""Active voxels and their neighbours."""

import pytest
import torch

from vesselsdf import sites
from vesselsdf.sites import Sites


@pytest.mark.parametrize(("shape", "share"), [((2, 9, 7, 5), 0.1), ((1, 3, 1, 2), 0.9), ((3, 1, 1, 40), 0.5)])
def test_kernels_find_the_neighbours_that_tensors_find(shape, share, monkeypatch):
    active = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < share
    found = Sites.where(active, dense=1.0)
    around = found.around()
    monkeypatch.setattr(sites, "_by_kernels", lambda flat: False)
    expected = Sites.where(active, dense=1.0)
    assert len(found) == int(active.sum()) > 0
    assert torch.equal(found.table.long(), expected.table)
    assert torch.equal(around.long(), expected.around())


def test_a_neighbour_is_one_place_away_and_never_in_another_volume_of_the_batch():
    active = torch.ones(2, 3, 3, 3, dtype=torch.bool)
    active[0, 1, 1, 1] = False
    found = Sites.where(active)
    assert found.table is None, "nearly everything is active"
    active[:] = False
    active[0, 2, 2, 2] = active[1, 0, 0, 0] = active[1, 0, 0, 1] = True
    first, second, third = Sites.where(active).table.tolist()
    assert first[13] == 0
    assert set(first) == {0, 3}
    assert (second[13], second[14], third[12], third[13]) == (1, 2, 1, 2)
