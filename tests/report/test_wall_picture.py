"""The picture of a held-out case: both walls where they are, in their colours, and quickly drawn."""

import time

import numpy as np
import pytest

from vesselsdf.report.wall_picture import wall_picture
from vesselsdf.volume import Volume

CYAN, ORANGE = np.array([0, 208, 255]), np.array([255, 127, 14])


def ball(affine, centre, radius, shape=(48, 40, 24)):
    volume = Volume(np.zeros(shape, np.float32), affine)
    points = volume.to_world(np.argwhere(np.ones(shape, bool)))
    return volume.with_array((np.linalg.norm(points - centre, axis=1) - radius).reshape(shape).astype(np.float32))


def places(picture, colour):
    """Rows and columns of the pixels of a colour, as shares of the panel on the left, below the title."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 40).all(axis=2))
    kept = (columns < picture.shape[1] // 2) & (rows > 36)
    return rows[kept], columns[kept]


@pytest.mark.parametrize("turned", [np.eye(4), np.diag([-1.0, 1, 1, 1]), np.eye(4)[[1, 0, 2, 3]]])
def test_walls_are_drawn_in_their_colours_at_their_places(turned):
    affine = turned @ np.diag([0.5, 0.5, 0.5, 1.0])
    middle = Volume(np.zeros((48, 40, 24)), affine).to_world(np.array([[23.5, 19.5, 11.5]]))[0]
    truth, found = ball(affine, middle, 5.0), ball(affine, middle + np.array([2.0, 0, 0]), 3.0)
    image = truth.with_array(np.clip(-truth.array, -1, 1))
    start = time.monotonic()
    picture = wall_picture(image, truth, found, "a case")
    assert time.monotonic() - start < 3.0, "less than a second, once matplotlib is loaded"
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 680
    rows, columns = places(picture, CYAN)
    width = np.ptp(columns)
    assert abs(width - np.ptp(rows)) <= 4, "a ball is round: pixels are as wide as high"
    _, inner = places(picture, ORANGE)
    assert np.ptp(inner) == pytest.approx(0.6 * width, abs=5)
    # What lies to the patient's left is on the right of the picture, by 2 of 10 mm.
    assert np.mean([inner.min(), inner.max()]) - np.mean([columns.min(), columns.max()]) == pytest.approx(
        -0.2 * width, abs=4
    )


def test_what_is_not_known_or_not_there_is_no_wall():
    affine = np.eye(4)
    truth = ball(affine, np.array([24.0, 20, 12]), 6.0)
    half = truth.with_array(np.where(np.arange(48)[:, None, None] > 24, np.nan, truth.array))
    nothing = truth.with_array(np.full(truth.shape, 5.0, np.float32))
    picture = wall_picture(truth.with_array(-truth.array), half, nothing, "half")
    assert len(places(picture, CYAN)[0]) > 20
    assert len(places(picture, ORANGE)[0]) == 0
    assert len(places(wall_picture(truth.with_array(-truth.array), nothing, nothing, "none"), CYAN)[0]) == 0
