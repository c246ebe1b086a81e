"""Finding out how many bytes a file really holds, without keeping them; used by the readers of file formats."""

import bz2
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vesselsdf.errors import InputError

CHUNK = 1 << 22


def inflate(path: Path, offset: int, kind: str) -> Iterator[bytes]:
    """Decompressed pieces of at most `CHUNK` bytes of a "gzip", "zlib" or "bzip2" stream; `InputError` if damaged."""
    make: Callable[[], Any] = {
        "gzip": lambda: zlib.decompressobj(31),
        "zlib": lambda: zlib.decompressobj(15),
        "bzip2": bz2.BZ2Decompressor,
    }[kind]
    magic = {"gzip": b"\x1f\x8b", "bzip2": b"BZh"}.get(kind, b"")
    stream = make()
    with open(path, "rb") as file:
        file.seek(offset)
        pending = b""
        while True:
            if stream.eof:
                rest = (stream.unused_data or pending) or file.read(CHUNK)
                if not magic or not rest.startswith(magic):
                    return  # padding after the stream is none of our business
                stream, pending = make(), rest
            try:
                piece = stream.decompress(pending, CHUNK)
            except (zlib.error, OSError, EOFError) as error:
                raise InputError(f"{path} is damaged ({error}): copy or download it again") from error
            pending = getattr(stream, "unconsumed_tail", b"")
            if piece:
                yield piece
            elif not stream.eof and not pending and getattr(stream, "needs_input", True):
                pending = file.read(CHUNK)
                if not pending:
                    raise InputError(f"{path} is truncated: its compressed data stop early; copy or download it again")


def check_size(path: Path, claimed: int, held: int) -> None:
    """Raise `InputError` if the header claims more bytes than the file holds."""
    if held < claimed:
        raise InputError(
            f"{path} is truncated or its header is wrong: the header claims {claimed} bytes, the file holds {held}; "
            "copy or download it again"
        )


def check_compressed(path: Path, offset: int, kind: str, claimed: int) -> None:
    """Count what a compressed stream holds, keeping nothing; gives up early where the claim cannot be true."""
    size = path.stat().st_size - offset
    if kind != "bzip2" and claimed > 1040 * size + CHUNK:  # deflate packs at most 1032 : 1
        raise InputError(
            f"{path} is truncated or its header is wrong: the header claims {claimed} bytes, more than {size} "
            "compressed bytes can hold; copy or download it again"
        )
    if kind == "gzip":
        with open(path, "rb") as file:
            file.seek(-4, 2)
            if int.from_bytes(file.read(4), "little") == claimed % 2**32:
                return  # the trailer of a whole file says what the header says; decompression verifies it
    check_size(path, claimed, sum(len(piece) for piece in inflate(path, offset, kind)))
