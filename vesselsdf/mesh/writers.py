"""Triangle meshes as files, for viewers, printers and simulation. Vertices are in RAS mm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.vtk_xml import write_polydata

# glTF 2.0, section 3.4: metres, right-handed, +Y up, the front of an asset faces +Z (so its right-hand side is -X).
# A patient's right, front and head (R, A, S in mm) therefore become -X, +Z and +Y.
RAS_MM_TO_GLTF = np.array([[-1e-3, 0, 0, 0], [0, 0, 1e-3, 0], [0, 1e-3, 0, 0], [0, 0, 0, 1]])

SPACE = b"SPACE=RAS"
"""What 3D Slicer looks for in a header; it takes meshes without it for LPS."""

WRITERS = (".ply", ".stl", ".obj", ".glb", ".vtp")


def write_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write `mesh` to `path`, atomically: .ply and .stl (binary, mm), .obj (mm), .glb or .vtp (mm).

    What the mesh carries goes with it as far as a format can hold it: vertex colours in .ply, .obj and .glb;
    `mesh.vertex_attributes` in .ply, .glb (in capitals behind an underscore, as glTF asks) and .vtp, as point data;
    `mesh.face_attributes` in .ply and .vtp, as cell data. A .vtp keeps coordinates in double precision.

    glTF asks for metres and y up: a .glb keeps the vertices in RAS mm and carries the turn and the scale as the
    transform of its only node, so viewers show it upright and at its true size.

    Raises InputError for any other suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise InputError(f"Cannot write a mesh to {path}: the suffix must be one of {', '.join(WRITERS)}.")
    if suffix == ".vtp":
        write_vtp(mesh, path)
        return
    with atomic_path(path) as temporary:
        if suffix == ".glb":
            content: Any = gltf_scene(mesh).export(file_type="glb")
        elif suffix == ".ply":
            content = with_attributes(mesh, ply_values).export(file_type="ply")
        else:
            content = mesh.export(file_type=suffix[1:])
        temporary.write_bytes(in_space(content.encode() if isinstance(content, str) else content, suffix))


def in_space(content: bytes, suffix: str) -> bytes:
    """The file with a note in its header that coordinates are RAS; a .glb says so by its scene's transform."""
    if suffix == ".stl":
        return SPACE.ljust(80, b"\0") + content[80:]
    if suffix == ".obj":
        return b"# " + SPACE + b"\n" + content
    if suffix == ".ply":
        return content.replace(b"\nelement ", b"\ncomment " + SPACE + b"\nelement ", 1)
    return content


def write_vtp(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write `mesh` as VTK XML PolyData, RAS mm. Attributes become point and cell data, colours the array `RGBA`."""
    faces = np.asarray(mesh.faces, dtype=np.int64)
    point_data = {name: np.asarray(values) for name, values in mesh.vertex_attributes.items()}
    if isinstance(mesh.visual, trimesh.visual.ColorVisuals) and mesh.visual.kind == "vertex":
        point_data["RGBA"] = np.asarray(mesh.visual.vertex_colors)
    write_polydata(
        path,
        np.asarray(mesh.vertices, dtype=np.float64),
        {"Polys": (faces.ravel(), np.full(len(faces), 3))},
        point_data,
        {name: np.asarray(values) for name, values in mesh.face_attributes.items()},
    )


def gltf_scene(mesh: trimesh.Trimesh) -> trimesh.Scene:
    """The mesh as the only node of a scene, its vertex attributes in float32, which glTF can hold."""
    named = with_attributes(mesh, lambda values: np.asarray(values, dtype=np.float32))
    for name in list(named.vertex_attributes):
        named.vertex_attributes["_" + name.lstrip("_").upper()] = named.vertex_attributes.pop(name)
    scene = trimesh.Scene()
    scene.add_geometry(named, geom_name="vessels", node_name="RAS_mm", transform=RAS_MM_TO_GLTF)
    return scene


def with_attributes(mesh: trimesh.Trimesh, convert: Callable[[np.ndarray], np.ndarray]) -> trimesh.Trimesh:
    """The same mesh with its attributes converted."""
    result = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if mesh.visual is not None and mesh.visual.defined:
        result.visual = mesh.visual.copy()
    for own, others in (
        (mesh.vertex_attributes, result.vertex_attributes),
        (mesh.face_attributes, result.face_attributes),
    ):
        others.update({name: convert(np.asarray(values)) for name, values in own.items()})
    return result


def ply_values(values: np.ndarray) -> np.ndarray:
    """Values in a type of PLY, which has no booleans and no integers of 8 bytes."""
    values = np.asarray(values)
    kinds = {"b": np.uint8, "i": np.int32, "u": np.uint32} if values.dtype.itemsize in (1, 8) else {}
    return values.astype(kinds.get(values.dtype.kind, values.dtype))
