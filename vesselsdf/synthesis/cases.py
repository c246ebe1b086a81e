"""Synthetic cases: an image with its exact label, distance field and graph, drawn from one seed."""

from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Float

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError, RunError
from vesselsdf.synthesis.lesions import with_lesions
from vesselsdf.synthesis.scanner import scan, thick_affine
from vesselsdf.synthesis.trees import grow_tree
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume, write_volume

DISEASED = 0.35
"""Share of the cases that get stenoses and aneurysms."""

CROWD = 6
"""Most trees of usual size in a close-up."""

LARGEST = 2.2
"""Trees with thick ends may have stems so many times as thick, even if that is more than usual for the box."""


@dataclass(frozen=True)
class SyntheticCase:
    """`image` (float32; coarser along z if its slices are thick), `label` (uint8), `sdf` (float32 mm) and `graph`.

    A saccular aneurysm belongs to label and field; the graph, which has centrelines only, does not know of it.
    """

    image: Volume
    label: Volume
    sdf: Volume
    graph: nx.MultiGraph
    modality: str
    seed: int


def synthetic_case(
    seed: int,
    shape: tuple[int, int, int] = (128, 128, 128),
    spacing: tuple[float, float, float] = (0.6, 0.6, 0.6),
    modality: str = "ct",
    loops: int | None = None,
    branches: int | None = None,
    band: float | None = None,
    slices: int = 1,
    oblique: bool = True,
    terminal_radius: tuple[float, float] | None = None,
    trees: int = 1,
) -> SyntheticCase:
    """A synthetic scan with everything known about it; the same arguments give the same case.

    Args:
        seed: decides the tree, the scan and the orientation.
        shape: voxels of label and field.
        spacing: their edge lengths, mm.
        modality: "ct", "mr", "microscopy" or "in_vivo", as of `scan`.
        loops: anastomoses; None draws 0 to 3.
        branches: edges of the graph to aim for; None draws sparse to crowded trees.
        band: mm beyond which the field is clipped; None: exact everywhere.
        slices: voxel layers per slice of the image.
        oblique: rotate and flip the grid at random, as scanners do, instead of a diagonal affine.
        terminal_radius: range of the radius of the ends in voxels; None draws thin, mixed or thick trees.
        trees: separate trees in the box.

    Raises:
        InputError, RunError: as `grow_tree` and `scan`.
    """
    generator = np.random.default_rng([seed, 1])
    fewest = 0 if loops is None else loops
    if loops is None:
        loops = int(generator.integers(0, min(4, min(shape) // 24)))
    thin = min(float(generator.choice([0.9, 1.0, 1.0, 1.0, 1.3, 1.7, 2.5, 3.5, 5.0])), max(1.0, min(shape) / 19))
    if terminal_radius is None:
        terminal_radius = (thin, max(thin, min(thin * generator.uniform(1.1, 1.6), min(shape) / 16)))
    if branches is None:
        usual = 46 * (float(np.prod(shape) ** (1 / 3)) / 128) ** 1.9
        crowding = np.exp(generator.uniform(np.log(0.8), np.log(3.5))) / max(terminal_radius[0], 1.0) ** 2
        branches = max(int(usual * crowding), 6 + 3 * loops)
    stem = LARGEST * terminal_radius[1]
    settings = {
        "murray": generator.uniform(2.5, 3.2),
        "terminal_radius": terminal_radius,
        "tortuosity": generator.uniform(0.015, 0.05),
        "trees": trees,
        "largest": stem if stem > min(shape) / 11 else None,
    }
    graph = _grow_with_loops(seed, shape, spacing, range(loops, fewest - 1, -1), branches, settings)
    affine = grid_affine(shape, spacing, generator if oblique else None)
    graph = transformed(graph, affine @ np.diag([*(1 / np.asarray(spacing)), 1.0]))
    graph, field = _diseased(graph, shape, affine, band, np.random.default_rng([seed, 3]))
    image = scan(field, spacing, modality, generator, slices)
    label = (field <= 0).astype(np.uint8)
    return SyntheticCase(
        Volume(image, thick_affine(affine, slices)), Volume(label, affine), Volume(field, affine), graph, modality, seed
    )


def empty_case(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, float, float], modality: str, slices: int = 1
) -> tuple[Volume, Volume]:
    """A scan without any vessel, and its field: everything lies far outside."""
    generator = np.random.default_rng([seed, 1])
    affine = grid_affine(shape, spacing, generator)
    field = np.full(shape, np.float32(max(shape) * max(spacing)))
    image = scan(field, spacing, modality, generator, slices)
    return Volume(image, thick_affine(affine, slices)), Volume(field, affine)


def close_up(
    seed: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    modality: str,
    magnification: float,
    slices: int = 1,
) -> tuple[Volume, Volume]:
    """A scan of so fine voxels that thick vessels fill much of the box, and its field, exact outside and on the wall.

    A tree `magnification` times as large as the box holds, seen around a place on one of its branches, a thick one more
    likely; the box cuts off the rest. Up to `CROWD` trees of usual size run across it and each other besides, as around
    the vessels on the surface of the brain: vessels fill 0.3 to 40% of the box.
    """
    generator = np.random.default_rng([seed, 4])
    graph = grow_tree(seed, shape, spacing, branches=50, murray=generator.uniform(2.2, 3.0), terminal_radius=(1.0, 1.3))
    edges = [edge for *_, edge in graph.edges(data=True)]
    share = np.array([edge["radii"].mean() ** 3 for edge in edges])
    points = edges[generator.choice(len(edges), p=share / share.sum())]["points"]
    place = magnification * points[generator.integers(len(points))]
    affine = grid_affine(shape, spacing, generator)
    turn = affine @ np.diag([*(1 / np.asarray(spacing)), 1.0])
    around = turn.copy()
    around[:3, 3] = -turn[:3, :3] @ place
    field = tube_distance(transformed(_enlarged(graph, magnification), around), shape, affine)
    for _ in range(int(generator.integers(CROWD + 1))):
        radius = float(np.exp(generator.uniform(0, np.log(max(min(shape) / 24, 1.5)))))
        count = max(8, int(60 / radius**1.5))
        other = grow_tree(
            int(generator.integers(2**31)), shape, spacing, branches=count, terminal_radius=(radius, 1.3 * radius)
        )
        field = np.minimum(field, tube_distance(transformed(other, turn), shape, affine))
    image = scan(field, spacing, modality, generator, slices)
    return Volume(image, thick_affine(affine, slices)), Volume(field, affine)


def _enlarged(graph: nx.MultiGraph, factor: float) -> nx.MultiGraph:
    """A copy so many times as large in every direction."""
    larger = graph.copy()
    for _, node in larger.nodes(data=True):
        node["pos"], node["radius"] = factor * node["pos"], factor * node["radius"]
    for *_, edge in larger.edges(data=True):
        for key in ("points", "radii", "length"):
            edge[key] = factor * edge[key]
    return larger


def _diseased(
    graph: nx.MultiGraph, shape: tuple[int, int, int], affine: np.ndarray, band: float | None, generator
) -> tuple[nx.MultiGraph, np.ndarray]:
    """The tree and its distance field, in part of the cases with lesions, where these leave the topology as it is."""
    field = tube_distance(graph, shape, affine, band)
    if generator.random() >= DISEASED:
        return graph, field
    voxel = float(np.linalg.norm(affine[:3, :3]) / np.sqrt(3))
    ill = with_lesions(graph, int(generator.integers(1, 5)), voxel, generator)
    changed = tube_distance(ill, shape, affine, band)
    if betti_numbers(changed <= 0) != betti_numbers(field <= 0):
        return graph, field
    ill.remove_nodes_from(list(nx.isolates(ill)))  # the sacs have no centreline
    return ill, changed


def _grow_with_loops(seed: int, shape, spacing, loops: range, branches: int, settings: dict) -> nx.MultiGraph:
    """The tree with the most of the allowed numbers of loops; small boxes and thick vessels leave no room for many."""
    for count in loops:
        try:
            return grow_tree(seed, shape, spacing, count, branches, **settings)
        except RunError:
            if count == loops[-1]:
                raise
    raise InputError("loops is negative; give 0 or more.")


def grid_affine(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], generator: np.random.Generator | None
) -> Float[np.ndarray, "4 4"]:
    """Affine with the grid's centre at the origin; a generator tilts it by some degrees, flips and permutes axes."""
    axes = np.eye(3)
    if generator is not None:
        angles = np.deg2rad(generator.uniform(-15, 15, 3))
        for a, angle in enumerate(angles):
            turn = np.eye(3)
            b, c = (a + 1) % 3, (a + 2) % 3
            turn[[b, b, c, c], [b, c, b, c]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            axes = axes @ turn
        axes = axes[:, generator.permutation(3)] * generator.choice([-1.0, 1.0], 3)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.asarray(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return affine


def transformed(graph: nx.MultiGraph, matrix: Float[np.ndarray, "4 4"]) -> nx.MultiGraph:
    """A copy of a tube graph with all positions mapped by a rigid motion (rotation, reflection, shift); radii stay."""
    moved = graph.copy()
    for _, node in moved.nodes(data=True):
        node["pos"] = matrix[:3, :3] @ node["pos"] + matrix[:3, 3]
    for *_, edge in moved.edges(data=True):
        edge["points"] = edge["points"] @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def write_case(case: SyntheticCase, folder: str | Path, name: str) -> list[Path]:
    """Write `images/NAME.nii.gz`, `labels/NAME.nii.gz` and `sdf/NAME.nii.gz`; returns the paths (no graph)."""
    written = []
    for kind, volume in (("images", case.image), ("labels", case.label), ("sdf", case.sdf)):
        path = Path(folder) / kind / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(volume, path)
        written.append(path)
    return written
