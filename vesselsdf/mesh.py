"""Triangle meshes of the vessel wall: made from a field, checked, written. Vertices are in RAS mm throughout."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Num
from scipy import sparse

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.marching import marching_cubes

# glTF 2.0, section 3.4: metres, right-handed, +Y up, the front of an asset faces +Z (so its right-hand side is -X).
# A patient's right, front and head (R, A, S in mm) therefore become -X, +Z and +Y.
RAS_MM_TO_GLTF = np.array([[-1e-3, 0, 0, 0], [0, 0, 1e-3, 0], [0, 1e-3, 0, 0], [0, 0, 0, 1]])

WRITERS = (".ply", ".stl", ".obj", ".glb")


def surface(sdf: Num[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> trimesh.Trimesh:
    """Closed, outward surface of the vessel `sdf <= 0` in RAS mm.

    Watertight, 2-manifold, with Euler number twice that of the 26-connected foreground and one component per boundary
    component of it (beta0 + beta2); see `vesselsdf.marching` for the proof. A vessel that leaves the grid is closed
    flat on the outer face of the border voxels. Faces point outwards for left-handed affines too.

    Raises InputError if the field holds NaN or infinity, or does not change sign (no vessel, or nothing but vessel).

    >>> sdf = np.linalg.norm(np.indices((9, 9, 9)) - 4.0, axis=0) - 3
    >>> ball = surface(sdf, np.eye(4))
    >>> ball.is_watertight, ball.euler_number, round(float(ball.volume), 1)  # the true ball has 113.1
    (True, 2, 105.3)
    """
    check_field(sdf)
    vertices, faces = marching_cubes(sdf)
    if np.linalg.det(affine[:3, :3]) < 0:
        faces = faces[:, ::-1]
    return trimesh.Trimesh(vertices @ affine[:3, :3].T + affine[:3, 3], np.ascontiguousarray(faces), process=False)


def check_field(sdf: Num[np.ndarray, "x y z"]) -> None:
    """Raise InputError unless the field is finite and holds both vessel and background."""
    lowest, highest = (sdf.min(), sdf.max()) if sdf.size else (np.nan, np.nan)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise InputError(
            f"The signed distance field of shape {sdf.shape} holds NaN or infinite values (or no voxel at all), "
            "so it has no surface: replace them before meshing."
        )
    if lowest > 0:
        raise InputError(
            f"The signed distance field has no vessel (smallest value {lowest:.4g} mm, vessel is at or below 0): "
            "there is nothing to mesh; check the segmentation or the threshold."
        )
    if highest <= 0:
        raise InputError(
            f"The signed distance field has no background (largest value {highest:.4g} mm, vessel is at or below 0): "
            "there is no wall to mesh; check its sign."
        )


def check(mesh: trimesh.Trimesh) -> dict[str, Any]:
    """What can be said of a mesh, by counting.

    Keys: `vertices`, `faces`; `watertight` (every edge has exactly two faces); `winding_consistent` (and they run along
    it in opposite directions); `manifold_vertices` (the faces around every vertex form one fan); `outward` (positive
    volume); `euler_number`; `components`; `volume` in mm3; `area` in mm2; `degenerate_faces` (a repeated vertex, or a
    height below 1e-6 of the longest side). Vertices that no face uses are not counted.
    """
    faces, n = np.asarray(mesh.faces, dtype=np.int64), len(mesh.vertices)
    start, end = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    directed = np.sort(start * n + end)
    reverse = np.sort(end * n + start)
    _, per_edge = np.unique(np.minimum(start, end) * n + np.maximum(start, end), return_counts=True)
    used = np.unique(faces)
    _, component = sparse.csgraph.connected_components(
        sparse.coo_matrix((np.ones(len(start), dtype=bool), (start, end)), shape=(n, n)), directed=False
    )
    sides = mesh.vertices[faces] - mesh.vertices[np.roll(faces, -1, axis=1)]
    longest = np.linalg.norm(sides, axis=2).max(axis=1, initial=0.0)
    doubled_area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    volume = float(np.einsum("fi,fi->", mesh.vertices[faces[:, 0]], face_normals(mesh)) / 6)
    return {
        "vertices": len(used),
        "faces": len(faces),
        "watertight": bool(len(faces) and np.all(per_edge == 2)),
        "winding_consistent": bool(np.array_equal(directed, reverse) and np.all(np.diff(directed) > 0)),
        "manifold_vertices": count_fans(faces) == len(used),
        "outward": volume > 0,
        "euler_number": len(used) - len(per_edge) + len(faces),
        "components": len(np.unique(component[used])),
        "volume": volume,
        "area": float(doubled_area.sum() / 2),
        "degenerate_faces": int(np.sum(doubled_area <= 1e-6 * longest**2)),
    }


def face_normals(mesh: trimesh.Trimesh) -> Float[np.ndarray, "f 3"]:
    """Outward normal of each face, with twice its area as length, mm2."""
    a, b, c = (np.asarray(mesh.vertices)[mesh.faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def count_fans(faces: np.ndarray) -> int:
    """Number of fans: classes of face corners at one vertex, joined where the faces share an edge at that vertex.

    A closed mesh is manifold at its vertices if and only if there are as many fans as used vertices.
    """
    if not len(faces):
        return 0
    m = len(faces)
    corner = np.arange(3 * m).reshape(m, 3)
    n = int(faces.max()) + 1
    # Each side of a face seen from each of its two ends: (vertex, other end, corner of the face at that vertex).
    following, previous = np.roll(faces, -1, axis=1), np.roll(faces, 1, axis=1)
    key = np.concatenate([(faces * n + following).ravel(), (faces * n + previous).ravel()])
    who = np.concatenate([corner.ravel(), corner.ravel()])
    order = np.argsort(key, kind="stable")
    same = key[order][1:] == key[order][:-1]
    pairs = who[order][:-1][same], who[order][1:][same]
    joined = sparse.coo_matrix((np.ones(len(pairs[0]), dtype=bool), pairs), shape=(3 * m, 3 * m))
    return int(sparse.csgraph.connected_components(joined, directed=False)[0])


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
