"""Scans converted layer by layer read back as they were."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile

from vesselsdf import conversion
from vesselsdf.cli import main
from vesselsdf.conversion import convert
from vesselsdf.errors import InputError
from vesselsdf.volume import Volume, read_volume, write_volume

TURNED = np.array([[0, -0.4, 0.3, 5], [0.5, 0, 0, -7], [0, 0.3, 0.4, 2], [0, 0, 0, 1]], float)
STACK = np.random.default_rng(0).integers(0, 4000, (17, 12, 9)).astype(np.int16)


@pytest.fixture(autouse=True)
def few_layers(monkeypatch):
    """Several reads, the last of which is short."""
    monkeypatch.setattr(conversion, "CHUNK", 4)


def same(path, expected):
    found = read_volume(path)
    assert found.array.dtype == expected.array.dtype
    assert np.array_equal(found.array, expected.array)
    assert np.allclose(found.affine, expected.affine, atol=1e-5)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_formats_with_a_place_in_the_world(tmp_path, name, dtype):
    write_volume(Volume(STACK.astype(dtype), TURNED), tmp_path / name)
    convert(tmp_path / name, tmp_path / "scan.zarr")
    same(tmp_path / "scan.zarr", read_volume(tmp_path / name))


def test_scaled_nifti_becomes_what_it_means(tmp_path):
    image = nibabel.Nifti1Image(STACK.astype(">i2"), TURNED)
    image.header.set_slope_inter(0.5, -1024)
    nibabel.save(image, tmp_path / "scan.nii.gz")
    convert(tmp_path / "scan.nii.gz", tmp_path / "scan.zarr")
    same(tmp_path / "scan.zarr", read_volume(tmp_path / "scan.nii.gz"))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_slices_are_taken_in_the_order_of_their_numbers(tmp_path, compression):
    folder = tmp_path / "slices"
    folder.mkdir()
    for number, layer in enumerate(STACK.T):
        tifffile.imwrite(folder / f"z{number}.tif", layer, compression=compression)
    (folder / "notes.txt").write_text("taken on a Monday")
    expected = Volume(STACK, np.diag([0.5, 0.6, 2.0, 1.0]))
    convert(folder, tmp_path / "scan.zarr", (0.5, 0.6, 2.0))
    same(tmp_path / "scan.zarr", expected)
    assert np.array_equal(read_volume(folder, (0.5, 0.6, 2.0)).array, STACK)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_tiff_stack(tmp_path, compression):
    if compression == "lzw":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(STACK.T), str(tmp_path / "a.tif"), True)
    else:
        tifffile.imwrite(tmp_path / "a.tif", STACK.T, compression=compression, photometric="minisblack")
    convert(tmp_path / "a.tif", tmp_path / "a.zarr", (1, 1, 3))
    same(tmp_path / "a.zarr", Volume(STACK, np.diag([1.0, 1.0, 3.0, 1.0])))


def test_big_endian_stack_in_one_piece(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK.T.astype(">i2"), byteorder=">", imagej=False, photometric="minisblack")
    same(convert(tmp_path / "a.tif", tmp_path / "a.zarr", (1, 1, 1)).path, Volume(STACK, np.eye(4)))


def test_npy(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    same(convert(tmp_path / "a.npy", tmp_path / "a.zarr", (1, 1, 1)).path, Volume(STACK, np.eye(4)))


@pytest.mark.parametrize("odd", [np.zeros((3, 12), np.int16), np.zeros((12, 17), np.uint8), b"II no image"])
def test_a_slice_unlike_the_others_is_named(tmp_path, odd):
    folder = tmp_path / "slices"
    folder.mkdir()
    for number, layer in enumerate(STACK.T):
        tifffile.imwrite(folder / f"z{number:02}.tif", layer)
    if isinstance(odd, bytes):
        (folder / "z05.tif").write_bytes(odd)
    else:
        tifffile.imwrite(folder / "z05.tif", odd)
    with pytest.raises(InputError, match=r"z05.tif"):
        convert(folder, tmp_path / "a.zarr", (1, 1, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["slices"]


def test_packed_data_that_are_damaged_are_noticed(tmp_path):
    write_volume(Volume(STACK, TURNED), tmp_path / "a.nii")
    packed = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes(), mtime=0))
    for place in (len(packed) // 2, len(packed) - 6):  # the latter in the checksum
        broken = packed.copy()
        broken[place] ^= 0xFF
        (tmp_path / "a.nii.gz").write_bytes(broken)
        with pytest.raises(InputError, match=r"a.nii.gz is (damaged|truncated)"):
            convert(tmp_path / "a.nii.gz", tmp_path / "a.zarr")
        assert not (tmp_path / "a.zarr").exists()


def test_what_cannot_be_converted_is_refused_in_a_sentence(tmp_path):
    bad = STACK.astype(np.float32)
    bad[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(bad, TURNED), tmp_path / "nan.nii")
    tifffile.imwrite(tmp_path / "a.tif", STACK.T, photometric="minisblack")
    sheared = TURNED.copy()
    sheared[0, 0] = 0.3
    nibabel.save(nibabel.Nifti1Image(STACK, sheared), tmp_path / "sheared.nii")
    (tmp_path / "there.zarr").mkdir()
    for source, output, words in (
        ("nan.nii", "a.zarr", "1 NaN"),
        ("sheared.nii", "a.zarr", "sheared"),
        ("a.tif", "a.zarr", "--spacing"),
        ("none.nii", "a.zarr", "does not exist"),
        ("a.tif", "there.zarr", "exists"),
    ):
        with pytest.raises(InputError, match=words):
            convert(tmp_path / source, tmp_path / output)
        assert not (tmp_path / "a.zarr").exists()


def test_by_the_command_line(tmp_path, capsys):
    write_volume(Volume(STACK, np.diag([0.5, 0.5, 2.0, 1.0])), tmp_path / "a.nii.gz")
    assert main(["convert", str(tmp_path / "a.nii.gz"), str(tmp_path / "a.zarr")]) == 0
    assert "17 x 12 x 9 voxels of 0.5 x 0.5 x 2 mm" in capsys.readouterr().out
