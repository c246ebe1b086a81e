"""Overlap against answers worked out by hand; clDice where common thinning goes wrong."""

import math

import numpy as np
import pytest

from vesselsdf.overlap import cldice, dice, precision, recall, skeleton_indices
from vesselsdf.topology.betti import betti_numbers

ISOTROPIC = (1.0, 1.0, 1.0)


def test_two_overlapping_blocks():
    a, b = np.zeros((2, 20, 8, 8), bool)
    a[2:10], b[6:18] = True, True
    assert precision(a, b) == 0.5
    assert recall(a, b) == pytest.approx(1 / 3)
    assert dice(a, b) == pytest.approx(2 * 4 / (8 + 12))


def test_empty_and_full_masks():
    empty, full = np.zeros((5, 6, 7), bool), np.ones((5, 6, 7), bool)
    for metric in (dice, precision, recall):
        assert metric(empty, empty) == metric(full, full) == 1.0
        assert metric(empty, full) == metric(full, empty) == 0.0
    assert cldice(empty, empty, ISOTROPIC) == cldice(full, full, ISOTROPIC) == 1.0
    assert cldice(empty, full, ISOTROPIC) == cldice(full, empty, ISOTROPIC) == 0.0


def test_masks_without_a_common_voxel_score_zero():
    a, b = np.zeros((2, 12, 12, 12), bool)
    a[2, 2, 2:9], b[8, 8, 2:9] = True, True
    assert dice(a, b) == precision(a, b) == recall(a, b) == cldice(a, b, (1.0, 1.0, 2.5)) == 0.0


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6, 8])
def test_bars_of_any_width_have_a_skeleton(width):
    # Lee's thinning leaves nothing of bars of even width.
    bar = np.zeros((12, 12, 40), bool)
    bar[2 : 2 + width, 2 : 2 + width, 3:37] = True
    half = bar.copy()
    half[:, :, 20:] = False
    assert cldice(bar, bar, ISOTROPIC) == 1.0
    # Half of the skeleton, give or take its ends: precision 1, sensitivity 1/2.
    assert cldice(half, bar, ISOTROPIC) == pytest.approx(2 / 3, abs=0.08)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_millimetre_counts_the_same_along_every_axis(axis):
    # An L with arms of 40 mm each, of which one is missing: half of the length, whatever the spacing along the arm is.
    spacing = (1.0, 1.0, 4.0)
    mask = np.zeros((46, 8, 12), bool)
    mask[2:42, 3, 1] = mask[2, 3, 1:11] = True
    lost = mask.copy()
    if axis == 0:
        lost[3:] = False
    else:
        lost[:, :, 2:] = False
    # Length in mm that is left of the 40 + 36 mm of the L: 4 + 36 or 40 + 4 of the joint slice.
    left = np.mean(lost[tuple(skeleton_indices(mask, spacing).T)])
    assert left == pytest.approx(0.5, abs=0.05)
    assert cldice(lost, mask, spacing) == pytest.approx(2 / 3, abs=0.05)


def test_the_skeleton_of_thick_slices_keeps_loops_and_lies_in_the_mask():
    spacing = (0.5, 0.5, 2.0)
    grid = (np.indices((48, 48, 12)).T - (23.5, 23.5, 5.5)) * spacing
    x, y, z = grid.T
    torus = np.hypot(np.hypot(x, z) - 7, y) < 2.2
    assert betti_numbers(torus) == (1, 1, 0)
    indices = skeleton_indices(torus, spacing)
    assert torus[tuple(indices.T)].all()
    points = (indices - (23.5, 23.5, 5.5)) * spacing
    # All around the ring, within a voxel's diagonal of its centre line.
    assert set(np.round(np.arctan2(points[:, 2], points[:, 0]) / (math.pi / 4)).astype(int)) >= set(range(-3, 4))
    assert np.hypot(np.hypot(points[:, 0], points[:, 2]) - 7, points[:, 1]).max() < 2.2


def test_a_diagonal_vessel_one_voxel_wide_is_not_broken_by_thick_slices():
    mask = np.zeros((12, 12, 12), bool)
    mask[range(1, 11), range(1, 11), range(1, 11)] = True
    assert len(np.unique(skeleton_indices(mask, (0.4, 0.4, 3.0)), axis=0)) == 10
    assert cldice(mask, mask, (0.4, 0.4, 3.0)) == 1.0


def test_nearly_equal_spacings_are_equal():
    mask = np.zeros((1, 1, 600), bool)
    mask[..., 5:595] = True
    assert len(skeleton_indices(mask, (0.7, 0.7, 0.7000001))) == 590


def test_agrees_with_monai():
    metrics = pytest.importorskip("monai.metrics")
    import torch

    rng = np.random.default_rng(5)
    a, b = rng.random((2, 9, 8, 7)) < 0.4
    theirs = metrics.compute_dice(*[torch.from_numpy(mask)[None, None] for mask in (a, b)], include_background=True)
    assert dice(a, b) == pytest.approx(float(theirs))
