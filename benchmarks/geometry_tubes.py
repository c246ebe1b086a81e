"""Single straight tubes with round ends, whose volume and radius are known: what the thinnest vessels lose.

Random directions and places; once on a cube of 1 mm voxels, once on an anisotropic grid turned in space. Radii are in
voxels (of the anisotropic grid: edges of a cube of a voxel's volume).
"""

import networkx as nx
import numpy as np
from geometry_edits import read_trimesh
from geometry_peers import skimage_surface, skimage_surface_of_mask, vtk_surface
from measuring import installed
from vtk_arrays import read_polydata

from vesselsdf.report.text import columns

RADII = (1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.5)
LENGTH = 26.0  # voxels
EDGE = 44  # of the grid, voxels
COUNT = 6


def turned(spacing: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """An affine with this spacing, turned at random."""
    axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.uniform(-20, 20, 3)
    return affine


def tube(radius: float, spacing: tuple[float, float, float], affine: np.ndarray, rng: np.random.Generator) -> tuple:
    """A tube through the middle of the grid: its graph, the grid's shape, its volume in mm3."""
    voxel = float(np.prod(spacing) ** (1 / 3))
    shape = tuple(int(np.ceil(EDGE * voxel / step)) for step in spacing)
    direction = rng.normal(size=3)
    direction *= LENGTH * voxel / 2 / np.linalg.norm(direction)
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2 + rng.uniform(-0.5, 0.5, 3)) + affine[:3, 3]
    graph, r = nx.MultiGraph(), radius * voxel
    points = np.array([middle - direction, middle + direction])
    for k in range(2):
        graph.add_node(k, pos=points[k], radius=r)
    graph.add_edge(0, 1, start=0, points=points, radii=np.full(2, r), length=LENGTH * voxel)
    return graph, shape, np.pi * r**2 * LENGTH * voxel + 4 / 3 * np.pi * r**3


def enclosed(vertices: np.ndarray, faces: np.ndarray, affine: np.ndarray) -> float:
    """Volume of a mesh in voxel indices, mm3."""
    a, b, c = (vertices[faces[:, k]] - vertices.mean(axis=0) for k in range(3))
    return abs(float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6 * np.linalg.det(affine[:3, :3])))


def measured(radius: float, spacing: tuple[float, float, float], rng: np.random.Generator) -> list[float]:
    """One tube: ratios of volumes, and of the mean radius away from the ends to the true one; MAE of the distance."""
    from vesselsdf.distance import signed_distance, tube_distance
    from vesselsdf.graph import centreline_graph
    from vesselsdf.mesh import surface

    affine = turned(spacing, rng) if len(set(spacing)) > 1 else np.diag([*spacing, 1.0])
    graph, shape, volume = tube(radius, spacing, affine, rng)
    voxel = float(np.prod(spacing) ** (1 / 3))
    exact = tube_distance(graph, shape, affine, band=8 * voxel)
    made = signed_distance(exact <= 0, spacing)
    near = np.abs(exact) < 3 * voxel
    row = [enclosed(*read_trimesh(surface(field, affine)), np.eye(4)) / volume for field in (exact, made)]
    row += [
        enclosed(*found, affine) / volume for found in (skimage_surface(exact), skimage_surface_of_mask(exact <= 0))
    ]
    row.append(enclosed(*read_polydata(vtk_surface(exact)), affine) / volume if installed("vtk") else np.nan)
    row.append(float(np.abs(made - exact)[near].mean() / voxel))
    ends = np.array([graph.nodes[k]["pos"] for k in range(2)])
    for field in (exact, made):
        errors = [np.nan]
        for _, _, edge in centreline_graph(field, affine).edges(data=True):
            away = np.linalg.norm(edge["points"][:, None] - ends, axis=2).min(axis=1)
            errors += (edge["radii"][away > (2 * radius + 1) * voxel] / (radius * voxel) - 1).tolist()
        row += [float(np.nanmean(np.abs(errors))), float(np.nanmean(errors))]
    return row


def tubes() -> str:
    """The table; means over a few tubes of each radius."""
    rows = []
    for spacing in ((1.0, 1.0, 1.0), (0.7, 0.7, 1.4)):
        for radius in RADII:
            rng = np.random.default_rng([round(100 * radius), round(10 * spacing[2])])
            found = np.mean([measured(radius, spacing, rng) for _ in range(COUNT)], axis=0)
            shown = [f"{value:.4f}" for value in found[:5]] + [f"{found[5]:.3f}"]
            shown += [f"{value:+.2%}" if k % 2 else f"{value:.2%}" for k, value in enumerate(found[6:])]
            rows.append(["x".join(f"{step:g}" for step in spacing), radius, *shown])
    header = [
        *("tubes: spacing", "radius", "volume: ours", "ours of mask", "scikit-image", "of mask", "VTK"),
        *("distance MAE", "|radius|", "bias", "of mask: |radius|", "bias"),
    ]
    return columns(header, rows) + "\ngoal: volume 0.975 at radius 1.3; radius 1% from the field, 6% from the mask"
