"""Volumes in OME-Zarr, read box by box: for scans that fit into no memory.

Read: the finest level of a multiscale group (OME-Zarr 0.4 on zarr v2, 0.5 on zarr v3), whose spatial axes may come in
any order and whose other axes must have length 1, or a plain array with a spacing given. Written: OME-Zarr 0.5 with one
level. OME-Zarr knows spacing and origin but no directions, so the whole affine is written beside them; without it axes
are taken to run to R, A and S.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vesselsdf.errors import InputError
from vesselsdf.volume import Volume, affine_fault

UNITS = {"millimeter": 1.0, "micrometer": 1e-3, "nanometer": 1e-6, "centimeter": 10.0, "meter": 1e3}
"""Of OME-Zarr, in mm. Axes without a unit are taken to be in mm."""
CHUNK = 64
"""Voxels along the edge of what is compressed at a time."""


@dataclass(frozen=True, eq=False)
class ZarrVolume:
    """A volume on disk. `array`: a Zarr array; `axes`: which of its axes are x, y and z."""

    path: Path
    array: Any
    axes: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        x, y, z = (self.array.shape[axis] for axis in self.axes)
        return x, y, z

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each axis, mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    def read(self, box: tuple[slice, ...]) -> np.ndarray:
        """The voxels of a box, (x, y, z) in C order; `InputError` if some are NaN or infinite."""
        where: list[Any] = [0] * len(self.array.shape)
        for axis, part in zip(self.axes, box, strict=True):
            where[axis] = part
        values = np.asarray(self.array[tuple(where)])
        values = np.ascontiguousarray(values.transpose([sorted(self.axes).index(axis) for axis in self.axes]))
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{self.path} has NaN or infinite voxels: replace them by a background value first")
        return values


def open_volume(path: str | Path, spacing: tuple[float | int, float | int, float | int] | None = None) -> ZarrVolume:
    """Open a volume; `spacing` (mm) is needed for a plain array, and refused for a group, which has its own.

    Raises `InputError` for what is no volume of real numbers.
    """
    import zarr

    path = Path(path)
    try:
        node: Any = zarr.open(str(path), mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is no Zarr array or group: check the path, or convert it with `vesselsdf convert`"
        ) from error
    if isinstance(node, zarr.Array):
        if spacing is None:
            raise InputError(f"{path} is a plain array without a voxel spacing: give it as --spacing X Y Z in mm")
        return _checked(path, node, (0, 1, 2), np.diag([*map(float, spacing), 1.0]))
    if spacing is not None:
        raise InputError(f"{path} has a spacing of its own: leave --spacing out")
    try:
        attributes = dict(node.attrs)
        scales: Any = attributes.get("ome", attributes)["multiscales"][0]
        array = node[scales["datasets"][0]["path"]]
        axes, affine = _grid(scales)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path} is a Zarr group but no OME-Zarr image with axes x, y and z: convert it") from error
    own: Any = attributes.get("vesselsdf", {})
    if isinstance(own, dict) and "affine" in own:
        affine = np.array(own["affine"], float)
    return _checked(path, array, axes, affine)


def _grid(scales: dict[str, Any]) -> tuple[tuple[int, int, int], Float[np.ndarray, "4 4"]]:
    """Which axes are x, y and z, and the affine, from OME metadata."""
    names = [axis["name"].lower() for axis in scales["axes"]]
    x, y, z = (names.index(name) for name in "xyz")
    unit = np.array([UNITS[axis.get("unit", "millimeter")] for axis in scales["axes"] if axis["name"].lower() in "xyz"])
    scale, shift = np.ones(len(names)), np.zeros(len(names))
    for one in (*scales["datasets"][0]["coordinateTransformations"], *scales.get("coordinateTransformations", ())):
        factor = np.array(one.get("scale", np.ones(len(names))), float)
        scale, shift = scale * factor, shift * factor + np.array(one.get("translation", np.zeros(len(names))), float)
    order = np.argsort(np.argsort([x, y, z]))
    affine = np.eye(4)
    affine[range(3), range(3)] = scale[[x, y, z]] * unit[order]
    affine[:3, 3] = shift[[x, y, z]] * unit[order]
    return (x, y, z), affine


def _checked(path: Path, array: Any, axes: tuple[int, int, int], affine: np.ndarray) -> ZarrVolume:
    shape = array.shape
    if len(shape) < 3 or any(n != 1 for axis, n in enumerate(shape) if axis not in axes):
        raise InputError(f"{path} holds an array of shape {shape}, which is no 3D volume: extract one volume first")
    if array.dtype.kind not in "buif":
        raise InputError(f"{path} has voxels of type {array.dtype}: convert it to one channel of real numbers first")
    fault = affine_fault(affine) if affine.shape == (4, 4) else "is no 4x4 matrix"
    if fault:
        raise InputError(f"{path}: the affine {fault}: repair its metadata")
    return ZarrVolume(path, array, axes, affine)


def create_volume(
    path: str | Path,
    shape: Sequence[int],
    affine: Float[np.ndarray, "4 4"],
    dtype: str | np.dtype,
    block: int | None = None,
) -> ZarrVolume:
    """An empty volume, of zeros, to be written by blocks of `block` voxels (a file each), or by chunks."""
    import zarr
    from zarr.codecs import BloscCodec

    group = zarr.create_group(str(path), zarr_format=3)
    edge = next((chunk for chunk in (CHUNK, 32, 16, 8) if block and block % chunk == 0), block or CHUNK)
    array = group.create_array(
        "0", shape=tuple(shape), dtype=np.dtype(dtype), chunks=(edge,) * 3, shards=(block,) * 3 if block else None,
        compressors=BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), dimension_names=("x", "y", "z"),
    )  # fmt: skip
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    transformations = [
        {"type": "scale", "scale": spacing},
        {"type": "translation", "translation": affine[:3, 3].tolist()},
    ]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "xyz"]
    scales = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transformations}]}
    attributes: Any = {"ome": {"version": "0.5", "multiscales": [scales]}, "vesselsdf": {"affine": affine.tolist()}}
    group.attrs.update(attributes)
    return ZarrVolume(Path(path), array, (0, 1, 2), np.asarray(affine, float))


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a volume that is in memory."""
    array = volume.array.astype(np.uint8) if volume.array.dtype == np.bool_ else volume.array
    create_volume(path, volume.shape, volume.affine, array.dtype).array[...] = array
