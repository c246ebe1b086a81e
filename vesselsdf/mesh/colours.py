"""Radius on the vessel wall, as data and as colour."""

import networkx as nx
import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from scipy.spatial import cKDTree

from vesselsdf.errors import InputError

STEP = 0.25
"""Longest step between the balls that stand for a branch, as a share of their radius."""


def colour_by_radius(
    mesh: trimesh.Trimesh, graph: nx.MultiGraph, limits: tuple[float, float] | None = None
) -> trimesh.Trimesh:
    """Copy of `mesh` with the radius of its vessel at every vertex: float32 mm, attribute `radius`, and as colour.

    A vertex belongs to the centreline point whose ball it lies deepest in, or is least far from, by power distance
    `|x - c|^2 - r^2` (Aurenhammer 1987). On the wall of a union of balls that is the ball that the wall is made of: the
    wall of a trunk keeps the trunk's radius up to where a thin branch leaves it, though that centreline is nearer.

    graph: centreline graph in the same RAS mm; nodes carry `pos` and `radius`, edges `points` and `radii`.
    limits: radii in mm of the two ends of the colour map (viridis, perceptually uniform); the least and the largest
        radius of a vertex if not given. Radii beyond take the colour of the end.

    Raises InputError for a graph without nodes, and for limits that are not in order.

    >>> graph = nx.MultiGraph()
    >>> graph.add_node(0, pos=np.zeros(3), radius=2.0)
    >>> ball = colour_by_radius(trimesh.creation.icosphere(radius=2.0), graph)
    >>> ball.vertex_attributes["radius"].max(), ball.visual.vertex_colors.shape
    (np.float32(2.0), (642, 4))
    """
    if limits is not None and not limits[0] < limits[1]:
        raise InputError(f"limits of the colours are {limits}; give the smaller radius in mm first.")
    centres, radii = balls(graph)
    nearest = deepest_ball(np.asarray(mesh.vertices), centres, radii)
    radius = radii[nearest].astype(np.float32)
    coloured = mesh.copy()
    coloured.vertex_attributes["radius"] = radius
    coloured.visual = trimesh.visual.ColorVisuals(coloured, vertex_colors=viridis(radius, limits))
    return coloured


def deepest_ball(
    places: Float[np.ndarray, "m 3"], centres: Float[np.ndarray, "n 3"], radii: Float[np.ndarray, " n"]
) -> Int[np.ndarray, " m"]:
    """For each place the number of the ball that it lies deepest in, or is least far from, by power distance."""
    # As a fourth coordinate, sqrt(R^2 - r^2) turns power distances into Euclidean ones.
    lifted = np.column_stack([centres, np.sqrt(np.maximum(radii.max() ** 2 - radii**2, 0))])
    return cKDTree(lifted).query(np.column_stack([places, np.zeros(len(places))]))[1]


def balls(graph: nx.MultiGraph) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Centres and radii of balls along all branches, and at all nodes, close enough to stand for the round cones."""
    centres = [np.asarray(position, dtype=float)[None] for _, position in graph.nodes(data="pos")]
    radii = [np.array([radius], dtype=float) for _, radius in graph.nodes(data="radius")]
    if not centres:
        raise InputError("the centreline graph has no node, so no radius; give the graph of the same vessels.")
    for *_, edge in graph.edges(data=True):
        points, radius = np.asarray(edge["points"], dtype=float), np.asarray(edge["radii"], dtype=float)
        length = np.linalg.norm(np.diff(points, axis=0), axis=1)
        smaller = np.maximum(np.minimum(radius[1:], radius[:-1]), 1e-3 * radius.max())
        count = np.maximum(np.ceil(length / (STEP * smaller)).astype(int), 1)
        # Positions along the branch in units of its segments.
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        place = np.append(np.repeat(np.arange(len(count)), count) + step / np.repeat(count, count), len(count))
        known = np.arange(len(points))
        centres.append(np.stack([np.interp(place, known, column) for column in points.T], axis=1))
        radii.append(np.interp(place, known, radius))
    return np.concatenate(centres), np.concatenate(radii)


def viridis(values: Float[np.ndarray, " n"], limits: tuple[float, float] | None = None) -> UInt8[np.ndarray, "n 4"]:
    """Colours (RGBA) of values, between their own least and largest or the given limits."""
    from matplotlib import colormaps

    low, high = limits or (float(values.min(initial=np.inf)), float(values.max(initial=-np.inf)))
    share = np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(len(values), 0.5)
    return colormaps["viridis"](share, bytes=True)
