"""Simple points: which voxels can be removed from a set of voxels without any change of topology (26/6).

Strategy: the 3x3x3 neighbourhood of a voxel is one 27-bit number, and a whole array of them is decided at once by
bit-parallel arithmetic. `Voxels` keeps, for each position, the 9 bits of its (y, z) plane, so that a neighbourhood
costs three reads, and a removed voxel nine writes.

The innermost functions, called hundreds of times for a mask, are exempt from the type checks that tests switch on.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int64, UInt32

from vesselsdf.topology.betti import overlaps

CENTRE = np.uint32(1 << 13)
ALL = np.uint32((1 << 27) - 1)


def positions(condition) -> np.uint32:
    """The bits (x + 1) * 9 + (y + 1) * 3 + (z + 1) of all neighbours x, y, z in {-1, 0, 1} that meet a condition."""
    cube = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)]
    return np.uint32(sum(1 << bit for bit, offset in enumerate(cube) if condition(*offset)))


FACES, EDGES, CORNERS = (positions(lambda *p, n=n: sum(map(abs, p)) == n) for n in (1, 2, 3))
# Per axis: bit distance, positions that may move up, positions that may move down, positions in the middle.
AXES = tuple(
    (
        np.uint32(step),
        positions(lambda *p, a=axis: p[a] < 1),
        positions(lambda *p, a=axis: p[a] > -1),
        positions(lambda *p, a=axis: p[a] == 0),
    )
    for axis, step in enumerate((9, 3, 1))
)


def simple(codes: UInt32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether the centre voxel of each neighbourhood is simple for the (26, 6) pair.

    Let `K` be the part of the centre's surface that its vessel neighbours cover. The voxel is simple when `K` is
    contractible: the union of closed voxels then retracts onto what is left without the voxel. `K` is a union of closed
    faces, edges and corners of a cube's surface, a sphere: it is contractible exactly when it is connected and
    `V - E + F = 1`. That is the criterion of Bertrand and Malandain (1994): one 26-component of vessel, and one
    6-component of background in the 18-neighbourhood that touches the centre.

    >>> line = positions(lambda x, y, z: y == z == 0)
    >>> simple(np.array([line & ~positions(lambda x, y, z: x < 0), line])).tolist()
    [True, False]
    """
    neighbours = codes & ~CENTRE
    result = euler_of_contact(neighbours) == 1
    candidates = np.flatnonzero(result)
    result[candidates] = connected(neighbours[candidates])
    return result


@no_type_check
def euler_of_contact(neighbours: UInt32[np.ndarray, " n"]) -> np.ndarray:
    """Euler number of the part of the centre's surface that the neighbours cover, int8.

    A corner of the centre stands at the position of the neighbour that shares only it, and so on; a face neighbour
    covers its face with the edges and corners of that face, so cells spread from the middle of each axis outwards.
    """
    cells = neighbours.copy()
    for step, _, _, middle in AXES:
        inner = cells & middle
        cells |= inner << step
        cells |= inner >> step

    def count(kind: np.uint32) -> np.ndarray:
        return np.bitwise_count(cells & kind).astype(np.int8)

    return count(CORNERS) - count(EDGES) + count(FACES)


@no_type_check
def connected(neighbours: UInt32[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Whether the neighbours of each centre form one 26-component: a flood from the lowest bit reaches all of them."""
    reached = neighbours & (~neighbours + np.uint32(1))
    while True:
        grown = reached.copy()
        for step, up, down, _ in AXES:
            moved = (grown & up) << step
            moved |= (grown & down) >> step
            grown |= moved
        grown &= neighbours
        if np.array_equal(grown, reached):
            return reached == neighbours
        reached = grown


class Voxels:
    """A set of voxels in a padded box that tells the neighbourhoods of its members and from which members are removed.

    `shape` is that of the padded box; members are flat indices (C order) that keep off its outermost layer.
    """

    def __init__(self, shape: tuple[int, int, int], members: Int64[np.ndarray, " n"]):
        self.shape = shape
        self.x_step = shape[1] * shape[2]
        plane = [y * shape[2] + z for y in (-1, 0, 1) for z in (-1, 0, 1)]
        self.offsets = [(offset, np.uint16(1 << bit)) for bit, offset in enumerate(plane)]
        # Way to the neighbour of each bit of a neighbourhood.
        self.steps = np.array([x * self.x_step + offset for x in (-1, 0, 1) for offset in plane])
        self.planes = np.zeros(shape[0] * self.x_step, np.uint16)
        for offset, bit in self.offsets:
            self.planes[members - offset] |= bit

    @no_type_check
    def neighbourhoods(self, voxels: Int64[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
        """The 27-bit neighbourhood of each voxel, itself included."""
        codes = self.planes[voxels + self.x_step].astype(np.uint32)
        codes <<= np.uint32(9)
        codes |= self.planes[voxels]
        codes <<= np.uint32(9)
        codes |= self.planes[voxels - self.x_step]
        return codes

    @no_type_check
    def remove(self, voxels: Int64[np.ndarray, " n"]) -> None:
        """Take distinct members out of the set."""
        for offset, bit in self.offsets:
            self.planes[voxels - offset] &= ~bit


class SparseVoxels:
    """`Voxels` whose memory follows the members and not the box; a neighbourhood costs 27 searches."""

    def __init__(self, shape: tuple[int, int, int], members: Int64[np.ndarray, " n"]):
        self.shape, self.members = shape, members  # rising
        self.present = np.ones(members.size, bool)
        x, y, z = np.indices((3, 3, 3)).reshape(3, -1) - 1
        self.steps = (x * shape[1] + y) * shape[2] + z

    @no_type_check
    def neighbourhoods(self, voxels: Int64[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
        """The 27-bit neighbourhood of each voxel, itself included."""
        codes = np.zeros(voxels.size, np.uint32)
        for bit, step in enumerate(self.steps.tolist()):
            place = np.minimum(np.searchsorted(self.members, voxels + step), self.members.size - 1)
            there = (self.members[place] == voxels + step) & self.present[place]
            codes |= there.astype(np.uint32) << np.uint32(bit)
        return codes

    @no_type_check
    def remove(self, voxels: Int64[np.ndarray, " n"]) -> None:
        """Take distinct members out of the set."""
        self.present[np.searchsorted(self.members, voxels)] = False


VoxelSet = Voxels | SparseVoxels


def adjacent_pairs(voxels: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, "2 m"]:
    """All pairs (i < j) of 26-adjacent voxels, given in C order.

    >>> adjacent_pairs(np.array([[0, 0, 0], [0, 0, 2], [1, 1, 1]])).tolist()
    [[0, 1], [2, 2]]
    """
    if len(voxels) == 0:
        return np.zeros((2, 0), np.int64)
    low = voxels.min(axis=0) - 1
    shape = tuple((voxels.max(axis=0) - low + 2).tolist())
    flat = np.ravel_multi_index(tuple((voxels - low).T), shape)
    pairs = [np.stack(overlaps(flat, flat + 1, flat + 1, flat + 2))]
    for x, y in ((0, 1), (1, -1), (1, 0), (1, 1)):  # the lines of voxels after this one that touch it
        line = flat + (x * shape[1] + y) * shape[2]
        pairs.append(np.stack(overlaps(flat, flat + 1, line - 1, line + 2)))
    return np.concatenate(pairs, axis=1)
