"""Decimation: the number of faces asked for, and topology, volume and distance kept; manifold3d agrees."""

import manifold3d
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from vessels import FRAMES, bend, fork, frame, ladder, ring, straight

from vesselsdf import mesh
from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.mesh.zero_set import zero_set
from vesselsdf.synthesis.trees import grow_tree

KEPT = ("watertight", "winding_consistent", "manifold_vertices", "outward", "euler_number", "components")


def kept(before, after):
    before, after = mesh.check(before), mesh.check(after)
    assert {key: after[key] for key in KEPT} == {key: before[key] for key in KEPT}
    assert after["self_intersections"] <= before["self_intersections"]
    assert after["volume"] == pytest.approx(before["volume"], rel=1e-3)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("vessel", [straight, bend, fork, ladder, ring])
def test_a_quarter_of_the_faces_is_reached_exactly(vessel, name):
    affine = frame(name)
    _, sdf = vessel(affine)
    wall = mesh.surface(sdf, affine)
    fewer = mesh.decimate(wall, sdf, affine, faces=len(wall.faces) // 4)
    assert len(wall.faces) // 4 - 1 <= len(fewer.faces) <= len(wall.faces) // 4
    kept(wall, fewer)


def test_manifold3d_confirms_the_loops_of_a_tree():
    graph = grow_tree(6, (64, 64, 64), (1.0, 1.0, 1.0), loops=1)
    sdf = tube_distance(graph, (64, 64, 64), np.eye(4))
    wall = mesh.surface(sdf, np.eye(4))
    for faces, error in ((len(wall.faces) // 2, None), (len(wall.faces) // 10, 0.5), (None, 0.5)):
        fewer = mesh.decimate(wall, sdf, np.eye(4), faces=faces, error=error)
        kept(wall, fewer)
        solid = manifold3d.Manifold(
            manifold3d.Mesh(np.asarray(fewer.vertices, np.float32), np.asarray(fewer.faces, np.uint32))
        )
        assert solid.status() == manifold3d.Error.NoError
        assert solid.genus() == 1


@pytest.mark.parametrize("error", [0.05, 0.1, 0.3])
def test_no_vertex_of_a_new_face_leaves_the_zero_set_by_more_than_the_error(error):
    affine = frame("uneven")
    _, sdf = fork(affine)
    wall = mesh.surface(sdf, affine)
    fewer = mesh.decimate(wall, sdf, affine, error=error)
    field = zero_set(sdf, affine, wall.vertices)
    allowed = max(error, np.abs(field.distance(wall.vertices)).max())
    assert np.abs(field.distance(fewer.vertices)).max() <= allowed + 1e-6
    assert len(fewer.faces) < (0.5 if error > 0.05 else 0.9) * len(wall.faces)


def test_fewer_faces_are_left_the_larger_the_error():
    _, sdf = bend(frame("plain"))
    wall = mesh.surface(sdf, frame("plain"))
    counts = [len(mesh.decimate(wall, sdf, frame("plain"), error=error).faces) for error in (0.02, 0.05, 0.1, 0.3)]
    assert counts == sorted(counts, reverse=True)


def test_what_cannot_be_reached_is_refused_with_what_can():
    _, sdf = ring(frame("plain"))
    wall = mesh.surface(sdf, frame("plain"))
    with pytest.raises(InputError, match=r"8 faces cannot be reached within 0.125 mm .* (\d+) can") as refusal:
        mesh.decimate(wall, sdf, frame("plain"), faces=8)
    possible = int(str(refusal.value).split("; ")[1].split()[0])
    assert len(mesh.decimate(wall, sdf, frame("plain"), faces=possible).faces) == possible


def test_more_faces_than_there_are_change_nothing():
    _, sdf = ring(frame("plain"))
    wall = mesh.surface(sdf, frame("plain"))
    same = mesh.decimate(wall, sdf, frame("plain"), faces=10**6)
    assert same.vertices == pytest.approx(wall.vertices)
    assert np.array_equal(same.faces, wall.faces)


def test_two_walls_that_nearly_touch_stay_apart():
    """Tubes 0.4 voxel apart, decimated as far as an error larger than the gap allows."""
    affine = np.eye(4)
    x, y, z = np.indices((40, 30, 60)) - np.array([0, 14.5, 29.5])[:, None, None, None]
    wave = 0.6 * np.sin(z / 3)
    capsule = np.maximum(np.abs(z) - 20, 0)
    sdf = np.minimum(*(np.sqrt((x - c - wave) ** 2 + y**2 + capsule**2) - 6.0 for c in (13.2, 25.8)))
    wall = mesh.surface(sdf, affine)
    assert mesh.check(wall)["components"] in (1, 2)
    kept(wall, mesh.decimate(wall, sdf, affine, error=1.5))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 0.7), st.floats(0.1, 3.0))
def test_no_noise_makes_it_change_the_topology(seed, share, error):
    mask = np.random.default_rng(seed).random((7, 7, 7)) < share
    sdf = np.where(mask, -0.5, 0.5)
    wall = mesh.surface(sdf, np.eye(4))
    kept(wall, mesh.decimate(wall, sdf, np.eye(4), error=error))


def test_bad_input_is_told_in_a_sentence():
    _, sdf = ring(frame("plain"))
    wall = mesh.surface(sdf, frame("plain"))
    with pytest.raises(InputError, match="is not closed"):
        mesh.decimate(trimesh.Trimesh(wall.vertices, wall.faces[1:], process=False), sdf, frame("plain"))
    with pytest.raises(InputError, match="at least 4 faces, not 3"):
        mesh.decimate(wall, sdf, frame("plain"), faces=3)
    with pytest.raises(InputError, match="positive length"):
        mesh.decimate(wall, sdf, frame("plain"), error=-1.0)
