"""Betti and Euler numbers of a mask by counting, exactly: no persistence, no sampling, no voxel loop.

All numbers are those of the union of the *closed* voxels (26-connected vessel, 6-connected background), with the
volume padded by one background voxel, so that a vessel that leaves the box ends there and a full box is a ball.

Strategy: the mask is packed to one bit per voxel. The Euler number is `V - E + F - C` of the cubical complex; a cell
belongs to it when one of the voxels around it does, which is an OR of shifted words, and population counts add
them up. Components come from the runs of voxels along z (few, where vessels are thin), joined where runs of
neighbouring lines overlap. Background: the first and the last run of every line reach the padding, so only the runs
between two vessel runs of a line have to be followed.
"""

import numpy as np
from jaxtyping import Int32, Int64, Shaped, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vesselsdf.errors import InputError

# Neighbouring lines (dx, dy) that come after a line in C order: each adjacent pair of lines once.
LINES_8 = ((0, 1), (1, -1), (1, 0), (1, 1))
LINES_4 = ((0, 1), (1, 0))


def as_mask(mask: Shaped[np.ndarray, "..."], name: str = "mask") -> np.ndarray:
    """`mask` as a boolean (X, Y, Z) array without a copy where possible; integers count as vessel where non-zero.

    Raises InputError for anything but a 3D array of booleans or integers with at least one voxel.

    >>> as_mask(np.eye(3)[None] > 0).shape
    (1, 3, 3)
    """
    if mask.ndim != 3:
        raise InputError(f"{name} has shape {mask.shape}; give a 3D array (x, y, z).")
    if mask.size == 0:
        raise InputError(f"{name} has shape {mask.shape}, which holds no voxel; give a 3D array with voxels in it.")
    if mask.dtype == np.bool_:
        return mask
    if mask.dtype.kind in "iu":
        return mask != 0
    raise InputError(f"{name} has dtype {mask.dtype}; give booleans, for a distance field `sdf <= 0`.")


def betti_numbers(mask: Shaped[np.ndarray, "..."]) -> tuple[int, int, int]:
    """`(beta0, beta1, beta2)` of a mask (X, Y, Z): components, loops, cavities (26/6, padded by background).

    `beta1 = beta0 + beta2 - chi` (Euler-Poincare), `beta0` and `beta2 + 1` by counting components. An empty mask has
    `(0, 0, 0)`, a full one `(1, 0, 0)`. Raises InputError for what is no 3D mask.

    >>> ring = np.ones((3, 3, 1), bool); ring[1, 1] = False
    >>> betti_numbers(ring)
    (1, 1, 0)
    >>> shell = np.ones((3, 3, 3), bool); shell[1, 1, 1] = False
    >>> betti_numbers(shell)
    (1, 0, 1)
    """
    mask = as_mask(mask)
    if mask.flags.f_contiguous:
        mask = mask.T  # counts do not depend on the order of the axes, but packing bits along z does, in time
    words = pack(mask)
    starts, ends, shape = runs(words, mask.shape[2])
    if starts.size == 0:
        return 0, 0, 0
    beta0, _ = join_runs(starts, ends, shape, LINES_8, reach=1)
    beta2 = count_cavities(starts, ends, shape)
    return beta0, beta0 + beta2 - euler_of_words(words), beta2


def euler_number(mask: Shaped[np.ndarray, "..."]) -> int:
    """Euler number `beta0 - beta1 + beta2` of the union of closed voxels of a mask (X, Y, Z); 0 when it is empty.

    >>> euler_number(np.ones((2, 3, 4), bool))
    1
    """
    mask = as_mask(mask)
    return euler_of_words(pack(mask.T if mask.flags.f_contiguous else mask))


def components(mask: Shaped[np.ndarray, "..."]) -> tuple[Int32[np.ndarray, "..."], int]:
    """26-connected components of a mask (X, Y, Z): `(labels, n)`, int32, 0 outside, 1..n in C order of first voxels.

    >>> labels, n = components(np.array([[[1, 0, 1, 1]]]))
    >>> labels.tolist(), n
    ([[[1, 0, 2, 2]]], 2)
    """
    mask = as_mask(mask)
    labels = np.zeros(mask.shape, np.int32)
    starts, ends, shape = runs(pack(mask), mask.shape[2])
    if starts.size == 0:
        return labels, 0
    count, of_run = join_runs(starts, ends, shape, LINES_8, reach=1)
    # The runs are in C order, so their voxels are those of the mask in C order.
    labels[mask] = np.repeat(of_run + 1, ends - starts)
    return labels, count


def pack(mask: np.ndarray) -> UInt64[np.ndarray, "a b w"]:
    """The lines of a mask as words of 64 voxels, lowest bit first, cropped in x and y and padded by one line.

    A word holds at least one zero bit behind the last voxel of its line, so that lines never touch.
    """
    packed = np.packbits(mask, axis=-1, bitorder="little")
    count = mask.shape[2] // 64 + 1
    used = np.logical_or.reduce(packed, axis=2)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if rows.size == 0:
        return np.zeros((2, 2, count), np.uint64)
    box = packed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.zeros((box.shape[0] + 2, box.shape[1] + 2, 8 * count), np.uint8)
    padded[1:-1, 1:-1, : box.shape[2]] = box
    return padded.view("<u8").astype(np.uint64, copy=False)


def shifted(words: UInt64[np.ndarray, "a b w"]) -> UInt64[np.ndarray, "a b w"]:
    """Every line moved by one voxel towards higher z (the bit that leaves a word enters the next one)."""
    moved = words << np.uint64(1)
    moved[..., 1:] |= words[..., :-1] >> np.uint64(63)
    return moved


def euler_of_words(words: UInt64[np.ndarray, "a b w"]) -> int:
    """Euler number `V - E + F - C` of a packed mask: a lower cell exists where a voxel around it does."""

    def cells(array: np.ndarray) -> int:
        return int(np.bitwise_count(array).sum(dtype=np.int64))

    def faces_and_voxels(array: np.ndarray) -> int:
        # Cells across y and z for one choice along x: voxel - (face in y + face in z) + edge.
        along_y = array[:, :-1] | array[:, 1:]
        return cells(array) - cells(along_y) - cells(array | shifted(array)) + cells(along_y | shifted(along_y))

    # Each direction in which a cell is flat lowers its dimension by one; a voxel (dimension 3) counts -1.
    return faces_and_voxels(words[:-1] | words[1:]) - faces_and_voxels(words)


def runs(
    words: UInt64[np.ndarray, "a b w"], depth: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], tuple[int, int, int]]:
    """Runs of set bits along z: `starts`, `ends` (exclusive) as flat indices into the padded shape, which comes third.

    The shape is that of the packed lines with one padding voxel on both sides and one more that separates lines.
    """
    changes = (words ^ shifted(words)).reshape(-1)
    changed = np.flatnonzero(changes)
    bits = np.unpackbits(changes[changed].astype("<u8", copy=False).view(np.uint8), bitorder="little").reshape(-1, 64)
    word, bit = np.nonzero(bits)
    line, z = np.divmod(changed[word] * 64 + bit, words.shape[2] * 64)
    flat = line * (depth + 3) + z + 1
    return flat[0::2], flat[1::2], (words.shape[0], words.shape[1], depth + 3)


def overlaps(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Pairs (window, run) of the sorted disjoint runs `[starts, ends)` that meet the windows `[first, last)`."""
    low = np.searchsorted(ends, first, side="right")
    counts = np.searchsorted(starts, last, side="left") - low
    window = np.repeat(np.arange(first.size), counts)
    run = np.arange(window.size) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    return window, run


def join_runs(
    starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int], lines: tuple, reach: int
) -> tuple[int, Int32[np.ndarray, " n"]]:
    """Number of components of the runs, and the component of each; `reach` 1 lets runs touch diagonally along z."""
    pairs = [overlaps(starts, ends, starts + d - reach, ends + d + reach) for d in line_steps(shape, lines)]
    return join(starts.size, np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))


def line_steps(shape: tuple[int, int, int], lines: tuple) -> list[int]:
    """Flat distances to the neighbouring lines (dx, dy) in an array of that shape."""
    return [(dx * shape[1] + dy) * shape[2] for dx, dy in lines]


def join(count: int, a: np.ndarray, b: np.ndarray) -> tuple[int, Int32[np.ndarray, " n"]]:
    """Components of a graph of `count` nodes with edges (a, b), numbered in the order of their first nodes."""
    graph = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(count, count))
    found, labels = connected_components(graph, directed=False)
    return int(found), labels.astype(np.int32, copy=False)


def count_cavities(starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int]) -> int:
    """beta2 from the vessel's runs: 6-connected background components, less the outer one.

    A background run that is first or last in its line reaches the padding. All those are one node; the others, which
    lie between two vessel runs of one line, are nodes of their own.
    """
    same_line = starts[1:] // shape[2] == ends[:-1] // shape[2]
    inner = np.flatnonzero(same_line)
    if inner.size == 0:
        return 0
    first, last = ends[inner], starts[inner + 1]
    line = np.arange(shape[0] * shape[1]) * shape[2]
    background_starts = np.sort(np.concatenate([line, ends]))
    background_ends = np.sort(np.concatenate([line + shape[2] - 1, starts]))
    node = np.zeros(background_starts.size, np.int64)
    node[np.searchsorted(background_starts, first)] = np.arange(1, inner.size + 1)
    a, b = [], []
    for step in line_steps(shape, ((0, 1), (1, 0), (0, -1), (-1, 0))):
        window, run = overlaps(background_starts, background_ends, first + step, last + step)
        a.append(window + 1)
        b.append(node[run])
    return join(inner.size + 1, np.concatenate(a), np.concatenate(b))[0] - 1
