"""A DICOM series is read when it is one evenly spaced volume, and refused by name of the fault otherwise."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from vesselsdf.errors import InputError
from vesselsdf.volume import read_volume

SERIES = generate_uid(entropy_srcs=["one"])
STUDY = generate_uid(entropy_srcs=["study"])


def write_slice(path, pixels, position, axes=(1, 0, 0, 0, 1, 0), spacing=(0.6, 0.5), series=SERIES, **fields):
    """One slice; `pixels` (rows, columns), `spacing` (rows, columns), `position` in LPS mm."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID, header.SeriesInstanceUID = STUDY, series
    header.Modality, header.SeriesDescription = "CT", "arterial"
    header.Rows, header.Columns = pixels.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelSpacing, header.ImageOrientationPatient = list(spacing), [round(value, 8) for value in axes]
    header.ImagePositionPatient = [round(float(value), 6) for value in position]
    header.PixelData = pixels.tobytes()
    for name, value in fields.items():
        setattr(header, name, value)
    header.save_as(path, enforce_file_format=True)


AXES = np.linalg.qr(np.array([[0.9, 0.1, 0.3], [-0.2, 0.95, 0.1], [0.3, 0.2, -0.9]]))[0]
ORIGIN = np.array([-50.0, 30.0, 200.0])


def write_series(folder, n=6, step=2.5, **fields):
    """An oblique series whose file names are in another order than its slices; returns (z, rows, columns)."""
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(-500, 500, (n, 7, 9)).astype(np.int16)
    normal = np.cross(AXES[:, 0], AXES[:, 1])
    for k in range(n):
        path = folder / f"{(k * 5) % n:03d}.dcm"
        write_slice(path, pixels[k], ORIGIN + k * step * normal, (*AXES[:, 0], *AXES[:, 1]), **fields)
    return pixels


def path_of(folder, k, n=6):
    return folder / f"{(k * 5) % n:03d}.dcm"


def edit(path, **fields):
    header = pydicom.dcmread(path)
    for name, value in fields.items():
        setattr(header, name, value)
    header.save_as(path)


def test_an_oblique_series_lies_where_its_headers_say(tmp_path):
    pixels = write_series(tmp_path / "scan")
    (tmp_path / "scan/notes.txt").write_text("not DICOM")
    (tmp_path / "scan/.hidden").write_text("not DICOM")
    volume = read_volume(tmp_path / "scan")
    assert np.array_equal(volume.array, pixels.transpose(2, 1, 0))
    assert np.allclose(volume.spacing, (0.5, 0.6, 2.5), atol=1e-5)
    # DICOM PS3.3 C.7.6.2.1.1: position of column i and row j of slice k.
    i, j, k = 8, 6, 5
    normal = np.cross(AXES[:, 0], AXES[:, 1])
    lps = ORIGIN + AXES[:, 0] * 0.5 * i + AXES[:, 1] * 0.6 * j + normal * 2.5 * k
    assert np.allclose(volume.to_world(np.array([[i, j, k]]))[0], lps * [-1, -1, 1], atol=1e-4)


def test_rescaling_with_whole_numbers_keeps_integers(tmp_path):
    pixels = write_series(tmp_path / "a", RescaleSlope=2, RescaleIntercept=-1000)
    volume = read_volume(tmp_path / "a")
    assert volume.array.dtype.kind == "i"
    assert np.array_equal(volume.array, pixels.transpose(2, 1, 0) * 2 - 1000)
    pixels = write_series(tmp_path / "b", RescaleSlope=0.25, RescaleIntercept=1.5)
    volume = read_volume(tmp_path / "b")
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array, pixels.transpose(2, 1, 0) * 0.25 + 1.5)


def test_each_slice_has_its_own_slope(tmp_path):
    pixels = write_series(tmp_path / "pet")
    for k in range(6):
        edit(path_of(tmp_path / "pet", k), RescaleSlope=0.5 * (k + 1), RescaleIntercept=0)
    volume = read_volume(tmp_path / "pet")
    expected = pixels * (0.5 * np.arange(1, 7))[:, None, None]
    assert np.allclose(volume.array, expected.transpose(2, 1, 0))


def test_compressed_slices_are_decoded(tmp_path):
    # 63 pixels of 16 bits: GDCM 3 gives up on these, so both decoders are tried.
    pixels = write_series(tmp_path / "rle")
    for path in (tmp_path / "rle").iterdir():
        header = pydicom.dcmread(path)
        header.compress(pydicom.uid.RLELossless)
        header.save_as(path)
    assert np.array_equal(read_volume(tmp_path / "rle").array, pixels.transpose(2, 1, 0))


def test_gantry_tilt_is_resampled(tmp_path, caplog):
    (tmp_path / "tilt").mkdir()
    pixels = np.random.default_rng(0).integers(0, 500, (8, 16, 12)).astype(np.int16)
    for k in range(8):
        write_slice(tmp_path / f"tilt/{k}.dcm", pixels[k], (0, 0.8 * k, 2.0 * k))
    volume = read_volume(tmp_path / "tilt")
    assert "sheared" in caplog.text
    assert np.allclose(volume.spacing, (0.5, 0.6, 2.0))


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        (
            lambda folder: path_of(folder, 3).unlink(),
            "missing at 1 place",
        ),
        (
            lambda folder: edit(path_of(folder, 2), SeriesInstanceUID="1.2.3", SeriesDescription="venous"),
            r"holds 2 DICOM series.*1\.2\.3 \(CT venous, 1 slices\)",
        ),
        (lambda folder: edit(path_of(folder, 2), PixelSpacing=[0.7, 0.7]), "PixelSpacing differs"),
        (
            lambda folder: edit(path_of(folder, 2), ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            "ImageOrientationPatient",
        ),
        (lambda folder: shutil.copy(path_of(folder, 2), folder / "copy.dcm"), "same position"),
        (
            lambda folder: edit(
                path_of(folder, 2),
                ImagePositionPatient=list(ORIGIN + 5.6 * np.cross(AXES[:, 0], AXES[:, 1])),
            ),
            "unevenly spaced",
        ),
        (
            lambda folder: edit(
                path_of(folder, 2),
                ImagePositionPatient=list(ORIGIN + 5 * np.cross(AXES[:, 0], AXES[:, 1]) + 2 * AXES[:, 0]),
            ),
            "off the line",
        ),
        (lambda folder: edit(path_of(folder, 2), NumberOfFrames=4), "multi-frame"),
        (lambda folder: edit(path_of(folder, 2), SamplesPerPixel=3), "SamplesPerPixel 3"),
        (lambda folder: edit(path_of(folder, 2), ImagePositionPatient=None), "lacks ImagePositionPatient"),
        (lambda folder: edit(path_of(folder, 2), ImagePositionPatient=[1, 2]), "damaged DICOM header"),
        (lambda folder: path_of(folder, 2).write_bytes(path_of(folder, 2).read_bytes()[:-20]), "truncated"),
        (lambda folder: path_of(folder, 5).write_bytes(path_of(folder, 5).read_bytes()[:700]), "truncated"),
        (lambda folder: path_of(folder, 5).write_bytes(b""), "truncated"),
        (lambda folder: path_of(folder, 5).write_bytes(path_of(folder, 5).read_bytes()[:140]), "truncated|damaged"),
        (lambda folder: [path_of(folder, k).unlink() for k in range(1, 6)], "single DICOM slice"),
        (lambda folder: [path_of(folder, k).unlink() for k in range(6)], "no DICOM images"),
    ],
)
def test_series_that_are_no_volume_are_refused(tmp_path, fault, part):
    folder = tmp_path / "scan"
    write_series(folder)
    fault(folder)
    with pytest.raises(InputError, match=part) as caught:
        read_volume(folder)
    assert "scan" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_gap_is_named(tmp_path):
    write_series(tmp_path / "scan", n=6)
    path_of(tmp_path / "scan", 3).unlink()
    names = f"{path_of(tmp_path, 2).name} and {path_of(tmp_path, 4).name}"
    with pytest.raises(InputError, match=rf"{names} \(5 instead of 2\.5 mm\)"):
        read_volume(tmp_path / "scan")


def test_a_real_chest_agrees_with_simpleitk(shared_data):
    volume = read_volume(shared_data / "dicom_chest")
    assert volume.shape == (512, 512, 16)
    assert np.allclose(volume.spacing, (0.78125, 0.78125, 1.0))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared_data / "dicom_chest")))
    image = reader.Execute()
    assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, volume.array)
    for index in [(0, 0, 0), (511, 17, 15)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(volume.to_world(np.array([index]))[0], lps * [-1, -1, 1], atol=1e-4)


def test_a_slice_taken_from_the_real_chest_is_missed(shared_data, tmp_path):
    for path in (shared_data / "dicom_chest").iterdir():
        if path.name != "000048.dcm":
            shutil.copy(path, tmp_path / path.name)
    with pytest.raises(InputError, match=r"slices are missing at 1 place"):
        read_volume(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True))
def test_a_truncated_last_slice_never_vanishes(tmp_path, fraction):
    folder = tmp_path / "scan"
    if not folder.exists():
        write_series(folder)
        shutil.copy(path_of(folder, 5), tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    path_of(folder, 5).write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(InputError, match=path_of(folder, 5).name):
        read_volume(folder)
