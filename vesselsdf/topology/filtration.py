"""The sublevel sets of a field as voxels that enter one by one: what each adds, and which of them belong together.

`{sdf <= t}` is a union of closed voxels (26-connected vessel, 6-connected background; the T-construction of cubical
complexes). Voxels enter by rising value, those of equal value in C order; only voxels below a limit enter at all, and
only the box around them is looked at. See `vesselsdf.topology.morse` for the method.
"""

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from vesselsdf.errors import InputError

Pairs = tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]


class Filtration:
    """The voxels of a finite field (X, Y, Z) below a limit, in the order in which they enter.

    Voxels are flat indices into the box around them, padded by one voxel. `voxels` are the critical ones in flat order,
    `codes` the contacts with which they enter, `order` how they follow each other in time.
    """

    def __init__(self, field: Shaped[np.ndarray, "x y z"], limit: float | int = np.inf):
        from vesselsdf.topology import contact, morse

        self.field = field
        self.box = box_below(field, limit)
        self.corner = np.array([part.start for part in self.box])
        self.shape = tuple(part.stop - part.start + 2 for part in self.box)
        size = int(np.prod(self.shape))
        if size > contact.OUT:
            raise InputError(f"The field has a box of {size} voxels below {limit}; cut it into blocks below 2^31.")
        strides = np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        self.steps = contact.OFFSETS @ strides
        self.keys = entry_keys(field[self.box], limit, contact.OUT)
        self.parent = np.empty(size, np.int32)
        self.voxels, self.codes = morse.scan(self.keys, self.steps, contact.contact_table(), self.parent)
        self.order = np.argsort(self.keys[self.voxels], kind="stable")

    @cached_property
    def components(self) -> tuple[Any, ...]:
        """What `morse.merge_components` finds: births, deaths, and the 1-cells of the critical voxels."""
        from vesselsdf.topology import contact, morse

        return morse.merge_components(
            self.keys, self.steps, contact.contact_table(), self.parent, self.voxels, self.codes, self.order,
            contact.TOUCH,
        )  # fmt: skip

    @cached_property
    def cavities(self) -> tuple[Any, ...]:
        """What `morse.merge_cavities` finds: births, deaths (of voxels outside: never entered), and the 2-cells."""
        from vesselsdf.topology import contact, morse

        _ = self.components  # which needs the descents, that now make room for the ascents
        morse.ascend(self.keys, self.steps, self.parent, self.shape[2], self.shape[1] * self.shape[2])
        return morse.merge_cavities(
            self.keys, self.steps, contact.contact_table(), self.parent, self.voxels, self.codes, self.order,
            contact.EDGE_HOLDERS, contact.EDGE_FACES,
        )  # fmt: skip

    @cached_property
    def loops(self) -> Pairs:
        """The voxels that close a loop, and the voxels that fill them (-1: none below the limit)."""
        from vesselsdf.topology import morse

        loops, fillings = self.components[4], self.cavities[2][::-1].copy()
        columns, ranks = self.boundaries(fillings, self.cavities[3][::-1].copy())
        pivots = morse.reduce_columns(*columns_mod_2(columns, ranks, fillings.size), loops.size)
        if (pivots < 0).any():
            raise AssertionError("a voxel that fills a loop has found none to fill")
        filled = np.full(loops.size, -1, np.int64)
        filled[pivots] = self.voxels[fillings]
        return loops, filled

    def boundaries(self, fillings: Int64[np.ndarray, " n"], around: Int64[np.ndarray, " n"]) -> Pairs:
        """`morse.boundaries` of 2-cells of this filtration."""
        from vesselsdf.topology import contact, morse

        self.parent.fill(0)
        return morse.boundaries(
            self.keys, self.steps, self.voxels, self.codes, self.components[2], self.components[3], fillings, around,
            self.parent, contact.EDGE_HOLDERS, contact.EDGE_FACES, contact.EDGE_CORNERS, contact.CORNER_HOLDERS,
            contact.TOUCH, contact.SEEN_FROM,
        )  # fmt: skip

    @property
    def euler_changes(self) -> Int64[np.ndarray, " n"]:
        """By how much each critical voxel changes the Euler number when it enters: `d - c` of its contact."""
        from vesselsdf.topology import contact

        entry = contact.contact_table()[self.codes & 0x3FFFF].astype(np.int64)
        corners = np.bitwise_count(entry & 255 | self.codes >> 18).astype(np.int64)
        return (entry >> 8 & 255) - (entry >> 16) - corners

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


def columns_mod_2(
    columns: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, " n"], count: int
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " k"]]:
    """A matrix over Z/2 from its entries, of which equal pairs cancel: where columns begin, and their ascending rows.

    >>> begin, rows = columns_mod_2(np.array([1, 0, 1, 1]), np.array([5, 3, 2, 5]), 2)
    >>> begin.tolist(), rows.tolist()
    ([0, 1, 2], [3, 2])
    """
    order = np.lexsort((rows, columns))
    columns, rows = columns[order], rows[order]
    new = np.ones(rows.size, bool)
    new[1:] = (columns[1:] != columns[:-1]) | (rows[1:] != rows[:-1])
    first = np.flatnonzero(new)
    odd = first[np.diff(np.append(first, rows.size)) % 2 == 1]
    return np.searchsorted(columns[odd], np.arange(count + 1)), rows[odd]
