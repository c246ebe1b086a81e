"""A DICOM SEG puts every voxel of the mask where it lies, by the headers of the series alone."""

import builtins
import logging

import highdicom
import numpy as np
import pydicom
import pytest
from scipy.ndimage import map_coordinates
from series import LPS, write_series

from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.export.dicom_seg import write_seg
from vesselsdf.volume import Volume, read_volume, write_volume


def vessel_places(path):
    """RAS mm of all vessel pixels, from the frames' own positions (PS3.3 C.7.6.2.1.1)."""
    header = pydicom.dcmread(path)
    shared = header.SharedFunctionalGroupsSequence[0]
    assert shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    x, y = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    places = []
    for frame, own in zip(header.pixel_array, header.PerFrameFunctionalGroupsSequence, strict=True):
        rows, columns = np.nonzero(frame)
        origin = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
        places.append(origin + np.outer(columns * spacing[1], x) + np.outer(rows * spacing[0], y))
    return np.concatenate(places) * [-1, -1, 1]


def by_highdicom(path, like):
    """The mask that highdicom reads, on the grid of a volume."""
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    found = Volume(volume.array.astype(np.uint8), LPS @ volume.affine)
    places = found.to_world(np.argwhere(found.array > 0))
    index = np.rint(like.to_index(places)).astype(int)
    mask = np.zeros(like.shape, np.uint8)
    mask[tuple(index.T)] = 1
    assert len(places) == mask.sum()
    return mask


@pytest.fixture(scope="module")
def seg(result, made, tmp_path_factory):
    """SEG on the series that the scan would have come from."""
    folder = tmp_path_factory.mktemp("dicom")
    write_series(folder / "series", made.input.shape, made.input.affine)
    arguments = ["export", "seg", str(result), "--series", str(folder / "series"), "-o", str(folder / "v.dcm")]
    assert main(arguments) == 0
    return folder


def test_on_its_own_series_it_is_the_mask_voxel_by_voxel(seg, made):
    """The grid is left-handed, so the series runs against the mask's z."""
    mask = made.mask
    index = mask.to_index(vessel_places(seg / "v.dcm"))
    assert np.abs(index - np.rint(index)).max() < 1e-3
    assert len(index) == mask.array.sum() > 1000
    assert mask.array[tuple(np.rint(index).astype(int).T)].all()
    assert np.array_equal(by_highdicom(seg / "v.dcm", mask), mask.array)


def test_it_says_what_it_is_and_whose(seg):
    header = pydicom.dcmread(seg / "v.dcm")
    source = pydicom.dcmread(next((seg / "series").glob("*.dcm")))
    assert header.SOPClassUID.name == "Segmentation Storage"
    assert header.SegmentationType == "BINARY"
    assert header.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert header.StudyInstanceUID == source.StudyInstanceUID
    assert header.SeriesInstanceUID != source.SeriesInstanceUID
    assert header.PatientID == source.PatientID
    assert header.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    (segment,) = header.SegmentSequence
    kind, category = segment.SegmentedPropertyTypeCodeSequence[0], segment.SegmentedPropertyCategoryCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("59820001", "SCT")
    assert (category.CodeValue, category.CodingSchemeDesignator) == ("85756007", "SCT")
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "VesselSDF"


def test_on_another_series_it_is_the_sign_of_the_field(result, made, tmp_path):
    """Axial slices of another spacing, as of a second scan in the same frame."""
    centre = made.input.to_world(np.array([[23.5, 19.5, 10.5]]))[0]
    shape, affine = (53, 61, 33), np.diag([0.7, -0.6, 0.9, 1.0])
    affine[:3, 3] = centre - affine[:3, :3] @ (np.array(shape) - 1) / 2
    write_series(tmp_path / "series", shape, affine)
    write_seg(result, tmp_path / "series", tmp_path / "v.dcm")
    grid = Volume(np.zeros(shape), affine)
    found = by_highdicom(tmp_path / "v.dcm", grid)
    index = made.sdf.to_index(grid.to_world(np.argwhere(np.ones(shape))))
    phi = map_coordinates(made.sdf.array, index.T, order=1, mode="nearest").reshape(shape)
    inside = ((index >= 0) & (index <= np.array(made.sdf.shape) - 1)).all(axis=1).reshape(shape)
    sure = inside & (np.abs(phi) > 1e-3)
    assert (found > 0)[inside].sum() > 500
    assert np.array_equal((found > 0)[sure], (phi <= 0)[sure])


def test_slices_with_a_frame_of_reference_each_get_the_first_ones(result, made, tmp_path, caplog):
    write_series(tmp_path / "series", made.input.shape, made.input.affine, frames=2)
    with caplog.at_level(logging.WARNING):
        write_seg(result, tmp_path / "series", tmp_path / "v.dcm")
    assert "different frames of reference" in caplog.text
    assert len(vessel_places(tmp_path / "v.dcm")) == made.mask.array.sum()


def test_a_series_elsewhere_is_refused(result, tmp_path):
    affine = np.eye(4)
    affine[:3, 3] = 500
    write_series(tmp_path / "series", (20, 20, 6), affine)
    with pytest.raises(InputError, match="lies in the series"):
        write_seg(result, tmp_path / "series", tmp_path / "v.dcm")
    assert not (tmp_path / "v.dcm").exists()


def test_what_is_no_result_or_no_series_is_refused(result, seg, tmp_path):
    with pytest.raises(InputError, match=r"has no vessels\.nii\.gz or vessels\.zarr"):
        write_seg(tmp_path, seg / "series", tmp_path / "v.dcm")
    with pytest.raises(InputError, match="is no folder"):
        write_seg(result, seg / "v.dcm", tmp_path / "v.dcm")
    with pytest.raises(InputError, match="holds no DICOM images"):
        write_seg(result, tmp_path, tmp_path / "v.dcm")


def test_a_series_that_lacks_what_seg_needs_is_refused(result, made, tmp_path):
    write_series(tmp_path / "series", made.input.shape, made.input.affine)
    for path in (tmp_path / "series").glob("*.dcm"):
        header = pydicom.dcmread(path)
        del header.FrameOfReferenceUID
        header.save_as(path)
    with pytest.raises(InputError, match=r"cannot be referred to by a SEG \(.*Frame Of Reference UID"):
        write_seg(result, tmp_path / "series", tmp_path / "v.dcm")


def test_without_highdicom_there_is_one_sentence(result, seg, tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def missing(name, *arguments, **named):
        if name.split(".")[0] == "highdicom":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["export", "seg", str(result), "--series", str(seg / "series")]) == 2
    assert "pip install 'vesselsdf[dicom]'" in capsys.readouterr().err


def test_of_a_real_chest_it_lies_on_the_bright_voxels(shared_data, tmp_path):
    series = shared_data / "dicom_chest"
    scan = read_volume(series)
    bright = scan.with_array((scan.array > 300).astype(np.uint8))
    write_volume(bright, tmp_path / "result/vessels.nii.gz")
    assert write_seg(tmp_path / "result", series, tmp_path / "v.dcm") == bright.array.sum() > 1000
    assert np.array_equal(by_highdicom(tmp_path / "v.dcm", bright), bright.array)
