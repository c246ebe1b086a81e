"""Fewer faces, the same topology, and the error known.

Strategy: edges are collapsed under the link condition, so the topology stays (`collapse_kernels`). What collapses
cannot promise is measured afterwards: faces that cross, and how far the wall has moved. Then the collapse is done again
with a smaller limit where the wall is too far off, and with the vertices held fast where faces cross.
"""

import numpy as np
import trimesh

from vesselsdf.errors import InputError
from vesselsdf.mesh.collapse_kernels import collapse
from vesselsdf.mesh.counts import closed_counts, counts
from vesselsdf.mesh.cutting import Neighbourhood
from vesselsdf.mesh.intersections import self_intersections

ROUNDS = 8
"""Times that a collapse is done, each time held back more where faces cross or lie too far off."""
TRIES = 6
"""Numbers of faces tried to find out what is possible."""
CHUNK = 1 << 18


def decimate(mesh: trimesh.Trimesh, faces: int | None = None, error: float | None = None) -> trimesh.Trimesh:
    """A closed mesh with fewer faces: `faces` of them, or as few as an error in mm allows, or both.

    The result is closed and 2-manifold, has the Euler number and the components of `mesh`, its volume (to about 1e-3
    down to a tenth of the faces of a thin tree), and no faces that cross. `error` bounds the distance of every old
    vertex from the new mesh and of every new vertex from the old one; it is measured, and the result has it as
    `metadata["deviation"]`, mm. Colours, attributes and groups are not carried over: open the ends later.

    Raises InputError if the mesh is not closed or has crossing faces, and if so few faces are not possible under these
    conditions; then the message tells how many are.

    >>> ball = trimesh.creation.icosphere(subdivisions=4, radius=10.0)
    >>> small = decimate(ball, error=0.1)
    >>> len(small.faces) < 0.2 * len(ball.faces), small.euler_number, small.metadata["deviation"] <= 0.1
    (True, 2, True)
    """
    if faces is None and error is None:
        raise InputError("Give decimate a number of faces, or an error in mm.")
    if faces is not None and faces < 4:
        raise InputError(f"Cannot decimate to {faces} faces: a closed mesh has at least 4.")
    if error is not None and not error > 0:
        raise InputError(f"Cannot decimate with an error of {error} mm: it must be above 0.")
    before = closed_counts(mesh, "decimate it")
    if len(crossed := self_intersections(mesh)):
        raise InputError(
            f"Cannot decimate: {len(crossed)} pairs of faces of the mesh cross (see `check`); mend it before."
        )
    old = Neighbourhood.of(mesh)
    if faces is None:
        result = within_error(old, float(error or 0))
    else:
        result = with_count(old, faces, error)
    if counts(result.faces) != before:
        raise InputError(f"Decimation would turn {before} into {counts(result.faces)}: check the mesh with `check`.")
    return result


def within_error(old: Neighbourhood, error: float) -> trimesh.Trimesh:
    """As few faces as found with no vertex farther than `error`, mm."""
    found = sound(old, 4, np.full(len(old.points), error / 2), error)
    if found is None:
        raise InputError(f"Cannot decimate within {error:.3g} mm without faces that cross; try a larger error.")
    return found


def with_count(old: Neighbourhood, faces: int, error: float | None) -> trimesh.Trimesh:
    """This many faces; InputError with what is possible if they cross, lie too far off or cannot be reached."""
    if faces >= len(old.faces):
        raise InputError(f"The mesh has {len(old.faces)} faces, no more than the {faces} asked for.")

    def good(target: int) -> trimesh.Trimesh | None:
        found = sound(old, target, np.full(len(old.points), np.inf), np.inf if error is None else error)
        return found if found is not None and len(found.faces) <= target else None

    if (result := good(faces)) is not None:
        return result
    low, high = faces, len(old.faces)
    for _ in range(TRIES):
        middle = int(np.sqrt(low * high))
        if (found := good(middle)) is None:
            low = middle
        else:
            high = len(found.faces)
    within = "" if error is None else f" within {error:.3g} mm"
    raise InputError(
        f"Cannot decimate {len(old.faces)} faces to {faces}{within} with the topology kept and no faces that cross; "
        f"{high} faces are possible."
    )


def sound(old: Neighbourhood, target: int, limits: np.ndarray, error: float) -> trimesh.Trimesh | None:
    """A collapsed mesh without faces that cross or vertices farther off than `error`, mm; None if none was found.

    limits: (v,) mm, largest mean error for each vertex to begin with. The result has its deviation in its metadata.
    """
    for attempt in range(ROUNDS):
        result, into = collapsed(old, limits, target)
        fast = np.zeros(len(result.vertices), dtype=bool)
        pairs = self_intersections(result)
        fast[result.faces[pairs]] = True
        fast[result.faces[fast[result.faces].any(axis=1)]] = True
        out, back = deviations(old, result, into)
        far = back > error
        far[into[out > error]] = True
        if not (fast.any() or far.any()):
            result.metadata["deviation"] = float(max(out.max(), back.max()))
            return result
        limits = limits.copy()
        # What is too far off gets a smaller limit, in the end that of staying where it is.
        late = attempt >= ROUNDS // 2
        limits[far[into]] = 0.0 if late else np.minimum(limits[far[into]], error) / 2
        limits[fast[into]] = 0.0
    return None


def deviations(old: Neighbourhood, new: trimesh.Trimesh, into: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances, mm, of the old vertices from the new mesh, and of the new vertices from the old mesh; never too small.

    into: the new vertex that each old one has gone into. Only the faces around that vertex are looked at, and around
    the nearest vertex.
    """
    near = Neighbourhood.of(new)
    out = np.minimum(distances(old.points, near, into), distances(old.points, near, near.tree.query(old.points)[1]))
    return out, distances(near.points, old, old.tree.query(near.points)[1])


def distances(points: np.ndarray, near: Neighbourhood, at: np.ndarray) -> np.ndarray:
    """Distance of each point from the faces around a vertex that is given for it, mm."""
    first, of = near.corners
    result = np.empty(len(points))
    for start in range(0, len(points), CHUNK):
        some, vertex = points[start : start + CHUNK], at[start : start + CHUNK]
        count = first[vertex + 1] - first[vertex]
        begin = np.cumsum(count) - count
        who = np.repeat(np.arange(len(some)), count)
        faces = of[first[vertex][who] + np.arange(count.sum()) - begin[who]]
        closest = trimesh.triangles.closest_point(near.points[near.faces[faces]], some[who])
        squared = np.sum((closest - some[who]) ** 2, axis=1)
        result[start : start + CHUNK] = np.sqrt(np.minimum.reduceat(squared, begin))
    return result


def collapsed(old: Neighbourhood, limits: np.ndarray, target: int) -> tuple[trimesh.Trimesh, np.ndarray]:
    """The mesh with edges collapsed, and for each old vertex the number of the new one that it has gone into."""
    faces = old.faces.copy()
    middle = old.points.mean(axis=0)
    points = np.concatenate([old.points - middle, np.zeros((1, 3))])
    n = len(points) - 1
    order = np.argsort(faces.ravel(), kind="stable")
    at = faces.ravel()[order]
    head, following = np.full(n, -1), np.full(faces.size, -1)
    first = np.flatnonzero(np.diff(at, prepend=-1))
    head[at[first]] = order[first]
    same = np.flatnonzero(at[1:] == at[:-1])
    following[order[same]] = order[same + 1]
    into = np.arange(n)
    # A vertex of mean degree 6 is pushed with all its edges whenever one of them goes.
    room = 6 * len(faces) + 64
    collapse(
        points, faces, head, following, quadrics(points[:-1], faces), limits.copy(), into,
        np.empty(room), np.empty((room, 3), dtype=np.int32), target,
    )  # fmt: skip
    while (into[into] != into).any():
        into = into[into]
    faces = faces[faces[:, 0] >= 0]
    used, compact = np.unique(faces, return_inverse=True)
    number = np.full(n, -1)
    number[used] = np.arange(len(used))
    return trimesh.Trimesh(points[used] + middle, compact.reshape(-1, 3), process=False), number[into]


def quadrics(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Sum over the faces of each vertex of the squared distance from their planes, weighted by area: (v, 11)."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    double = np.linalg.norm(normal, axis=1)
    normal /= np.maximum(double, 1e-300)[:, None]
    x, y, z = normal.T
    d = np.einsum("fi,fi->f", normal, a)
    terms = (x * x, x * y, x * z, y * y, y * z, z * z, d * x, d * y, d * z, d * d, np.ones_like(d))
    index = faces.ravel()
    return np.stack([np.bincount(index, np.repeat(term * double / 2, 3), len(points)) for term in terms], axis=1)
