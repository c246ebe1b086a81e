"""Distance, surface and centreline graph of the real public data: what was found, and what is known of it.

    python benchmarks/real_geometry.py [--cases pulmonary aorta ...] [--output pictures]

Masks (a pulmonary tree, two labels of a circle of Willis) go through `reconstruct`. The aorta is VMTK's level set, as
it is and redistanced (it is clipped 4 voxels from the wall), so that its surface and centreline can be compared with
VMTK's of the same field. Networks that were traced by others (a microvascular network in micrometres, a cerebral tree
in mm; brava.py has more of these) are brought onto a grid and recovered. Every case runs in a process of its own. One
table says whether field, mesh and graph agree on the topology, the others how far the recovered networks and the aorta
are from what is known. With `--output` a picture of each is written: the wall coloured by radius, the centreline in it,
as seen from three sides.

Traced trees are trees on paper: their tubes touch elsewhere, so the field has loops, and the graph shall have the
field's. The microvascular network has radii of 0 to 29 micrometres, and two loops 5 micrometres wide between vessels
of radius 3: at its true radii these are filled, whatever the grid. With radii times 0.3, on a grid of 0.6 micrometres,
where the thinnest vessels are one voxel wide, all of its topology is kept (beta 5, 4, 0).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
from geometry_scores import graph_scores, lines_of, sampled, self_intersections
from geometry_truth import truth_of
from measuring import machine, memory, progress, run
from real_inputs import DATA, Input, level_set, microvessels, on_grid, point_array, polydata, traced_tree
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree
from vtk_arrays import polydata_of, triangles_of

from vesselsdf.report.text import columns

AORTA = "aorta/aorta-final-levelset.mha"
MICRO = "microvessel/tapmeier_network.vtp"
CASES: dict[str, str | Callable[[], Input]] = {
    "pulmonary": "pulmonary/PA000005.nii.gz",
    "willis CT": "circle_of_willis/topcow_ct_roi_003.nii.gz",
    "willis MR": "circle_of_willis/topcow_mr_roi_003.nii.gz",
    "aorta": lambda: level_set(AORTA, again=True),
    "aorta as it is": lambda: level_set(AORTA, again=False),
    "microvessel": lambda: on_grid(microvessels(MICRO, 1.0), 1.5),
    "microvessel x0.3": lambda: on_grid(microvessels(MICRO, 0.3), 0.6),
    "brava BG0002": lambda: on_grid(traced_tree("brava/BG0002records.swc"), 0.4),
}


def one(name: str, output: str) -> dict:
    """Reconstruct and describe one case; in a process of its own."""
    from vesselsdf.graph import centreline_graph
    from vesselsdf.mesh import surface

    source, seconds = CASES[name], {}
    if isinstance(source, str):
        from vesselsdf.api import reconstruct

        made = reconstruct(DATA / source, mask=True)
        sdf, affine, tubes, before = made.sdf.array, made.affine, None, 0.0
        mesh, graph = made.mesh(), made.graph
        seconds = dict(made.seconds)
    else:
        given = source()
        sdf, affine, tubes = given.sdf, given.affine, given.tubes
        ball = np.linalg.norm(np.indices((12, 12, 12)) - 5.5, axis=0).astype(np.float32) - 4
        surface(ball, np.eye(4)), centreline_graph(ball, np.eye(4))  # imports, and compiled code
        before, made = memory(reset=True), []
        for step, call in (("mesh", surface), ("centreline graph", centreline_graph)):
            start = time.process_time()
            made.append(call(sdf, affine))
            seconds[step] = time.process_time() - start
        mesh, graph = made
    peak = memory()
    found = {"shape": list(sdf.shape), "spacing": np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist()}
    found |= agreement(sdf, affine, mesh, graph) | {
        "seconds": seconds,
        "mb": peak - before,
        "field mb": sdf.nbytes / 1e6,
    }
    if tubes is not None:
        found["recovered"] = recovered(graph, tubes, float(affine[0, 0]))
    if name.startswith("aorta"):
        found["vmtk"] = against_vmtk(mesh, graph)
    if output:
        from real_pictures import picture

        picture(mesh, graph, Path(output) / f"{name.replace(' ', '_')}.png")
    return found


def agreement(sdf: np.ndarray, affine: np.ndarray, mesh, graph: nx.MultiGraph) -> dict:
    """Topology of field, mesh and graph, the mesh's faults, and sizes."""
    from vesselsdf.mesh import check
    from vesselsdf.topology.betti import betti_numbers

    beta, report, lines = betti_numbers(sdf <= 0), check(mesh), lines_of(graph)
    inverse = np.linalg.inv(affine)
    index = sampled(lines)[0] @ inverse[:3, :3].T + inverse[:3, 3]
    return {
        "beta": list(beta),
        "graph": [lines.components, lines.loops],
        "euler": report["euler_number"] - 2 * (beta[0] - beta[1] + beta[2]),
        "closed": bool(report["watertight"] and report["winding_consistent"] and report["manifold_vertices"]),
        "crossing": self_intersections(np.asarray(mesh.vertices), np.asarray(mesh.faces)),
        "degenerate": report["degenerate_faces"],
        "faces": report["faces"],
        "volume": report["volume"],
        "filled": float((sdf <= 0).sum() * abs(np.linalg.det(affine[:3, :3]))),
        "outside": int((map_coordinates(sdf, index.T, order=1, mode="nearest") > 0).sum()),
        "branches": graph.number_of_edges(),
        "length": float(sum(edge["length"] for *_, edge in graph.edges(data=True))),
    }


def recovered(graph: nx.MultiGraph, tubes: nx.MultiGraph, spacing: float) -> dict:
    """A graph against the tubes its field was made from, lengths in voxels."""
    truth = truth_of(scaled(tubes, 1 / spacing))
    lengths = [sum(edge["length"] for *_, edge in side.edges(data=True)) for side in (graph, tubes)]
    return graph_scores(lines_of(scaled(graph, 1 / spacing)), truth) | {
        "length": lengths,
        "branches": [graph.number_of_edges(), tubes.number_of_edges()],
    }


def scaled(graph: nx.MultiGraph, factor: float, radius: str = "radii") -> nx.MultiGraph:
    """A graph in another unit, or with other radii of its sections."""
    result = nx.MultiGraph()
    for name, node in graph.nodes(data=True):
        result.add_node(name, pos=np.asarray(node["pos"]) * factor, radius=node["radius"] * factor)
    for u, v, edge in graph.edges(data=True):
        points, radii = np.asarray(edge["points"]) * factor, np.asarray(edge[radius]) * factor
        result.add_edge(u, v, points=points, radii=radii, length=edge["length"] * factor)
    return result


def against_vmtk(mesh, graph: nx.MultiGraph) -> list[list]:
    """Our surface and centreline and VMTK's of the same level set: distances both ways, and the radii, in mm."""
    import trimesh

    data = polydata(DATA / "aorta/aorta-surface.vtp")
    walls = (mesh, trimesh.Trimesh(*triangles_of(data), process=False))
    rows = []
    for way, one_side, other in (("ours to theirs", *walls), ("theirs to ours", *walls[::-1])):
        away = to_wall(np.asarray(one_side.vertices), other)
        rows.append([f"surface, {way}", len(away), *np.percentile(away, (50, 95, 100)).tolist()])
    data = polydata(DATA / "aorta/aorta-centerline.vtp")
    line, inscribed = point_array(data), point_array(data, "MaximumInscribedSphereRadius")
    ours, radii = sampled(lines_of(graph))
    smallest = sampled(lines_of(scaled(graph, 1.0, "radii_min")))[1]
    for way, one_side, other in (("ours to theirs", ours, line), ("theirs to ours", line, ours)):
        away = cKDTree(other).query(one_side)[0]
        rows.append([f"centreline, {way}", len(away), *np.percentile(away, (50, 95, 100)).tolist()])
    nearest = cKDTree(ours).query(line)[1]
    for name, values in (("area-equivalent", radii), ("inscribed", smallest)):
        relative = values[nearest] / inscribed - 1
        rows.append([f"radius, {name}, over theirs - 1", len(line), *np.percentile(relative, (50, 5, 95)).tolist()])
    rows.append(["volume over theirs - 1", 1, abs(walls[0].volume / walls[1].volume) - 1, None, None])
    return rows


def to_wall(points: np.ndarray, wall) -> np.ndarray:
    """Distance of points to a surface, exactly."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkDoubleArray
    from vtkmodules.vtkFiltersCore import vtkImplicitPolyDataDistance

    tool, away = vtkImplicitPolyDataDistance(), vtkDoubleArray()
    tool.SetInput(polydata_of(wall.vertices, wall.faces))
    tool.FunctionValue(numpy_to_vtk(np.ascontiguousarray(points), deep=True), away)
    return np.abs(vtk_to_numpy(away))


def topology_row(name: str, found: dict) -> list:
    """Whether field, mesh and graph agree."""
    seconds = found["seconds"]
    return [
        name,
        "x".join(str(n) for n in found["shape"]),
        found["spacing"],
        found["beta"],
        found["graph"],
        "yes" if found["graph"] == found["beta"][:2] else "no",
        *("yes" if found["closed"] else "no", found["euler"], found["crossing"], found["degenerate"], found["faces"]),
        f"{found['volume'] / found['filled']:.3f}",
        *(found["outside"], found["branches"], found["length"]),
        *(seconds.get(step) for step in ("distance", "mesh", "centreline graph")),
        *(found["mb"], found["mb"] / found["field mb"]),
    ]


def recovered_row(name: str, found: dict) -> list:
    """A recovered network against the known one."""
    row: list = [name]
    for key in ("bifurcations", "ends"):
        count, true, hits = found[key]
        row += [f"{count}/{true}", f"{hits / max(count, 1):.3f}", f"{hits / max(true, 1):.3f}"]
    row += [f"{found[key][0]}/{found[key][1]}" for key in ("loops", "components", "branches")]
    row += [f"{found['length'][0] / found['length'][1] - 1:+.2%}", *found["centre"], found["centre all"]]
    return [*row, f"{found['covered']:.4f}", *(f"{value:+.2%}" for value in found["radius"])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--output", default="", help="folder for pictures; none are made without it")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(*given.one), default=float))
        return 0
    if not DATA.is_dir():
        print(f"real_geometry: the public data are not at {DATA}", file=sys.stderr)
        return 2
    results = {}
    for name in given.cases:
        progress(name)
        results[name] = run(__file__, ["--one", name, given.output])
        if "failed" in results[name]:
            print(f"{name}: {results[name]['failed']}")
    progress("")
    results = {name: found for name, found in results.items() if "failed" not in found}
    header = ["case", "shape", "spacing", "field beta", "graph", "agree", "closed", "Euler off by", "crossing"]
    header += [
        "degenerate",
        "faces",
        "mesh / voxels",
        "points outside",
        "branches",
        "length",
        "distance s",
        "mesh s",
        "graph s",
    ]
    print(columns([*header, "MB", "MB / field"], [topology_row(name, found) for name, found in results.items()]))
    tubes = [recovered_row(name, found["recovered"]) for name, found in results.items() if "recovered" in found]
    if tubes:
        header = ["recovered (voxels)", "bifurcations", "P", "R", "ends", "P", "R", "loops", "beta0", "branches"]
        header += ["length", "centre", "95%", "95% all", "covered", "|radius|", "bias"]
        print("\n" + columns(header, tubes))
    for name in results:
        if "vmtk" in results[name]:
            header = [f"{name}: ours and VMTK's, mm", "points", "median", "95% or 5%", "max or 95%"]
            print("\n" + columns(header, results[name]["vmtk"]))
    print("\n" + machine(("numpy", "scipy", "trimesh", "vtk")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
