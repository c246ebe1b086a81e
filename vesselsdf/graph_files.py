"""Centreline graphs as files: JSON and GraphML (whole), VTP (for VTK, ParaView, Slicer), SWC (trees; loops cut)."""

import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path, jsonable, write_text
from vesselsdf.files import write_json as write_json_file
from vesselsdf.skeleton import WIDTHS, length_of, merge_degree_two
from vesselsdf.vtk_xml import write_polydata

JSON_FORMAT = "vesselsdf centreline graph 1"
# Structure identifiers of the SWC convention (Cannon et al. 1998, as extended by neuromorpho.org).
SWC_PLAIN, SWC_FORK, SWC_END = 0, 5, 6
LOOP_COMMENT = re.compile(r"# loop: sample (\d+) is the place of sample (\d+)")


def write_json(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the whole graph to `path`; `read_json` gives the same graph back, bit for bit. Positions are RAS mm.

    The file holds `format`, `graph` (attributes such as `root`), `nodes` (each with `id`) and `edges` (each with
    `ends`, the node of its first point first).
    """
    nodes = [{"id": node, **attributes} for node, attributes in graph.nodes(data=True)]
    edges = []
    for u, v, edge in graph.edges(data=True):
        start = edge.get("start", u)
        attributes = {name: value for name, value in edge.items() if name != "start"}
        edges.append({"ends": [start, v if start == u else u], **attributes})
    write_json_file(path, {"format": JSON_FORMAT, "graph": dict(graph.graph), "nodes": nodes, "edges": edges})


def read_json(path: str | Path) -> nx.MultiGraph:
    """Read a graph written by `write_json`. Raises InputError for any other file."""
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give a centreline graph in JSON.") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); give a centreline graph written here.") from None
    if not isinstance(content, dict) or content.get("format") != JSON_FORMAT:
        raise InputError(f"{path}: the field `format` is not {JSON_FORMAT!r}; give a centreline graph written here.")
    graph = nx.MultiGraph(**content["graph"])
    for node in content["nodes"]:
        identity = node.pop("id")
        graph.add_node(identity, **{**node, "pos": np.array(node["pos"], dtype=np.float64)})
    for edge in content["edges"]:
        u, v = edge.pop("ends")
        points = np.array(edge.pop("points"), dtype=np.float64).reshape(-1, 3)
        widths = {name: np.array(edge.pop(name), dtype=np.float64) for name in WIDTHS if name in edge}
        graph.add_edge(u, v, start=u, points=points, **widths, **edge)
    return graph


def write_graphml(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the whole graph as GraphML. Nodes have `x`, `y`, `z` (RAS mm) as numbers; arrays are JSON strings."""
    plain = nx.MultiGraph(**{name: graphml_value(value) for name, value in graph.graph.items()})
    for node, attributes in graph.nodes(data=True):
        x, y, z = (float(c) for c in attributes["pos"])
        plain.add_node(node, x=x, y=y, z=z, **{name: graphml_value(value) for name, value in attributes.items()})
    for u, v, edge in graph.edges(data=True):
        plain.add_edge(u, v, **{name: graphml_value(value) for name, value in edge.items()})
    with atomic_path(path) as temporary:
        nx.write_graphml(plain, temporary)


def graphml_value(value: Any) -> Any:
    """A number, boolean or string as it is; anything else as a JSON string."""
    value = jsonable(value)
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def write_vtp(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the branches as polylines of a VTK XML PolyData file, RAS mm.

    Point arrays, mm: `radius` (of the section's area), `radius_min`, `radius_max` (from its centroid to the nearest and
    the farthest wall; like `radius` where a graph has only that), and `MaximumInscribedSphereRadius`, VMTK's name for
    the smallest. Cell arrays: `branch` (number of the edge), `start`, `end` (nodes), `length` mm. A node without
    branches is a vertex cell with branch -1.
    """
    branches = []
    for u, v, edge in graph.edges(data=True):
        start = edge.get("start", u)
        widths = np.stack([edge.get(name, edge["radii"]) for name in WIDTHS])
        branches.append((edge["points"], widths, start, v if start == u else u, edge["length"]))
    lonely = list(nx.isolates(graph))
    vertices = [graph.nodes[node]["pos"][None] for node in lonely]
    points = np.concatenate([*vertices, *(b[0] for b in branches), np.zeros((0, 3))])
    of_nodes = np.array([graph.nodes[node]["radius"] for node in lonely], dtype=np.float64)
    area, least, most = np.concatenate([np.tile(of_nodes, (3, 1)), *(b[1] for b in branches)], axis=1)
    sizes = np.array([len(b[0]) for b in branches], dtype=np.int64)
    whole = np.arange(len(points), dtype=np.int64)
    # VTK numbers the cells of a PolyData vertices first, then lines.
    cells = {
        "branch": np.array([-1] * len(lonely) + list(range(len(branches))), dtype=np.int64),
        "start": np.array(lonely + [b[2] for b in branches], dtype=np.int64),
        "end": np.array(lonely + [b[3] for b in branches], dtype=np.int64),
        "length": np.array([0.0] * len(lonely) + [b[4] for b in branches], dtype=np.float64),
    }
    write_polydata(
        path,
        points,
        {"Verts": (whole[: len(lonely)], np.ones(len(lonely), dtype=np.int64)), "Lines": (whole[len(lonely) :], sizes)},
        {"MaximumInscribedSphereRadius": least, "radius": area, "radius_min": least, "radius_max": most},
        cells,
    )


def write_swc(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the graph as SWC: id, type, x, y, z (RAS mm), radius (mm), parent; parents before children.

    Each component is a tree from its root (`graph.graph["roots"]`, else its thickest end). SWC cannot hold loops, so
    each is cut at the far end of one branch, whose last sample repeats the place of the node that it had reached; a
    header comment names the two samples, and `read_swc` joins them again. Nothing is lost of the length. Types: 0
    plain, 5 fork, 6 end.
    """
    rows: list[tuple[int, np.ndarray, float, int]] = []
    sample_of: dict[Any, int] = {}
    cuts: list[tuple[int, int]] = []

    def add(kind: int, position: np.ndarray, radius: float, parent: int) -> int:
        rows.append((kind, position, radius, parent))
        return len(rows)

    def add_node(node: Any, parent: int) -> None:
        degree = graph.degree(node)
        kind = SWC_FORK if degree > 2 else SWC_END if degree == 1 else SWC_PLAIN
        sample_of[node] = add(kind, graph.nodes[node]["pos"], graph.nodes[node]["radius"], parent)

    for root in swc_roots(graph):
        add_node(root, -1)
        written = set()
        queue = [root]
        for node in queue:
            for _, other, key, edge in graph.edges(node, keys=True, data=True):
                name = (frozenset((node, other)), key)
                if name in written:
                    continue
                written.add(name)
                forwards = edge["start"] == node
                points, radii = (edge[k] if forwards else edge[k][::-1] for k in ("points", "radii"))
                parent = sample_of[node]
                for point, radius in zip(points[1:-1], radii[1:-1], strict=True):
                    parent = add(SWC_PLAIN, point, radius, parent)
                if other in sample_of:
                    cuts.append((add(SWC_END, points[-1], radii[-1], parent), sample_of[other]))
                else:
                    add_node(other, parent)
                    queue.append(other)
    header = ["# centreline graph, RAS mm: id type x y z radius parent", f"# loops cut: {len(cuts)}"]
    header += [f"# loop: sample {a} is the place of sample {b}" for a, b in cuts]
    body = [
        f"{k} {kind} {' '.join(repr(float(c)) for c in position)} {float(radius)!r} {parent}"
        for k, (kind, position, radius, parent) in enumerate(rows, start=1)
    ]
    write_text(path, "\n".join(header + body) + "\n")


def swc_roots(graph: nx.MultiGraph) -> list[Any]:
    """One root for each component: the graph's own if it names them, else the thickest end (or node)."""
    roots = []
    named = [*graph.graph.get("roots", []), graph.graph.get("root")]
    for nodes in nx.connected_components(graph):
        ends = [node for node in nodes if graph.degree(node) == 1] or list(nodes)
        mine = [root for root in named if root in nodes]
        roots.append(mine[0] if mine else max(ends, key=lambda node: graph.nodes[node]["radius"]))
    return roots


def read_swc(path: str | Path) -> nx.MultiGraph:
    """Read an SWC file (mm, taken as RAS) as a centreline graph.

    Samples at the place of their parent are joined with it (tracers repeat the fork at the start of each branch), and
    so are the two samples of each loop that `write_swc` has cut. A branch keeps the radii of its own samples, a node
    has the largest at its place. Raises InputError for a file that is no SWC, with the line that is wrong.
    """
    samples, positions, radii, parents, loops = parse_swc(Path(path))
    n = len(samples)
    number = {sample: k for k, sample in enumerate(samples)}
    same = nx.utils.UnionFind(range(n))
    links = []
    for k, parent in enumerate(parents):
        if parent < 0:
            continue
        if parent not in number:
            raise InputError(f"{path}: sample {samples[k]} has the parent {parent}, which is not in the file.")
        if np.array_equal(positions[k], positions[number[parent]]):
            same.union(number[parent], k)
        else:
            links.append((number[parent], k))
    for a, b in loops:
        if a in number and b in number:
            same.union(number[b], number[a])
    graph = nx.MultiGraph()
    for group in same.to_sets():
        first = min(group)
        graph.add_node(same[first], pos=positions[first], radius=float(max(radii[k] for k in group)))
    for parent, k in links:
        ends = positions[[parent, k]]
        widths = np.array([radii[parent], radii[k]])
        graph.add_edge(same[parent], same[k], points=ends, radii=widths, start=same[parent])
    merge_degree_two(graph)
    for _, _, edge in graph.edges(data=True):
        edge["length"] = length_of(edge["points"])
    graph.graph["roots"] = swc_roots(graph)
    if graph.graph["roots"]:
        graph.graph["root"] = graph.graph["roots"][0]
    return graph


def parse_swc(path: Path) -> tuple[list[int], np.ndarray, list[float], list[int], list[tuple[int, int]]]:
    """Samples, positions (n, 3), radii, parents and cut loops (pairs of samples) of an SWC file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give an SWC file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); give an SWC file.") from None
    samples, positions, radii, parents, loops = [], [], [], [], []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if cut := LOOP_COMMENT.fullmatch(line.strip()):
            loops.append((int(cut[1]), int(cut[2])))
        if not words or words[0].startswith("#"):
            continue
        try:
            sample, _, *xyz, radius, parent = (float(word) for word in words[:7])
            x, y, z = xyz
        except ValueError:
            raise InputError(
                f"{path}, line {number}: expected seven numbers (id type x y z radius parent), "
                f"found {line.strip()[:60]!r}."
            ) from None
        if not np.isfinite([x, y, z, radius]).all():
            raise InputError(
                f"{path}, line {number}: a position or radius is not finite; correct or remove the sample."
            )
        samples.append(int(sample))
        positions.append((x, y, z))
        radii.append(radius)
        parents.append(int(parent))
    if len(set(samples)) < len(samples):
        raise InputError(f"{path}: a sample number occurs twice; every sample needs its own.")
    return samples, np.array(positions, dtype=np.float64).reshape(-1, 3), radii, parents, loops
