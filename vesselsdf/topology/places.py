"""Places in mm of voxels, and the checks that all fields share."""

import numpy as np
from jaxtyping import Float, Shaped

from vesselsdf.errors import InputError

Place = tuple[float, float, float]


def checked_affine(affine: np.ndarray | None) -> Float[np.ndarray, "4 4"]:
    """The affine as float64, the identity for None; InputError where it cannot be inverted."""
    if affine is None:
        return np.eye(4)
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise InputError("The affine has NaN or is singular; give the 4x4 matrix from voxel indices to mm.")
    return affine


def world(affine: Float[np.ndarray, "4 4"], index: Shaped[np.ndarray, " 3"]) -> Place:
    """The place of a voxel's centre."""
    x, y, z = affine[:3, :3] @ index + affine[:3, 3]
    return float(x), float(y), float(z)


def check_field(sdf: Shaped[np.ndarray, "..."], name: str = "sdf") -> np.ndarray:
    """The field itself, if it is 3D, has voxels, and all of them are finite numbers; else InputError."""
    if sdf.ndim != 3 or sdf.size == 0:
        raise InputError(f"{name} has shape {sdf.shape}; give a 3D field (x, y, z) with voxels in it.")
    if sdf.dtype.kind not in "fiu":
        raise InputError(f"{name} has dtype {sdf.dtype}; give a distance in mm, negative inside the vessel.")
    if sdf.dtype.kind == "f" and not all(np.isfinite(plane).all() for plane in sdf):
        raise InputError(f"{name} has NaN or infinite values; replace them by a finite distance.")
    return sdf
