"""Murray's law r_parent^g = sum r_child^g (Murray 1926: g = 3): the exponent of one bifurcation, and of many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar

# Exponents that are looked for: measured trees have 2 to 4.
LEAST, MOST = 0.25, 16.0
RESAMPLES = 400


def murray_exponent(parent: float, children: Sequence[float]) -> tuple[float | None, str]:
    """The exponent g > 0 that solves `parent**g = sum(child**g)`, or None and the reason why there is none.

    >>> round(murray_exponent(1.0, [2 ** (-1 / 3)] * 2)[0], 12)
    3.0
    >>> murray_exponent(1.0, [1.0, 0.5])
    (None, 'a child is not thinner than its parent')
    """
    if len(children) < 2:
        return None, "fewer than two children"
    if parent <= 0 or min(children) <= 0:
        return None, "a radius is zero"
    ratios = np.array(children, dtype=np.float64) / parent
    if ratios.max() >= 1:
        return None, "a child is not thinner than its parent"
    # n q^g is at most the sum for the thinnest child's ratio q and at least the sum for the widest one's.
    low, high = (math.log(len(ratios)) / -math.log(q) for q in (ratios.min(), ratios.max()))
    if high - low <= 1e-12 * high:
        return high, ""
    return float(brentq(lambda g: math.log((ratios**g).sum()), low * (1 - 1e-9), high * (1 + 1e-9), xtol=1e-12)), ""


@dataclass(frozen=True)
class MurrayFit:
    """The exponent of a whole tree with its 95% interval; NaN where nothing can be fitted."""

    exponent: float
    low: float
    high: float
    bifurcations: int


def fit_murray(parents: Sequence[float], children: Sequence[Sequence[float]]) -> MurrayFit:
    """One exponent for many bifurcations, by least absolute deviations: a few wrong radii do not move it.

    The deviation of a bifurcation is `log((sum child**g)**(1/g) / parent)`, the relative error of the parent's radius,
    so radii that are all a few percent off weigh alike, and a bifurcation with a tiny side branch, which says little
    about g, moves little with it. Bifurcations without an exponent of their own (a child is not thinner than
    its parent) count too: leaving them out would bias the exponent downwards. The interval is a percentile bootstrap
    over bifurcations (Efron 1979; fixed seed); it has infinite length, and is given as NaN, for fewer than five.

    >>> fit = fit_murray([1.0] * 6, [[2 ** (-1 / 2.5)] * 2] * 6)
    >>> round(fit.exponent, 3), round(fit.low, 3), round(fit.high, 3)
    (2.5, 2.5, 2.5)
    """
    usable = [
        (parent, list(radii))
        for parent, radii in zip(parents, children, strict=True)
        if len(radii) > 1 and parent > 0 and min(radii) > 0
    ]
    if not usable:
        return MurrayFit(math.nan, math.nan, math.nan, 0)
    most = max(len(radii) for _, radii in usable)
    logs = np.full((len(usable), most), -np.inf)  # of child / parent
    for row, (parent, radii) in enumerate(usable):
        logs[row, : len(radii)] = np.log(np.array(radii) / parent)
    grid = np.geomspace(LEAST, MOST, 121)
    cost = np.stack([np.abs(deviation(logs, g)) for g in grid])  # (exponents, bifurcations)
    exponent = refined(logs, grid, cost.sum(axis=1))
    if len(usable) < 5:
        return MurrayFit(exponent, math.nan, math.nan, len(usable))
    generator = np.random.default_rng(0)
    draws = generator.integers(len(usable), size=(RESAMPLES, len(usable)))
    counts = np.stack([np.bincount(draw, minlength=len(usable)) for draw in draws])
    found = [refined(logs[draw], grid, column) for draw, column in zip(draws, (cost @ counts.T).T, strict=True)]
    low, high = np.percentile(found, [2.5, 97.5])
    return MurrayFit(exponent, float(low), float(high), len(usable))


def deviation(logs: Float[np.ndarray, "n k"], exponent: float) -> Float[np.ndarray, " n"]:
    """log of (sum (child / parent)^g)^(1/g) of each bifurcation, from the logs of the ratios (-inf: no child)."""
    top = logs.max(axis=1, keepdims=True)
    return (top[:, 0] * exponent + np.log(np.exp(exponent * (logs - top)).sum(axis=1))) / exponent


def refined(logs: Float[np.ndarray, "n k"], grid: Float[np.ndarray, " g"], cost: Float[np.ndarray, " g"]) -> float:
    """The exponent of the least sum of absolute deviations, near the best of a grid."""
    k = int(cost.argmin())
    low, high = float(grid[max(k - 1, 0)]), float(grid[min(k + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda g: float(np.abs(deviation(logs, g)).sum()), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    return float(found.x)
