"""Two labels of the same named segments: which one lacks what, where that lies, and what it does to the topology.

Strategy: every voxel of one label is looked up in the other, in whose frame it is brought if need be (`alignment.py`):
it is found when the other has a vessel within the tolerance. What is not found falls into connected parts. Leaving a
segment or a part out and counting again says, exactly, what it does to the Betti numbers.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from vesselsdf.alignment import LANDMARKS, Alignment, align, moved
from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError
from vesselsdf.overlap import dice
from vesselsdf.segments import Labelled, Place, labelled, place, ring_over, ring_through, summary
from vesselsdf.topology.persistence import features
from vesselsdf.volume import Volume, check_same_grid, resample

SIDES = ("prediction", "reference")
# The tolerance is at least this many residuals of the alignment: three quarters of all normal errors in 3D are smaller
# than two root mean squares, 99% than three.
RESIDUALS = 3.0
# Of more parts than this, only the largest are left out one by one: each takes a count of the whole volume.
COUNTED = 30
# A segment counts as named otherwise from this share on.
RENAMED = 0.1


@dataclass(frozen=True, eq=False)
class Coverage:
    """What the other label has at each voxel of one label."""

    distance: Float[np.ndarray, " n"]  # mm to its nearest vessel voxel; 0 inside it
    number: Int[np.ndarray, " n"]  # its id there, or within the tolerance (the same id if that is); 0: not found
    inside: Bool[np.ndarray, " n"]  # whether the place lies in its grid at all


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two labels, and how it is seen from the other one."""

    name: str
    other: str
    label: Labelled
    opposite: Labelled
    fit: Alignment
    transform: Float[np.ndarray, "4 4"] | None  # mm to mm of the other one, if that is known
    coverage: Coverage | None

    def across(self, point: Sequence[float]) -> Place | None:
        """A place (mm) in the frame of the other label."""
        return None if self.transform is None else place(moved(self.transform, np.array([point]))[0])

    def places(self, point: Sequence[float]) -> dict[str, Any]:
        """A place (mm) in both frames, and the `error` (mm) that the alignment leaves between them."""
        here, there = place(np.array(point)), self.across(point)
        in_reference = here if self.name == SIDES[1] else there
        error = None if in_reference is None else self.fit.error_at(in_reference)
        return {self.name: here, self.other: there, "error": error}


def frame(p: Labelled, r: Labelled, asked: bool) -> Alignment:
    """How two labels lie to each other; on different grids only if that is `asked` for."""
    with suppress(InputError):  # which says that the grids differ: what follows is for those
        check_same_grid(p.volume, r.volume)
        return Alignment("grid")
    if not asked:
        return Alignment("none", why="they are on different grids, and no alignment was asked for")
    # Where a segment ends in another one is anatomy; where it ends in nothing is often the edge of somebody's box, so
    # centroids are worse landmarks: on a circle of Willis in CT and MR they leave 2.1 mm, the contacts 0.5 mm.
    places: tuple[dict[str, Place], dict[str, Place]] = ({}, {})
    for key in p.contacts.keys() & r.contacts.keys():
        if len(p.contacts[key].places) == len(r.contacts[key].places) == 1:
            for side, label in zip(places, (p, r), strict=True):
                side[f"contact of {key[0]} and {key[1]}"] = label.contacts[key].places[0]
    for enough, at_border in ((2 * LANDMARKS, False), (LANDMARKS + 1, True)):
        if len(places[0]) >= enough:
            break
        for number in set(p.ids) & set(r.ids):
            if at_border or not (p.segments[number].at_border or r.segments[number].at_border):
                for side, label in zip(places, (p, r), strict=True):
                    side[f"centroid of {number}"] = label.segments[number].centroid
    return align(places[0], places[1], max(*p.volume.spacing, *r.volume.spacing))


def compare_segments(
    prediction: Volume,
    reference: Volume,
    alignment: bool = False,
    tolerance: float | int | None = None,
    files: tuple[str, str] = ("the prediction", "the reference"),
) -> tuple[dict[str, Any], Volume | None]:
    """Compare two labels segment by segment: the report, and the prediction on the reference's grid (None: not known).

    alignment: labels on different grids are brought together by a rigid motion of what they have in common; without it,
        or where none fits (`report["alignment"]["why"]`), nothing that needs both frames is given.
    tolerance: mm within which a vessel counts as found; by default the longest voxel edge of both, and at least three
        residuals of the alignment.

    The report: `alignment`, `tolerance`, `segments` (per id: volume, pieces, Betti numbers, centroid in each; Dice;
    `found`, the share of its voxels that the other has by the same name), `contacts` (which segments touch, where),
    `parts` (what one lacks, with the Betti numbers without it), `topology` (of each, as a whole, and without what the
    other one lacks). Labels without any id in common are a result, not an error. InputError for what is no label.
    """
    p, r = labelled(prediction, files[0]), labelled(reference, files[1])
    fit = frame(p, r, alignment)
    if tolerance is None:
        left = 0.0 if np.isnan(fit.residual) else fit.residual
        tolerance = max(*prediction.spacing, *reference.spacing, RESIDUALS * left * (fit.kind == "rigid"))
    sides = _sides(p, r, fit, float(tolerance))
    on_grid = None
    if fit.kind == "grid":
        on_grid = prediction
    elif fit.known:
        on_grid = resample(fit.apply(prediction), reference.shape, reference.affine, order=0, fill=0)
    parts = [part for side in sides for part in _parts(side, float(tolerance))]
    report = {
        "alignment": fit.as_dict(),
        "tolerance": float(tolerance),
        "segments": [_row(number, sides, on_grid, reference) for number in sorted({*p.ids, *r.ids})],
        "contacts": [_contact(key, sides) for key in sorted(p.contacts.keys() | r.contacts.keys())],
        "parts": [{key: value for key, value in part.items() if key != "voxels"} for part in parts],
        "topology": {side.name: summary(side.label) | _without(side, parts) for side in sides},
    }
    return report, on_grid


def _sides(p: Labelled, r: Labelled, fit: Alignment, tolerance: float) -> tuple[Side, Side]:
    if not fit.known:
        return Side(*SIDES, p, r, fit, None, None), Side(*SIDES[::-1], r, p, fit, None, None)
    back = np.linalg.inv(fit.transform)
    return (
        Side(*SIDES, p, r, fit, fit.transform, _coverage(p, r, fit.transform, tolerance)),
        Side(*SIDES[::-1], r, p, fit, back, _coverage(r, p, back, tolerance)),
    )


def _coverage(one: Labelled, other: Labelled, transform: np.ndarray, tolerance: float) -> Coverage:
    points = moved(transform, one.points)
    index = np.rint(other.volume.to_index(points)).astype(np.int64)
    inside = ((index >= 0) & (index < other.volume.shape)).all(axis=1)
    number = np.zeros(len(points), np.int64)
    number[inside] = other.volume.array[tuple(index[inside].T)]
    distance = np.zeros(len(points))
    away = np.flatnonzero(number == 0)
    if len(away):
        distance[away], nearest = cKDTree(other.points).query(points[away])
        number[away] = np.where(distance[away] <= tolerance, other.numbers[nearest], 0)
    # Neighbours may share a voxel out differently: the same name within the tolerance is the same segment.
    for name in set(one.ids) & set(other.ids):
        doubtful = np.flatnonzero((one.numbers == name) & (number != name) & (number != 0))
        if len(doubtful):
            tree = cKDTree(other.points[other.numbers == name])
            near = tree.query(points[doubtful], distance_upper_bound=tolerance)[0] <= tolerance
            number[doubtful[near]] = name
    return Coverage(distance, number, inside)


def _parts(side: Side, tolerance: float) -> list[dict[str, Any]]:
    """Connected parts of one label that the other lacks, largest first; those below the cube of the tolerance are not.

    A part is made of voxels farther than the tolerance from the other's vessel, and of those beside them that the
    other's vessel nowhere overlaps once they are gone: a whole piece is not left with a rim.
    """
    label, coverage = side.label, side.coverage
    if coverage is None:
        return []
    far = coverage.distance > tolerance
    if not far.any():
        return []
    rest = label.pieces(~far)
    overlapped = np.zeros(rest.max() + 1, bool)
    overlapped[rest[coverage.distance == 0]] = True
    candidates = label.pieces(far | ~overlapped[rest] & ~far)
    parts = []
    voxel = abs(np.linalg.det(label.volume.affine[:3, :3]))
    for number in np.unique(candidates[far]):
        chosen = candidates == number
        if chosen.sum() * voxel < tolerance**3:
            continue
        ids, counts = np.unique(label.numbers[chosen], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        parts.append(
            {
                "missing_in": side.other,
                "ids": ids[order].tolist(),
                "shares": (counts[order] / counts.sum()).tolist(),
                "volume": float(chosen.sum() * voxel),
                "places": side.places(label.middle(chosen)),
                "inside": float(coverage.inside[chosen].mean()),
                "voxels": chosen,
            }
        )
    parts.sort(key=lambda part: -part["volume"])
    for k, part in enumerate(parts):
        part["betti_without"] = label.betti_without(part["voxels"]) if k < COUNTED else None
    return parts


def _without(side: Side, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Betti numbers without all that the other label lacks: equal on both sides if that explains the difference."""
    left_out = np.zeros(len(side.label.voxels), bool)
    for part in parts:
        if part["missing_in"] == side.other:
            left_out |= part["voxels"]
    return {"betti_of_what_both_have": side.label.betti_without(left_out) if side.coverage else None}


def _row(number: int, sides: tuple[Side, Side], on_grid: Volume | None, reference: Volume) -> dict[str, Any]:
    row: dict[str, Any] = {"id": number}
    for side in sides:
        row[side.name] = _segment(number, side)
    row["dice"] = dice(on_grid.array == number, reference.array == number) if on_grid else None
    return row


def _segment(number: int, side: Side) -> dict[str, Any] | None:
    segment = side.label.segments.get(number)
    if segment is None:
        return None
    facts: dict[str, Any] = {
        "volume": segment.volume,
        "pieces": segment.pieces,
        "betti": segment.betti,
        "centroid": segment.centroid,
        "places": side.places(segment.place),
        "at_border": segment.at_border,
        "touches": sorted(side.label.graph[number]),
    }
    members = side.label.numbers == number
    if side.coverage is not None:
        named, counts = np.unique(side.coverage.number[members], return_counts=True)
        shares = {int(name): float(count / members.sum()) for name, count in zip(named, counts, strict=True)}
        facts["found"] = shares.pop(number, 0.0)
        facts["missing"] = shares.pop(0, 0.0)
        facts["named_otherwise"] = {name: share for name, share in shares.items() if share >= RENAMED}
        facts["inside"] = float(side.coverage.inside[members].mean())
    opposite = side.opposite.segments.get(number)
    if opposite is None:
        facts["betti_without"] = side.label.betti_without(members)
        facts["ring"] = ring_through(side.label.graph, number)
    elif len(segment.pieces) > len(opposite.pieces):
        facts["gap"] = _gap(side.label, members)
    elif segment.betti[1] > opposite.betti[1]:
        facts["loops"] = _loops(side, number)
    return facts


def _gap(label: Labelled, members: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """The way from the second largest piece of a segment to the nearest other one of its pieces.

    Between voxel centres, mm; `at_border` if it lies nearer to the border of the grid than it is long, so that the
    pieces may well be joined outside.
    """
    piece = label.pieces(members)
    second = np.argsort(-np.bincount(piece)[1:], kind="stable")[1] + 1
    here, there = label.points[piece == second], label.points[members & (piece != second)]
    distance, nearest = cKDTree(there).query(here)
    k = int(distance.argmin())
    middle = (here[k] + there[nearest[k]]) / 2
    index = label.volume.to_index(middle[None])[0]
    to_border = (np.minimum(index, np.array(label.volume.shape) - 1 - index) * label.volume.spacing).min()
    return {"distance": float(distance[k]), "place": place(middle), "at_border": bool(to_border <= distance[k])}


def _loops(side: Side, number: int) -> list[dict[str, Any]]:
    """The loops inside one segment: their thinnest places and margins (mm), the widest margin first."""
    members = side.label.numbers == number
    voxels = side.label.voxels[members]
    low = voxels.min(axis=0) - 1
    mask = np.zeros(voxels.max(axis=0) - low + 2, bool)
    mask[tuple((voxels - low).T)] = True
    affine = side.label.volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    found = features(signed_distance(mask, side.label.volume.spacing), affine)
    loops = sorted((f for f in found if f.dimension == 1 and f.alive), key=lambda f: -f.margin)
    return [{"margin": loop.margin, "places": side.places(loop.birth_place)} for loop in loops]


def _contact(key: tuple[int, int], sides: tuple[Side, Side]) -> dict[str, Any]:
    """Where two segments touch in each label; and if they are there but apart in one of them, how far and where."""
    row: dict[str, Any] = {"ids": key}
    for side in sides:
        contact = side.label.contacts.get(key)
        row[side.name] = None if contact is None else {"places": contact.places}
        if contact is not None and key not in side.opposite.contacts:
            row[side.name]["expected"] = side.across(contact.places[0])
            row[side.name]["ring"] = ring_over(side.label.graph, *key)
        elif contact is None and set(key) <= set(side.label.ids):
            row[side.name] = {"places": (), "apart": _apart(side.label, key)}
    return row


def _apart(label: Labelled, key: tuple[int, int]) -> dict[str, Any]:
    first, second = (label.points[label.numbers == number] for number in key)
    distance, nearest = cKDTree(second).query(first)
    k = int(distance.argmin())
    return {"distance": float(distance[k]), "place": place((first[k] + second[nearest[k]]) / 2)}
