"""Diseased vessels: stenoses, fusiform and saccular aneurysms on a healthy tree, its topology unchanged.

Radii vary smoothly along an edge; a sac is a ball that leans on a vessel's wall. What would touch another vessel or
close a gap changes the Betti numbers of the voxels, so `synthesis.cases` keeps lesions only where these stay.
"""

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.synthesis.trees import THINNEST

NARROWED = (0.35, 0.7)
"""Share of the radius that a stenosis leaves (50 to 90% of the lumen's area are lost)."""
WIDENED = (1.5, 2.5)
SAC = (0.8, 2.0)
"""Radius of a sac, in radii of its vessel."""
LENGTH = (0.7, 2.0)
"""Deviation of the bell along the vessel, in radii."""


def with_lesions(graph: nx.MultiGraph, count: int, voxel: float, generator: np.random.Generator) -> nx.MultiGraph:
    """A copy of a tube graph with up to `count` lesions; sacs are isolated nodes, as `tube_distance` takes them.

    `voxel` (mm): no vessel becomes thinner than its voxels can hold. Edges too short for a lesion are left alone.
    """
    graph = graph.copy()
    edges = [edge for *_, edge in graph.edges(data=True) if edge["length"] > 6 * float(np.median(edge["radii"]))]
    for _ in range(count if edges else 0):
        edge = edges[int(generator.integers(len(edges)))]
        kind = generator.random()
        if kind < 0.5:
            shape = _bell(edge, float(generator.uniform(*NARROWED)), generator)
            edge["radii"] = np.maximum(edge["radii"] * shape, np.minimum(edge["radii"], THINNEST * voxel))
        elif kind < 0.7:
            edge["radii"] = edge["radii"] * _bell(edge, float(generator.uniform(*WIDENED)), generator)
        else:
            pos, radius = _sac(edge, generator)
            graph.add_node(f"sac {graph.number_of_nodes()}", pos=pos, radius=radius)
    return graph


def _along(edge: dict) -> Float[np.ndarray, " n"]:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(edge["points"], axis=0), axis=1))])


def _bell(edge: dict, factor: float, generator: np.random.Generator) -> Float[np.ndarray, " n"]:
    """1 far from a place on the edge, `factor` there."""
    along, radius = _along(edge), float(np.median(edge["radii"]))
    place, width = generator.uniform(0.25, 0.75) * along[-1], generator.uniform(*LENGTH) * radius
    return 1 + (factor - 1) * np.exp(-0.5 * ((along - place) / width) ** 2)


def _sac(edge: dict, generator: np.random.Generator) -> tuple[Float[np.ndarray, "3"], float]:
    """Centre and radius of a ball that sinks a third of its radius into the wall."""
    middle = int(generator.integers(1, max(2, len(edge["points"]) - 1)))
    tangent = edge["points"][middle] - edge["points"][middle - 1]
    aside = np.cross(tangent, generator.normal(size=3))
    aside /= np.linalg.norm(aside) + 1e-12
    radius = float(edge["radii"][middle]) * float(generator.uniform(*SAC))
    return edge["points"][middle] + aside * (float(edge["radii"][middle]) + radius / 1.5), radius
