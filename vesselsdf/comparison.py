"""Comparison of two centreline graphs: how much of the reference was found, where it was cut, and what was invented.

Strategy: both graphs become points every quarter of the tolerance along their edges. A reference point and a predicted
point are the same place if they lie within `max(tolerance, radius of the reference there)` of each other: a centreline
that runs inside the reference vessel follows it, however thick the vessel is. Everything else is read off that
correspondence: lengths, branches, junctions, paths, radii; and wherever one graph runs on and its image in the other
graph jumps, there is a false split or merge.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, maximum_bipartite_matching
from scipy.spatial import cKDTree

from vesselsdf.centreline_points import Line, sample
from vesselsdf.errors import InputError

# ATM'22 (Zhang et al. 2023): a branch counts as detected when at least 80% of its centreline is.
DETECTED_SHARE = 0.8
# Two places are torn apart when the way between them is longer than this many tolerances; where a junction has only
# moved, it is shorter.
TORN = 6.0
# How far from a root, in tolerances or radii, its vessel may begin in the other graph.
ROOT_REACH = 3.0

SHARES = (
    "tree_length_detected",
    "tree_length_precision",
    "branches_detected",
    "branches_precision",
    "node_precision",
    "node_recall",
    "node_f1",
    "terminals_reached",
)
COUNTS = ("false_splits", "false_merges")
PLACES = ("missed", "invented", "false_splits", "false_merges", "terminals_lost")
ERRORS = ("path_length_error", "centreline_error", "radius_error", "radius_bias")


@dataclass(frozen=True)
class Link:
    """For each point of one line the nearest point of the other."""

    to: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]  # mm
    reach: Float[np.ndarray, " n"]  # mm; within it the two points are the same place

    @property
    def found(self) -> Bool[np.ndarray, " n"]:
        """Whether the point has a counterpart within reach."""
        return self.distance <= self.reach


def compare_graphs(predicted: nx.MultiGraph, reference: nx.MultiGraph, tolerance: float | int) -> dict:
    """Compare two centreline graphs (see the module's docstring for "same place"); `tolerance` in mm, above 0.

    Shares, 0 to 1, higher is better:
    - `tree_length_detected` = length of the reference centreline that was found / its whole length (EXACT'09, Lo et al.
      2012); `tree_length_precision`, its twin: predicted length that lies on the reference / all predicted length.
    - `branches_detected` = branches of the reference of which at least 80% was found / all (ATM'22, Zhang et al. 2023);
      `branches_precision`, its twin over predicted branches.
    - `node_precision` = M / predicted, `node_recall` = M / reference, `node_f1` = 2 M / (predicted + reference) over
      junctions and ends, with M the size of a largest one-to-one matching within reach, each to its own kind.
    - `terminals_reached` = terminals of the reference whose place is joined to that of their root in the prediction /
      all; a root may be up to three tolerances (or radii) shorter there.

    Counts, 0 to inf (in the manner of merges and splits in connectomics, Januszewski et al. 2018):
    - `false_splits`: places where the reference runs on between two found points that the prediction does not join
      there (no way between them, or a long way round through other vessels): cuts, lost vessels that joined two others.
    - `false_merges`: the same with the roles exchanged: bridges, and vessels that touch.

    Errors, lower is better:
    - `path_length_error` = mean of |predicted / reference length - 1| over the paths from a root to its terminals that
      are reached (0 to inf; the others are counted by `terminals_reached`).
    - `centreline_error` = mean distance, mm, of the found reference points to the predicted centreline, 0 to the reach.
    - `radius_error`, `radius_bias` = mean of |difference| and of the difference of the radii there, mm; above 0 the
      prediction is thicker.

    Both graphs empty: shares 1, counts 0, errors 0. One empty: shares 0, counts 0, errors NaN. NaN says that there is
    nothing to measure, and `reasons` says why for each such key: errors where nothing was found or reached, node scores
    where neither graph has a junction or an end (two rings), `terminals_reached` where the reference has no terminal.

    `places` (mm): `missed` and `invented` branches (longest first, with the length concerned), `false_splits`,
    `false_merges`, `terminals_lost`.
    """
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise InputError(f"tolerance is {tolerance}; it must be a positive number of millimetres.")
    tolerance = float(tolerance)
    p, r = sample(predicted, tolerance / 4), sample(reference, tolerance / 4)
    if len(p.points) == 0 or len(r.points) == 0:
        return _with_an_empty_graph(p, r)
    link_r, link_p = _link(r, p, tolerance, reference=r), _link(p, r, tolerance, reference=r)
    splits, merges = _jumps(r, p, link_r, link_p), _jumps(p, r, link_p, link_r)
    paths, lost = _paths(reference, r, p, link_r)
    scores = {
        **_coverage(r, link_r, "tree_length_detected", "branches_detected"),
        **_coverage(p, link_p, "tree_length_precision", "branches_precision"),
        "false_splits": len(splits),
        "false_merges": len(merges),
        **_node_scores(predicted, reference, tolerance),
        **paths,
        **_radius_errors(r, p, link_r),
    }
    return {
        **scores,
        "reasons": _reasons(scores),
        "places": {
            "missed": _worst_branches(r, link_r),
            "invented": _worst_branches(p, link_p),
            "false_splits": [{"place": place} for place in splits.tolist()],
            "false_merges": [{"place": place} for place in merges.tolist()],
            "terminals_lost": [{"place": place} for place in lost],
        },
    }


def _link(line: Line, other: Line, tolerance: float, reference: Line) -> Link:
    distance, to = cKDTree(other.points).query(line.points)
    radii = line.radii if line is reference else other.radii[to]
    return Link(to=to, distance=distance, reach=np.maximum(tolerance, radii))


def _coverage(line: Line, link: Link, length_key: str, branch_key: str) -> dict[str, float]:
    # Lone nodes have no length; where there is nothing else, each of them counts as one.
    weights = line.weights if line.weights.sum() > 0 else np.ones_like(line.weights)
    return {
        length_key: float((weights * link.found).sum() / weights.sum()),
        branch_key: float(np.mean(_branch_share(line, link) >= DETECTED_SHARE)),
    }


def _branch_share(line: Line, link: Link) -> np.ndarray:
    weights = np.where(line.lengths[line.branch] > 0, line.weights, 1.0)
    found = np.bincount(line.branch, weights * link.found, minlength=len(line.ends))
    return found / np.bincount(line.branch, weights, minlength=len(line.ends))


def _worst_branches(line: Line, link: Link, most: int = 10) -> list[dict]:
    """Branches under the detected share, longest missing length first, each with its place farthest from the other."""
    share = _branch_share(line, link)
    missing = (1 - share) * line.lengths
    below = np.flatnonzero(share < DETECTED_SHARE)
    worst = below[np.argsort(-missing[below], kind="stable")][:most]
    places = []
    for branch in worst.tolist():
        on_it = np.flatnonzero(line.branch == branch)
        place = line.points[on_it[np.argmax(link.distance[on_it])]].tolist()
        places.append({"place": place, "length": float(missing[branch])})
    return places


def _jumps(of: Line, on: Line, link: Link, back: Link) -> Float[np.ndarray, "j 3"]:
    """Places (mm) where `of` runs on while its image in `on` is torn apart, each place once; `back` links `on` to `of`.

    Two points of `on` are torn apart when every way between them is long, not counting stretches that have no
    counterpart in `of`: along those, the vessel is there, but runs elsewhere than in `of`.
    """
    inside = np.append(on.branch[:-1] == on.branch[1:], False)
    shared = inside & back.found & np.roll(back.found, -1)
    total = np.concatenate([[0.0], np.cumsum(np.where(shared, np.append(np.diff(on.arc), 0.0), 0.0))[:-1]])
    cost = total - total[on.end_points[on.branch, 0]]
    on = replace(on, arc=cost, lengths=cost[on.end_points[:, 1]])

    k = np.flatnonzero(of.branch[:-1] == of.branch[1:])
    both = k[link.found[k] & link.found[k + 1]]
    both = both[link.to[both] != link.to[both + 1]]
    torn = both[on.geodesic(link.to[both], link.to[both + 1]) > TORN * link.reach[both]]
    gaps, reach = _torn_gaps(of, on, link, k)
    places = np.concatenate([(of.points[torn] + of.points[torn + 1]) / 2, gaps])
    return _distinct(places, 2 * np.concatenate([link.reach[torn], reach]))


def _distinct(places: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """One place of each cluster of places that lie within reach of each other."""
    if len(places) < 2:
        return places
    tree = cKDTree(places)

    def within_reach(some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = tree.query_ball_point(places[some], reach[some])
        return np.repeat(some, [len(hits) for hits in near]), np.concatenate([np.asarray(hits, int) for hits in near])

    return places[np.unique(_clusters(len(places), within_reach), return_index=True)[1]]


def _clusters(count: int, ties: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Labels of the components of a graph; `ties` gives the edges (from, to) of some of its nodes.

    A few nodes are asked for at a time: in noise, all the edges together would not fit into memory.
    """
    labels = np.arange(count)
    for some in np.array_split(np.arange(count), math.ceil(count / 256)):
        first, second = ties(some)
        graph = coo_matrix((np.ones(len(first), bool), (labels[first], labels[second])), shape=(count, count))
        labels = connected_components(graph, directed=False)[1][labels]
        if not labels.any():
            break
    return labels


def _torn_gaps(of: Line, on: Line, link: Link, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gaps (pieces of `of` without counterpart) whose found borders are torn apart in `on`: places and reaches (mm)."""
    n, found = len(of.points), link.found
    # Points at a node coincide, so they are all found or all not; the node is one more vertex that joins them.
    rows = np.concatenate([k, of.end_points.ravel()])
    columns = np.concatenate([k + 1, n + of.ends.ravel()])
    node_found = np.array([found[of.point_at[node]] for node in range(len(of.nodes))], dtype=bool)
    missing = ~np.concatenate([found, node_found])
    inside = missing[rows] & missing[columns]
    graph = coo_matrix((np.ones(inside.sum()), (rows[inside], columns[inside])), shape=(len(missing),) * 2)
    _, piece = connected_components(graph, directed=False)

    border = np.concatenate([np.stack([k, k + 1], 1), np.stack([k + 1, k], 1)])
    border = border[~found[border[:, 0]] & found[border[:, 1]]]
    places, reaches = [], []
    for label in np.unique(piece[border[:, 0]]).tolist():
        rim = np.unique(border[piece[border[:, 0]] == label, 1])
        if len(rim) < 2:
            continue
        members = np.flatnonzero(missing[:n] & (piece[:n] == label))
        reach = float(link.reach[rim].max())
        image = link.to[rim]

        def joined(some: np.ndarray, image: np.ndarray = image, reach: float = reach) -> tuple[np.ndarray, np.ndarray]:
            first, second = (side.ravel() for side in np.meshgrid(some, np.arange(len(image)), indexing="ij"))
            near = on.geodesic(image[first], image[second]) <= TORN * reach
            return first[near], second[near]

        parts = len(np.unique(_clusters(len(rim), joined)))
        middle = of.points[members].mean(axis=0)
        nearest = members[np.argmin(np.linalg.norm(of.points[members] - middle, axis=1))]
        if parts > 1:
            places.append(of.points[nearest])
            reaches.append(reach)
    return np.array(places, dtype=float).reshape(-1, 3), np.array(reaches, dtype=float)


def _node_scores(predicted: nx.MultiGraph, reference: nx.MultiGraph, tolerance: float) -> dict[str, float]:
    matched = in_predicted = in_reference = 0
    for kind in ("terminal", "junction"):
        (p, _), (r, radius) = _nodes_of(predicted, kind), _nodes_of(reference, kind)
        in_predicted, in_reference = in_predicted + len(p), in_reference + len(r)
        if len(p) and len(r):
            near = cKDTree(p).query_ball_point(r, np.maximum(tolerance, radius))
            rows = np.repeat(np.arange(len(r)), [len(hits) for hits in near])
            columns = np.concatenate([np.asarray(hits, dtype=int) for hits in near])
            graph = csr_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(len(r), len(p)))
            matched += int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    total = in_predicted + in_reference
    if total == 0:
        return dict.fromkeys(("node_precision", "node_recall", "node_f1"), math.nan)
    return {
        "node_precision": matched / in_predicted if in_predicted else 0.0,
        "node_recall": matched / in_reference if in_reference else 0.0,
        "node_f1": 2 * matched / total,
    }


def _nodes_of(graph: nx.MultiGraph, kind: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = [node for node, degree in graph.degree if (degree >= 3 if kind == "junction" else degree <= 1)]
    points = np.array([graph.nodes[node]["pos"] for node in chosen], dtype=float).reshape(-1, 3)
    return points, np.array([graph.nodes[node]["radius"] for node in chosen], dtype=float)


def _paths(reference: nx.MultiGraph, r: Line, p: Line, link: Link) -> tuple[dict[str, float], list]:
    """Scores of the paths from each component's root to its terminals, and the places (mm) of terminals not reached."""
    position = {node: k for k, node in enumerate(r.nodes)}
    roots, terminals = [], []
    known = set(reference.graph.get("roots", [reference.graph.get("root")]))
    for component in nx.connected_components(reference):
        ends = [node for node in component if reference.degree[node] == 1]
        root = next((node for node in component if node in known), None)
        if root is None:
            root = max(ends, key=lambda node: reference.nodes[node]["radius"], default=None)
        if root is not None:
            others = [r.point_at[position[node]] for node in ends if node != root]
            terminals += others
            roots += [first_found(r, position[root], link)] * len(others)
    if not terminals:
        return {"terminals_reached": math.nan, "path_length_error": math.nan}, []
    start, end = np.array(roots), np.array(terminals)
    length = p.geodesic(link.to[start], link.to[end])
    reached = link.found[start] & link.found[end] & np.isfinite(length)
    expected = np.maximum(r.geodesic(start, end), 1e-9)
    error = np.abs(length[reached] / expected[reached] - 1).mean() if reached.any() else math.nan
    lost = r.points[end[~reached]].tolist()
    return {"terminals_reached": float(reached.mean()), "path_length_error": float(error)}, lost


def first_found(line: Line, node: int, link: Link) -> int:
    """The first found point on the way from an end of a graph, looked for as far as ROOT_REACH; else the end itself.

    A root that is predicted somewhat too short is still the root of all that is joined to it.
    """
    start = line.point_at[node]
    branch = np.flatnonzero(line.branch == line.branch[start])
    away = np.abs(line.arc[branch] - line.arc[start])
    near = branch[link.found[branch] & (away <= ROOT_REACH * link.reach[start])]
    return int(near[np.argmin(np.abs(line.arc[near] - line.arc[start]))]) if len(near) else start


def _radius_errors(r: Line, p: Line, link: Link) -> dict[str, float]:
    weights = np.where(link.found, r.weights if r.weights.sum() > 0 else 1.0, 0.0)
    if weights.sum() == 0:
        return dict.fromkeys(("centreline_error", "radius_error", "radius_bias"), math.nan)
    difference = p.radii[link.to] - r.radii
    return {
        "centreline_error": float(np.average(link.distance, weights=weights)),
        "radius_error": float(np.average(np.abs(difference), weights=weights)),
        "radius_bias": float(np.average(difference, weights=weights)),
    }


def _with_an_empty_graph(p: Line, r: Line) -> dict:
    both = len(p.points) == len(r.points) == 0
    places: dict[str, list] = {key: [] for key in PLACES}
    for key, line in (("missed", r), ("invented", p)):
        n = len(line.points)
        if n:
            places[key] = _worst_branches(line, Link(np.zeros(n, int), np.full(n, np.inf), np.zeros(n)))
    return {
        **dict.fromkeys(SHARES, 1.0 if both else 0.0),
        **dict.fromkeys(COUNTS, 0),
        **dict.fromkeys(ERRORS, 0.0 if both else math.nan),
        "reasons": {} if both else dict.fromkeys(ERRORS, "one of the two is empty"),
        "places": places,
    }


def _reasons(scores: dict[str, float]) -> dict[str, str]:
    """Why each score that is NaN has nothing to measure."""
    no_terminal = math.isnan(scores["terminals_reached"])
    why = {
        **dict.fromkeys(("node_precision", "node_recall", "node_f1"), "neither graph has a junction or an end"),
        "terminals_reached": "the reference has no end besides its roots",
        "path_length_error": "the reference has no end besides its roots" if no_terminal else "no end is reached",
        **dict.fromkeys(("centreline_error", "radius_error", "radius_bias"), "none of the centreline was found"),
    }
    return {key: why[key] for key, value in scores.items() if math.isnan(value)}
