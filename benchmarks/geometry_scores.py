"""How far fields, meshes and centrelines are from the truth: plain numbers, lengths in voxels of an isotropic grid.

`Lines` is what every centreline method is brought to: its branches with radii, its bifurcations and ends, its loops.
"""

from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import trimesh
from geometry_truth import Axis, Truth, exact_distance
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

NEAR_WALL = 3.0  # voxels
TOLERANCE = 3.0  # voxels within which a bifurcation or an end counts as found, or the local radius where that is more
CLASSES = ((0.0, 1.5), (1.5, 2.0), (2.0, 3.0), (3.0, np.inf))  # true radius, voxels
STEP = 0.25  # spacing of the samples on found centrelines, voxels


@dataclass
class Lines:
    """A centreline graph: branches as points (n, 3) and radii (n,), mm, places of bifurcations and ends, counts."""

    branches: list[tuple[np.ndarray, np.ndarray]]
    bifurcations: np.ndarray
    ends: np.ndarray
    components: int
    loops: int
    notes: dict = field(default_factory=dict)


def lines_of(graph: nx.MultiGraph) -> Lines:
    """Of a graph with our attributes."""
    components = nx.number_connected_components(graph)

    def places(wanted) -> np.ndarray:
        return np.array([graph.nodes[n]["pos"] for n, degree in graph.degree() if wanted(degree)]).reshape(-1, 3)

    return Lines(
        [(np.asarray(e["points"]), np.asarray(e["radii"])) for _, _, e in graph.edges(data=True)],
        places(lambda degree: degree > 2),
        places(lambda degree: degree == 1),
        components,
        graph.number_of_edges() - graph.number_of_nodes() + components,
    )


def sampled(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and radii (n,) at equal steps along all branches."""
    points, radii = [np.zeros((0, 3))], [np.zeros(0)]
    for line, radius in lines.branches:
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        at = (np.arange(int(along[-1] / STEP)) + 0.5) * STEP
        points.append(np.stack([np.interp(at, along, line[:, k]) for k in range(3)], axis=1))
        radii.append(np.interp(at, along, radius))
    return np.concatenate(points), np.concatenate(radii)


def field_scores(found: np.ndarray, exact: np.ndarray) -> dict:
    """Error of a distance field near the wall; `flipped`: voxels on the wrong side of it, by the mask."""
    near = np.abs(exact) < NEAR_WALL
    error = found[near].astype(np.float64) - exact[near]
    return {
        "mae": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "p95": float(np.percentile(np.abs(error), 95)),
        "flipped": int(((found <= 0) != (exact <= 0)).sum()),
    }


def mesh_scores(vertices: np.ndarray, faces: np.ndarray, truth: Truth, volume: float, euler: int) -> dict:
    """Error of a surface against the exact wall; `euler` is what it should have: twice beta0 - beta1 + beta2."""
    from vesselsdf.mesh import check

    report = check(trimesh.Trimesh(vertices, faces, process=False))
    away, _ = exact_distance(truth, vertices)
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(across, axis=1)
    wide = doubled > 1e-12
    middles = corners[wide].mean(axis=1)
    depth, normals = exact_distance(truth, middles)
    aligned = (across[wide] * normals).sum(1) / doubled[wide] * np.sign(report["volume"])
    angles = np.degrees(np.arccos(np.clip(aligned, -1, 1)))
    weight = doubled[wide]
    return {
        "faces": len(faces),
        "vertex": float(np.abs(away).mean()),
        "p99": float(np.percentile(np.abs(away), 99)),
        "max": float(np.abs(away).max()),
        "face": float((np.abs(depth) * weight).sum() / weight.sum()),
        "normal": float((angles * weight).sum() / weight.sum()),
        "volume": abs(report["volume"]) / volume,
        "closed": bool(report["watertight"] and report["winding_consistent"] and report["manifold_vertices"]),
        "euler": report["euler_number"] - euler,
        "crossing": self_intersections(vertices, faces),
        "degenerate": report["degenerate_faces"],
    }


def matched(found: np.ndarray, true: np.ndarray, reach: np.ndarray) -> int:
    """The most pairs of a found and a true place, one to one, that lie within the reach of the true place."""
    if not len(found) or not len(true):
        return 0
    within = cdist(found, true) <= reach[None]
    rows, columns = linear_sum_assignment(within, maximize=True)
    return int(within[rows, columns].sum())


def graph_scores(lines: Lines, truth: Truth) -> dict:
    """Counts, places, centreline and radius errors. Away from junctions: farther than two radii and a voxel."""
    axis = Axis(truth)
    reach = np.maximum(TOLERANCE, truth.node_radii)
    bifurcations = matched(lines.bifurcations, truth.nodes[truth.bifurcations], reach[truth.bifurcations])
    ends = matched(lines.ends, truth.nodes[truth.tips], reach[truth.tips])
    points, radii = sampled(lines)
    away, true = axis.nearest(points)
    special = truth.nodes[truth.degrees != 2], truth.node_radii[truth.degrees != 2]
    clear = (cdist(points, special[0]) > 2 * special[1] + 1).all(axis=1)
    relative = radii / true - 1
    covered = covered_share(points, axis.middles(), axis.lengths)
    by_class = {}
    for low, high in CLASSES:
        some = clear & (true >= low) & (true < high)
        if some.sum() >= 40:
            by_class[f"{low:g}-{high:g}"] = [
                float(np.median(away[some])),
                float(np.abs(relative[some]).mean()),
                float(relative[some].mean()),
            ]
    return {
        "bifurcations": [len(lines.bifurcations), int(truth.bifurcations.sum()), bifurcations],
        "ends": [len(lines.ends), int(truth.tips.sum()), ends],
        "loops": [lines.loops, truth.loops],
        "components": [lines.components, truth.components],
        "centre": [float(np.median(away[clear])), float(np.percentile(away[clear], 95))],
        "centre all": float(np.percentile(away, 95)),
        "covered": covered,
        "radius": [float(np.abs(relative[clear]).mean()), float(relative[clear].mean())],
        "classes": by_class,
    }


def covered_share(points: np.ndarray, middles: np.ndarray, lengths: np.ndarray) -> float:
    """Share of the true centreline with a found point within one voxel."""
    from scipy.spatial import cKDTree

    if not len(points):
        return 0.0
    return float(lengths[cKDTree(points).query(middles)[0] <= 1].sum() / lengths.sum())


def self_intersections(vertices: np.ndarray, faces: np.ndarray) -> int:
    """Number of pairs of faces that cross: an edge of one passes through the inside of the other.

    Exact up to rounding in float64; coplanar overlaps are not counted. Pairs come from the cells of a grid that both
    bounding boxes meet. It owes nothing to `vesselsdf.mesh`.
    """
    corners = vertices[faces].astype(np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    pairs = box_pairs(low, high, float(np.median((high - low).max(axis=1))) or 1.0)
    count = 0
    for part in np.array_split(pairs, len(pairs) // 500_000 + 1):
        a, b = faces[part[:, 0]], faces[part[:, 1]]
        shared = (a[:, :, None] == b[:, None, :]).any(axis=2), (b[:, :, None] == a[:, None, :]).any(axis=2)
        open_ = shared[0].sum(axis=1) < 2  # faces with a common edge only fold, they do not cross
        part, a_shared, b_shared = part[open_], shared[0][open_], shared[1][open_]
        first, second = corners[part[:, 0]], corners[part[:, 1]]
        count += int((pierces(first, second, a_shared) | pierces(second, first, b_shared)).sum())
    return count


def box_pairs(low: np.ndarray, high: np.ndarray, cell: float) -> np.ndarray:
    """Pairs (n, 2) of overlapping boxes, each once."""
    first = np.floor(low / cell).astype(np.int64)
    count = np.floor(high / cell).astype(np.int64) - first + 1
    total = count.prod(axis=1)
    owner = np.repeat(np.arange(len(low)), total)
    k = np.arange(len(owner)) - np.repeat(np.cumsum(total) - total, total)
    x, rest = np.divmod(k, (count[:, 1] * count[:, 2])[owner])
    y, z = np.divmod(rest, count[:, 2][owner])
    at = first[owner] + np.stack([x, y, z], axis=1)
    at -= at.min(axis=0)
    extent = at.max(axis=0) + 1
    key = (at[:, 0] * extent[1] + at[:, 1]) * extent[2] + at[:, 2]
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    found, shift = [np.zeros(0, np.int64)], 1
    while True:
        same = np.flatnonzero(key[shift:] == key[:-shift])
        if not len(same):
            break
        a, b = owner[same], owner[same + shift]
        meet = ((low[a] <= high[b]) & (low[b] <= high[a])).all(axis=1)
        found.append(np.minimum(a, b)[meet] * len(low) + np.maximum(a, b)[meet])
        shift += 1
    return np.stack(np.divmod(np.unique(np.concatenate(found)), len(low)), axis=1)


def pierces(edges_of: np.ndarray, triangles: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Whether a side of the first triangles (n, 3, 3) passes through the second ones; sides at shared corners do not.

    shared: (n, 3), which corners of the first the second has too.
    """
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    result = np.zeros(len(triangles), bool)
    for k in range(3):
        p, q = edges_of[:, k], edges_of[:, (k + 1) % 3]
        free = ~shared[:, k] & ~shared[:, (k + 1) % 3]
        crosses = side(p, a, b, c) * side(q, a, b, c) < 0
        one, two, three = side(p, q, a, b), side(p, q, b, c), side(p, q, c, a)
        through = ((one > 0) & (two > 0) & (three > 0)) | ((one < 0) & (two < 0) & (three < 0))
        result |= free & crosses & through
    return result


def side(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Six times the signed volume of tetrahedra; rounding below 1e-12 of their edges counts as zero."""
    ab, ac, ad = b - a, c - a, d - a
    volume = (np.cross(ab, ac) * ad).sum(-1)
    size = np.linalg.norm(ab, axis=-1) * np.linalg.norm(ac, axis=-1) * np.linalg.norm(ad, axis=-1)
    return np.where(np.abs(volume) > 1e-12 * size, np.sign(volume), 0.0)
