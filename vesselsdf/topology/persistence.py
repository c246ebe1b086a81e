"""Persistence of a signed distance field: which components, loops and cavities it has at every threshold, and where.

The sublevel sets `{sdf <= t}` are unions of closed voxels (26-connected vessel, 6-connected background; the
T-construction of cubical complexes), filtered by `t` in mm. Homology is over Z/2.

Strategy. Almost all voxels enter as simple points and change nothing; the few others are the cells of a Morse complex
(see `vesselsdf.topology.morse`). Components merge in a union-find forest of steepest descents, cavities by duality in
one of steepest ascents of the background. That leaves, for the loops, the 1-cells that close one and the 2-cells that
fill one: each boundary of such a 2-cell flows down to 1-cells, and a reduction of that small matrix pairs them. Ties
are broken by C order; bars of length zero are left out, so that the result does not depend on it. Only voxels below the
band's upper end are ever looked at.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, Shaped

from vesselsdf.errors import InputError
from vesselsdf.topology.filtration import Filtration
from vesselsdf.topology.places import Place, check_field, checked_affine, world


@dataclass(frozen=True)
class Bars:
    """All bars of positive length of a field, by dimension, longest first.

    `dimension` (n,), `birth` and `death` (n,) mm (`inf` for the one component that never dies), `born` and `dies` (n,
    3): indices of the voxels that begin and end them; -1 where nothing ends a bar, or not inside the band.
    """

    dimension: Int8[np.ndarray, " n"]
    birth: Float64[np.ndarray, " n"]
    death: Float64[np.ndarray, " n"]
    born: Int64[np.ndarray, "n 3"]
    dies: Int64[np.ndarray, "n 3"]

    @property
    def alive(self) -> Bool[np.ndarray, " n"]:
        """Which of them count in the Betti numbers of the vessel `{sdf <= 0}`."""
        return (self.birth <= 0) & (self.death > 0)

    @property
    def margin(self) -> Float64[np.ndarray, " n"]:
        """Largest error of the field, mm, that each survives for certain: see `Feature.margin`."""
        return np.minimum(-self.birth, self.death)


@dataclass(frozen=True)
class Feature:
    """A component (dimension 0), loop (1) or cavity (2) that exists at thresholds `birth <= t < death`, mm.

    `birth_place` is the centre of the voxel that completes it: for a component its deepest point, for a loop its
    thinnest place. `death_place` is the voxel that merges or fills it; None where it never dies, or not in the band.
    """

    dimension: int
    birth: float
    death: float
    birth_place: Place
    death_place: Place | None

    @property
    def alive(self) -> bool:
        """Whether it counts in the Betti numbers of the vessel `{sdf <= 0}`."""
        return self.birth <= 0 < self.death

    @property
    def persistence(self) -> float:
        """Length of life, mm."""
        return self.death - self.birth

    @property
    def margin(self) -> float:
        """Largest error of the field, mm, that the feature survives for certain; negative when it is not alive.

        Not half the persistence: a bar (-0.05, 10) dies under an error of 0.1.
        """
        return min(-self.birth, self.death)


def bars(sdf: Shaped[np.ndarray, "..."], band: float | int | None = None) -> Bars:
    """Bars of a field (X, Y, Z), mm, with the voxels that begin and end them.

    The one component that never dies has death `inf`. With a `band` (mm) the result is that of the field clipped to
    `[-band, band]`: bars outside vanish, births below `-band` are given as `-band` and deaths above `band` as `band`.
    So every number inside the band is exact, the diagrams of two fields differ by no more than the fields do, and a
    margin is never overstated. A field without any value below `band` has the one bar `(band, inf)`.

    Raises InputError for what is no 3D field, for NaN or infinite values, and for a band that is not positive.

    >>> found = bars(np.array([-2.0, 1.0, -1.0]).reshape(1, 1, 3))
    >>> found.birth.tolist(), found.death.tolist(), found.dies.tolist()
    ([-2.0, -1.0], [inf, 1.0], [[-1, -1, -1], [0, 0, 1]])
    """
    check_field(sdf)
    if band is not None and not band > 0:
        raise InputError(f"band is {band}; give a positive distance in mm.")
    limit = math.inf if band is None else float(band)
    return bars_of(Filtration(sdf, limit), limit)[0]


def bars_of(filtration: Filtration, limit: float | int) -> tuple[Bars, Int64[np.ndarray, " n"]]:
    """The bars of a filtration of a field clipped to `[-limit, limit]`; and for each its place among all pairs.

    Pairs are: components that do not merge below the limit (by voxel), merges, loops, cavities.
    """
    if filtration.voxels.size == 0:
        origin, nowhere = np.zeros((1, 3), np.int64), np.full((1, 3), -1)
        only = Bars(np.zeros(1, np.int8), np.array([float(limit)]), np.array([math.inf]), origin, nowhere)
        return only, np.full(1, -1)
    merged, hollow, loops = filtration.components, filtration.cavities, filtration.loops
    inside = filtration.keys[hollow.dies] != filtration.keys[0]
    unmerged = filtration.unmerged
    pairs = [
        (np.concatenate([unmerged, merged.born]), np.concatenate([np.full(unmerged.size, -1), merged.dies])),
        (loops.born, loops.dies),
        (hollow.born, np.where(inside, hollow.dies, -1)),
    ]
    born, dies = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    dimension = np.repeat(np.arange(3, dtype=np.int8), [pair[0].size for pair in pairs])
    birth = np.maximum(filtration.values(born), -limit)
    death = np.full(born.size, float(limit))
    death[dies >= 0] = filtration.values(dies[dies >= 0])
    death[(born == filtration.first) & (dies < 0) & (dimension == 0)] = math.inf
    places, ends = filtration.indices(born), filtration.indices(np.maximum(dies, 0))
    ends[dies < 0] = -1
    kept = np.flatnonzero(birth < death)
    kept = kept[np.lexsort((*places[kept].T[::-1], birth[kept], birth[kept] - death[kept], dimension[kept]))]
    return Bars(dimension[kept], birth[kept], death[kept], places[kept], ends[kept]), kept


def diagrams(sdf: Shaped[np.ndarray, "..."], band: float | int | None = None) -> list[Float64[np.ndarray, "_ 2"]]:
    """Persistence diagrams of a field (X, Y, Z), mm: `[H0, H1, H2]`, each (n, 2) births and deaths, longest bars first.

    These are the numbers of `bars`, where the band is explained.

    >>> field = np.abs(np.arange(9.0) - 4).reshape(1, 1, 9) - 2  # a slab of half-width 2
    >>> diagrams(field)[0].tolist(), diagrams(-field, band=1)[0].tolist()
    ([[-2.0, inf]], [[-1.0, inf], [-1.0, 1.0]])
    """
    found = bars(sdf, band)
    both = np.stack([found.birth, found.death], axis=1)
    return [both[found.dimension == k] for k in range(3)]


def features(
    sdf: Shaped[np.ndarray, "..."], affine: np.ndarray | None = None, band: float | int | None = None
) -> list[Feature]:
    """The `bars` as `Feature`s with their places: by dimension, longest first.

    sdf: (X, Y, Z), mm. affine: 4x4, voxel index -> mm; without it, places are voxel indices.

    >>> field = np.array([-2.0, 1.0, -1.0]).reshape(1, 1, 3)
    >>> [(f.birth, f.death, f.death_place, f.margin) for f in features(field)]
    [(-2.0, inf, None, 2.0), (-1.0, 1.0, (0.0, 0.0, 1.0), 1.0)]
    """
    affine = checked_affine(affine)
    found = bars(sdf, band)
    return [
        Feature(int(k), float(birth), float(death), world(affine, born), None if dies[0] < 0 else world(affine, dies))
        for k, birth, death, born, dies in zip(
            found.dimension, found.birth, found.death, found.born, found.dies, strict=True
        )
    ]


def certified_count(found: Iterable[Feature], eps: float | int) -> tuple[int, int, int]:
    """How many features of each dimension every field within `eps` (mm, sup norm, same grid) has for certain.

    Theorem. Let `sup |f - g| <= eps`. Then `{f <= -eps} < {g <= 0} < {f <= eps}`. The features of `f` with margin
    above `eps` are born by `-eps` and die after `eps`, so their number is at most the rank of `H_k(f <= -eps) ->
    H_k(f <= eps)`. This map factors through `H_k(g <= 0)`, so beta_k of `g` is at least that number, and the features
    are found in `g` as independent classes. (Cohen-Steiner, Edelsbrunner, Harer 2007; Heiss et al. 2021 for grids.)
    """
    counts = [0, 0, 0]
    for feature in found:
        counts[feature.dimension] += feature.margin > eps
    return counts[0], counts[1], counts[2]
