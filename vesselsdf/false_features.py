"""False features of a vessel: what noise of a voxel or two adds to its topology, or takes from it; found and mended.

Four kinds. A *hole*: a loop around a hole that a few voxels close. A *cavity* of a few voxels inside. A *speck*: a
component of a few voxels. A *gap*: a vessel torn apart by a few voxels (two components that were one, or a loop cut).

The rule. A feature is false if the field says so and the grid says so.

- Persistence (mm): a hole or cavity dies, a gap closes, when the threshold rises from 0 to `SHALLOW` voxels at most; a
  speck is gone when it sinks by as much. In a distance field that is the radius of the hole, or half the width of the
  gap: holes of up to about one and a half voxels. On thick slices the longest edge of a voxel counts.
- Size: changing at most `PLUG` voxels next to each other (`CLUMP` for specks and cavities) mends it, and nothing else
  changes. A slit between two vessels that run side by side, one voxel apart, is as shallow as a pin-hole, but to close
  it takes a strip of voxels as long as the slit; and a hole three voxels wide needs five at least. Two vessels that
  pass at a distance of one voxel are no gap: one of the two pieces has to end there.

Strategy. The features come from the field's persistence. For each, the voxels around the one that ends it are added up
to its value; those of them that change nothing (simple points) are taken out again. What remains is the plug. A mended
field changes its sign at the plugs only; the change of its Betti numbers is verified to be that of the list.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Num
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers, euler_number
from vesselsdf.topology.persistence import Bars, bars
from vesselsdf.topology.places import Place, check_field, checked_affine, world
from vesselsdf.topology.thinning import collapse

KINDS = ("hole", "cavity", "speck", "gap")
SHALLOW = 0.75
PLUG = 4
CLUMP = 8
# A torn vessel's pieces and loops are deeper than what noise makes: so many times `SHALLOW`.
DEEP = 2.0
STUB = 3.0
REACH = 2  # voxels around the one that ends a feature
CONNECTED = np.ones((3, 3, 3), bool)
# What mending one of each kind adds to beta0, beta1, beta2; a gap closes between two components or within one.
MENDED = {"hole": (0, -1, 0), "cavity": (0, 0, -1), "speck": (-1, 0, 0), "gap": (-1, 0, 0), "gap in a loop": (0, 1, 0)}


@dataclass(frozen=True)
class FalseFeature:
    """One false feature.

    `kind`: "hole", "cavity", "speck" or "gap". `dimension`: of the feature that noise made (of a gap: that it broke).
    `birth`, `death`: thresholds in mm between which it exists (of a gap in a loop: the whole loop). `place`: RAS mm.
    `voxels` (n, 3): those that change sides when it is mended.
    """

    kind: str
    dimension: int
    birth: float
    death: float
    place: Place
    voxels: Int64[np.ndarray, "n 3"]

    @property
    def persistence(self) -> float:
        """Length of life, mm."""
        return self.death - self.birth

    @property
    def margin(self) -> float:
        """The change of the field, mm, that undoes it: small, for a false feature."""
        if self.kind == "gap" and self.dimension == 1:
            return self.birth
        return -self.birth if self.kind == "speck" else self.death

    def summary(self) -> dict[str, Any]:
        """What a report says of it; `voxels` is their number."""
        facts = {"kind": self.kind, "dimension": self.dimension, "place": self.place, "voxels": len(self.voxels)}
        return facts | {"birth": self.birth, "death": self.death, "margin": self.margin}

    @property
    def change(self) -> tuple[int, int, int]:
        """What mending it adds to beta0, beta1, beta2."""
        return MENDED["gap in a loop" if self.kind == "gap" and self.dimension == 1 else self.kind]


def false_features(
    sdf: Num[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], kinds: Sequence[str] = KINDS
) -> list[FalseFeature]:
    """The false features of the vessel `sdf <= 0`, by the rule of this module, shallowest first of each kind.

    sdf: (X, Y, Z) signed distance in mm, negative inside. affine: voxel index to RAS mm. Raises InputError for NaN or
    infinite values, and for an unknown kind.

    >>> plate = np.full((9, 9, 5), 1.0); plate[1:8, 1:8, 1:4] = -1; plate[4, 4, 1:4] = 0.5
    >>> [(f.kind, f.death, f.place, len(f.voxels)) for f in false_features(plate, np.eye(4))]
    [('hole', 0.5, (4.0, 4.0, 1.0), 1)]
    """
    check_field(sdf)
    affine = checked_affine(affine)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InputError(f"There is no kind {unknown[0]!r} of false features; the kinds are {', '.join(KINDS)}.")
    limit = SHALLOW * float(np.linalg.norm(affine[:3, :3], axis=0).max())
    mask = sdf <= 0
    if not mask.any() or mask.all():
        return []
    found = bars(sdf, DEEP * limit)
    result: list[FalseFeature] = []
    touched: set[tuple[int, ...]] = set()
    for kind, k in sorted(suspects(found, limit, kinds), key=lambda one: (KINDS.index(one[0]), one[1])):
        centre = {"hole": found.dies, "cavity": found.dies, "speck": found.born}.get(kind)
        at = (found.born if found.dimension[k] else found.dies)[k] if centre is None else centre[k]
        feature = FalseFeature(
            kind, int(found.dimension[k]), float(found.birth[k]), float(found.death[k]), world(affine, at), at[None]
        )
        voxels = mending(feature, sdf, mask, at)
        # No voxel changes sides twice.
        if voxels is not None and touched.isdisjoint(map(tuple, voxels.tolist())):
            touched.update(map(tuple, voxels.tolist()))
            result.append(FalseFeature(kind, feature.dimension, feature.birth, feature.death, feature.place, voxels))
            mask[tuple(voxels.T)] ^= True
    return verified(result, sdf)


def suspects(found: Bars, limit: float, kinds: Sequence[str]) -> Iterable[tuple[str, int]]:
    """Features that are shallow enough: (kind, number of the bar), each kind from the shallowest on."""
    birth, death, dimension = found.birth, found.death, found.dimension
    alive = found.alive
    shallow = alive & (death <= limit)
    tests = {
        "hole": shallow & (dimension == 1),
        "cavity": shallow & (dimension == 2),
        "speck": alive & (dimension == 0) & (birth >= -limit) & np.isfinite(birth),
        "gap": (dimension == 0) & shallow | (dimension == 1) & (birth > 0) & (birth <= limit) & (death >= DEEP * limit),
    }
    depth = np.where(alive, np.minimum(-birth, death), birth)
    for kind in kinds:
        for k in sorted(np.flatnonzero(tests[kind]).tolist(), key=lambda k: float(depth[k])):
            yield kind, k


def around(at: Int64[np.ndarray, "3"], shape: tuple[int, ...], reach: int) -> tuple[slice, slice, slice]:
    """The box of so many voxels around one, within the grid."""
    x, y, z = (slice(max(int(i) - reach, 0), min(int(i) + reach + 1, n)) for i, n in zip(at, shape, strict=True))
    return x, y, z


def mending(
    feature: FalseFeature, sdf: np.ndarray, mask: Bool[np.ndarray, "x y z"], at: Int64[np.ndarray, "3"]
) -> Int64[np.ndarray, "n 3"] | None:
    """The voxels that have to change sides to mend a feature that ends at `at`; None if they are too many."""
    box = around(at, sdf.shape, REACH + 2)
    corner = np.array([part.start for part in box])
    vessel = mask[box]
    here = tuple(at - corner)
    if feature.kind in ("speck", "cavity"):
        side = vessel if feature.kind == "speck" else ~vessel
        if not side[here]:
            return None  # another one's mending has changed it
        labels, _ = ndimage.label(side, CONNECTED if feature.kind == "speck" else None)
        clump = labels == labels[here]
        voxels = np.argwhere(clump) + corner
        inside = clump[tuple(slice(1, n - 1) for n in clump.shape)].sum() == len(voxels)
        at_border = (voxels == 0) | (voxels == np.array(sdf.shape) - 1)
        # Whatever reaches the faces of the box may go on beyond; at the faces of the grid a speck ends, a cavity opens.
        whole = inside or (feature.kind == "speck" and bool(at_border.any()) and len(voxels) <= CLUMP)
        return voxels if whole and len(voxels) <= CLUMP else None
    if vessel[here]:
        return None
    level = feature.birth if feature.kind == "gap" and feature.dimension == 1 else feature.death
    euler = euler_number(vessel)
    change = feature.change
    expected = change[0] - change[1] + change[2]
    for reach in (0, 1, REACH):
        near = np.zeros_like(vessel)
        near[tuple(slice(max(i - reach, 0), i + reach + 1) for i in here)] = True
        added = vessel | near & (sdf[box] <= level)
        if euler_number(added) - euler == expected:
            plug = np.argwhere(collapse(added, vessel) & ~vessel)
            small = 0 < len(plug) <= PLUG
            return plug + corner if small and (feature.kind != "gap" or is_tear(vessel, plug)) else None
    return None


def is_tear(vessel: Bool[np.ndarray, "x y z"], plug: Int64[np.ndarray, "n 3"]) -> bool:
    """Whether a plug in a small box joins pieces of which one ends there; not so between two that pass side by side.

    A piece ends if what of it is level with the gap lies within `STUB` voxels of the line across the gap.
    """
    labels, _ = ndimage.label(vessel, CONNECTED)
    seed = np.zeros_like(vessel)
    seed[tuple(plug.T)] = True
    pieces = np.setdiff1d(labels[ndimage.binary_dilation(seed, CONNECTED)], [0])
    if len(pieces) < 2:
        return False
    centre = plug.mean(axis=0)
    places = [np.argwhere(labels == piece) - centre for piece in pieces]
    # Where each comes near: the mean of its voxels, those close by counting most.
    near = [np.average(place, axis=0, weights=1 / (place**2).sum(axis=1) ** 2) for place in places]
    for k, place in enumerate(places):
        line = near[k] - np.mean([other for j, other in enumerate(near) if j != k], axis=0)
        line /= max(float(np.linalg.norm(line)), 1e-12)
        along = place @ line
        level = along <= along.min() + 1.5
        if np.linalg.norm(place[level] - along[level, None] * line, axis=1).max() <= STUB:
            return True
    return False


def verified(features: list[FalseFeature], sdf: np.ndarray) -> list[FalseFeature]:
    """Those features whose mending changes the Betti numbers as it should: all together, or in halves, and so on."""
    if not features:
        return []
    mask = sdf <= 0
    return _accepted(features, mask, np.array(betti_numbers(mask)))[0]


def _accepted(
    features: list[FalseFeature], mask: Bool[np.ndarray, "x y z"], betti: Int64[np.ndarray, "3"]
) -> tuple[list[FalseFeature], Bool[np.ndarray, "x y z"], Int64[np.ndarray, "3"]]:
    """The features that can be mended in this mask, the mask after it, and its Betti numbers."""
    trial = flipped(mask, features)
    now = np.array(betti_numbers(trial))
    if (now - betti == np.sum([feature.change for feature in features], axis=0)).all():
        return features, trial, now
    if len(features) == 1:
        return [], mask, betti
    half = len(features) // 2
    first, mask, betti = _accepted(features[:half], mask, betti)
    second, mask, betti = _accepted(features[half:], mask, betti)
    return first + second, mask, betti


def flipped(mask: Bool[np.ndarray, "x y z"], features: Iterable[FalseFeature]) -> Bool[np.ndarray, "x y z"]:
    """The mask with the voxels of the features on the other side."""
    result = mask.copy()
    for feature in features:
        result[tuple(feature.voxels.T)] ^= True
    return result


def mended(sdf: Num[np.ndarray, "x y z"], features: Iterable[FalseFeature]) -> Num[np.ndarray, "x y z"]:
    """The field (X, Y, Z) without these features of it: their voxels get the opposite sign, all others stay.

    Its Betti numbers differ from those of `sdf` by the sum of `feature.change`, so a mesh and a graph made of it agree.
    Around a mended place it is no distance any more: of a mask, measure the distance of `mended(...) <= 0` anew.

    >>> plate = np.full((9, 9, 5), 1.0); plate[1:8, 1:8, 1:4] = -1; plate[4, 4, 1:4] = 0.5
    >>> betti_numbers(plate <= 0), betti_numbers(mended(plate, false_features(plate, np.eye(4))) <= 0)
    ((1, 1, 0), (1, 0, 0))
    """
    result = sdf.copy() if sdf.dtype.kind == "f" else sdf.astype(np.float32)
    for feature in features:
        at = tuple(feature.voxels.T)
        # Zero counts as vessel.
        result[at] = np.where(result[at] <= 0, np.maximum(-result[at], 1e-6), -result[at])
    return result
