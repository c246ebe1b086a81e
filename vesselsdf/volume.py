"""An image with its place in the world: `Volume`, reading and writing it, bringing it to another grid, refusing it.

Conventions: voxel arrays are in (x, y, z) index order, the affine takes the index of a voxel's centre to RAS+ mm.
File formats live in `formats.py` and `dicom.py`, imported on first use; every refusal is one `InputError` sentence.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vesselsdf.errors import InputError
from vesselsdf.resampling import regrid

log = logging.getLogger(__name__)

# Voxels of micro-CT and light-sheet images begin at a fraction of a micrometre, thick clinical slices end at 10 mm.
SPACING_LIMITS = (1e-4, 100.0)
# Axes whose cosine is below this count as orthogonal: it changes a distance by less than 0.05%.
ORTHOGONAL = 1e-3
SLAB_VOXELS = 1 << 22


@dataclass(frozen=True, eq=False)
class Volume:
    """A voxel array and where it lies.

    array: (X, Y, Z), real numbers or bool. affine: 4x4 float64, (x, y, z) index of a voxel's centre to RAS+ mm.
    Raises `InputError` for an array that is not 3D and real, or an affine that is not finite and invertible.

    >>> volume = Volume(np.zeros((4, 5, 6)), np.diag([0.5, 0.5, 2.0, 1.0]))
    >>> volume.shape, volume.spacing
    ((4, 5, 6), (0.5, 0.5, 2.0))
    >>> volume.to_world(np.array([[2.0, 2.0, 2.0]])).tolist()
    [[1.0, 1.0, 4.0]]
    """

    array: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise InputError(f"a volume needs a 3D array, this one has the shape {self.array.shape}: select one volume")
        if self.array.dtype.kind not in "buif":
            raise InputError(f"a volume needs real voxel values, these are {self.array.dtype}: convert to one channel")
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))
        fault = affine_fault(self.affine)
        if fault:
            raise InputError(f"the affine {fault}: give a 4x4 matrix from voxel indices to mm")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels per axis."""
        x, y, z = self.array.shape
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each axis, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    def to_world(self, indices: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """Voxel indices (n, 3), fractions allowed, to points (n, 3) in RAS mm."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_index(self, points: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """Points (n, 3) in RAS mm to fractional voxel indices (n, 3)."""
        offsets = np.asarray(points, dtype=np.float64) - self.affine[:3, 3]
        return np.linalg.solve(self.affine[:3, :3], offsets.T).T

    def with_array(self, array: np.ndarray) -> "Volume":
        """Another array on the same grid; raises `InputError` if its shape differs."""
        if array.shape != self.array.shape:
            raise InputError(f"an array of shape {array.shape} does not fit a grid of shape {self.array.shape}")
        return Volume(array, self.affine)


def affine_fault(affine: np.ndarray) -> str | None:
    """What makes `affine` unusable, as the end of a sentence, or None."""
    if affine.shape != (4, 4):
        return f"has the shape {affine.shape}"
    if not np.isfinite(affine).all():
        return "has NaN or infinite entries"
    if not np.allclose(affine[3], [0, 0, 0, 1]):
        return f"has the last row {affine[3].tolist()} instead of [0, 0, 0, 1]"
    norms = np.linalg.norm(affine[:3, :3], axis=0)
    if (norms == 0).any():
        return f"is singular: the spacing along axis {'xyz'[int(norms.argmin())]} is zero"
    # The determinant of the normalised columns is the volume of the unit cell: 1 if orthogonal, 0 if degenerate.
    if abs(np.linalg.det(affine[:3, :3] / norms)) < 1e-6:
        return "is singular: its axes do not span space"
    return None


def read_volume(
    path: str | Path, spacing: tuple[float | int, float | int, float | int] | None = None, unit: float = 1.0
) -> Volume:
    """Read a volume and check that it can be trusted.

    path: .nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd, .tif, .tiff, .npy, a folder with one DICOM series, OME-Zarr, a Zarr
        array, or a field that vesselsdf wrote as `sdf.zarr`.
    spacing: voxel edge lengths (x, y, z) in mm; needed for TIFF, .npy and Zarr arrays, which do not carry them, refused
        elsewhere.
    unit: mm of a length in a NIfTI, NRRD or MetaImage header that does not name its unit.
    Voxels keep their stored type, and become float32 where the file asks for scaling. A trailing axis of length 1
    is dropped. A sheared grid (gantry tilt) is resampled onto an orthogonal one with a logged warning.
    Raises `InputError` for everything that cannot be trusted: damaged files, bad geometry, NaN or infinite voxels.
    """
    from vesselsdf.formats import read

    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path")
    array, affine = read(path, spacing, unit)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(f"{path} has voxels of type {array.dtype}: convert it to one channel of real numbers first")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    _check_geometry(affine, str(path))
    check_finite(array, str(path))
    volume = Volume(array, affine)
    return _orthogonal(volume, str(path)) if skew(volume.affine) > ORTHOGONAL else volume


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write `volume` atomically as .nii, .nii.gz (sform and qform set, mm), .nrrd or .mha; bool becomes uint8."""
    from vesselsdf.formats import write

    write(volume, Path(path))


def check_shape(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    """The three axes of a volume's `shape`, trailing ones of length 1 dropped; `InputError` if it is none.

    >>> check_shape((64, 64, 20, 1), "scan.nii")
    (64, 64, 20)
    """
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 2:
        raise InputError(f"{name} holds an array of shape {shape}, which is not a 3D volume: extract one volume first")
    x, y, z = shape
    return x, y, z


def _check_geometry(affine: np.ndarray, name: str) -> None:
    fault = affine_fault(affine)
    if fault:
        raise InputError(f"{name}: the affine {fault}: repair the orientation in the header or export the scan again")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    low, high = SPACING_LIMITS
    if (spacing < low).any() or (spacing > high).any():
        shown = " x ".join(f"{value:.4g}" for value in spacing)
        raise InputError(f"{name}: the spacing {shown} mm is outside {low} to {high} mm: correct it or its unit")


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise `InputError` if any voxel is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    bad = sum(slab.size - int(np.isfinite(slab).sum()) for slab in slabs(array))
    if bad:
        raise InputError(f"{name} has {bad} NaN or infinite voxels: replace them by a background value first")


def check_image(volume: Volume, name: str) -> None:
    """Raise `InputError` unless `volume` can be an image: it has voxels, all finite and not all the same."""
    if volume.array.size == 0:
        raise InputError(f"{name} has no voxels (shape {volume.shape}): check how it was made")
    check_finite(volume.array, name)
    low, high = volume.array.min(), volume.array.max()
    if low == high:
        raise InputError(f"{name} is constant (every voxel is {low}), so nothing can be found in it: check the file")


def check_mask(volume: Volume, name: str) -> None:
    """Raise `InputError` unless `volume` can be a mask or label: finite whole numbers, some of them above 0."""
    if volume.array.size == 0:
        raise InputError(f"{name} has no voxels (shape {volume.shape}): check how it was made")
    check_finite(volume.array, name)
    if volume.array.dtype.kind == "f" and any((slab != np.rint(slab)).any() for slab in slabs(volume.array)):
        raise InputError(
            f"{name} has fractional values, so it is no mask: threshold it, or resample it by nearest neighbour"
        )
    if not volume.array.max() > 0:
        raise InputError(f"{name} is empty (no voxel is above 0): check the file and the label ids")


def check_same_grid(a: Volume, b: Volume, names: tuple[str, str] = ("the first", "the second")) -> None:
    """Raise `InputError` unless both volumes have the same shape and corners within 1e-3 of a voxel."""
    if a.shape != b.shape:
        difference = f"shape ({a.shape} and {b.shape})"
    else:
        corners = np.stack(np.meshgrid(*[(0, n - 1) for n in a.shape], indexing="ij"), axis=-1).reshape(-1, 3)
        if np.abs(a.to_index(b.to_world(corners)) - corners).max() <= 1e-3:
            return
        difference = _difference(a, b)
    raise InputError(
        f"{names[0]} and {names[1]} are on different grids, in {difference}: resample one onto the other's grid first"
    )


def _difference(a: Volume, b: Volume) -> str:
    def show(values) -> str:
        return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"

    differences = []
    tolerance = 1e-3 / max(a.shape) * min(a.spacing)
    if np.abs(np.subtract(a.spacing, b.spacing)).max() > tolerance:
        differences.append(f"spacing ({show(a.spacing)} and {show(b.spacing)} mm)")
    directions = [volume.affine[:3, :3] / volume.spacing for volume in (a, b)]
    if np.abs(directions[0] - directions[1]).max() > 1e-3 / max(a.shape):
        codes = ["".join(orientation(volume)) for volume in (a, b)]
        differences.append(f"direction ({codes[0]} and {codes[1]})" if codes[0] != codes[1] else "direction")
    if np.abs(a.affine[:3, 3] - b.affine[:3, 3]).max() > 1e-3 * min(a.spacing) or not differences:
        differences.append(f"origin ({show(a.affine[:3, 3])} and {show(b.affine[:3, 3])} mm)")
    return ", ".join(differences)


def orientation(volume: Volume) -> tuple[str, ...]:
    """Letters that say where each index axis points, as ("R", "A", "S")."""
    from nibabel.orientations import aff2axcodes

    return tuple(str(code) for code in aff2axcodes(volume.affine))


def skew(affine: np.ndarray) -> float:
    """Largest absolute cosine between two axes of the grid: 0 for an orthogonal one."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(columns.T @ columns - np.eye(3)).max())


def slabs(array: np.ndarray) -> list[np.ndarray]:
    """Views that tile `array` in its memory order, each of at most a few million voxels: for lean reductions."""
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        array = array.T
    rows = max(1, SLAB_VOXELS // max(1, array[:1].size))
    return [array[start : start + rows] for start in range(0, len(array), rows)]


def label_like(array: np.ndarray) -> bool:
    """Whether the values look like class numbers (bool, or at most 64 different whole numbers from 0 to 255)."""
    if array.dtype.kind == "b":
        return True
    if array.dtype.kind not in "ui" or array.size == 0 or array.min() < 0 or array.max() > 255:
        return False
    counts = np.zeros(256, dtype=np.int64)
    for slab in slabs(array):
        counts += np.bincount(slab.ravel(), minlength=256)
    return int((counts > 0).sum()) <= 64


def _orthogonal(volume: Volume, name: str) -> Volume:
    """Resample a sheared volume onto the orthogonal grid that keeps its two most orthogonal axes (gantry tilt)."""
    if skew(volume.affine) > np.sin(np.pi / 4):
        raise InputError(f"{name}: the axes of the grid are more than 45 degrees off orthogonal: export the scan again")
    spacing = np.array(volume.spacing)
    units = volume.affine[:3, :3] / spacing
    cosines = np.abs(units.T @ units)
    keep = min([(0, 1), (0, 2), (1, 2)], key=lambda pair: cosines[pair])
    order = [*keep, 3 - sum(keep)]
    directions = np.zeros((3, 3))
    for axis in order:  # Gram-Schmidt
        rest = units[:, axis] - directions @ (directions.T @ units[:, axis])
        length = np.linalg.norm(rest)
        directions[:, axis] = rest / length
        spacing[axis] *= length  # distance between the planes, so that slices stay slices
    ends = [(-0.5, n - 0.5) for n in volume.shape]
    corners = volume.to_world(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)) @ directions
    low, high = corners.min(axis=0), corners.max(axis=0)
    shape = np.maximum(1, np.ceil((high - low) / spacing - 1e-3)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = directions @ (low + spacing / 2)
    log.warning("%s is on a sheared grid (gantry tilt?): resampled to an orthogonal one of %s", name, tuple(shape))
    labels = label_like(volume.array)
    target = int(shape[0]), int(shape[1]), int(shape[2])
    fill = 0.0 if labels else float(volume.array.min())
    return resample(volume, target, affine, order=0 if labels else 1, fill=fill)


def resample(
    volume: Volume,
    target_shape: tuple[int, int, int],
    target_affine: np.ndarray,
    order: int = 1,
    fill: float | int | None = None,
) -> Volume:
    """`volume` at the voxel centres of another grid, however that lies: rotated, flipped, permuted, shifted.

    order 1: trilinear, as float32 (float64 stays float64), exact for functions linear in position where source voxel
    centres surround the place. order 0: nearest voxel, dtype kept. Nothing is extrapolated: beyond the source the
    nearest edge value counts, or `fill` if it is given. Raises `InputError` for another order or a bad affine.

    >>> ramp = Volume(np.arange(4.0).reshape(4, 1, 1) * np.ones((4, 3, 3)), np.eye(4))
    >>> finer = np.diag([0.5, 1.0, 1.0, 1.0])
    >>> resample(ramp, (7, 1, 1), finer).array[:, 0, 0].tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    """
    if order not in (0, 1):
        raise InputError(f"resampling of order {order} is not offered: use 0 (nearest) or 1 (linear)")
    target = np.array(target_affine, dtype=np.float64)
    fault = affine_fault(target)
    if fault:
        raise InputError(f"the affine to resample to {fault}: give a 4x4 matrix from voxel indices to mm")
    index_map = np.linalg.solve(volume.affine, target)
    return Volume(regrid(volume.array, index_map, target_shape, order, fill), target)


def isotropic(volume: Volume, spacing: float | int) -> Volume:
    """`volume` on cubic voxels of edge `spacing` mm along the same axes, as float32 (float64 stays float64).

    The outer corner of voxel (0, 0, 0) stays where it is, and the grid covers the whole box: at the far end it may
    reach beyond by less than a voxel, where the edge values count. Along axes that get coarser, from s to h, the
    interpolant is averaged over a box of width sqrt(h^2 - s^2): as a box of width s has variance s^2 / 12, the voxels
    then stand for boxes of width h, and the step from interpolation to averaging is continuous at h = s.
    Exact for functions linear in position in the interior. Raises `InputError` for a spacing that is not positive.

    >>> thick = Volume(np.zeros((8, 8, 3), np.float32), np.diag([0.5, 0.5, 2.0, 1.0]))
    >>> isotropic(thick, 0.5).shape, isotropic(thick, 1.0).shape
    ((8, 8, 12), (4, 4, 6))
    """
    index_map, shape, widths = isotropic_grid(volume.shape, volume.spacing, spacing)
    return Volume(regrid(volume.array, index_map, shape, widths=widths), volume.affine @ index_map)


def isotropic_grid(
    shape: tuple[int, int, int], edges: tuple[float, float, float], spacing: float | int
) -> tuple[Float[np.ndarray, "4 4"], tuple[int, int, int], tuple[float, float, float]]:
    """The grid of `isotropic` for voxels of some `edges`: index map to theirs, shape, widths of the boxes averaged."""
    if not (np.isfinite(spacing) and spacing > 0):
        raise InputError(f"the working spacing is {spacing} mm: give a positive number")
    ratios = np.array(edges) / spacing
    # The thousandth of a voxel keeps rounding errors of the header from adding a plane.
    x, y, z = np.maximum(1, np.ceil(np.array(shape) * ratios - 1e-3)).astype(int).tolist()
    steps = 1 / ratios
    index_map = np.diag([*steps, 1.0])
    index_map[:3, 3] = steps / 2 - 0.5
    widths = np.sqrt(np.maximum(0.0, steps**2 - 1.0))
    widths[widths < 0.05] = 0.0
    return index_map, (x, y, z), (float(widths[0]), float(widths[1]), float(widths[2]))


def facts(volume: Volume, path: str | Path) -> dict[str, Any]:
    """What can be said about a volume before anything is computed from it; lengths in mm, everything plain numbers.

    `percentiles` are taken over at most about four million evenly spread voxels. `thinnest_vessel` is the diameter of
    the thinnest tube that the grid can hold: two voxels of its coarsest axis (sampling theorem).
    """
    step = max(1, round((volume.array.size / 4e6) ** (1 / 3)))
    sample = volume.array[::step, ::step, ::step]
    levels = (1, 5, 25, 50, 75, 95, 99)
    return {
        "path": str(path),
        "shape": volume.shape,
        "spacing": volume.spacing,
        "extent": tuple(n * h for n, h in zip(volume.shape, volume.spacing, strict=True)),
        "orientation": "".join(orientation(volume)),
        "affine": volume.affine.tolist(),
        "dtype": str(volume.array.dtype),
        "minimum": float(volume.array.min()),
        "maximum": float(volume.array.max()),
        "percentiles": dict(zip(levels, np.percentile(sample, levels).tolist(), strict=True)),
        "looks_like_labels": label_like(volume.array),
        "thinnest_vessel": 2 * max(volume.spacing),
    }
