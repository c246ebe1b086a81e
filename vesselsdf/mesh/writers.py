"""Triangle meshes as files, for viewers, printers and simulation. Vertices are in RAS mm."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path

# glTF 2.0, section 3.4: metres, right-handed, +Y up, the front of an asset faces +Z (so its right-hand side is -X).
# A patient's right, front and head (R, A, S in mm) therefore become -X, +Z and +Y.
RAS_MM_TO_GLTF = np.array([[-1e-3, 0, 0, 0], [0, 0, 1e-3, 0], [0, 1e-3, 0, 0], [0, 0, 0, 1]])

WRITERS = (".ply", ".stl", ".obj", ".glb")


def write_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write `mesh` to `path`, atomically: .ply and .stl (binary, mm), .obj (mm) or .glb.

    glTF asks for metres and y up: a .glb keeps the vertices in RAS mm and carries the turn and the scale as the
    transform of its only node, so viewers show it upright and at its true size.

    Raises InputError for any other suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise InputError(f"Cannot write a mesh to {path}: the suffix must be one of {', '.join(WRITERS)}.")
    with atomic_path(path) as temporary:
        if suffix == ".glb":
            scene = trimesh.Scene()
            scene.add_geometry(mesh, geom_name="vessels", node_name="RAS_mm", transform=RAS_MM_TO_GLTF)
            content: Any = scene.export(file_type="glb")
        else:
            content = mesh.export(file_type=suffix[1:])
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
