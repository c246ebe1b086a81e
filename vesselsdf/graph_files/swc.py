"""Centreline graphs as SWC, the format of tracing software: trees of samples; loops are cut, listed, joined again."""

import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import write_text
from vesselsdf.graph_files.samples import graph_of_samples
from vesselsdf.rooted import first_node
from vesselsdf.roots import roots_of

# Structure identifiers of the SWC convention (Cannon et al. 1998, as extended by neuromorpho.org).
SWC_PLAIN, SWC_FORK, SWC_END = 0, 5, 6
LOOP_COMMENT = re.compile(r"# loop: sample (\d+) is the place of sample (\d+)")


def write_swc(graph: nx.MultiGraph, path: str | Path) -> None:
    """Write the graph as SWC: id, type, x, y, z (RAS mm), radius (mm), parent; parents before children, ids from 1.

    Each component is a tree from its root (`graph.graph["roots"]`, else its thickest end). SWC cannot hold loops, so
    each is cut at the far end of one branch, whose last sample repeats the place of the node that it had reached; a
    header comment names the two samples, and `read_swc` joins them again. Where a branch has another radius at a node
    than the node itself (a thin branch in a wide fork), a sample with the branch's radius repeats the place of the
    node, as in traced data. So neither length nor radius is lost. Types: 0 plain, 5 fork, 6 end.
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

    for root in roots_of(graph):
        add_node(root, -1)
        written = set()
        queue = [root]
        for node in queue:
            for _, other, key, edge in graph.edges(node, keys=True, data=True):
                name = (frozenset((node, other)), key)
                if name in written:
                    continue
                written.add(name)
                forwards = first_node(graph, node, other, edge) == node
                points, radii = (edge[k].copy() if forwards else edge[k][::-1].copy() for k in ("points", "radii"))
                points[0], points[-1] = graph.nodes[node]["pos"], graph.nodes[other]["pos"]  # to the last bit
                parent = sample_of[node]
                # The last sample is the node's, and so is the first, unless the branch has its own radius there.
                first = 1 if radii[0] == graph.nodes[node]["radius"] else 0
                last = len(points) - (other in sample_of or radii[-1] == graph.nodes[other]["radius"])
                for point, radius in zip(points[first:last], radii[first:last], strict=True):
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


def read_swc(path: str | Path) -> nx.MultiGraph:
    """Read an SWC file (mm, taken as RAS) as a centreline graph.

    Samples at the place of their parent are joined with it (tracers repeat the fork at the start of each branch), and
    so are the two samples of each loop that `write_swc` has cut. A branch keeps the radii of its own samples, a node
    has the largest at its place. Parents may come after their children. The roots are the samples without a parent; of
    a tree whose root lies in the middle of a branch, the thickest end. Types of samples are not looked at.

    Raises InputError for a file that is no SWC, with the line or the sample that is wrong.
    """
    path = Path(path)
    samples, positions, radii, parents, loops = parse_swc(path)
    number = {sample: k for k, sample in enumerate(samples)}
    same = nx.utils.UnionFind(range(len(samples)))
    joined = nx.utils.UnionFind(range(len(samples)))
    links = []
    for k, parent in enumerate(parents):
        if parent < 0:
            continue
        if parent not in number:
            raise InputError(f"{path}: sample {samples[k]} has the parent {parent}, which is not in the file.")
        above = number[parent]
        if joined[above] == joined[k]:
            raise InputError(f"{path}: sample {samples[k]} is its own ancestor; parents must lead to a root (-1).")
        joined.union(above, k)
        if np.array_equal(positions[k], positions[above]):
            same.union(above, k)
        else:
            links.append((above, k))
    for a, b in loops:
        if a in number and b in number:
            same.union(number[b], number[a])
    roots = [k for k, parent in enumerate(parents) if parent < 0]
    return graph_of_samples(positions, {"radii": radii}, np.array(links, dtype=np.int64).reshape(-1, 2), same, roots)


def parse_swc(path: Path) -> tuple[list[int], np.ndarray, np.ndarray, list[int], list[tuple[int, int]]]:
    """Samples, positions (n, 3), radii, parents and cut loops (pairs of samples) of an SWC file."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")  # comments come in any encoding
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; give an SWC file.") from None
    except OSError as error:
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
        if radius < 0:
            raise InputError(f"{path}, line {number}: the radius is {radius:g}; it must not be negative.")
        samples.append(int(sample))
        positions.append((x, y, z))
        radii.append(radius)
        parents.append(int(parent))
    if len(set(samples)) < len(samples):
        raise InputError(f"{path}: a sample number occurs twice; every sample needs its own.")
    return (
        samples,
        np.array(positions, dtype=np.float64).reshape(-1, 3),
        np.array(radii, dtype=np.float64),
        parents,
        loops,
    )
