"""Whether two descriptions of a vessel tree lead to the same decisions, and where they part.

The decisions are a dict as `vesselsdf.anatomy.decisions` gives it: counts, lengths and radii (mm), lists of counts, and
lists of records that have a `place`. Counts must be equal; lengths and radii may differ by a relative tolerance;
records are paired by their places.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from vesselsdf.topology.pairing import pairs_within

# Follows from the numbers of trees, terminals and loops; places are where something is, not what is decided.
NOT_DECISIVE = ("branches", "place", "narrowest_place")

# The end of a branch moves by its radius when a level rounds it off; thin ones are resolved by about this many voxels.
REACH_IN_VOXELS = 3.0


@dataclass(frozen=True)
class Description:
    """What a level's vessel tree is described by, for comparison with that of another level.

    `decisions`: see the head of this module. `branches` and `necks`: records with a `place` (mm), as
    `vesselsdf.branch_persistence` gives them. `middles` (n, 3) and `lengths` (n,), mm: the centreline in short pieces.
    """

    decisions: dict[str, Any]
    branches: list[dict[str, Any]] = field(default_factory=list)
    necks: list[dict[str, Any]] = field(default_factory=list)
    middles: Float[np.ndarray, "n 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    lengths: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))


Decide = Callable[[np.ndarray, np.ndarray], "dict[str, Any] | Description"]


def described(answer: "dict[str, Any] | Description") -> Description:
    """A description, also from a plain dict of decisions."""
    return answer if isinstance(answer, Description) else Description(answer)


def changed(
    before: dict[str, Any],
    after: dict[str, Any],
    reach: float | int,
    length_tolerance: float | int = 0.05,
    radius_tolerance: float | int = 0.10,
) -> list[dict[str, Any]]:
    """What differs between two sets of decisions: a list of `decision`, `before`, `after`, and `place` (mm) if any.

    reach: how far apart (mm) the places of two records may lie that are the same thing. A record without a partner is
    reported with None on the other side. The tolerances are relative; that for radii applies to names with "radius".
    Where a path's minimum radius differs, `place` is the narrowest place before, and `terminal` the end of the path.
    Lists of counts per tree are compared without their order.

    >>> changed({"loops": 2, "total_length": 100.0}, {"loops": 1, "total_length": 98.0}, reach=1)
    [{'decision': 'loops', 'before': 2, 'after': 1}]
    """
    found: list[dict[str, Any]] = []
    for name in [*before, *(name for name in after if name not in before)]:
        if name in NOT_DECISIVE:
            continue
        old, new = before.get(name), after.get(name)
        if is_records(old) or is_records(new):
            found += changed_records(name, old or [], new or [], reach, (length_tolerance, radius_tolerance))
        elif not same(name, old, new, (length_tolerance, radius_tolerance)):
            found.append({"decision": name, "before": old, "after": new})
    return found


def is_records(value: Any) -> bool:
    """Whether a value is a non-empty list of dicts that have a place."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "place" in v for v in value)


def changed_records(
    name: str, old: list[dict], new: list[dict], reach: float | int, tolerances: tuple[float | int, float | int]
) -> list[dict[str, Any]]:
    """Differences of records, those paired that lie nearest to each other within reach (least total distance)."""
    found: list[dict[str, Any]] = []
    partner = dict(pairs_within(places(old), places(new), reach).tolist())
    for i, record in enumerate(old):
        if i not in partner:
            found.append({"decision": name, "place": record["place"], "before": plain(record), "after": None})
            continue
        for difference in changed(record, new[partner[i]], reach, *tolerances):
            at = {"place": record["place"]}
            if difference["decision"] == "minimum_radius" and "narrowest_place" in record:
                at = {"place": record["narrowest_place"], "terminal": record["place"]}
            found.append({**difference, "decision": f"{name}.{difference['decision']}", **at})
    for j in sorted(set(range(len(new))) - set(partner.values())):
        found.append({"decision": name, "place": new[j]["place"], "before": None, "after": plain(new[j])})
    return found


def unpaired(old: list[dict], new: list[dict], reach: float | int) -> tuple[list[dict], list[dict]]:
    """Records of each side that have no partner of the other within reach."""
    found = pairs_within(places(old), places(new), reach)
    left, right = set(found[:, 0].tolist()), set(found[:, 1].tolist())
    return [r for i, r in enumerate(old) if i not in left], [r for j, r in enumerate(new) if j not in right]


def distances_to(description: Description, records: list[dict]) -> list[float | None]:
    """How far (mm) each record's place is from the nearest piece of the described centreline; None if there is none."""
    if not len(description.middles) or not records:
        return [None] * len(records)
    return cKDTree(description.middles).query(places(records))[0].tolist()


def places(records: list[dict]) -> Float[np.ndarray, "n 3"]:
    """The places of records, mm."""
    return np.array([record["place"] for record in records], float).reshape(-1, 3)


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its places."""
    return {key: value for key, value in record.items() if key not in NOT_DECISIVE}


def same(name: str, old: Any, new: Any, tolerances: tuple[float | int, float | int]) -> bool:
    """Equal, for floats within the tolerance that the name calls for, for counts per tree in any order."""
    numbers = (float, np.floating)
    if isinstance(old, numbers) or isinstance(new, numbers):
        if old is None or new is None:
            return False
        return math.isclose(old, new, rel_tol=tolerances["radius" in name], abs_tol=1e-9)
    if name.endswith("_per_tree") and isinstance(old, list) and isinstance(new, list):
        return sorted(old) == sorted(new)
    return bool(np.array_equal(old, new)) if isinstance(old, np.ndarray) else bool(old == new)
