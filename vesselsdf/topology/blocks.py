"""Betti numbers of a volume from its blocks, one at a time and on any number of workers, equal to those of the whole.

`partial` sums up one block, `merge` two summaries, `result` reads the Betti numbers off the last one:

    summaries = [partial(mask[box], origin) for each block]      # anywhere, in any order; no halo
    result(functools.reduce(merge, summaries), mask.shape)       # or along any tree

A block is read without a halo: each voxel by one worker only. A summary holds a few numbers and what lies on the
surface of its blocks, in runs, so its size follows the vessel in the surface and the lines of the surface, not the
volume; what two blocks share becomes inner and is dropped when they are merged.

**What a summary is.** Let `R` be a set of voxels (the blocks merged so far), `V` the vessel in it, `X` the union of the
closed voxels of `V`, and the *surface* of `R` all unit squares between a voxel of `R` and one outside. `S(R)` consists
of: the number of voxels; the Euler number of `X`; how many 26-components of `V` and 6-components of `R - V` keep away
from the surface; every square of the surface with the background component behind it, or none if a vessel voxel is
behind it; all edges and points of `X` on the surface with their vessel component. Components are numbered by their
first place, so `S(R)` is a function of `R` and the mask alone.

**Theorem.** `merge(S(A), S(B)) = S(A + B)` for disjoint `A`, `B`. So merging is commutative and associative because
union is, and after all blocks it is `S` of the whole, whatever the blocks and the order. *Proof.*

- *Surface.* A square has two sides. It is on the surface of `A + B` if it is on just one of the two surfaces, and inner
  if it is on both. An edge or point of `X` is on a surface if one of the squares around it is: of the four or eight
  voxels around it some are in `R`, not all, and they are connected through those squares.
- *Euler number.* `X_(A+B) = X_A + X_B`, so the Euler number is that of `X_A` plus that of `X_B` less that of their
  common cells. A common cell has voxels of `A` and voxels of `B` around it, so it is on both surfaces: common points
  and edges are those in both lists, common squares those with vessel behind them on both sides.
- *Vessel.* Two vessel voxels are 26-adjacent if they share a point. One of `A` and one of `B` share it on both
  surfaces; all voxels of one part that share a point are of one component. So the components of `A + B` are those of
  the graph that joins two components where a common point carries both.
- *Background.* Voxels of `A` and `B` are 6-adjacent if they share a square, which is on both surfaces: the same with
  common squares that have background on both sides.

At the end all background at the surface of the volume is joined by the padding, so `beta2` is the number of background
components that keep away from it, and `beta1 = beta0 + beta2 - chi`.

**Missing or doubled blocks.** The surface that merging leaves is always that of the voxels covered an odd number of
times. If it is the surface of the box, these are the voxels of the box; if the numbers of voxels add up to that of the
box too, each is covered once. `result` checks both, so it raises an error for any other set of blocks.

The innermost functions, called many times for a block, are exempt from the type checks that tests switch on.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Int32, Int64, Shaped

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import SIX, TWENTY_SIX, Adjacency, as_mask, euler_of_words, join, join_runs, pack, runs

# A point, edge or square of the lattice is one number: its kind, and the three coordinates of its lowest corner with 20
# bits each. They count from 1, so that the square below the first one has a number, which no surface holds. The kind of
# an edge is the axis along it, that of a square the axis across it.
BITS = 20
LARGEST = 2**BITS - 3
POINT = 3
AXES = np.eye(3, dtype=np.int64)

# What a square of a surface has behind it, other than a background component; and what lies off the surface.
VESSEL, NOTHING = -1, -2


@dataclass(frozen=True)
class Summary:
    """What is known of the voxels in some blocks, as plain arrays; see the module for their meaning.

    counts: (4,), voxels, Euler number, vessel components and background components that keep away from the surface.
    squares: (n, 2), the surface in runs `[first, last)` of numbers of squares, sorted. behind: (n,), the background
    component behind each run, from 0, or -1 for vessel. cells: (m,), numbers of the edges and points of vessel on the
    surface, sorted. component: (m,), their vessel component, from 0.
    """

    counts: Int64[np.ndarray, "4"]
    squares: Int64[np.ndarray, "n 2"]
    behind: Int32[np.ndarray, " n"]
    cells: Int64[np.ndarray, " m"]
    component: Int32[np.ndarray, " m"]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, for `numpy.savez(file, **summary.arrays())`, or for JSON with `.tolist()` of each."""
        return dict(vars(self))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Summary":
        """The summary from its arrays or lists by name, as an opened npz file or parsed JSON holds them.

        Raises InputError where one is missing, holds anything but integers, or has the wrong shape.

        >>> summary = partial(np.ones((2, 2, 2), bool), (0, 0, 0))
        >>> again = Summary.from_arrays({name: array.tolist() for name, array in summary.arrays().items()})
        >>> all(np.array_equal(array, again.arrays()[name]) for name, array in summary.arrays().items())
        True
        """
        found = {}
        for name, like in EMPTY.arrays().items():
            if name not in arrays:
                raise InputError(f"The summary of a block has no {name!r}; give what Summary.arrays() gave.")
            array = np.asarray(arrays[name])
            if array.size == 0:
                array = like[:0]
            if array.dtype.kind not in "iu" or array.ndim != like.ndim or array.shape[1:] != like.shape[1:]:
                raise InputError(
                    f"{name!r} in the summary of a block has dtype {array.dtype} and shape {array.shape}; "
                    "give what Summary.arrays() gave."
                )
            found[name] = array.astype(like.dtype)
        lengths = {name: len(array) for name, array in found.items()}
        if (lengths["counts"], lengths["squares"], lengths["cells"]) != (4, lengths["behind"], lengths["component"]):
            raise InputError(f"The arrays in the summary of a block have lengths {lengths}, which do not fit together.")
        return cls(**found)


# The summary of no block: merging with it changes nothing.
EMPTY = Summary(
    np.zeros(4, np.int64),
    np.zeros((0, 2), np.int64),
    np.zeros(0, np.int32),
    np.zeros(0, np.int64),
    np.zeros(0, np.int32),
)


def betti_numbers_in_blocks(mask: Any, block: int = 256) -> tuple[int, int, int]:
    """`betti_numbers` of a mask that need not fit into memory, read in cubes of `block` voxels along each axis.

    mask: (X, Y, Z), booleans or integers in anything with a `shape` and slices: an array, a memory map, a Zarr array.

    >>> betti_numbers_in_blocks(np.pad(np.zeros((3, 3, 3), bool), 1, constant_values=True), block=2)
    (1, 0, 1)
    """
    if block < 1 or len(mask.shape) != 3 or 0 in mask.shape:
        raise InputError(
            f"mask has shape {tuple(mask.shape)} and block is {block}; give a 3D mask with voxels, and a block from 1."
        )
    origins = itertools.product(*(range(0, n, block) for n in mask.shape))
    summaries = (partial(np.asarray(mask[tuple(slice(o, o + block) for o in at)]), at) for at in origins)
    return result(functools.reduce(merge, summaries, EMPTY), mask.shape)


def partial(mask: Shaped[np.ndarray, "..."], origin: Sequence[int]) -> Summary:
    """The summary of one block of a mask (x, y, z), without a halo; origin: index of its first voxel in the volume.

    Raises InputError for what is no 3D mask, and where the block does not lie between index 0 and 2^20 - 3.

    >>> mask = np.ones((4, 4, 6), bool)
    >>> halves = partial(mask[:, :, :2], (0, 0, 0)), partial(mask[:, :, 2:], (0, 0, 2))
    >>> result(merge(*halves), mask.shape)
    (1, 0, 0)
    """
    mask = as_mask(mask)
    start = np.asarray(origin)
    if start.shape != (3,) or start.dtype.kind not in "iu" or start.min() < 0 or max(start + mask.shape) > LARGEST:
        raise InputError(
            f"A block of shape {mask.shape} has origin {tuple(origin)}; give three integers from 0, the index of its "
            f"first voxel in a volume of at most {LARGEST} voxels along an axis."
        )
    vessel, background = Parts(mask, TWENTY_SIX), Parts(~mask, SIX)
    squares, behind, cells, component = [], [], [], []
    for side in sides(mask.shape):
        layer = np.take(mask, side.depth, side.axis)
        first, length = line_runs(layer)
        voxels = side.voxels(first)
        squares.append(run_ends(side.axis, voxels + start + side.step, length))
        label = np.full(len(voxels), VESSEL, np.int32)
        empty = ~layer[tuple(first.T)]
        label[empty] = background.at(voxels[empty])
        behind.append(label)

        voxels = side.voxels(np.argwhere(layer))
        lowest = voxels + start + side.step
        (i, along_i), (j, along_j) = ((axis, AXES[axis]) for axis in side.others)
        cells += [cell_numbers(i, lowest), cell_numbers(i, lowest + along_j)]
        cells += [cell_numbers(j, lowest), cell_numbers(j, lowest + along_i)]
        cells += [cell_numbers(POINT, lowest + step) for step in (0 * along_i, along_i, along_j, along_i + along_j)]
        component += [vessel.at(voxels)] * 8
    all_cells, where = np.unique(np.concatenate(cells), return_index=True)
    inside, of_cells = renumbered(vessel.count, np.concatenate(component)[where])
    enclosed, of_squares = renumbered(background.count, np.concatenate(behind))
    counts = np.array([mask.size, euler_of_words(vessel.words), inside, enclosed], np.int64)
    return Summary(counts, np.concatenate(squares), of_squares, all_cells, of_cells)


def merge(a: Summary, b: Summary) -> Summary:
    """The summary of all blocks in `a` and `b`, which need not touch, and must not overlap (`result` would tell)."""
    cuts = np.unique(np.concatenate([a.squares, b.squares]))
    first, last = cuts[:-1], cuts[1:]
    of_a, of_b = (np.append(s.behind, np.int32(NOTHING))[run_at(s.squares, first)] for s in (a, b))
    both_vessel = (of_a == VESSEL) & (of_b == VESSEL)
    both_background = (of_a >= 0) & (of_b >= 0)
    voids, table_a, table_b = joined(a.behind, b.behind, of_a[both_background], of_b[both_background])
    once = (of_a == NOTHING) != (of_b == NOTHING)
    squares, label = coalesced(first[once], last[once], np.maximum(table_a[of_a], table_b[of_b])[once])
    enclosed, behind = renumbered(voids, label)

    common, in_a, in_b = np.intersect1d(a.cells, b.cells, assume_unique=True, return_indices=True)
    parts, table_a, table_b = joined(a.component, b.component, a.component[in_a], b.component[in_b])
    cells, where = np.unique(np.concatenate([a.cells, b.cells]), return_index=True)
    component = np.concatenate([table_a[a.component], table_b[b.component]])[where]
    left = on_surface(cells, squares)
    inside, component = renumbered(parts, component[left])

    points = int(np.count_nonzero(common >> (3 * BITS) == POINT))
    common_euler = points - (len(common) - points) + int((last - first)[both_vessel].sum())
    counts = a.counts + b.counts + np.array([0, -common_euler, inside, enclosed])
    return Summary(counts, squares, behind, cells[left], component)


def result(summary: Summary, shape: Sequence[int]) -> tuple[int, int, int]:
    """`(beta0, beta1, beta2)` of the whole mask of that shape, 26/6 and padded by background, from all its blocks.

    Raises InputError where the blocks do not cover each voxel of the shape exactly once.
    """
    voxels, euler, inside, enclosed = summary.counts.tolist()
    wanted = []
    for side in sides(shape):
        lines, length = (shape[other] for other in side.others)
        begins = side.voxels(np.stack([np.arange(lines), np.zeros(lines, np.int64)], axis=1))
        wanted.append(run_ends(side.axis, begins + side.step, np.full(lines, length)))
    first, last = summary.squares.T
    covered, _ = coalesced(first, last, np.zeros(len(first), np.int32))
    if voxels != np.prod(shape, dtype=np.int64) or not np.array_equal(covered, np.concatenate(wanted)):
        raise InputError(
            f"The blocks have {voxels} voxels and do not cover a volume of shape {tuple(shape)} exactly once; "
            "merge the summaries of all blocks, each of them once."
        )
    beta0 = inside + len(np.unique(summary.component))
    return beta0, beta0 + enclosed - euler, enclosed


class Parts:
    """The components of the voxels in a block."""

    def __init__(self, mask: Bool[np.ndarray, "x y z"], adjacency: Adjacency):
        self.words, self.corner = pack(mask)
        self.starts, ends, self.shape = runs(self.words, mask.shape[2])
        self.count, self.of_run = 0, np.zeros(0, np.int32)
        if self.starts.size:
            self.count, self.of_run = join_runs(self.starts, ends, self.shape, adjacency)

    def at(self, voxels: Int64[np.ndarray, "n 3"]) -> Int32[np.ndarray, " n"]:
        """The component of each of these voxels, from 0."""
        x, y, z = voxels.T
        flat = ((x - self.corner[0]) * self.shape[1] + y - self.corner[1]) * self.shape[2] + z + 1
        return self.of_run[np.searchsorted(self.starts, flat, side="right") - 1]


class Side(NamedTuple):
    """One of the six sides of a block: the axis across it, the two others, and its layer of voxels.

    `step` leads from the index of a voxel in the volume to the lowest corner of its square, counted from 1.
    """

    axis: int
    others: tuple[int, int]
    depth: int
    step: Int64[np.ndarray, "3"]

    def voxels(self, across: Int64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "n 3"]:
        """Indices in the block of the voxels at these places of the layer."""
        return np.insert(across, self.axis, self.depth, axis=1)


def sides(shape: Sequence[int]) -> Iterator[Side]:
    """The sides of a block, in the order of the numbers of their squares."""
    for axis, others in enumerate(((1, 2), (0, 2), (0, 1))):
        yield Side(axis, others, 0, np.ones(3, np.int64))
        yield Side(axis, others, shape[axis] - 1, np.ones(3, np.int64) + AXES[axis])


def line_runs(layer: Bool[np.ndarray, "a b"]) -> tuple[Int64[np.ndarray, "n 2"], Int64[np.ndarray, " n"]]:
    """The runs of equal voxels along the lines of a layer: place of the first one, and length."""
    change = np.ones(layer.shape, bool)
    change[:, 1:] = layer[:, 1:] != layer[:, :-1]
    flat = np.flatnonzero(change)
    return np.stack(np.divmod(flat, layer.shape[1]), axis=1), np.diff(flat, append=layer.size)


@no_type_check
def cell_numbers(kind: int, place: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """The numbers of points and edges."""
    return ((kind << BITS | place[:, 0]) << BITS | place[:, 1]) << BITS | place[:, 2]


@no_type_check
def square_numbers(axis: int, place: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
    """The numbers of squares across an axis; they count on along a line of the plane."""
    return cell_numbers(axis, place[:, [axis, *(other for other in range(3) if other != axis)]])


def run_ends(axis: int, place: Int64[np.ndarray, "n 3"], length: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 2"]:
    """Runs of squares `[first, last)` from the place of the first."""
    first = square_numbers(axis, place)
    return np.stack([first, first + length], axis=1)


@no_type_check
def run_at(runs: Int64[np.ndarray, "n 2"], numbers: Int64[np.ndarray, "*m"]) -> Int64[np.ndarray, "*m"]:
    """Index of the run that holds each number, -1 where there is none."""
    index = np.searchsorted(runs[:, 0], numbers, side="right") - 1
    return np.where(numbers < np.append(runs[:, 1], 0)[index], index, -1)


def on_surface(cells: Int64[np.ndarray, " n"], squares: Int64[np.ndarray, "m 2"]) -> Bool[np.ndarray, " n"]:
    """Whether any square of a surface touches each point or edge."""
    kinds = cells >> (3 * BITS)
    places = np.stack([cells >> shift & (2**BITS - 1) for shift in (2 * BITS, BITS, 0)], axis=1)
    found = []
    for kind in range(4):  # in the order of their numbers
        place = places[np.searchsorted(kinds, kind) : np.searchsorted(kinds, kind, side="right")]
        around = []
        for axis in (axis for axis in range(3) if axis != kind):  # a square across an edge does not hold it
            number = square_numbers(axis, place)
            higher, lower = (other for other in range(3) if other != axis)
            back_higher, back_lower = (0, 0 if higher == kind else 1 << BITS), (0, 0 if lower == kind else 1)
            around += [number - i - j for i in back_higher for j in back_lower]
        found.append((run_at(squares, np.stack(around)) >= 0).any(axis=0))
    return np.concatenate(found)


def coalesced(
    first: Int64[np.ndarray, " n"], last: Int64[np.ndarray, " n"], label: Int32[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, "m 2"], Int32[np.ndarray, " m"]]:
    """Runs with those that touch and have the same label put together."""
    begins = np.ones(len(first), bool)
    begins[1:] = (first[1:] != last[:-1]) | (label[1:] != label[:-1])
    ends = np.append(begins[1:], True)[: len(first)]
    return np.stack([first[begins], last[ends]], axis=1), label[begins]


def joined(
    labels_a: Int32[np.ndarray, " n"],
    labels_b: Int32[np.ndarray, " m"],
    same_a: Int32[np.ndarray, " k"],
    same_b: Int32[np.ndarray, " k"],
) -> tuple[int, Int32[np.ndarray, " c"], Int32[np.ndarray, " d"]]:
    """Components of two parts when `same_a` are `same_b`: their number, and a table of new labels for each part.

    The tables end with NOTHING and VESSEL, so that these keep their value when they are looked up.
    """
    count_a, count_b = (int(labels.max(initial=-1)) + 1 for labels in (labels_a, labels_b))
    count, of = join(count_a + count_b, same_a, same_b + count_a) if count_a + count_b else (0, np.zeros(0, np.int32))
    constant = np.array([NOTHING, VESSEL], np.int32)
    return count, np.concatenate([of[:count_a], constant]), np.concatenate([of[count_a:], constant])


def renumbered(count: int, labels: Int32[np.ndarray, " n"]) -> tuple[int, Int32[np.ndarray, " n"]]:
    """How many of `count` components do not occur; the labels counted from 0 in their order (VESSEL is none)."""
    found, first, index = np.unique(labels, return_index=True, return_inverse=True)
    first[found < 0] = -1
    place = np.argsort(np.argsort(first)) - np.count_nonzero(found < 0)
    return count - int(np.count_nonzero(found >= 0)), place[index].astype(np.int32)
