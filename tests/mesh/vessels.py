"""Vessels with known shape for the tests of meshes: tubes as graphs, in frames that are turned, mirrored and uneven."""

import networkx as nx
import numpy as np

from vesselsdf.distance import tube_distance

FRAMES = ("plain", "turned", "mirrored", "uneven")


def frame(name, spacing=0.5):
    """Voxel indices to RAS mm."""
    affine = np.diag([spacing, spacing, spacing, 1.0])
    if name == "plain":
        return affine
    angle = 0.7
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    steps = {"turned": (1, 1, 1), "mirrored": (1, -1, 1), "uneven": (0.8, -1, 1.3)}[name]
    affine[:3, :3] = tilt @ turn @ np.diag(steps) * spacing
    affine[:3, 3] = [-30, 12.5, 400]
    return affine


def tubes(branches, shape, affine):
    """Graph in RAS mm and field of tubes; branches are (points in voxels, radii in mm), joined where ends coincide."""
    graph, names = nx.MultiGraph(), {}

    def node(point, radius):
        key = tuple(np.round(point, 6))
        if key not in names:
            names[key] = len(names)
            graph.add_node(names[key], pos=point, radius=float(radius))
        return names[key]

    for points, radii in branches:
        points = np.asarray(points, dtype=float) @ affine[:3, :3].T + affine[:3, 3]
        radii = np.broadcast_to(np.asarray(radii, dtype=float), len(points)).copy()
        u, v = node(points[0], radii[0]), node(points[-1], radii[-1])
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        graph.add_edge(u, v, start=u, points=points, radii=radii, length=length)
    ends = [n for n in graph if graph.degree(n) == 1] or list(graph)
    graph.graph["root"] = max(ends, key=lambda n: graph.nodes[n]["radius"])
    graph.graph["roots"] = [graph.graph["root"]]
    return graph, tube_distance(graph, shape, affine)


def line(start, end, n=40):
    return np.linspace(start, end, n)


def straight(affine, radius=2.0):
    return tubes([(line((16, 16, 12), (17, 18, 60)), radius)], (36, 36, 72), affine)


def bend(affine, radius=1.6):
    angle = np.linspace(0, np.pi / 2, 60)
    points = np.stack([10 + 36 * np.sin(angle), np.full(60, 14.0), 10 + 36 * np.cos(angle)], axis=1)
    return tubes([(points, radius)], (58, 28, 58), affine)


def cone(affine, radii=(3.0, 1.2)):
    return tubes([(line((18, 18, 14), (18, 18, 62)), np.linspace(*radii, 40))], (36, 36, 74), affine)


def fork(affine, radii=(2.4, 1.8, 1.5)):
    middle = (30.0, 20.0, 34.0)
    return tubes(
        [
            (line((30, 20, 10), middle), radii[0]),
            (line(middle, (12, 20, 62)), radii[1]),
            (line(middle, (50, 22, 60)), radii[2]),
        ],
        (62, 40, 74),
        affine,
    )


def ladder(affine):
    """One loop and three ends, one of them the thickest."""
    one, other = (16.0, 16.0, 26.0), (44.0, 16.0, 50.0)
    return tubes(
        [
            (line((16, 16, 8), one), 2.2),
            (line(one, (16, 16, 50), 30), 1.8),
            (line((16, 16, 50), other), 1.5),
            (line(one, (44, 16, 26)), 1.5),
            (line((44, 16, 26), other), 1.5),
            (line((16, 16, 50), (16, 16, 66)), 1.4),
            (line(other, (44, 16, 66)), 1.3),
        ],
        (60, 32, 74),
        affine,
    )


def ring(affine, radius=1.5):
    angle = np.linspace(0, 2 * np.pi, 81)
    points = np.stack([24 + 14 * np.cos(angle), 24 + 14 * np.sin(angle), np.full(81, 10.0)], axis=1)
    points[-1] = points[0]
    return tubes([(points, radius)], (48, 48, 20), affine)
