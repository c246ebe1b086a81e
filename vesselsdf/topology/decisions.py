"""Whether two descriptions of a vessel tree lead to the same decisions, and where they part.

A description is a dict as `vesselsdf.graph.decisions` gives it: counts, lengths and radii (mm), lists of counts, and
lists of records that have a `place`. Counts must be equal; lengths and radii may differ by a relative tolerance;
records are paired by their places.
"""

import math
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

# Follows from the numbers of trees, terminals and loops; places are where something is, not what is decided.
NOT_DECISIVE = ("branches", "place", "narrowest_place")


def changed(
    before: dict[str, Any],
    after: dict[str, Any],
    reach: float | int,
    length_tolerance: float | int = 0.05,
    radius_tolerance: float | int = 0.10,
) -> list[dict[str, Any]]:
    """What differs between two descriptions: a list of `decision`, `before`, `after`, and `place` (mm) if it has one.

    reach: how far apart (mm) the places of two records may lie that are the same thing. A record without a partner is
    reported with None on the other side. The tolerances are relative; that for radii applies to names with "radius".

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
    partner: dict[int, int] = {}
    if old and new:
        a, b = (np.array([record["place"] for record in side], float) for side in (old, new))
        distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
        # What is out of reach costs more than any pairing within reach could save.
        rows, columns = linear_sum_assignment(np.where(distance <= reach, distance, reach * (len(a) + len(b) + 1) + 1))
        partner = {int(i): int(j) for i, j in zip(rows, columns, strict=True) if distance[i, j] <= reach}
    for i, record in enumerate(old):
        if i not in partner:
            found.append({"decision": name, "place": record["place"], "before": plain(record), "after": None})
            continue
        for difference in changed(record, new[partner[i]], reach, *tolerances):
            found.append({**difference, "decision": f"{name}.{difference['decision']}", "place": record["place"]})
    for j in sorted(set(range(len(new))) - set(partner.values())):
        found.append({"decision": name, "place": new[j]["place"], "before": None, "after": plain(new[j])})
    return found


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its places."""
    return {key: value for key, value in record.items() if key not in NOT_DECISIVE}


def same(name: str, old: Any, new: Any, tolerances: tuple[float | int, float | int]) -> bool:
    """Equal, for floats within the tolerance that the name calls for."""
    numbers = (float, np.floating)
    if isinstance(old, numbers) or isinstance(new, numbers):
        if old is None or new is None:
            return False
        return math.isclose(old, new, rel_tol=tolerances["radius" in name], abs_tol=1e-9)
    return bool(np.array_equal(old, new)) if isinstance(old, np.ndarray) else bool(old == new)
