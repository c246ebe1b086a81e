"""Growth of a vessel tree as a tree of points (each point knows its parent), in units of one voxel.

Strategy: constrained constructive growth (after Schreiner and Buxbaum 1993). The next end point is the emptiest of a
few random candidates, so the tree fills the space; it is joined to the point of the tree that gives a short branch at
a natural angle, by a smooth random curve that keeps its distance from everything else. Radii follow Murray's law.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

STEP = 1.5  # distance of consecutive points, voxels
CLEARANCE = 2.0  # gap between walls, voxels; 26-adjacent voxels are at most sqrt(3) apart, so a wider gap never closes
_CANDIDATES = 16


@dataclass
class Growth:
    """Points of all trees, parents before children; `joins` are the anastomoses (point, curve, point, swelling)."""

    extent: Float[np.ndarray, "3"]
    generator: np.random.Generator
    terminals: int
    terminal_radius: tuple[float, float]
    murray: float
    tortuosity: float
    largest: float
    points: Float[np.ndarray, "n 3"] = field(default_factory=lambda: np.empty((0, 3)))
    parent: Int[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, int))
    end_radius: Float[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0))
    power: Float[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0))  # r**g, kept up to date
    swell: Float[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0))
    blocked: Bool[np.ndarray, " n"] = field(default_factory=lambda: np.empty(0, bool))
    joins: list = field(default_factory=list)

    def append(self, curve: Float[np.ndarray, "m 3"], parent: int) -> None:
        """Add a chain of points; its last one is a new end with a radius of its own."""
        first, count = len(self.points), len(curve)
        self.points = np.vstack([self.points, curve])
        radius = self.generator.uniform(*self.terminal_radius)
        above = parent
        added = radius**self.murray
        if parent >= 0 and not (self.parent == parent).any():
            added -= self.power[parent]  # the parent was an end until now
        while above >= 0:
            self.power[above] += added
            above = int(self.parent[above])
        self.parent = np.concatenate([self.parent, [parent], first + np.arange(count - 1)])
        self.power = np.concatenate([self.power, np.full(count, radius**self.murray)])
        self.end_radius = np.concatenate([self.end_radius, np.full(count, radius)])
        self.swell = np.concatenate([self.swell, swelling(count, self.generator)])
        self.blocked = np.concatenate([self.blocked, np.zeros(count, bool)])

    def keep(self, kept: Bool[np.ndarray, " n"]) -> None:
        """Remove all points but those marked; the parent of a kept point must be kept."""
        index = np.cumsum(kept) - 1
        above = self.parent[kept]
        self.parent = np.where(above >= 0, index[above], -1)
        self.points, self.end_radius, self.swell, self.blocked = (
            values[kept] for values in (self.points, self.end_radius, self.swell, self.blocked)
        )
        power = np.where(self.children() == 0, self.end_radius**self.murray, 0.0).tolist()
        parent = self.parent.tolist()
        for point in range(len(power) - 1, -1, -1):
            if parent[point] >= 0:
                power[parent[point]] += power[point]
        self.power = np.array(power)

    def children(self) -> Int[np.ndarray, " n"]:
        """Number of children of each point."""
        return np.bincount(self.parent[self.parent >= 0], minlength=len(self.points))

    def radii(self) -> Float[np.ndarray, " n"]:
        """Radius of each point by Murray's law, `r_parent**g = sum r_child**g` (Murray 1926), at most `largest`."""
        return np.minimum(self.power ** (1 / self.murray), self.largest)

    def tangents(self) -> Float[np.ndarray, "n 3"]:
        """Unit direction away from the root at each point."""
        step = self.points - self.points[np.maximum(self.parent, 0)]
        roots = np.flatnonzero(self.parent < 0)
        step[roots] = step[roots + 1]
        return step / np.linalg.norm(step, axis=1, keepdims=True)


def swelling(count: int, generator: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Slow variation of the radius along a chain of points, at most 8%."""
    phase, wavelength, amplitude = generator.uniform([0, 12, 0], [2 * np.pi, 30, 0.08])
    return 1 + amplitude * np.sin(2 * np.pi * STEP * np.arange(count) / wavelength + phase)


def plant(growth: Growth) -> bool:
    """A root near a face of the box and a trunk that reaches into it; false when there was no room."""
    generator, extent = growth.generator, growth.extent
    margin = growth.largest + 2
    for _ in range(200):
        axis, side = int(generator.integers(3)), int(generator.integers(2))
        start = extent * generator.uniform(0.2, 0.8, 3)
        start[axis] = margin if side == 0 else extent[axis] - margin
        goal = extent * generator.uniform(0.35, 0.65, 3)
        goal = start + (goal - start) * generator.uniform(0.5, 0.9)
        curve = smooth_curve(growth, start, goal, None, None)
        expected = _expected_radii(growth)
        room = _room(growth, curve, np.full(len(curve), growth.largest), expected, [])
        if room > 0 and np.linalg.norm(goal - start) > 0.15 * extent.min():
            growth.append(curve, -1)
            _block(growth, curve[0], 0.1 * extent.min())
            _block(growth, curve[-1], 6.0)
            return True
    return False


def sprout(growth: Growth) -> bool:
    """Add one branch to the emptiest of a few random places; false when no clear way to any of them was found."""
    generator = growth.generator
    margin = growth.terminal_radius[1] + 2
    goals = generator.uniform(margin, growth.extent - margin, (_CANDIDATES, 3))
    some = growth.points[::3]
    apart = (goals**2).sum(1)[:, None] + (some**2).sum(1) - 2 * goals @ some.T
    goal = goals[apart.min(1).argmax()]
    expected = _expected_radii(growth)
    tangents = growth.tangents()
    way = goal - growth.points
    distance = np.linalg.norm(way, axis=1) + 1e-9
    cosine = (way * tangents).sum(1) / distance
    # Murray's angles lie between 35 and 80 degrees for most asymmetries; a side branch may leave a little steeper.
    cost = distance * (1 + 0.5 * (1 - cosine)) * generator.uniform(0.9, 1.1, len(distance))
    cost[growth.blocked | (cosine < -0.1) | (cosine > 0.95) | (distance < 8 + 2 * expected)] = np.inf
    for _ in range(4):
        point = int(cost.argmin())
        if not np.isfinite(cost[point]):
            return False
        if _branch(growth, point, goal, tangents[point], expected):
            return True
        cost[np.linalg.norm(growth.points - growth.points[point], axis=1) < 6] = np.inf
    return False


def _branch(growth: Growth, point: int, goal, tangent, expected) -> bool:
    """Try to grow a branch from a point to a goal; the parent bends a little towards it, as vessels do."""
    start = growth.points[point]
    way = goal - start
    length = float(np.linalg.norm(way))
    way = way / length
    side = way - (way @ tangent) * tangent
    side /= np.linalg.norm(side) + 1e-9
    cosine = float(np.clip(way @ tangent, 0.2, 0.75))
    leave = cosine * tangent + np.sqrt(1 - cosine**2) * side
    curve = smooth_curve(growth, start, goal, leave, None)
    radius = 1.15 * growth.terminal_radius[1]
    gap = 2.0 * (expected[point] + radius + CLEARANCE)
    if _room(growth, curve[1:], np.full(len(curve) - 1, radius), expected, [(start, gap)]) <= 0:
        return False
    width = 3 + expected[point]
    near = np.exp(-0.5 * ((growth.points - start) ** 2).sum(1) / width**2)
    growth.points = growth.points + (near * (near > 0.01))[:, None] * side * min(0.35 * expected[point] + 0.6, 2.0)
    shift = growth.points[point] - start
    fade = np.exp(-0.5 * ((curve - start) ** 2).sum(1) / width**2)[:, None]
    growth.append((curve + fade * shift)[1:], point)
    _block(growth, start, max(6.0, 2.5 * expected[point]))
    _block(growth, curve[-1], 6.0)
    return True


def smooth_curve(growth: Growth, start, goal, leave, arrive) -> Float[np.ndarray, "m 3"]:
    """Points STEP apart on a cubic between two points, with smooth random displacement that vanishes at the ends."""
    length = float(np.linalg.norm(goal - start))
    straight = (goal - start) / length
    leave = straight if leave is None else leave
    arrive = straight if arrive is None else arrive
    count = max(int(np.ceil(1.05 * length / STEP)), 4)
    t = np.linspace(0, 1, count + 1)[:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * length * leave
        + (3 * t**2 - 2 * t**3) * goal
        + (t**3 - t**2) * length * arrive
    )
    waves = np.zeros_like(curve)
    for mode in range(1, 4):
        wavelength = length / mode
        if wavelength < 14:
            break
        # Amplitude a and wavelength w give curvature a (2 pi / w)^2; a = 0.07 w keeps bends rounder than the vessel.
        amplitude = growth.generator.normal(size=3) * growth.tortuosity * min(wavelength, 60.0)
        waves += np.sin(np.pi * (mode * 2 * t + growth.generator.uniform(0, 2))) * amplitude
    waves -= straight * (waves @ straight)[:, None]
    return curve + waves * np.sin(np.pi * t) ** 2


def _expected_radii(growth: Growth) -> Float[np.ndarray, " n"]:
    """Radii that the points will have when the growth is complete, if every part of it grows in proportion."""
    if len(growth.points) == 0:
        return np.empty(0)
    ends = int((growth.children() == 0).sum())
    return np.minimum(growth.radii() * max(growth.terminals / ends, 1.0) ** (1 / growth.murray), growth.largest)


def _room(growth: Growth, curve, radii, expected, excused: list) -> float:
    """Least gap of a curve to all else, less the clearance; (place, distance) pairs excuse points near a joint."""
    margin = radii + 2
    inside = np.minimum(curve, growth.extent - curve).min(1) - margin
    if inside.min() < 0:
        return float(inside.min())
    reach = radii.max() + CLEARANCE + (expected.max() if len(expected) else 0)
    low, high = curve.min(0) - reach, curve.max(0) + reach
    near = np.flatnonzero(((growth.points >= low) & (growth.points <= high)).all(1))
    if len(near) == 0:
        return 1.0
    others = growth.points[near]
    apart = np.sqrt(np.maximum((curve**2).sum(1)[:, None] + (others**2).sum(1) - 2 * curve @ others.T, 0))
    gap = apart - radii[:, None] - expected[near] - CLEARANCE
    for place, distance in excused:
        close = np.linalg.norm(curve - place, axis=1) < distance
        gap[np.ix_(close, np.linalg.norm(others - place, axis=1) < distance)] = 1.0
    return float(gap.min())


def _block(growth: Growth, place, distance: float) -> None:
    """No further branch may start within a distance of a place: edges between bifurcations keep some length."""
    growth.blocked |= np.linalg.norm(growth.points - place, axis=1) < distance


def join(growth: Growth, radii: Float[np.ndarray, " n"]) -> bool:
    """Connect an end, or else the side of a branch, to another place of the same tree (an anastomosis).

    Returns false when no clear way was found. Ends come first, since vessels meet with their tips.
    """
    generator = growth.generator
    children = growth.children()
    taken = [point for begin, _, target, _ in growth.joins for point in (begin, target)]
    crowded = _crowded(growth, radii, [*np.flatnonzero(children > 1).tolist(), *taken])
    free_ends = np.setdiff1d(np.flatnonzero((children == 0) & (growth.parent >= 0)), taken)
    sides = np.setdiff1d(np.flatnonzero((children == 1) & ~crowded & (growth.parent >= 0)), taken)
    tangents = growth.tangents()
    for begin in [*generator.permutation(free_ends)[:40].tolist(), *generator.permutation(sides)[:40].tolist()]:
        way = growth.points - growth.points[begin]
        distance = np.linalg.norm(way, axis=1) + 1e-9
        ahead = way @ tangents[begin] / distance
        around = _path_length(growth, begin)
        usable = (distance > 8 + radii + radii[begin]) & (distance < 0.5 * growth.extent.max()) & ~crowded
        usable &= np.isfinite(around) & (around > 1.3 * distance + 8 + 6 * radii[begin])
        usable &= ((children == 1) | (children == 0)) & (growth.parent >= 0)
        usable &= (ahead > -0.2) if children[begin] == 0 else (np.abs(ahead) < 0.8)
        usable[taken] = False
        cost = np.where(usable, distance * (2 - np.abs(ahead)) * (1 + radii / 4), np.inf)
        for _ in range(4):
            target = int(cost.argmin())
            if not np.isfinite(cost[target]):
                break
            curve = _bridge(growth, radii, tangents, begin, target, children)
            if curve is not None:
                growth.joins.append((begin, curve, target, swelling(len(curve), generator)))
                return True
            cost[np.linalg.norm(growth.points - growth.points[target], axis=1) < 5] = np.inf
    return False


def _bridge(growth: Growth, radii, tangents, begin: int, target: int, children) -> Float[np.ndarray, "m 3"] | None:
    """The inner points of a curve between two points of the tree, or None if it comes too close to something."""
    here, goal, radius = growth.points[begin], growth.points[target], growth.end_radius[begin]
    way = (goal - here) / np.linalg.norm(goal - here)
    leave = tangents[begin] if children[begin] == 0 else way
    arrive = -tangents[target] if children[target] == 0 else way
    curve = smooth_curve(growth, here, goal, leave, arrive)[1:-1]
    for place, point, step in ((begin, here, curve[0] - here), (target, goal, goal - curve[-1])):
        if children[place] > 0 and abs(step @ tangents[place]) > 0.75 * np.linalg.norm(step):
            return None
        if np.linalg.norm(curve - point, axis=1).min() < 0.5:
            return None
    excused = [
        (point, (2.0 if children[place] else 2.5) * (radii[place] + radius + CLEARANCE))
        for place, point in ((begin, here), (target, goal))
    ]
    if (
        np.linalg.norm(goal - here) < excused[0][1] + excused[1][1] - CLEARANCE
        and children[begin] + children[target] > 1
    ):
        return None
    free = _room(growth, curve, np.full(len(curve), radius), radii, excused) > 0 and _clear(growth, curve, radius)
    return curve if free else None


def _crowded(growth: Growth, radii: Float[np.ndarray, " n"], nodes: list[int]) -> Bool[np.ndarray, " n"]:
    """Points too near to a bifurcation or a root for another joint."""
    crowded = np.zeros(len(radii), bool)
    for node in [*nodes, *np.flatnonzero(growth.parent < 0).tolist()]:
        crowded |= np.linalg.norm(growth.points - growth.points[node], axis=1) < 3 + 2 * radii[node]
    return crowded


def _clear(growth: Growth, curve, radius: float) -> bool:
    """Whether a curve keeps its distance from the anastomoses made before."""
    return all(
        cKDTree(other).query(curve)[0].min() > radius + growth.end_radius[end] + CLEARANCE
        for end, other, *_ in growth.joins
    )


def _path_length(growth: Growth, end: int) -> Float[np.ndarray, " n"]:
    """Length of the way along the tree from one end to every point; infinite on other trees."""
    parent = growth.parent
    step = np.linalg.norm(growth.points - growth.points[np.maximum(parent, 0)], axis=1)
    to_root = np.zeros(len(parent))
    meets = np.full(len(parent), np.nan)
    on_path = set()
    point = end
    while point >= 0:
        on_path.add(point)
        point = int(parent[point])
    for point, above in enumerate(parent.tolist()):
        to_root[point] = 0.0 if above < 0 else to_root[above] + step[point]
        if point in on_path:
            meets[point] = to_root[point]
        elif above >= 0:
            meets[point] = meets[above]
    return np.where(np.isnan(meets), np.inf, to_root + to_root[end] - 2 * meets)
