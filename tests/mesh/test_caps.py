"""Caps: any simple polygon is filled without overlaps, round ones with good triangles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesselsdf.mesh.caps import areas, fill


def circle(m, radius=2.0, jitter=0.0, seed=0):
    angle = np.sort(np.arange(m) + jitter * np.random.default_rng(seed).uniform(-1, 1, m)) * 2 * np.pi / m
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) + [3, -7]


def is_triangulation(polygon, inner, triangles):
    """Every side of the polygon once forwards, every other one once in each direction; all triangles upright."""
    points = np.concatenate([polygon, inner])
    size = areas(points, triangles)
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    sides = set(zip(start.tolist(), end.tolist(), strict=True))
    m = len(polygon)
    border = {(k, (k + 1) % m) for k in range(m)}
    lone = {(a, b) for a, b in sides if (b, a) not in sides}
    x, y = polygon.T
    whole = (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2
    return (
        len(sides) == 3 * len(triangles)
        and lone == border
        and bool((size > 0).all())
        and size.sum() == pytest.approx(whole)
        and len(np.unique(triangles)) == len(points)
    )


@pytest.mark.parametrize("m", [3, 4, 5, 6, 8, 12, 17, 30, 61, 120])
def test_a_round_polygon_is_filled_with_nearly_equilateral_triangles(m):
    polygon = circle(m, jitter=0.2, seed=m)
    inner, triangles = fill(polygon)
    assert is_triangulation(polygon, inner, triangles)
    points = np.concatenate([polygon, inner])
    corners = points[triangles]
    sides = ((corners - np.roll(corners, -1, axis=1)) ** 2).sum(axis=(1, 2))
    shape = 4 * np.sqrt(3) * areas(points, triangles) / sides
    if m >= 6:
        assert shape.mean() > 0.85
        assert shape.min() > 0.4


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_every_star_is_filled_however_pointed(seed, m):
    rng = np.random.default_rng(seed)
    angle = (np.arange(m) + rng.uniform(-0.4, 0.4, m)) * 2 * np.pi / m
    polygon = rng.uniform(0.3, 2.0, m)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    filled = fill(polygon)
    assert filled is not None
    assert is_triangulation(polygon, *filled)


@pytest.mark.parametrize("turns", [0.6, 1.2, 2.0])
def test_a_spiral_is_filled_though_it_is_no_star(turns):
    angle = np.linspace(0, 2 * np.pi * turns, 40)
    outward = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    polygon = np.concatenate([(2 + angle)[:, None] * outward, ((1.2 + angle)[:, None] * outward)[::-1]])
    inner, triangles = fill(polygon)
    assert is_triangulation(polygon, inner, triangles)


def test_a_polygon_that_runs_clockwise_or_crosses_itself_is_not_filled():
    assert fill(circle(12)[::-1]) is None
    assert fill(np.array([[0.0, 0], [2, 2], [2, 0], [0, 2.5]])) is None
