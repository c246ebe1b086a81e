"""Blocks: what happens in one of them makes it unsafe, and no other one."""

import numpy as np
import pytest

from vesselsdf.topology.blockwise_safety import block_at, block_safety, occupied
from vesselsdf.topology.decisions import Description

AFFINE = np.array([[0, -0.5, 0, 100], [0.5, 0, 0, 20], [0, 0, 0.5, 0], [0, 0, 0, 1.0]])


def line_mask():
    mask = np.zeros((40, 10, 10), bool)
    mask[:, 5, 5] = True
    return mask


def row(level, lost=(), changed=()):
    return {"spacing": [0.5 * 2**level] * 3, "lost": list(lost), "invented": [], "changed": list(changed)}


def world(*index):
    return (AFFINE @ [*index, 1.0])[:3].tolist()


def centreline(keep):
    index = np.stack([np.arange(40), np.full(40, 5), np.full(40, 5)], axis=1)[keep]
    return Description({}, [], [], index @ AFFINE[:3, :3].T + AFFINE[:3, 3], np.full(len(index), 0.5))


def test_every_block_has_the_level_before_its_first_change():
    lost = {"dimension": 1, "kind": "cut", "place": world(12, 5, 5)}
    terminal = {"decision": "paths", "place": world(39, 5, 5), "before": {}, "after": None}
    elsewhere = {"decision": "paths.reached", "place": world(25, 5, 5), "before": True, "after": False}
    levels = [row(0), row(1, changed=[elsewhere]), row(2, [lost]), row(3, [lost], [terminal])]
    found = block_safety(line_mask(), AFFINE, levels, [None] * 4, 10, 0.05)
    assert found["blocks"] == 4
    assert [block["coarsest_safe_level"] for block in found["list"]] == [3, 1, 3, 2]
    assert [block["reasons"] for block in found["list"]] == [[], ["loop cut"], [], ["terminal lost"]]
    assert found["safe_up_to"] == [0, 1, 1, 2]
    second = found["list"][1]
    assert second["voxels"] == [[10, 20], [0, 10], [0, 10]]
    assert second["low"] == pytest.approx([100 - 4.75, 20 + 4.75, -0.25])
    assert second["high"] == pytest.approx([100.25, 20 + 9.75, 4.75])


def test_a_block_is_unsafe_where_its_centreline_is_shorter_by_more_than_a_voxel():
    whole = np.ones(40, bool)
    shorter, much_shorter = whole.copy(), whole.copy()
    shorter[18:20] = False  # 1 mm, one voxel of level 1
    much_shorter[14:20] = False
    levels = [row(0), row(1), row(2)]
    found = block_safety(line_mask(), AFFINE, levels, [centreline(k) for k in (whole, shorter, much_shorter)], 10, 0.05)
    assert [block["coarsest_safe_level"] for block in found["list"]] == [2, 1, 2, 2]
    assert found["list"][1]["reasons"] == ["centreline 2.0 mm instead of 5.0 mm"]
    gone = block_safety(line_mask(), AFFINE, levels, [centreline(whole), None, None], 10, 0.05)
    assert gone["safe_up_to"] == [4, 0, 0]


def test_a_thousand_reasons_are_counted():
    lost = {"dimension": 0, "kind": "absent", "place": world(12, 5, 5)}
    found = block_safety(line_mask(), AFFINE, [row(0), row(1, [lost] * 1000)], [None] * 2, 64, 0.05)
    assert found["list"][0]["reasons"] == ["1000 x component absent"]


def test_blocks_with_vessel_and_the_block_of_a_place():
    mask = np.zeros((5, 4, 3), bool)
    mask[4, 3, 2] = True
    assert np.argwhere(occupied(mask, 2)).tolist() == [[2, 1, 1]]
    assert block_at(world(19.4, 0, 0), AFFINE, np.array([4, 1, 1]), 10) == (1, 0, 0)
    assert block_at(world(19.6, 0, 0), AFFINE, np.array([4, 1, 1]), 10) == (2, 0, 0)
    assert block_at(world(1000, -1000, 0), AFFINE, np.array([4, 1, 1]), 10) == (3, 0, 0)
