import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation
from tubes import centres, random_tubes, tube

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError


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
