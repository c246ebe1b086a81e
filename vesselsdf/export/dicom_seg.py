"""The mask as DICOM Segmentation (SEG) on the frames of the series that the scan came from."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf import __version__
from vesselsdf.dicom import series_slices
from vesselsdf.errors import InputError
from vesselsdf.export.result import mask_on
from vesselsdf.files import atomic_path

log = logging.getLogger(__name__)

SERIES_NUMBER = 900
"""Of the new series in the study; scanners count from 1."""


def write_seg(result: str | Path, series: str | Path, path: str | Path) -> int:
    """Write the mask of a result as a binary SEG that refers to a series; returns the number of its voxels in vessels.

    result: folder of a reconstruction, of this series or of anything else in its frame of reference. series: folder
    with the DICOM files of the one series. Frames without vessel are left out, as usual. Vessels carry the codes
    Tissue (SCT 85756007) and Blood vessel (SCT 59820001), and this package as the algorithm.
    Raises `InputError` for a series that cannot be trusted or lacks what SEG needs, if no vessel lies in it, and
    without the package highdicom.
    """
    try:
        import highdicom  # noqa: F401 (a clear sentence before the work begins)
    except ImportError:
        raise InputError("export seg needs the package highdicom: run `pip install 'vesselsdf[dicom]'`.") from None
    import pydicom

    if not Path(series).is_dir():
        raise InputError(f"{series} is no folder: give the folder with the DICOM series of the scan.")
    slices, affine = series_slices(Path(series))
    mask = mask_on(result, (*slices[0].size, len(slices)), affine)
    if not mask.any():
        raise InputError(f"No vessel of {result} lies in the series {series}: it must be of the same scan.")
    headers = [pydicom.dcmread(one.path, stop_before_pixels=True) for one in slices]
    _share_frame(headers, series)
    try:
        made = _segmentation(headers, np.ascontiguousarray(mask.T))
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{series} cannot be referred to by a SEG ({error}): export the original series.") from error
    with atomic_path(path) as temporary:
        made.save_as(temporary)
    return int(mask.sum())


def _share_frame(headers: list[Any], series: str | Path) -> None:
    """Give all slices the frame of reference of the first, as some anonymised series (LIDC-IDRI) have one a slice."""
    frames = [header.get("FrameOfReferenceUID") for header in headers]
    if len(set(frames)) > 1:
        log.warning("%s: its slices name different frames of reference; the SEG takes that of the first.", series)
        for header in headers:
            header.FrameOfReferenceUID = frames[0]


def _segmentation(headers: list[Any], frames: np.ndarray) -> Any:
    """The SEG of frames (slice, row, column), 0 or 1, of slices with these headers."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name="VesselSDF", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    vessel = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Vessels",
        segmented_property_category=codes.SCT.Tissue,
        segmented_property_type=codes.SCT.BloodVessel,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id="vessels",
    )
    return hd.seg.Segmentation(
        source_images=headers,
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[vessel],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="VesselSDF",
        manufacturer_model_name="vesselsdf",
        software_versions=__version__,
        device_serial_number="0",
        content_label="VESSELS",
        content_description="Vessels found by VesselSDF",
        series_description="Vessels (VesselSDF)",
    )
