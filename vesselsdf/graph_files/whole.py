"""Centreline graphs as JSON and GraphML: the whole graph, every attribute, and back again bit for bit."""

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path, jsonable
from vesselsdf.files import write_json as write_json_file
from vesselsdf.rooted import first_node

JSON_FORMAT = "vesselsdf centreline graph 1"
# Arrays of graphs written before the file named them.
ARRAYS = {"nodes": {"pos": "float64"}, "edges": dict.fromkeys(("points", "radii", "radii_min", "radii_max"), "float64")}


def write_json(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the whole graph to `path`; `read_json` gives the same graph back, bit for bit. Positions are RAS mm.

    The file holds `format`, `graph` (attributes such as `root`), `nodes` (each with `id`), `edges` (each with `ends`,
    the node of its first point first, and `key`) and `arrays`: the types of the attributes that are arrays. Any
    attribute may be an array, or anything that JSON holds. In arrays, infinities are the strings "inf" and "-inf" and
    NaN is null.

    Raises InputError for a name of a node that JSON would change (a tuple, say).
    """
    nodes = [{"id": plain_name(node, path), **attributes} for node, attributes in graph.nodes(data=True)]
    edges = []
    for u, v, key, edge in graph.edges(keys=True, data=True):
        start = first_node(graph, u, v, edge)
        attributes = {name: value for name, value in edge.items() if name != "start"}
        edges.append({"ends": [start, v if start == u else u], "key": key, **attributes})
    arrays = {"nodes": array_types(nodes), "edges": array_types(edges), "graph": array_types([graph.graph])}
    content = {"format": JSON_FORMAT, "graph": dict(graph.graph), "arrays": arrays, "nodes": nodes, "edges": edges}
    write_json_file(path, content)


def plain_name(node: Any, path: str | Path) -> int | str:
    """A node's name, if it is a number or a string."""
    if isinstance(node, int | str | np.integer) and not isinstance(node, bool):
        return int(node) if not isinstance(node, str) else node
    raise InputError(f"{path}: the node {node!r} cannot be written; name nodes by whole numbers or strings.")


def array_types(records: list[dict[str, Any]]) -> dict[str, str]:
    """The type of each attribute that is an array in any of the records."""
    return {
        name: value.dtype.name if value.dtype.kind in "biuf" else value.dtype.str
        for record in records
        for name, value in record.items()
        if isinstance(value, np.ndarray)
    }


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
    try:
        return graph_of(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: a part of the graph is missing or of the wrong kind ({type(error).__name__}: {error}); write it "
            "again."
        ) from None


def graph_of(content: dict[str, Any]) -> nx.MultiGraph:
    """The graph of a file's content."""
    arrays = content.get("arrays", ARRAYS)
    graph = nx.MultiGraph(**with_arrays(content["graph"], arrays.get("graph", {})))
    for node in content["nodes"]:
        identity = node.pop("id")
        graph.add_node(identity, **with_arrays(node, arrays["nodes"]))
    for edge in content["edges"]:
        u, v = edge.pop("ends")
        key = edge.pop("key", None)
        graph.add_edge(u, v, key, start=u, **with_arrays(edge, arrays["edges"]))
    return graph


def with_arrays(record: dict[str, Any], types: dict[str, str]) -> dict[str, Any]:
    """A record of a file with its lists of numbers as arrays again.

    >>> with_arrays({"radii": [1.5, "inf", None], "name": "a"}, {"radii": "float32"})
    {'radii': array([1.5, inf, nan], dtype=float32), 'name': 'a'}
    """
    result = dict(record)
    for name, kind in types.items():
        if name in record:
            array = np.array(record[name], dtype=kind)
            result[name] = array.reshape(-1, 3) if name == "points" else array
    return result


def write_graphml(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the whole graph as GraphML, which networkx, Gephi, yEd, igraph and Cytoscape read.

    Nodes have `x`, `y`, `z` (RAS mm) as numbers beside `pos`; arrays and lists are JSON strings.
    """
    plain = nx.MultiGraph(**{name: graphml_value(value) for name, value in graph.graph.items()})
    for node, attributes in graph.nodes(data=True):
        x, y, z = (float(c) for c in attributes["pos"])
        plain.add_node(node, x=x, y=y, z=z, **{name: graphml_value(value) for name, value in attributes.items()})
    for u, v, key, edge in graph.edges(keys=True, data=True):
        plain.add_edge(u, v, key, **{name: graphml_value(value) for name, value in edge.items()})
    with atomic_path(path) as temporary:
        nx.write_graphml(plain, temporary)


def graphml_value(value: Any) -> Any:
    """A number, boolean or string as it is; anything else as a JSON string."""
    value = jsonable(value)
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)


def read_graphml(path: str | Path) -> nx.MultiGraph:
    """Read a graph written by `write_graphml`: nodes, branches, radii, roots, bit for bit.

    Lists of numbers become float arrays (lists in the graph's own attributes, such as `roots`, stay lists). Raises
    InputError for a file that is no GraphML, or whose branches have no `points` and `radii`.
    """
    path = Path(path)
    try:
        found = nx.read_graphml(path, node_type=str, force_multigraph=True)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give a centreline graph in GraphML.") from None
    except (ParseError, nx.NetworkXError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as GraphML ({error}); give a graph written here.") from None
    names = {node: int(node) if node.lstrip("-").isdigit() else node for node in found}
    graph = nx.MultiGraph(**{name: from_graphml(value) for name, value in found.graph.items()})
    for unwanted in ("node_default", "edge_default"):
        graph.graph.pop(unwanted, None)
    try:
        for node, attributes in found.nodes(data=True):
            kept = {name: arrayed(from_graphml(value)) for name, value in attributes.items() if name not in "xyz"}
            kept.setdefault("pos", np.array([attributes[axis] for axis in "xyz"], dtype=np.float64))
            graph.add_node(names[node], **kept)
        for u, v, key, edge in found.edges(keys=True, data=True):
            kept = {name: arrayed(from_graphml(value)) for name, value in edge.items() if name != "id"}
            kept["points"] = np.array(kept["points"], dtype=np.float64).reshape(-1, 3)
            kept["radii"] = np.array(kept["radii"], dtype=np.float64).reshape(-1)
            graph.add_edge(names[u], names[v], int(key) if str(key).isdigit() else key, **kept)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: a node without a place or a branch without `points` and `radii` ({error}); give a centreline "
            "graph written here."
        ) from None
    return graph


def from_graphml(value: Any) -> Any:
    """A value as it was before `graphml_value`."""
    if isinstance(value, str) and value[:1] in ("[", "{", "n"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def arrayed(value: Any) -> Any:
    """A list of numbers as an array."""
    if isinstance(value, list) and all(isinstance(item, int | float | list | None) for item in value):
        return np.array(value, dtype=np.float64)
    return value
