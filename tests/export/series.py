"""A DICOM series with all that other software asks of one."""

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_series(folder, shape, affine, frames=1):
    """A CT series of zeros on a grid (x, y, z), affine to RAS mm; `frames`: frames of reference that slices name."""
    folder.mkdir()
    affine = LPS @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    x, y = (affine[:3, axis] / spacing[axis] for axis in range(2))
    study, series = generate_uid(), generate_uid()
    references = [generate_uid() for _ in range(frames)]
    for k in range(shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        path = folder / f"{(k * 7) % 1000:03d}.dcm"
        header = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID = study, series
        header.FrameOfReferenceUID = references[k % frames]
        header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = "7", "A^B", "19700101", "O"
        header.StudyDate, header.StudyTime, header.StudyID, header.AccessionNumber = "20260101", "120000", "1", "2"
        header.ReferringPhysicianName = header.PositionReferenceIndicator = header.Manufacturer = ""
        header.Modality, header.SeriesNumber, header.InstanceNumber = "CT", 3, k + 1
        header.Rows, header.Columns, header.SamplesPerPixel = shape[1], shape[0], 1
        header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 1
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelSpacing = [round(float(spacing[1]), 8), round(float(spacing[0]), 8)]
        header.SliceThickness = round(float(spacing[2]), 8)
        header.ImageOrientationPatient = [round(float(value), 10) for value in (*x, *y)]
        header.ImagePositionPatient = [round(float(value), 8) for value in affine[:3] @ [0, 0, k, 1]]
        header.PixelData = np.zeros((shape[1], shape[0]), np.int16).tobytes()
        header.save_as(path, enforce_file_format=True)
