"""Tube graphs for the tests of distances."""

import networkx as nx
import numpy as np


def tube(*edges, isolated=()):
    graph = nx.MultiGraph()
    for number, (points, radii) in enumerate(edges):
        graph.add_edge(2 * number, 2 * number + 1, points=np.array(points, float), radii=np.array(radii, float))
    for number, (centre, radius) in enumerate(isolated):
        graph.add_node(f"ball {number}", pos=np.array(centre, float), radius=radius)
    return graph


def random_tubes(seed, size, count=12, low=1.2, high=4.0):
    """Tubes bent at random inside a cube of `size` mm."""
    rng = np.random.default_rng(seed)
    edges = []
    for _ in range(count):
        steps = rng.normal(size=(15, 3)) * 0.3
        steps = np.cumsum(np.vstack([rng.normal(size=3), steps]), axis=0)
        steps *= 2 / np.linalg.norm(steps, axis=1, keepdims=True)
        points = np.cumsum(np.vstack([rng.uniform(0.2 * size, 0.8 * size, 3), steps]), axis=0)
        edges.append((points, np.linspace(*rng.uniform(low, high, 2), len(points))))
    return tube(*edges)


def centres(shape, affine):
    index = np.moveaxis(np.indices(shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]
