"""Which feature of the finest level each lost component, loop or cavity is, and how far up every feature is guaranteed.

Strategy. `matching.shared_features` says exactly how many features of a mask another one lacks, and where. The features
of the field that made the mask (its bars alive at zero) are as many as the mask's Betti numbers. Each lost entry is
identified with one of them, so that every feature has one fate and the numbers of fates are the exact ranks:

- *Components* exactly. A component of `P` has one alive bar, the one born at its deepest voxel. It is absent if it has
  no voxel in `G`; of those that `P | G` joins, the one with the earliest birth survives (the elder rule) and the
  others are merged.
- *Loops and cavities* by place: a lost entry is the feature that breaks at that very voxel, and if there is none, the
  nearest one by least total distance. Features that the uniform certificate proves to survive are never taken: there
  are always enough others, because the local rank is at least the certified number (see `certificates`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from vesselsdf.topology.betti import components
from vesselsdf.topology.certificates import raised
from vesselsdf.topology.matching import ABSENT, CLOSED
from vesselsdf.topology.pairing import assign
from vesselsdf.topology.persistence import Feature, bars
from vesselsdf.topology.places import world

# The field is followed to at least this far on both sides of the wall, and farther while few voxels are involved.
BANDS_IN_VOXELS = (12, 8, 6, 4, 3)
BAND_VOXELS = 1_000_000


@dataclass(frozen=True)
class Finest:
    """A level that others are compared with: its field, mask, affine, alive features and the band they were found in.

    As a rule the finest one.
    """

    field: np.ndarray
    mask: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    features: list[Feature]
    band: float

    @cached_property
    def labels(self) -> np.ndarray:
        """Label of each voxel's component."""
        return components(self.mask)[0]

    def voxels(self, places: Sequence[Sequence[float]]) -> Int64[np.ndarray, "n 3"]:
        """The voxels whose centres lie at `places`, mm."""
        centred = np.array(places, float).reshape(-1, 3) - self.affine[:3, 3]
        return np.rint(np.linalg.solve(self.affine[:3, :3], centred.T).T).astype(np.int64)

    def certified(self, error: float) -> Bool[np.ndarray, " n"]:
        """Which features survive an error (mm) for certain."""
        return np.array([feature.margin > error for feature in self.features], bool)


def band_of(field: np.ndarray, voxel: float) -> float:
    """How far from the wall (mm) the field of a level is followed: as many of its voxels as their number allows."""
    step = max(1, round((field.size / 2_000_000) ** (1 / 3)))
    sample = np.abs(field[::step, ::step, ::step])
    for width in BANDS_IN_VOXELS[:-1]:
        if np.count_nonzero(sample <= width * voxel) / sample.size * field.size <= BAND_VOXELS:
            return width * voxel
    return BANDS_IN_VOXELS[-1] * voxel


def alive_features(field: np.ndarray, affine: Float[np.ndarray, "4 4"], band: float) -> list[Feature]:
    """The features that count in the Betti numbers of `{field <= 0}`, with births and deaths clipped to the band."""
    found = bars(field, band)
    alive = np.flatnonzero(found.alive)
    return [
        Feature(k, birth, death, world(affine, born), None if dies[0] < 0 else world(affine, dies))
        for k, birth, death, born, dies in zip(
            found.dimension[alive].tolist(),
            found.birth[alive].tolist(),
            found.death[alive].tolist(),
            found.born[alive],
            found.dies[alive],
            strict=True,
        )
    ]


def identify(lost: list[dict[str, Any]], finest: Finest, other: Bool[np.ndarray, "x y z"], error: float) -> list[int]:
    """For each lost entry (`dimension`, `kind`, `place`) of the finest level against the mask `other`, its feature.

    error: the wall error between the two, mm. No feature is named twice.
    """
    result = [-1] * len(lost)
    for dimension in range(3):
        entries = [i for i, entry in enumerate(lost) if entry["dimension"] == dimension]
        if not entries:
            continue
        if dimension == 0:
            found = lost_components([lost[i] for i in entries], finest, other)
        else:
            found = by_place([lost[i] for i in entries], dimension, finest, error)
        for i, feature in zip(entries, found, strict=True):
            result[i] = feature
    return result


def lost_components(lost: list[dict[str, Any]], finest: Finest, other: np.ndarray) -> list[int]:
    """The features that lost components are, by their labels and the elder rule."""
    own = [i for i, feature in enumerate(finest.features) if feature.dimension == 0]
    born = finest.voxels([finest.features[i].birth_place for i in own])
    label = finest.labels[tuple(born.T)]
    touched = np.isin(label, np.unique(finest.labels[finest.mask & other]))
    result = [-1] * len(lost)
    by_label = {int(k): i for k, i in zip(label, own, strict=True)}
    where = finest.voxels([entry["place"] for entry in lost])
    for k, entry in enumerate(lost):
        if entry["kind"] == "absent":
            result[k] = by_label[int(finest.labels[tuple(where[k])])]
    merged = [k for k, entry in enumerate(lost) if entry["kind"] != "absent"]
    if not merged:
        return result
    union = components(finest.mask | other)[0]
    groups: dict[int, list[int]] = {}
    for position, piece in zip(np.flatnonzero(touched).tolist(), union[tuple(born[touched].T)].tolist(), strict=True):
        groups.setdefault(piece, []).append(own[position])
    for piece, members in groups.items():
        members.sort(key=lambda i: (finest.features[i].birth, -finest.features[i].death))
        inside = [k for k in merged if union[tuple(where[k])] == piece]
        younger = np.array(members[1:], np.int64)
        for k, i in zip(inside, pair_up([lost[k] for k in inside], younger, finest), strict=True):
            result[k] = i
    return result


def by_place(lost: list[dict[str, Any]], dimension: int, finest: Finest, error: float) -> list[int]:
    """The features that lost loops or cavities are, by where they break."""
    certain = finest.certified(error)
    own = [i for i, f in enumerate(finest.features) if f.dimension == dimension and not certain[i]]
    return pair_up(lost, np.array(own, np.int64), finest)


def pair_up(lost: list[dict[str, Any]], candidates: Int64[np.ndarray, " n"], finest: Finest) -> list[int]:
    """Each lost entry with a candidate of its own: first where places are equal, then of least total distance."""
    result = np.full(len(lost), -1, np.int64)
    free = dict.fromkeys(candidates.tolist())
    for kinds, place_of in ((ABSENT, lambda f: f.birth_place), (CLOSED, breaking_by_death)):
        entries = [k for k, entry in enumerate(lost) if entry["kind"] in kinds]
        at: dict[tuple, list[int]] = {}
        for i in free:
            at.setdefault(tuple(finest.voxels([place_of(finest.features[i])])[0]), []).append(i)
        for k, voxel in zip(entries, finest.voxels([lost[k]["place"] for k in entries]), strict=True):
            if at.get(tuple(voxel)):
                result[k] = at[tuple(voxel)].pop()
                del free[int(result[k])]
    left = np.flatnonzero(result < 0)
    if left.size:
        # A loop may be cut by one entry and another one filled: both places of a feature count, the nearer one.
        rest = np.array(list(free), np.int64)
        cut = np.array([finest.features[i].birth_place for i in rest]).reshape(-1, 3)
        closed = np.array([breaking_by_death(finest.features[i]) for i in rest]).reshape(-1, 3)
        for kinds, places in ((ABSENT, cut), (CLOSED, closed)):
            entries_left = np.array([k for k in left if lost[k]["kind"] in kinds], np.int64)
            open_rows = np.flatnonzero(~np.isin(rest, result))
            where = np.array([lost[k]["place"] for k in entries_left], float).reshape(-1, 3)
            result[entries_left] = rest[open_rows[assign(where, places[open_rows])]] if entries_left.size else []
    return result.tolist()


def breaking_by_death(feature: Feature) -> tuple[float, float, float]:
    """Where a feature is merged or filled first; its birth place where that lies beyond the band."""
    return feature.birth_place if feature.death_place is None else feature.death_place


def passports(
    found: list[Feature],
    level: int,
    spacing: list[float],
    band: float,
    bounds: Sequence[float | int] | None,
    errors: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """The features alive at a level with their margins, and how far up the pyramid each of them is guaranteed.

    bounds: a-priori, on `sup |phi_0 - U^l phi_l|`. Between level k and a coarser level l the fields differ by at most
    `B_l - B_k` on the grid of level k, because prolongation does not expand the sup norm: that is what the margin at
    level k has to exceed. errors: the measured wall errors against this level, for itself (0) and each coarser one.
    """
    rows = []
    for feature in found:
        kind = (ABSENT if -feature.birth <= feature.death else CLOSED)[feature.dimension]
        beyond = feature.margin >= band
        row: dict[str, Any] = {
            "dimension": feature.dimension,
            "birth": feature.birth,
            "death": feature.death,
            "margin": feature.margin,
            "margin_is_lower_bound": beyond,
            "birth_place": feature.birth_place,
            "death_place": feature.death_place,
            "breaks_by": kind,
            "breaks_at": None if beyond else feature.birth_place if kind in ABSENT else feature.death_place,
        }
        if bounds is not None:
            steps = [raised(bound - bounds[level]) for bound in bounds[level:]]
            row["passport_level"], row["passport_spacing"] = reach(feature.margin, steps, level, spacing)
        if errors is not None:
            row["certified_level"], row["certified_spacing"] = reach(feature.margin, errors, level, spacing)
        rows.append(row)
    return rows


def reach(margin: float, errors: Sequence[float], level: int, spacing: list[float]) -> tuple[int, list[float]]:
    """The coarsest level up to which a margin exceeds all errors (the first one belongs to `level`); its spacing."""
    steps = next((k for k, error in enumerate(errors) if k and error >= margin), len(errors)) - 1
    return level + steps, [h * 2.0**steps for h in spacing]


def fates(count: int, levels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each of `count` features of level 0 its fate at every level, and `lost_at`, the first at which it is lost.

    A fate is "survives", or "lost" with the `kind` and `place` of the entry of that level's `lost` list.
    """
    rows: list[dict[str, Any]] = [{"fates": [], "lost_at": None} for _ in range(count)]
    for level in levels:
        entry_of = {entry["feature"]: entry for entry in level["lost"]}
        for i, row in enumerate(rows):
            entry = entry_of.get(i)
            fate = {"level": level["level"], "fate": "survives" if entry is None else "lost"}
            if entry is not None:
                fate |= {"kind": entry["kind"], "place": entry["place"]}
                row["lost_at"] = level["level"] if row["lost_at"] is None else row["lost_at"]
            row["fates"].append(fate)
    return rows
