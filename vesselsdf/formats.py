"""Readers and writers of the single-file formats; `vesselsdf.volume` is their public face.

Strategy: the header is read first and compared with what the file really holds, by counting the bytes of a compressed
stream if need be, before any array is allocated: common libraries return zeros for a truncated file, or try to
allocate whatever a damaged header claims.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.streams import check_compressed, check_size, inflate
from vesselsdf.volume import Volume, check_shape

log = logging.getLogger(__name__)

Spacing = tuple[float | int, float | int, float | int] | None


def suffix_of(path: Path) -> str:
    """The readable suffix of `path` in lower case (".nii.gz", ".mha", ...), "" if it has none of them.

    >>> suffix_of(Path("a.b.NII.GZ")), suffix_of(Path("notes.txt"))
    ('.nii.gz', '')
    """
    name = path.name.lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), "")


def read(path: Path, spacing: Spacing, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Stored voxels in (x, y, z) order and affine to RAS mm, not yet checked further.

    `unit`: mm of a length in the header of a file that does not say in which unit it is.
    """
    if path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray")):
        return _read_zarr(path, spacing)
    if path.is_dir():
        from vesselsdf.dicom import read_series
        from vesselsdf.tiff import slice_files

        if slice_files(path):
            return _read_tiff(path), scaling(path, spacing)
        refuse_spacing(path, spacing)
        return read_series(path)
    suffix = suffix_of(path)
    if not suffix:
        if path.suffix.lower() in (".dcm", ".ima"):
            raise InputError(f"{path} is one DICOM file: give the folder that holds the whole series instead")
        raise InputError(f"{path} has an unknown suffix: use one of {', '.join(READERS)}, or a folder of DICOM files")
    if suffix in (".tif", ".tiff", ".npy"):
        affine = scaling(path, spacing)
        return READERS[suffix](path), affine
    refuse_spacing(path, spacing)
    return READERS[suffix](path, unit)


def _read_zarr(path: Path, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """An OME-Zarr volume, a plain array, or the finest level of a field that vesselsdf wrote."""
    from vesselsdf.field_store import FieldStore
    from vesselsdf.zarr_volume import open_volume

    if FieldStore.at(path):
        refuse_spacing(path, spacing)
        store = FieldStore.open(path)
        return store.read(), store.affine
    volume = open_volume(path, spacing)
    return volume.read(tuple(slice(n) for n in volume.shape)), volume.affine


def scaling(path: Path, spacing: Spacing) -> np.ndarray:
    """The affine of a file that carries no spacing of its own."""
    if spacing is None:
        raise InputError(f"{path} does not carry a voxel spacing: give it as --spacing X Y Z in mm")
    if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
        raise InputError(f"{path}: the spacing {spacing} is not three positive lengths in mm: correct --spacing")
    return np.diag([*map(float, spacing), 1.0])


def refuse_spacing(path: Path, spacing: Spacing) -> None:
    """Raise `InputError` where a spacing is given for a file that carries its own."""
    if spacing is not None:
        raise InputError(f"{path} carries its own voxel spacing: leave out --spacing, or correct the header")


# --- NIfTI -----------------------------------------------------------------------------------------------------------


def _nifti_header(path: Path, block: bytes) -> Any:
    import nibabel

    for header_class, length in ((nibabel.Nifti1Header, 348), (nibabel.Nifti2Header, 540)):
        sizes = [int.from_bytes(block[:4], order) for order in ("little", "big")]
        if length in sizes and len(block) >= length:
            try:
                header = header_class(block[:length])
                header.get_data_dtype(), header.get_best_affine(), header.get_slope_inter()
            except Exception as error:  # nibabel raises many kinds for a damaged header
                raise InputError(f"{path} has a damaged NIfTI header ({error}): convert the scan again") from error
            if not bytes(header["magic"]).startswith(b"n+"):
                raise InputError(f"{path} is the header of a .hdr/.img pair: convert it to a single .nii.gz")
            return header
    raise InputError(f"{path} is not a NIfTI file or is truncated within its header: copy or download it again")


class NiftiLayout(NamedTuple):
    """What the header of a NIfTI file says, compared with what the file holds."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    first: int
    """Byte of the first voxel; x runs fastest."""
    packed: bool
    slope: tuple[float | None, float | None]
    """And intercept."""
    affine: np.ndarray

    def scaled(self, array: np.ndarray) -> np.ndarray:
        """Stored values to those that are meant."""
        slope, intercept = self.slope
        if (slope, intercept) in ((None, None), (1.0, 0.0)):
            return array
        array = array.astype(np.float32)
        array *= np.float32(slope)
        array += np.float32(intercept)
        return array


def nifti_layout(path: Path, unit: float = 1.0) -> NiftiLayout:
    """Where the voxels of a NIfTI file lie; `InputError` if it is damaged, truncated or of another kind."""
    with open(path, "rb") as file:
        start = file.read(540)
    packed = start.startswith(b"\x1f\x8b")
    header = _nifti_header(path, next(inflate(path, 0, "gzip"), b"") if packed else start)
    shape = check_shape(tuple(int(n) for n in header.get_data_shape()), str(path))
    dtype = header.get_data_dtype()
    if dtype.kind not in "buif":
        raise InputError(f"{path} has voxels of type {dtype}: convert it to one channel of real numbers first")
    offset = float(header["vox_offset"])
    least = 352 if len(header.binaryblock) == 348 else 544
    if not 0 <= offset < 2**40:
        raise InputError(f"{path}: the header field vox_offset is {offset}: convert the scan again")
    first = max(int(offset), least)
    claimed = first + math.prod(shape) * dtype.itemsize
    if packed:
        check_compressed(path, 0, "gzip", claimed)
    else:
        check_size(path, claimed, path.stat().st_size)
    # NIfTI's unit codes: 1 metre, 2 millimetre, 3 micrometre; 0 is unknown and means mm by custom.
    scale = {1: 1e3, 2: 1.0, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, unit)
    affine = np.diag([scale, scale, scale, 1.0]) @ header.get_best_affine()
    return NiftiLayout(shape, dtype, first, packed, header.get_slope_inter(), affine)


def _read_nifti(path: Path, unit: float) -> tuple[np.ndarray, np.ndarray]:
    layout = nifti_layout(path, unit)
    raw = _fill(path, np.empty(math.prod(layout.shape), layout.dtype), layout.first, layout.packed)
    return layout.scaled(raw.reshape(layout.shape, order="F")), layout.affine


def _fill(path: Path, array: np.ndarray, first: int, packed: bool) -> np.ndarray:
    """Fill `array` with the bytes of the file from `first` on; reads a packed stream to its end, to verify it."""
    target = array.data.cast("B")
    if not packed:
        with open(path, "rb") as file:
            file.seek(first)
            done = 0
            while done < len(target):
                got = file.readinto(target[done : done + (1 << 30)])
                check_size(path, 1, got)
                done += got
        return array
    position = -first
    for piece in inflate(path, 0, "gzip"):
        begin, end = max(position, 0), min(position + len(piece), len(target))
        if end > begin:
            target[begin:end] = memoryview(piece)[begin - position : end - position]
        position += len(piece)
    check_size(path, len(target) + first, position + first)
    return array


def _write_nifti(volume: Volume, path: Path) -> None:
    import nibabel

    array = storable(volume.array)
    if array.dtype.itemsize == 8 and array.dtype.kind in "ui":
        # Few viewers read 64-bit integers.
        array = array.astype(np.int32 if np.abs(array).max(initial=0) < 2**31 else np.float64)
    image = nibabel.Nifti1Image(array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def storable(array: np.ndarray) -> np.ndarray:
    """`array` in a type that file formats know: bool as uint8, float16 as float32."""
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array


# --- arrays without geometry -----------------------------------------------------------------------------------------


def mapped(path: Path) -> np.ndarray:
    """A .npy array that is read where it is looked at."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)  # compares the size, allocates nothing
    except Exception as error:  # numpy parses the header as Python, which can fail in any way
        raise InputError(f"{path} is damaged, truncated or not a plain array ({error}): save it again") from error
    return stored.reshape(check_shape(stored.shape, str(path)))


def _read_npy(path: Path) -> np.ndarray:
    return np.array(mapped(path))


def _read_tiff(path: Path) -> np.ndarray:
    from vesselsdf.tiff import open_stack

    stack = open_stack(path)
    return stack.read(0, stack.shape[2])


def _lazily(name: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        from vesselsdf import itk

        return getattr(itk, name)(*arguments)

    return call


READERS: dict[str, Callable[..., Any]] = {
    ".nii.gz": _read_nifti,
    ".nii": _read_nifti,
    ".nrrd": _lazily("read_nrrd"),
    ".nhdr": _lazily("read_nrrd"),
    ".mha": _lazily("read_meta"),
    ".mhd": _lazily("read_meta"),
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_npy,
}
WRITERS: dict[str, Callable[[Volume, Path], None]] = {
    ".nii.gz": _write_nifti,
    ".nii": _write_nifti,
    ".nrrd": _lazily("write_itk"),
    ".mha": _lazily("write_itk"),
}


def write(volume: Volume, path: Path) -> None:
    """Write `volume` in the format that the suffix names, atomically."""
    suffix = next((suffix for suffix in WRITERS if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{path} has a suffix that cannot be written: use one of {', '.join(WRITERS)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    WRITERS[suffix](volume, path)
