"""What can be said of a triangle mesh by counting: closed, manifold, oriented, its topology, its size."""

from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from scipy import sparse

from vesselsdf.mesh.intersections import degenerate_faces, self_intersections


def check(mesh: trimesh.Trimesh) -> dict[str, Any]:
    """What can be said of a mesh, by counting.

    Keys: `vertices`, `faces`; `watertight` (every edge has exactly two faces); `winding_consistent` (and they run along
    it in opposite directions); `manifold_vertices` (the faces around every vertex form one fan); `outward` (positive
    volume); `euler_number`; `components`; `volume` in mm3; `area` in mm2; `degenerate_faces` (a repeated vertex, or a
    height below 1e-6 of the longest side); `self_intersections` (pairs of faces that meet where they should not; which
    ones, tells `intersections.self_intersections`). Vertices that no face uses are not counted.
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
    normals = face_normals(mesh)
    volume = float(np.einsum("fi,fi->", mesh.vertices[faces[:, 0]], normals) / 6)
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
        "area": float(np.linalg.norm(normals, axis=1).sum() / 2),
        "degenerate_faces": int(degenerate_faces(np.asarray(mesh.vertices), faces).sum()),
        "self_intersections": len(self_intersections(mesh)),
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
