"""Centreline points and radii below the size of a voxel, from sections of the distance field.

Strategy. Points are led to the centres of their sections by rings, some rounds with a little smoothing in between; at
last rays to the wall measure the sections, and the points move to the centroids (`vesselsdf.sections`). Where branches
meet a section is not one vessel's: there branches run straight into the point where their axes meet.

All points of all branches are handled at once. Space is voxel space scaled by the spacing, mm.
"""

from collections.abc import Collection
from dataclasses import dataclass

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int

from vesselsdf.sections import RING, Field, ball, cast, ring
from vesselsdf.skeleton import WIDTHS, is_whole, length_of, valence

ROUNDS = 4
# Points nearer to a junction than this many of its radii are not centred: the section there is not one vessel's.
JUNCTION_ZONE = 1.3
# Where branches meet at a sharp angle: see `junction_zones`. No angle is taken for sharper than this sine.
OVERLAP = 0.4
SHARPEST = 0.4
# A short side branch whose end is placed so many voxels beside the end of its skeleton has lost its direction.
ASTRAY = 0.75
MAX_TAPER = 0.2
# A section whose centroid lies farther from the deepest point than this many radii is not one vessel's either.
OFF_CENTRE = 0.15


@dataclass
class Lines:
    """All branches as one list of points: who precedes and follows whom, and which points may move."""

    points: Float[np.ndarray, "n 3"]
    before: Int[np.ndarray, " n"]
    after: Int[np.ndarray, " n"]
    free: Bool[np.ndarray, " n"]

    def smooth(self, passes: int) -> None:
        """Move free points towards the mean of their neighbours by binomial weights 1, 2, 1."""
        for _ in range(passes):
            mean = (self.points[self.before] + 2 * self.points + self.points[self.after]) / 4
            self.points = np.where(self.free[:, None], mean, self.points)

    def tangents(self) -> Float[np.ndarray, "n 3"]:
        """Unit tangents by central differences over two points to each side."""
        chord = self.points[self.after] - self.points[self.before]
        chord = chord[self.before] + 2 * chord + chord[self.after]
        return chord / np.maximum(np.linalg.norm(chord, axis=1, keepdims=True), 1e-12)


def resample(points: Float[np.ndarray, "n 3"], step: float, least: int = 3) -> Float[np.ndarray, "m 3"]:
    """The same polyline with points about `step` apart, at least `least` of them; ends are kept."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    wanted = np.linspace(0, along[-1], max(least, round(along[-1] / step) + 1))
    return np.stack([np.interp(wanted, along, points[:, axis]) for axis in range(3)], axis=1)


@dataclass
class Branch:
    """One edge of the graph: its end nodes in the order of its points, and where these lie among all points."""

    first: int
    last: int
    key: int
    part: slice
    ring: bool


def refine(graph: nx.MultiGraph, field: Field, at: Collection[int] | None = None, again: bool = False) -> None:
    """Move the branches of a voxel graph to the middle of the vessel and measure their radii, in place.

    Sets the edges' `points`, `WIDTHS`, `length` and the nodes' `pos` and `radius`. Junctions move to where the axes of
    their branches meet, ends to one radius inside the tip (so that round cones along the graph fill the
    vessel), or to the border of the grid where the vessel leaves it.

    `at`: only the branches that meet at these nodes, in a graph that has been refined; nodes at their other ends stay
    where they are if branches meet there too, and so do those with branches `elsewhere` (`vesselsdf.skeleton`).

    `again`, for a graph that has been refined: now it is known at what angles branches meet, and so how far from the
    junction they share their sections. Ends stay where they are.
    """
    for node in nx.isolates(graph) if at is None else ():
        graph.nodes[node].update(zip(("pos", "radius"), ball(field, graph.nodes[node]["pos"]), strict=True))
    chosen = list(graph.edges(at, keys=True, data=True))
    if not chosen:
        return
    branches, lines = lay_out(graph, chosen, float(field.spacing.min()))
    trusted = np.ones(len(lines.points), dtype=bool)
    zones = junction_zones(graph, branches, lines, again)
    for branch, (at_first, at_last) in zip(branches, zones, strict=True):
        part = branch.part
        distrust(lines.points[part], trusted[part], at_first)
        distrust(lines.points[part][::-1], trusted[part][::-1], at_last)
    widths = centre(lines, trusted, field)
    ends: dict[int, list[np.ndarray]] = {}
    for branch in branches:
        axis = lines.points[branch.part][trusted[branch.part]]
        ends.setdefault(branch.first, []).append(axis)
        ends.setdefault(branch.last, []).append(axis[::-1])
    for node, axes in ends.items():
        if graph.degree(node) > 2 and is_whole(graph, node) and (at is None or node in at):
            before = graph.nodes[node]["pos"]
            meeting = meeting_point(before, graph.nodes[node]["radius"], axes, field)
            # The second time the axes begin farther off: most junctions gain, but where branches bend some overshoot.
            graph.nodes[node]["pos"] = (before + meeting) / 2 if again else meeting
    for branch in branches:
        part = branch.part
        finish(graph, branch, lines.points[part], widths[part], trusted[part], field, not again)
    for node in ends:
        at_node = [
            edge["radii"][side]
            for _, other, edge in graph.edges(node, data=True)
            for side in (0, -1)
            if other == node or (edge["start"] == node) == (side == 0)
        ]
        if is_whole(graph, node):
            graph.nodes[node]["radius"] = float(max(at_node))


def lay_out(graph: nx.MultiGraph, edges: list[tuple], step: float) -> tuple[list[Branch], Lines]:
    """Branches with their points `step` apart, the voxels' staircase smoothed a little."""
    branches, points, before, after, free = [], [], [], [], []
    offset = 0
    for u, v, key, edge in edges:
        first, last = (u, v) if edge["start"] == u else (v, u)
        ring = u == v and valence(graph, u) == 2
        path = resample(edge["points"], step)[: -1 if ring else None]
        n = len(path)
        index = np.arange(n)
        points.append(path)
        before.append(offset + (index - 1 if not ring else (index - 1) % n).clip(0))
        after.append(offset + (index + 1 if not ring else (index + 1) % n).clip(None, n - 1))
        free.append(np.full(n, True) if ring else (index > 0) & (index < n - 1))
        branches.append(Branch(first, last, key, slice(offset, offset + n), ring))
        offset += n
    return branches, Lines(*(np.concatenate(parts) for parts in (points, before, after, free)))


def junction_zones(graph: nx.MultiGraph, branches: list[Branch], lines: Lines, by_angle: bool) -> list[list[float]]:
    """How far from its two end nodes each branch shares its sections with others, mm; 0 at ends that are no junctions.

    At an angle alpha < 90 degrees to another branch of radius `s` the axis of one of radius `r` is `t sin(alpha)` away
    from that at the distance `t`. The ring about it sees the other wall up to `r + s`; a little overlap does no harm.
    """
    zones = [[0.0, 0.0] for _ in branches]
    meeting: dict[int, list[tuple[int, int, np.ndarray, float]]] = {}
    for k, branch in enumerate(branches):
        radii = graph.edges[branch.first, branch.last, branch.key]["radii"] if by_angle else None
        for side, node in enumerate((branch.first, branch.last)):
            if valence(graph, node) < 3:
                continue
            zones[k][side] = JUNCTION_ZONE * graph.nodes[node]["radius"]
            if radii is not None:
                points, own = (x[::-1] if side else x for x in (lines.points[branch.part], radii))
                away = np.linalg.norm(points - points[0], axis=1)
                far = int(np.argmax(away >= 2 * graph.nodes[node]["radius"])) or len(points) - 1
                direction = (points[far] - points[0]) / max(float(away[far]), 1e-12)
                meeting.setdefault(node, []).append((k, side, direction, float(own[0])))
    for members in meeting.values():
        for k, side, direction, radius in members:
            for other, other_side, towards, their in members:
                cosine = float(direction @ towards)
                if (other, other_side) != (k, side) and cosine > 0:
                    sine = max(np.sqrt(max(1 - cosine**2, 0.0)), SHARPEST)
                    zones[k][side] = max(zones[k][side], (OVERLAP * radius + their) / sine)
    return zones


def distrust(points: Float[np.ndarray, "n 3"], trusted: Bool[np.ndarray, " n"], zone: float) -> None:
    """Distrust the points within `zone` of the first, if that is positive, in place; the middle stays trusted."""
    if zone > 0:
        outside = np.flatnonzero(np.linalg.norm(points - points[0], axis=1) >= zone)
        reach = int(outside[0]) if len(outside) else len(points)
        trusted[: max(1, min(reach, (len(points) - 1) // 2))] = False


def centre(lines: Lines, trusted: Bool[np.ndarray, " n"], field: Field) -> Float[np.ndarray, "n 3"]:
    """Move the trusted points to the centres of their sections, in place; the `WIDTHS` of all points (else: depth).

    Where rays find no section of one vessel, all three widths are what a ring tells.
    """
    widest = float(field.spacing.max())
    radii = np.maximum(-field(lines.points), 0.0)
    for _ in range(ROUNDS):
        lines.smooth(2)
        rho = np.maximum(RING * radii[trusted], field.voxel)
        offset, measured = ring(field, lines.points[trusted], lines.tangents()[trusted], rho)
        lines.points[trusted] += shortened(offset, np.maximum(field.voxel, RING * radii[trusted]) / 2)
        # At the centre the samples miss the ridge by less than a voxel: a larger gain is not this vessel's.
        depth = np.maximum(-field(lines.points[trusted]), 0.0)
        radii[trusted] = np.clip(measured, depth, depth + widest)
    lines.smooth(1)
    widths = np.repeat(radii[:, None], 3, axis=1)
    seen = cast(field, lines.points[trusted], lines.tangents()[trusted], radii[trusted])
    # NaN is not below anything.
    single = np.linalg.norm(seen.offset, axis=1) < OFF_CENTRE * seen.area
    where = np.flatnonzero(trusted)
    widths[where[single]] = np.stack([seen.area, seen.least, seen.most], axis=1)[single]
    lines.points[where[single & seen.whole]] += seen.offset[single & seen.whole]
    return widths


def shortened(steps: Float[np.ndarray, "n 3"], limit: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """Vectors no longer than their limits."""
    size = np.maximum(np.linalg.norm(steps, axis=1), 1e-12)
    return steps * np.minimum(1.0, limit / size)[:, None]


def meeting_point(
    start: Float[np.ndarray, "3"], radius: float, axes: list[np.ndarray], field: Field
) -> Float[np.ndarray, "3"]:
    """Where the axes of the branches at a junction meet: least squares to their lines, held weakly near `start`."""
    hold = 0.03
    matrix, right = hold * np.eye(3), hold * start
    for axis in axes:
        away = np.linalg.norm(axis - axis[0], axis=1)
        far = int(np.argmax(away >= max(radius, 2 * field.voxel))) or len(axis) - 1
        if away[far] < field.voxel / 2:
            continue
        direction = (axis[far] - axis[0]) / away[far]
        across = np.eye(3) - np.outer(direction, direction)
        matrix, right = matrix + across, right + across @ axis[0]
    step = np.linalg.solve(matrix, right) - start
    size = float(np.linalg.norm(step))
    return start + step * min(1.0, (0.75 * radius + field.voxel) / max(size, 1e-12))


def finish(
    graph: nx.MultiGraph,
    branch: Branch,
    points: Float[np.ndarray, "n 3"],
    widths: Float[np.ndarray, "n 3"],
    trusted: Bool[np.ndarray, " n"],
    field: Field,
    place_ends: bool,
) -> None:
    """Close the ends of one branch and write it into the graph."""
    edge = graph.edges[branch.first, branch.last, branch.key]
    if branch.ring:
        points, widths = np.concatenate([points, points[:1]]), np.concatenate([widths, widths[:1]])
        graph.nodes[branch.first]["pos"] = points[0]
    else:
        good = np.flatnonzero(trusted)
        points, widths = points[good[0] : good[-1] + 1], widths[good[0] : good[-1] + 1]
        first, last = branch.first, branch.last
        points, widths = end_at(graph, last, points, widths, field, place_ends, valence(graph, first) > 2)
        points, widths = (
            x[::-1]
            for x in end_at(graph, first, points[::-1], widths[::-1], field, place_ends, valence(graph, last) > 2)
        )
    edge["points"] = np.ascontiguousarray(points)
    for name, values in zip(WIDTHS, widths.T, strict=True):
        edge[name] = np.ascontiguousarray(values)
    edge["length"], edge["start"] = length_of(points), branch.first


def end_at(
    graph: nx.MultiGraph,
    node: int,
    points: Float[np.ndarray, "n 3"],
    widths: Float[np.ndarray, "n 3"],
    field: Field,
    place_ends: bool,
    stub: bool,
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "m 3"]]:
    """The branch with its last stretch led straight into `node`: a junction as it lies, or an end, which is placed.

    Along the stretch the widths keep their proportions. A `stub` begins at a junction.
    """
    slope = 0.0
    if valence(graph, node) > 1 or not place_ends:
        target = graph.nodes[node]["pos"]
    else:
        keep = last_full_section(points, widths[:, 0])
        tip, all_widths, whole = points[-1], widths, points
        points, widths = points[: keep + 1], widths[: keep + 1]
        target, slope = place_end(points, widths[:, 0], field)
        if stub and beside(target, tip, points) > ASTRAY * field.voxel:
            # Too short to tell its direction, so close to its parent's wall. The end of the skeleton is a better guess.
            graph.nodes[node]["pos"] = tip
            return whole, all_widths
        graph.nodes[node]["pos"] = target
    step = float(field.spacing.min())
    gap = float(np.linalg.norm(target - points[-1]))
    if gap < step / 4 and len(points) > 1:
        return np.concatenate([points[:-1], target[None]]), widths
    along = np.arange(1, (count := max(1, round(gap / step))) + 1) / count
    tail = points[-1] + (target - points[-1]) * along[:, None]
    radius = float(widths[-1, 0])
    share = np.maximum(1 + slope * gap * along / radius, 0.0) if radius > 0 else np.ones(count)
    return np.concatenate([points, tail]), np.concatenate([widths, widths[-1] * share[:, None]])


def beside(place: Float[np.ndarray, "3"], other: Float[np.ndarray, "3"], points: Float[np.ndarray, "n 3"]) -> float:
    """How far two places are apart across the chord of `points`; 0 if that is longer than four times their distance."""
    chord, apart = points[-1] - points[0], place - other
    length, distance = float(np.linalg.norm(chord)), float(np.linalg.norm(apart))
    if length > 4 * distance or length == 0:
        return 0.0
    return float(np.linalg.norm(np.cross(apart, chord / length)))


def last_full_section(points: Float[np.ndarray, "n 3"], radii: Float[np.ndarray, " n"]) -> int:
    """Index of the last point that is a radius away from the branch's end, along it; at most half of it is given up."""
    to_end = np.linalg.norm(np.diff(points, axis=0), axis=1)[::-1].cumsum()[::-1]
    clear = np.flatnonzero(to_end >= radii[:-1])
    return max(int(clear[-1]) if len(clear) else 0, (len(points) - 1) // 2)


def place_end(
    points: Float[np.ndarray, "n 3"], radii: Float[np.ndarray, " n"], field: Field
) -> tuple[Float[np.ndarray, "3"], float]:
    """End of the axis through `points`, and the slope of the radius towards it.

    The end lies one radius (of the vessel as it tapers on) before the tip, or where the axis leaves the grid.
    """
    radius = float(radii[-1])
    away = np.linalg.norm(points - points[-1], axis=1)
    far = np.flatnonzero(away >= max(2 * radius, 3 * field.voxel))
    origin = int(far[-1]) if len(far) else 0
    size = float(np.linalg.norm(points[-1] - points[origin]))
    if size == 0:
        return points[-1], 0.0
    direction = (points[-1] - points[origin]) / size
    # A steeper change than this over a few voxels is noise or a junction, not a taper.
    slope = float(np.clip((radius - radii[origin]) / size, -MAX_TAPER, MAX_TAPER))
    ahead = np.arange(0, 4 * radius + 4 * field.voxel, field.voxel / 4)
    ray = points[-1] + ahead[:, None] * direction
    values, outside = field(ray), ~field.within(ray)
    beyond = np.flatnonzero((values > 0) | outside)
    if not len(beyond) or beyond[0] == 0:
        return points[-1], slope
    k = int(beyond[0])
    if outside[k]:
        return ray[k - 1], slope
    tip = ahead[k - 1] - values[k - 1] / (values[k] - values[k - 1]) * (ahead[k] - ahead[k - 1])
    return points[-1] + max(tip - radius, 0.0) / (1 + slope) * direction, slope
