"""A rigid motion of landmarks: recovered exactly, refused where it cannot be known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vesselsdf.alignment import align, rigid_motion
from vesselsdf.volume import Volume

CORNERS = {"a": (0, 0, 0), "b": (20, 0, 0), "c": (0, 14, 0), "d": (3, 5, 9), "e": (11, -6, 4), "f": (-7, 2, -8)}


def motion(seed):
    generator = np.random.default_rng(seed)
    transform = np.eye(4)
    transform[:3, :3] = Rotation.random(rng=generator).as_matrix()
    transform[:3, 3] = generator.normal(size=3) * 100
    return transform


def moved(points, transform):
    return {name: tuple(transform[:3, :3] @ np.array(point) + transform[:3, 3]) for name, point in points.items()}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_every_rigid_motion_is_recovered(seed):
    truth = motion(seed)
    found = align(CORNERS, moved(CORNERS, truth), 0.5)
    assert found.kind == "rigid"
    assert found.residual < 1e-9
    np.testing.assert_allclose(found.transform, truth, atol=1e-9)
    points = np.array(list(CORNERS.values()), float)
    np.testing.assert_allclose(found.to_prediction(found.to_reference(points)), points, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_no_motion_is_better_than_the_one_found_and_it_is_never_a_reflection(seed):
    generator = np.random.default_rng(seed)
    source, target = generator.normal(size=(2, 6, 3))
    best = rigid_motion(source, target)
    assert np.linalg.det(best[:3, :3]) == pytest.approx(1)
    assert np.linalg.det(rigid_motion(source, target, reflect=True)[:3, :3]) == pytest.approx(-1)

    def left(transform):
        return ((source @ transform[:3, :3].T + transform[:3, 3] - target) ** 2).sum()

    nudge = np.eye(4)
    nudge[:3, :3] = Rotation.from_rotvec(generator.normal(size=3) * 0.1).as_matrix()
    nudge[:3, 3] = generator.normal(size=3) * 0.1
    assert left(best) <= left(best @ nudge) + 1e-12


def test_one_landmark_that_lies_elsewhere_is_left_out():
    truth = motion(3)
    target = moved(CORNERS, truth)
    target["e"] = tuple(np.add(target["e"], 6))
    found = align(CORNERS, target, 0.5)
    assert found.left_out == ("e",)
    np.testing.assert_allclose(found.transform, truth, atol=1e-9)


def test_places_that_agree_as_they_are_are_not_moved():
    near = {name: tuple(np.add(point, 0.2)) for name, point in CORNERS.items()}
    found = align(CORNERS, near, 0.5)
    assert found.kind == "world"
    assert np.array_equal(found.transform, np.eye(4))
    assert found.residual == pytest.approx(0.2 * 3**0.5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_landmarks_fix_no_motion(count):
    few = dict(list(CORNERS.items())[:count])
    found = align(few, moved(few, motion(1)), 0.5)
    assert not found.known
    assert f"{count} landmark(s) in common" in found.why


def test_landmarks_on_a_line_fix_no_motion():
    line = {str(k): (3.0 * k, 1.0 * k, 0.0) for k in range(6)}
    found = align(line, moved(line, motion(1)), 0.5)
    assert not found.known
    assert "on a line" in found.why


def test_unrelated_landmarks_are_refused_with_their_residual():
    generator = np.random.default_rng(0)
    first, second = ({str(k): tuple(generator.normal(size=3) * 10) for k in range(8)} for _ in range(2))
    found = align(first, second, 0.5)
    assert not found.known
    assert not found.mirrored
    assert found.residual > 3


def test_a_mirror_image_is_recognised_as_one():
    mirrored = {name: (-x, y, z) for name, (x, y, z) in CORNERS.items()}
    found = align(CORNERS, moved(mirrored, motion(5)), 0.5)
    assert not found.known
    assert found.mirrored
    assert "left and right are swapped" in found.why


def test_a_volume_moves_by_its_affine_alone():
    truth = motion(2)
    found = align(CORNERS, moved(CORNERS, truth), 0.5)
    volume = Volume(np.arange(24).reshape(2, 3, 4), np.diag([0.5, 0.5, 2.0, 1.0]))
    there = found.apply(volume)
    assert there.array is volume.array
    np.testing.assert_allclose(there.affine, truth @ volume.affine, atol=1e-9)


def test_the_error_to_expect_far_from_the_landmarks_is_the_error_that_there_is():
    """Fitzpatrick's estimate against 400 motions found from landmarks that are off by 0.3 mm (root mean square)."""
    generator = np.random.default_rng(1)
    points = {name: np.array(point, float) for name, point in CORNERS.items()}
    for target in ((4.0, 2.0, 0.0), (40.0, -30.0, 25.0)):
        errors, expected = [], []
        for seed in range(200):
            truth = motion(seed)
            noisy = {name: tuple(p + generator.normal(size=3) * 0.3 / 3**0.5) for name, p in points.items()}
            found = align(moved(points, np.linalg.inv(truth)), noisy, 0.01)
            source = np.array([moved({"t": target}, np.linalg.inv(truth))["t"]])
            errors.append(np.linalg.norm(found.to_reference(source)[0] - target))
            expected.append(found.error_at(target))
        assert np.sqrt(np.mean(np.square(expected))) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.15)
