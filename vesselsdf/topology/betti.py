"""Betti and Euler numbers of a mask by counting, exactly: no persistence, no sampling, no voxel loop.

The volume is padded by one background voxel, so that a vessel that leaves the box ends there and a full box is a ball.
All numbers are those of the union of the *closed* voxels (the pair 26/6: 26-connected vessel, 6-connected background),
or, on request, those of its interior (the pair 6/26). The two differ where voxels meet in an edge or a corner only:
`ambiguous_contacts` names these places.

Strategy: the mask is packed to one bit per voxel. The Euler number of 26/6 is `V - E + F - C` of the cubical complex; a
cell belongs to it when one of the voxels around it does, which is an OR of shifted words, and population counts add
them up. For 6/26 voxels are the vertices, and an edge, square or cube belongs to the complex when all its voxels do: an
AND. Components come from the runs of voxels along z (few, where vessels are thin), joined where runs of neighbouring
lines overlap. Background: the first and the last run of every line reach the padding, so only the runs between two
vessel runs of a line have to be followed.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64, Shaped, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from vesselsdf.errors import InputError


class Adjacency(NamedTuple):
    """Which runs along z are adjacent: those that overlap in the line itself or in a neighbouring line (dx, dy).

    `forward` has each pair of neighbouring lines once. `reach` 1 lets runs touch diagonally along z too.
    """

    forward: tuple[tuple[int, int], ...]
    reach: int


SIX = Adjacency(((0, 1), (1, 0)), 0)
TWENTY_SIX = Adjacency(((0, 1), (1, -1), (1, 0), (1, 1)), 1)
Octant = tuple[int, int, int]
# Adjacency of the vessel, adjacency of the background.
PAIRS = {"26/6": (TWENTY_SIX, SIX), "6/26": (SIX, TWENTY_SIX)}


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


def in_memory_order(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "a b c"]:
    """The mask seen with its axes permuted and flipped so that it is read as it lies in memory: no count changes."""
    view = mask.transpose(sorted(range(3), key=lambda axis: -abs(mask.strides[axis])))
    return view[tuple(slice(None, None, -1 if step < 0 else 1) for step in view.strides)]


def adjacencies(pair: str) -> tuple[Adjacency, Adjacency]:
    """Adjacency of vessel and of background of a pair; InputError if there is no such pair."""
    if pair not in PAIRS:
        raise InputError(f"pair is {pair!r}; use '26/6' (voxels closed) or '6/26' (voxels open).")
    return PAIRS[pair]


def betti_numbers(mask: Shaped[np.ndarray, "..."], pair: str = "26/6") -> tuple[int, int, int]:
    """`(beta0, beta1, beta2)` of a mask (X, Y, Z): components, loops, cavities, padded by background.

    pair: "26/6", adjacency of vessel and background: the union of the closed voxels (gudhi's T-construction). Or
    "6/26": the interior of that union, or all the same the complex with the voxels as vertices (the V-construction;
    Bleile et al. 2022, "The persistent homology of dual digital image constructions").

    `beta1 = beta0 + beta2 - chi` (Euler-Poincare); `beta0` and `beta2 + 1` by counting components of vessel and
    background. An empty mask has `(0, 0, 0)`, a full one `(1, 0, 0)`. Raises InputError for what is no 3D mask.

    >>> ring = np.ones((3, 3, 1), bool); ring[1, 1] = False
    >>> betti_numbers(ring)
    (1, 1, 0)
    >>> ring[0, 0] = False  # now two of its voxels meet in an edge only
    >>> betti_numbers(ring), betti_numbers(ring, pair="6/26")
    ((1, 1, 0), (1, 0, 0))
    >>> shell = np.ones((3, 3, 3), bool); shell[1, 1, 1] = False
    >>> betti_numbers(shell)
    (1, 0, 1)
    """
    vessel, background = adjacencies(pair)
    mask = in_memory_order(as_mask(mask))
    words, _ = pack(mask)
    starts, ends, shape = runs(words, mask.shape[2])
    if starts.size == 0:
        return 0, 0, 0
    beta0, _ = join_runs(starts, ends, shape, vessel)
    beta2 = count_cavities(starts, ends, shape, background)
    return beta0, beta0 + beta2 - euler_of_words(words, pair), beta2


def euler_number(mask: Shaped[np.ndarray, "..."], pair: str = "26/6") -> int:
    """Euler number `beta0 - beta1 + beta2` of a mask (X, Y, Z) for a pair as in `betti_numbers`; 0 when it is empty.

    >>> euler_number(np.ones((2, 3, 4), bool))
    1
    >>> corner = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    >>> euler_number(corner), euler_number(corner, pair="6/26")
    (1, 2)
    """
    adjacencies(pair)
    return euler_of_words(pack(in_memory_order(as_mask(mask)))[0], pair)


def components(mask: Shaped[np.ndarray, "..."]) -> tuple[Int32[np.ndarray, "..."], int]:
    """26-connected components of a mask (X, Y, Z): `(labels, n)`, int32, 0 outside, 1..n in C order of first voxels.

    >>> labels, n = components(np.array([[[1, 0, 1, 1]]]))
    >>> labels.tolist(), n
    ([[[1, 0, 2, 2]]], 2)
    """
    mask = as_mask(mask)
    labels = np.zeros(mask.shape, np.int32)
    words, _ = pack(mask)
    starts, ends, shape = runs(words, mask.shape[2])
    if starts.size == 0:
        return labels, 0
    count, of_run = join_runs(starts, ends, shape, TWENTY_SIX)
    # The runs are in C order, so their voxels are those of the mask in C order.
    labels[mask] = np.repeat(of_run + 1, ends - starts)
    return labels, count


@dataclass(frozen=True)
class Contacts:
    """Places where voxels meet diagonally, in an edge or a corner only, in C order of their first voxels.

    voxels: (n, 2, 3), the indices of the two diagonal voxels. vessel: (n,), true if these are the only vessel voxels
    around the place, false if they are the only background. places: (n, 3), the midpoint, in mm or voxel indices.
    """

    voxels: Int64[np.ndarray, "n 2 3"]
    vessel: Bool[np.ndarray, " n"]
    places: Float[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.vessel)


def ambiguous_contacts(mask: Shaped[np.ndarray, "..."], affine: Float[np.ndarray, "4 4"] | None = None) -> Contacts:
    """The places where the pairs 26/6 and 6/26 disagree on a mask (X, Y, Z); none: their Betti numbers are equal.

    Let `X` be the union of the closed vessel voxels. A contact is a lattice edge or corner about which `X` and its
    interior have different topology in every small ball. *Edge*: of the four voxels around it just two diagonal ones
    are vessel; `X` is one piece there, its interior two. *Corner*: of the eight voxels around it just two opposite ones
    are vessel (one piece, two pieces), or just two opposite ones are background (the interior has a loop around them).

    Theorem. Without contacts both pairs have equal Betti numbers. *Proof.* They are those of `X` and of its interior,
    so it suffices that `X` is a manifold with boundary (it retracts into its interior along a collar; Brown 1962).
    About a point within a lattice edge, vessel and background are one sector each, as they are not diagonal. Now a
    corner with both kinds around it. Two of its octants at distance 1 (number of axes in which they differ) share a
    square. Two vessel octants at distance 2 are diagonal at an edge, so one of the other two there is vessel and joins
    them through squares. With two at distance 3 there is a third vessel octant, or they would be a contact: it is at
    distance 1 from one of them and 2 from the other, and joins them too. So the vessel octants are connected through
    squares, and by the same argument so is the background. On a small sphere about the corner their border has no
    crossings (no edge is a contact), so it consists of closed curves, n of which part the sphere into n + 1 regions.
    There are two regions: `X` meets the sphere in a disc and is the cone over it. (The converse is false: contacts
    may cancel in the counts.)

    affine: 4x4, voxel index -> mm, for `places`; without it these are voxel indices. Raises InputError for what is no
    3D mask and for an affine with values that are not finite.

    >>> two = np.zeros((3, 3, 1), bool); two[0, 1] = two[1, 2] = True
    >>> found = ambiguous_contacts(two)
    >>> found.voxels.tolist(), found.vessel.tolist(), found.places.tolist()
    ([[[0, 1, 0], [1, 2, 0]]], [True], [[0.5, 1.5, 0.0]])
    """
    affine = np.eye(4) if affine is None else affine
    if not np.isfinite(affine).all():
        raise InputError("The affine has NaN or infinite values; give a 4x4 matrix, voxel index -> mm.")
    words, corner = pack(as_mask(mask))
    index, octant = octants(words)
    first, second, vessel = [], [], []

    def add(contact: np.ndarray, p: Octant, q: Octant, of_vessel: bool) -> None:
        word, bit = set_bits(contact)
        highest = np.stack([index[0][word] + corner[0], index[1][word] + corner[1], index[2][word] * 64 + bit], axis=1)
        first.append(highest - p)
        second.append(highest - q)
        vessel.append(np.full(len(word), of_vessel))

    for u, v in itertools.combinations(((1, 0, 0), (0, 1, 0), (0, 0, 1)), 2):
        both = (u[0] + v[0], u[1] + v[1], u[2] + v[2])
        here, there = octant[both] & octant[0, 0, 0], octant[u] & octant[v]
        add(here & ~(octant[u] | octant[v]), both, (0, 0, 0), True)
        add(there & ~(octant[both] | octant[0, 0, 0]), u, v, True)
    diagonals = [((1, y, z), (0, 1 - y, 1 - z)) for y in (1, 0) for z in (1, 0)]
    for p, q in diagonals:
        others = [octant[end] for diagonal in diagonals if diagonal != (p, q) for end in diagonal]
        add(octant[p] & octant[q] & ~np.bitwise_or.reduce(others), p, q, True)
        add(np.bitwise_and.reduce(others) & ~(octant[p] | octant[q]), p, q, False)
    voxels = np.stack([np.concatenate(first), np.concatenate(second)], axis=1)
    order = np.lexsort(voxels.reshape(-1, 6).T[::-1])
    voxels = voxels[order]
    places = voxels.mean(axis=1) @ affine[:3, :3].T + affine[:3, 3]
    return Contacts(voxels, np.concatenate(vessel)[order], places)


def octants(words: UInt64[np.ndarray, "a b w"]) -> tuple[tuple[np.ndarray, ...], dict[Octant, np.ndarray]]:
    """The eight voxels around every lattice corner that touches vessel, as eight arrays of words.

    Returns the (line, line, word) indices of the highest of the eight, and for each octant (x, y, z) of 0 and 1 the
    words of the voxel that lies so many steps below the highest.
    """
    around = words[1:] | words[:-1]
    around = around[:, 1:] | around[:, :-1]
    x, y, word = np.nonzero(around | shifted(around))
    moved = shifted(words)
    cube = itertools.product((0, 1), repeat=3)
    return (x + 1, y + 1, word), {(i, j, k): (moved if k else words)[x + 1 - i, y + 1 - j, word] for i, j, k in cube}


def pack(mask: np.ndarray) -> tuple[UInt64[np.ndarray, "a b w"], tuple[int, int]]:
    """The lines of a mask as words of 64 voxels, lowest bit first, cropped in x and y and padded by one line.

    A word holds at least one zero bit behind the last voxel of its line, so that lines never touch. The second value is
    the (x, y) that the first padding line would have.
    """
    packed = np.packbits(mask, axis=-1, bitorder="little")
    count = mask.shape[2] // 64 + 1
    used = np.logical_or.reduce(packed, axis=2)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if rows.size == 0:
        return np.zeros((2, 2, count), np.uint64), (-1, -1)
    box = packed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    padded = np.zeros((box.shape[0] + 2, box.shape[1] + 2, 8 * count), np.uint8)
    padded[1:-1, 1:-1, : box.shape[2]] = box
    return padded.view("<u8").astype(np.uint64, copy=False), (int(rows[0]) - 1, int(columns[0]) - 1)


def shifted(words: UInt64[np.ndarray, "a b w"]) -> UInt64[np.ndarray, "a b w"]:
    """Every line moved by one voxel towards higher z (the bit that leaves a word enters the next one)."""
    moved = words << np.uint64(1)
    moved[..., 1:] |= words[..., :-1] >> np.uint64(63)
    return moved


def euler_of_words(words: UInt64[np.ndarray, "a b w"], pair: str = "26/6") -> int:
    """Euler number of a packed mask, by its cells.

    Across any set of axes there is a cell between neighbouring voxels. For 26/6 the voxel itself has dimension 3,
    each axis lowers it by one, and the cell exists where a voxel around it is vessel. For 6/26 the voxel has dimension
    0, each axis raises it by one, and the cell exists where all voxels around it are vessel.
    """
    meet = np.bitwise_or if pair == "26/6" else np.bitwise_and

    def cells(array: np.ndarray) -> int:
        return int(np.bitwise_count(array).sum(dtype=np.int64))

    def along_z_and_y(array: np.ndarray) -> int:
        along_y = meet(array[:, :-1], array[:, 1:])
        return (
            cells(array) - cells(along_y) - cells(meet(array, shifted(array))) + cells(meet(along_y, shifted(along_y)))
        )

    alternating = along_z_and_y(words) - along_z_and_y(meet(words[:-1], words[1:]))
    return -alternating if pair == "26/6" else alternating


def set_bits(words: UInt64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Index of the word and number of the bit (0..63) of every set bit, in order."""
    used = np.flatnonzero(words)
    bits = np.unpackbits(words[used].astype("<u8", copy=False).view(np.uint8), bitorder="little").reshape(-1, 64)
    word, bit = np.nonzero(bits)
    return used[word], bit


def runs(
    words: UInt64[np.ndarray, "a b w"], depth: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], tuple[int, int, int]]:
    """Runs of set bits along z: `starts`, `ends` (exclusive) as flat indices into the padded shape, which comes third.

    The shape is that of the packed lines with one padding voxel on both sides and one more that separates lines.
    """
    word, bit = set_bits((words ^ shifted(words)).reshape(-1))
    line, z = np.divmod(word * 64 + bit, words.shape[2] * 64)
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
    starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int], adjacency: Adjacency
) -> tuple[int, Int32[np.ndarray, " n"]]:
    """Number of components of the runs, and the component of each."""
    steps, reach = line_steps(shape, adjacency.forward), adjacency.reach
    pairs = [overlaps(starts, ends, starts + step - reach, ends + step + reach) for step in steps]
    return join(starts.size, np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))


def line_steps(shape: tuple[int, int, int], lines: tuple) -> list[int]:
    """Flat distances to the neighbouring lines (dx, dy) in an array of that shape."""
    return [(dx * shape[1] + dy) * shape[2] for dx, dy in lines]


def join(count: int, a: np.ndarray, b: np.ndarray) -> tuple[int, Int32[np.ndarray, " n"]]:
    """Components of a graph of `count` nodes with edges (a, b), numbered in the order of their first nodes."""
    graph = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(count, count))
    found, labels = connected_components(graph, directed=False)
    return int(found), labels.astype(np.int32, copy=False)


def count_cavities(starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int], adjacency: Adjacency) -> int:
    """beta2 from the vessel's runs: components of the background, less the outer one.

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
    forward = line_steps(shape, adjacency.forward)
    for step in [*forward, *(-step for step in forward)]:
        window, run = overlaps(
            background_starts, background_ends, first + step - adjacency.reach, last + step + adjacency.reach
        )
        a.append(window + 1)
        b.append(node[run])
    return join(inner.size + 1, np.concatenate(a), np.concatenate(b))[0] - 1
