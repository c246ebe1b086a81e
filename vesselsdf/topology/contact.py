"""Contact of a voxel with the voxels that are there before it, as a 26-bit code, and what the voxel changes by it.

The neighbours come in the order 6 across faces, 12 across edges, 8 across corners. All neighbours are numbered by that
order, and a set of them is an integer with one bit for each. Kernels are compiled by numba.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int32

from vesselsdf.compiled import inner

OUT = np.iinfo(np.int32).max
"""Key of voxels that never enter: padding, and what lies beyond the band."""

# Neighbours: 6 across faces, 12 across edges, 8 across corners, and which of them touch each other.
OFFSETS = np.array(sorted(np.ndindex(3, 3, 3), key=lambda p: (sum(abs(q - 1) for q in p), p)))[1:] - 1
TOUCH = (np.abs(OFFSETS[None] - OFFSETS[:, None]).max(axis=2) == 1).astype(np.int64) @ (1 << np.arange(26))
"""For each neighbour the set of neighbours that it touches."""


def _cells(dimensions: int) -> np.ndarray:
    """For each neighbour across a cell with that many zero offsets: which neighbours hold that cell."""
    cells = OFFSETS[(OFFSETS == 0).sum(axis=1) == dimensions]
    inside = ((OFFSETS[None] == 0) | (OFFSETS[None] == cells[:, None])).all(axis=2)
    return inside.astype(np.int64) @ (1 << np.arange(26))


EDGE_HOLDERS = _cells(1)  # (12,) sets of 3 neighbours: the one across the edge, and two across faces
CORNER_HOLDERS = _cells(0)  # (8,) sets of 7 neighbours
# The two faces on both sides of each edge, and its two corners.
EDGE_FACES = np.array([[k for k in range(6) if holders >> k & 1] for holders in EDGE_HOLDERS])
EDGE_CORNERS = np.array(
    [[k for k in range(8) if CORNER_HOLDERS[k] >> (6 + edge) & 1] for edge in range(12)]
)  # fmt: skip


@lru_cache(maxsize=1)
def contact_table() -> np.ndarray:
    """For each set of covered faces and edges neighbours (18 bits): `covered corners | d << 8 | (d - 1 + F - E) << 16`.

    `F` and `E` are the faces and edges that belong to `K`. With its corners `V` the Euler number of `K` is `V - E + F =
    c - (d - 1)`, also for an empty and for a whole contact.
    """
    codes = np.arange(1 << 18, dtype=np.int32)

    def covered(holders: np.ndarray) -> Int32[np.ndarray, " n"]:
        """The cells that one of their holders covers, as bits."""
        bits = np.zeros_like(codes)
        for k, holder in enumerate(holders & 0x3FFFF):
            bits |= (codes & np.int32(holder) != 0).astype(np.int32) << k
        return bits

    # A free edge joins its two faces; covered faces have none and would each count as a part.
    edges, faces = covered(EDGE_HOLDERS), np.bitwise_count(codes & 63).astype(np.int32)
    rest = parts_of_faces()[~edges & 0xFFF] - faces
    return covered(CORNER_HOLDERS) | rest << 8 | (rest - 1 + faces - np.bitwise_count(edges)) << 16


def parts_of_faces() -> Int32[np.ndarray, " n"]:
    """Into how many parts the six faces fall, for each set of edges that join their two faces."""
    joining = np.arange(1 << 12)[:, None] >> np.arange(12) & 1 == 1
    group = np.tile(np.arange(6, dtype=np.int32), (1 << 12, 1))
    for _ in range(4):  # enough to reach around the cube
        for edge, (a, b) in enumerate(EDGE_FACES):
            joined = joining[:, edge]
            group[joined, a] = group[joined, b] = np.minimum(group[joined, a], group[joined, b])
    return (group == np.arange(6)).sum(axis=1, dtype=np.int32)


@inner
def contact(keys, voxel, steps):
    """Code of the neighbours that are earlier than a voxel."""
    key, code = keys[voxel], np.int64(0)
    for k in range(26):
        other = keys[voxel + steps[k]]
        code |= int(other < key or (other == key and steps[k] < 0)) << k
    return code


@inner
def parts(code, table):
    """(c, d) of a contact."""
    entry = table[code & 0x3FFFF]
    corners = (entry & 255) | (code >> 18)
    corners = corners - (corners >> 1 & 0x55)
    corners = (corners & 0x33) + (corners >> 2 & 0x33)
    return (entry >> 16) + ((corners + (corners >> 4)) & 15), entry >> 8 & 255


@inner
def first_bit(code):
    """Position of the lowest bit."""
    k = 0
    while not code >> k & 1:
        k += 1
    return k


@inner
def lowest(keys, voxel, code, steps):
    """The earliest of the neighbours in a code."""
    best = first_bit(code)
    for k in range(best + 1, 26):
        if code >> k & 1:
            a, b = keys[voxel + steps[k]], keys[voxel + steps[best]]
            if a < b or (a == b and steps[k] < steps[best]):
                best = k
    return best


@inner
def face_part(code, start):
    """The uncovered faces that are joined to one of them across uncovered edges."""
    part, before = 1 << start, 0
    while part != before:
        before = part
        for edge in range(12):
            if not code & EDGE_HOLDERS[edge]:
                both = 1 << EDGE_FACES[edge, 0] | 1 << EDGE_FACES[edge, 1]
                if part & both:
                    part |= both
    return part


@inner
def spanning_tree(rest, root, tree):
    """The neighbours of a code that are joined to a root, by distance: fills `tree`, from 26 on with their parents."""
    tree[0] = root
    rest &= ~(1 << root)
    first, last = 0, 1
    while first < last:
        here = tree[first]
        first += 1
        fresh = TOUCH[here] & rest
        rest &= ~fresh
        while fresh:
            k = first_bit(fresh)
            fresh &= fresh - 1
            tree[last], tree[last + 26] = k, here
            last += 1
    return last, rest
