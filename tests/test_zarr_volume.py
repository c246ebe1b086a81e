"""OME-Zarr volumes: written, read in boxes, foreign ones understood, others refused."""

import numpy as np
import pytest
import zarr

from vesselsdf.errors import InputError
from vesselsdf.volume import Volume, read_volume
from vesselsdf.zarr_volume import open_volume, write_volume

OBLIQUE = np.array([[0.0, -0.5, 0, 7], [0.4, 0, 0.3, -3], [-0.3, 0, 0.4, 2], [0, 0, 0, 1]])
BOX = (slice(3, 11), slice(0, 5), slice(4, 9))


def test_what_is_written_is_read_with_its_affine(tmp_path):
    array = np.random.default_rng(0).integers(-1000, 1000, (70, 20, 9)).astype(np.int16)
    write_volume(Volume(array, OBLIQUE), tmp_path / "a.zarr")
    found = open_volume(tmp_path / "a.zarr")
    assert found.shape == (70, 20, 9)
    assert np.allclose(found.affine, OBLIQUE)
    assert found.spacing == pytest.approx((0.5, 0.5, 0.5))
    part = found.read(BOX)
    assert part.dtype == np.int16
    assert part.flags.c_contiguous
    assert np.array_equal(part, array[BOX])


@pytest.mark.parametrize("version", [2, 3])
def test_foreign_images_with_their_own_order_of_axes_and_units(tmp_path, version):
    array = np.random.default_rng(0).random((1, 9, 20, 70)).astype(np.float32)
    group = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=version)
    stored = group.create_array("s0", shape=array.shape, dtype="float32")
    stored[...] = array
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    scale = [{"type": "scale", "scale": [1, 5, 2, 1]}, {"type": "translation", "translation": [0, 50, 20, 10]}]
    multiscales = [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": scale}]}]
    group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})
    found = open_volume(tmp_path / "a.zarr")
    assert found.shape == (70, 20, 9)
    assert found.spacing == pytest.approx((0.001, 0.002, 0.005))
    assert np.allclose(found.affine[:3, 3], (0.01, 0.02, 0.05))
    assert np.array_equal(found.read(BOX), array[0].T[BOX])


def test_a_plain_array_needs_a_spacing(tmp_path):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 5, 6), dtype="uint8")
    with pytest.raises(InputError, match="give it as --spacing"):
        open_volume(tmp_path / "a.zarr")
    assert open_volume(tmp_path / "a.zarr", (0.1, 0.2, 0.3)).spacing == pytest.approx((0.1, 0.2, 0.3))


def test_what_is_no_volume_is_refused(tmp_path):
    zarr.create_group(str(tmp_path / "group.zarr"))
    zarr.create_array(str(tmp_path / "flat.zarr"), shape=(4, 5), dtype="uint8")
    zarr.create_array(str(tmp_path / "complex.zarr"), shape=(4, 5, 6), dtype="complex64")
    for name, spacing, words in (
        ("none.zarr", None, "no Zarr array"),
        ("group.zarr", None, "no OME-Zarr image"),
        ("group.zarr", (1, 1, 1), "spacing of its own"),
        ("flat.zarr", (1, 1, 1), "no 3D volume"),
        ("complex.zarr", (1, 1, 1), "convert it to one channel"),
    ):
        with pytest.raises(InputError, match=words):
            open_volume(tmp_path / name, spacing)


def test_infinite_voxels_are_refused(tmp_path):
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = np.inf
    write_volume(Volume(array, np.eye(4)), tmp_path / "a.zarr")
    found = open_volume(tmp_path / "a.zarr")
    found.read((slice(2, 4), slice(0, 5), slice(0, 6)))
    with pytest.raises(InputError, match="NaN or infinite"):
        found.read((slice(0, 4), slice(0, 5), slice(0, 6)))


def test_it_is_read_as_any_volume(tmp_path):
    volume = Volume(np.random.default_rng(0).integers(0, 9, (20, 21, 22)).astype(np.int16), OBLIQUE)
    write_volume(volume, tmp_path / "a.zarr")
    found = read_volume(tmp_path / "a.zarr")
    assert np.array_equal(found.array, volume.array)
    assert np.allclose(found.affine, OBLIQUE)
