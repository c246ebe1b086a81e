"""The mesh of a blockwise reconstruction: in parts that fit together bit for bit, and as one file where that fits."""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from vesselsdf.blockwise.plan import MESHING, TILE, Block, Plan, mark
from vesselsdf.field_store import FieldStore
from vesselsdf.mesh.parts import MARGIN, WallPart, joined, wall_part
from vesselsdf.mesh.writers import write_mesh

FOLDER = "mesh"
WHOLE = "mesh.ply"
MOST = 20_000_000
"""Faces up to which the parts are written as one file, too: that takes about 3 GB of memory."""


def mesh(folder: Path, plan: Plan, store: FieldStore, block: Block) -> dict[str, Any]:
    """The wall in one tile: its file in the folder `mesh`, and its arrays."""
    size = np.array(plan.shape)
    low = np.array(block) * TILE
    high = np.minimum(low + TILE, size)
    first, last = np.maximum(low - MARGIN, 0), np.minimum(high + MARGIN + 1, size)
    field = store.read(0, first, last)
    part = wall_part(field, first, np.where(low == 0, -1, low), high, np.array(plan.affine))
    if len(part.faces):
        path = folder / FOLDER / ("_".join(map(str, block)) + ".ply")
        write_mesh(trimesh.Trimesh(part.vertices, part.faces, process=False), path)
    return vars(part) | {"count": len(part.faces)}


def whole_mesh(folder: Path, plan: Plan) -> dict[str, Any]:
    """Join the parts if they have no more than `MOST` faces, write them as one file, and say how many there are."""
    marks, faces = [mark(folder, MESHING, block) for block in plan.blocks(MESHING)], 0
    for file in marks:
        with np.load(file, allow_pickle=False) as found:
            faces += int(found["count"])
    if faces > MOST:
        return {"faces": faces, "files": FOLDER}
    parts = []
    for file in marks:
        with np.load(file, allow_pickle=False) as found:
            parts.append(WallPart(**{key: found[key] for key in found.files if key != "count"}))
    made = joined(parts)
    write_mesh(made, folder / WHOLE)
    return {"faces": faces, "files": WHOLE, "watertight": made.is_watertight, "euler_number": int(made.euler_number)}
