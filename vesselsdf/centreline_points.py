"""A centreline graph as points along its branches, and the shortest ways along it."""

import math
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra


@dataclass(frozen=True)
class Line:
    """A centreline graph as points along its branches; an isolated node is a branch of length zero."""

    points: Float[np.ndarray, "n 3"]  # mm
    radii: Float[np.ndarray, " n"]  # mm
    weights: Float[np.ndarray, " n"]  # mm of centreline that each point stands for
    branch: Int[np.ndarray, " n"]  # which branch a point lies on; points of a branch are consecutive
    arc: Float[np.ndarray, " n"]  # mm along the branch from its first end
    ends: Int[np.ndarray, "b 2"]  # the two end nodes of each branch, as positions in `nodes`
    lengths: Float[np.ndarray, " b"]  # mm
    nodes: tuple

    @cached_property
    def adjacency(self) -> csr_matrix:
        """Length of the shortest branch between each two nodes."""
        u, v = self.ends.min(axis=1), self.ends.max(axis=1)
        shortest: dict[tuple[int, int], float] = {}
        for a, b, length in zip(u.tolist(), v.tolist(), self.lengths.tolist(), strict=True):
            if a != b:
                # csgraph reads an explicit zero as "no edge".
                shortest[a, b] = min(shortest.get((a, b), math.inf), max(length, 1e-9))
        rows, columns = (np.array([pair[side] for pair in shortest], dtype=int) for side in (0, 1))
        return csr_matrix((list(shortest.values()), (rows, columns)), shape=(len(self.nodes),) * 2)

    @cached_property
    def end_points(self) -> Int[np.ndarray, "b 2"]:
        """The first and the last point of each branch."""
        lasts = np.cumsum(np.bincount(self.branch, minlength=len(self.ends))) - 1
        return np.stack([np.concatenate([[0], lasts[:-1] + 1]), lasts], axis=1)

    @cached_property
    def point_at(self) -> dict[int, int]:
        """For each node (position in `nodes`) a point that lies on it."""
        return dict(zip(self.ends.ravel().tolist(), self.end_points.ravel().tolist(), strict=True))

    def geodesic(self, first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
        """Length (mm) of the shortest way along the graph from points `first` to `second`; inf where there is none."""
        result = np.where(
            self.branch[first] == self.branch[second], np.abs(self.arc[first] - self.arc[second]), np.inf
        ).astype(float)
        to_end = [np.stack([self.arc[k], self.lengths[self.branch[k]] - self.arc[k]], axis=1) for k in (first, second)]
        sources = np.unique(self.ends[self.branch[first]])
        for chunk in np.array_split(sources, max(1, math.ceil(len(sources) * len(self.nodes) / 2**22))):
            if len(chunk) == 0:
                continue
            distances = dijkstra(self.adjacency, directed=False, indices=chunk)
            for side in (0, 1):
                source = self.ends[self.branch[first], side]
                here = np.flatnonzero(np.isin(source, chunk))
                row = np.searchsorted(chunk, source[here])
                for other in (0, 1):
                    target = self.ends[self.branch[second[here]], other]
                    way = to_end[0][here, side] + distances[row, target] + to_end[1][here, other]
                    result[here] = np.minimum(result[here], way)
        return result


def sample(graph: nx.MultiGraph, step: float | int) -> Line:
    """Points along the edges of a centreline graph, at most `step` mm apart, both ends of each edge included."""
    nodes = tuple(graph.nodes)
    position = {node: k for k, node in enumerate(nodes)}
    lines, ends = [], []
    for u, v, data in graph.edges(data=True):
        start = data.get("start", u)
        ends.append((position[start], position[v if start == u else u]))
        radii = np.array(data["radii"], dtype=float)
        # All points at one node are the same point, whichever branch they belong to.
        radii[[0, -1]] = [graph.nodes[nodes[node]]["radius"] for node in ends[-1]]
        lines.append(_resample(np.asarray(data["points"], float), radii, step))
    for node in nx.isolates(graph):
        ends.append((position[node], position[node]))
        data = graph.nodes[node]
        lines.append((np.asarray(data["pos"], float)[None], np.array([float(data["radius"])]), np.zeros(1)))
    counts = [len(line[2]) for line in lines]
    weights = [_trapezoid(arc) for _, _, arc in lines]
    return Line(
        points=np.concatenate([line[0] for line in lines]) if lines else np.zeros((0, 3)),
        radii=np.concatenate([line[1] for line in lines]) if lines else np.zeros(0),
        weights=np.concatenate(weights) if lines else np.zeros(0),
        branch=np.repeat(np.arange(len(lines)), counts),
        arc=np.concatenate([line[2] for line in lines]) if lines else np.zeros(0),
        ends=np.array(ends, dtype=int).reshape(-1, 2),
        lengths=np.array([line[2][-1] for line in lines], dtype=float),
        nodes=nodes,
    )


def _resample(points: np.ndarray, radii: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    arc = np.linspace(0.0, along[-1], max(2, math.ceil(along[-1] / step) + 1))
    columns = [np.interp(arc, along, values) for values in (*points.T, radii)]
    return np.stack(columns[:3], axis=1), columns[3], arc


def _trapezoid(arc: np.ndarray) -> np.ndarray:
    halves = np.diff(arc) / 2
    return np.concatenate([halves, [0.0]]) + np.concatenate([[0.0], halves])
