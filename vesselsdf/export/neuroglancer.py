"""A result for Neuroglancer, as its precomputed format: mask at several resolutions, wall, centreline with radii.

Why this and not OME-Zarr: `vessels.zarr` of a blockwise result is OME-Zarr already, which napari and Neuroglancer open;
only the precomputed format holds mesh and skeleton beside the volume, in files that a plain web server hands out.
Whatever the size of the result, no more than a box of the mask and a part of mesh and graph are in memory.

The format knows no directions, so all lies in the frame of the mask's grid, in nanometres: the voxel (i, j, k) fills
the box from (i, j, k) to (i + 1, j + 1, k + 1) times `resolution`. The way to RAS mm is kept in the file `info`.
"""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Float, Float32, UInt8

from vesselsdf.errors import InputError
from vesselsdf.export.result import GRAPH, MASK, file_of, read_mask
from vesselsdf.files import atomic_folder, require_own, write_json
from vesselsdf.graph_files import read_json
from vesselsdf.rooted import first_node
from vesselsdf.zarr_volume import open_volume

SEGMENT = 1
"""The number of the vessels; 0 is the background."""
CHUNK = 64
"""Voxels along the edge of a file of the mask."""
BOX = 4 * CHUNK
"""Voxels along the edge of what is read of the mask at a time."""
NM = 1e6
"""Nanometres in a mm."""
MESH_PARTS, MESH, GRAPH_PARTS = "mesh", "mesh.ply", "centreline"
"""Where results keep mesh and graph; those of large ones are in parts."""

Read = Callable[[tuple[slice, ...]], np.ndarray]
Shape = tuple[int, int, int]


def write_neuroglancer(result: str | Path, folder: str | Path) -> dict[str, int]:
    """Write a result to a folder for Neuroglancer; returns how many `levels`, files of `mesh`, `vertices` it has.

    The mask is segment 1. At coarser levels a voxel is vessel if any of its eight children is, so that thin vessels
    stay in sight; files without vessel are left out, which readers take for background. Raises `InputError` for a
    result that is none, and for a folder that holds something else.
    """
    require_own(folder, "info")
    read, shape, affine = _mask(result)
    resolution = np.linalg.norm(affine[:3, :3], axis=0) * NM
    # From RAS mm to nm in the frame of the grid, whose origin is the corner of the first voxel.
    to_frame = np.diag([*resolution, 1.0]) @ _shifted(0.5) @ np.linalg.inv(affine)
    with atomic_folder(folder) as temporary:
        shapes = _volume(temporary, read, shape)
        fragments = _mesh(temporary / "mesh", Path(result), to_frame)
        vertices = _skeleton(temporary / "skeleton", Path(result), to_frame)
        scales = [
            {
                "key": str(level), "size": list(size), "resolution": (resolution * 2**level).tolist(),
                "voxel_offset": [0, 0, 0], "chunk_sizes": [[CHUNK] * 3], "encoding": "raw",
            }
            for level, size in enumerate(shapes)
        ]  # fmt: skip
        info = {
            "@type": "neuroglancer_multiscale_volume", "type": "segmentation", "data_type": "uint8",
            "num_channels": 1, "scales": scales, "mesh": "mesh", "skeletons": "skeleton",
            "segment_properties": "names", "vesselsdf": {"ras_mm_of_nm": np.linalg.inv(to_frame).tolist()},
        }  # fmt: skip
        names = {"ids": [str(SEGMENT)], "properties": [{"id": "label", "type": "label", "values": ["vessels"]}]}
        write_json(temporary / "names" / "info", {"@type": "neuroglancer_segment_properties", "inline": names})
        write_json(temporary / "info", info)
    return {"levels": len(shapes), "mesh": fragments, "vertices": vertices}


def _shifted(by: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def _mask(result: str | Path) -> tuple[Read, Shape, np.ndarray]:
    """What reads a box of the mask, its shape and its affine."""
    path = file_of(result, MASK)
    if path.suffix == ".zarr":
        volume = open_volume(path)
        return volume.read, volume.shape, volume.affine
    whole = read_mask(result)
    return lambda box: whole.array[box], whole.shape, whole.affine


def _volume(folder: Path, read: Read, shape: Shape) -> list[Shape]:
    """Write the mask at all levels; returns their shapes."""
    for box in _boxes(shape, BOX):
        part = (read(box) > 0).astype(np.uint8)
        for inner in _boxes((part.shape[0], part.shape[1], part.shape[2]), CHUNK):
            low = [a.start + b.start for a, b in zip(box, inner, strict=True)]
            _write_chunk(folder / "0", low, part[inner])
    shapes = [shape]
    while max(shapes[-1]) > CHUNK:
        before, level = shapes[-1], len(shapes)
        x, y, z = (-(-n // 2) for n in before)
        for box in _boxes((x, y, z), CHUNK):
            finer = np.zeros([2 * (one.stop - one.start) for one in box], np.uint8)
            children = [slice(2 * one.start, min(2 * one.stop, n)) for one, n in zip(box, before, strict=True)]
            for inner in _boxes(_lengths(children), CHUNK):
                where = [slice(a.start + b.start, a.start + b.stop) for a, b in zip(children, inner, strict=True)]
                if (file := folder / str(level - 1) / _name(where)).is_file():
                    finer[inner] = np.fromfile(file, np.uint8).reshape(_lengths(where), order="F")
            _write_chunk(folder / str(level), [one.start for one in box], _halved(finer))
        shapes.append((x, y, z))
    return shapes


def _boxes(shape: Shape, edge: int) -> Iterator[tuple[slice, ...]]:
    """Boxes that tile a volume."""
    for low in itertools.product(*(range(0, n, edge) for n in shape)):
        yield tuple(slice(a, min(a + edge, n)) for a, n in zip(low, shape, strict=True))


def _lengths(box: list[slice]) -> Shape:
    x, y, z = (one.stop - one.start for one in box)
    return x, y, z


def _halved(fine: UInt8[np.ndarray, "_ _ _"]) -> UInt8[np.ndarray, "_ _ _"]:
    """The largest of each 2 x 2 x 2 voxels."""
    x, y, z = (n // 2 for n in fine.shape)
    return fine.reshape(x, 2, y, 2, z, 2).max(axis=(1, 3, 5))


def _name(box: list[slice]) -> str:
    return "_".join(f"{one.start}-{one.stop}" for one in box)


def _write_chunk(folder: Path, low: list[int], values: UInt8[np.ndarray, "_ _ _"]) -> None:
    """Write the voxels from `low` on, x fastest, unless all are background."""
    folder.mkdir(exist_ok=True)
    if values.any():
        box = [slice(a, a + n) for a, n in zip(low, values.shape, strict=True)]
        (folder / _name(box)).write_bytes(values.tobytes(order="F"))


def _mesh(folder: Path, result: Path, to_frame: Float[np.ndarray, "4 4"]) -> int:
    """Write the wall, a file for each part; returns their number."""
    import trimesh

    folder.mkdir()
    parts = sorted((result / MESH_PARTS).glob("*.ply")) or [file_of(result, (MESH,))]
    mirrored = np.linalg.det(to_frame) < 0
    for number, path in enumerate(parts):
        wall = trimesh.load_mesh(path, process=False)
        faces = np.asarray(wall.faces)[:, ::-1] if mirrored else np.asarray(wall.faces)
        with open(folder / f"{SEGMENT}.{number}", "wb") as file:
            file.write(np.uint32(len(wall.vertices)).astype("<u4").tobytes())
            file.write(_placed(np.asarray(wall.vertices, dtype=np.float64), to_frame).astype("<f4").tobytes())
            file.write(np.ascontiguousarray(faces).astype("<u4").tobytes())
    write_json(folder / "info", {"@type": "neuroglancer_legacy_mesh"})
    (folder / f"{SEGMENT}:0").write_text(json.dumps({"fragments": [f"{SEGMENT}.{n}" for n in range(len(parts))]}))
    return len(parts)


def _placed(places: Float[np.ndarray, "n 3"], to_frame: Float[np.ndarray, "4 4"]) -> Float32[np.ndarray, "n 3"]:
    return (places @ to_frame[:3, :3].T + to_frame[:3, 3]).astype(np.float32)


def _skeleton(folder: Path, result: Path, to_frame: Float[np.ndarray, "4 4"]) -> int:
    """Write the centreline, part after part; returns its number of vertices."""
    if (result / GRAPH[0]).is_file():
        paths = [result / GRAPH[0]]
    else:
        paths = sorted((result / GRAPH_PARTS).glob("*.json"))
    if not paths:
        raise InputError(f"{result} has no {GRAPH[0]} and nothing in {GRAPH_PARTS}/: reconstruct it to the end first.")
    folder.mkdir()
    counts = np.zeros(2, np.int64)
    names = [folder / f"part-{name}" for name in ("places", "edges", "radii")]
    with ExitStack() as stack:
        files = [stack.enter_context(open(name, "wb")) for name in names]
        for path in paths:
            places, edges, radii = lines_of(read_json(path))
            files[0].write(_placed(places, to_frame).astype("<f4").tobytes())
            files[1].write((edges + counts[0]).astype("<u4").tobytes())
            files[2].write((radii * NM).astype("<f4").tobytes())
            counts += len(places), len(edges)
    with open(folder / str(SEGMENT), "wb") as whole:
        whole.write(counts.astype("<u4").tobytes())
        for name in names:
            with open(name, "rb") as part:
                shutil.copyfileobj(part, whole)
            name.unlink()
    attribute = {"id": "radius", "data_type": "float32", "num_components": 1}
    identity = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    info = {"@type": "neuroglancer_skeletons", "transform": identity, "vertex_attributes": [attribute]}
    write_json(folder / "info", info)
    return int(counts[0])


def lines_of(graph: nx.MultiGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (n, 3) in RAS mm, edges (m, 2) among them and radii (n,) mm: nodes first, then the points between them."""
    number = {node: k for k, node in enumerate(graph)}
    places = [np.array([data["pos"] for _, data in graph.nodes(data=True)], dtype=np.float64).reshape(-1, 3)]
    radii = [np.array([data["radius"] for _, data in graph.nodes(data=True)], dtype=np.float64)]
    edges, count = [np.zeros((0, 2), np.int64)], len(number)
    for u, v, edge in graph.edges(data=True):
        start = first_node(graph, u, v, edge)
        inner = np.arange(count, count + len(edge["points"]) - 2)
        way = np.array([number[start], *inner, number[v if start == u else u]])
        edges.append(np.stack([way[:-1], way[1:]], axis=1))
        places.append(edge["points"][1:-1])
        radii.append(edge["radii"][1:-1])
        count += len(inner)
    return np.concatenate(places), np.concatenate(edges), np.concatenate(radii)
