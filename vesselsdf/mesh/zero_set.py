"""How far points lie from the zero set of a sampled field: what bounds every change to a mesh of the wall.

The field is interpolated by cubic convolution (Keys 1981): exact for quadratic fields, so the wall of a thin vessel is
not drawn inwards as by linear interpolation. A mesh closes a vessel that leaves the grid with a flat lid on the outer
face of the border voxels; there the vessel is the intersection of the field's and the grid's box.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num

from vesselsdf.errors import InputError
from vesselsdf.mesh.field_kernels import values_at

MARGIN = 3
"""Voxels around a mesh that are kept of the field."""


@dataclass(frozen=True)
class ZeroSet:
    """The part of a signed distance field around a mesh, read at points in RAS mm.

    `field`: (a, b, c) float32, mm. `to_index`: (3, 4) from RAS mm to indices in it. `spacing`: (3,) mm. `walls`: (3, 2)
    indices of the outer faces of the whole grid.
    """

    field: np.ndarray
    to_index: np.ndarray
    spacing: np.ndarray
    walls: np.ndarray

    @property
    def voxel(self) -> float:
        """Edge of a cube with the volume of a voxel, mm."""
        return float(np.prod(self.spacing) ** (1 / 3))

    def distance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Signed distance of points to the zero set, mm, negative inside."""
        return values_at(self.field, self.to_index, self.spacing, self.walls, np.ascontiguousarray(points))

    def tolerance(self, wanted: float | None) -> float:
        """The tolerance asked for, or a quarter of a voxel; raises InputError unless it is positive."""
        if wanted is None:
            return self.voxel / 4
        if not (np.isfinite(wanted) and wanted > 0):
            raise InputError(f"The tolerance is {wanted:g} mm; give a positive length in mm.")
        return float(wanted)


def zero_set(
    sdf: Num[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "n 3"]
) -> ZeroSet:
    """The zero set of `sdf` around the vertices of a mesh. Raises InputError if they lie outside, or for NaN."""
    inverse = np.linalg.inv(affine)
    index = points @ inverse[:3, :3].T + inverse[:3, 3]
    low, high = index.min(axis=0, initial=np.inf), index.max(axis=0, initial=-np.inf)
    shape = np.array(sdf.shape)
    if not len(points) or (low < -1).any() or (high > shape).any():
        raise InputError(
            f"The mesh reaches from {np.round(low, 1).tolist()} to {np.round(high, 1).tolist()} in voxels, the field "
            f"only to {(shape - 1).tolist()}: give the field and the affine that the mesh was made from."
        )
    first = np.clip(np.floor(low).astype(int) - MARGIN, 0, None)
    last = np.minimum(np.ceil(high).astype(int) + MARGIN + 1, shape)
    keep = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    field = np.ascontiguousarray(sdf[keep], dtype=np.float32)
    if not np.isfinite(field).all():
        raise InputError("The signed distance field holds NaN or infinite values: replace them.")
    to_index = inverse[:3].copy()
    to_index[:, 3] -= first
    walls = np.stack([-0.5 - first, shape - 0.5 - first], axis=1).astype(np.float64)
    return ZeroSet(field, to_index, np.linalg.norm(affine[:3, :3], axis=0), walls)
