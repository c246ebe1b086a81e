import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.errors import InputError


def tube(*edges, isolated=()):
    graph = nx.MultiGraph()
    for number, (points, radii) in enumerate(edges):
        graph.add_edge(2 * number, 2 * number + 1, points=np.array(points, float), radii=np.array(radii, float))
    for number, (centre, radius) in enumerate(isolated):
        graph.add_node(f"ball {number}", pos=np.array(centre, float), radius=radius)
    return graph


def random_tubes(seed, size, count=12, low=1.2, high=4.0):
    """Tubes bent at random inside a cube of `size` mm."""
    rng = np.random.default_rng(seed)
    edges = []
    for _ in range(count):
        steps = rng.normal(size=(15, 3)) * 0.3
        steps = np.cumsum(np.vstack([rng.normal(size=3), steps]), axis=0)
        steps *= 2 / np.linalg.norm(steps, axis=1, keepdims=True)
        points = np.cumsum(np.vstack([rng.uniform(0.2 * size, 0.8 * size, 3), steps]), axis=0)
        edges.append((points, np.linspace(*rng.uniform(low, high, 2), len(points))))
    return tube(*edges)


def centres(shape, affine):
    index = np.moveaxis(np.indices(shape), 0, -1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def cone_by_sampling(places, a, b, ra, rb, count=4001):
    """The definition itself: least distance to the spheres whose centre and radius vary linearly."""
    t = np.linspace(0, 1, count)[:, None]
    middle, radius = (1 - t) * a + t * b, ((1 - t) * ra + t * rb)[:, 0]
    return (np.linalg.norm(places[:, None] - middle, axis=2) - radius).min(1)


def turned(seed, spacing, shift=(3.0, -7.0, 11.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=np.random.RandomState(seed)).as_matrix() * np.asarray(spacing)
    affine[:3, 3] = shift
    return affine


class TestTubeDistance:
    def test_a_node_without_edges_is_a_ball(self):
        field = tube_distance(tube(isolated=[((5, 6, 7), 3.0)]), (12, 12, 12), np.eye(4))
        expected = np.linalg.norm(centres((12, 12, 12), np.eye(4)) - [5, 6, 7], axis=-1) - 3
        np.testing.assert_allclose(field, expected, atol=1e-5)

    def test_a_segment_of_constant_radius_is_a_capsule(self):
        field = tube_distance(tube(([[4, 8, 8], [12, 8, 8]], [2, 2])), (17, 17, 17), np.eye(4))
        assert field.dtype == np.float32
        place = centres((17, 17, 17), np.eye(4))
        beyond = np.maximum(np.abs(place[..., 0] - 8) - 4, 0)
        expected = np.sqrt(beyond**2 + (place[..., 1] - 8) ** 2 + (place[..., 2] - 8) ** 2) - 2
        np.testing.assert_allclose(field, expected, atol=1e-5)

    @settings(max_examples=40, deadline=None)
    @given(
        ends=hnp.arrays(float, (2, 3), elements=st.floats(-4, 12)),
        radii=hnp.arrays(float, 2, elements=st.floats(0.2, 6)),
        spacing=st.tuples(*[st.floats(0.3, 2.0)] * 3),
        seed=st.integers(0, 1000),
    )
    def test_a_round_cone_is_the_union_of_its_spheres_on_any_grid(self, ends, radii, spacing, seed):
        affine = turned(seed, spacing, (0, 0, 0))
        field = tube_distance(tube((ends, radii)), (6, 5, 4), affine)
        expected = cone_by_sampling(centres((6, 5, 4), affine).reshape(-1, 3), *ends, *radii)
        np.testing.assert_allclose(field.ravel(), expected, atol=4e-3)  # the samples' own error: length / 4000

    @pytest.mark.parametrize("radii", [(5.0, 1.0), (1.0, 5.0), (2.0, 2.0)])
    @pytest.mark.parametrize("length", [0.0, 1e-9, 0.5, 3.9999, 4.0])
    def test_a_sphere_inside_the_other_adds_nothing(self, radii, length):
        points = np.array([[6.0, 6.0, 6.0], [6.0 + length, 6.0, 6.0]])
        field = tube_distance(tube((points, radii)), (13, 13, 13), np.eye(4))
        expected = cone_by_sampling(centres((13, 13, 13), np.eye(4)).reshape(-1, 3), *points, *radii)
        np.testing.assert_allclose(field.ravel(), expected, atol=2e-3)

    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.7, 1.6)])
    def test_the_search_finds_the_nearest_of_many_cones(self, spacing):
        graph, affine = random_tubes(2, 30.0), turned(4, spacing, (10, 12, 8))
        shape = (33, 20, 41)
        field = tube_distance(graph, shape, affine)
        place = centres(shape, affine).reshape(-1, 3)[::97]
        expected = np.full(len(place), np.inf)
        for *_, edge in graph.edges(data=True):
            for k in range(len(edge["radii"]) - 1):
                cone = cone_by_sampling(place, *edge["points"][k : k + 2], *edge["radii"][k : k + 2], count=300)
                expected = np.minimum(expected, cone)
        np.testing.assert_allclose(field.ravel()[::97], expected, atol=2e-3)

    @pytest.mark.parametrize("band", [0.4, 2.0, 9.0, 100.0])
    def test_a_band_clips_and_changes_nothing_else(self, band):
        graph = random_tubes(0, 40.0)
        everywhere = tube_distance(graph, (40, 37, 43), np.eye(4))
        np.testing.assert_allclose(
            tube_distance(graph, (40, 37, 43), np.eye(4), band), everywhere.clip(-band, band), atol=1e-4
        )

    def test_vessels_outside_the_grid_count(self):
        field = tube_distance(tube(([[-30, 4, 4], [-20, 4, 4]], [2, 2])), (8, 8, 8), np.eye(4))
        assert field[0, 4, 4] == pytest.approx(18, abs=1e-4)
        assert (tube_distance(tube(isolated=[((-30, 4, 4), 2.0)]), (8, 8, 8), np.eye(4), band=3.0) == 3).all()

    def test_the_field_never_changes_faster_than_distance(self):
        spacing = (0.6, 1.0, 1.7)
        field = tube_distance(random_tubes(5, 40.0), (50, 40, 24), np.diag([*spacing, 1.0]))
        for axis in range(3):
            assert np.abs(np.diff(field, axis=axis)).max() <= spacing[axis] * (1 + 1e-4)

    def test_flipping_the_grid_flips_the_field(self):
        graph, flip = random_tubes(1, 30.0), np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = 29
        one, other = (tube_distance(graph, (30, 30, 30), affine) for affine in (np.eye(4), flip))
        np.testing.assert_allclose(one, other[::-1], atol=1e-4)

    @pytest.mark.parametrize(
        ("graph", "affine", "words"),
        [
            (nx.MultiGraph(), np.eye(4), "no edge and no node"),
            (tube(([[0, 0, 0], [1, 0, 0]], [1, -1])), np.eye(4), "not positive"),
            (tube(([[0, 0, 0], [np.nan, 0, 0]], [1, 1])), np.eye(4), "not finite"),
            (tube(([[0, 0, 0], [1, 0, 0]], [1, 1, 1])), np.eye(4), "radii of shape"),
            (tube(isolated=[((1, 1, 1), 1.0)]), np.zeros((4, 4)), "singular"),
            (tube(isolated=[((1, 1, 1), 1.0)]), np.eye(4) + np.eye(4, k=1), "sheared"),
        ],
    )
    def test_what_cannot_be_measured_is_refused(self, graph, affine, words):
        with pytest.raises(InputError, match=words):
            tube_distance(graph, (4, 4, 4), affine)


class TestSignedDistance:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_wall_along_the_grid_lies_half_way(self, axis):
        mask = np.zeros((20, 21, 22), bool)
        np.moveaxis(mask, axis, 0)[:9] = True
        spacing = (0.5, 1.0, 2.0)
        field = np.moveaxis(signed_distance(mask, spacing), axis, 0)
        expected = (np.arange(len(field)) - 8.5) * spacing[axis]
        np.testing.assert_allclose(field, np.broadcast_to(expected[:, None, None], field.shape), atol=1e-4)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.6, 0.6, 1.5)])
    def test_a_tilted_wall(self, seed, spacing):
        rng = np.random.default_rng(seed)
        normal = rng.normal(size=3)
        normal /= np.linalg.norm(normal)
        place = centres((40, 40, 40), np.diag([*spacing, 1.0])) - 20 * np.array(spacing)
        truth = place @ normal + rng.uniform(-0.5, 0.5)
        field = signed_distance(truth <= 0, spacing)
        inner = (slice(6, -6),) * 3
        near = np.abs(truth[inner]) < 3
        error = (field - truth)[inner][near] / np.linalg.norm(normal * spacing)  # in steps of the grid along the normal
        assert np.abs(error).mean() < 0.2
        assert abs(error.mean()) < 0.1
        assert np.abs(error).max() < 0.8

    @pytest.mark.parametrize("radius", [2.0, 5.0, 11.0])
    def test_a_ball(self, radius):
        centre = np.array([15.3, 16.1, 14.8])
        truth = np.linalg.norm(centres((32, 32, 32), np.eye(4)) - centre, axis=-1) - radius
        error = signed_distance(truth <= 0, (1.0, 1.0, 1.0)) - truth
        assert np.abs(error[np.abs(truth) < 3]).mean() < 0.2
        assert np.abs(error).mean() < 0.25

    def test_tubes_to_an_eighth_of_a_voxel(self):
        truth = tube_distance(random_tubes(3, 64.0, count=20), (64, 64, 64), np.eye(4))
        error = (signed_distance(truth <= 0, (1.0, 1.0, 1.0)) - truth)[np.abs(truth) < 3]
        assert np.abs(error).mean() < 0.13
        assert abs(error.mean()) < 0.08

    @settings(max_examples=60, deadline=None)
    @given(
        mask=hnp.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)),
        spacing=st.tuples(*[st.floats(0.2, 5.0)] * 3),
        band=st.none() | st.floats(0.1, 10),
    )
    def test_the_sign_is_always_the_masks(self, mask, spacing, band):
        if mask.all() or not mask.any():
            with pytest.raises(InputError):
                signed_distance(mask, spacing, band)
            return
        field = signed_distance(mask, spacing, band)
        assert field.dtype == np.float32
        assert field.shape == mask.shape
        assert np.array_equal(field < 0, mask)
        assert (field != 0).all()
        # Every voxel at the wall is at most a voxel away from it, along an axis and so in any direction.
        for axis in range(3):
            jump = np.abs(np.diff(field, axis=axis))[np.diff(mask, axis=axis)]
            assert (jump <= 2 * spacing[axis] + 1e-4).all()

    def test_far_distances_agree_with_an_exact_transform_to_a_voxel(self):
        from scipy.ndimage import distance_transform_edt

        spacing = (0.7, 0.7, 1.2)
        mask = tube_distance(random_tubes(7, 40.0, count=3), (60, 60, 34), np.diag([*spacing, 1.0])) <= 0
        outside = distance_transform_edt(~mask, sampling=spacing)
        far = outside > 8
        difference = signed_distance(mask, spacing)[far] - outside[far]
        assert difference.min() > -1.2  # the wall lies up to half a voxel diagonal before the vessel's first centre
        assert difference.max() < 0.5

    @pytest.mark.parametrize("band", [1.0, 3.0, 7.0, 12.0])
    def test_a_band_clips_and_changes_nothing_else(self, band):
        mask = tube_distance(random_tubes(8, 40.0, count=3), (40, 40, 40), np.eye(4)) <= 0
        everywhere = signed_distance(mask, (1.0, 1.0, 1.0))
        np.testing.assert_allclose(
            signed_distance(mask, (1.0, 1.0, 1.0), band), everywhere.clip(-band, band), atol=1e-4
        )

    def test_an_unusable_spacing_is_refused(self):
        mask = np.zeros((3, 3, 3), bool)
        mask[1, 1, 1] = True
        with pytest.raises(InputError, match="spacing"):
            signed_distance(mask, (1.0, 0.0, 1.0))
        with pytest.raises(InputError, match="band"):
            signed_distance(mask, (1.0, 1.0, 1.0), band=-2.0)
