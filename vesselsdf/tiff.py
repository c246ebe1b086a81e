"""TIFF stacks and folders of TIFF slices, read layer by layer: pages or files are z, rows y, columns x.

What a file holds is compared with what it claims before anything is read of it, as in `formats`.
"""

import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.streams import check_size
from vesselsdf.volume import check_shape

SUFFIXES = (".tif", ".tiff")


class Stack(NamedTuple):
    """A volume whose layers can be read by themselves."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]
    """Layers `start` to `stop`, (x, y, stop - start)."""


def slice_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in the order of the numbers in their names, if most of its files are; or none."""
    files = [path for path in folder.iterdir() if path.is_file()]
    slices = [path for path in files if path.suffix.lower() in SUFFIXES]
    return sorted(slices, key=_numbered) if 2 * len(slices) > len(files) else []


def _numbered(path: Path) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def open_stack(path: Path) -> Stack:
    """A stack in one file, or a folder of slices; `InputError` if damaged, truncated, or no single 3D volume."""
    return _folder(path, slice_files(path)) if path.is_dir() else _file(path)


def _folder(path: Path, files: list[Path]) -> Stack:
    """All slices must have the first one's size and type; each is compared with it when it is read."""
    first = _slice(files[0])
    shape = check_shape((*first.T.shape, len(files)), str(path))

    def read(start: int, stop: int) -> np.ndarray:
        layers = np.empty((stop - start, *first.shape), first.dtype)
        for layer, file in zip(layers, files[start:stop], strict=True):
            found = _slice(file)
            if found.shape != first.shape or found.dtype != first.dtype:
                raise InputError(
                    f"{file} is {found.T.shape} of {found.dtype}, but {files[0].name} is {first.T.shape} of "
                    f"{first.dtype}: a folder of slices must hold those of one volume only"
                )
            layer[...] = found
        return layers.T

    return Stack(shape, first.dtype, read)


def _slice(path: Path) -> np.ndarray:
    """One slice, (y, x)."""
    import tifffile

    _count_pages(path)
    try:
        array = tifffile.imread(path)
    except Exception as error:  # tifffile raises many kinds for a damaged file
        if "imagecodecs" not in str(error):
            raise InputError(f"{path} is damaged or no TIFF image ({error}): save it again") from error
        array = _by_itk(path)
    array = np.squeeze(array)
    if array.ndim != 2 or array.dtype.kind not in "buif":
        what = f"shape {array.shape} of {array.dtype}"
        raise InputError(f"{path} has the {what}: a slice must be one layer of one channel of real numbers")
    return array


def _file(path: Path) -> Stack:
    import tifffile

    pages = _count_pages(path)
    try:
        with tifffile.TiffFile(path) as stack:
            if len(stack.series) != 1:
                raise InputError(f"{path} holds {len(stack.series)} images of different shapes: save one stack only")
            series = stack.series[0]
            if any(n > 1 for axis, n in zip(series.axes, series.shape, strict=True) if axis in "SCT"):
                raise InputError(
                    f"{path} has the axes {series.axes} of {series.shape}: extract one channel and one time point first"
                )
            shape = check_shape(tuple(n for n in series.shape if n > 1)[::-1], str(path))
            _check_held(path, stack, series, pages)
            if series.dataoffset is not None:
                memory = tifffile.memmap(path, mode="r").reshape(shape[::-1])
                return Stack(shape, series.dtype, lambda start, stop: np.array(memory[start:stop]).T)
    except InputError:
        raise
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{path} is damaged or not a TIFF stack ({error}): save it again") from error
    try:
        _pages(path, shape, 0, 1)
    except InputError as error:
        if "imagecodecs" not in str(error):
            raise
        whole = _by_itk(path).reshape(shape[::-1])  # once, whatever is asked for: it cannot read pages by themselves
        return Stack(shape, series.dtype, lambda start, stop: whole[start:stop].T)
    return Stack(shape, series.dtype, partial(_pages, path, shape))


def _check_held(path: Path, stack: Any, series: Any, pages: int) -> None:
    held = path.stat().st_size
    if series.dataoffset is not None:
        check_size(path, series.dataoffset + series.nbytes, held)
    elif len(stack.pages) != pages:
        raise InputError(f"{path} has {pages} pages, but only {len(stack.pages)} can be read: save it again")
    for page in stack.pages if series.dataoffset is None else []:
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        check_size(path, max(ends, default=0), held)


def _pages(path: Path, shape: tuple[int, int, int], start: int, stop: int) -> np.ndarray:
    """Layers of a stack that is compressed, or whose pages are strewn about the file."""
    import tifffile

    try:
        layers = tifffile.imread(path, key=range(start, stop))
    except Exception as error:  # tifffile raises many kinds for a damaged file
        raise InputError(f"{path} is damaged or not a TIFF stack ({error}): save it again") from error
    return layers.reshape(stop - start, shape[1], shape[0]).T


def _by_itk(path: Path) -> np.ndarray:
    """LZW and its like, for which tifffile needs a further package, while SimpleITK carries them."""
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path} cannot be decompressed: save it without compression") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(f"{path} holds colours: convert it to one channel first")
    return SimpleITK.GetArrayFromImage(image)


def _count_pages(path: Path) -> int:
    """Follow the chain of page directories; a broken chain is how a truncated TIFF loses slices unnoticed."""
    held = path.stat().st_size
    damaged = InputError(f"{path} is truncated or no TIFF file: its page directories are broken; copy it again")
    with open(path, "rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        if order is None or len(start) < 16:
            raise damaged
        (version,) = struct.unpack(order + "H", start[2:4])
        if version not in (42, 43):
            raise damaged
        count_type, entry, pointer = (order + "H", 12, order + "I") if version == 42 else (order + "Q", 20, order + "Q")
        (offset,) = struct.unpack_from(pointer, start, 4 if version == 42 else 8)
        seen: set[int] = set()
        while offset:
            if offset in seen or offset + struct.calcsize(count_type) > held:
                raise damaged
            seen.add(offset)
            file.seek(offset)
            (entries,) = struct.unpack(count_type, file.read(struct.calcsize(count_type)))
            file.seek(entries * entry, 1)
            following = file.read(struct.calcsize(pointer))
            if len(following) < struct.calcsize(pointer):
                raise damaged
            (offset,) = struct.unpack(pointer, following)
    return len(seen)
