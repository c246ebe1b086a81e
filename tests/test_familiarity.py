"""Is a scan like those of the training: what is usual passes, what is not is named."""

import numpy as np
import pytest

from vesselsdf.familiarity import MEANING, of_image, of_vessels, ranges, strange
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.synthesis.cases import synthetic_case


def figures(seed, modality="mr", change=lambda image: image):
    case = synthetic_case(seed, (48, 48, 48), (0.5, 0.5, 0.5), modality)
    image = Preprocessing().working_volume(case.image.with_array(change(case.image.array).astype(np.float32))).array
    return of_image(image) | of_vessels(image, case.sdf.array / 0.5)


@pytest.fixture(scope="module")
def seen():
    return ranges(figures(seed, modality) for modality in ("ct", "mr", "microscopy") for seed in range(8))


def test_every_figure_has_a_meaning(seen):
    assert set(seen) == set(MEANING)
    assert all(low < high for low, high in seen.values())


def test_a_scan_like_the_others_is_familiar(seen):
    assert sum(len(strange(figures(seed), seen)) for seed in range(100, 106)) <= 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda image: image[:, :, ::12].repeat(12, axis=2), "slice thickness"),
        (lambda image: np.random.default_rng(0).normal(size=image.shape), "whether these are vessels"),
        (lambda image: image * 0 + np.arange(48) * 2000.0 - 1000, "intensity window"),
    ],
    ids=["thick slices", "noise", "wrong units"],
)
def test_what_is_unlike_training_is_named(seen, change, word):
    found = strange(figures(100, change=change), seen)
    assert any(word in one for one in found), found


def test_nothing_known_nothing_strange():
    assert strange(figures(0), {}) == []


def test_vessels_that_are_not_there_have_no_contrast():
    assert of_vessels(np.zeros((8, 8, 8)), np.ones((8, 8, 8))) == {}
