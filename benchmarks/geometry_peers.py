"""What `geometry.py` measures: every method, ours and the peers', by kind of job.

A method has a `call`, which is timed, on the inputs of its kind, and `read`, which is not, that brings its answer to
the form of the kind: a field, a mesh (vertices, faces), or `Lines`. All work on a grid of 1 mm voxels at the origin.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
from geometry_edits import EDITS, read_trimesh
from geometry_scores import Lines, lines_of
from measuring import Method
from vtk_arrays import read_polydata, vtk_image

UNIT = (1.0, 1.0, 1.0)
BAND = 3.0


# Distance from a mask, and from partial-volume labels.


def our_distance(mask):
    from vesselsdf.distance import signed_distance

    return signed_distance(mask, UNIT, band=BAND)


def our_distance_everywhere(mask):
    from vesselsdf.distance import signed_distance

    return signed_distance(mask, UNIT)


def our_partial_volume_distance(fraction):
    from vesselsdf.distance import partial_volume_distance

    return partial_volume_distance(fraction, UNIT, band=BAND)


def scipy_distance(mask):
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask) - distance_transform_edt(mask)


def edt_distance(mask):
    """Half a voxel is taken off on either side: the wall lies between the centres."""
    import edt

    return edt.edt(~mask) - edt.edt(mask) - np.where(mask, np.float32(-0.5), np.float32(0.5))


def itk_distance(mask):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
    found = SimpleITK.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False)
    return SimpleITK.GetArrayFromImage(found)


def fast_marching(level):
    import skfmm

    return skfmm.distance(level, narrow=BAND), level


def fast_marching_of_mask(mask):
    return fast_marching(0.5 - mask)


def fast_marching_of_fraction(fraction):
    return fast_marching(0.5 - fraction)


def within_band(answer):
    """Fast marching leaves out what is beyond the band, and a voxel here and there within it."""
    field, level = answer
    return np.where(np.ma.getmaskarray(field), np.sign(level) * BAND, np.ma.getdata(field))


# Surface.


def our_surface(field):
    from vesselsdf.mesh import surface

    return surface(field, np.eye(4))


def our_surface_of_mask(mask):
    return our_surface(our_distance(mask))


def skimage_surface(field):
    from skimage.measure import marching_cubes

    return marching_cubes(field, 0.0)[:2]


def skimage_surface_of_mask(mask):
    from skimage.measure import marching_cubes

    return marching_cubes(mask.astype(np.float32), 0.5, gradient_direction="ascent")[:2]


def vtk_surface(field):
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    tool = vtkFlyingEdges3D()
    tool.SetInputData(vtk_image(field))
    tool.SetValue(0, 0.0)
    tool.ComputeNormalsOff()
    tool.Update()
    return tool.GetOutput()


def vtk_surface_nets(mask):
    from vtkmodules.vtkFiltersCore import vtkSurfaceNets3D

    tool = vtkSurfaceNets3D()
    tool.SetInputData(vtk_image(mask.astype(np.uint8)))
    tool.SetValue(0, 1)
    tool.SetOutputMeshTypeToTriangles()
    tool.Update()
    return tool.GetOutput()


# Centreline graph.


def our_graph(field):
    from vesselsdf.graph import centreline_graph

    return centreline_graph(field, np.eye(4))


def our_graph_of_mask(mask):
    from vesselsdf.distance import signed_distance
    from vesselsdf.graph import centreline_graph

    return centreline_graph(signed_distance(mask, UNIT), np.eye(4))


def our_mended_graph_of_mask(mask):
    """False features of the mask's distance are mended, and the distance of what results is measured anew."""
    from vesselsdf.distance import signed_distance
    from vesselsdf.false_features import false_features, mended
    from vesselsdf.graph import centreline_graph

    field = signed_distance(mask, UNIT)
    field = signed_distance(mended(field, false_features(field, np.eye(4))) <= 0, UNIT)
    return centreline_graph(field, np.eye(4))


def skan_graph(mask):
    """scikit-image's skeleton, skan's branches, and the distance transform at the skeleton for radii."""
    import edt
    import skan
    from skimage.morphology import skeletonize

    depth = edt.edt(mask)
    skeleton = skan.Skeleton(skeletonize(mask))
    return skeleton, skan.summarize(skeleton, separator="-"), depth


def read_skan(answer):
    skeleton, table, depth = answer
    graph = nx.MultiGraph(list(zip(table["node-id-src"], table["node-id-dst"], strict=True)))
    branches = []
    for k in range(skeleton.n_paths):
        points = skeleton.path_coordinates(k)
        branches.append((points.astype(float), depth[tuple(points.astype(int).T)]))
    return voxel_lines(graph, branches, skeleton.coordinates)


def voxel_lines(graph: nx.MultiGraph, branches: list, coordinates: np.ndarray) -> Lines:
    """Junction voxels that touch are one bifurcation, at their middle."""
    components = nx.number_connected_components(graph)
    loops = graph.number_of_edges() - graph.number_of_nodes() + components
    junctions = coordinates[[n for n, degree in graph.degree() if degree > 2]]
    ends = coordinates[[n for n, degree in graph.degree() if degree == 1]]
    return Lines(branches, merged(junctions), ends.reshape(-1, 3), components, loops)


def merged(places: np.ndarray, reach: float = 1.75) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if not len(places):
        return np.zeros((0, 3))
    pairs = cKDTree(places).query_pairs(reach, output_type="ndarray")
    touching = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(len(places),) * 2)
    count, label = connected_components(touching, directed=False)
    return np.array([places[label == k].mean(axis=0) for k in range(count)])


def kimimaro_graph(mask):
    """Its constants are in nm; with a voxel as the unit, `const` is 3 voxels (its default of 300 finds one branch)."""
    import kimimaro

    settings = {"scale": 1.5, "const": 3, "pdrf_scale": 100000, "pdrf_exponent": 4, "soma_detection_threshold": 1e9}
    return kimimaro.skeletonize(
        mask.astype(np.uint8), settings, anisotropy=(1, 1, 1), dust_threshold=0, fix_borders=False, progress=False
    )


def read_kimimaro(skeletons):
    graph, branches, places, depth, start = nx.Graph(), [], [], [], 0
    for skeleton in skeletons.values():
        graph.add_edges_from((skeleton.edges + start).tolist())
        places.append(skeleton.vertices)
        depth.append(skeleton.radii)
        start += len(skeleton.vertices)
    coordinates, radii = np.concatenate(places), np.concatenate(depth)
    for chain in chains(graph):
        branches.append((coordinates[chain].astype(float), radii[chain]))
    return voxel_lines(nx.MultiGraph(graph), branches, coordinates)


def chains(graph: nx.Graph) -> list[list[int]]:
    """The paths between the nodes of degree other than two."""
    found, done = [], set()
    for node in [n for n, degree in graph.degree() if degree != 2]:
        for step in graph.neighbors(node):
            if (node, step) in done:
                continue
            chain = [node, step]
            while graph.degree(chain[-1]) == 2:
                chain.append(next(n for n in graph.neighbors(chain[-1]) if n != chain[-2]))
            done.add((chain[-1], chain[-2]))
            found.append(chain)
    return found


def vmtk_graph(field, tips):
    """VMTK's own surface would be the flying edges' too. `tips`: end points with the thickest first, by hand."""
    vertices, faces = read_polydata(vtk_surface(field))
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, vertices=vertices, faces=faces, source=tips[0], targets=tips[1:])
        script = str(Path(__file__).with_name("vmtk_lines.py"))
        result = subprocess.run(
            [os.environ["VMTK_PYTHON"], script, str(given), str(made)],
            capture_output=True, text=True, check=False, timeout=float(os.environ["VMTK_TIMEOUT"]),
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"VMTK: {(result.stderr.strip().splitlines() or ['killed'])[-1]}")
        with np.load(made) as stored:
            return dict(stored)


def read_vmtk(answer):
    cuts = np.cumsum(answer["lengths"])[:-1]
    branches = list(zip(np.split(answer["points"], cuts), np.split(answer["radii"], cuts), strict=True))
    notes = {"seconds": float(answer["seconds"]), "mb": float(answer["mb"])}
    return Lines(branches, answer["bifurcations"], answer["ends"], 1, 0, notes)


# Both.


def our_both(field):
    return our_surface(field), our_graph(field)


def skimage_both(field):
    return skimage_surface(field), skan_graph(field <= 0)


def vtk_both(field):
    return vtk_surface(field), kimimaro_graph(field <= 0)


KINDS: dict[str, dict[str, Method]] = {
    "distance": {
        "ours, band 3": Method(our_distance),
        "ours, everywhere": Method(our_distance_everywhere),
        "scipy": Method(scipy_distance, largest=256),
        "edt": Method(edt_distance, package="edt"),
        "SimpleITK Maurer": Method(itk_distance, package="SimpleITK"),
        "scikit-fmm, 3": Method(fast_marching_of_mask, within_band, package="scikit-fmm"),
    },
    "distance from partial volume": {
        "ours, band 3": Method(our_partial_volume_distance),
        "scikit-fmm, 3": Method(fast_marching_of_fraction, within_band, package="scikit-fmm"),
    },
    "surface": {
        "ours": Method(our_surface, read_trimesh),
        "scikit-image": Method(skimage_surface),
        "VTK flying edges": Method(vtk_surface, read_polydata, package="vtk"),
    },
    "surface of mask": {
        "ours": Method(our_surface_of_mask, read_trimesh),
        "scikit-image": Method(skimage_surface_of_mask),
        "VTK SurfaceNets": Method(vtk_surface_nets, read_polydata, package="vtk"),
    },
    "graph": {
        "ours": Method(our_graph, lines_of),
        "VMTK, ends given": Method(vmtk_graph, read_vmtk, largest=128, package="vtk", repeats=1),
    },
    "graph of mask": {
        "ours": Method(our_graph_of_mask, lines_of),
        "scikit-image + skan": Method(skan_graph, read_skan, package="skan"),
        "kimimaro": Method(kimimaro_graph, read_kimimaro, largest=256, package="kimimaro"),
    },
}
for noise in ("mild", "strong"):
    KINDS[f"graph of {noise} mask"] = {
        "ours": Method(our_graph_of_mask, lines_of),
        "ours, mended": Method(our_mended_graph_of_mask, lines_of),
    } | {name: method for name, method in KINDS["graph of mask"].items() if name != "ours"}
KINDS |= EDITS
KINDS["mesh and graph"] = {
    "ours": Method(our_both),
    "scikit-image, skan": Method(skimage_both, package="skan"),
    "VTK, kimimaro": Method(vtk_both, largest=256, package="kimimaro"),
}
