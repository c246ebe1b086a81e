"""One small reconstruction, on a grid that is turned, mirrored and anisotropic, and what exports read of it."""

from pathlib import Path

import numpy as np
import pytest

import vesselsdf
from vesselsdf.graph_files import write_json
from vesselsdf.reconstruction import Reconstruction
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import Volume, write_volume


def turned(spacing):
    """An affine with these voxel edges that is neither diagonal nor right-handed."""
    a, b = 0.5, 0.3
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1.0, 1, 1]) * spacing
    affine[:3, 3] = 31.5, -102.25, 7.75
    return affine


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    """A simulated MR scan of 48 x 40 voxels of 0.5 mm and 22 slices of 1 mm."""
    image = synthetic_case(9, (48, 40, 44), (0.5,) * 3, "mr").image.array
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_volume(Volume(image.reshape(48, 40, 22, 2).mean(axis=3), turned([0.5, 0.5, 1.0])), path)
    return path


@pytest.fixture(scope="session")
def made(scan) -> Reconstruction:
    return vesselsdf.reconstruct(scan)


@pytest.fixture(scope="session")
def result(made, tmp_path_factory) -> Path:
    """A folder with those files of `made` that exports read."""
    folder = tmp_path_factory.mktemp("result")
    write_volume(made.sdf, folder / "sdf.nii.gz")
    write_volume(made.mask, folder / "vessels.nii.gz")
    write_json(made.graph, folder / "centreline.json")
    return folder
