"""What the geometry benchmark measures with is itself measured against answers known otherwise."""

import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import trimesh

from vesselsdf.distance import tube_distance
from vesselsdf.synthesis.trees import grow_tree

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from geometry_scores import Lines, graph_scores, lines_of, matched, self_intersections
from geometry_truth import Axis, exact_distance, fractions, truth_of


def cone(start, end, radii) -> nx.MultiGraph:
    graph = nx.MultiGraph()
    points = np.array([start, end], float)
    for k in range(2):
        graph.add_node(k, pos=points[k], radius=radii[k])
    graph.add_edge(0, 1, start=0, points=points, radii=np.array(radii, float), length=float(np.ptp(points, 0).max()))
    return graph


@pytest.fixture(scope="module")
def tree() -> nx.MultiGraph:
    return grow_tree(1, (48, 48, 48), (1.0, 1.0, 1.0), loops=1)


def test_distance_to_a_round_cone_is_the_least_over_its_balls():
    graph = cone((0, 0, 0), (10, 0, 0), (3.0, 1.0))
    points = np.random.default_rng(0).uniform(-6, 16, (500, 3))
    at = np.linspace(0, 1, 20_001)[:, None]
    balls = [(np.linalg.norm(p - at * [10, 0, 0], axis=1) - (3 - 2 * at[:, 0])).min() for p in points]
    found, _ = exact_distance(truth_of(graph), points)
    assert np.abs(found - balls).max() < 1e-6


@pytest.mark.parametrize("radii", [(5.0, 1.0), (1.0, 5.0)])
def test_a_ball_that_holds_the_cone_is_all_of_it(radii):
    graph = cone((0, 0, 0), (2, 0, 0), radii)
    centre = np.array([0.0 if radii[0] > radii[1] else 2.0, 0, 0])
    points = np.random.default_rng(0).uniform(-9, 9, (100, 3))
    found, _ = exact_distance(truth_of(graph), points)
    assert np.allclose(found, np.linalg.norm(points - centre, axis=1) - 5)


def test_exact_distance_is_the_field_of_the_tree_and_its_gradient_has_length_one(tree):
    field = tube_distance(tree, (48, 48, 48), np.eye(4))
    index = np.argwhere(np.abs(field) < 3)[::7]
    found, gradient = exact_distance(truth_of(tree), index.astype(float))
    assert np.abs(found - field[tuple(index.T)]).max() < 1e-4
    ahead, _ = exact_distance(truth_of(tree), index + 1e-5 * gradient)
    assert np.percentile(np.abs((ahead - found) / 1e-5 - 1), 99) < 1e-4


def test_partial_volumes_add_up_to_the_volume_of_a_tube():
    graph = cone((8.3, 9.1, 9.4), (24.2, 21.7, 22.9), (2.2, 2.2))
    length = np.linalg.norm(np.diff(next(iter(graph.edges(data=True)))[2]["points"], axis=0))
    volume = np.pi * 2.2**2 * length + 4 / 3 * np.pi * 2.2**3
    assert fractions(graph, (32, 32, 32), np.eye(4)).sum() == pytest.approx(volume, rel=2e-3)


def test_the_true_graph_has_no_error_and_a_shifted_one_its_shift(tree):
    truth = truth_of(tree)
    same = graph_scores(lines_of(tree), truth)
    assert same["bifurcations"][0] == same["bifurcations"][1] == same["bifurcations"][2]
    assert same["ends"][2] == same["ends"][1]
    assert same["covered"] == 1
    assert max(same["centre"]) < 1e-9
    assert same["radius"][0] < 1e-9
    lines = lines_of(tree)
    wider = Lines([(p, 1.1 * r) for p, r in lines.branches], lines.bifurcations + 9, lines.ends[1:], 1, lines.loops)
    other = graph_scores(wider, truth)
    assert other["radius"] == pytest.approx([0.1, 0.1])
    assert other["bifurcations"][2] < same["bifurcations"][2]
    assert other["ends"][2] == same["ends"][2] - 1


def test_places_are_matched_one_to_one():
    found = np.array([[0.0, 0, 0], [0.1, 0, 0], [9, 0, 0]])
    assert matched(found, np.array([[0.0, 0, 0]]), np.array([3.0])) == 1
    assert matched(found, np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([3.0, 3.0])) == 2


def test_nearest_point_of_the_centreline_lies_within_a_segment():
    axis = Axis(truth_of(cone((0, 0, 0), (10, 0, 0), (3.0, 1.0))))
    away, radius = axis.nearest(np.array([[5.0, 2.0, 0.0], [12.0, 0.0, 0.0], [2.13, 0.0, 0.5]]))
    assert away == pytest.approx([2, 2, 0.5])
    assert radius == pytest.approx([2, 1, 3 - 0.2 * 2.13])


def test_two_balls_that_overlap_cross_and_one_alone_does_not():
    ball = trimesh.creation.icosphere(subdivisions=2)
    moved = ball.copy()
    moved.apply_translation([0.93, 0.11, 0.07])
    both = trimesh.util.concatenate([ball, moved])
    assert self_intersections(ball.vertices, ball.faces) == 0
    assert self_intersections(both.vertices, both.faces) > 20
    moved.apply_translation([2.0, 0, 0])
    apart = trimesh.util.concatenate([ball, moved])
    assert self_intersections(apart.vertices, apart.faces) == 0


def test_a_vertex_pulled_through_the_wall_makes_its_faces_cross():
    ball = trimesh.creation.icosphere(subdivisions=2)
    vertices = ball.vertices.copy()
    vertices[0] *= -1.5
    assert self_intersections(vertices, ball.faces) > 0
