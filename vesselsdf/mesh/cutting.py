"""One end of a closed mesh cut off in a plane, exactly there and nowhere else, and the hole closed by a flat cap.

Strategy: of the vertices beyond the plane only those count that hang together with the tip, so other vessels that the
infinite plane crosses stay whole. Vertices very near the plane are moved onto it (no slivers), the triangles between
both sides are split along it, and the outline of the hole is triangulated: as a fan around a point that sees all of it
if there is one, else by clipping ears (Meisters 1975).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import trimesh
from scipy import sparse
from scipy.spatial import cKDTree

from vesselsdf.mesh.caps import fill

SNAP = 0.15
"""A vertex this near the plane, as a share of an edge that crosses it, is moved onto it."""


@dataclass(frozen=True)
class Neighbourhood:
    """A mesh with look-ups for local work. points: (v, 3) mm; faces: (f, 3)."""

    points: np.ndarray
    faces: np.ndarray

    @classmethod
    def of(cls, mesh: trimesh.Trimesh) -> "Neighbourhood":
        """Plain copies of the arrays of a mesh."""
        return cls(np.array(mesh.vertices, dtype=float), np.array(mesh.faces, dtype=np.int64))

    @cached_property
    def tree(self) -> cKDTree:
        """Search tree over the vertices."""
        return cKDTree(self.points)

    @cached_property
    def side(self) -> float:
        """A long side of a face, mm (exceeded by one in ten)."""
        ends = self.points[self.faces[:, [0, 1]]]
        return float(np.quantile(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1), 0.9))

    @cached_property
    def corners(self) -> tuple[np.ndarray, np.ndarray]:
        """Faces by vertex: those of vertex v are `of[first[v]:first[v + 1]]`."""
        order = np.argsort(self.faces.ravel(), kind="stable")
        return np.searchsorted(self.faces.ravel()[order], np.arange(len(self.points) + 1)), order // 3

    def faces_at(self, vertices: np.ndarray) -> np.ndarray:
        """Faces with any of these vertices, each once."""
        first, of = self.corners
        count = first[vertices + 1] - first[vertices]
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.unique(of[np.repeat(first[vertices], count) + step])


@dataclass(frozen=True)
class Cut:
    """A tip cut off. Vertex numbers from `len(points)` of the mesh on count the new points.

    removed: faces that go. tip: (t,) vertices that go. moved, moved_to: vertices that now lie in the plane.
    new_points: (k, 3). faces: (m, 3), what is left of split faces. outline: vertices around the hole,
    counter-clockwise seen from outside. loop: (n, 2), the same in the plane, mm from its `centre`. cap: points inside
    it in the plane, and its faces.
    """

    centre: np.ndarray
    normal: np.ndarray
    removed: np.ndarray
    tip: np.ndarray
    moved: np.ndarray
    moved_to: np.ndarray
    new_points: np.ndarray
    faces: np.ndarray
    outline: np.ndarray
    loop: np.ndarray
    cap: tuple[np.ndarray, np.ndarray]

    @property
    def area(self) -> float:
        """Area of the cap, mm2."""
        return polygon_area(self.loop)

    @property
    def filling(self) -> tuple[np.ndarray, np.ndarray]:
        """The cap: points inside (k, 3) mm, and faces (m, 3) over the outline followed by them."""
        middle, faces = self.cap
        return self.in_space(middle), faces

    def in_space(self, plane: np.ndarray) -> np.ndarray:
        """Points of the plane, (n, 2), in RAS mm, (n, 3)."""
        return self.centre + plane @ np.array(plane_axes(self.normal))


def cut_off(near: Neighbourhood, centre: np.ndarray, normal: np.ndarray, reach: float) -> Cut | str:
    """Cut off what hangs beyond the plane around `centre`; `normal` points to the tip. Else why not, as a clause.

    reach: the tip must lie within this distance of the centre, mm.
    """
    within = np.asarray(near.tree.query_ball_point(centre, reach), dtype=np.int64)
    if not len(within):
        return "there is no wall around it"
    vertices, local = np.unique(near.faces[near.faces_at(within)], return_inverse=True)
    local = local.reshape(-1, 3)
    height = (near.points[vertices] - centre) @ normal
    edges = np.concatenate([local[:, [0, 1]], local[:, [1, 2]], local[:, [2, 0]]])
    height[nearly_on_plane(height, edges)] = 0.0
    if (height[local] == 0).all(axis=1).any():
        return "the wall lies in the plane across it"
    pieces = hanging_together(height > 0, edges)
    pieces.sort(key=lambda piece: np.linalg.norm(near.points[vertices[piece]] - centre, axis=1).min())
    reason = "the plane across it cuts no closed outline around it"
    for piece in pieces:
        goes = np.zeros(len(vertices), dtype=bool)
        goes[piece] = True
        faces = local[goes[local].any(axis=1)]
        found = cut_tip(
            near.points, vertices[faces], dict(zip(vertices.tolist(), height.tolist(), strict=True)), centre, normal
        )
        if not np.isin(vertices[piece], within).all():
            # Reaching the rim of the neighbourhood its outline may be cut off there, so this comes first.
            if np.linalg.norm(near.points[vertices[piece]] - centre, axis=1).min() < reach / 2:
                reason = "the vessel goes on beyond it, or touches another one there"
            continue
        if found is None:
            continue
        return replace(found, removed=near.faces_at(vertices[piece]), tip=vertices[piece])
    return reason


def nearly_on_plane(height: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Vertices that are to be moved onto the plane: ends of crossing edges very near it."""
    a, b = height[edges[:, 0]], height[edges[:, 1]]
    crossing = a * b < 0
    return np.concatenate(
        [
            edges[crossing & (np.abs(a) < SNAP * np.abs(b - a)), 0],
            edges[crossing & (np.abs(b) < SNAP * np.abs(b - a)), 1],
        ]
    )


def hanging_together(chosen: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """The connected pieces of the chosen vertices."""
    index, n = np.flatnonzero(chosen), len(chosen)
    if not len(index):
        return []
    inside = edges[chosen[edges].all(axis=1)]
    graph = sparse.coo_matrix((np.ones(len(inside), dtype=bool), (inside[:, 0], inside[:, 1])), shape=(n, n))
    label = sparse.csgraph.connected_components(graph, directed=False)[1][index]
    order = np.argsort(label, kind="stable")
    return np.split(index[order], np.flatnonzero(np.diff(label[order])) + 1)


def cut_tip(
    points: np.ndarray, faces: np.ndarray, height: dict[int, float], centre: np.ndarray, normal: np.ndarray
) -> Cut | None:
    """Cut the faces around a tip; None unless their outline in the plane is one closed curve around the centre.

    faces: those with a vertex beyond the plane, all in one piece. height: of their vertices over the plane, mm.
    """
    kept, rim = split_faces(faces.tolist(), height)
    outline = one_cycle(rim)
    if outline is None:
        return None
    # A vertex is known by its number, a new one by the edge that it splits.
    place: dict = {}
    for name in outline:
        if isinstance(name, tuple):
            beyond, within = name
            share = height[beyond] / (height[beyond] - height[within])
            position = points[beyond] + share * (points[within] - points[beyond])
        else:
            position = points[name]
        place[name] = position - ((position - centre) @ normal) * normal
    first, second = plane_axes(normal)
    around = np.array([place[name] for name in outline]) - centre
    loop = np.column_stack([around @ first, around @ second])
    if polygon_area(loop) <= 0 or not encloses_origin(loop):
        return None
    filling = fill(loop)
    if filling is None:
        return None
    new = [name for name in outline if isinstance(name, tuple)]
    old = [name for name in outline if not isinstance(name, tuple)]
    number = {name: len(points) + k for k, name in enumerate(new)}
    triangles: list = []
    for polygon in kept:
        if len(polygon) == 4:
            a, b, c, d = (place[name] if name in place else points[name] for name in polygon)
            turn = int(np.sum((c - a) ** 2) > np.sum((d - b) ** 2))
            p, q, r, s = polygon[turn:] + polygon[:turn]
            triangles += [(p, q, r), (p, r, s)]
        else:
            triangles.append(polygon)
    return Cut(
        centre=centre,
        normal=normal,
        removed=np.zeros(0, dtype=np.int64),
        tip=np.zeros(0, dtype=np.int64),
        moved=np.array(old, dtype=np.int64),
        moved_to=np.array([place[name] for name in old]).reshape(-1, 3),
        new_points=np.array([place[name] for name in new]).reshape(-1, 3),
        faces=np.array([[number.get(v, v) for v in face] for face in triangles], dtype=np.int64).reshape(-1, 3),
        outline=np.array([number.get(name, name) for name in outline], dtype=np.int64),
        loop=loop,
        cap=filling,
    )


def split_faces(faces: list[list[int]], height: dict[int, float]) -> tuple[list[tuple], list[tuple]]:
    """What stays of the faces around a tip, as polygons, and the directed edges around the hole.

    A vertex is known by its number, a new one by the edge that it splits, (vertex beyond the plane, vertex within).
    The directed edges are those of a cap; an edge in the plane between two faces that both go shows up in both
    directions.
    """
    kept, rim = [], []
    for face in faces:
        beyond = [height[v] > 0 for v in face]
        turn = beyond.index(sum(beyond) == 1) if any(beyond) and not all(beyond) else 0
        p, a, b = face[turn:] + face[:turn]
        if sum(beyond) == 1:  # p goes
            to_a = a if height[a] == 0 else (p, a)
            to_b = b if height[b] == 0 else (p, b)
            rim.append((to_a, to_b))
            polygon = tuple(dict.fromkeys((to_a, a, b, to_b)))
            if len(polygon) > 2:
                kept.append(polygon)
        elif sum(beyond) == 2 and height[p] < 0:  # p stays
            kept.append((p, (a, p), (b, p)))
            rim.append(((b, p), (a, p)))
    return kept, rim


def one_cycle(edges: list[tuple]) -> list | None:
    """The vertices along directed edges if these make up one closed curve that visits no vertex twice, else None."""
    both = set(edges)
    edges = [(a, b) for a, b in edges if (b, a) not in both]
    following = dict(edges)
    if len(following) != len(edges) or len(edges) < 3:
        return None
    start = at = edges[0][0]
    curve: list = []
    while at in following and len(curve) < len(edges):
        curve.append(at)
        at = following[at]
    return curve if at == start and len(curve) == len(edges) else None


def plane_axes(normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors that span the plane, right-handed with its normal."""
    first = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first)


def polygon_area(loop: np.ndarray) -> float:
    """Signed area of a plane polygon, (n, 2), positive if counter-clockwise."""
    x, y = loop.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def polygon_centroid(loop: np.ndarray) -> np.ndarray:
    """Centroid of the area of a plane polygon, (2,)."""
    following = np.roll(loop, -1, axis=0)
    weight = loop[:, 0] * following[:, 1] - loop[:, 1] * following[:, 0]
    return ((loop + following) * weight[:, None]).sum(axis=0) / (3 * weight.sum())


def encloses_origin(loop: np.ndarray) -> bool:
    """Whether the polygon winds once, counter-clockwise, around the origin."""
    x, y = loop.T
    u, v = np.roll(x, -1), np.roll(y, -1)
    return round(float(np.arctan2(x * v - y * u, x * u + y * v).sum()) / (2 * np.pi)) == 1
