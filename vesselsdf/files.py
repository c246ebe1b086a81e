"""Writing files so that a kill at any moment leaves the old file or the new one, never half of either."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf.errors import InputError

PARTIAL = ".partial-"
"""How the names of files and folders that are still being written begin."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`, with the same suffixes, that replaces `path` if the block succeeds.

    The suffixes are kept because many writers choose the format by them (`x.nii.gz`). On an error the temporary
    file is removed and `path` is left as it was.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text(), len(list(folder.iterdir()))
    ('whole', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix="".join(path.suffixes[-2:]), dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        _publish(temporary, 0o666)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_own(folder: str | Path, mark: str) -> None:
    """Raise InputError if there is a folder with something in it that lacks the file `mark`: it is somebody else's."""
    path = Path(folder)
    if path.exists() and not (path / mark).is_file() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{folder} holds something else, which would be lost: give a name that is not taken.")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place, whatever was there, if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=path.suffix, dir=path.parent))
    try:
        yield temporary
        _publish(temporary, 0o777)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def new_folder(path: str | Path, make: Callable[[Path], Any]) -> None:
    """Have `make` fill a folder unless there is one; if several processes do that at once, the first one's stays."""
    path = Path(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=path.suffix, dir=path.parent))
    try:
        make(temporary)
        _publish(temporary, 0o777)
        os.rename(temporary, path)  # refuses where there is a folder that is not empty
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not (isinstance(error, OSError) and path.exists()):
            raise


def _publish(temporary: Path, mode: int) -> None:
    """Temporary files and folders are private; results should be as readable as any other of the user."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, mode & ~umask)


def remove_partial(folder: Path) -> None:
    """Remove what a killed run had begun to write below `folder`."""
    for path in sorted(folder.rglob(f"{PARTIAL}*"), reverse=True):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` atomically as strict JSON; see `jsonable` for what becomes of arrays and infinities."""
    write_text(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """The same value in JSON's types: arrays as lists, infinities as the strings "inf" and "-inf", NaN as null.

    >>> jsonable({"death": np.float32("inf"), "place": np.array([1.0, 2.0])})
    {'death': 'inf', 'place': [1.0, 2.0]}
    """
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value
