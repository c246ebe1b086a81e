"""The sublevel sets of a field as voxels that enter one by one: what each adds, and which of them belong together.

`{sdf <= t}` is a union of closed voxels (26-connected vessel, 6-connected background; the T-construction of cubical
complexes). Voxels enter by rising value, those of equal value in C order; only voxels below a limit enter at all, and
only the box around them is looked at (or a given one that holds them). See `vesselsdf.topology.morse` for the method.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from vesselsdf.errors import InputError

Columns = tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " n"]]


@dataclass(frozen=True)
class Components:
    """Bars of components: voxels of birth, of death, and the births of the elder ones they merge into; and 1-cells.

    The 1-cells of critical voxel `i` are `starts[i]` to `starts[i + 1]`; `cells` holds the rank of each among those
    that close a loop (-1: it joins two components), `loops` those by rank, `sides` the voxels they lead to.
    """

    born: Int64[np.ndarray, " b"]
    dies: Int64[np.ndarray, " b"]
    into: Int64[np.ndarray, " b"]
    starts: Int64[np.ndarray, " v"]
    cells: Int64[np.ndarray, " c"]
    loops: Int64[np.ndarray, " l"]
    sides: Int64[np.ndarray, " c"]


@dataclass(frozen=True)
class Cavities:
    """Bars of cavities: voxels of birth, of death (outside what enters: of a component of that), and the later deaths.

    `fillings` are the critical voxels of the 2-cells that fill loops, latest first, each around the faces `around`.
    """

    born: Int64[np.ndarray, " b"]
    dies: Int64[np.ndarray, " b"]
    into: Int64[np.ndarray, " b"]
    fillings: Int64[np.ndarray, " f"]
    around: Int64[np.ndarray, " f"]


@dataclass(frozen=True)
class Loops:
    """Loops by rank: voxels of birth and death (-1: not filled below the limit), and where the reduced column is.

    The column of a loop that is filled is `pool[first:last]`: the ranks of a cycle that bounds from its death on.
    """

    born: Int64[np.ndarray, " l"]
    dies: Int64[np.ndarray, " l"]
    first: Int64[np.ndarray, " l"]
    last: Int64[np.ndarray, " l"]
    pool: Int64[np.ndarray, " n"]


class Filtration:
    """The voxels of a finite field (X, Y, Z) below a limit, in the order in which they enter.

    Voxels are flat indices into the box around them, padded by one voxel. `voxels` are the critical ones in flat order,
    `codes` the contacts with which they enter, `order` how they follow each other in time.
    """

    def __init__(
        self,
        field: Shaped[np.ndarray, "x y z"],
        limit: float | int = np.inf,
        box: tuple[slice, slice, slice] | None = None,
    ):
        from vesselsdf.topology import contact, morse

        self.field = field
        self.box = box_below(field, limit) if box is None else box
        self.corner = np.array([part.start for part in self.box])
        self.shape = tuple(part.stop - part.start + 2 for part in self.box)
        size = int(np.prod(self.shape))
        if size > contact.OUT:
            raise InputError(f"The field has a box of {size} voxels below {limit}; cut it into blocks below 2^31.")
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        self.steps = contact.OFFSETS @ strides
        self.keys = entry_keys(field[self.box], limit, contact.OUT)
        self.parent = np.empty(size, np.int32)
        room = size // 64 + 1024
        while True:
            voxels, codes = np.empty(room, np.int64), np.empty(room, np.int64)
            room = morse.scan(self.keys, self.steps, contact.contact_table(), self.parent, voxels, codes)
            if room <= voxels.size:
                break
        self.voxels, self.codes = voxels[:room].copy(), codes[:room].copy()
        self.order = np.argsort(self.keys[self.voxels], kind="stable")

    @cached_property
    def parts(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """`c` and `d` of the critical voxels: parts of their contacts, and of the rest of their surfaces."""
        from vesselsdf.topology import contact

        entry = contact.contact_table()[self.codes & 0x3FFFF].astype(np.int64)
        corners = np.bitwise_count(entry & 255 | self.codes >> 18).astype(np.int64)
        return (entry >> 16) + corners, entry >> 8 & 255

    @cached_property
    def components(self) -> "Components":
        """The components and how they merge."""
        from vesselsdf.topology import morse

        starts = np.concatenate([[0], np.cumsum(np.maximum(self.parts[0] - 1, 0))])
        born, dies, into, cells, loops, sides = (np.empty(starts[-1], np.int64) for _ in range(6))
        bars, count = morse.merge_components(
            self.keys, self.steps, self.parent, self.voxels, self.codes, self.order, starts,
            np.empty(52, np.int64), born, dies,
            into, cells, loops, sides,
        )  # fmt: skip
        return Components(born[:bars], dies[:bars], into[:bars], starts, cells, loops[:count], sides)

    @cached_property
    def cavities(self) -> "Cavities":
        """The cavities, by duality the components of the background, and how those merge."""
        from vesselsdf.topology import morse

        _ = self.components  # which needs the descents, that now make room for the ascents
        morse.ascend(self.keys, self.steps, self.parent, self.shape[2], self.shape[1] * self.shape[2])
        free = self.parts[1]
        # Of equal keys the last neighbour is the latest; the faces come in the order of their steps.
        highest = 5 - np.argmax(self.keys[self.voxels[:, None] + self.steps[5::-1]], axis=1)
        born, dies, into, fillings, around = (np.empty(np.maximum(free - 1, 0).sum(), np.int64) for _ in range(5))
        bars, count = morse.merge_cavities(
            self.keys, self.steps, self.parent, self.voxels, self.codes, self.order, free, highest, born, dies, into,
            fillings, around,
        )  # fmt: skip
        return Cavities(born[:bars], dies[:bars], into[:bars], fillings[:count], around[:count])

    @cached_property
    def loops(self) -> "Loops":
        """The loops and what fills them."""
        from vesselsdf.topology import morse

        merged, hollow = self.components, self.cavities
        fillings, around = hollow.fillings[::-1].copy(), hollow.around[::-1].copy()
        self.parent.fill(0)  # the forests are done with: room for a chain

        begin, heads, sides = self.outlines(fillings, around)

        def settle(*room: Any) -> int:
            return morse.boundaries(
                begin, heads, sides, self.keys, self.steps, self.voxels, merged.starts, merged.cells,
                merged.loops.size, self.parent, *room,
            )  # fmt: skip

        pivots, first, last, pool = self.reduced(*self.settled(settle, begin.size - 1))
        if (pivots < 0).any():
            raise AssertionError("a voxel that fills a loop has found none to fill")
        filled = np.full(merged.loops.size, -1, np.int64)
        filled[pivots] = self.voxels[fillings]
        return Loops(self.heads[merged.loops], filled, first, last, pool)

    def outlines(
        self, critical: Int64[np.ndarray, " f"], around: Int64[np.ndarray, " f"]
    ) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Loops of edges between earlier neighbours of critical voxels, each around some uncovered faces: begin, ends.

        Each edge of the voxel on the border of those faces, and each of its corners, is held by an earlier neighbour
        (the first of them stands for all), and those follow each other.
        """
        from vesselsdf.topology.contact import CORNER_HOLDERS, EDGE_CORNERS, EDGE_FACES, EDGE_HOLDERS

        def first_holder(holders: np.ndarray) -> Int64[np.ndarray, "f k"]:
            """The first earlier neighbour that holds each cell; meaningless where none does."""
            held = self.codes[critical, None] & holders
            return np.bitwise_count((held & -held) - 1).astype(np.int64)

        one, other = (around[:, None] >> EDGE_FACES[:, side] & 1 for side in (0, 1))
        border = (one != other) & (self.codes[critical, None] & EDGE_HOLDERS != 0)
        by, end = first_holder(EDGE_HOLDERS)[:, :, None], first_holder(CORNER_HOLDERS)[:, EDGE_CORNERS]
        column, edge, corner = np.nonzero(border[:, :, None] & (by != end))
        voxel = self.voxels[critical[column]]
        heads, sides = voxel + self.steps[by[column, edge, 0]], voxel + self.steps[end[column, edge, corner]]
        return np.searchsorted(column, np.arange(critical.size + 1)), heads, sides

    def settled(
        self, settle: Callable[..., int], columns: int
    ) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " n"]]:
        """Columns over the ranks of the loops, as `settle` finds them: where they begin, and their ranks, ascending."""
        loops = self.components.loops.size
        # No voxel waits twice; memory is only taken where it is written.
        heap = np.empty(np.count_nonzero(self.keys != self.keys[0]) + 2, np.int64)
        heap[0] = 0
        tree = np.empty(52, np.int64)
        found, ends, column = np.empty(4 * loops + 1024, np.int64), np.zeros(columns, np.int64), 0
        while (column := settle(heap, tree, found, ends, column)) < columns:
            found = np.concatenate([found, np.empty_like(found)])
        rows = found[: ends[-1] if columns else 0]
        of = np.repeat(np.arange(columns), np.diff(ends, prepend=0))
        return np.concatenate([[0], ends]), rows[np.lexsort((rows, of))]

    def reduced(self, begin: Int64[np.ndarray, " b"], ranks: Int64[np.ndarray, " n"]) -> tuple[np.ndarray, ...]:
        """Pivots of the columns, and for each pivot where its reduced column starts and ends in a pool of ranks."""
        from vesselsdf.topology import morse

        loops = self.components.loops.size
        pivots = np.empty(begin.size - 1, np.int64)
        first, last = np.zeros(loops, np.int64), np.zeros(loops, np.int64)
        pool, used, column = np.empty(4 * loops + 1024, np.int64), 0, 0
        while True:
            column, used = morse.reduce_columns(begin, ranks, loops, pivots, first, last, pool, used, column)
            if column == pivots.size:
                return pivots, first, last, pool[:used].copy()
            pool = np.concatenate([pool, np.empty_like(pool)])

    @cached_property
    def heads(self) -> Int64[np.ndarray, " n"]:
        """The voxel of each 1-cell."""
        return np.repeat(self.voxels, np.diff(self.components.starts))

    def basins(self) -> Int32[np.ndarray, " n"]:
        """For each voxel that enters the birth voxel to which steepest descents lead."""
        from vesselsdf.topology import contact, morse

        parent, nothing = np.zeros_like(self.keys), np.empty(0, np.int64)
        morse.scan(self.keys, self.steps, contact.contact_table(), parent, nothing, nothing)
        return roots(parent)

    def background_basins(self) -> Int32[np.ndarray, " n"]:
        """For each voxel the voxel to which steepest ascents lead; outside what enters the first of its component."""
        from vesselsdf.topology import morse

        parent = np.empty_like(self.keys)
        morse.ascend(self.keys, self.steps, parent, self.shape[2], self.shape[1] * self.shape[2])
        return roots(parent)

    @property
    def unmerged(self) -> Int64[np.ndarray, " n"]:
        """The birth voxels of components that do not merge into an elder one below the limit, ascending."""
        return np.setdiff1d(self.voxels[self.codes == 0], self.components.born, assume_unique=True)

    @property
    def first(self) -> int:
        """The voxel that enters first."""
        return int(self.voxels[self.order[0]])

    def indices(self, voxels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 3"]:
        """Voxel indices into the field."""
        return np.stack(np.unravel_index(voxels, self.shape), axis=-1) - 1 + self.corner

    def values(self, voxels: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
        """Values of the field, as float64."""
        return self.field[tuple(self.indices(voxels).T)].astype(np.float64)


def roots(parent: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The roots of a forest."""
    while True:
        above = parent[parent]
        if np.array_equal(above, parent):
            return parent
        parent = above


def box_below(field: Shaped[np.ndarray, "x y z"], limit: float | int) -> tuple[slice, slice, slice]:
    """The box around the voxels below a limit; empty where there are none."""
    # A NumPy scalar: the comparison must not round the limit to the precision of the field.
    below = np.float64(limit)
    planes = np.array([(plane < below).any() for plane in field])
    first, last = int(planes.argmax()), len(planes) - int(planes[::-1].argmax())
    if not planes.any():
        return slice(0, 0), slice(0, 0), slice(0, 0)
    flat = np.zeros(field.shape[1:], bool)
    for plane in field[first:last]:
        flat |= plane < below
    y, z = (np.flatnonzero(flat.any(axis=axis)) for axis in (1, 0))
    return slice(first, last), slice(int(y[0]), int(y[-1]) + 1), slice(int(z[0]), int(z[-1]) + 1)


def entry_keys(field: Shaped[np.ndarray, "x y z"], limit: float | int, never: int) -> Int32[np.ndarray, " n"]:
    """Flat integers in the order of the values, of the field padded by one voxel; `never` from the limit on.

    Read as integers, the bits of non-negative float32 numbers have their order, those of negative ones the reverse.
    Values that float32 cannot hold are replaced by their ranks.
    """
    keys = np.full([n + 2 for n in field.shape], never, np.int32)
    ranks = None
    if field.dtype not in (np.float32, np.float16) and not all(
        (plane == plane.astype(np.float32)).all() for plane in field
    ):
        ranks = np.unique(field[field < np.float64(limit)])
    for plane, part in zip(keys[1:-1, 1:-1, 1:-1], field, strict=True):
        below = part < np.float64(limit)
        if ranks is not None:
            plane[below] = np.searchsorted(ranks, part[below])
            continue
        bits = (part.astype(np.float32) + np.float32(0)).view(np.int32)  # + 0 makes zeros alike
        plane[below] = (bits ^ (bits >> 31 & 0x7FFFFFFF))[below]
    return keys.reshape(-1)
