"""Radius on the wall: of round cones, at junctions, and as colour."""

import networkx as nx
import numpy as np
import pytest

from vesselsdf import mesh
from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.mesh.colours import viridis


def trunk_and_twig():
    """A trunk of radius 5 along z and a twig that tapers from 1.5 to 1, both from the trunk's centre."""
    graph = nx.MultiGraph()
    for node, (pos, radius) in enumerate([([16, 16, -9], 5), ([16, 16, 16], 5), ([16, 16, 50], 5), ([30, 16, 16], 1)]):
        graph.add_node(node, pos=np.array(pos, dtype=float), radius=float(radius))
    for a, b, radii in ((0, 1, [5, 5]), (1, 2, [5, 5]), (1, 3, [1.5, 1])):
        points = np.array([graph.nodes[a]["pos"], graph.nodes[b]["pos"]])
        graph.add_edge(a, b, points=points, radii=np.array(radii, dtype=float))
    return graph


def test_the_wall_of_a_trunk_keeps_its_radius_next_to_a_thin_branch():
    graph = trunk_and_twig()
    wall = mesh.colour_by_radius(mesh.surface(tube_distance(graph, (34, 34, 34), np.eye(4)), np.eye(4)), graph)
    radius = wall.vertex_attributes["radius"]
    x, y, z = wall.vertices.T
    assert radius.dtype == np.float32
    trunk = (np.abs(np.hypot(x - 16, y - 16) - 5) < 0.1) & (np.hypot(y - 16, z - 16) > 1.7)
    assert (radius[trunk] == 5).all()
    assert trunk.sum() > 1000
    twig = (x > 22) & (x < 30)
    np.testing.assert_allclose(radius[twig], np.interp(x[twig], [16, 30], [1.5, 1]), atol=0.03)


def test_colours_follow_the_radius_between_the_limits():
    graph = trunk_and_twig()
    wall = mesh.surface(tube_distance(graph, (34, 34, 34), np.eye(4)), np.eye(4))
    own = mesh.colour_by_radius(wall, graph)
    radius, colours = own.vertex_attributes["radius"], own.visual.vertex_colors
    assert "radius" not in wall.vertex_attributes
    # The two ends of viridis (Smith and van der Walt 2015): dark violet and yellow.
    np.testing.assert_array_equal(colours[radius == radius.max()][0], [253, 231, 36, 255])
    np.testing.assert_array_equal(colours[radius == radius.min()][0], [68, 1, 84, 255])
    shared = mesh.colour_by_radius(wall, graph, limits=(0.0, 10.0))
    np.testing.assert_array_equal(shared.visual.vertex_colors[radius == 5][0], viridis(np.array([5.0]), (0.0, 10.0))[0])


def test_one_radius_everywhere_has_one_colour():
    assert len(np.unique(viridis(np.full(5, 2.0)), axis=0)) == 1


def test_an_empty_graph_and_limits_out_of_order_are_refused():
    wall = mesh.surface(np.linalg.norm(np.indices((7, 7, 7)) - 3.0, axis=0) - 2, np.eye(4))
    with pytest.raises(InputError, match="no node"):
        mesh.colour_by_radius(wall, nx.MultiGraph())
    with pytest.raises(InputError, match="smaller radius"):
        mesh.colour_by_radius(wall, trunk_and_twig(), limits=(3.0, 1.0))
