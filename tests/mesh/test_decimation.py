"""Fewer faces: topology and volume stay, the error is what it says, and what cannot be done is refused."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.errors import InputError
from vesselsdf.mesh import check, decimate, surface
from vesselsdf.mesh.counts import counts
from vesselsdf.mesh.cutting import Neighbourhood
from vesselsdf.mesh.decimation import collapsed
from vesselsdf.synthesis.trees import grow_tree


def tree_mesh(seed, loops=2, size=64, masked=False):
    tree = grow_tree(seed, (size,) * 3, (1.0, 1.0, 1.0), loops=loops)
    sdf = tube_distance(tree, (size,) * 3, np.eye(4), band=8.0).astype(np.float32)
    return surface(signed_distance(sdf <= 0, (1.0, 1.0, 1.0), band=5.0) if masked else sdf, np.eye(4))


def same(old, new):
    before, after = check(old), check(new)
    for key in ("watertight", "winding_consistent", "manifold_vertices", "outward"):
        assert after[key], key
    assert (after["euler_number"], after["components"]) == (before["euler_number"], before["components"])
    assert after["self_intersections"] == after["degenerate_faces"] == 0


@pytest.mark.parametrize("masked", [False, True], ids=["field", "mask"])
@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
def test_a_thin_tree_with_loops_keeps_its_topology_and_its_volume(share, masked):
    mesh = tree_mesh(2, masked=masked)
    small = decimate(mesh, faces=int(share * len(mesh.faces)))
    assert int(share * len(mesh.faces)) - 2 < len(small.faces) <= int(share * len(mesh.faces))
    same(mesh, small)
    assert small.volume == pytest.approx(mesh.volume, rel=5e-3)


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_no_vertex_moves_farther_than_the_error_by_an_independent_measure(error):
    mesh = tree_mesh(3, loops=1)
    small = decimate(mesh, error=error)
    same(mesh, small)
    assert small.metadata["deviation"] <= error
    assert len(small.faces) < 0.75 * len(mesh.faces)
    for some, other in ((mesh, small), (small, mesh)):
        samples, _ = trimesh.sample.sample_surface(other, 400_000, seed=1)
        # Samples are about 0.1 mm apart, so the distance from them is too large by little.
        assert cKDTree(samples).query(some.vertices)[0].max() < np.hypot(error, 0.25)


def test_a_larger_error_leaves_fewer_faces():
    mesh = tree_mesh(5, masked=True)
    sizes = [len(decimate(mesh, error=error).faces) for error in (0.02, 0.1, 0.4)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_box_comes_down_to_its_twelve_triangles():
    box = trimesh.creation.box((4, 5, 6))
    for _ in range(4):
        box = trimesh.Trimesh(*trimesh.remesh.subdivide(box.vertices, box.faces), process=False)
    small = decimate(box, faces=12)
    same(box, small)
    assert small.volume == pytest.approx(120)
    assert small.metadata["deviation"] < 1e-3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.0, 0.9))
def test_collapsing_never_changes_euler_number_components_or_closedness(seed, share):
    rng = np.random.default_rng(seed)
    noise = np.pad(rng.normal(size=(6, 6, 6)), 1, constant_values=1.0)
    mesh = surface(noise, np.eye(4))
    result, into = collapsed(
        Neighbourhood.of(mesh), np.full(len(mesh.vertices), np.inf), max(int(share * len(mesh.faces)), 4)
    )
    assert counts(result.faces) == counts(mesh.faces)
    assert set(into) == set(range(len(result.vertices)))


def test_too_few_faces_are_refused_with_what_is_possible():
    mesh = tree_mesh(2)
    with pytest.raises(InputError, match=r"(\d+) faces are possible") as refusal:
        decimate(mesh, faces=12)  # two handles need 24
    possible = int(str(refusal.value).split("; ")[1].split()[0])
    small = decimate(mesh, faces=possible)
    assert len(small.faces) <= possible
    with pytest.raises(InputError, match=r"within 0\.01 mm"):
        decimate(mesh, faces=len(mesh.faces) // 4, error=0.01)


def test_bad_input_gets_one_sentence():
    ball = trimesh.creation.icosphere(subdivisions=3)
    with pytest.raises(InputError, match="or an error"):
        decimate(ball)
    with pytest.raises(InputError, match="at least 4"):
        decimate(ball, faces=3)
    with pytest.raises(InputError, match="above 0"):
        decimate(ball, error=-1.0)
    with pytest.raises(InputError, match="no more than"):
        decimate(ball, faces=len(ball.faces))
    with pytest.raises(InputError, match="not closed"):
        decimate(trimesh.Trimesh(ball.vertices, ball.faces[1:], process=False), error=0.1)
    twice = trimesh.util.concatenate([ball, ball.copy().apply_translation([0.5, 0, 0])])
    with pytest.raises(InputError, match="cross"):
        decimate(twice, error=0.1)
