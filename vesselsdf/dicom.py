"""A DICOM series from a folder: every header is checked by pydicom before SimpleITK decodes a pixel.

Strategy: slices are ordered by their position along the normal of the slice plane, never by file name or instance
number, and must lie on one line at equal distances; whatever would silently become wrong geometry is refused.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.itk import LPS

log = logging.getLogger(__name__)

TAGS = [
    "SeriesInstanceUID", "SeriesDescription", "Modality", "InstanceNumber", "NumberOfFrames", "SamplesPerPixel",
    "Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "BitsAllocated",
    "RescaleSlope", "RescaleIntercept", "PixelData",
]  # fmt: skip
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Slice:
    """What the header of one slice says; lengths in mm, LPS."""

    path: Path
    series: str
    description: str
    size: tuple[int, int]  # columns, rows
    spacing: np.ndarray  # (2,) distance of columns, of rows
    position: np.ndarray  # (3,) centre of the first pixel
    axes: np.ndarray  # (3, 2) unit vectors along a row, along a column
    rescale: tuple[float, float]


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (x, y, z), rescaled, and affine to RAS mm of the only series in `folder`; `InputError` if in doubt."""
    slices, affine = series_slices(folder)
    return _pixels(slices), affine


def series_slices(folder: Path) -> tuple[list[Slice], np.ndarray]:
    """The slices of the only series in `folder`, in the order of z, and the affine from (x, y, z) to RAS mm."""
    from pydicom.config import disable_value_validation

    with disable_value_validation():  # scanners break the letter of the standard in ways that do no harm here
        found = [one for one in map(_header, sorted(folder.iterdir())) if one]
    slices, affine = _geometry(folder, _one_series(folder, found))
    return slices, LPS @ affine


def _header(path: Path) -> Slice | None:
    """The header of a slice; None for what is no DICOM image."""
    from pydicom.errors import InvalidDicomError

    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return None
    try:
        return _slice(path)
    except InputError:
        raise
    except InvalidDicomError as error:
        if path.suffix.lower() in (".dcm", ".ima") or path.stat().st_size == 0:
            raise InputError(f"{path} is no DICOM file or is truncated: copy or export it again") from error
        log.debug("%s is not a DICOM file: left out", path)
        return None
    except Exception as error:  # pydicom raises many kinds for a damaged header, some of them late
        raise InputError(f"{path} has a damaged DICOM header ({error}): copy or export it again") from error


def _slice(path: Path) -> Slice | None:
    import pydicom

    # Pixels stay on disk: only their place and length are wanted.
    header = pydicom.dcmread(path, defer_size=1024, specific_tags=TAGS)
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    if "Rows" not in header:
        # Reports, plans and the like may stay; what could be the rest of a slice may not vanish silently.
        if kind is None or kind.name == kind or "Image Storage" in kind.name:
            raise InputError(
                f"{path} is truncated or no image (no Rows): copy it again, or remove it if it is no slice"
            )
        log.debug("%s holds no image: left out", path)
        return None
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{path} is a multi-frame DICOM file: convert it to NIfTI (for instance with dcm2niix) first")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(f"{path} has SamplesPerPixel {header.SamplesPerPixel} (colours): export the original series")
    needed = ("SeriesInstanceUID", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    missing = [tag for tag in needed if not header.get(tag)]
    if missing:
        raise InputError(
            f"{path} lacks {' and '.join(missing)}: remove it if it is no slice, or export the series again"
        )
    _check_pixels(path, header)
    axes = np.array(header.ImageOrientationPatient, dtype=np.float64).reshape(2, 3).T
    return Slice(
        path=path,
        series=str(header.SeriesInstanceUID),
        description=f"{header.get('Modality', '')} {header.get('SeriesDescription', '')}".strip(),
        size=(int(header.Columns), int(header.Rows)),
        # PixelSpacing gives the distance of rows first.
        spacing=np.array(header.PixelSpacing, dtype=np.float64).reshape(2)[::-1],
        position=np.array(header.ImagePositionPatient, dtype=np.float64).reshape(3),
        axes=axes / np.linalg.norm(axes, axis=0),
        rescale=(float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)),
    )


def _check_pixels(path: Path, header: Any) -> None:
    """Raise `InputError` unless the file holds as many pixel bytes as its header claims."""
    element = header.get_item("PixelData", keep_deferred=True)
    if element is None:
        raise InputError(f"{path} is truncated: it has no PixelData; copy or export it again")
    syntax = header.file_meta.get("TransferSyntaxUID")
    if element.length == UNDEFINED_LENGTH or (syntax is not None and syntax.is_compressed):
        return  # compressed: the decoder notices
    needed = int(header.Rows) * int(header.Columns) * int(header.BitsAllocated) // 8
    held = min(element.length, path.stat().st_size - element.value_tell)
    if held < needed:
        raise InputError(f"{path} is truncated: PixelData holds {held} of {needed} bytes; copy or export it again")


def _one_series(folder: Path, slices: list[Slice]) -> list[Slice]:
    groups = defaultdict(list)
    for one in slices:
        groups[one.series].append(one)
    if not groups:
        raise InputError(f"{folder} holds no DICOM images: give the folder that directly contains the slices")
    if len(groups) > 1:
        found = "; ".join(f"{uid} ({group[0].description}, {len(group)} slices)" for uid, group in groups.items())
        raise InputError(f"{folder} holds {len(groups)} DICOM series, put the one you want in its own folder: {found}")
    return slices


def _geometry(folder: Path, slices: list[Slice]) -> tuple[list[Slice], np.ndarray]:
    """Slices in spatial order and the affine from (column, row, slice) to LPS mm."""
    first = slices[0]
    if len(slices) < 2:
        raise InputError(f"{folder} holds a single DICOM slice: give the folder with the whole series")
    for other in slices[1:]:
        for what, same in (
            ("Rows and Columns", other.size == first.size),
            ("PixelSpacing", np.allclose(other.spacing, first.spacing, rtol=1e-3)),
            ("ImageOrientationPatient", np.allclose(other.axes, first.axes, atol=1e-3)),
        ):
            if not same:
                raise InputError(
                    f"{folder}: {what} differs between {first.path.name} and {other.path.name}: "
                    "remove slices that do not belong to the volume"
                )
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    slices = sorted(slices, key=lambda one: float(one.position @ normal))
    positions = np.array([one.position for one in slices])
    steps = np.diff(positions @ normal)
    _check_steps(folder, slices, steps)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    astray = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
    if astray.max() > 0.1 * np.median(steps) + 0.01:
        name = slices[int(astray.argmax())].path.name
        raise InputError(
            f"{folder}: slice {name} is {astray.max():.3g} mm off the line of the others: remove or repair it"
        )
    affine = np.eye(4)
    affine[:3, :2] = first.axes * first.spacing
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return slices, affine


def _check_steps(folder: Path, slices: list[Slice], steps: np.ndarray) -> None:
    typical = float(np.median(steps))
    if steps.min() < 1e-3:
        k = int(steps.argmin())
        raise InputError(
            f"{folder}: {slices[k].path.name} and {slices[k + 1].path.name} lie at the same position: "
            "keep one phase or echo of the series only"
        )
    # The DICOM strings are rounded and tables move unevenly by some hundredths of a millimetre.
    uneven = np.abs(steps - typical) > 0.02 * typical + 0.01
    if uneven.any():
        k = int(np.abs(steps - typical).argmax())
        between = (
            f"between {slices[k].path.name} and {slices[k + 1].path.name} ({steps[k]:.4g} instead of {typical:.4g} mm)"
        )
        if steps[k] > 1.5 * typical:
            gaps = int((steps > 1.5 * typical).sum())
            raise InputError(
                f"{folder}: slices are missing at {gaps} place(s), first {between}: export the series again"
            )
        raise InputError(f"{folder}: slices are unevenly spaced {between}: export or resample to even spacing")


def _pixels(slices: list[Slice]) -> np.ndarray:
    """Rescaled voxels: an integer type if slope and intercept are whole numbers in every slice, else float32."""
    whole = all(float(value).is_integer() for one in slices for value in one.rescale)
    array: np.ndarray | None = None
    for k, one in enumerate(slices):
        plane = _decode(one)
        if array is None:
            array = np.empty((len(slices), *plane.shape), plane.dtype if whole else np.float32)
        elif whole and not np.can_cast(plane.dtype, array.dtype):
            array = array.astype(np.result_type(plane.dtype, array.dtype))
        array[k] = plane
    assert array is not None
    return array.T


def _decode(one: Slice) -> np.ndarray:
    """Rescaled pixels (rows, columns): by GDCM, which knows every usual compression, else by pydicom."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(one.path))
    try:
        return SimpleITK.GetArrayFromImage(reader.Execute()).reshape(one.size[::-1])
    except (RuntimeError, ValueError) as error:
        log.debug("%s: GDCM failed (%s), trying pydicom", one.path, error)
    import pydicom

    try:
        stored = pydicom.dcmread(one.path).pixel_array.reshape(one.size[::-1])
    except Exception as error:  # whatever the decoders for pydicom raise
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"{one.path} cannot be decoded ({reason}): copy or export it again") from error
    slope, intercept = one.rescale
    if slope.is_integer() and intercept.is_integer():
        return stored.astype(np.int32) * int(slope) + int(intercept)
    return stored * slope + intercept
