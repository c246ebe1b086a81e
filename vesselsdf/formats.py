"""Readers and writers of the single-file formats; `vesselsdf.volume` is their public face.

Strategy: the header is read first and compared with what the file really holds, by counting the bytes of a compressed
stream if need be, before any array is allocated: common libraries return zeros for a truncated file, or try to
allocate whatever a damaged header claims.
"""

import bz2
import logging
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.volume import Volume

log = logging.getLogger(__name__)

Spacing = tuple[float, float, float] | None
CHUNK = 1 << 22
# ITK's world is LPS, ours is RAS: the first two axes change sign.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def suffix_of(path: Path) -> str:
    """The readable suffix of `path` in lower case (".nii.gz", ".mha", ...), "" if it has none of them.

    >>> suffix_of(Path("a.b.NII.GZ")), suffix_of(Path("notes.txt"))
    ('.nii.gz', '')
    """
    name = path.name.lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), "")


def read(path: Path, spacing: Spacing) -> tuple[np.ndarray, np.ndarray]:
    """Stored voxels in (x, y, z) order (possibly with more axes) and affine to RAS mm, not yet checked further."""
    if path.is_dir():
        from vesselsdf.dicom import read_series

        _refuse_spacing(path, spacing)
        return read_series(path)
    suffix = suffix_of(path)
    if not suffix:
        if path.suffix.lower() in (".dcm", ".ima"):
            raise InputError(f"{path} is one DICOM file: give the folder that holds the whole series instead")
        raise InputError(f"{path} has an unknown suffix: use one of {', '.join(READERS)}, or a folder of DICOM files")
    if suffix in (".tif", ".tiff", ".npy"):
        if spacing is None:
            raise InputError(f"{path} does not carry a voxel spacing: give it as --spacing X Y Z in mm")
        if len(spacing) != 3 or not all(np.isfinite(value) and value > 0 for value in spacing):
            raise InputError(f"{path}: the spacing {spacing} is not three positive lengths in mm: correct --spacing")
        return READERS[suffix](path), np.diag([*map(float, spacing), 1.0])
    _refuse_spacing(path, spacing)
    return READERS[suffix](path)


def _refuse_spacing(path: Path, spacing: Spacing) -> None:
    if spacing is not None:
        raise InputError(f"{path} carries its own voxel spacing: leave out --spacing, or correct the header")


# --- sizes -----------------------------------------------------------------------------------------------------------


def inflate(path: Path, offset: int, kind: str) -> Iterator[bytes]:
    """Decompressed pieces of at most `CHUNK` bytes of a "gzip", "zlib" or "bzip2" stream; `InputError` if damaged."""
    make: Callable[[], Any] = {
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": lambda: zlib.decompressobj(15),
        "bzip2": bz2.BZ2Decompressor,
    }[kind]
    magic = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}.get(kind, b"")
    stream = make()
    with open(path, "rb") as file:
        file.seek(offset)
        pending = b""
        while True:
            if stream.eof:
                rest = (stream.unused_data or pending) or file.read(CHUNK)
                if not magic or not rest.startswith(magic):
                    return  # padding after the stream is none of our business
                stream, pending = make(), rest
            try:
                piece = stream.decompress(pending, CHUNK)
            except (zlib.error, OSError, EOFError) as error:
                raise InputError(f"{path} is damaged ({error}): copy or download it again") from error
            pending = getattr(stream, "unconsumed_tail", b"")
            if piece:
                yield piece
            elif not stream.eof and not pending and getattr(stream, "needs_input", True):
                pending = file.read(CHUNK)
                if not pending:
                    raise InputError(f"{path} is truncated: its compressed data stop early; copy or download it again")


def check_size(path: Path, claimed: int, held: int) -> None:
    """Raise `InputError` if the header claims more bytes than the file holds."""
    if held < claimed:
        raise InputError(
            f"{path} is truncated or its header is wrong: the header claims {claimed} bytes, the file holds {held}; "
            "copy or download it again"
        )


def _check_compressed(path: Path, offset: int, kind: str, claimed: int) -> None:
    """Count what a compressed stream holds, keeping nothing; gives up early where the claim cannot be true."""
    size = path.stat().st_size - offset
    if kind != "bzip2" and claimed > 1040 * size + CHUNK:  # deflate packs at most 1032 : 1
        raise InputError(
            f"{path} is truncated or its header is wrong: the header claims {claimed} bytes, more than {size} "
            "compressed bytes can hold; copy or download it again"
        )
    if kind == "gzip":
        with open(path, "rb") as file:
            file.seek(-4, 2)
            if int.from_bytes(file.read(4), "little") == claimed % 2**32:
                return  # the trailer of a whole file says what the header says; decompression verifies it
    check_size(path, claimed, sum(len(piece) for piece in inflate(path, offset, kind)))


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


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(path, "rb") as file:
        start = file.read(540)
    packed = start.startswith(b"\x1f\x8b")
    header = _nifti_header(path, next(inflate(path, 0, "gzip"), b"") if packed else start)
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype = header.get_data_dtype()
    if min(shape, default=0) < 1:
        raise InputError(f"{path}: the header field dim claims the shape {shape}: convert the scan again")
    if dtype.kind not in "buif":
        raise InputError(f"{path} has voxels of type {dtype}: convert it to one channel of real numbers first")
    offset = float(header["vox_offset"])
    least = 352 if len(header.binaryblock) == 348 else 544
    if not 0 <= offset < 2**40:
        raise InputError(f"{path}: the header field vox_offset is {offset}: convert the scan again")
    first = max(int(offset), least)
    count = 1
    for n in shape:  # exact integers: a damaged header can overflow numpy's
        count *= n
    claimed = first + count * dtype.itemsize
    if packed:
        _check_compressed(path, 0, "gzip", claimed)
    else:
        check_size(path, claimed, path.stat().st_size)
    raw = _fill(path, np.empty(count, dtype), first, packed)
    array = raw.reshape(shape, order="F")
    slope, intercept = header.get_slope_inter()
    if (slope, intercept) not in ((None, None), (1.0, 0.0)):
        array = array.astype(np.float32)
        array *= np.float32(slope)
        array += np.float32(intercept)
    # NIfTI's unit codes: 1 metre, 2 millimetre, 3 micrometre; 0 is unknown and means mm by custom.
    scale = {1: 1e3, 3: 1e-3}.get(int(header["xyzt_units"]) & 7, 1.0)
    return array, np.diag([scale, scale, scale, 1.0]) @ header.get_best_affine()


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

    array = _storable(volume.array)
    if array.dtype.itemsize == 8 and array.dtype.kind in "ui":
        # Few viewers read 64-bit integers.
        array = array.astype(np.int32 if np.abs(array).max(initial=0) < 2**31 else np.float64)
    image = nibabel.Nifti1Image(array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    if path.suffix.lower() != ".gz" and path.suffix.lower() != ".nii":
        raise InputError(f"{path} has an unknown suffix: use .nii.gz")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array


READERS: dict[str, Callable[[Path], Any]] = {".nii.gz": _read_nifti, ".nii": _read_nifti}
WRITERS: dict[str, Callable[[Volume, Path], None]] = {".nii.gz": _write_nifti, ".nii": _write_nifti}


def write(volume: Volume, path: Path) -> None:
    """Write `volume` in the format that the suffix names, atomically."""
    suffix = next((suffix for suffix in WRITERS if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{path} has a suffix that cannot be written: use one of {', '.join(WRITERS)}")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the name of a file")
    WRITERS[suffix](volume, path)
