"""Distances between persistence diagrams: bottleneck and Wasserstein, both exact.

A diagram is an (n, 2) array of births and deaths in mm, a death may be `inf`; `persistence.diagrams` gives one per
dimension. A partial matching of two diagrams moves each matched point by the maximum norm of the difference, and each
other point to the diagonal, by half its persistence. The bottleneck distance is the least possible largest move, the
Wasserstein distance of order q the least possible q-norm of all moves. Points that never die move only among
themselves, in the order of their births; the distance is `inf` where their numbers differ. Points on the diagonal do
not count. For fields on one grid the bottleneck distance of their diagrams is at most `sup |f - g|` (stability;
Cohen-Steiner, Edelsbrunner, Harer 2007), and so it is with the same band on both sides, since clipping does not expand
the sup norm.

Strategy. *Bottleneck*: with moves up to t, the points whose persistence exceeds 2 t must be matched. A matching that
covers those of both diagrams exists as soon as there is one for either (Mendelsohn and Dulmage 1958), so each threshold
takes two runs of Hopcroft and Karp on neighbours found in a k-d tree. The answer is one of the half persistences or of
the distances; both are searched by bisection. *Wasserstein*: a pair is worth matching only if it moves less than its
two points would to the diagonal, and what is gained is to be maximal: a linear assignment problem in as many rows and
columns as there are points. (`gudhi.hera.wasserstein_distance`, gudhi 3.13, is not used: where some points never die,
it crashes or hangs if the others are equal in both diagrams, or if there are others in one only, as with
`[[1, inf], [0, 2], [3, 4]]` and `[[0, inf]]`. Hera itself has mended the latter since.)
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree

from vesselsdf.errors import InputError

# Pairs of points up to which the assignment is solved: 4000 points in each diagram, 130 MB and some seconds.
MAX_PAIRS = 16_000_000
# Pairs of neighbours up to which the bottleneck distance is found here, at 60 bytes each.
MAX_LINKS = 10_000_000


class TooManyLinks(Exception):
    """More than `MAX_LINKS` neighbours within a threshold: many points in few places."""


def bottleneck(first: Shaped[np.ndarray, "..."], second: Shaped[np.ndarray, "..."]) -> float:
    """Bottleneck distance of two diagrams (n, 2) and (m, 2), mm; 0 only if they are equal off the diagonal.

    Both empty: 0. One empty: half the longest persistence of the other. Different numbers of points that never die:
    inf. Raises InputError for other shapes, NaN, infinite births, and deaths before births.

    >>> bottleneck(np.array([[0.0, 4.0], [1.0, 2.0]]), np.array([[0.0, 3.0]]))
    1.0
    """
    a, b = points(first, "first"), points(second, "second")
    moves = essential_moves(a, b)
    if moves is None:
        return math.inf
    a, b = mortal(a), mortal(b)
    try:
        finite = finite_bottleneck(a, b)
    except TooManyLinks:
        from gudhi import hera  # slower, but it needs little memory

        finite = float(hera.bottleneck_distance(a, b, delta=0))
    return max(float(moves.max(initial=0.0)), finite)


def wasserstein(first: Shaped[np.ndarray, "..."], second: Shaped[np.ndarray, "..."], order: float | int = 1) -> float:
    """Wasserstein distance of an order >= 1 of two diagrams (n, 2) and (m, 2), mm; the ground distance is the max norm.

    Both empty: 0. One empty: the q-norm of the half persistences of the other. Different numbers of points that never
    die: inf. Raises InputError for bad diagrams (see `bottleneck`), for orders below 1 or not finite, and for more than
    `MAX_PAIRS` pairs of points: then `wasserstein_bounds` has an answer.

    >>> wasserstein(np.array([[0.0, 4.0], [1.0, 2.0]]), np.array([[0.0, 3.0]]))
    1.5
    """
    low, high = wasserstein_bounds(first, second, order)
    if low < high:
        raise InputError(
            f"The diagrams have {len(first)} and {len(second)} points, too many for an exact Wasserstein distance; "
            "use a narrower band, or wasserstein_bounds."
        )
    return low


def wasserstein_bounds(
    first: Shaped[np.ndarray, "..."], second: Shaped[np.ndarray, "..."], order: float | int = 1
) -> tuple[float, float]:
    """Two numbers between which the Wasserstein distance lies: equal, and exact, up to `MAX_PAIRS` pairs of points.

    Beyond, the upper one belongs to the best matching within cells of the plane, as a rule 10 to 30% above the
    distance. The lower one is weak: the difference of the distances from the empty diagram (triangle inequality).

    >>> wasserstein_bounds(np.array([[0.0, 4.0]]), np.array([[0.0, 3.0]]))
    (1.0, 1.0)
    """
    if not 1 <= order < math.inf:
        raise InputError(f"order is {order}; give a finite number of at least 1 (for infinity: bottleneck).")
    a, b = points(first, "first"), points(second, "second")
    moves = essential_moves(a, b)
    if moves is None:
        return math.inf, math.inf
    a, b = mortal(a), mortal(b)
    if order == 1:
        a, b = without_common(a, b)
    if len(a) * len(b) <= MAX_PAIRS:
        value = norm(np.append(moves, best_moves(a, b, order)), order)
        return value, value
    high = norm(np.concatenate([moves, *moves_within_cells(a, b, order, max(1, MAX_PAIRS // 16))]), order)
    least = abs(norm(half(a), order) - norm(half(b), order))
    return min(norm(np.append(moves, least), order), high), high


def diagram_distances(
    first: list[Shaped[np.ndarray, "..."]], second: list[Shaped[np.ndarray, "..."]], order: float | int = 1
) -> list[dict[str, Any]]:
    """Distances of two results of `persistence.diagrams`, per dimension.

    Each dict has `bottleneck` and `wasserstein` (mm; None where there are too many points for the exact value), and
    `wasserstein_bounds`. Raises InputError where the lists differ in length, or as the functions for single diagrams.

    >>> diagram_distances([np.array([[0.0, 2.0]])], [np.array([[0.5, 2.0]])])
    [{'bottleneck': 0.5, 'wasserstein': 0.5, 'wasserstein_bounds': (0.5, 0.5)}]
    """
    if len(first) != len(second):
        raise InputError(f"There are {len(first)} and {len(second)} diagrams; give one per dimension on both sides.")
    result = []
    for a, b in zip(first, second, strict=True):
        low, high = wasserstein_bounds(a, b, order)
        exact = None if low < high else low
        result.append({"bottleneck": bottleneck(a, b), "wasserstein": exact, "wasserstein_bounds": (low, high)})
    return result


def points(diagram: Shaped[np.ndarray, "..."], name: str) -> Float[np.ndarray, "n 2"]:
    """The points off the diagonal, float64; InputError for what is no diagram."""
    if diagram.ndim != 2 or diagram.shape[1] != 2 or diagram.dtype.kind not in "fiu":
        raise InputError(
            f"The {name} diagram has shape {diagram.shape} and dtype {diagram.dtype}; give (n, 2) births and deaths."
        )
    diagram = diagram.astype(np.float64)
    birth, death = diagram.T
    if not (np.isfinite(birth).all() and (birth <= death).all()):
        raise InputError(f"The {name} diagram has NaN, an infinite birth, or a death before its birth.")
    return diagram[birth < death]


def mortal(diagram: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "m 2"]:
    """The points that die."""
    return diagram[np.isfinite(diagram[:, 1])]


def half(diagram: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Distance of each point from the diagonal."""
    return (diagram[:, 1] - diagram[:, 0]) / 2


def norm(moves: Float[np.ndarray, " n"], order: float | int) -> float:
    """Norm of that order."""
    return float(np.linalg.norm(moves, order)) if moves.size else 0.0


def essential_moves(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, " k"] | None:
    """How far the points that never die move, matched in the order of births; None where their numbers differ."""
    births = [np.sort(diagram[np.isinf(diagram[:, 1]), 0]) for diagram in (a, b)]
    return None if births[0].size != births[1].size else np.abs(births[0] - births[1])


def finite_bottleneck(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"]) -> float:
    """Bottleneck distance of points that die."""
    if len(a) == 0 or len(b) == 0:
        return float(np.append(half(a), half(b)).max(initial=0.0))
    levels = np.unique(np.concatenate([[0.0], half(a), half(b)]))
    trees = cKDTree(a), cKDTree(b)

    # Thresholds are tried from above, where few points must be matched, in steps that double.
    good, step = levels.size - 1, 1
    bad = -1
    while good > 0 and bad < 0:
        trial = max(good - step, 0)
        if matched(edges(a, b, trees, levels[trial], levels[trial]), levels[trial]):
            good, step = trial, 2 * step
        else:
            bad = trial
    good = bad + first_good(levels[bad + 1 : good + 1], lambda t: matched(edges(a, b, trees, t, t), t)) + 1
    if good == 0:
        return 0.0
    # Between two levels the points that must be matched are the same, and distances are the only thresholds.
    links = edges(a, b, trees, levels[good - 1], levels[good])
    lengths = np.concatenate([length for _, _, length in links])
    inner = np.unique(lengths[(lengths > levels[good - 1]) & (lengths < levels[good])])
    values = np.append(inner, levels[good])
    return float(values[first_good(values, lambda t: matched(links, t))])


def first_good(values: Float[np.ndarray, " n"], good: Any) -> int:
    """Index of the first of some rising values that is good, as all after it are, and certainly the last."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if good(float(values[middle])):
            high = middle
        else:
            low = middle + 1
    return low


Links = list[tuple[np.ndarray, tuple[int, int], np.ndarray]]


def edges(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"], trees: tuple, level: float, reach: float) -> Links:
    """For both diagrams: pairs (a point farther from the diagonal than the level, any point of the other) in reach.

    As index pairs (2, e), the numbers of points on both sides, and distances (e,).
    """
    result = []
    reach = float(np.nextafter(reach, np.inf))  # the tree may take its limit as exclusive
    for one, other, tree in ((a, b, trees[1]), (b, a, trees[0])):
        must = cKDTree(one[half(one) > level].reshape(-1, 2))
        found = np.zeros(0, [("i", np.intp), ("j", np.intp), ("v", np.float64)])
        if must.n:
            if must.count_neighbors(tree, reach, p=np.inf) > MAX_LINKS:
                raise TooManyLinks
            found = must.sparse_distance_matrix(tree, reach, p=np.inf, output_type="ndarray")
        result.append((np.stack([found["i"], found["j"]]), (must.n, len(other)), found["v"]))
    return result


def matched(links: Links, reach: float) -> bool:
    """Whether, on both sides, all points that must be matched can be, by links of at most that length."""
    for ends, shape, length in links:
        i, j = ends[:, length <= reach]
        if np.unique(i).size < shape[0]:
            return False
        graph = csr_array((np.ones(i.size, bool), (i, j)), shape)
        if shape[0] and (maximum_bipartite_matching(graph, perm_type="column") < 0).any():
            return False
    return True


def without_common(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "l 2"]]:
    """Both without the points that they share, which for order 1 never changes the distance (triangle inequality)."""
    both, which = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    which = which.reshape(-1)
    surplus = np.bincount(which[: len(a)], minlength=len(both)) - np.bincount(which[len(a) :], minlength=len(both))
    return np.repeat(both, np.maximum(surplus, 0), axis=0), np.repeat(both, np.maximum(-surplus, 0), axis=0)


def moves_within_cells(
    a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"], order: float | int, most: int
) -> list[Float[np.ndarray, " k"]]:
    """`best_moves` in cells of at most that many pairs, halved at the median of their wider side."""
    if len(a) * len(b) <= most:
        return [best_moves(a, b, order)]
    both = np.concatenate([a, b])
    axis = int(np.argmax(np.ptp(both, axis=0)))
    border = np.median(both[:, axis])
    low_a, low_b = a[:, axis] <= border, b[:, axis] <= border
    if low_a.all() and low_b.all():  # more than half of the points lie on the border
        low_a, low_b = a[:, axis] < border, b[:, axis] < border
    if not (low_a.any() or low_b.any()):  # all points are in one place
        low_a, low_b = (np.arange(len(side)) < len(side) // 2 for side in (a, b))
    return [
        *moves_within_cells(a[low_a], b[low_b], order, most),
        *moves_within_cells(a[~low_a], b[~low_b], order, most),
    ]


def best_moves(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "m 2"], order: float | int) -> Float[np.ndarray, " k"]:
    """The moves of the matching whose sum of powers is least."""
    to_diagonal = half(a), half(b)
    # What is gained by matching a pair; nothing is lost by pairs that are better left to the diagonal.
    worth = np.empty((len(a), len(b)))
    for row, (point, alone) in enumerate(zip(a, to_diagonal[0], strict=True)):
        worth[row] = alone**order + to_diagonal[1] ** order - np.abs(b - point).max(axis=1) ** order
    np.maximum(worth, 0.0, out=worth)
    i, j = linear_sum_assignment(worth, maximize=True)
    gained = worth[i, j] > 0
    i, j = i[gained], j[gained]
    pairs = np.abs(a[i] - b[j]).max(axis=1, initial=0.0)
    return np.concatenate([pairs, np.delete(to_diagonal[0], i), np.delete(to_diagonal[1], j)])
