"""Betti numbers from blocks: equal to those of the whole, for all masks, cuts and orders of merging."""

import functools
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.blocks import EMPTY, LARGEST, Summary, betti_numbers_in_blocks, merge, partial, result


def same(a, b):
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in a.arrays())


def cuts(draw, size):
    """Borders of uneven slabs, from one slab to single voxels."""
    return [0, *sorted(draw(st.sets(st.integers(1, size - 1), max_size=2))), size] if size > 1 else [0, 1]


def summaries(mask, borders):
    boxes = itertools.product(*(itertools.pairwise(along) for along in borders))
    return [partial(mask[tuple(slice(*part) for part in box)], [part[0] for part in box]) for box in boxes]


def merged_along_a_random_tree(parts, generator):
    parts = list(parts)
    while len(parts) > 1:
        i, j = generator.choice(len(parts), 2, replace=False)
        joined = merge(parts[i], parts[j])
        parts = [part for at, part in enumerate(parts) if at not in (i, j)] + [joined]
    return parts[0]


@given(st.data(), st.integers(0, 2**32), st.tuples(*[st.integers(1, 8)] * 3), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_any_cut_and_any_order_give_the_whole(data, seed, shape, density):
    generator = np.random.default_rng(seed)
    mask = generator.random(shape) < density
    parts = summaries(mask, [cuts(data.draw, size) for size in shape])
    found = merged_along_a_random_tree(parts, generator)
    assert result(found, shape) == betti_numbers(mask)
    # More than the numbers: a summary depends on its voxels alone, not on how they were put together.
    assert same(found, partial(mask, (0, 0, 0)))


@given(st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_merging_is_commutative_and_associative_for_blocks_that_touch_or_not(seed, density):
    generator = np.random.default_rng(seed)
    mask = generator.random((7, 6, 5)) < density
    parts = summaries(mask, [[0, 3, 7], [0, 1, 6], [0, 4, 5]])
    a, b, c = (parts[i] for i in generator.choice(len(parts), 3, replace=False))
    assert same(merge(a, b), merge(b, a))
    assert same(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert same(merge(a, EMPTY), a)
    assert same(merge(EMPTY, a), a)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(1, 6, 9), (13, 1, 1), (1, 1, 1), (8, 9, 10)])
def test_blocks_of_every_size(density, shape):
    mask = np.random.default_rng(3).random(shape) < density
    for block in (4, 7, 100):
        assert betti_numbers_in_blocks(mask, block) == betti_numbers(mask)
    assert betti_numbers_in_blocks(np.asfortranarray(mask).astype(np.uint8), 6) == betti_numbers(mask)


def test_blocks_of_one_voxel():
    mask = np.random.default_rng(4).random((3, 4, 3)) < 0.45
    assert betti_numbers_in_blocks(mask, 1) == betti_numbers(mask)


def test_a_contact_across_the_corner_of_four_and_of_eight_blocks():
    for other in ((3, 4, 4), (4, 4, 4)):
        mask = np.zeros((8, 8, 8), bool)
        mask[3, 3, 3] = mask[other] = True
        parts = summaries(mask, [[0, 4, 8]] * 3)
        assert result(functools.reduce(merge, parts), mask.shape) == (1, 0, 0)
        ordered = [part for part in parts if part.cells.size]
        near = merge(*ordered)  # the two blocks that hold the voxels meet in an edge or corner only
        assert len(np.unique(near.component)) == 1
        assert near.counts[1] == 1


def test_a_hierarchy_of_blocks_and_a_cavity_across_all_of_them():
    mask = np.ones((16, 16, 16), bool)
    mask[3:13, 3:13, 3:13] = False
    mask[7:9, 7:9, :] = True  # a column through the cavity: one more loop
    parts = {
        origin: partial(mask[tuple(slice(o, o + 4) for o in origin)], origin)
        for origin in np.ndindex(16, 16, 16)
        if all(o % 4 == 0 for o in origin)
    }
    for size in (8, 16):
        coarser = {}
        for origin, part in parts.items():
            key = tuple(o // size * size for o in origin)
            coarser[key] = merge(coarser[key], part) if key in coarser else part
        parts = coarser
    assert result(parts[0, 0, 0], mask.shape) == betti_numbers(mask) == (1, 1, 1)


def test_a_summary_follows_the_surface_and_drops_what_is_inner():
    generator = np.random.default_rng(0)

    def rows(part):
        return sum(len(array) for array in part.arrays().values())

    small, large = (rows(partial(generator.random((n, n, n)) < 0.3, (0, 0, 0))) for n in (16, 32))
    assert large < 4.5 * small
    # A thin vessel along z: the lines of the surface, and the few cells where it leaves the block.
    tube = np.zeros((64, 64, 64), bool)
    tube[30:33, 30:33] = True
    whole = partial(tube, (0, 0, 0))
    assert rows(whole) < 2.1 * (6 * 64 + 2 * 2 * 40)
    assert len(whole.cells) == 2 * (4 * 4 + 2 * 3 * 4)
    halves = partial(tube[:, :, :32], (0, 0, 0)), partial(tube[:, :, 32:], (0, 0, 32))
    assert sum(map(rows, halves)) > rows(merge(*halves)) == rows(whole)


def test_a_summary_survives_json_and_npz(tmp_path):
    mask = np.random.default_rng(1).random((6, 7, 8)) < 0.4
    parts = summaries(mask, [[0, 6], [0, 3, 7], [0, 8]])
    for n, part in enumerate(parts):
        np.savez(tmp_path / f"{n}.npz", **part.arrays())
    with np.load(tmp_path / "0.npz") as first, np.load(tmp_path / "1.npz") as second:
        found = merge(Summary.from_arrays(first), Summary.from_arrays(second))
    assert result(found, mask.shape) == betti_numbers(mask)
    texts = [json.dumps({name: array.tolist() for name, array in part.arrays().items()}) for part in [*parts, EMPTY]]
    found = functools.reduce(merge, (Summary.from_arrays(json.loads(text)) for text in texts))
    assert result(found, mask.shape) == betti_numbers(mask)


def test_a_missing_or_doubled_block_is_an_error_and_never_a_wrong_number():
    mask = np.random.default_rng(2).random((6, 6, 6)) < 0.3
    parts = summaries(mask, [[0, 2, 4, 6]] * 3)
    wrong = [parts[:-1], [*parts, parts[4]], [*parts[:-1], parts[13]], [*parts[1:], parts[5]], [EMPTY]]
    # Here each voxel is covered an odd number of times, so that only the number of voxels tells.
    wrong.append([part for n, part in enumerate(parts) for _ in range(1 + 2 * (n == 4))])
    for chosen in wrong:
        with pytest.raises(InputError, match="exactly once"):
            result(functools.reduce(merge, chosen), mask.shape)
    whole = functools.reduce(merge, parts)
    for shape in ((6, 6, 7), (6, 9, 4), (216, 1, 1)):
        with pytest.raises(InputError, match="exactly once"):
            result(whole, shape)
    shifted = partial(mask, (0, 0, 1))
    with pytest.raises(InputError, match="exactly once"):
        result(shifted, mask.shape)


def test_bad_blocks_are_refused_in_one_sentence():
    voxel = np.ones((1, 1, 1), bool)
    for origin in ((0, 0, -1), (0, 0), (LARGEST, 0, 0)):
        with pytest.raises(InputError, match="origin"):
            partial(voxel, origin)
    for bad in (np.zeros((3, 3, 3)), np.full((3, 3, 3), np.nan), np.zeros((3, 3), bool), np.zeros((3, 0, 3), bool)):
        with pytest.raises(InputError, match="mask has"):
            partial(bad, (0, 0, 0))
    for mask, block in ((voxel, 0), (np.ones((2, 2), bool), 4), (np.ones((2, 0, 2), bool), 4)):
        with pytest.raises(InputError, match="block"):
            betti_numbers_in_blocks(mask, block)
    last = partial(voxel, (LARGEST - 1,) * 3)  # the numbers of cells do not overflow
    assert last.counts.tolist() == [1, 1, 0, 0]
    assert len(last.cells) == 12 + 8
    assert (last.cells > 0).all()
    arrays = partial(voxel, (0, 0, 0)).arrays()
    for bad in (
        {name: array for name, array in arrays.items() if name != "cells"},
        arrays | {"cells": arrays["cells"] + 0.5},
        arrays | {"squares": arrays["squares"][:, :1]},
        arrays | {"behind": arrays["behind"][1:]},
        arrays | {"counts": arrays["counts"][:3]},
        arrays | {"counts": 4},
        arrays | {"component": "twenty"},
    ):
        with pytest.raises(InputError, match="summary of a block"):
            Summary.from_arrays(bad)


def test_real_labels_in_blocks(shared_data):
    import nibabel

    for modality, expected in (("ct", (1, 0, 0)), ("mr", (2, 1, 0))):
        label = np.asarray(nibabel.load(shared_data / f"circle_of_willis/topcow_{modality}_roi_003.nii.gz").dataobj)
        assert betti_numbers_in_blocks(label > 0, 48) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_larger_noise_in_blocks(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random((48, 33, 65)) < seed / 20
    borders = [sorted({0, size, *generator.integers(1, size, 3).tolist()}) for size in mask.shape]
    assert result(merged_along_a_random_tree(summaries(mask, borders), generator), mask.shape) == betti_numbers(mask)
