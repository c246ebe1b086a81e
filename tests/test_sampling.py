"""Patches: a pure function of seed, step and number."""

import numpy as np
import pytest

from vesselsdf.distance import signed_distance
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import draw, prepare
from vesselsdf.volume import Volume

REACH = 24.0


@pytest.fixture
def case(tmp_path):
    """A tube along z through noise, on voxels of 0.5 x 0.5 x 1 mm."""
    shape = (40, 44, 30)
    x, y, _ = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    vessel = np.hypot(x - 20, y - 22) < 4
    image = np.random.default_rng(0).normal(0, 0.2, shape) + vessel
    volume = Volume(image.astype(np.float32), np.diag([0.5, 0.5, 1.0, 1.0]))
    distance = volume.with_array(signed_distance(vessel, volume.spacing))
    return prepare(tmp_path, "tube", lambda: (volume, distance), Preprocessing(), REACH)


def test_a_prepared_case_lies_on_the_working_grid(case):
    assert case.image.shape == case.sdf.shape == (40, 44, 60)
    assert case.sdf.min() == pytest.approx(-4, abs=0.6)  # voxels of 0.5 mm
    assert case.sdf.max() <= REACH
    assert np.allclose(case.skeleton[:, :2].mean(axis=0), [20, 22], atol=1)


def test_a_prepared_case_is_not_prepared_twice(case, tmp_path):
    def fail():
        raise AssertionError("loaded again")

    again = prepare(tmp_path, "tube", fail, Preprocessing(), REACH)
    assert np.array_equal(again.image, case.image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tube"]


def test_draws_depend_on_nothing_but_their_numbers(case):
    first, again = draw([case], 24, 3, seed=5, step=7), draw([case], 24, 3, seed=5, step=7)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.sdf, again.sdf)
    for other in ({"seed": 6, "step": 7}, {"seed": 5, "step": 8}, {"seed": 5, "step": 7, "first": 3}):
        assert not np.array_equal(first.image, draw([case], 24, 3, **other).image)


def test_image_distance_and_skeleton_are_turned_together(case):
    for step in range(20):
        batch = draw([case], 24, 2, seed=0, step=step)
        inside = batch.sdf <= -1.5
        if inside.any():
            assert batch.image[inside].mean() > batch.image[batch.sdf > 1.5].mean()
        assert (batch.sdf[batch.skeleton > 0] <= 0).all()


def test_patches_larger_than_the_case_are_filled_up(case):
    batch = draw([case], 64, 1, seed=0, step=0)
    assert batch.image.shape == batch.sdf.shape == batch.skeleton.shape == (1, 1, 64, 64, 64)


def test_a_truth_on_a_finer_grid_than_thick_slices_is_kept(tmp_path):
    from vesselsdf.synthesis.cases import synthetic_case

    case = synthetic_case(3, (48, 48, 48), (0.5, 0.5, 0.5), "mr", slices=3)
    assert case.image.shape == (48, 48, 16)
    made = prepare(tmp_path, "thick", lambda: (case.image, case.sdf), Preprocessing(), REACH)
    assert made.image.shape == made.sdf.shape == (48, 48, 48)
    np.testing.assert_allclose(made.sdf, (case.sdf.array / 0.5).clip(-REACH, REACH), atol=0.02)
