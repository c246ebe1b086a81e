"""The vessel wall as a closed triangle mesh in RAS mm, made from a signed distance field."""

import numpy as np
import trimesh
from jaxtyping import Float, Num

from vesselsdf.errors import InputError
from vesselsdf.marching import march
from vesselsdf.mesh.placement import place
from vesselsdf.mesh.refinement import refine

PASSES = 2
"""How often edges are split at most: into four."""


def surface(sdf: Num[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], refined: bool = True) -> trimesh.Trimesh:
    """Closed, outward surface of the vessel `sdf <= 0` in RAS mm.

    Watertight, 2-manifold, free of degenerate and of crossing faces for any finite field, with Euler number twice that
    of the 26-connected foreground and one component per boundary component of it (beta0 + beta2): `vesselsdf.marching`
    has the proof of the topology. Vertices lie on the zero set of an interpolation that is exact on round vessels
    (`placement`). A vessel that leaves the grid is closed flat on the outer face of the border voxels. Faces point
    outwards for left-handed affines too.

    sdf: (X, Y, Z), mm, at or below zero inside. affine: voxel index to RAS mm.
    refined: split the edges of thin vessels (`refinement`), most of them into four. Of a straight tube of radius 1.3
        voxels 0.98 of the volume is kept instead of 0.89 (with 4.5 times as many faces), at radius 3 it is 0.99
        instead of 0.976 (1.9 times).

    Raises InputError if the field holds NaN or infinity, or does not change sign (no vessel, or nothing but vessel).

    >>> sdf = np.linalg.norm(np.indices((9, 9, 9)) - 4.0, axis=0) - 3
    >>> ball = surface(sdf, np.eye(4))
    >>> ball.is_watertight, ball.euler_number, round(float(ball.volume), 1)  # the true ball has 113.1
    (True, 2, 110.9)
    """
    check_field(sdf)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    marched = march(sdf)
    vertices, kappa = place(sdf, marched)
    faces, cells = marched.faces, marched.cells
    settled = 0
    for _ in range(PASSES if refined else 0):
        before = len(vertices)
        vertices, kappa, faces, cells = refine(sdf, vertices, kappa, faces, cells, spacing, settled)
        settled = before
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
