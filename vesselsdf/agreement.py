"""Do the field, its mesh and its centreline graph agree on their topology? If not: what is wrong, and where.

Strategy. Numbers first: beta0, beta1, beta2 of the field; of the mesh its pieces (one outer wall for each component,
one inner wall for each cavity, turned inside out) and the genus of each by its Euler number; of the graph its
components and independent loops. Only if they differ, places are found by matching: most points of a component of the
graph, or of a piece of the mesh, lie in one component of the field, so that the numbers can be compared one by one. A
component is named by the place of one of its voxels. Where a component has other loops than its graph, the loops of the
field are laid beside those of the graph: `vesselsdf.topology.persistence` knows the place of each, a cycle basis those
of the graph.
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import networkx as nx
import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int32, Int64, Num
from scipy import ndimage, sparse
from scipy.spatial import cKDTree

from vesselsdf.topology.betti import betti_numbers, components
from vesselsdf.topology.persistence import features
from vesselsdf.topology.places import Place, checked_affine, world


@dataclass(frozen=True)
class Disagreement:
    """One thing on which field, mesh and graph differ: `name` (see `agreement`), `place` in RAS mm, and in words."""

    name: str
    place: Place
    message: str


def agreement(
    field: Num[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    mesh: trimesh.Trimesh | None = None,
    graph: nx.MultiGraph | None = None,
) -> dict[str, Any]:
    """Betti numbers of the vessel `field <= 0`, of its mesh and of its graph, and where they disagree; JSON-able.

    field: (X, Y, Z) mm, negative inside; affine: voxel index to RAS mm; mesh and graph in RAS mm, of that field.

    Keys: `agrees`; `field` (beta0, beta1, beta2); `mesh` (the same: outer walls, handles of all walls, inner walls) and
    `graph` (components, loops), where given; `disagreements`, a list of `Disagreement` as dicts. A graph has no
    cavities: it is compared with the field whose cavities are filled (`field_without_cavities`, if there are any).

    Names of disagreements: `graph lacks a component`, `graph has a component too many`, `graph lacks a loop`, `graph
    has a loop too many`, and the same of the `mesh`, with `lacks a cavity`, `has a cavity too many`, and `mesh is open`
    (an edge without two faces: nothing else can be said of it).

    >>> sdf = np.linalg.norm(np.indices((9, 9, 9)) - 4.0, axis=0) - 3
    >>> agreement(sdf, np.eye(4), graph=nx.MultiGraph())["disagreements"][0]["message"]
    'The graph lacks a component at (1.0, 4.0, 4.0) mm.'
    """
    affine = checked_affine(affine)
    mask = field <= 0
    betti = betti_numbers(mask)
    report: dict[str, Any] = {"agrees": True, "field": list(betti)}
    found: list[Disagreement] = []
    if mesh is not None:
        report["mesh"], wrong = of_mesh(mesh, mask, betti, affine)
        found += wrong
    if graph is not None:
        if betti[2]:
            mask = ndimage.binary_fill_holes(mask)
            betti = betti_numbers(mask)
            report["field_without_cavities"] = list(betti)
        report["graph"], wrong = of_graph(graph, field, mask, betti, affine)
        found += wrong
    report["agrees"] = not found
    report["disagreements"] = [asdict(one) for one in found]
    return report


def named(what: str, kind: str, place: Place) -> Disagreement:
    """A disagreement, in words."""
    x, y, z = (round(c, 2) for c in place)
    return Disagreement(f"{what} {kind}", place, f"The {what} {kind} at ({x}, {y}, {z}) mm.")


def one_voxel_each(labels: Int32[np.ndarray, "x y z"], count: int) -> Int64[np.ndarray, "n 3"]:
    """Index of one voxel, the first in C order, of each component 1..n."""
    flat = np.flatnonzero(labels)
    first = flat[np.unique(labels.reshape(-1)[flat], return_index=True)[1]] if count else flat
    return np.stack(np.unravel_index(first, labels.shape), axis=1).reshape(-1, 3)


def component_at(
    places: Float[np.ndarray, "n 3"], labels: Int32[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> Int64[np.ndarray, " n"]:
    """Component of the vessel voxel nearest to each place; 0 if none is within two voxels."""
    index = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    base = np.round(index).astype(np.int64)
    best, nearest = np.zeros(len(places), np.int64), np.full(len(places), np.inf)
    for offset in np.ndindex(5, 5, 5):
        near = base + np.array(offset) - 2
        inside = ((near >= 0) & (near < labels.shape)).all(axis=1)
        label = np.zeros(len(places), np.int64)
        label[inside] = labels[tuple(near[inside].T)]
        away = np.linalg.norm((near - index) @ affine[:3, :3].T, axis=1)
        closer = (label > 0) & (away < nearest)
        best[closer], nearest[closer] = label[closer], away[closer]
    return best


def of_mesh(
    mesh: trimesh.Trimesh,
    mask: Bool[np.ndarray, "x y z"],
    betti: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
) -> tuple[list[int] | None, list[Disagreement]]:
    """Outer walls, handles and inner walls of the mesh, and where they are not those of the field.

    The boundary of a body in space with Betti numbers (1, h, c) has 1 + c pieces, whose genera add up to h ("half
    lives, half dies"; Hatcher, Notes on basic 3-manifold topology, lemma 3.5).
    """
    faces, vertices = np.asarray(mesh.faces, dtype=np.int64), np.asarray(mesh.vertices)
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    keys, uses = np.unique(np.minimum(start, end) * len(vertices) + np.maximum(start, end), return_counts=True)
    edges = np.stack(np.divmod(keys, len(vertices)), axis=1)
    if not len(faces) or (uses != 2).any():
        at = vertices[edges[np.argmax(uses != 2)]].mean(axis=0).tolist() if len(faces) else affine[:3, 3].tolist()
        return None, [named("mesh", "is open", (at[0], at[1], at[2]))]
    graph = sparse.coo_matrix((np.ones(len(edges), bool), edges.T), shape=(len(vertices),) * 2)
    of_vertex = sparse.csgraph.connected_components(graph, directed=False)[1]
    _, first, piece = np.unique(of_vertex[faces[:, 0]], return_index=True, return_inverse=True)
    n = len(first)
    _, piece_of_vertex = np.unique(of_vertex[np.unique(faces)], return_inverse=True)
    a, b, c = (vertices[faces[:, k]] - vertices[faces[0, 0]] for k in range(3))
    volume = np.bincount(piece, np.einsum("fi,fi->f", a, np.cross(b, c)), n)
    euler = np.bincount(piece_of_vertex, minlength=n) - np.bincount(piece, minlength=n) // 2
    genus, outer = (2 - euler) // 2, volume > 0
    numbers = [int(outer.sum()), int(genus.sum()), int((~outer).sum())]
    if tuple(numbers) == betti:
        return numbers, []
    labels, count = components(mask)
    owner = np.array([main_component(vertices[np.unique(faces[piece == k])], labels, affine) for k in range(n)])
    found = []
    firsts = one_voxel_each(labels, count)
    for label in np.setdiff1d(np.arange(1, count + 1), owner[outer]):
        found.append(named("mesh", "lacks a component", world(affine, firsts[label - 1])))
    seen: set[int] = set()
    for k in np.flatnonzero(outer).tolist():
        if owner[k] == 0 or owner[k] in seen:
            x, y, z = vertices[faces[first[k], 0]].tolist()
            found.append(named("mesh", "has a component too many", (x, y, z)))
        seen.add(int(owner[k]))
    if not found and (numbers[1], numbers[2]) != betti[1:]:
        boxes = ndimage.find_objects(labels)
        for label in range(1, count + 1):
            mine = owner == label
            theirs = betti_numbers(labels[boxes[label - 1]] == label)
            ours = (int(genus[mine].sum()), int((mine & ~outer).sum()))
            for kind, own, other in (("loop", ours[0], theirs[1]), ("cavity", ours[1], theirs[2])):
                what = f"lacks a {kind}" if own < other else f"has a {kind} too many"
                found += [named("mesh", what, world(affine, firsts[label - 1]))] * abs(own - other)
    return numbers, found


def of_graph(
    graph: nx.MultiGraph,
    field: np.ndarray,
    mask: Bool[np.ndarray, "x y z"],
    betti: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
) -> tuple[list[int], list[Disagreement]]:
    """Components and loops of the graph, and where they are not those of the field."""
    parts = [list(nodes) for nodes in nx.connected_components(graph)]
    loops = [sum(graph.degree(node) for node in nodes) // 2 - len(nodes) + 1 for nodes in parts]
    numbers = [len(parts), sum(loops)]
    if tuple(numbers) == betti[:2]:
        return numbers, []
    labels, count = components(mask)
    places = np.array([graph.nodes[nodes[0]]["pos"] for nodes in parts], float).reshape(-1, 3)
    owner = np.array([main_component(points_of(graph, nodes), labels, affine) for nodes in parts], np.int64)
    found = []
    firsts = one_voxel_each(labels, count)
    for label in np.setdiff1d(np.arange(1, count + 1), owner):
        found.append(named("graph", "lacks a component", world(affine, firsts[label - 1])))
    for label, part in zip(owner, range(len(parts)), strict=True):
        if label == 0 or part != int(np.flatnonzero(owner == label)[0]):
            x, y, z = places[part].tolist()
            found.append(named("graph", "has a component too many", (x, y, z)))
    return numbers, found + loops_of_graph(graph, field, labels, affine)


def points_of(graph: nx.MultiGraph, nodes: list[Any]) -> Float[np.ndarray, "n 3"]:
    """All points of a component of a graph, mm."""
    of_edges = [edge["points"] for _, _, edge in graph.subgraph(nodes).edges(data=True)]
    return np.concatenate([np.array([graph.nodes[node]["pos"] for node in nodes], float), *of_edges])


def main_component(
    places: Float[np.ndarray, "n 3"], labels: Int32[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> int:
    """The component in which most of the places lie (at most a thousand of them are looked at); 0 for none."""
    return int(np.bincount(component_at(places[:: len(places) // 1000 + 1], labels, affine)).argmax())


def loops_of_graph(
    graph: nx.MultiGraph, field: np.ndarray, labels: Int32[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> list[Disagreement]:
    """The loops of field and graph that do not belong together, by the component they lie in and by their places."""
    vessel = np.where((labels > 0) & (field > 0), -np.abs(field), field)  # cavities filled
    theirs = [one for one in features(vessel, affine=affine) if one.dimension == 1 and one.alive]
    born = np.array([one.birth_place for one in theirs], float).reshape(-1, 3)
    cycles = cycle_points(graph)
    middle = np.array([points.mean(axis=0) for points in cycles], float).reshape(-1, 3)
    in_field = component_at(born, labels, affine)
    in_graph = np.array([main_component(points, labels, affine) for points in cycles], np.int64)
    found = []
    for label in np.union1d(in_field, in_graph).tolist():
        ours, other = np.flatnonzero(in_graph == label), np.flatnonzero(in_field == label)
        if len(ours) == len(other):
            continue
        # A loop's thinnest place lies on it: its distance to the points of each cycle.
        cost = np.array([[cKDTree(cycles[i]).query(born[j])[0] for j in other] for i in ours])
        left, right = matched(cost.reshape(len(ours), len(other)))
        for i in np.delete(ours, left).tolist():
            x, y, z = middle[i].tolist()
            found.append(named("graph", "has a loop too many", (x, y, z)))
        found += [named("graph", "lacks a loop", theirs[j].birth_place) for j in np.delete(other, right).tolist()]
    return found


def matched(cost: Float[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the assignment of least cost; all of the fewer ones are assigned."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost)
    return rows, columns


def cycle_points(graph: nx.MultiGraph) -> list[Float[np.ndarray, "n 3"]]:
    """A basis of independent cycles, as the points along each: one for each edge that a spanning forest leaves over."""
    forest = nx.Graph()
    forest.add_nodes_from(graph)
    left, tree_edge = [], {}
    joined = nx.utils.UnionFind(graph)
    for u, v, edge in graph.edges(data=True):
        if joined[u] == joined[v]:
            left.append((u, v, edge["points"]))
        else:
            joined.union(u, v)
            forest.add_edge(u, v)
            tree_edge[frozenset((u, v))] = edge["points"]
    cycles = []
    for u, v, points in left:
        path = nx.shortest_path(forest, u, v)
        steps = [tree_edge[frozenset(pair)] for pair in itertools.pairwise(path)]
        cycles.append(np.concatenate([points, *steps]))
    return cycles
