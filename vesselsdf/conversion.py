"""Scans to OME-Zarr, some layers at a time: what `vesselsdf blocks` reads, of scans that fit into no memory.

Read layer by layer: folders of TIFF slices, TIFF stacks, NIfTI (compressed or not) and .npy. Other formats, which need
the whole volume at once, are read so.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_folder
from vesselsdf.formats import NiftiLayout, Spacing, mapped, nifti_layout, refuse_spacing, scaling, suffix_of
from vesselsdf.progress import track
from vesselsdf.streams import check_size, inflate
from vesselsdf.tiff import SUFFIXES, Stack, open_stack, slice_files
from vesselsdf.volume import ORTHOGONAL, affine_fault, check_finite, read_volume, skew
from vesselsdf.zarr_volume import CHUNK, ZarrVolume, create_volume, open_volume


def convert(source: str | Path, output: str | Path, spacing: Spacing = None) -> ZarrVolume:
    """Write a scan as OME-Zarr; in memory are `CHUNK` layers at a time.

    `spacing`: voxel edges in mm, for formats that carry none. Voxels keep their type, or become float32 where the file
    asks for scaling. Raises `InputError` for what cannot be trusted, and for an `output` that exists.
    """
    source, output = Path(source), Path(output)
    if not source.exists():
        raise InputError(f"{source} does not exist: check the path")
    if output.exists():
        raise InputError(f"{output} exists: remove it, or give another name")
    stack, affine = opened(source, spacing)
    fault = affine_fault(affine)
    if fault or skew(affine) > ORTHOGONAL:
        raise InputError(f"{source}: the affine {fault or 'is sheared'}: resample the scan to an orthogonal grid first")
    with atomic_folder(output) as temporary:
        written = create_volume(temporary, stack.shape, affine, stack.dtype.newbyteorder("="))
        with track(None, "convert", stack.shape[2], "layer") as bar:
            for start in range(0, stack.shape[2], CHUNK):
                stop = min(start + CHUNK, stack.shape[2])
                layers = stack.read(start, stop)
                check_finite(layers, str(source))
                written.array[:, :, start:stop] = layers
                bar.update(stop - start)
    return open_volume(output)


def opened(path: Path, spacing: Spacing) -> tuple[Stack, np.ndarray]:
    """A scan whose layers are read one after the other, and its affine."""
    suffix = suffix_of(path)
    if suffix in SUFFIXES or (path.is_dir() and slice_files(path)):
        return open_stack(path), scaling(path, spacing)
    if suffix == ".npy":
        return _of(mapped(path)), scaling(path, spacing)
    if suffix in (".nii", ".nii.gz"):
        refuse_spacing(path, spacing)
        return _nifti(path)
    volume = read_volume(path, spacing)
    return _of(volume.array), volume.affine


def _of(array: np.ndarray) -> Stack:
    x, y, z = array.shape
    return Stack((x, y, z), array.dtype, lambda start, stop: array[:, :, start:stop])


def _nifti(path: Path) -> tuple[Stack, np.ndarray]:
    layout = nifti_layout(path)
    if layout.packed:
        stored = _unpacked(path, layout)
    else:
        memory = np.memmap(path, layout.dtype, "r", layout.first, layout.shape, order="F")
        stored = _of(memory).read
    dtype = layout.scaled(np.empty(0, layout.dtype)).dtype
    return Stack(layout.shape, dtype, lambda start, stop: layout.scaled(stored(start, stop))), layout.affine


def _unpacked(path: Path, layout: NiftiLayout) -> Callable[[int, int], np.ndarray]:
    """Layers of a packed file, which are to be asked for in order; after the last one its checksum is verified."""
    pieces = inflate(path, 0, "gzip")
    pending, skip = bytearray(), layout.first
    x, y, z = layout.shape

    def read(start: int, stop: int) -> np.ndarray:
        nonlocal skip
        wanted = x * y * (stop - start) * layout.dtype.itemsize
        while len(pending) < skip + wanted:
            piece = next(pieces, b"")
            if not piece:
                check_size(path, skip + wanted, len(pending))
            pending.extend(piece)
        del pending[:skip]
        skip = 0
        array = np.frombuffer(bytes(pending[:wanted]), layout.dtype).reshape((x, y, stop - start), order="F")
        del pending[:wanted]
        if stop == z:
            for _ in pieces:
                continue
        return array

    return read
