"""Murray's law r_parent^g = sum r_child^g (Murray 1926: g = 3): the exponent of one bifurcation, and of many."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq, minimize_scalar

# Exponents that are looked for: measured trees have 2 to 4.
LEAST, MOST = 0.25, 16.0
GRID = 401  # steps of 1%
RESAMPLES = 1000
FEWEST = 5  # bifurcations for an interval


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
    about g, moves little with it. Bifurcations without an exponent of their own (a child is not thinner than its
    parent) count too: leaving them out would bias the exponent downwards. Radii that are wrong by their size do move
    it: if the children of symmetric forks came out 6% too thin, 3 would become 2.4. (And picking forks by the radius
    of a child would bias it upwards.) The interval is a percentile bootstrap over bifurcations (Efron 1979; fixed
    seed); for fewer than five it says nothing and is NaN.

    >>> fit = fit_murray([1.0] * 6, [[2 ** (-1 / 2.5)] * 2] * 6)
    >>> round(fit.exponent, 4), round(fit.low, 1), round(fit.high, 1)
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
    grid = np.geomspace(LEAST, MOST, GRID)
    cost = np.stack([np.abs(deviation(logs, g)) for g in grid])  # (exponents, bifurcations)
    exponent = refined(logs, grid, int(cost.sum(axis=1).argmin()))
    if len(usable) < FEWEST:
        return MurrayFit(exponent, math.nan, math.nan, len(usable))
    draws = np.random.default_rng(0).multinomial(len(usable), [1 / len(usable)] * len(usable), size=RESAMPLES)
    low, high = np.percentile(grid[(cost @ draws.T).argmin(axis=0)], [2.5, 97.5])
    return MurrayFit(exponent, min(float(low), exponent), max(float(high), exponent), len(usable))


def deviation(logs: Float[np.ndarray, "n k"], exponent: float) -> Float[np.ndarray, " n"]:
    """log of (sum (child / parent)^g)^(1/g) of each bifurcation, from the logs of the ratios (-inf: no child)."""
    top = logs.max(axis=1, keepdims=True)
    return (top[:, 0] * exponent + np.log(np.exp(exponent * (logs - top)).sum(axis=1))) / exponent


def refined(logs: Float[np.ndarray, "n k"], grid: Float[np.ndarray, " g"], best: int) -> float:
    """The exponent of the least sum of absolute deviations, near the best of a grid."""
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda g: float(np.abs(deviation(logs, g)).sum()), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    return float(found.x)
