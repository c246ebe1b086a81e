"""Flat caps: a plane polygon filled with well-shaped triangles."""

import numpy as np
from jaxtyping import Float, Int

RING_SPACING = 5.5
"""Sides of the polygon per ring of triangles: a regular one of m sides is m / (2 pi 0.87) of its sides wide."""
SMOOTHINGS = 5


def fill(polygon: Float[np.ndarray, "m 2"]) -> tuple[Float[np.ndarray, "k 2"], Int[np.ndarray, "f 3"]] | None:
    """New inner points, and triangles between the polygon's corners (0 to m - 1) and them (from m on).

    The polygon runs anticlockwise. If it is star-shaped about its centroid, rings of points between it and the
    centroid give nearly equilateral triangles; else it is cut into triangles without new points, ear by ear. The result
    is proved to be a triangulation: every triangle has positive area and the areas add up to that of the polygon. None
    if there is none, because the polygon crosses itself or runs clockwise.

    >>> corners = np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    >>> inner, triangles = fill(corners)
    >>> inner.tolist(), len(triangles)
    ([[1.0, 1.0]], 4)
    """
    m = len(polygon)
    size = areas(polygon, polygon_fan(m)).sum()
    if not size > 0:
        return None
    centre = centroid(polygon)
    attempts = []
    if (cross2(polygon - centre, np.roll(polygon, -1, axis=0) - centre) > 0).all():
        inner, triangles = rings(polygon, centre)
        attempts = [(smoothed(polygon, inner, triangles), triangles), (inner, triangles)]
        attempts.append((centre[None], np.array([[k, (k + 1) % m, m] for k in range(m)])))
    ears = clip_ears(polygon)
    if ears is not None:
        attempts.append((np.zeros((0, 2)), ears))
    for inner, triangles in attempts:
        found = areas(np.concatenate([polygon, inner]), triangles)
        if (found > 1e-6 * size / len(triangles)).all() and abs(found.sum() / size - 1) < 1e-9:
            return inner, triangles
    return None


def cross2(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Cross products of vectors in a plane."""
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def areas(points: Float[np.ndarray, "n 2"], triangles: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " f"]:
    """Signed areas of triangles."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return cross2(b - a, c - a) / 2


def polygon_fan(m: int) -> Int[np.ndarray, "f 3"]:
    """Triangles from corner 0 to all sides: their signed areas add up to that of the polygon."""
    return np.array([[0, k, k + 1] for k in range(1, m - 1)])


def centroid(polygon: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "2"]:
    """Centre of the area inside."""
    fan = polygon_fan(len(polygon))
    weight = areas(polygon, fan)
    return (weight[:, None] * polygon[fan].mean(axis=1)).sum(axis=0) / weight.sum()


def rings(
    polygon: Float[np.ndarray, "m 2"], centre: Float[np.ndarray, "2"]
) -> tuple[Float[np.ndarray, "k 2"], Int[np.ndarray, "f 3"]]:
    """Smaller copies of the polygon around its centre, with fewer points each, and the triangles between them."""
    m = len(polygon)
    closed = np.concatenate([polygon, polygon[:1]])
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    along /= along[-1]
    count = max(round(m / RING_SPACING), 1)
    outer, outer_along = np.arange(m), along[:-1]
    points, triangles, total = [], [], m
    for k in range(count - 1, 0, -1):
        n = max(round(m * k / count), 5)
        # Half a step aside on every other ring, so that the points of neighbouring rings alternate.
        inner_along = (np.arange(n) + (count - k) % 2 / 2) / n
        place = np.stack([np.interp(inner_along, along, column) for column in closed.T], axis=1)
        points.append(centre + k / count * (place - centre))
        inner = total + np.arange(n)
        triangles += zipped(outer, outer_along, inner, inner_along)
        outer, outer_along, total = inner, inner_along, total + n
    points.append(centre[None])
    triangles += [[outer[k], outer[(k + 1) % len(outer)], total] for k in range(len(outer))]
    return np.concatenate(points), np.array(triangles)


def zipped(outer: np.ndarray, outer_along: np.ndarray, inner: np.ndarray, inner_along: np.ndarray) -> list[list[int]]:
    """Triangles between two rings, whose points are given by their share of the way around."""
    n, k = len(outer), len(inner)
    # The inner point nearest to the first outer one comes first.
    first = int(np.abs((inner_along - outer_along[0] + 0.5) % 1 - 0.5).argmin())
    inner, inner_along = np.roll(inner, -first), np.roll(inner_along, -first)
    inner_along = (inner_along - outer_along[0] + 0.5) % 1 - 0.5
    inner_along = np.where(np.arange(k) > 0, inner_along % 1, inner_along)
    ahead = np.append(outer_along - outer_along[0], 1.0)
    behind = np.append(inner_along, inner_along[0] + 1)
    i = j = 0
    triangles = []
    out, within = outer.tolist(), inner.tolist()
    while i < n or j < k:
        # Go ahead on the ring whose next side has its middle less far on.
        if j == k or (i < n and ahead[i] + ahead[i + 1] <= behind[j] + behind[j + 1]):
            triangles.append([out[i % n], out[(i + 1) % n], within[j % k]])
            i += 1
        else:
            triangles.append([out[i % n], within[(j + 1) % k], within[j % k]])
            j += 1
    return triangles


def smoothed(polygon: np.ndarray, inner: np.ndarray, triangles: np.ndarray) -> Float[np.ndarray, "k 2"]:
    """Inner points moved to the means of their neighbours a few times."""
    points, m = np.concatenate([polygon, inner]), len(polygon)
    start, end = triangles.ravel(), np.roll(triangles, -1, axis=1).ravel()
    degree = np.maximum(np.bincount(start, minlength=len(points)), 1)
    for _ in range(SMOOTHINGS):
        mean = np.stack([np.bincount(start, column[end], len(points)) for column in points.T], axis=1)
        points[m:] = (mean / degree[:, None])[m:]
    return points[m:]


def clip_ears(polygon: Float[np.ndarray, "m 2"]) -> Int[np.ndarray, "f 3"] | None:
    """Triangles between the corners of a simple polygon, the best-shaped ear first (Meisters 1975); None if stuck."""
    left, triangles = list(range(len(polygon))), []
    while len(left) > 3:
        corners = polygon[left]
        before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
        size = cross2(corners - before, after - before)
        sides = ((corners - before) ** 2 + (after - corners) ** 2 + (before - after) ** 2).sum(axis=1)
        for k in np.argsort(-size / sides):
            if size[k] <= 0:
                return None
            a, b, c = before[k], corners[k], after[k]
            others = np.delete(corners, [k, k - 1, (k + 1) % len(left)], axis=0)
            inside = [cross2(q - p, others - p) >= 0 for p, q in ((a, b), (b, c), (c, a))]
            if not np.all(inside, axis=0).any():
                triangles.append([left[k - 1], left[k], left[(k + 1) % len(left)]])
                del left[k]
                break
        else:
            return None
    return np.array([*triangles, left])
