"""Pairing places with places: those that lie nearest to each other, by least total distance."""

import math

import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

# A dense table of distances up to this size is solved exactly (about a second); larger ones from the nearest pair on.
DENSE = 2_000_000


def pairs_within(
    a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"], reach: float | int
) -> Int64[np.ndarray, "k 2"]:
    """Rows (i, j): as many pairs of places as lie within `reach` of each other, of least total distance.

    Each place is in one pair at most. Groups of places out of reach of all others are solved by themselves.

    >>> pairs_within(np.array([[0.0, 0, 0], [5, 0, 0]]), np.array([[6.0, 0, 0], [5.5, 0, 0]]), 2).tolist()
    [[1, 1]]
    """
    if not len(a) or not len(b):
        return np.zeros((0, 2), np.int64)
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), reach, output_type="ndarray")
    i, j = near["i"], near["j"]
    links = coo_array((np.ones(i.size, bool), (i, j + len(a))), shape=(len(a) + len(b),) * 2)
    group = connected_components(links, directed=False)[1]
    found = []
    order = np.argsort(group[i], kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[i][order])) + 1):
        rows, row = np.unique(i[part], return_inverse=True)
        columns, column = np.unique(j[part], return_inverse=True)
        # What is out of reach costs more than any pairing within reach could save.
        cost = np.full((rows.size, columns.size), reach * (rows.size + columns.size + 1) + 1.0)
        cost[row, column] = near["v"][part]
        x, y = linear_sum_assignment(cost)
        kept = cost[x, y] <= reach
        found.append(np.stack([rows[x[kept]], columns[y[kept]]], axis=1))
    result = np.concatenate(found).astype(np.int64)
    return result[np.argsort(result[:, 0], kind="stable")]


def assign(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> Int64[np.ndarray, " n"]:
    """For each place of `a` another place of `b`, of least total distance (n <= m).

    Above `DENSE` possible pairs, the nearest pair is taken first, then the nearest of what is left, and so on.

    >>> assign(np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([[9.0, 0, 0], [1, 0, 0], [0.5, 0, 0]])).tolist()
    [2, 1]
    """
    if len(a) * len(b) <= DENSE:
        cost = np.linalg.norm(a[:, None] - b[None], axis=-1)
        rows, columns = linear_sum_assignment(cost)
        return columns[np.argsort(rows)].astype(np.int64)
    result = np.full(len(a), -1, np.int64)
    taken = np.zeros(len(b), bool)
    while (open_rows := np.flatnonzero(result < 0)).size:
        free = np.flatnonzero(~taken)
        distance, nearest = cKDTree(b[free]).query(a[open_rows], k=min(8, free.size))
        distance, nearest = distance.reshape(open_rows.size, -1), nearest.reshape(open_rows.size, -1)
        for at in np.argsort(distance, axis=None, kind="stable").tolist():
            row, column = open_rows[at // distance.shape[1]], free[nearest.flat[at]]
            if result[row] < 0 and not taken[column] and math.isfinite(distance.flat[at]):
                result[row], taken[column] = column, True
    return result
