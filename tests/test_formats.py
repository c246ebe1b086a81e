"""Every format keeps voxels and place; every damaged file is refused in one sentence before it can mislead."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vesselsdf.errors import InputError
from vesselsdf.volume import Volume, check_same_grid, facts, read_volume, write_volume

RNG = np.random.default_rng(0)
ITK = {".nrrd", ".mha"}


def oblique(angles=(10, -25, 40), spacing=(0.7, 0.9, 2.5), flips=(1, 1, 1), permutation=(0, 1, 2)):
    affine = np.eye(4)
    axes = np.diag(np.multiply(spacing, flips))[:, list(permutation)]
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ axes
    affine[:3, 3] = (-180.5, 133.25, 410.125)
    return affine


def corners(volume):
    ends = [(0, n - 1) for n in volume.shape]
    return volume.to_world(np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3))


def nifti(path, array, affine=None, **fields):
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    "affine",
    [
        oblique(),
        oblique(flips=(-1, 1, 1)),
        oblique(flips=(-1, -1, 1), permutation=(2, 0, 1)),
        oblique((0, 0, 0)),
        oblique((90, 0, 180), flips=(1, -1, 1)),
    ],
)
def test_round_trip(tmp_path, suffix, affine):
    volume = Volume(RNG.integers(-1000, 3000, (12, 10, 7)).astype(np.int16), affine)
    path = tmp_path / f"a.b{suffix}"
    write_volume(volume, path)
    again = read_volume(path)
    assert np.array_equal(again.array, volume.array)
    assert again.array.dtype == np.int16
    assert np.abs(corners(again) - corners(volume)).max() < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_types_survive(tmp_path, suffix, kind, order):
    array = np.array(RNG.integers(0, 2 if kind is np.bool_ else 100, (4, 5, 6)).astype(kind), order=order)
    write_volume(Volume(array, oblique()), tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}").array
    assert np.array_equal(again, array)
    expected = {np.bool_: np.uint8, np.int64: np.int64 if suffix in ITK else np.int32}.get(kind, kind)
    assert again.dtype == expected


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_simpleitk_sees_our_nifti_at_the_same_place(tmp_path, flips):
    volume = Volume(RNG.integers(0, 100, (5, 6, 7)).astype(np.int16), oblique(flips=flips))
    write_volume(volume, tmp_path / "a.nii.gz")
    image = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    for index in [(0, 0, 0), (4, 0, 0), (0, 5, 0), (4, 5, 6)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.abs(lps * [-1, -1, 1] - volume.to_world(np.array([index]))[0]).max() < 1e-3
        assert image[index] == volume.array[index]
    header = nibabel.load(tmp_path / "a.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    assert np.abs(header.get_qform() - header.get_sform()).max() < 1e-4


def test_writing_is_deterministic_and_replaces(tmp_path):
    volume = Volume(RNG.integers(0, 100, (5, 6, 7)).astype(np.int16), oblique())
    path = tmp_path / "a.nii.gz"
    path.write_text("old")
    write_volume(volume, path)
    first = path.read_bytes()
    write_volume(volume, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["a.mhd", "a.tif", "a.txt", "a"])
def test_unwritable_suffixes_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"cannot be written.*\.nii\.gz"):
        write_volume(Volume(np.zeros((2, 2, 2)), np.eye(4)), tmp_path / name)
    assert not list(tmp_path.iterdir())


# --- NIfTI -----------------------------------------------------------------------------------------------------------


def test_scaled_nifti_becomes_float32(tmp_path):
    array = RNG.integers(-50, 50, (4, 5, 6)).astype(np.int16)
    nifti(tmp_path / "a.nii", array)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = struct.pack("<2f", 0.5, -1024.0)
    (tmp_path / "a.nii").write_bytes(content)
    volume = read_volume(tmp_path / "a.nii")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, array * 0.5 - 1024)
    assert np.array_equal(volume.array, nibabel.load(tmp_path / "a.nii").get_fdata())


@pytest.mark.parametrize(("code", "h", "mm"), [(0, 0.5, 0.5), (1, 0.05, 50), (2, 0.5, 0.5), (3, 0.5, 5e-4), (10, 1, 1)])
def test_nifti_units_become_mm_as_itk_does(tmp_path, code, h, mm):
    path = nifti(tmp_path / "a.nii", np.ones((3, 3, 3), np.uint8), np.diag([h, h, 1.5 * h, 1]), xyzt_units=code)
    volume = read_volume(path)
    assert np.allclose(volume.spacing, (mm, mm, 1.5 * mm))
    assert np.allclose(SimpleITK.ReadImage(str(path)).GetSpacing(), volume.spacing, rtol=1e-5)


def test_big_endian_nifti2_and_wrong_suffix(tmp_path):
    array = RNG.integers(0, 100, (4, 5, 6)).astype(">i2")
    image = nibabel.Nifti2Image(array, oblique(), nibabel.Nifti2Header(endianness=">"))
    nibabel.save(image, tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())  # not compressed in spite of its name
    for name in ("a.nii", "b.nii.gz"):
        volume = read_volume(tmp_path / name)
        assert np.array_equal(volume.array, array)
        assert volume.array.dtype.isnative
        assert np.allclose(volume.affine, oblique())


def test_several_gzip_members_are_read_as_one(tmp_path):
    nifti(tmp_path / "a.nii", RNG.integers(0, 100, (4, 5, 6)).astype(np.int16))
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_volume(tmp_path / "b.nii.gz").array, read_volume(tmp_path / "a.nii").array)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True), st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha"]))
def test_truncated_files_are_always_refused(tmp_path, fraction, suffix):
    path = tmp_path / f"whole{suffix}"
    if not path.exists():
        array = np.random.default_rng(1).integers(0, 2, (24, 20, 16)).astype(np.int16)
        array[8:] = 0  # long runs, so that deflate has blocks to lose
        write_volume(Volume(array, oblique()), path)
    content = path.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(InputError, match="cut"):
        read_volume(cut)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.0, 1.0, exclude_max=True), st.booleans())
def test_truncated_tiffs_never_lose_slices_silently(tmp_path, fraction, interleaved):
    path = tmp_path / f"whole{interleaved}.tif"
    stack = np.random.default_rng(2).integers(0, 255, (6, 10, 12)).astype(np.uint8)
    if not path.exists():
        with tifffile.TiffWriter(path) as writer:
            for page in stack if interleaved else [stack]:
                writer.write(page, contiguous=False)
    content = path.read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(content[: int(fraction * len(content))])
    try:  # padding or metadata at the end may go, voxels may not
        assert np.array_equal(read_volume(cut, (1, 1, 1)).array, stack.T)
    except InputError as error:
        assert "cut.tif" in str(error)  # noqa: PT017


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([".nii", ".nrrd", ".mha", ".tif", ".npy"]), st.integers(0, 419), st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused_but_never_fails_otherwise(tmp_path, suffix, place, value):
    path = tmp_path / f"whole{suffix}"
    if not path.exists():
        array = np.arange(8 * 9 * 10, dtype=np.int16).reshape(8, 9, 10)
        if suffix == ".npy":
            np.save(path, array)
        elif suffix == ".tif":
            tifffile.imwrite(path, array)
        else:
            write_volume(Volume(array, oblique()), path)
    content = bytearray(path.read_bytes())
    content[place] = value
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(content)
    try:
        read_volume(damaged, (1, 1, 1) if suffix in (".tif", ".npy") else None)
    except InputError as error:
        assert "damaged" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("compress", [False, True])
def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path, compress):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float64)
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = header.binaryblock + bytes(4 + 5000)
    path = tmp_path / ("a.nii.gz" if compress else "a.nii")
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(InputError, match="the header claims 216000000000352 bytes"):
        read_volume(path)


def test_a_flipped_bit_in_a_compressed_file_is_noticed(tmp_path):
    write_volume(Volume(RNG.normal(size=(16, 16, 16)).astype(np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    content[len(content) // 2] ^= 16
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read_volume(tmp_path / "a.nii.gz")


def test_bad_geometry_is_refused(tmp_path):
    array = np.ones((4, 4, 4), np.uint8)

    for row, part in [((np.nan, 0, 0, 0), "NaN"), ((0, 0, 0, 0), "spacing along axis x is zero")]:
        path = nifti(tmp_path / "a.nii", array)
        content = bytearray(path.read_bytes())
        content[280:296] = struct.pack("<4f", *row)
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"a.nii: the affine .*{part}.*: repair"):
            read_volume(path)
    with pytest.raises(InputError, match=r"spacing 200 x 1 x 1 mm is outside 0.0001 to 100"):
        read_volume(nifti(tmp_path / "b.nii", array, np.diag([200.0, 1, 1, 1])))
    with pytest.raises(InputError, match="spacing 1e-06"):
        read_volume(nifti(tmp_path / "c.nii", array, np.diag([1e-6, 1, 1, 1])))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 4, 2), (8, 8, 4, 1, 3)])
def test_other_than_three_dimensions_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match="not a 3D volume"):
        read_volume(nifti(tmp_path / "a.nii.gz", np.ones(shape, np.float32)))


def test_a_trailing_single_axis_is_dropped(tmp_path):
    array = RNG.normal(size=(8, 7, 4, 1)).astype(np.float32)
    assert np.array_equal(read_volume(nifti(tmp_path / "a.nii.gz", array)).array, array[..., 0])
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_volume(tmp_path / "a.npy", (1, 1, 2)).array, array[..., 0])
    write = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(array[..., 0])])
    SimpleITK.WriteImage(write, str(tmp_path / "a.nrrd"))
    assert read_volume(tmp_path / "a.nrrd").shape == (4, 7, 8)


def test_bad_voxels_are_refused(tmp_path):
    array = np.ones((4, 4, 4), np.float32)
    array[0, 0, :2] = np.nan, np.inf
    with pytest.raises(InputError, match=r"a\.nii has 2 NaN or infinite voxels"):
        read_volume(nifti(tmp_path / "a.nii", array))
    with pytest.raises(InputError, match="complex"):
        read_volume(nifti(tmp_path / "b.nii", np.ones((4, 4, 4), np.complex64)))
    colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="one channel"):
        read_volume(nifti(tmp_path / "c.nii", colours))
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4], SimpleITK.sitkVectorUInt8, 3), str(tmp_path / "d.nrrd"))
    with pytest.raises(InputError, match="3 values per voxel"):
        read_volume(tmp_path / "d.nrrd")


def test_sheared_files_are_straightened_or_refused(tmp_path, caplog):
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.5
    volume = read_volume(nifti(tmp_path / "a.nii", RNG.normal(size=(9, 9, 9)), affine))
    assert "sheared" in caplog.text
    assert np.allclose(volume.spacing, (1, 1, 2))
    affine[1, 2] = 3.0
    with pytest.raises(InputError, match="45 degrees"):
        read_volume(nifti(tmp_path / "b.nii", np.ones((9, 9, 9)), affine))


# --- NRRD and MetaImage ----------------------------------------------------------------------------------------------


def test_nrrd_units_and_spaces(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, order="F")
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n"
    ras = head + "space: right-anterior-superior\nspace directions: (2,0,0) (0,2,0) (0,0,3)\nspace origin: (7,8,9)\n"
    (tmp_path / "a.nrrd").write_bytes(ras.encode() + b"\n" + array.tobytes("F"))
    volume = read_volume(tmp_path / "a.nrrd")
    assert np.array_equal(volume.array, array)
    assert np.allclose(volume.affine, [[2, 0, 0, 7], [0, 2, 0, 8], [0, 0, 3, 9], [0, 0, 0, 1]])
    (tmp_path / "b.nrrd").write_bytes((ras + 'space units: "um" "um" "um"\n').encode() + b"\n" + array.tobytes("F"))
    assert np.allclose(read_volume(tmp_path / "b.nrrd").spacing, (0.002, 0.002, 0.003))
    (tmp_path / "c.nrrd").write_bytes((ras + 'space units: "um" "mm" "um"\n').encode() + b"\n" + array.tobytes("F"))
    with pytest.raises(InputError, match="units"):
        read_volume(tmp_path / "c.nrrd")


def test_detached_data_files(tmp_path):
    array = RNG.integers(0, 100, (5, 6, 7)).astype(np.int16)
    image = SimpleITK.GetImageFromArray(array)
    for suffix, raw in ((".mhd", ".raw"), (".mhd", ".zraw"), (".nhdr", ".raw"), (".nhdr", ".raw.gz")):
        header, data = tmp_path / f"a{suffix}", tmp_path / f"a{raw}"
        SimpleITK.WriteImage(image, str(header), useCompression=raw not in (".raw",))
        assert np.array_equal(read_volume(header).array, array.T)
        content = data.read_bytes()
        data.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match="truncated"):
            read_volume(header)
        data.unlink()
        with pytest.raises(InputError, match=rf"names the data file a{raw}, which is not beside it"):
            read_volume(header)


def test_meta_images_over_several_files_are_refused(tmp_path):
    (tmp_path / "a.mhd").write_text(
        "NDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LIST\na.raw\n"
    )
    with pytest.raises(InputError, match="several data files"):
        read_volume(tmp_path / "a.mhd")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.nii", "a.nii.gz", "a.npy", "a.tif"])
@pytest.mark.parametrize("content", [b"", b"\n", b"hello world " * 100, bytes(1000)])
def test_files_that_are_something_else_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_volume(tmp_path / name, (1, 1, 1) if name in ("a.npy", "a.tif") else None)


# --- arrays without geometry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_pages_are_z_rows_y_columns_x(tmp_path, compression):
    stack = RNG.integers(0, 255, (4, 5, 6)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression=compression, photometric="minisblack")
    volume = read_volume(tmp_path / "a.tif", spacing=(0.5, 0.6, 2))
    assert volume.spacing == (0.5, 0.6, 2.0)
    assert volume.array[5, 3, 1] == stack[1, 3, 5]
    assert volume.shape == (6, 5, 4)


def test_tiffs_that_are_no_stack_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((4, 5, 6, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="one channel"):
        read_volume(tmp_path / "rgb.tif", (1, 1, 1))
    tifffile.imwrite(tmp_path / "page.tif", np.zeros((5, 6), np.uint8))
    with pytest.raises(InputError, match="not a 3D volume"):
        read_volume(tmp_path / "page.tif", (1, 1, 1))
    tifffile.imwrite(tmp_path / "hyper.tif", np.zeros((4, 2, 5, 6), np.uint8), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match="ZCYX"):
        read_volume(tmp_path / "hyper.tif", (1, 1, 1))


def test_npy_is_read_without_pickle(tmp_path):
    array = RNG.normal(size=(4, 5, 6))
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(read_volume(tmp_path / "a.npy", (1, 1, 2)).array, array)
    np.save(tmp_path / "b.npy", np.array([[["x", {}]]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"b\.npy"):
        read_volume(tmp_path / "b.npy", (1, 1, 2))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "c.npy").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"c\.npy"):
        read_volume(tmp_path / "c.npy", (1, 1, 2))


def test_spacing_is_asked_for_and_only_where_it_is_needed(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 4, 4)))
    with pytest.raises(InputError, match="--spacing"):
        read_volume(tmp_path / "a.npy")
    with pytest.raises(InputError, match="not three positive"):
        read_volume(tmp_path / "a.npy", (1.0, 0.0, 1.0))
    with pytest.raises(InputError, match="carries its own"):
        read_volume(nifti(tmp_path / "a.nii", np.ones((4, 4, 4))), (1, 1, 1))


def test_missing_and_unknown_files(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / "none.nii")
    (tmp_path / "a.jpg").write_text("x")
    with pytest.raises(InputError, match=r"unknown suffix.*\.nii\.gz"):
        read_volume(tmp_path / "a.jpg")
    (tmp_path / "a.dcm").write_text("x")
    with pytest.raises(InputError, match="give the folder"):
        read_volume(tmp_path / "a.dcm")


# --- real data -------------------------------------------------------------------------------------------------------


def test_nifti_and_nrrd_of_one_scan_agree(shared_data):
    a = read_volume(shared_data / "avf/avf_float_32.nii.gz")
    b = read_volume(shared_data / "avf/avf_float_32.nrrd")
    check_same_grid(a, b, ("nifti", "nrrd"))
    assert np.array_equal(a.array, b.array)


def test_the_surface_of_the_aorta_lies_in_its_image(shared_data):
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    image = read_volume(shared_data / "aorta/aorta.mha")
    reader = vtk.vtkXMLPolyDataReader()
    reader.SetFileName(str(shared_data / "aorta/aorta-surface.vtp"))
    reader.Update()
    points = vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).astype(float)
    index = image.to_index(points)
    assert (index > -0.5).all()
    assert (index < np.array(image.shape) - 0.5).all()
    # Its level set is zero at the surface, so the frames agree to a fraction of a voxel.
    level_set = read_volume(shared_data / "aorta/aorta-final-levelset.mha")
    nearest = np.rint(index).astype(int)
    assert np.abs(level_set.array[tuple(nearest.T)]).mean() < 1.0


@pytest.mark.parametrize(
    ("path", "shape", "spacing", "kind"),
    [
        ("pulmonary/PA000005.nii.gz", (512, 512, 258), (0.6465, 0.6465, 1.0), "int32"),
        ("head_avm/AVM.nii.gz", (337, 319, 154), (0.5469, 0.5469, 1.0), "float32"),
        ("circle_of_willis/topcow_mr_roi_003.nii.gz", (146, 121, 35), (0.2969, 0.2969, 0.6), "uint8"),
        ("noisy_trees/noisy.mhd", (100, 100, 100), (1, 1, 1), "uint8"),
        ("noisy_trees/original.mhd", (100, 100, 100), (1, 1, 1), "int8"),
    ],
)
def test_real_volumes(shared_data, path, shape, spacing, kind):
    volume = read_volume(shared_data / path)
    found = facts(volume, path)
    assert found["shape"] == shape
    assert np.allclose(found["spacing"], spacing, atol=1e-3)
    assert found["dtype"] == kind


def test_two_photon_stacks_read_with_and_without_compression(shared_data):
    for name, kind in [
        ("burgess2014_tgMouse_BM4D_denoised", "uint8"),  # LZW
        ("santos2015_lowContrastVessels_BM4D_denoised", "uint8"),  # ImageJ
        ("santos2015_lowContrastVessels_labelsMarc", "uint16"),  # PackBits
    ]:
        path = shared_data / "two_photon" / f"{name}.tif"
        volume = read_volume(path, (0.002, 0.002, 0.005))
        assert volume.shape == (512, 512, 15)
        assert volume.array.dtype == kind
        assert np.array_equal(volume.array.T, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
