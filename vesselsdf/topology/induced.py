"""Betti matching: which features of two fields are the same, found through the field that holds both.

Stucki, Paetzold, Shit, Menze, Bauer (2023), "Topologically faithful image segmentation via induced matching of
persistence barcodes". With `c = min(f, g)`, `{f <= t}` and `{g <= t}` lie in `{c <= t}`. The image of `H_k(f <= t) ->
H_k(c <= t)` is a persistence module whose bars begin where bars of `f` begin and end where bars of `c` end; a bar of
`f` and a bar of `c` that share a bar of the image are matched, and bars of `f` and `g` matched to the same bar of `c`
are matched to each other: they are the same component, loop or cavity, at the same place.

Strategy. Each image is computed on the Morse complexes of both filtrations (see `vesselsdf.topology.morse`):

- components: those of `c` merge, each known by the earliest voxel of `f` in it; of two that merge the later one ends;
- cavities: by duality `H_2(f <= s) -> H_2(c <= t)` has the rank of `H_0(c > t) -> H_0(f > s)`, reduced. So background
  components of `f` merge, each known by the latest voxel of `c` in it;
- loops: each loop of `f` is a cycle of voxels, which flows down in `c` onto loops of `c`. Written in the basis of the
  cycles that bound in `c`, in the order in which they do, the rank of `H_1(f <= s) -> H_1(c <= t)` is that of the
  loops born by `s` and the bounding cycles later than `t`; a reduction finds the pairs. Loops of `f` that are filled at
  the value at which they are born are left out: they only ever end an image at its beginning.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from vesselsdf.errors import InputError
from vesselsdf.topology.filtration import Filtration, Loops, box_below
from vesselsdf.topology.persistence import Bars, bars_of
from vesselsdf.topology.places import check_field

Pairs = tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]


@dataclass(frozen=True)
class BettiMatching:
    """The bars of two fields, and which of them belong together: rows of `matched` are positions in `f` and in `g`."""

    f: Bars
    g: Bars
    matched: Int64[np.ndarray, "m 2"]

    @property
    def partner_of_f(self) -> Int64[np.ndarray, " n"]:
        """For each bar of `f` the position of its partner in `g`, -1 for none."""
        return partners(self.matched, len(self.f.birth))

    @property
    def partner_of_g(self) -> Int64[np.ndarray, " n"]:
        """For each bar of `g` the position of its partner in `f`, -1 for none."""
        return partners(self.matched[:, ::-1], len(self.g.birth))

    def alone_of_f(self) -> Bool[np.ndarray, " n"]:
        """Which features of the vessel of `f` have no partner among those of `g`."""
        return alone(self.f, self.g, self.partner_of_f)

    def alone_of_g(self) -> Bool[np.ndarray, " n"]:
        """Which features of the vessel of `g` have no partner among those of `f`."""
        return alone(self.g, self.f, self.partner_of_g)

    @property
    def error(self) -> tuple[int, int, int]:
        """Betti matching error per dimension: features of either vessel without a partner in the other; 0 and more."""
        a = np.bincount(self.f.dimension[self.alone_of_f()], minlength=3)
        b = np.bincount(self.g.dimension[self.alone_of_g()], minlength=3)
        return int(a[0] + b[0]), int(a[1] + b[1]), int(a[2] + b[2])


def partners(matched: Int64[np.ndarray, "m 2"], count: int) -> Int64[np.ndarray, " n"]:
    """Second entry of the row that begins with each of `count` positions, -1 for none."""
    result = np.full(count, -1, np.int64)
    result[matched[:, 0]] = matched[:, 1]
    return result


def alone(one: Bars, other: Bars, partner: Int64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Which bars that are alive at 0 have no partner that is."""
    return one.alive & ~((partner >= 0) & np.append(other.alive, False)[partner])


def betti_matching(
    f: Shaped[np.ndarray, "..."], g: Shaped[np.ndarray, "..."], band: float | int | None = None
) -> BettiMatching:
    """Match the components, loops and cavities of two fields (X, Y, Z), mm, on one grid, at all thresholds at once.

    With a `band` (mm) both are clipped to `[-band, band]`, as in `persistence.bars`. Distance fields of 128^3 voxels
    take seconds; for fields of noise, with their many features, it is slow.

    Raises InputError for what is no finite 3D field, for different grids, and for a band that is not positive.

    >>> ring = np.ones((5, 5, 1)); ring[0] = ring[-1] = -1; ring[:, 0] = ring[:, -1] = -1
    >>> wide = ring - 0.5
    >>> found = betti_matching(ring, wide)
    >>> found.matched.tolist(), found.error
    ([[0, 0], [1, 1]], (0, 0, 0))
    """
    check_field(f, "f")
    check_field(g, "g")
    if f.shape != g.shape:
        raise InputError(f"f has shape {f.shape} and g {g.shape}; compare fields on one grid.")
    if band is not None and not band > 0:
        raise InputError(f"band is {band}; give a positive distance in mm.")
    limit = np.inf if band is None else float(band)
    both = np.minimum(f, g)
    box = box_below(both, limit)
    a, b, c = (Filtration(field, limit, box) for field in (f, g, both))
    bars_a, kept_a = bars_of(a, limit)
    bars_b, kept_b = bars_of(b, limit)
    if a.voxels.size == 0 or b.voxels.size == 0:
        # An empty one shares the component that never dies, and that alone.
        return BettiMatching(bars_a, bars_b, np.array([[never(bars_a), never(bars_b)]]))
    of_a, of_b = (clipped(image(one, c, limit), one, c, limit) for one in (a, b))
    _, first, second = np.intersect1d(of_a[1], of_b[1], return_indices=True)
    rows = np.stack([of_a[0][first], of_b[0][second]], axis=1)
    back = [np.full(pair_count(one), -1, np.int64) for one in (a, b)]
    for position, kept in zip(back, (kept_a, kept_b), strict=True):
        position[kept] = np.arange(kept.size)
    matched = np.stack([position[row] for position, row in zip(back, rows.T, strict=True)], axis=1)
    matched = matched[(matched >= 0).all(axis=1)]
    return BettiMatching(bars_a, bars_b, matched[np.argsort(matched[:, 0])])


def never(bars: Bars) -> int:
    """Position of the component that never dies."""
    return int(np.flatnonzero(np.isinf(bars.death) & (bars.dimension == 0))[0])


def pair_count(one: Filtration) -> int:
    """Number of all pairs of a filtration, in the order of `persistence.bars_of`."""
    return one.unmerged.size + one.components.born.size + one.loops.born.size + one.cavities.born.size


def image(f: Filtration, c: Filtration, limit: float) -> Pairs:
    """Bars of the image of `f` in `c`: positions among the pairs of `f` and of `c`, also bars of no length."""
    parts = [image_of_components(f, c), image_of_loops(f, c, limit), image_of_cavities(f, c)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def clipped(pairs: Pairs, f: Filtration, c: Filtration, limit: float) -> Pairs:
    """Those bars of the image that have a length within the band."""
    birth, death = ends_of(f, limit)[0][pairs[0]], ends_of(c, limit)[1][pairs[1]]
    kept = birth < death
    return pairs[0][kept], pairs[1][kept]


def ends_of(one: Filtration, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Births and deaths of all pairs, clipped to the band; deaths beyond it are `inf`."""
    merged, loops, hollow = one.components, one.loops, one.cavities
    born = np.concatenate([one.unmerged, merged.born, loops.born, hollow.born])
    entered = one.keys[hollow.dies] != one.keys[0]
    dies = np.concatenate([np.full(one.unmerged.size, -1), merged.dies, loops.dies, np.where(entered, hollow.dies, -1)])
    death = np.full(dies.size, np.inf)
    death[dies >= 0] = one.values(dies[dies >= 0])
    return np.maximum(one.values(born), -limit), death


def image_of_components(f: Filtration, c: Filtration) -> Pairs:
    """Components of `c` merge; each is known by the earliest voxel of `f` in it."""
    inside = np.flatnonzero(c.keys != c.keys[0])
    basin = c.basins()[inside]
    late_to_early = np.argsort(f.keys[inside], kind="stable")[::-1]
    known = dict(zip(basin[late_to_early].tolist(), inside[late_to_early].tolist(), strict=True))
    merged = c.components
    births = np.empty(merged.born.size, np.int64)
    for i, (younger, elder) in enumerate(zip(merged.born.tolist(), merged.into.tolist(), strict=True)):
        first, second = known[elder], known[younger]
        if (f.keys[second], second) < (f.keys[first], first):
            first, second = second, first
        known[elder], births[i] = first, second
    births = np.concatenate([np.array([known[root] for root in c.unmerged.tolist()], np.int64), births])
    own = np.concatenate([f.unmerged, f.components.born])
    return positions(births, own, np.arange(births.size))


def image_of_cavities(f: Filtration, c: Filtration) -> Pairs:
    """Background components of `f` merge; each is known by the latest voxel of `c` in it."""
    basin, of_c = f.background_basins(), c.background_basins()
    # Of what never enters, the outer component is the latest.
    time = c.keys.astype(np.int64) + ((c.keys == c.keys[0]) & (of_c == 0))
    order = np.argsort(time, kind="stable")
    latest = np.zeros_like(basin)
    latest[basin[order]] = order
    hollow = f.cavities
    known = {root: int(latest[root]) for root in np.concatenate([hollow.dies, hollow.into]).tolist()}
    deaths = np.empty(hollow.born.size, np.int64)
    for i, (younger, elder) in enumerate(zip(hollow.dies.tolist(), hollow.into.tolist(), strict=True)):
        first, second = known[elder], known[younger]
        if (time[second], second) > (time[first], first):
            first, second = second, first
        known[elder], deaths[i] = first, second
    # Voxels that never enter are known by the first of their component.
    deaths = np.where(c.keys[deaths] == c.keys[0], of_c[deaths], deaths)
    ends, starts = positions(deaths, c.cavities.dies, np.arange(deaths.size))
    return starts + pair_count(f) - f.cavities.born.size, ends + pair_count(c) - c.cavities.born.size


def positions(wanted: Int64[np.ndarray, " n"], among: Int64[np.ndarray, " m"], tags: Int64[np.ndarray, " n"]) -> Pairs:
    """Where each wanted voxel stands among others, and its tag; left out where it does not."""
    order = np.argsort(among)
    at = np.minimum(np.searchsorted(among, wanted, sorter=order), max(among.size - 1, 0))
    if among.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    found = among[order[at]] == wanted
    return order[at[found]], tags[found]


def image_of_loops(f: Filtration, c: Filtration, limit: float) -> Pairs:
    """Loops of `f` flow down in `c`, and are written in the cycles that bound there."""
    birth, death = f.values(f.loops.born), np.full(f.loops.born.size, np.inf)
    filled = f.loops.dies >= 0
    death[filled] = f.values(f.loops.dies[filled])
    chosen = np.flatnonzero(np.maximum(birth, -limit) < death)
    begin, rows = images_of_cycles(f, c, chosen)
    # In the order of death: filled loops as their columns were reduced, then those that are not.
    when = np.where(c.loops.dies >= 0, c.loops.first, c.loops.pool.size + np.arange(c.loops.born.size))
    owner: dict[int, set[int]] = {}
    pairs = []
    for i, rank in enumerate(chosen.tolist()):
        bounding = in_bounding_cycles(set(rows[begin[i] : begin[i + 1]].tolist()), c.loops)
        while bounding:
            latest = max(bounding, key=when.__getitem__)
            if latest not in owner:
                owner[latest] = bounding
                pairs.append((rank, latest))
                break
            bounding = bounding ^ owner[latest]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    before = [one.unmerged.size + one.components.born.size for one in (f, c)]
    return found[:, 0] + before[0], found[:, 1] + before[1]


def in_bounding_cycles(ranks: set[int], loops: Loops) -> set[int]:
    """A cycle, given by the loops it runs along, as a sum of cycles that bound, and of loops that never do."""
    result = set()
    while ranks:
        pivot = max(ranks)
        result.add(pivot)
        filled = loops.dies[pivot] >= 0
        ranks = ranks ^ (set(loops.pool[loops.first[pivot] : loops.last[pivot]].tolist()) if filled else {pivot})
    return result


def images_of_cycles(f: Filtration, c: Filtration, ranks: Int64[np.ndarray, " n"]) -> Pairs:
    """For loops of `f`, the loops of `c` along which they run: where each begins, and their ranks, ascending.

    A loop is closed by its 1-cell; the way back leads through the 1-cells that joined components before.
    """
    from vesselsdf.topology import morse

    cells = f.components.loops[ranks]
    basin, sides = f.basins(), f.components.sides
    paths = [[int(cell)] for cell in cells]
    way = Ways(basin[f.heads], basin[sides], f.components.cells < 0)
    for path, cell in zip(paths, cells.tolist(), strict=True):
        path += way.between(int(basin[f.heads[cell]]), int(basin[sides[cell]]))
    begin = np.concatenate([[0], np.cumsum([len(path) for path in paths])]).astype(np.int64)
    through = np.array([cell for path in paths for cell in path], np.int64)
    heads, ends, chain = f.heads[through], sides[through], np.zeros_like(c.keys)

    def settle(*room: Any) -> int:
        return morse.images_of_cycles(
            f.keys, begin, heads, ends, c.keys, c.steps, c.voxels, c.components.starts, c.components.cells,
            c.components.loops.size, chain, *room,
        )  # fmt: skip

    return c.settled(settle, len(paths))


class Ways:
    """Ways through a forest whose edges are some of the given 1-cells, between nodes named by voxels."""

    def __init__(self, one: np.ndarray, other: np.ndarray, joins: Bool[np.ndarray, " c"]):
        self.names = np.unique(np.concatenate([one, other]))
        a, b = (np.searchsorted(self.names, side[joins]) for side in (one, other))
        count = self.names.size
        forest = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(count, count))
        trees, labels = connected_components(forest, directed=False)
        # One more node stands above a root of each tree.
        tops = np.unique(labels, return_index=True)[1]
        a, b = np.concatenate([a, np.full(trees, count)]), np.concatenate([b, tops])
        whole = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(count + 1, count + 1)).tocsr()
        order, self.above = breadth_first_order(whole, count, directed=False)
        self.rank = np.empty(count + 1, np.int64)
        self.rank[order] = np.arange(count + 1)
        upper = np.where(self.above[a] == b, a, b)
        self.cell = np.full(count + 1, -1, np.int64)
        self.cell[upper] = np.concatenate([np.flatnonzero(joins), np.full(trees, -1)])

    def between(self, one: int, other: int) -> list[int]:
        """The 1-cells on the way between two nodes of one tree."""
        a, b = np.searchsorted(self.names, [one, other]).tolist()
        path = []
        while a != b:
            # Nodes come after those above them.
            if self.rank[a] < self.rank[b]:
                a, b = b, a
            path.append(int(self.cell[a]))
            a = int(self.above[a])
        return path
