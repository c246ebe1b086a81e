"""Writing files: whole or not at all, and JSON that every reader accepts."""

import json
import math
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesselsdf.files import atomic_folder, atomic_path, jsonable, new_folder, write_json, write_text

# Writes half of a file, says so, and waits to be killed.
HALF_WRITER = """
import sys, time
from vesselsdf.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    with open(temporary, "w") as handle:
        handle.write("half of the new")
        handle.flush()
        print("written", flush=True)
        time.sleep(60)
"""


def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.nii.gz"
    write_text(path, "the old file")
    root = Path(__file__).resolve().parents[1]
    writer = subprocess.Popen(
        [sys.executable, "-c", HALF_WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    with writer:
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
    assert path.read_text() == "the old file"
    # What is left over is hidden and does not pass for a result.
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".partial-")] == ["result.nii.gz"]


def test_a_reader_sees_the_old_file_or_the_new_one_at_any_moment(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        temporary.write_text("new, " * 10_000)
        assert path.read_text() == "old"
    assert path.read_text() == "new, " * 10_000
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail_halfway():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_suffixes_and_the_folder(tmp_path):
    with atomic_path(tmp_path / "new" / "x.nii.gz") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("")


def test_a_failed_block_creates_no_file(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_results_have_the_permissions_of_any_other_file(tmp_path):
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain")]
    assert modes[0] == modes[1]


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "β₁ µm")
    assert (tmp_path / "a.txt").read_bytes().decode("utf-8") == "β₁ µm"


def test_json_is_strict_and_holds_what_numpy_gives(tmp_path):
    value = {
        "hd95": math.inf,
        "low": np.float32("-inf"),
        "nothing": math.nan,
        3: np.arange(3, dtype=np.uint8),
        "places": [(np.float64(1.5), Path("a") / "b")],
        "flag": np.bool_(True),
        "missing": None,
    }
    path = tmp_path / "a.json"
    write_json(path, value)

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    assert json.loads(path.read_text(), parse_constant=refuse) == {
        "hd95": "inf",
        "low": "-inf",
        "nothing": None,
        "3": [0, 1, 2],
        "places": [[1.5, str(Path("a") / "b")]],
        "flag": True,
        "missing": None,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_what_is_json_already_stays_as_it_is(value):
    assert jsonable(value) == value
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) == value


def test_a_folder_takes_the_place_of_another_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.zarr"
    for text in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / "file").write_text(text)
        assert (path / "file").read_text() == text
    with pytest.raises(FileNotFoundError), atomic_folder(path) as temporary:
        (temporary / "there" / "file").write_text("third")
    assert (path / "file").read_text() == "second"
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]


def test_of_several_that_make_a_folder_the_first_one_stays(tmp_path):
    path = tmp_path / "a.zarr"

    def slow(temporary):
        new_folder(path, lambda other: (other / "file").write_text("first"))
        (temporary / "file").write_text("second")

    new_folder(path, slow)
    assert (path / "file").read_text() == "first"
    new_folder(path, lambda temporary: (temporary / "file").write_text("third"))
    assert (path / "file").read_text() == "first"
    with pytest.raises(ZeroDivisionError):
        new_folder(tmp_path / "b", lambda temporary: 1 / 0)
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]
