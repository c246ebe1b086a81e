"""Tubes of known radius, length and volume in any direction, and the exact distance to a tube graph at any points."""

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree

from vesselsdf.distance import tube_distance
from vesselsdf.mesh.colours import balls

NEIGHBOURS = 24
"""Balls of the centreline by power distance, among whose segments the nearest one is looked for."""


def tube(points, radii):
    """A graph of one branch."""
    graph = nx.MultiGraph()
    graph.add_node(0, pos=points[0], radius=float(radii[0]))
    graph.add_node(1, pos=points[-1], radius=float(radii[-1]))
    graph.add_edge(0, 1, points=np.asarray(points), radii=np.asarray(radii, dtype=float))
    return graph


def random_tube(generator, radius, curved, length=24.0):
    """A tube with round ends, in voxels of 1 mm: its graph, a grid that holds it, and its volume in mm3."""
    u, v, _ = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    if curved:
        bend = max(3 * radius, generator.uniform(4, 10))
        angle = min(length / bend, 1.5 * np.pi)
        turns = np.linspace(0, angle, max(int(angle * bend / 0.25), 4))[:, None]
        points, length = bend * (np.cos(turns) * u + np.sin(turns) * v), bend * angle
    else:
        points = np.array([0 * u, length * u])
    points = points - points.min(axis=0) + radius + 4 + generator.random(3)
    shape = tuple(int(n) for n in np.ceil(points.max(axis=0) + radius + 4) + 1)
    volume = np.pi * radius**2 * length + 4 / 3 * np.pi * radius**3
    return tube(points, np.full(len(points), radius)), shape, volume


def sampled(graph, shape, affine=None):
    """The tube graph's exact signed distance on a grid."""
    return tube_distance(graph, shape, np.eye(4) if affine is None else affine)


def exact_distance(graph, places):
    """Signed distance (mm, float64) to the round cones of a graph, at any points near its wall."""
    starts, ends, radii = [], [], []
    for *_, edge in graph.edges(data=True):
        points, radius = np.asarray(edge["points"]), np.asarray(edge["radii"])
        starts.append(points[:-1])
        ends.append(points[1:])
        radii.append(np.stack([radius[:-1], radius[1:]], axis=1))
    starts, ends, radii = np.concatenate(starts), np.concatenate(ends), np.concatenate(radii)
    # The balls along one cone after the other, lifted so that power distances become Euclidean ones.
    cone, centres, sizes = [], [], []
    for k, (start, end, radius) in enumerate(zip(starts, ends, radii, strict=True)):
        c, r = balls(tube(np.array([start, end]), radius))
        cone.append(np.full(len(r), k))
        centres.append(c)
        sizes.append(r)
    cone, centres, sizes = np.concatenate(cone), np.concatenate(centres), np.concatenate(sizes)
    lifted = np.column_stack([centres, np.sqrt(np.maximum(sizes.max() ** 2 - sizes**2, 0))])
    _, near = cKDTree(lifted).query(np.column_stack([places, np.zeros(len(places))]), k=min(NEIGHBOURS, len(sizes)))
    distance = np.full(len(places), np.inf)
    for column in np.reshape(near, (len(places), -1)).T:
        own = cone[column]
        distance = np.minimum(distance, cone_distance(places, starts[own], ends[own], radii[own]))
    return distance


def cone_distance(places, starts, ends, radii):
    """Signed distance of each place to its own round cone: the least `|x - c(t)| - r(t)` (Barbier and Galin 2004)."""
    axis = ends - starts
    length = np.linalg.norm(axis, axis=1)
    larger = radii[:, 0] >= radii[:, 1]
    inner = length <= np.abs(radii[:, 0] - radii[:, 1]) + 1e-12
    starts, first = (
        np.where((inner & ~larger)[:, None], ends, starts),
        np.where(inner, radii.max(axis=1), radii[:, 0]),
    )
    unit = axis / np.where(inner, 1, length)[:, None]
    taper = np.where(inner, 0, (radii[:, 0] - radii[:, 1]) / np.where(inner, 1, length))
    offset = places - starts
    height = np.einsum("ij,ij->i", offset, unit)
    beside = np.sqrt(np.maximum(np.einsum("ij,ij->i", offset, offset) - height**2, 0))
    along = np.clip(height - beside * taper / np.sqrt(1 - taper**2), 0, np.where(inner, 0, length))
    height = np.where(inner, 0, height)
    beside = np.where(inner, np.linalg.norm(offset, axis=1), beside)
    return np.hypot(beside, height - along) - (first - along * taper)
