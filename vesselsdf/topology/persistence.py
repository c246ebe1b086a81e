"""Persistence of a signed distance field: which components, loops and cavities it has at every threshold, and where.

The sublevel sets `{sdf <= t}` are unions of closed voxels (26-connected vessel, 6-connected background; the
T-construction of cubical complexes), filtered by `t` in mm. Homology is over Z/2.

Strategy: for now, gudhi computes the whole diagram, on fields of at most 64^3 voxels; places are the voxels whose value
gives birth and death. A band only restricts the result: see `diagrams`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Shaped

from vesselsdf.errors import InputError
from vesselsdf.topology.matching import checked_affine, world

MAX_VOXELS = 64**3

Place = tuple[float, float, float]


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


def diagrams(sdf: Shaped[np.ndarray, "..."], band: float | int | None = None) -> list[Float[np.ndarray, "_ 2"]]:
    """Persistence diagrams of a field (X, Y, Z), mm: `[H0, H1, H2]`, each (n, 2) births and deaths, longest bars first.

    The one component that never dies has death `inf`. With a `band` (mm) the result is the diagram of the field clipped
    to `[-band, band]`: bars outside vanish, births below `-band` are given as `-band` and deaths above `band` as
    `band`. So every number inside the band is exact, the diagrams of two fields differ by no more than the fields do,
    and a margin is never overstated. Only the box around the voxels below `band` is looked at.

    Raises InputError for what is no 3D field, for NaN or infinite values, and where more than 64^3 voxels are left.

    >>> field = np.abs(np.arange(9.0) - 4).reshape(1, 1, 9) - 2  # a slab of half-width 2
    >>> diagrams(field)[0].tolist(), diagrams(-field, band=1)[0].tolist()
    ([[-2.0, inf]], [[-1.0, inf], [-1.0, 1.0]])
    """
    bars = pairs(sdf, band)
    result = []
    for k in range(3):
        rows = np.array([(birth, death) for dimension, birth, death, _, _ in bars if dimension == k], float)
        result.append(rows.reshape(-1, 2))
    return result


def features(
    sdf: Shaped[np.ndarray, "..."], affine: Float[np.ndarray, "4 4"] | None = None, band: float | int | None = None
) -> list[Feature]:
    """The bars of `diagrams` as `Feature`s with their places: by dimension, longest first.

    sdf: (X, Y, Z), mm. affine: 4x4, voxel index -> mm; without it, places are voxel indices.

    >>> field = np.array([-2.0, 1.0, -1.0]).reshape(1, 1, 3)
    >>> [(f.birth, f.death, f.death_place, f.margin) for f in features(field)]
    [(-2.0, inf, None, 2.0), (-1.0, 1.0, (0.0, 0.0, 1.0), 1.0)]
    """
    affine = checked_affine(affine)
    return [
        Feature(k, birth, death, world(affine, born), None if dies is None else world(affine, dies))
        for k, birth, death, born, dies in pairs(sdf, band)
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


def check_field(sdf: Shaped[np.ndarray, "..."], name: str = "sdf") -> np.ndarray:
    """The field itself, if it is 3D, has voxels, and all of them are finite numbers; else InputError."""
    if sdf.ndim != 3 or sdf.size == 0:
        raise InputError(f"{name} has shape {sdf.shape}; give a 3D field (x, y, z) with voxels in it.")
    if sdf.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {sdf.dtype}; give a distance in mm, negative inside the vessel.")
    if not np.isfinite(sdf).all():
        raise InputError(f"{name} has NaN or infinite values; replace them by a finite distance.")
    return sdf


def pairs(sdf: np.ndarray, band: float | int | None) -> list[tuple]:
    """Bars of the field (clipped to the band) as (dimension, birth, death, birth voxel, death voxel or None)."""
    field = check_field(sdf).astype(np.float64)
    corner = np.zeros(3, np.int64)
    if band is not None:
        if not band > 0:
            raise InputError(f"band is {band}; give a positive distance in mm.")
        corner, field = crop_to_band(field, band)
    if field.size > MAX_VOXELS:
        raise InputError(
            f"The field has {field.size} voxels to look at, and persistence takes at most {MAX_VOXELS} (64^3); "
            "use a coarser level or a narrower band."
        )
    found = []
    low, high = (-math.inf, math.inf) if band is None else (-band, band)
    for dimension, born, dies in critical_voxels(field):
        birth = max(float(field[born]), low)
        death = math.inf if dies is None else float(field[dies])
        if death > low:
            filled = None if dies is None or death >= high else corner + dies
            found.append((dimension, birth, death, corner + born, filled))
    return sorted(found, key=lambda bar: (bar[0], bar[1] - bar[2], bar[1], *bar[3]))


def crop_to_band(field: Float[np.ndarray, "x y z"], band: float | int) -> tuple[Int64[np.ndarray, " 3"], np.ndarray]:
    """The field cut at `band` from above, in the box around what lies below; and the corner of that box.

    All sublevel sets below `band` lie in the box, and from there on they are the whole box: a single solid piece.
    """
    below = field < band
    box = []
    for axis in range(3):
        used = np.flatnonzero(below.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1))
    return np.array([part.start for part in box]), np.minimum(field[tuple(box)], band)


def critical_voxels(field: Float[np.ndarray, "x y z"]) -> list[tuple[int, tuple, tuple | None]]:
    """All bars of positive length as (dimension, birth voxel, death voxel or None), by gudhi."""
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)  # its default is Z/11
    regular, essential = cubical.cofaces_of_persistence_pairs()
    found: list[tuple[int, tuple, tuple | None]] = []
    for dimension, cells in enumerate(regular):
        # gudhi counts voxels with the first axis fastest.
        born, dies = (np.transpose(np.unravel_index(cells[:, i], field.shape, order="F")) for i in (0, 1))
        found += [(dimension, tuple(b), tuple(d)) for b, d in zip(born, dies, strict=True)]
    for dimension, cells in enumerate(essential):
        found += [(dimension, tuple(c), None) for c in np.transpose(np.unravel_index(cells, field.shape, order="F"))]
    return found
