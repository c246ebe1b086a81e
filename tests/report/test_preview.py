"""The preview: a picture of the right size, views the right way round, and nothing hidden shown."""

import io

import networkx as nx
import numpy as np
import pytest
import trimesh
from PIL import Image

from vesselsdf.distance import tube_distance
from vesselsdf.graph import centreline_graph
from vesselsdf.mesh import surface
from vesselsdf.report import preview as module
from vesselsdf.report import views
from vesselsdf.volume import Volume


def tube(affine, shape=(40, 36, 30)):
    """A bent vessel whose thick end is at the patient's right, front and head."""
    points = np.array([[6.0, 6, 5], [20, 18, 12], [33, 30, 25]]) @ np.eye(3)
    graph = nx.MultiGraph()
    graph.add_node(0, pos=points[0], radius=1.5)
    graph.add_node(1, pos=points[-1], radius=3.0)
    graph.add_edge(0, 1, start=0, points=points, radii=np.array([1.5, 2, 3]), length=50.0)
    return Volume(tube_distance(graph, shape, affine), affine)


@pytest.fixture(scope="module")
def parts():
    sdf = tube(np.eye(4))
    return sdf, centreline_graph(sdf.array, sdf.affine), surface(sdf.array, sdf.affine)


@pytest.mark.parametrize("with_image", [True, False])
def test_a_png_is_made(parts, with_image):
    sdf, graph, mesh = parts
    image = sdf.with_array(np.clip(100 - 50 * sdf.array, 0, 200).astype(np.float32)) if with_image else None
    picture = np.asarray(Image.open(io.BytesIO(module.preview_png(sdf, graph, mesh, image))).convert("RGB"))
    assert picture.shape[0] > 800
    assert picture.shape[1] > 1200
    assert 0.2 < (picture.mean(axis=2) < 128).mean() < 0.8 or not with_image


def test_the_headline_states_topology_and_size(parts):
    sdf, graph, mesh = parts
    line = module.headline(sdf, graph)
    assert line.startswith("1 component  ·  0 loops  ·  0 cavities  ·  1 branch  ·  2 ends")
    assert f"{len(mesh.faces):,}".replace(",", " ") in module.surface_line(mesh)
    assert "Euler number 2" in module.surface_line(mesh)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, 1, -1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_projections_are_radiological_whatever_the_axes_of_the_grid(signs, order):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * signs)[:, order]
    shape = tuple(np.array([40, 36, 30])[list(order)])
    # One bright voxel at the patient's right, front and head.
    place = np.array([39.0, 35, 29])
    affine[:3, 3] = [0 if s > 0 else n - 1 for s, n in zip(signs, (40, 36, 30), strict=True)]
    volume = Volume(np.zeros(shape, dtype=np.float32), affine)
    x, y, z = np.rint(volume.to_index(place[None])[0]).astype(int)
    volume.array[x, y, z] = 1
    expected = {"axial": ("left", "top"), "coronal": ("left", "top"), "sagittal": ("left", "top")}
    for view in views.VIEWS:
        picture, (left, right, bottom, top) = module.projected(volume, view, thickness=False)
        row, column = np.argwhere(picture == 1)[0]
        across, upwards = expected[view.name.split(",")[0]]
        assert column == (0 if across == "left" else picture.shape[1] - 1)
        assert row == (picture.shape[0] - 1 if upwards == "top" else 0)
        # The extent is that of the voxels' outer faces, in mm.
        assert {left, right} == {-0.5, picture.shape[1] - 0.5}
        assert (bottom, top) == (-0.5, picture.shape[0] - 0.5)


def test_a_rotated_grid_keeps_its_distances():
    turn = np.eye(4)
    turn[:3, :3] = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) * [0.5, 0.5, 2.0]
    array, extents = module.along_body_axes(Volume(np.zeros((10, 20, 30), dtype=np.float32), turn))
    assert array.shape == (10, 20, 30)
    np.testing.assert_allclose([end - start for start, end in extents], [5, 10, 60])


def two_squares():
    """A red square in front of a larger green one, both looking to the front (+y)."""

    def square(size, y):
        return [[-size, y, -size], [size, y, -size], [size, y, size], [-size, y, size]]

    vertices = np.array(square(1, 5.0) + square(2, 0.0))
    faces = np.array([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]])
    palette = np.array([[1.0, 0, 0]] * 4 + [[0, 1.0, 0]] * 4)
    return trimesh.Trimesh(vertices, faces, process=False), palette


def test_what_is_nearer_hides_what_is_behind_it():
    mesh, palette = two_squares()
    picture = module.render(mesh, views.VIEWS[1], palette, 100)
    h, w, _ = picture.shape
    middle, edge, corner = picture[h // 2, w // 2], picture[h // 2, w // 8], picture[1, 1]
    assert middle[0] > middle[1] + 0.2
    assert edge[1] > edge[0] + 0.2
    assert (corner == 1).all()
    # Nothing is left uncovered within the squares.
    inner = picture[h // 8 : -h // 8, w // 8 : -w // 8]
    assert (inner.min(axis=2) < 0.95).all()


def test_faces_that_look_away_are_not_drawn():
    mesh, palette = two_squares()
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
    assert (module.render(mesh, views.VIEWS[1], palette, 60) == 1).all()


def test_vertices_take_the_radius_of_their_vessel_not_of_a_twig_beside_it():
    graph = nx.MultiGraph()
    for node, (x, radius) in enumerate([(0.0, 10.0), (12.5, 1.0)]):
        graph.add_node(node, pos=np.array([x, 0, 0]), radius=radius)
    mesh = trimesh.Trimesh([[10.0, 0, 0], [13.5, 0, 0], [0, 10, 0]], [[0, 1, 2]], process=False)
    assert module.vertex_radii(mesh, graph).tolist() == [10.0, 1.0, 10.0]


def test_nothing_is_drawn_of_nothing():
    nothing = Volume(np.ones((8, 9, 10), dtype=np.float32), np.eye(4))
    assert module.preview_png(nothing, nx.MultiGraph(roots=[]), trimesh.Trimesh(), None).startswith(b"\x89PNG")
    assert module.surface_line(trimesh.Trimesh()) == "No surface"


@pytest.mark.parametrize("degrees", [0.0, 90.0, 180.0, 270.0, 37.0])
@pytest.mark.parametrize("elevation", [0.0, 50.0])
@pytest.mark.parametrize("up", [0, 1, 2])
def test_the_turntable_is_a_rotation_about_its_axis(degrees, up, elevation):
    turn = views.Turn(degrees, up, elevation)
    assert np.allclose(turn.frame @ turn.frame.T, np.eye(3))
    assert np.linalg.det(turn.frame) == pytest.approx(1)
    assert turn.frame[1, up] > 0, "its axis is up"
    assert turn.frame[2, up] == pytest.approx(np.sin(np.deg2rad(elevation))), "seen from above"


def test_letters_of_the_turntable():
    letters = {turn.name: turn.letters for turn in views.turntable(np.array([50.0, 60, 70]))}
    assert letters["from the front"] == ("R", "L", "I", "S")
    assert letters["from the left"] == ("A", "P", "I", "S")
    assert letters["from behind"] == ("L", "R", "I", "S")
    assert letters["from the right"] == ("P", "A", "I", "S")
    assert views.Turn(0.0, up=1).letters == ("R", "L", "P", "A"), "as an axial slice is seen"


def test_long_vessels_stand_upright_and_flat_stacks_are_seen_at_an_angle():
    assert [(turn.up, turn.elevation) for turn in views.turntable(np.array([138.0, 343, 52]))] == [(1, 0.0)] * 4
    assert [(turn.up, turn.elevation) for turn in views.turntable(np.array([500.0, 520, 60]))] == [(2, 50.0)] * 4
    assert [turn.up for turn in views.turntable(np.array([50.0, 60, 40]))] == [2] * 4
