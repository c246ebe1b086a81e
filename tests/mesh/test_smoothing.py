"""Smoothing takes steps out of the wall, not volume, topology or trust in where the wall is."""

import numpy as np
import pytest
import trimesh
from scipy import ndimage

from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.errors import InputError
from vesselsdf.mesh import check, smooth, surface
from vesselsdf.synthesis.trees import grow_tree

TURNED = np.array([[0.36, 0.48, -0.8, 5], [-0.8, 0.6, 0.0, -7], [0.48, 0.64, 0.6, 3], [0, 0, 0, 1]])
FLIPPED = TURNED @ np.diag([-0.5, 0.5, 0.8, 1.0])


def off(mesh, sdf, affine):
    """Distance of the vertices from the zero set by the field, mm."""
    inverse = np.linalg.inv(affine)
    index = np.asarray(mesh.vertices) @ inverse[:3, :3].T + inverse[:3, 3]
    return np.abs(ndimage.map_coordinates(sdf, index.T, order=1, mode="nearest", output=float))


def tree_field(seed, size=64):
    tree = grow_tree(seed, (size,) * 3, (1.0, 1.0, 1.0), loops=1)
    return tube_distance(tree, (size,) * 3, np.eye(4), band=8.0).astype(np.float32)


@pytest.mark.parametrize("affine", [np.eye(4), TURNED, FLIPPED], ids=["plain", "turned", "flipped"])
@pytest.mark.parametrize("kind", ["steps", "distance"])
def test_a_tree_from_a_mask_gets_smoother_within_the_tolerance_and_keeps_volume_and_topology(affine, kind):
    mask = tree_field(3) <= 0
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sdf = signed_distance(mask, tuple(spacing.tolist()), band=5.0 * spacing.max())
    if kind == "steps":
        sdf = np.where(mask, -0.5, 0.5) * spacing.min()
    rough = surface(sdf, affine)
    even = smooth(rough, sdf, affine)
    assert off(even, sdf, affine).max() <= max(0.25 * spacing.min(), off(rough, sdf, affine).max()) + 1e-9
    np.testing.assert_array_equal(even.faces, rough.faces)
    before, after = check(rough), check(even)
    assert after["volume"] == pytest.approx(before["volume"], rel=0.002)
    assert after["self_intersections"] <= before["self_intersections"]
    assert after["degenerate_faces"] == 0
    bend = [np.abs(mesh.face_adjacency_angles).mean() for mesh in (rough, even)]
    assert bend[1] < 0.95 * bend[0]


@pytest.mark.parametrize(("kind", "share"), [("steps", 0.75), ("distance", 0.88)])
def test_normals_come_nearer_to_those_of_the_vessels_that_the_mask_was_made_of(kind, share):
    true = tree_field(5).astype(float)
    mask = true <= 0
    sdf = signed_distance(mask, (1.0, 1.0, 1.0), band=5.0) if kind == "distance" else np.where(mask, -0.5, 0.5)
    rough = surface(sdf, np.eye(4))
    errors = []
    for mesh in (rough, smooth(rough, sdf, np.eye(4))):
        slope = np.stack([ndimage.map_coordinates(g, mesh.triangles_center.T, order=1) for g in np.gradient(true)], 1)
        slope /= np.linalg.norm(slope, axis=1, keepdims=True)
        errors.append(np.degrees(np.arccos(np.clip((slope * mesh.face_normals).sum(axis=1), -1, 1))).mean())
    assert errors[1] < share * errors[0]


def test_the_wall_of_a_tube_from_a_mask_comes_nearer_to_the_truth_and_thin_tubes_do_not_shrink():
    x, y, z = np.indices((60, 24, 48)).astype(float)
    radii = {12: 2.0, 30: 3.0, 48: 6.0}
    true = np.min([np.hypot(x - at - 0.1 * (z - 24), y - 12) - r for at, r in radii.items()], axis=0)
    true = np.maximum(true, np.abs(z - 23.5) - 18)
    sdf = np.where(true <= 0, -0.5, 0.5)
    rough = surface(sdf, np.eye(4))
    even = smooth(rough, sdf, np.eye(4))
    axes = np.array(list(radii))
    pieces = zip(*(sorted(mesh.split(), key=lambda part: part.centroid[0]) for mesh in (rough, even)), strict=True)
    for (before, after), at, radius in zip(pieces, axes, radii.values(), strict=True):
        assert after.volume == pytest.approx(before.volume, rel=0.002)
        spread = []
        for part in (before, after):
            v = np.asarray(part.vertices)
            inside = np.abs(v[:, 2] - 23.5) < 12
            distance = np.hypot(v[:, 0] - at - 0.1 * (v[:, 2] - 24), v[:, 1] - 12)[inside]
            spread.append(np.abs(distance - radius).mean())
        assert spread[1] < 0.9 * spread[0], radius


def test_a_smooth_wall_stays_where_it_is():
    x, y, z = np.indices((30, 30, 30)) - 14.5
    sdf = np.sqrt(x**2 + y**2 + z**2) - 10
    ball = surface(sdf, np.eye(4))
    even = smooth(ball, sdf, np.eye(4))
    assert np.abs(np.linalg.norm(even.vertices - 14.5, axis=1) - 10).max() < 0.08


def test_a_tight_tolerance_is_kept_and_a_wide_one_is_smoother():
    mask = tree_field(4) <= 0
    sdf = np.where(mask, -0.5, 0.5)
    rough = surface(sdf, np.eye(4))
    start = off(rough, sdf, np.eye(4)).max()
    bend = []
    for tolerance in (0.05, 0.4):
        even = smooth(rough, sdf, np.eye(4), tolerance=tolerance, iterations=30)
        assert off(even, sdf, np.eye(4)).max() <= max(tolerance, start) + 1e-9
        bend.append(np.abs(even.face_adjacency_angles).mean())
    assert bend[1] < bend[0]


def test_the_flat_end_of_a_vessel_that_leaves_the_grid_stays_on_the_border():
    x, y, _ = np.indices((16, 16, 20)) - 7.5
    sdf = np.hypot(x, y) - 4
    mesh = surface(sdf, np.eye(4))
    even = smooth(mesh, sdf, np.eye(4))
    end = np.asarray(mesh.vertices)[:, 2] < -0.4
    assert end.any()
    np.testing.assert_array_equal(even.vertices[end], mesh.vertices[end])


def test_colours_and_attributes_go_with_the_vertices():
    sdf = np.linalg.norm(np.indices((16, 16, 16)) - 7.5, axis=0) - 5
    mesh = surface(sdf, np.eye(4))
    mesh.vertex_attributes["radius"] = np.full(len(mesh.vertices), 5.0)
    even = smooth(mesh, sdf, np.eye(4), iterations=3)
    assert (even.vertex_attributes["radius"] == 5).all()


def test_bad_input_gets_one_sentence():
    sdf = np.linalg.norm(np.indices((16, 16, 16)) - 7.5, axis=0) - 5
    mesh = surface(sdf, np.eye(4))
    with pytest.raises(InputError, match="above 0"):
        smooth(mesh, sdf, np.eye(4), tolerance=0.0)
    with pytest.raises(InputError, match="above 0"):
        smooth(mesh, sdf, np.eye(4), iterations=0)
    with pytest.raises(InputError, match="not closed"):
        smooth(trimesh.Trimesh(mesh.vertices, mesh.faces[1:], process=False), sdf, np.eye(4))
    with pytest.raises(InputError, match="outside the field"):
        smooth(mesh, sdf, np.diag([0.1, 0.1, 0.1, 1.0]))
