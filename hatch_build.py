"""Puts three.js (MIT), which draws the 3D view of reports, into what is built: from npm's registry, once.

Its files are pinned by the checksum of the package; an sdist holds them, so a wheel built of one needs no network.
"""

import base64
import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VERSION = "0.171.0"
SHA512 = "Y/lAXPaKZPcEdkKjh0JOAHVv8OOnv/NDJqm0wjfCzyQmfKxV7zvkwsnBgPBKTzJHToSOhRGQAGbPJObT59B/PQ=="
SOURCE = f"https://registry.npmjs.org/three/-/three-{VERSION}.tgz"
FOLDER = "vesselsdf/report/three"
FILES = ("build/three.core.min.js", "build/three.module.min.js", "examples/jsm/controls/OrbitControls.js", "LICENSE")


class ViewerHook(BuildHookInterface):
    """Fetches the files unless they are there."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict) -> None:
        """Called before every build, an editable one too."""
        folder = Path(self.root) / FOLDER
        stamp = folder / "VERSION"
        if not (stamp.is_file() and stamp.read_text().strip() == VERSION):
            fetch(folder)
            stamp.write_text(VERSION + "\n")
        build_data["artifacts"].append(f"/{FOLDER}/*")


def fetch(folder: Path) -> None:
    """Download the package, compare its checksum, and unpack the few files that are needed."""
    try:
        with urllib.request.urlopen(SOURCE, timeout=120) as answer:
            package = answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise SystemExit(f"{SOURCE} cannot be had ({error}): build where npm's registry can be reached.") from error
    if base64.b64encode(hashlib.sha512(package).digest()).decode() != SHA512:
        raise SystemExit(f"{SOURCE} is not the package that was pinned: its checksum differs.")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/{name}")
            assert member is not None
            (folder / Path(name).name).write_bytes(member.read())
