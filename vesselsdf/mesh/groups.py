"""Wall, inlets and outlets of an opened mesh as files for flow simulation, RAS mm."""

import csv
from pathlib import Path

import numpy as np

from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.mesh.ends import FACE_ID, OpenedMesh
from vesselsdf.mesh.writers import write_mesh

SUFFIXES = (".vtp", ".stl", ".obj", ".csv")
CHUNK = 100_000
"""Faces turned into text at a time."""


def write_groups(opened: OpenedMesh, path: str | Path) -> None:
    """Write wall and caps to `path`, atomically and in mm; the suffix says how.

    .vtp: one closed mesh with the cell data `ModelFaceID`, 1 for the wall and 2, 3, ... for the caps (SimVascular).
    .stl: ASCII, one solid for each group by its name: `wall`, `inlet_0`, `outlet_7` (OpenFOAM's snappyHexMesh makes
        patches of them; it counts in metres, so scale by 0.001 there).
    .obj: the same names as groups, `g wall`, over shared vertices.
    .csv: the table of caps: id, name, node, inlet, centre, normal, area in mm2, radius in mm, depth in mm.

    Raises InputError for any other suffix.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"Cannot write groups to {path}: the suffix must be one of {', '.join(SUFFIXES)}.")
    if suffix == ".vtp":
        write_mesh(opened.mesh, path)
        return
    with atomic_path(path) as temporary:
        if suffix == ".csv":
            write_table(opened, temporary)
        else:
            temporary.write_text(stl_text(opened) if suffix == ".stl" else obj_text(opened), encoding="ascii")


def stl_text(opened: OpenedMesh) -> str:
    """ASCII STL with one named solid for each group."""
    facet = "facet normal %.6g %.6g %.6g\nouter loop\n" + "vertex %.9g %.9g %.9g\n" * 3 + "endloop\nendfacet\n"
    corners = np.asarray(opened.mesh.vertices)[opened.mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rows = np.concatenate([normals[:, None], corners], axis=1).reshape(-1, 12)
    label = opened.mesh.face_attributes[FACE_ID]
    return "".join(
        f"solid {name}\n{formatted(facet, rows[label == group])}endsolid {name}\n"
        for group, name in opened.groups.items()
    )


def obj_text(opened: OpenedMesh) -> str:
    """Wavefront OBJ with a group for the wall and one for each cap."""
    label = opened.mesh.face_attributes[FACE_ID]
    text = ["# RAS mm\n", formatted("v %.9g %.9g %.9g\n", np.asarray(opened.mesh.vertices))]
    for group, name in opened.groups.items():
        text.append(f"g {name}\n" + formatted("f %d %d %d\n", np.asarray(opened.mesh.faces)[label == group] + 1))
    return "".join(text)


def formatted(line: str, rows: np.ndarray) -> str:
    """Every row in the same form."""
    parts = np.split(rows, range(CHUNK, len(rows), CHUNK))
    return "".join(line * len(part) % tuple(part.ravel().tolist()) for part in parts)


def write_table(opened: OpenedMesh, path: Path) -> None:
    """The table of caps as CSV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        header = "id name node inlet x_mm y_mm z_mm normal_x normal_y normal_z area_mm2 radius_mm depth_mm"
        table.writerow(header.split())
        for cap in opened.caps:
            numbers = [*cap.centre, *cap.normal, cap.area, cap.radius, cap.depth]
            table.writerow([cap.id, cap.name, cap.node, int(cap.inlet), *(f"{number:.9g}" for number in numbers)])
