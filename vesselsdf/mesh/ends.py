"""Open ends for flow simulation: every terminal cut perpendicular to its centreline, wall and caps told apart.

Strategy: along each branch that ends, from its terminal inwards, look for the first place with a whole section: the
plane across the branch cuts one closed outline around the centreline, all that hangs beyond it is the tip, and its area
no longer grows towards the inside faster than the branch does. The cuts do not touch each other, the tips are discs, so
the topology stays; that is counted afterwards all the same, and a cap that meets another face is taken back.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import networkx as nx
import numpy as np
import trimesh

from vesselsdf.errors import InputError
from vesselsdf.mesh.counts import closed_counts, counts, crossing
from vesselsdf.mesh.cutting import Cut, Neighbourhood, cut_off, polygon_centroid

FACE_ID = "ModelFaceID"
"""Face attribute with the group of each face; the name that SimVascular reads."""
WALL = 1
STEP = 0.25
"""Distance between the places tried along a branch, as a share of its radius."""
DEEPEST = 4.0
"""Farthest place tried, in radii from the terminal: where a vessel leaves the grid at 60 degrees is 1.7 radii."""
FULL = 0.98
"""Area of a whole section, as a share of those up to a radius further in, all relative to the centreline's radius."""
PLAUSIBLE = (0.5, 2.0)
"""Area of a section, relative to the disc with the radius of the centreline."""


@dataclass(frozen=True)
class Cap:
    """The cap of one cut end.

    id: its number in `ModelFaceID`. node: the terminal in the centreline graph. inlet: whether flow comes in here (the
    terminal is a root). name: "inlet_<node>" or "outlet_<node>". centre: (3,) mm, centroid of the cap. normal: (3,),
    out of the lumen. area: mm2. radius: mm, of the disc with that area. depth: mm along the centreline from the node.
    """

    id: int
    node: int
    inlet: bool
    name: str
    centre: np.ndarray
    normal: np.ndarray
    area: float
    radius: float
    depth: float


@dataclass(frozen=True)
class ClosedEnd:
    """A terminal that could not be cut and stays closed: its node, its place (3,) in mm and the reason."""

    node: int
    place: np.ndarray
    reason: str


@dataclass(frozen=True)
class OpenedMesh:
    """A mesh with its ends cut.

    mesh: closed, the caps included; face attribute `ModelFaceID` is 1 on the wall and 2, 3, ... on the caps.
    caps: one for each cut end, inlets first. closed: terminals that could not be cut.
    """

    mesh: trimesh.Trimesh
    caps: tuple[Cap, ...]
    closed: tuple[ClosedEnd, ...]

    @property
    def groups(self) -> dict[int, str]:
        """Name of each group by its number in `ModelFaceID`."""
        return {WALL: "wall"} | {cap.id: cap.name for cap in self.caps}

    @property
    def wall(self) -> trimesh.Trimesh:
        """The wall alone, open at every cap."""
        wall = trimesh.Trimesh(
            self.mesh.vertices, self.mesh.faces[self.mesh.face_attributes[FACE_ID] == WALL], process=False
        )
        wall.remove_unreferenced_vertices()
        return wall


def open_ends(
    mesh: trimesh.Trimesh,
    graph: nx.MultiGraph,
    terminals: Iterable[int] | None = None,
    inlets: Iterable[int] | None = None,
) -> OpenedMesh:
    """Cut the ends of a closed vessel mesh flat, perpendicular to the centreline, and label wall and caps.

    mesh: closed, outward, RAS mm, as `surface` makes it. graph: its centreline graph.
    terminals: nodes of the graph (ends of branches) to be cut; all if not given. inlets: those of them where flow comes
    in; the roots of the graph if not given; the others are outlets.

    The result is closed, caps included, and has the Euler number of `mesh`; no two faces cross that did not before.
    An end that cannot be cut (no whole section before the next junction, another vessel in the way) stays closed and
    is listed in `closed` with its place and the reason. Attributes and colours of `mesh` are not carried over.

    Raises InputError if the mesh is not closed, the graph has no end or is of another vessel, or a node is no end.

    >>> from vesselsdf.graph import centreline_graph
    >>> from vesselsdf.mesh import surface
    >>> x, y, z = np.indices((15, 15, 40)) - 7.0
    >>> sdf = np.sqrt(x**2 + y**2 + (z - np.clip(z, 0, 25)) ** 2) - 4  # a capsule
    >>> opened = open_ends(surface(sdf, np.eye(4)), centreline_graph(sdf, np.eye(4)))
    >>> [(cap.id, cap.name, round(cap.radius, 1)) for cap in opened.caps]
    [(2, 'inlet_0', 4.0), (3, 'outlet_1', 4.0)]
    """
    before = closed_counts(mesh, "open its ends")
    ends = chosen_ends(graph, terminals)
    inlet = chosen_inlets(graph, ends, inlets)
    near = Neighbourhood.of(mesh)
    same_vessel(near, graph, ends)
    cuts: dict[int, tuple[Cut, float]] = {}
    refused: dict[int, str] = {}
    taken = np.full(len(near.faces), -1)  # the node whose cut touches a face

    def place(node: int, beyond: float, otherwise: str) -> None:
        """Cut an end, farther in than `beyond`, or refuse it, with that reason if it had been cut before."""
        found = cut_end(near, graph, node, beyond)
        if isinstance(found, str):
            refused[node] = otherwise or found
            return
        touched = near.faces_at(np.concatenate([found[0].tip, found[0].moved]))
        if (taken[touched] >= 0).any():
            refused[node] = otherwise or "its section runs into the cut of another end"
            return
        taken[touched] = node
        cuts[node] = found

    for node in sorted(ends, key=lambda node: (node not in inlet, node)):
        place(node, -1.0, "")
    while True:
        opened, owner = assemble(near, {node: cut for node, (cut, _) in cuts.items()})
        # owner: of each face, the node whose cut made or moved it, else -1
        bad = np.unique(owner[crossing(opened, np.flatnonzero(owner >= 0))])
        if not len(bad):
            break
        for node in bad.tolist():
            taken[taken == node] = -1
            place(node, cuts.pop(node)[1], "its cap would meet another face")
    after = counts(opened.faces)
    if after != before:
        raise InputError(f"Cutting the ends would turn {before} into {after}: check the mesh with `check`.")
    caps = [
        described(WALL + 1 + k, node, node in inlet, cut, depth) for k, (node, (cut, depth)) in enumerate(cuts.items())
    ]
    closed = [ClosedEnd(node, np.asarray(graph.nodes[node]["pos"]), reason) for node, reason in refused.items()]
    return OpenedMesh(opened, tuple(caps), tuple(closed))


def chosen_ends(graph: nx.MultiGraph, terminals: Iterable[int] | None) -> list[int]:
    """The terminals to be cut, each once."""
    ends = [node for node, degree in graph.degree() if degree == 1]
    if not ends:
        raise InputError(
            f"The centreline graph has no end to open ({graph.number_of_nodes()} nodes, {graph.number_of_edges()} "
            "branches, none with a free end): a ring or a blob stays closed."
        )
    if terminals is None:
        return ends
    chosen = list(dict.fromkeys(terminals))
    for node in chosen:
        if node not in ends:
            raise InputError(f"Node {node} is no end of the centreline graph; the ends are {sorted(ends)}.")
    return chosen


def chosen_inlets(graph: nx.MultiGraph, ends: list[int], inlets: Iterable[int] | None) -> set[int]:
    """The ends where flow comes in."""
    if inlets is None:
        return set(graph.graph.get("roots", [])) & set(ends)
    chosen = set(inlets)
    if strangers := chosen - set(ends):
        raise InputError(f"Inlet {min(strangers)} is not one of the ends to be opened: {sorted(ends)}.")
    return chosen


def same_vessel(near: Neighbourhood, graph: nx.MultiGraph, ends: list[int]) -> None:
    """Raise InputError if most ends of the graph are nowhere near the wall."""
    places = np.array([graph.nodes[node]["pos"] for node in ends])
    radii = np.array([graph.nodes[node]["radius"] for node in ends])
    distance = near.tree.query(places)[0]
    lost = distance > 3 * radii + near.side
    if 2 * lost.sum() > len(ends):
        worst = int(np.argmax(distance))
        raise InputError(
            f"{lost.sum()} of {len(ends)} ends of the centreline graph are far from the mesh (node {ends[worst]}: "
            f"{distance[worst]:.3g} mm from the wall, radius {radii[worst]:.3g} mm): give the graph of the same vessel."
        )


def cut_end(near: Neighbourhood, graph: nx.MultiGraph, node: int, beyond: float) -> tuple[Cut, float] | str:
    """The first whole section inwards of a terminal and its distance from it along the branch, mm; else why none.

    Only places farther in than `beyond` (mm) count.
    """
    branch = Branch.of(graph, node)
    places = np.arange(0, branch.deepest + 1e-9, STEP * branch.radius_at(0.0))
    tried: dict[int, tuple[Cut, float] | str] = {}

    def section(k: int) -> tuple[Cut, float] | str:
        if k not in tried:
            tried[k] = branch.section(near, places[k])
        return tried[k]

    best: tuple[float, Cut, float] | None = None
    first = int(np.searchsorted(places, beyond, side="right"))
    for k in range(first, len(places)):
        found = section(k)
        if isinstance(found, str):
            continue
        further = [section(m) for m in range(k + 1, min(k + 1 + round(1 / STEP), len(places)))]
        share = found[1] / np.median([found[1], *(other[1] for other in further if not isinstance(other, str))])
        if share >= FULL:
            return found[0], float(places[k])
        if best is None or share > best[0]:
            best = share, found[0], float(places[k])
    if best is None:
        return str(tried[first]) if first < len(places) else "its branch is too short"
    return best[1:]


@dataclass(frozen=True)
class Branch:
    """The last branch of a terminal, seen from it. points: (n, 3) mm; radii: (n,) mm; along: (n,) mm from the end."""

    points: np.ndarray
    radii: np.ndarray
    along: np.ndarray
    deepest: float

    @classmethod
    def of(cls, graph: nx.MultiGraph, node: int) -> "Branch":
        """The branch of this terminal; `deepest` is how far inwards it may be cut, mm."""
        (_, other, edge), *_ = graph.edges(node, data=True)
        step = 1 if edge["start"] == node else -1
        points, radii = np.asarray(edge["points"], dtype=float)[::step], np.asarray(edge["radii"], dtype=float)[::step]
        along = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
        # Up to the wall of the junction at the other end, or, between two ends, short of the middle.
        free = 0.45 * along[-1] if graph.degree(other) == 1 else along[-1] - graph.nodes[other]["radius"]
        return cls(points, radii, along, max(min(DEEPEST * float(radii[0]), free), 0.0))

    def at(self, place: float) -> np.ndarray:
        """Point of the centreline, (3,) mm, this far from the terminal."""
        return np.array([np.interp(place, self.along, column) for column in self.points.T])

    def radius_at(self, place: float) -> float:
        """Radius this far from the terminal, mm."""
        return float(np.interp(place, self.along, self.radii))

    def outward(self, place: float) -> np.ndarray:
        """Unit tangent towards the terminal, averaged over about a radius to each side where there is so much."""
        radius = self.radius_at(place)
        first = max(place - radius, 0.0)
        chord = self.at(first) - self.at(min(first + 2 * radius, self.along[-1]))
        return chord / np.linalg.norm(chord)

    def section(self, near: Neighbourhood, place: float) -> tuple[Cut, float] | str:
        """The cut at a place and its area relative to the centreline's; else why there is none, as a clause."""
        if self.along[-1] <= 0:
            return "its branch has no length"
        radius = self.radius_at(place)
        centre, normal = self.at(place), self.outward(place)
        for _ in range(2):
            normal = axis_of_wall(near, centre, normal, radius)
        # The tip is a radius beyond the terminal; what is longer than this is another vessel.
        found = cut_off(near, centre, normal, place + 2 * radius + 2 * near.side)
        if isinstance(found, str):
            return found
        share = found.area / (np.pi * radius**2)
        if not PLAUSIBLE[0] < share < PLAUSIBLE[1]:
            return f"its section has {share:.2g} times the area of its centreline's radius"
        return found, share


def axis_of_wall(near: Neighbourhood, centre: np.ndarray, tangent: np.ndarray, radius: float) -> np.ndarray:
    """The tangent turned to what the normals of the wall around it are most nearly perpendicular to.

    Centrelines are carried on straight where sections are no longer whole, so their last tangents miss a bend. Where
    the wall is no tube (no clear axis, or one more than 30 degrees away) the tangent stays.
    """
    half = max(0.6 * radius, near.side)
    vertices = np.asarray(near.tree.query_ball_point(centre, 1.6 * radius + half), dtype=np.int64)
    if not len(vertices):
        return tangent
    faces = near.faces_at(vertices)
    a, b, c = (near.points[near.faces[faces, k]] for k in range(3))
    normals, middle = np.cross(b - a, c - a), (a + b + c) / 3 - centre
    height = middle @ tangent
    beside = middle - height[:, None] * tangent
    # More of the inner side: beyond there is the tip. Faces that look inwards belong to a vessel beside this one.
    keep = (height > -half) & (height < half / 3) & (np.einsum("fi,fi->f", normals, beside) > 0)
    normals = normals[keep & (np.linalg.norm(beside, axis=1) < 1.6 * radius)]
    size = np.linalg.norm(normals, axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(normals.T @ (normals / np.maximum(size, 1e-300)))
    axis = vectors[:, 0] * np.sign(vectors[:, 0] @ tangent)
    if values[0] > 0.3 * values[1] or axis @ tangent < np.cos(np.radians(30)):
        return tangent
    # A wall of few faces, and the steps of a mask in it, say less.
    weight = min(radius / (2 * near.side), 1.0)
    axis = weight * axis + (1 - weight) * tangent
    return axis / np.linalg.norm(axis)


def assemble(near: Neighbourhood, cuts: dict[int, Cut]) -> tuple[trimesh.Trimesh, np.ndarray]:
    """The mesh with all these cuts, caps last, labelled; and for each face the node whose cut made it, or -1."""
    points, moved = [near.points.copy()], np.full(len(near.faces), -1)
    kept = np.ones(len(near.faces), dtype=bool)
    split, owners, caps, cap_owners = [], [], [], []
    count = len(near.points)
    for node, cut in cuts.items():
        points[0][cut.moved] = cut.moved_to
        moved[near.faces_at(cut.moved)] = node
        kept[cut.removed] = False
        shift = count - len(near.points)
        new = [np.where(ids < len(near.points), ids, ids + shift) for ids in (cut.faces, cut.outline)]
        middle, faces = cut.filling
        points += [cut.new_points, middle]
        count += len(cut.new_points)
        split.append(new[0])
        caps.append(np.append(new[1], count + np.arange(len(middle)))[faces])
        count += len(middle)
        owners.append(np.full(len(new[0]), node))
        cap_owners.append(np.full(len(faces), node))
    faces = np.concatenate([near.faces[kept], *split, *caps])
    owner = np.concatenate([moved[kept], *owners, *cap_owners])
    label = np.full(len(faces), WALL, dtype=np.int32)
    if caps:
        sizes = [len(part) for part in caps]
        label[len(faces) - sum(sizes) :] = np.repeat(np.arange(len(caps)) + WALL + 1, sizes)
    used, compact = np.unique(faces, return_inverse=True)
    mesh = trimesh.Trimesh(np.concatenate(points)[used], compact.reshape(-1, 3), process=False)
    mesh.face_attributes[FACE_ID] = label
    return mesh, owner


def described(number: int, node: int, inlet: bool, cut: Cut, depth: float) -> Cap:
    """The row of one cap in the table."""
    return Cap(
        id=number,
        node=node,
        inlet=inlet,
        name=f"{'inlet' if inlet else 'outlet'}_{node}",
        centre=cut.in_space(polygon_centroid(cut.loop)[None])[0],
        normal=cut.normal,
        area=cut.area,
        radius=float(np.sqrt(cut.area / np.pi)),
        depth=depth,
    )
