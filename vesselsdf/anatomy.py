"""Anatomy of a centreline graph: its forks, its paths, the whole of it in numbers, and the decisions that rest on it.

Loops: everything that needs a tree (parents, generations, Strahler orders, paths) is read off a spanning tree of widest
paths from the root (`vesselsdf.rooted`). The branches that it leaves out close a loop. They are told as such, have
a parent and a generation by their end nearer to the root, and all measures of a single branch, but no Strahler order;
a fork where one of them ends has angles but no Murray exponent, because it is unknown which way its blood flows.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.branch_shape import (
    ZONE_RADII,
    along,
    angle,
    clear_range,
    direction,
    mean_along,
    narrowing,
    part,
    volume,
    wall_area,
)
from vesselsdf.murray import fit_murray, murray_exponent
from vesselsdf.rooted import Branch, Forest, forest


@dataclass(frozen=True)
class Anatomy:
    """A graph's branches directed away from their roots, with the part of each that is clear of junctions."""

    graph: nx.MultiGraph
    forest: Forest
    arcs: dict[int, Float[np.ndarray, " n"]]  # mm along each branch, by its number
    clear: dict[int, tuple[float, float]]  # mm along the branch; see `vesselsdf.branch_shape`
    radii: dict[int, float]  # mm, mean of the clear part

    @cached_property
    def at(self) -> dict[Any, list[tuple[Branch, bool]]]:
        """The ends of branches at each node: the branch, and whether it leaves the node (its proximal end)."""
        found: dict[Any, list[tuple[Branch, bool]]] = {node: [] for node in self.graph}
        for branch in self.forest.branches:
            found[branch.proximal].append((branch, True))
            found[branch.distal].append((branch, False))
        return found

    def away(self, branch: Branch, leaves: bool) -> Float[np.ndarray, "3"] | None:
        """Direction of a branch away from one of its ends: along a diameter from where its clear part begins there."""
        first, last = self.clear[branch.number]
        reach = 2 * self.radii[branch.number] or last - first  # of a branch without width, all there is
        if leaves:
            return direction(branch.points, first, min(first + reach, last))
        return direction(branch.points, last, max(last - reach, first))


def measure(graph: nx.MultiGraph) -> Anatomy:
    """Direct a graph's branches away from its roots and find the parts that are clear of junctions."""
    trees = forest(graph)
    arcs = {branch.number: along(branch.points) for branch in trees.branches}
    middle = {
        branch.number: part_mean(arcs[branch.number], branch.radii, clear_range(arcs[branch.number][-1], (np.inf,) * 2))
        for branch in trees.branches
    }
    widest: dict[Any, float] = {}
    for branch in trees.branches:
        for node in (branch.proximal, branch.distal):
            widest[node] = max(widest.get(node, 0.0), middle[branch.number])
    zones = {node: ZONE_RADII * radius if graph.degree(node) > 2 else 0.0 for node, radius in widest.items()}
    clear = {
        branch.number: clear_range(float(arcs[branch.number][-1]), (zones[branch.proximal], zones[branch.distal]))
        for branch in trees.branches
    }
    radii = {
        branch.number: part_mean(arcs[branch.number], branch.radii, clear[branch.number]) for branch in trees.branches
    }
    return Anatomy(graph, trees, arcs, clear, radii)


def part_mean(arc: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], span: tuple[float, float]) -> float:
    """Mean of values along a part of a branch."""
    return mean_along(*part(arc, values, *span))


def bifurcations(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Every junction (more than two branches), by tree, generation of what leaves it, and distance from the root.

    Keys: `tree`, `node`, `place` (mm), `generation` (of the branches that leave it), `root_distance` (mm), `parent`
    (number of the branch that leads to it; None at a root), `children` (numbers, the widest first), `loop_branches`
    (numbers of those that close a loop here), `parent_radius`, `child_radii` (mm, of the clear parts),
    `murray_exponent` and, where that is None, `murray_reason`; `area_ratio` (sum of the children's r^2 / the parent's),
    `asymmetry` (second widest / widest child's radius), and angles in degrees: `major_angle` and `minor_angle` by which
    the widest and second widest branch that leaves deviates from the parent's direction (0: straight on),
    `between_angle` between those that leave (the largest, if there are more than two). Loop-closing branches have their
    part in the angles.
    """
    rows = []
    for node, ends in anatomy.at.items():
        if anatomy.graph.degree(node) < 3:
            continue
        parent = anatomy.forest.into.get(node)
        loops = [(branch, leaves) for branch, leaves in ends if branch.closes_loop]
        children = [(branch, leaves) for branch, leaves in ends if leaves and not branch.closes_loop]
        by_radius = sorted(children + loops, key=lambda end: (-anatomy.radii[end[0].number], end[0].number, end[1]))
        outward = [anatomy.away(*end) for end in by_radius]
        # The parent's direction is the one in which its blood arrives.
        arriving = None if parent is None else anatomy.away(parent, leaves=False)
        arriving = None if arriving is None else -arriving
        turns = [angle(arriving, way) for way in outward] + [None, None]
        between = [size for a, b in combinations(outward, 2) if (size := angle(a, b)) is not None]
        widths = sorted((anatomy.radii[branch.number] for branch, _ in children), reverse=True)
        width = None if parent is None else anatomy.radii[parent.number]
        exponent, reason = exponent_at(width, widths, bool(loops))
        rows.append(
            {
                "tree": (ends[0][0]).tree,
                "node": node,
                "place": np.asarray(anatomy.graph.nodes[node]["pos"], dtype=np.float64).tolist(),
                "generation": ends[0][0].generation if parent is None else parent.generation + 1,
                "root_distance": 0.0 if parent is None else parent.root_distance + parent.length,
                "parent": None if parent is None else parent.number,
                "children": [branch.number for branch, _ in by_radius if not branch.closes_loop],
                "loop_branches": sorted({branch.number for branch, _ in loops}),
                "parent_radius": width,
                "child_radii": widths,
                "murray_exponent": exponent,
                "murray_reason": reason,
                "area_ratio": sum(r * r for r in widths) / width**2 if width and widths else None,
                "asymmetry": widths[1] / widths[0] if len(widths) > 1 and widths[0] > 0 else None,
                "major_angle": turns[0],
                "minor_angle": turns[1],
                "between_angle": max(between, default=None),
            }
        )
    return sorted(rows, key=lambda row: (row["tree"], row["generation"], row["root_distance"]))


def exponent_at(parent: float | None, children: list[float], loops: bool) -> tuple[float | None, str]:
    """Murray's exponent of a junction, or None and why."""
    if parent is None:
        return None, "the root is here"
    if loops:
        return None, "a branch that closes a loop ends here"
    return murray_exponent(parent, children)


def terminals(anatomy: Anatomy) -> list[dict[str, Any]]:
    """The way from its root to every terminal (end other than the root), by tree and node.

    Keys: `tree`, `node`, `branch` (the last one's number), `place` (mm), `generation`, `length` (mm), `chord` (mm),
    `minimum_radius` and `narrowest_place` (mm), `stenosis` (see `branch_shape.narrowing`; of the whole way) and
    `stenosis_place`.
    """
    rows = []
    for tree, root in enumerate(anatomy.forest.roots):
        start = np.asarray(anatomy.graph.nodes[root]["pos"], dtype=np.float64)
        ends = [n for n in anatomy.forest.node_orders[tree] if anatomy.graph.degree(n) == 1 and n != root]
        rank = {node: k for k, node in enumerate(anatomy.graph)}
        for end in sorted(ends, key=rank.__getitem__):
            way = anatomy.forest.path(end)
            radii = np.concatenate([branch.radii for branch in way])
            points = np.concatenate([branch.points for branch in way])
            stenosis, tightest = narrowing(radii)
            narrowest = int(radii.argmin())
            place = np.asarray(anatomy.graph.nodes[end]["pos"], dtype=np.float64)
            rows.append(
                {
                    "tree": tree,
                    "node": end,
                    "branch": way[-1].number,
                    "place": place.tolist(),
                    "generation": way[-1].generation,
                    "length": sum(branch.length for branch in way),
                    "chord": float(np.linalg.norm(place - start)),
                    "minimum_radius": float(radii[narrowest]),
                    "narrowest_place": points[narrowest].tolist(),
                    "stenosis": stenosis,
                    "stenosis_place": points[tightest].tolist(),
                }
            )
    return rows


def summary(graph: nx.MultiGraph) -> dict[str, Any]:
    """The whole of a centreline graph in numbers, JSON-able; mm, mm^2, mm^3, degrees.

    Keys: `trees`, `branches`, `bifurcations`, `terminals`, `loops` (branches that close one: independent loops),
    `length`, `volume`, `wall_area` (sums over branches, see `vesselsdf.branch_shape`), `mean_radius` (weighted by
    length), `strahler_order` (the highest), `generations` (the highest); `murray`: `exponent`, `low`, `high` (95%, see
    `murray.fit_murray`; None where it cannot be told), `bifurcations` (that have a part in it) and `without_exponent`
    (how many of those have none of their own); `angles`: medians of `major`, `minor`, `between`;
    `tortuosity` (sum of lengths / sum of chords, self-loops left out), `stenosis` (the deepest of the ways to the
    terminals); `orders`, for each Strahler order `branches`, `elements` (runs of branches of one order), `length` (mean
    of an element), `radius` (weighted by length); `bifurcation_ratio` (Horton 1945, from the slope of log elements over
    orders).
    """
    anatomy = measure(graph)
    branches, forks, ends = anatomy.forest.branches, bifurcations(anatomy), terminals(anatomy)
    fitted = [fork for fork in forks if fork["parent"] is not None and not fork["loop_branches"]]
    fit = fit_murray([fork["parent_radius"] for fork in fitted], [fork["child_radii"] for fork in fitted])
    length = sum(branch.length for branch in branches)
    chords = [(float(np.linalg.norm(b.points[-1] - b.points[0])), b.length) for b in branches if b.proximal != b.distal]
    orders = by_order(anatomy)
    return {
        "trees": len(anatomy.forest.roots),
        "branches": len(branches),
        "bifurcations": len(forks),
        "terminals": len(ends),
        "loops": sum(branch.closes_loop for branch in branches),
        "length": length,
        "volume": sum(volume(anatomy.arcs[branch.number], branch.radii) for branch in branches),
        "wall_area": sum(wall_area(anatomy.arcs[branch.number], branch.radii) for branch in branches),
        "mean_radius": weighted_radius(anatomy, branches),
        "strahler_order": max((max(orders.values()) for orders in anatomy.forest.node_orders), default=0),
        "generations": max((branch.generation for branch in branches), default=0),
        "murray": {
            "exponent": known(fit.exponent),
            "low": known(fit.low),
            "high": known(fit.high),
            "bifurcations": fit.bifurcations,
            "without_exponent": sum(fork["murray_exponent"] is None for fork in fitted),
        },
        "angles": {name: median(fork[f"{name}_angle"] for fork in forks) for name in ("major", "minor", "between")},
        "tortuosity": sum(b for _, b in chords) / total if (total := sum(a for a, _ in chords)) > 0 else None,
        "stenosis": max((end["stenosis"] for end in ends), default=0.0),
        "orders": orders,
        "bifurcation_ratio": horton_ratio([row["elements"] for row in orders]),
    }


def by_order(anatomy: Anatomy) -> list[dict[str, Any]]:
    """Counts, lengths and radii for each Strahler order, the lowest first."""
    rows = []
    numbers = anatomy.forest.by_number
    found = [branch for branch in anatomy.forest.branches if branch.order is not None]
    for order in range(1, max((branch.order or 0 for branch in found), default=0) + 1):
        here = [branch for branch in found if branch.order == order]
        first = [branch for branch in here if branch.parent is None or numbers[branch.parent].order != order]
        rows.append(
            {
                "order": order,
                "branches": len(here),
                "elements": len(first),
                "length": sum(branch.length for branch in here) / len(first),
                "radius": weighted_radius(anatomy, here),
            }
        )
    return rows


def horton_ratio(elements: list[int]) -> float | None:
    """Elements of one order for each of the next (Horton 1945); None for fewer than two orders.

    >>> round(horton_ratio([27, 9, 3, 1]), 9)
    3.0
    """
    if len(elements) < 2:
        return None
    return float(np.exp(-np.polyfit(np.arange(len(elements)), np.log(elements), 1)[0]))


def weighted_radius(anatomy: Anatomy, branches: list[Branch]) -> float | None:
    """Mean radius of branches, weighted by their lengths; None without any."""
    if not branches:
        return None
    lengths = np.array([branch.length for branch in branches])
    weights = lengths if lengths.sum() > 0 else np.ones_like(lengths)
    return float(np.average([anatomy.radii[branch.number] for branch in branches], weights=weights))


def median(values: Iterable[float | None]) -> float | None:
    """Median of the values that there are; None without any."""
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None


def known(value: float) -> float | None:
    """The value, or None for NaN."""
    return None if math.isnan(value) else value


def decisions(graph: nx.MultiGraph) -> dict[str, Any]:
    """What a reader of the tree would decide from it, as plain numbers and lists (mm).

    Keys: `trees` (components), `branches`, `loops` (independent cycles), `total_length`, `strahler_order` (the highest;
    loops are cut as the head of this module says), `terminals` and `terminals_reached` (ends other than the roots, and
    how many of them are connected to `graph.graph["root"]`), `terminals_per_tree` and `loops_per_tree` (longest tree
    first), `paths`: for each terminal its `place`, whether it is `reached` from the root, and the `length`,
    `minimum_radius` and `narrowest_place` of the path from the root of its tree. With loops that path is a widest one:
    a path whose narrowest place is widest.
    """
    anatomy = measure(graph)
    root = graph.graph.get("root")
    orders, ends = anatomy.forest.node_orders, terminals(anatomy)
    loops = [sum(b.closes_loop for b in anatomy.forest.branches if b.tree == tree) for tree in range(len(orders))]
    keys = ("place", "length", "minimum_radius", "narrowest_place")
    paths = [{**{key: end[key] for key in keys}, "reached": root in orders[end["tree"]]} for end in ends]
    per_tree = np.bincount([end["tree"] for end in ends], minlength=len(orders)).tolist()
    return {
        "trees": len(orders),
        "branches": graph.number_of_edges(),
        "loops": sum(loops),
        "total_length": float(sum(edge["length"] for _, _, edge in graph.edges(data=True))),
        "strahler_order": max((max(tree.values()) for tree in orders), default=0),
        "terminals": len(ends),
        "terminals_reached": sum(path["reached"] for path in paths),
        "terminals_per_tree": per_tree,
        "loops_per_tree": loops,
        "paths": paths,
    }
