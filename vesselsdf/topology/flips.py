"""Clusters of voxels that are flipped in a mask, and what each changes in its components, loops and cavities."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int64
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree

from vesselsdf.topology.betti import SIX, TWENTY_SIX, join, join_runs, line_steps, overlaps, pack, runs
from vesselsdf.topology.neighbourhood import CENTRE, Voxels, adjacent_pairs, euler_of_contact

DISTANCE = np.abs(np.indices((3, 3, 3)).reshape(3, -1) - 1).sum(axis=0)
BITS_26, BITS_6 = np.flatnonzero(DISTANCE > 0), np.flatnonzero(DISTANCE == 1)  # of a neighbourhood


@dataclass(frozen=True)
class Box:
    """A box around some voxels, wider by two on each side. `low` is its first voxel; voxels in it are flat indices."""

    low: Int64[np.ndarray, " 3"]
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, mask: Bool[np.ndarray, "x y z"]) -> "Box":
        """Two, so that even the neighbours of the voxels keep off the outermost layer, as `Voxels` needs."""
        low, shape = [], []
        for axis in range(3):
            used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
            low.append(int(used[0]) - 2)
            shape.append(int(used[-1] - used[0]) + 5)
        return cls(np.array(low), (shape[0], shape[1], shape[2]))

    def inside(self, mask: Bool[np.ndarray, "x y z"]) -> Int64[np.ndarray, " n"]:
        """The voxels of a mask in the box, but for its outermost layer, in C order."""
        first = np.maximum(self.low + 1, 0)
        last = np.minimum(self.low + self.shape - 1, mask.shape)
        padded = np.zeros(self.shape, bool)
        target = tuple(slice(a, b) for a, b in zip(first - self.low, last - self.low, strict=True))
        padded[target] = mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        return np.flatnonzero(padded)

    def coordinates(self, voxels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n 3"]:
        """Indices into the whole array; neighbours of its voxels may be beyond the array."""
        return np.stack(np.unravel_index(voxels, self.shape), axis=1) + self.low


@dataclass(frozen=True)
class Clusters:
    """26-connected clusters of voxels of the reference, missing in the prediction, and of extra voxels.

    `voxels` are flat indices in C order, `places` their indices in the whole array, `cluster` tells to which one each
    belongs: first come the `missing` (a number) clusters of missing voxels, then the `extra` ones.
    """

    voxels: Int64[np.ndarray, " n"]
    places: Int64[np.ndarray, "n 3"]
    cluster: Int64[np.ndarray, " n"]
    missing: int
    extra: int

    @classmethod
    def of(cls, box: Box, voxels: Int64[np.ndarray, " n"], reference: Bool[np.ndarray, "x y z"]) -> "Clusters":
        """Clusters in C order of their first voxels."""
        places = box.coordinates(voxels)
        extra = ~reference[tuple(places.T)]
        a, b = adjacent_pairs(places)
        alike = extra[a] == extra[b]
        count, label = join(voxels.size, a[alike], b[alike])
        kind = np.zeros(count, bool)
        kind[label] = extra
        rank = np.argsort(np.argsort(kind, kind="stable"))
        return cls(voxels, places, rank[label], count - int(kind.sum()), int(kind.sum()))

    @property
    def is_missing(self) -> Bool[np.ndarray, " n"]:
        """Whether each voxel is missing in the prediction."""
        return self.cluster < self.missing


@no_type_check
def flip(state: Voxels, voxels: Int64[np.ndarray, " n"]) -> None:
    """Take those of the distinct voxels that are in the set out, and put the others in."""
    for offset, bit in state.offsets:
        state.planes[voxels - offset] ^= bit


@no_type_check
def sublattices(state: Voxels, voxels: Int64[np.ndarray, " n"]) -> np.ndarray:
    """Parities of the three coordinates as one number, 0..7."""
    x, y, z = np.unravel_index(voxels, state.shape)
    return ((x & 1) << 2 | (y & 1) << 1 | (z & 1)).astype(np.uint8)


def agreed(
    state: Voxels, box: Box, both: Bool[np.ndarray, "x y z"], start: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, "x y z"]:
    """The whole prediction after its warp, from what both masks shared at the start (overwritten)."""
    both[tuple(box.coordinates(start).T)] = state.neighbourhoods(start) & CENTRE > 0
    return both


def topological_changes(
    state: Voxels, sites: Clusters, warped: Bool[np.ndarray, "x y z"], box: Box
) -> tuple[Int64[np.ndarray, "k 3"], Bool[np.ndarray, " k"]]:
    """Change of (beta0, beta1, beta2) at each site, and whether it touches what both masks have. Uses `state` up.

    state, warped: the warped prediction, in the box and as a whole.

    Let `I` be what both warped masks have, `U` what either has. Components come from joining the components of `I` and
    the voxels of the sites, in the order in which these enter a growing mask (removal is growth backwards); cavities
    likewise from the background, that is, from the components of the rest of `U`. The change of the Euler number is
    local: a voxel adds one minus the Euler number of its contact. beta1 follows by Euler-Poincare.
    """
    missing, count, n = sites.is_missing, sites.missing + sites.extra, sites.voxels.size
    flip(state, sites.voxels[~missing])
    shared_around = state.neighbourhoods(sites.voxels)
    flip(state, sites.voxels[missing])
    euler = euler_changes(state, sites, missing, -1) + euler_changes(state, sites, ~missing, 1)
    flip(state, sites.voxels[missing])
    joint_around = state.neighbourhoods(sites.voxels)

    warped[tuple(sites.places[~missing].T)] = False
    vessel = Parts.of_vessel(warped)
    warped[tuple(sites.places.T)] = True
    background = Parts.of_background(warped)
    a, b = adjacent_pairs(sites.places)
    alike = missing[a] == missing[b]
    faces = np.abs(sites.places[a] - sites.places[b]).sum(axis=1) == 1

    step = np.where(missing, sites.cluster, sites.cluster - sites.missing) + 1
    back = np.where(missing, sites.missing, sites.extra) + 1 - step  # the other way round
    voxel, beside = neighbours(shared_around, BITS_26, state, sites.voxels)
    touching = np.zeros(count, bool)
    touching[sites.cluster[voxel]] = True
    links = np.append([voxel, vessel.at(box.coordinates(beside)) + n], [a[alike], b[alike]], axis=1)
    beta0 = np.append(
        -gained(links, np.where(missing, back, 0), vessel.count)[sites.missing : 0 : -1],
        gained(links, np.where(missing, 0, step), vessel.count)[1 : sites.extra + 1],
    )
    voxel, beside = neighbours(~joint_around, BITS_6, state, sites.voxels)
    links = np.append([voxel, background.at(box.coordinates(beside)) + n], [a[faces], b[faces]], axis=1)
    beta2 = np.append(
        gained(links, np.where(missing, step, 0), background.count)[1 : sites.missing + 1],
        -gained(links, np.where(missing, 0, back), background.count)[sites.extra : 0 : -1],
    )
    return np.stack([beta0, beta0 + beta2 - euler, beta2], axis=1), touching


def euler_changes(state: Voxels, sites: Clusters, these: Bool[np.ndarray, " n"], sign: int) -> Int64[np.ndarray, " k"]:
    """Change of the Euler number by each site when these voxels are flipped: put in (sign 1) or taken out (-1)."""
    change = np.zeros(sites.missing + sites.extra)
    lattice = sublattices(state, sites.voxels)
    for parity in range(8):
        turn = np.flatnonzero(these & (lattice == parity))
        codes = state.neighbourhoods(sites.voxels[turn]) & ~CENTRE
        one_less = 1 - euler_of_contact(codes).astype(np.int64)
        change += sign * np.bincount(sites.cluster[turn], one_less, minlength=change.size)
        flip(state, sites.voxels[turn])
    return change.astype(np.int64)


def neighbours(
    codes: np.ndarray, bits: np.ndarray, state: Voxels, voxels: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """All pairs (number of the voxel, flat index of a neighbour) for the bits that are set in its code."""
    bit, voxel = np.nonzero(codes[None] >> bits[:, None].astype(np.uint32) & 1)
    return voxel, voxels[voxel] + state.steps[bits[bit]]


def gained(links: Int64[np.ndarray, "2 m"], step: Int64[np.ndarray, " n"], parts: int) -> Int64[np.ndarray, " s"]:
    """How many components a growing graph gains at each step.

    The nodes are n voxels, each of which enters at its `step`, and then `parts` things that are there at step 0. A
    link enters with the later of its ends. In a minimum spanning forest by steps, each link merges two components.
    """
    step = np.append(step, np.zeros(parts, np.int64))
    a, b = np.unique(links, axis=1)
    weights = np.maximum(step[a], step[b]) + 1.0  # zeros would be no links
    forest = minimum_spanning_tree(csr_array((weights, (a, b)), shape=(step.size, step.size)))
    merged = np.bincount(forest.data.astype(np.int64) - 1, minlength=int(step.max()) + 1)
    return np.bincount(step, minlength=merged.size) - merged


@dataclass(frozen=True)
class Parts:
    """Components of a mask or of its background: the run along z in which a voxel lies tells which one it is of."""

    starts: Int64[np.ndarray, " n"]
    part: Int64[np.ndarray, " n"]
    shape: tuple[int, int, int]
    corner: tuple[int, int]
    count: int

    @classmethod
    def of_vessel(cls, mask: Bool[np.ndarray, "x y z"]) -> "Parts":
        """26-connected components."""
        words, corner = pack(mask)
        starts, ends, shape = runs(words, mask.shape[2])
        count, part = join_runs(starts, ends, shape, TWENTY_SIX) if starts.size else (0, np.zeros(0, np.int32))
        return cls(starts, part.astype(np.int64), shape, corner, count)

    @classmethod
    def of_background(cls, mask: Bool[np.ndarray, "x y z"]) -> "Parts":
        """6-connected components of the background; number 0 is the outer one. See `betti.count_cavities`."""
        words, corner = pack(mask)
        starts, ends, shape = runs(words, mask.shape[2])
        line = np.arange(shape[0] * shape[1]) * shape[2]
        first = np.sort(np.append(line, ends))
        last = np.sort(np.append(line + shape[2] - 1, starts))
        # Runs between two vessel runs of a line; all others reach the padding and are one node.
        inner = np.flatnonzero((first % shape[2] > 0) & (last % shape[2] < shape[2] - 1))
        node = np.zeros(first.size, np.int64)
        node[inner] = np.arange(1, inner.size + 1)
        a, b = [], []
        forward = line_steps(shape, SIX.forward)
        for step in [*forward, *(-step for step in forward)]:
            window, run = overlaps(first, last, first[inner] + step, last[inner] + step)
            a.append(window + 1)
            b.append(node[run])
        count, label = join(inner.size + 1, np.concatenate(a), np.concatenate(b))
        return cls(first, label[node].astype(np.int64), shape, corner, count)

    def at(self, places: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, " n"]:
        """The component of each voxel, which must be of the kind; 0 beyond the lines that were looked at."""
        x, y, z = places.T - np.array([[self.corner[0]], [self.corner[1]], [-1]])
        known = (x >= 0) & (x < self.shape[0]) & (y >= 0) & (y < self.shape[1])
        flat = (x[known] * self.shape[1] + y[known]) * self.shape[2] + z[known]
        result = np.zeros(len(places), np.int64)
        result[known] = self.part[np.searchsorted(self.starts, flat, side="right") - 1]
        return result
