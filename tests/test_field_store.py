"""Fields on disk: what is read back, what it takes, and that blocks of it fit together."""

import itertools

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vesselsdf.errors import InputError
from vesselsdf.field_store import FieldStore, write_fields
from vesselsdf.scales import level_shape, pyramid
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import read_volume

TURNED = np.array([[0.0, -0.5, 0, 7], [0.5, 0, 0, -3], [0, 0, -0.5, 2], [0, 0, 0, 1]])


def written(folder, fields, max_error):
    path = folder / f"{len(list(folder.iterdir()))}.zarr"
    return write_fields(path, fields, TURNED, max_error)


values = st.floats(-30, 30, width=32) | st.sampled_from([0.0, 1e-30, -1e-30, 0.25, -0.25])


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    levels=st.integers(1, 4),
    max_error=st.sampled_from([0.3, 0.125, 4.0]),
    data=st.data(),
)
def test_whatever_the_fields_errors_are_bounded_and_no_voxel_changes_sides(
    tmp_path_factory, shape, levels, max_error, data
):
    """Levels of their own, that need not have anything to do with each other."""
    fields = [data.draw(arrays.arrays(np.float32, level_shape(shape, n), elements=values)) for n in range(levels)]
    store = written(tmp_path_factory.mktemp("stores"), fields, max_error)
    for level, field in enumerate(fields):
        found = store.read(level)
        errors = np.abs(found - field)
        assert errors.max() <= max_error * (1 + 1e-5)
        assert errors[np.abs(field) <= 2 * 0.5 * 2**level].max(initial=0) <= store.step * (1 + 1e-5)
        assert np.array_equal(found <= 0, field <= 0)


@pytest.fixture(scope="module")
def tree():
    return pyramid(synthetic_case(3, (90, 77, 70), (0.5,) * 3, "ct").sdf.array, 4, "sample")


@pytest.mark.parametrize("block", [32, 40, 64])
def test_blocks_written_in_any_order_from_parts_are_the_whole(tmp_path, tree, block):
    whole = written(tmp_path, tree, 0.01)
    shape = tree[0].shape
    store = FieldStore.create(tmp_path / "parts.zarr", shape, TURNED, 4, 0.01, block)
    corners = list(itertools.product(*(range(0, n, block) for n in shape)))
    for number in np.random.default_rng(0).permutation(len(corners)):
        low = np.array(corners[number])
        high = np.minimum(low + block, shape)
        first = np.maximum(low - 16, 0) // 8 * 8
        part = [field[tuple(map(slice, first >> level, -(-(high + 16) >> level)))] for level, field in enumerate(tree)]
        store.write(part, low, high, first)
    for level in range(4):
        assert np.array_equal(store.read(level), whole.read(level))


def test_a_box_is_read_without_the_rest(tmp_path, tree):
    store = FieldStore.open(written(tmp_path, tree, 0.01).path)
    assert np.array_equal(store.affine, TURNED)
    for level, low, high in ((0, (13, 50, 7), (77, 51, 64)), (1, (0, 3, 0), (45, 39, 1)), (3, (0, 0, 0), (12, 10, 9))):
        assert np.array_equal(store.read(level, low, high), store.read(level)[tuple(map(slice, low, high))])


def test_a_tree_takes_a_tenth_of_the_dense_file_at_most(tmp_path, tree):
    store = written(tmp_path, tree, None)
    size = sum(path.stat().st_size for path in store.path.rglob("*") if path.is_file())
    assert size < 0.1 * tree[0].nbytes
    assert store.max_error == pytest.approx(0.5 / 8)


def test_what_is_no_store_is_refused(tmp_path):
    zarr.create_group(str(tmp_path / "other.zarr"))
    foreign = zarr.open_group(str(written(tmp_path, [np.ones((4, 4, 4), np.float32)], 0.1).path))
    foreign.create_array("0", shape=(4, 4, 4), dtype="float64", overwrite=True)
    (tmp_path / "file.zarr").write_text("{}")
    for path in (
        tmp_path / "other.zarr",
        foreign.store_path.store.root,
        tmp_path / "none.zarr",
        tmp_path / "file.zarr",
    ):
        with pytest.raises(InputError, match="no field that vesselsdf wrote"):
            FieldStore.open(path)


def test_a_block_that_would_cut_voxels_is_refused(tmp_path):
    with pytest.raises(InputError, match="multiple of 8 for 4 levels"):
        FieldStore.create(tmp_path / "a.zarr", (20, 20, 20), TURNED, 4, block=36)


def test_it_is_read_as_any_volume(tmp_path, tree):
    store = write_fields(tmp_path / "sdf.zarr", tree, TURNED)
    volume = read_volume(tmp_path / "sdf.zarr")
    assert np.array_equal(volume.array, store.read())
    assert np.array_equal(volume.affine, TURNED)
    with pytest.raises(InputError, match="spacing"):
        read_volume(tmp_path / "sdf.zarr", (1, 1, 1))
