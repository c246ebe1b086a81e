"""The centreline graph of a vessel field, made from the exact skeleton.

Strategy: thin the vessel by exact homotopy, turn the voxels into a graph without inventing or losing a loop
(`vesselsdf.skeleton`), prune the bumps of the wall, then measure centres and radii in sections of the distance field
(`vesselsdf.centring`). The graph has as many components and independent loops as the vessel, always.
"""

from collections.abc import Mapping

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy import ndimage

from vesselsdf.centring import refine
from vesselsdf.distance import redistance, signed_distance
from vesselsdf.errors import InputError
from vesselsdf.false_features import false_features, mended
from vesselsdf.marching import bounding_box
from vesselsdf.roots import find_roots
from vesselsdf.sections import DenseField, Field
from vesselsdf.skeleton import join_junctions, prune, voxel_graph
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.thinning import thin

# Junctions nearer to each other than this many voxels are one.
JOINED = 1.0
# Filling one cavity by itself costs about as much as this many voxels do when all are filled at once.
CAVITY_COST = 40_000


def centreline_graph(
    sdf: Num[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], remove_false_loops: bool = False
) -> nx.MultiGraph:
    """Centreline graph of the vessel `sdf <= 0`, in RAS mm.

    Args:
        sdf: (X, Y, Z) signed distance in mm, negative inside.
        affine: voxel index (centre of voxel) to RAS mm; its columns must be orthogonal (rotated or flipped is fine).
        remove_false_loops: fill the holes and cavities of a voxel or two that `vesselsdf.false_features` finds; to make
            a mesh of the same vessel, mend the field with that module and make both of it.

    Returns:
        `networkx.MultiGraph`. Nodes (ends, junctions, one node of each plain ring, one for each component without
        extent): `pos` (3,) mm and `radius` mm. Edges: `points` (n, 3) mm from the node `start` to the other end, both
        ends included, `length` mm, and of the section normal to the branch at each point, (n,) mm: `radii`, of the disc
        with the same area; `radii_min` and `radii_max`, from its centroid to the nearest and the farthest wall (an
        elliptical vessel with half-axes a > b has sqrt(a b), b and a). `graph.graph["roots"]` has one node per
        component, the longest component first: its thickest end (of a ring, its node); `graph.graph["root"]` is the
        first of them.

        Near a junction and beyond the last whole section of an end the radii are carried on from the branch.

        Components and independent loops are those of the vessel: beta0 and beta1, 26-connected foreground, 6-connected
        background. Cavities are filled first (they would leave closed surfaces, which no graph can follow); a loop
        around a ring-shaped cavity disappears with it. Without any vessel the graph is empty.

    Raises InputError for NaN or infinite values.

    >>> sdf = np.linalg.norm(np.indices((9, 9, 40))[:2] - 4.0, axis=0) - 3
    >>> graph = centreline_graph(sdf, np.diag([0.5, 0.5, 0.5, 1.0]))
    >>> [(u, v, round(e["length"], 1)) for u, v, e in graph.edges(data=True)]
    [(0, 1, 20.0)]
    """
    # A minimum takes no memory, and NaN is the minimum of what holds it.
    lowest, highest = (sdf.min(), sdf.max()) if sdf.size else (1.0, 1.0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(f"The signed distance field of shape {sdf.shape} holds NaN or infinite values: replace them.")
    if lowest > 0:
        return nx.MultiGraph(roots=[])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    cropped, origin = crop(sdf)
    if remove_false_loops:
        cropped = mended(cropped, false_features(cropped, np.diag([*spacing, 1.0]), ("hole", "cavity")))
    cropped = unclipped(cropped, spacing)
    field = DenseField(fill_cavities(cropped, spacing), spacing)
    graph = skeleton_graph(field)
    measure(graph, field)
    return in_world(graph, spacing, affine, origin)


def measure(graph: nx.MultiGraph, field: Field, at: set[int] | None = None) -> None:
    """Take off the spurs of a voxel graph and centre and measure its branches, in place.

    `at`: only what meets at these nodes, and what that changes; the others have been measured.
    """
    # Only with ends where they belong can spurs be told from branches: both corners of a wide vessel's flat end, say,
    # look like ends. Few are left for the second time, when the junctions lie better too.
    refine(graph, field, at)
    for second in (False, True):
        before = len(graph)
        changed = prune(graph, field.voxel, measured=True, near=None if at is None else at | neighbours(graph, at))
        while changed:
            at = None if at is None else {node for node in at | changed if node in graph}
            refine(graph, field, changed)
            changed = prune(graph, field.voxel, measured=True, near=changed | neighbours(graph, changed))
        if len(graph) < before:
            refine(graph, field, at)  # what is left of a corner has been smoothed once only
        joined = join_junctions(graph, JOINED * field.voxel)
        if not second or len(graph) < before or joined:
            at = None if at is None else {node for node in at if node in graph}
            refine(graph, field, at, again=True)


def in_world(
    graph: nx.MultiGraph, spacing: Float[np.ndarray, "3"], affine: Float[np.ndarray, "4 4"], origin: np.ndarray
) -> nx.MultiGraph:
    """The same graph in RAS mm with nodes numbered from 0, and its roots."""
    graph = renamed(graph, {node: number for number, node in enumerate(graph)})
    to_world(graph, affine, spacing, origin)
    graph.graph["roots"] = find_roots(graph)
    graph.graph["root"] = graph.graph["roots"][0]
    return graph


def neighbours(graph: nx.MultiGraph, nodes: set[int]) -> set[int]:
    """The nodes at the other ends of the branches that begin at some nodes."""
    return {other for node in nodes for other in graph[node]}


def crop(sdf: Num[np.ndarray, "x y z"]) -> tuple[Num[np.ndarray, "a b c"], Int[np.ndarray, "3"]]:
    """The part of the field within three voxels of the vessel's box, and the index of its first voxel."""
    low, high = bounding_box(sdf <= 0)
    keep = tuple(slice(max(a - 3, 0), b + 4) for a, b in zip(low, high, strict=True))
    return sdf[keep], np.array([part.start for part in keep])


def unclipped(sdf: Num[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> Num[np.ndarray, "x y z"]:
    """The field, measured anew from its own zero set if it is clipped inside: on a plateau there is no middle.

    It is clipped if a voxel and its six face neighbours share the lowest value: a distance falls along some axis.
    """
    lowest = sdf.min()
    x, y, z = np.unravel_index(np.flatnonzero(sdf[1:-1, 1:-1, 1:-1] == lowest), np.maximum(np.array(sdf.shape) - 2, 0))
    around = [(x, 1 + y, 1 + z), (2 + x, 1 + y, 1 + z), (1 + x, y, 1 + z), (1 + x, 2 + y, 1 + z)]
    around += [(1 + x, 1 + y, z), (1 + x, 1 + y, 2 + z)]
    if not np.all([sdf[place] == lowest for place in around], axis=0).any() or (sdf <= 0).all():
        return sdf
    return redistance(sdf, tuple(spacing.tolist()))


def fill_cavities(sdf: Num[np.ndarray, "x y z"], spacing: Float[np.ndarray, "3"]) -> Num[np.ndarray, "x y z"]:
    """The field with its cavities filled: the depth around them is measured to the outer wall.

    Each in a box of its own, or all at once where they are many: what gets deeper around one of them does not depend on
    the others. (The faces of a box cut through walls, whose curvature is then not quite known: up to 0.1 voxel.)
    """
    mask = sdf <= 0
    if betti_numbers(mask)[2] == 0:
        return sdf
    filled = ndimage.binary_fill_holes(mask)
    if filled.all():
        return np.where(mask, sdf, -np.abs(sdf))
    result = np.where(filled, np.minimum(sdf, 0), sdf)
    cavities, count = ndimage.label(filled & ~mask)
    if count * CAVITY_COST > sdf.size:
        deeper = depth_without(sdf, filled, cavities > 0, spacing, signed_distance(filled, tuple(spacing.tolist())))
        assert deeper is not None, "the whole volume is large enough"
        return np.minimum(result, deeper)
    everywhere = None  # the distance to the outer wall in the whole volume, where a cavity has to be seen in it
    for number, hollow in enumerate(ndimage.find_objects(cavities), start=1):
        pad, deeper = 3, None
        while deeper is None:
            pad *= 2
            box = tuple(slice(max(part.start - pad, 0), part.stop + pad) for part in hollow)
            whole = 4 * sdf[box].size > sdf.size
            if whole:
                box = (slice(None),) * 3
                everywhere = signed_distance(filled, tuple(spacing.tolist())) if everywhere is None else everywhere
            deeper = depth_without(
                sdf[box], filled[box], cavities[box] == number, spacing, everywhere if whole else None
            )
        result[box] = np.minimum(result[box], deeper)
    return result


def depth_without(
    sdf: Num[np.ndarray, "x y z"],
    filled: Bool[np.ndarray, "x y z"],
    cavity: Bool[np.ndarray, "x y z"],
    spacing: Float[np.ndarray, "3"],
    everywhere: Num[np.ndarray, "x y z"] | None,
) -> Num[np.ndarray, "x y z"] | None:
    """The field in a box where a cavity's filling makes it deeper, else inf; None if the box is too small to tell.

    What gets deeper was nearest to the cavity, and so was all that lies between the two: it is one piece around the
    cavity. In a box that cuts off walls depths are only overestimated, so if the piece does not reach a face of it,
    nothing outside gets deeper; and depths that are less than the distance to the faces are exact. `everywhere` is the
    distance to the outer wall where the box is the whole volume.
    """
    if everywhere is None and filled.all():
        return None
    outer = signed_distance(filled, tuple(spacing.tolist())) if everywhere is None else everywhere
    # Far from cavities the given field is the better one: where it is not much shallower, it stays.
    deeper = filled & (outer < sdf - spacing.max()) | cavity
    pieces, _ = ndimage.label(deeper, np.ones((3, 3, 3)))
    deeper = np.isin(pieces, np.unique(pieces[cavity]))
    if everywhere is None:
        index = np.argwhere(deeper)
        to_face = (np.minimum(index, np.array(sdf.shape) - 1 - index) * spacing).min(axis=1)
        if (-outer[deeper] >= to_face).any():
            return None
    return np.where(deeper, np.minimum(outer, 0), np.inf)


def skeleton_graph(field: DenseField) -> nx.MultiGraph:
    """The pruned voxel graph of the field's skeleton."""
    skeleton = np.argwhere(thin(field.sdf <= 0, field.sdf))
    graph = voxel_graph(skeleton, field.spacing, lambda voxels: -field.sdf[tuple(voxels.T)].astype(np.float64))
    prune(graph, field.voxel)
    return graph


def renamed(graph: nx.MultiGraph, names: Mapping[int, int] | Int[np.ndarray, " n"]) -> nx.MultiGraph:
    """The same graph with the name `names[node]` for each node."""
    result = nx.MultiGraph()
    result.add_nodes_from((int(names[node]), attributes) for node, attributes in graph.nodes(data=True))
    for u, v, edge in graph.edges(data=True):
        result.add_edge(int(names[u]), int(names[v]), **{**edge, "start": int(names[edge["start"]])})
    return result


def to_world(
    graph: nx.MultiGraph, affine: Float[np.ndarray, "4 4"], spacing: Float[np.ndarray, "3"], origin: np.ndarray
) -> None:
    """Turn scaled positions in the cropped box into RAS mm, in place."""
    axes = affine[:3, :3] / spacing
    shift = affine[:3, :3] @ origin + affine[:3, 3]
    for _, node in graph.nodes(data=True):
        node["pos"] = axes @ node["pos"] + shift
    for _, _, edge in graph.edges(data=True):
        edge["points"] = edge["points"] @ axes.T + shift
