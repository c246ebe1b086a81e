"""NRRD and MetaImage through SimpleITK: the data file is found and measured first, and LPS becomes RAS."""

import logging
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.streams import check_compressed, check_size
from vesselsdf.volume import Volume, check_shape

log = logging.getLogger(__name__)

# ITK's world is LPS, ours is RAS: the first two axes change sign.
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNITS = {"mm": 1.0, "millimeter": 1.0, "m": 1e3, "cm": 10.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "nm": 1e-6}
HEADER_LIMIT = 1 << 20


def read_nrrd(path: Path, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z) and affine to RAS mm of a .nrrd or .nhdr file; raises `InputError` if it is damaged.

    `unit`: mm of its lengths if it names no unit.
    """
    lines, end = _header_lines(path, last="")
    if not lines[0].startswith("NRRD"):
        raise InputError(f"{path} is not a NRRD file (it does not begin with NRRD): check the path")
    fields = {}
    for line in lines[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower()] = value.strip()
    name = fields.get("data file", fields.get("datafile", ""))
    source, offset = (_beside(path, name), 0) if name else (path, end)
    reader, claimed = _information(path, "NrrdImageIO")
    encoding = fields.get("encoding", "raw").lower()
    kind = {"gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}.get(encoding)
    skip = int(fields.get("byte skip", "0"))
    if kind:
        check_compressed(source, offset, kind, claimed + max(skip, 0))
    elif encoding == "raw":
        check_size(source, claimed + max(skip, 0), source.stat().st_size - offset)
    if "spacings" not in fields and "space directions" not in fields:
        log.warning("%s has no spacing in its header: 1 mm is assumed", path)
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", ""))))
    scales = {UNITS[unit] for unit in units if unit in UNITS}
    if len(scales) > 1 or units - UNITS.keys() - {"", "???"}:
        raise InputError(f"{path}: the header field units is {sorted(units)}: give all axes in mm")
    return _execute(reader, path, scales.pop() if scales else unit)


def read_meta(path: Path, unit: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z) and affine to RAS mm of a .mha or .mhd file, whose lengths are in `unit` mm.

    Raises `InputError` if it is damaged.
    """
    lines, end = _header_lines(path, last="ElementDataFile")
    fields = {}
    for line in lines:
        key, _, value = line.partition("=")
        fields[key.strip()] = value.strip()
    name = fields.get("ElementDataFile", "")
    if not name:
        raise InputError(f"{path} is no MetaImage or is truncated: the field ElementDataFile is missing; copy it again")
    source, offset = (path, end) if name.upper() == "LOCAL" else (_beside(path, name), 0)
    reader, claimed = _information(path, "MetaImageIO")
    if fields.get("CompressedData", "False").lower().startswith("t"):
        check_compressed(source, offset, "zlib", claimed)
    elif not fields.get("BinaryData", "True").lower().startswith("f"):
        skip = int(fields.get("HeaderSize", "0"))
        check_size(source, claimed + max(skip, 0), source.stat().st_size - offset)
    if not {"ElementSpacing", "ElementSize"} & fields.keys():
        log.warning("%s has no ElementSpacing in its header: 1 mm is assumed", path)
    return _execute(reader, path, unit)


def _header_lines(path: Path, last: str) -> tuple[list[str], int]:
    """Header lines up to the one that begins with `last` (or is empty, or the end of the file), and where they end."""
    lines, end = [], 0
    with open(path, "rb") as file:
        for line in file:
            end += len(line)
            if end > HEADER_LIMIT:
                raise InputError(f"{path} is damaged: its header does not end; copy or download it again")
            text = line.decode("utf-8", errors="replace").strip()
            lines.append(text)
            if (text.startswith(last) if last else not text) and len(lines) > 1:
                break
    if not lines:
        raise InputError(f"{path} is empty: copy or download it again")
    return lines, end


def _beside(path: Path, name: str) -> Path:
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"{path} is spread over several data files ({name}): convert it to one file first")
    source = path.parent / name
    if not source.is_file():
        raise InputError(f"{path} names the data file {name}, which is not beside it: copy both files together")
    return source


def _information(path: Path, io: str) -> tuple[Any, int]:
    """A SimpleITK reader that has read the header only, and the bytes that the voxels need."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} has a damaged header ({_reason(error)}): convert the scan again") from error
    if reader.GetNumberOfComponents() != 1:
        raise InputError(
            f"{path} has {reader.GetNumberOfComponents()} values per voxel: convert it to one channel of real numbers"
        )
    check_shape(tuple(reader.GetSize()), str(path))
    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.match(r"(\d+)-bit (?:un)?signed|(\d+)-bit float", kind)
    if not bits:
        raise InputError(f"{path} has voxels of type {kind}: convert it to one channel of real numbers first")
    return reader, math.prod(reader.GetSize()) * int(bits[1] or bits[2]) // 8


def _execute(reader: Any, path: Path, unit: float) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK

    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise InputError(f"{path} is damaged ({_reason(error)}): copy or download it again") from error
    array = SimpleITK.GetArrayFromImage(image).T
    dimension = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimension, dimension)[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.GetSpacing()[:3]) * unit
    affine[:3, 3] = np.array(image.GetOrigin()[:3]) * unit
    return array.reshape(check_shape(array.shape, str(path)), order="A"), LPS @ affine


def _reason(error: RuntimeError) -> str:
    """The telling part of one of ITK's many-line messages, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "unknown reason"


def write_itk(volume: Volume, path: Path, notes: dict[str, str] | None = None) -> None:
    """Write `volume` as compressed .nrrd or .mha, atomically; `notes` become fields of the header."""
    import SimpleITK

    from vesselsdf.formats import storable

    image = SimpleITK.GetImageFromArray(storable(volume.array).T)
    affine = LPS @ volume.affine
    image.SetSpacing(volume.spacing)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / volume.spacing).ravel().tolist())
    for key, value in (notes or {}).items():
        image.SetMetaData(key, value)
    with atomic_path(path) as temporary:
        SimpleITK.WriteImage(image, str(temporary), useCompression=True)
