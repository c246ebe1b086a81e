"""Field, mesh and graph are compared by their topology, and what differs is named with its place."""

import networkx as nx
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.agreement import agreement
from vesselsdf.graph import centreline_graph
from vesselsdf.mesh import surface

AFFINE = np.array([[0.0, -0.5, 0, 4], [0.5, 0, 0, -7], [0, 0, 0.75, 11], [0, 0, 0, 1]])


def world(x, y, z):
    return AFFINE[:3, :3] @ [x, y, z] + AFFINE[:3, 3]


def scene():
    """A ring, a straight vessel beside it and a hollow ball; mm of a grid with voxels of 1 mm, which suits counting."""
    x, y, z = np.indices((40, 40, 30)).astype(float)
    ring = np.hypot(np.hypot(x - 12, y - 12) - 7, z - 10) - 2
    rod = np.maximum(np.hypot(x - 12, y - 33) - 2, np.abs(z - 14) - 10)
    ball = np.abs(np.sqrt((x - 31) ** 2 + (y - 20) ** 2 + (z - 14) ** 2) - 4.5) - 2
    return np.minimum(np.minimum(ring, rod), ball)


def names(report):
    return sorted(one["name"] for one in report["disagreements"])


def test_what_is_made_from_one_field_agrees():
    field = scene()
    report = agreement(field, AFFINE, surface(field, AFFINE), centreline_graph(field, AFFINE))
    assert report["agrees"]
    assert report["disagreements"] == []
    assert report["field"] == report["mesh"] == [3, 1, 1]
    assert report["graph"] == [3, 1]
    assert report["field_without_cavities"] == [3, 1, 0]


def test_a_loop_that_the_graph_lacks_is_named_where_it_is_thinnest():
    field = scene()
    field[18:21, 11:14, 8:13] = np.maximum(field[18:21, 11:14, 8:13], -0.4)  # thin at the ring's right-hand side
    graph = centreline_graph(field, AFFINE)
    ((u, v, key),) = [(u, v, k) for u, v, k in graph.edges(keys=True) if u == v]
    graph.remove_edge(u, v, key)
    report = agreement(field, AFFINE, graph=graph)
    assert names(report) == ["graph lacks a loop"]
    place = report["disagreements"][0]["place"]
    assert np.linalg.norm(place - world(19, 12, 10)) < 2
    assert not report["agrees"]


def test_a_loop_too_many_and_components_are_named_with_their_places():
    field = scene()
    graph = centreline_graph(field, AFFINE)
    rod = next(n for n in graph if np.linalg.norm(graph.nodes[n]["pos"] - world(12, 33, 24)) < 3)
    ((_, other, edge),) = graph.edges(rod, data=True)
    graph.add_edge(rod, other, **{**edge, "start": edge["start"]})
    graph.add_node("stray", pos=world(2, 2, 28), radius=1.0)
    ball = [n for n in graph if n != "stray" and np.linalg.norm(graph.nodes[n]["pos"] - world(31, 20, 14)) < 4]
    graph.remove_nodes_from(ball)
    report = agreement(field, AFFINE, graph=graph)
    assert names(report) == ["graph has a component too many", "graph has a loop too many", "graph lacks a component"]
    places = {one["name"]: np.array(one["place"]) for one in report["disagreements"]}
    np.testing.assert_allclose(places["graph has a component too many"], world(2, 2, 28))
    assert np.linalg.norm(places["graph has a loop too many"] - world(12, 33, 14)) < 2
    assert np.linalg.norm(places["graph lacks a component"] - world(31, 20, 14)) < 5


def test_walls_that_the_mesh_lacks_or_invents_are_named():
    field = scene()
    whole = surface(field, AFFINE)
    pieces = sorted(whole.split(only_watertight=False), key=lambda piece: abs(piece.volume))  # cavity, rod, ball, ring
    cavity = min(pieces, key=lambda piece: piece.volume)
    assert cavity.volume < 0
    rest = [piece for piece in pieces if piece is not cavity]
    report = agreement(field, AFFINE, trimesh.util.concatenate(rest))
    assert names(report) == ["mesh lacks a cavity"]
    ring = next(piece for piece in rest if piece.euler_number == 0)
    report = agreement(field, AFFINE, trimesh.util.concatenate([p for p in pieces if p is not ring]))
    assert names(report) == ["mesh lacks a component"]
    report = agreement(field, AFFINE, trimesh.util.concatenate([whole, rest[0]]))
    assert names(report) == ["mesh has a component too many"]
    filled = scene()
    filled[10:15, 10:15, 8:13] = -1
    other = surface(
        np.where(np.hypot(*(np.indices(field.shape)[:2] - 12.0)) < 11, np.minimum(field, filled), field), AFFINE
    )
    assert agreement(field, AFFINE, other)["field"][1] == 1
    faces = np.asarray(whole.faces)[1:]
    report = agreement(field, AFFINE, trimesh.Trimesh(whole.vertices, faces, process=False))
    assert names(report) == ["mesh is open"]
    assert np.linalg.norm(report["disagreements"][0]["place"] - whole.triangles_center[0]) < 1


def test_a_disc_over_the_hole_of_a_ring_is_a_missing_handle():
    field = scene()
    x, y, z = np.indices(field.shape)
    closed = np.minimum(field, np.maximum(np.hypot(x - 12, y - 12) - 7, np.abs(z - 10.0) - 1))
    report = agreement(field, AFFINE, surface(closed, AFFINE), centreline_graph(closed, AFFINE))
    assert names(report) == ["graph lacks a loop", "mesh lacks a loop"]
    assert report["mesh"] == [3, 0, 1]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.5), st.floats(-1.5, 0.3))
def test_field_mesh_and_graph_of_any_noise_agree(seed, sigma, level):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(10, 11, 12)), sigma)
    field = noise / noise.std() - level
    mask = field <= 0
    if not mask.any() or mask.all():
        return
    report = agreement(field, AFFINE, surface(field, AFFINE), centreline_graph(field, AFFINE))
    assert report["agrees"], report["disagreements"]


@pytest.mark.parametrize("field", [np.ones((5, 5, 5)), -np.ones((5, 5, 5))])
def test_fields_without_a_wall_are_compared_too(field):
    report = agreement(field, np.eye(4), graph=centreline_graph(field, np.eye(4)))
    assert report["agrees"]
    assert agreement(field, np.eye(4), graph=nx.MultiGraph())["agrees"] == bool((field > 0).all())
