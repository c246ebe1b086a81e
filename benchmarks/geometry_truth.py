"""What is known of a synthetic tree: its exact distance at any point, its volume, its centreline, its nodes.

A `Truth` is made from the tube graph alone. Everything here is float64 and independent of `vesselsdf.distance`, whose
field the benchmarks use as input: the distance to round cones has a closed form, and a point needs only the cones that
can be nearest to it, which a Lipschitz bound decides exactly for all points of one small cell of space.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

CELL = 6.0  # edge of the cells by which points are gathered, mm


@dataclass(frozen=True)
class Truth:
    """Round cones (start, end, radius at both), and the nodes with their degrees. mm."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray
    nodes: np.ndarray
    node_radii: np.ndarray
    degrees: np.ndarray
    components: int
    loops: int

    @property
    def bifurcations(self) -> np.ndarray:
        """Which nodes are bifurcations."""
        return self.degrees > 2

    @property
    def tips(self) -> np.ndarray:
        """Which nodes are ends."""
        return self.degrees == 1


def truth_of(graph: nx.MultiGraph) -> Truth:
    """The truth of a tube graph."""
    edges = [(np.asarray(e["points"], float), np.asarray(e["radii"], float)) for _, _, e in graph.edges(data=True)]
    components = nx.number_connected_components(graph)
    return Truth(
        starts=np.concatenate([points[:-1] for points, _ in edges]),
        ends=np.concatenate([points[1:] for points, _ in edges]),
        radii=np.concatenate([np.stack([radii[:-1], radii[1:]], axis=1) for _, radii in edges]),
        nodes=np.array([graph.nodes[node]["pos"] for node in graph]),
        node_radii=np.array([graph.nodes[node]["radius"] for node in graph]),
        degrees=np.array([graph.degree(node) for node in graph]),
        components=components,
        loops=graph.number_of_edges() - graph.number_of_nodes() + components,
    )


def cone_distance(points: np.ndarray, cones: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple:
    """Distance of points (n, 1, 3) to cones (1, m): `min_t |x - c(t)| - r(t)` (n, m), and the t in [0, 1]."""
    starts, ends, radii = cones
    axis = ends - starts
    length = np.linalg.norm(axis, axis=-1)
    safe = np.maximum(length, 1e-300)
    slope = (radii[:, 0] - radii[:, 1]) / safe  # radius lost per length
    away = points - starts
    height = (away * (axis / safe[:, None])).sum(-1)
    across = np.sqrt(np.maximum((away**2).sum(-1) - height**2, 0))
    tangent = slope / np.sqrt(np.maximum(1 - slope**2, 1e-12))
    at = np.clip(height - across * tangent, 0, length)
    # A ball that holds the whole cone: the minimum lies at its end, wherever the closed form says.
    at = np.where(slope >= 1, 0.0, np.where(slope <= -1, length, at))
    distance = np.sqrt(across**2 + (height - at) ** 2) - (radii[:, 0] - slope * at)
    return distance, at / safe


def exact_distance(truth: Truth, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance at points (n, 3) mm, and its gradient (n, 3): the outward normal on the wall."""
    distance, gradient = np.empty(len(points)), np.empty((len(points), 3))
    cells = np.floor(points / CELL).astype(np.int64)
    _, first, owner = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(owner.ravel(), kind="stable")
    bounds = np.searchsorted(owner.ravel()[order], np.arange(len(first) + 1))
    everything = (truth.starts, truth.ends, truth.radii)
    rho = 0.5 * CELL * np.sqrt(3)
    for k, cell in enumerate(cells[first]):
        inside = order[bounds[k] : bounds[k + 1]]
        to_centre = cone_distance(((cell + 0.5) * CELL)[None, None], everything)[0][0]
        near = np.flatnonzero(to_centre <= to_centre.min() + 2 * rho + 1e-9)  # each distance is 1-Lipschitz
        some = tuple(part[near] for part in everything)
        for part in np.array_split(inside, len(inside) * len(near) // 2_000_000 + 1):
            found, at = cone_distance(points[part, None], some)
            best = found.argmin(axis=1)
            rows = np.arange(len(part))
            distance[part] = found[rows, best]
            foot = some[0][best] + at[rows, best, None] * (some[1] - some[0])[best]
            way = points[part] - foot
            gradient[part] = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-300)
    return distance, gradient


class Axis:
    """The true centreline as segments: the nearest point of it, and the true radius there."""

    def __init__(self, truth: Truth) -> None:
        steps = np.maximum(np.ceil(np.linalg.norm(truth.ends - truth.starts, axis=1) / 0.5).astype(int), 1)
        which = np.repeat(np.arange(len(steps)), steps)
        k = np.arange(len(which)) - np.repeat(np.cumsum(steps) - steps, steps)
        low, high = (k / steps[which])[:, None], ((k + 1) / steps[which])[:, None]
        axis = truth.ends - truth.starts
        self.low = truth.starts[which] + low * axis[which]
        self.high = truth.starts[which] + high * axis[which]
        taper = truth.radii[:, 1] - truth.radii[:, 0]
        self.radius_low = truth.radii[which, 0] + low[:, 0] * taper[which]
        self.radius_high = truth.radii[which, 0] + high[:, 0] * taper[which]
        self.tree = cKDTree((self.low + self.high) / 2)
        self.lengths = np.linalg.norm(self.high - self.low, axis=1)

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of points (n, 3) to the centreline, and its radius at the foot. mm."""
        _, index = self.tree.query(points, k=min(8, len(self.low)))
        index = index.reshape(len(points), -1)
        axis = self.high[index] - self.low[index]
        along = ((points[:, None] - self.low[index]) * axis).sum(-1) / np.maximum((axis**2).sum(-1), 1e-300)
        along = np.clip(along, 0, 1)
        away = np.linalg.norm(points[:, None] - self.low[index] - along[..., None] * axis, axis=-1)
        best = away.argmin(axis=1)
        rows = np.arange(len(points))
        share, chosen = along[rows, best], index[rows, best]
        radius = (1 - share) * self.radius_low[chosen] + share * self.radius_high[chosen]
        return away[rows, best], radius

    def middles(self) -> np.ndarray:
        """Points along it, at most half a mm apart."""
        return (self.low + self.high) / 2


def fractions(graph: nx.MultiGraph, shape: tuple[int, int, int], affine: np.ndarray, split: int = 4) -> np.ndarray:
    """Partial-volume label (X, Y, Z) float32: share of each voxel inside, from `split`**3 exact samples in it."""
    from vesselsdf.distance import tube_distance

    total = np.zeros(shape, np.uint16)
    for corner in np.ndindex(split, split, split):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ ((np.array(corner) + 0.5) / split - 0.5)
        total += tube_distance(graph, shape, moved, band=0.05 * float(np.abs(np.diag(affine)[:3]).min())) <= 0
    return (total / np.float32(split**3)).astype(np.float32)
