"""What the page of a report is made of: packed walls, lines and slices, and the one file that holds them.

A page is a template, styles and scripts (`viewer/`), and *parts*, gzip in base64, which the browser unpacks: three.js,
the report as JSON, its arrays. Nothing is fetched when it is opened.

The report: `surfaces`, `lines`, `panes` (what of them is seen side by side; without it the surfaces are levels, seen
one at a time), `colours`, `values` (of branches), `features` (marked, and listed under `feature_columns`), `tables`,
`plots`, `grid` (slices).
"""

import base64
import gzip
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.files import jsonable
from vesselsdf.volume import Volume

PAGE = Path(__file__).parent / "viewer"
THREE = Path(__file__).parent / "three"
SCRIPTS = ("viewer.js", "slices.js", "space.js", "main.js")
LIBRARY = ("three.core.min.js", "three.module.min.js", "OrbitControls.js")
FACES = 200_000
"""Of a wall that is shown as it is; larger ones are made simpler for the page."""
GRID = 144
"""Voxels along the longest edge of the slices' image."""
GRAY = (0.5, 99.8)
"""Percentiles of the image that are black and white."""
STEP = 1 / 16
"""Vertices are kept to so much of the finest voxel."""


@dataclass
class Parts:
    """Arrays and texts of the page, packed."""

    scripts: list[str] = field(default_factory=list)

    def add(self, data: np.ndarray | bytes, name: str | None = None) -> str:
        """Keep an array (or bytes) under a name, which is returned."""
        name = name or str(len(self.scripts))
        raw = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        packed = base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode()
        self.scripts.append(f'<script type="text/plain" id="part-{name}">{packed}</script>')
        return name


def available() -> bool:
    """Whether the package was built with its viewer."""
    return all((THREE / name).is_file() for name in LIBRARY)


def new_parts() -> Parts:
    """The parts of a page, with three.js among them; InputError where the package was built without it."""
    if not available():
        raise InputError(f"three.js is not in {THREE}: install the package again (`pip install .`) with a network.")
    parts = Parts()
    for name in LIBRARY:
        parts.add((THREE / name).read_bytes(), name)
    return parts


def page_of(report: dict[str, Any], parts: Parts) -> str:
    """The page of a report with these parts, as HTML."""
    parts.add(json.dumps(jsonable(report), separators=(",", ":")).encode(), "report")
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    for key, text in {
        "title": html.escape(report["title"]),
        "style": (PAGE / "page.css").read_text(encoding="utf-8"),
        "parts": "\n".join(parts.scripts),
        "script": "\n".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }.items():
        page = page.replace("{{" + key + "}}", text)
    return page


def box_of(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> dict[str, Any]:
    """The box that the view in space is about, mm."""
    return {
        "centre": (low + high) / 2,
        "half": np.maximum(high - low, 1e-6) / 2,
        "size": max(float(np.linalg.norm(high - low)) / 2, 1e-6),
    }


def packed_wall(
    parts: Parts,
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    step: float,
    channels: dict[str, UInt8[np.ndarray, " n"]],
    owner: Int[np.ndarray, " n"] | None = None,
) -> dict[str, Any]:
    """A wall as the page reads it. Vertices are kept to `step` mm.

    channels: values of vertices, 0 to 255 between the ends of the colour of that name. owner: their branches.
    """
    low = vertices.min(axis=0) if len(vertices) else np.zeros(3)
    packed = np.rint((vertices - low) / step).astype(np.int32)
    wall = {
        "low": low,
        "step": step,
        "vertices": parts.add(differences(packed.T.reshape(-1))),
        "faces": parts.add(differences(faces.reshape(-1))),
        "channels": {name: parts.add(values) for name, values in channels.items()},
    }
    if owner is not None:
        wall["owner"] = parts.add(np.minimum(owner, 65535).astype(np.uint16))
    return wall


def packed_lines(parts: Parts, lines: Sequence[np.ndarray]) -> dict[str, str]:
    """Branches (each `(n, 3)` mm) as segments, with the branch that each belongs to."""
    segments = [np.stack([line[:-1], line[1:]], axis=1).reshape(-1, 3).astype(np.float32) for line in lines]
    owner = np.repeat(np.arange(len(lines)), [len(one) for one in segments])
    points = np.concatenate([np.zeros((0, 3), np.float32), *segments])
    return {"points": parts.add(points), "owner": parts.add(np.minimum(owner, 65535).astype(np.uint16))}


def to_bytes(values: Float[np.ndarray, "*n"], low: float, high: float) -> UInt8[np.ndarray, "*n"]:
    """Values between two limits as 0 to 255."""
    return np.rint(255 * ((values - low) / (high - low)).clip(0, 1)).astype(np.uint8)


def differences(values_: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each number less the one before it, int32."""
    return np.diff(values_, prepend=0).astype(np.int32)


def simplified(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"], most: int
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "l 3"]]:
    """A mesh of at most about `most` faces to look at: vertices in one cell of a lattice become their mean.

    Rossignac and Borrel 1993. Its topology is not that of the mesh: it is for the eye alone.
    """
    if len(faces) <= most:
        return vertices, faces
    low, span = vertices.min(axis=0), float(np.linalg.norm(np.ptp(vertices, axis=0)))
    area = float(trimesh.triangles.area(vertices[faces]).sum())
    cell = max(np.sqrt(1.5 * area / most), 1e-6 * span)
    while True:
        index = np.floor((vertices - low) / cell).astype(np.int64)
        _, owner, count = np.unique(
            (index[:, 0] << 42) + (index[:, 1] << 21) + index[:, 2], return_inverse=True, return_counts=True
        )
        kept = owner[faces]
        kept = kept[(kept[:, 0] != kept[:, 1]) & (kept[:, 1] != kept[:, 2]) & (kept[:, 2] != kept[:, 0])]
        if len(kept) <= most:
            means = [np.bincount(owner, vertices[:, axis]) / count for axis in range(3)]
            return np.stack(means, axis=1), kept
        cell *= 1.08


def rounded(value: Any) -> Any:
    """A number with the figures that mean something."""
    if not isinstance(value, float):
        return value
    return 0.0 if abs(value) < 1e-9 else float(f"{value:.5g}")


def slices(
    parts: Parts, image: Volume | None, grid: Volume, fields: Sequence[tuple[str, Volume | None]]
) -> dict[str, Any]:
    """Image and fields on a grid that is coarse enough for a page: 8 bits each, fields within two voxels of the wall.

    image: None where there is none. grid: a field or mask on the whole grid that is shown. fields: names and fields,
    mm, each on its own grid, or None for one without a wall.
    """
    # Axes in the order right, front, top, as the page expects them.
    turned = io_orientation(grid.affine)
    affine = grid.affine @ inv_ornt_aff(turned, grid.shape)
    full = [int(n) for n in apply_orientation(np.broadcast_to(np.int8(0), grid.shape), turned).shape]
    step = max(1.0, max(full) / GRID)
    shape = tuple(max(2, int(n / step)) for n in full)
    index = np.diag([step, step, step, 1.0])
    index[:3, 3] = (step - 1) / 2
    coarse = affine @ index
    width = float(np.linalg.norm(coarse[:3, 0]))
    found: dict[str, Any] = {"shape": shape, "affine": coarse, "image": None, "fields": []}
    if image is not None:
        gray = _without_aliases(image, coarse, shape)
        low, high = np.percentile(image.array[::2, ::2, ::2], GRAY)
        found["image"] = parts.add(to_bytes(gray, float(low), float(max(high, low + 1e-9))))
    for name, volume in fields:
        near = np.full(shape, 2.0)
        if volume is not None:
            way = np.linalg.inv(volume.affine) @ coarse
            values = volume.array.astype(np.float32, copy=False)
            far = np.float32(2 * width)
            near = ndimage.affine_transform(values, way[:3, :3], way[:3, 3], shape, order=1, cval=far) / width
        found["fields"].append({"name": name, "part": parts.add(np.rint(60 * near.clip(-2, 2)).astype(np.int8))})
    return found


def _without_aliases(image: Volume, coarse: Float[np.ndarray, "4 4"], shape: tuple[int, ...]) -> np.ndarray:
    """The image on a coarser grid."""
    way = np.linalg.inv(image.affine) @ coarse
    array = image.array.astype(np.float32)
    for axis in range(3):
        # What lies between the samples must not be lost: thin vessels above all.
        sigma = 0.4 * float(np.linalg.norm(way[axis, :3]))
        if sigma > 0.5:
            array = ndimage.gaussian_filter1d(array, sigma, axis=axis)
    return ndimage.affine_transform(array, way[:3, :3], way[:3, 3], shape, order=1, mode="nearest")
