"""Classes that touch share the wall between them: no gap and no overlap in cells of the two alone, never an overlap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from vesselsdf.distance import signed_distance
from vesselsdf.distance.classes import class_distances
from vesselsdf.errors import InputError
from vesselsdf.mesh import surface
from vesselsdf.synthesis.scanner import smooth_field
from vesselsdf.volume import Volume, isotropic

CORNERS = list(np.ndindex(2, 2, 2))


def three_tubes(seed, size=36):
    """A tube in a random direction that an oblique plane cuts in two classes, and a third one beside it."""
    generator = np.random.default_rng(seed)
    points = np.indices((size,) * 3).reshape(3, -1).T - size / 2 - generator.uniform(-1, 1, 3)
    along = generator.normal(size=3)
    along /= np.linalg.norm(along)
    aside = np.cross(along, generator.normal(size=3))
    aside /= np.linalg.norm(aside)
    radius = generator.uniform(2, 4)

    def within(offset, reach):
        moved = points - offset
        height = moved @ along
        return (np.linalg.norm(moved - height[:, None] * along, axis=1) < reach) & (abs(height) < 0.4 * size)

    label = np.where(within(aside * (radius + 1.8), 2.2), 3, 0)
    first = within(0 * aside, radius)
    label[first] = 1
    label[first & (points @ (along + 0.6 * generator.normal(size=3)) > 0)] = 2
    return label.reshape((size,) * 3)


def blobs(seed):
    """Regions of noise that meet in all ways, two and three together."""
    generator = np.random.default_rng(seed)
    fields = np.stack([smooth_field((18, 16, 14), 2.5, generator) for _ in range(3)])
    return np.where(fields.max(axis=0) > 0.6, fields.argmax(axis=0) + 1, 0)


def cells(values):
    """Of an array of voxel values, those at the eight corners of each cell, (8, n)."""
    x, y, z = values.shape
    return np.stack([values[a : x - 1 + a, b : y - 1 + b, c : z - 1 + c].ravel() for a, b, c in CORNERS])


def check_walls(label, first, second, pair):
    corners = cells(label)
    both = (corners == pair[0]).any(axis=0) & (corners == pair[1]).any(axis=0)
    alone = both & np.isin(corners, pair).all(axis=0)
    a, b = cells(first)[:, both], cells(second)[:, both]
    assert (a + b >= 0).all(), "they never overlap"
    np.testing.assert_array_equal(cells(first)[:, alone], -cells(second)[:, alone])
    other = cells(first) <= 0
    assert not (other.any(axis=0) & (cells(second) <= 0).any(axis=0) & ~both).any(), "and share no other cell"
    return int(alone.sum())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), slices=st.sampled_from([1.0, 0.7, 2.3]))
def test_the_wall_between_two_classes_is_the_same_from_both_sides(seed, slices):
    label = blobs(seed)
    ids = [int(number) for number in np.unique(label) if number]
    fields = dict(zip(ids, class_distances(label, ids, (1.0, 1.0, slices)), strict=True))
    for number, field in fields.items():
        np.testing.assert_array_equal(field <= 0, label == number, "signs are the label's")
        assert (field != 0).all()
    for a in ids:
        for b in ids:
            if a < b:
                check_walls(label, fields[a], fields[b], (a, b))


def test_tubes_share_many_cells_in_which_fields_of_their_own_gape_and_overlap():
    shared, apart = 0, 0
    for seed in range(4):
        label = three_tubes(seed)
        fields = class_distances(label, (1, 2, 3), (1.0, 1.0, 1.0))
        corners = cells(label)
        for a, b in ((1, 2), (1, 3)):
            shared += check_walls(label, fields[a - 1], fields[b - 1], (a, b))
            alone = np.isin(corners, (a, b)).all(axis=0) & (corners == a).any(axis=0) & (corners == b).any(axis=0)
            own = [cells(signed_distance(label == number, (1.0, 1.0, 1.0)))[:, alone] for number in (a, b)]
            apart += int((np.abs(own[0] + own[1]).max(axis=0) > 0.1).sum())
    assert shared > 300
    assert apart > 0.3 * shared


def test_fields_are_exact_but_beside_another_class():
    label = three_tubes(1)
    fields = class_distances(label, (1, 2, 3), (0.5, 0.5, 0.8))
    for number, field in enumerate(fields, 1):
        own = signed_distance(label == number, (0.5, 0.5, 0.8))
        changed = field != own
        assert (np.isin(label, (1, 2, 3)) & (label != number))[changed].all()
        assert changed.mean() < 0.02
        assert np.abs(field - own)[changed].max() < np.linalg.norm([0.5, 0.5, 0.8])


def test_on_an_isotropic_grid_they_do_not_overlap_either():
    label = three_tubes(2)[:, :, ::2]
    even = [
        isotropic(Volume(field, np.diag([1.0, 1, 2, 1])), 1.0).array
        for field in class_distances(label, (1, 2, 3), (1.0, 1.0, 2.0))
    ]
    for a in range(3):
        for b in range(a):
            assert not ((even[a] < 0) & (even[b] < 0)).any()


def test_meshes_of_both_sides_lie_on_each_other():
    """Within 0.05 voxel on average where two classes are alone; refined meshes are interpolated beyond their cells."""
    away = []
    for seed in range(3):
        label = three_tubes(seed)
        fields = class_distances(label, (1, 2, 3), (1.0, 1.0, 1.0))
        meshes = [surface(field, np.eye(4)) for field in fields]
        for a, b in ((1, 2), (1, 3)):
            vertices = meshes[a - 1].vertices
            cell = np.clip(np.floor(vertices).astype(int), 0, label.shape[0] - 2)
            corners = np.stack([label[tuple((cell + step).T)] for step in CORNERS])
            alone = np.isin(corners, (a, b)).all(axis=0) & (corners == a).any(axis=0) & (corners == b).any(axis=0)
            there = np.concatenate([meshes[b - 1].sample(200_000, seed=0), meshes[b - 1].vertices])
            away.append(cKDTree(there).query(vertices[alone])[0])
    distances = np.concatenate(away)
    assert len(distances) > 300
    assert distances.mean() < 0.08
    assert distances.max() < 0.5


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="empty"):
        class_distances(three_tubes(0), (1, 7), (1.0, 1.0, 1.0))
