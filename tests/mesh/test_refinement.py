"""Refinement: volume of thin vessels, vertices on the zero set, sparse, and what keeps faces apart."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from known_tubes import exact_distance, random_tube, sampled

from vesselsdf import mesh
from vesselsdf.mesh.intersections import faces_meet
from vesselsdf.mesh.subdivision import COUNT, TRIANGLES, certainly_apart, plain_discs, subdivide

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])


def tubes(radius, curved, count=6):
    generator = np.random.default_rng(int(100 * radius) + curved)
    for _ in range(count):
        graph, shape, volume = random_tube(generator, radius, curved)
        yield graph, sampled(graph, shape), volume


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize(("radius", "share"), [(0.9, 0.93), (1.3, 0.975), (2.0, 0.98), (3.0, 0.985)])
def test_thin_vessels_keep_their_volume(radius, share, curved):
    kept, plain, off = [], [], []
    for graph, field, volume in tubes(radius, curved):
        wall = mesh.surface(field, np.eye(4))
        kept.append(wall.volume / volume)
        plain.append(mesh.surface(field, np.eye(4), refined=False).volume / volume)
        off.append(np.abs(exact_distance(graph, wall.vertices)).mean())
        report = mesh.check(wall)
        assert (report["self_intersections"], report["degenerate_faces"], report["euler_number"]) == (0, 0, 2)
        assert report["watertight"]
    assert share < np.mean(kept) < 1
    assert np.mean(kept) > np.mean(plain) + (1 - np.mean(plain)) / 3
    assert np.mean(off) < 0.005


def test_flat_walls_and_thick_vessels_are_hardly_refined():
    slab = np.abs(np.indices((20, 20, 20)).T @ [0.36, 0.48, 0.8] - 15.3) - 3.1
    ball = np.linalg.norm(np.indices((40, 40, 40)) - 19.6, axis=0) - 15
    for field, most in ((slab, 1.01), (ball, 1.01)):
        faces = [len(mesh.surface(field, np.eye(4), refined=on).faces) for on in (False, True)]
        assert faces[0] <= faces[1] < most * faces[0]


def test_refinement_is_the_same_in_fortran_order_and_in_a_view():
    _, field, _ = next(iter(tubes(1.3, True, 1)))
    plain = mesh.surface(field, np.eye(4))
    padded = np.pad(field, 3, constant_values=9)[3:-3, 3:-3, 3:-3]
    for other in (np.asfortranarray(field), padded):
        again = mesh.surface(other, np.eye(4))
        np.testing.assert_array_equal(again.faces, plain.faces)
        np.testing.assert_array_equal(again.vertices, plain.vertices)


def test_every_way_to_cut_a_triangle_covers_it_once():
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    for way in range(16):
        if COUNT[way]:
            a, b, c = (corners[TRIANGLES[way, : COUNT[way], k]] for k in range(3))
            areas = np.cross(b - a, c - a)[:, 2] / 2
            assert (areas > 0).all()
            assert areas.sum() == 2
            assert len(areas) == 1 + bin(way & 7).count("1")
    assert np.count_nonzero(COUNT) == 11


def test_of_two_diagonals_the_shorter_one_is_taken():
    for tip, shorter in (([5, 3, 0], {0, 4}), ([1, 1, 0], {3, 2})):
        points = np.array([[0, 0, 0], [2, 0, 0], tip, [1, 0, 0], [0, 0, 0.0]])
        points[4] = (points[1] + points[2]) / 2
        lengths = {frozenset(pair): np.linalg.norm(points[pair[0]] - points[pair[1]]) for pair in ((0, 4), (3, 2))}
        assert min(lengths, key=lengths.get) == frozenset(shorter)
        faces, _ = subdivide(points, np.array([[0, 1, 2]]), np.array([[3, 4, -1]]))
        assert sum(shorter <= set(face) for face in faces.tolist()) == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_closed_mesh_stays_closed_whichever_edges_are_split(seed):
    generator = np.random.default_rng(seed)
    ball = trimesh.creation.icosphere(1)
    split = generator.random(len(ball.edges_unique)) < generator.random()
    number = np.where(split, len(ball.vertices) + np.cumsum(split) - 1, -1)
    # trimesh lists the edges of a face in the order 01, 12, 20.
    middles = number[ball.faces_unique_edges]
    points = np.concatenate([ball.vertices, ball.vertices[ball.edges_unique[split]].mean(axis=1)])
    faces, parent = subdivide(points, np.asarray(ball.faces), middles)
    report = mesh.check(trimesh.Trimesh(points, faces, process=False))
    assert report["watertight"]
    assert report["winding_consistent"]
    assert report["euler_number"] == 2
    assert report["area"] == pytest.approx(ball.area)
    assert (np.diff(parent) >= 0).all()
    assert len(faces) == len(ball.faces) + 2 * split.sum()


@pytest.mark.parametrize("angle", [0, 30, 60, 90, 120, 140, 150, 170, 179, 180])
def test_neighbours_are_apart_unless_they_are_nearly_folded(angle):
    fold = np.deg2rad(angle)
    points = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [0.3, np.cos(fold), np.sin(fold)]])
    faces = np.array([[1, 0, 2], [0, 1, 3]])
    pairs = np.array([[0, 1]])
    assert certainly_apart(points[faces].transpose(1, 2, 0).copy(), faces.T.copy(), pairs)[0] == (angle < 143)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-9, 0.3]))
def test_faces_that_meet_are_never_called_apart(seed, lift):
    generator = np.random.default_rng(seed)
    points = generator.random((9, 3)) * [1, 1, lift]
    faces = np.array([generator.choice(9, 3, replace=False) for _ in range(12)])
    faces = np.unique(np.sort(faces, axis=1), axis=0)
    pairs = np.stack(np.triu_indices(len(faces), 1), axis=1)
    apart = certainly_apart(points[faces].transpose(1, 2, 0).copy(), faces.T.copy(), pairs)
    meet = faces_meet(points, faces, pairs)
    shared = np.array([len(set(faces[i]) & set(faces[j])) for i, j in pairs])
    assert not (apart & meet)[shared < 2].any()
    if lift == 0.3:  # nearly all others are, in general position
        assert apart[~meet & (shared < 2)].mean() > 0.99


def disc(points, faces):
    """Corners, groups and rims of a small mesh as one group."""
    faces = np.asarray(faces)
    sides = {(int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1), strict=True)}
    rim = np.array([[(int(f[(k + 1) % 3]), int(f[k])) not in sides for f in faces] for k in range(3)])
    return bool(plain_discs(points[faces].transpose(1, 2, 0).copy(), np.zeros(len(faces), dtype=int), rim)[0])


def test_plain_discs_are_told_from_folds_rings_and_two_sheets():
    two = np.concatenate([SQUARE, SQUARE + np.array([0.2, 0.1, 0.5])])
    aside = np.concatenate([SQUARE, SQUARE + np.array([3, 0, 0.5])])
    sheets = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    assert disc(SQUARE, sheets[:2])
    assert disc(SQUARE * [1, 1, -1], sheets[:2])
    assert not disc(two, sheets)
    assert not disc(aside, sheets)
    folded = SQUARE.copy()
    folded[3] = [0.9, 0.2, 0.1]
    assert not disc(folded, sheets[:2])
    inner = SQUARE / 3 + 1 / 3
    ring = [f for k in range(4) for f in ([k, (k + 1) % 4, 4 + k], [(k + 1) % 4, 4 + (k + 1) % 4, 4 + k])]
    assert not disc(np.concatenate([SQUARE, inner]), ring)
    assert disc(np.concatenate([SQUARE, inner]), [*ring, [4, 5, 6], [4, 6, 7]])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 2))
def test_a_disc_that_crosses_itself_is_never_called_plain(seed, noise):
    generator = np.random.default_rng(seed)
    turns = np.linspace(0, 2 * np.pi, 8)[:-1]
    rings = [np.stack([r * np.cos(turns), r * np.sin(turns), 0 * turns], axis=1) for r in (0.5, 1)]
    points = np.concatenate([np.zeros((1, 3)), *rings]) + noise * generator.normal(size=(15, 3)) * [1, 1, 0.5]
    k = np.arange(7)
    after = (k + 1) % 7
    faces = np.concatenate(
        [
            np.stack([0 * k, 1 + k, 1 + after], axis=1),
            np.stack([1 + k, 8 + k, 8 + after], axis=1),
            np.stack([1 + k, 8 + after, 1 + after], axis=1),
        ]
    )
    crossing = len(mesh.self_intersections(trimesh.Trimesh(points, faces, process=False)))
    if crossing:
        assert not disc(points, faces)
    if noise < 1e-3:
        assert disc(points, faces)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_unit_of_length_does_not_matter(scale):
    _, field, _ = next(iter(tubes(1.3, True, 1)))
    plain = mesh.surface(field.astype(np.float64), np.eye(4))
    scaled = mesh.surface(scale * field.astype(np.float64), np.diag([scale, scale, scale, 1]))
    np.testing.assert_array_equal(scaled.faces, plain.faces)
    np.testing.assert_allclose(scaled.vertices / scale, plain.vertices, atol=1e-6)
