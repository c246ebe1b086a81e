"""Labels with several classes, as arteries and veins: each reconstructed with a field of its own, and where they touch.

Classes that touch share the wall between them (`distance.classes`).
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf import scales
from vesselsdf.distance.classes import class_distances
from vesselsdf.errors import InputError
from vesselsdf.files import write_json
from vesselsdf.reconstruction import Reconstruction, opened
from vesselsdf.segment_findings import read_names
from vesselsdf.segments import MAX_IDS, label_ids, labelled
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume, check_mask, isotropic

log = logging.getLogger(__name__)

MASK_LEVELS = 4
# Voxels around all classes that are kept of the grid; their walls are as if all of it were.
MARGIN = 8

WALL = (
    "Where two classes touch, their fields have the same zero set in every cell of eight voxels of these two; in cells "
    "where background or a third class meets them they do not overlap, and leave a gap within that cell."
)


def reconstruct_classes(
    label: Volume | str | Path,
    names: str | Mapping[int, str] | None = None,
    ids: Sequence[int] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> dict[str, Reconstruction]:
    """Reconstruct every class of a label with its own distance field; by name, or by id where there is none.

    `names`: of ids, or where to read them (`segment_findings.read_names`); `ids`: these alone, by default all above 0.
    `spacing`: mm, for formats that have none. All fields are on one grid around all classes: an isotropic one if that
    keeps the Betti numbers of every class, else the label's. The wall between two classes that touch is the same
    surface in both fields (`distance.classes`). Raises `InputError` for what is no label, and for ids that it lacks.
    """
    source, name, provenance = opened(label, spacing)
    check_mask(source, name)
    chosen = choose_ids(source, ids_of(source, name) if ids is None else ids, name)
    called = class_names(ids_of(chosen, name), names)
    fields, grid = class_fields(chosen, tuple(called), name)
    made = {}
    for (number, title), field in zip(called.items(), fields, strict=True):
        mask = source.with_array((source.array == number).astype(np.uint8))
        facts = provenance | {"id": number, "class": title, "working_grid": grid}
        one = Reconstruction([], field.affine, mask, from_mask=True, provenance=facts)
        one.levels = scales.pyramid(field.array, MASK_LEVELS)
        made[title] = one
    return made


def choose_ids(label: Volume, ids: Sequence[int], name: str) -> Volume:
    """The label without all other ids. Raises `InputError` for what is no label, and for ids that it lacks."""
    check_mask(label, name)
    known = ids_of(label, name)
    missing = sorted(set(ids) - set(known))
    if missing:
        lacks = ", ".join(map(str, missing))
        raise InputError(f"{name} has no voxel with the id {lacks}; it has {', '.join(map(str, known))}.")
    return label.with_array(np.where(np.isin(label.array, ids), label.array, np.zeros((), label.array.dtype)))


def ids_of(label: Volume, name: str) -> tuple[int, ...]:
    """The ids above 0 of a label; `InputError` for what is none."""
    known = label_ids(label)
    if known is None:
        raise InputError(f"{name} holds no labels (whole numbers from 0 up, at most {MAX_IDS}): give a label file.")
    return known


def class_names(ids: Sequence[int], names: str | Mapping[int, str] | None) -> dict[int, str]:
    """A name for each id, its number where there is none; `InputError` if two have the same.

    >>> class_names((1, 3), "1=artery,2=vein")
    {1: 'artery', 3: '3'}
    """
    table = read_names(names) if isinstance(names, str) else names or {}
    called = {number: table.get(number, str(number)) for number in ids}
    twice = sorted(title for title in set(called.values()) if list(called.values()).count(title) > 1)
    if twice:
        raise InputError(f"Several ids have the name {twice[0]}: give each its own.")
    return called


def class_fields(label: Volume, ids: Sequence[int], name: str) -> tuple[list[Volume], str]:
    """Distance fields of the classes in mm, on one grid around all of them; and which grid it is.

    Isotropic as in `masks.mask_field` if that keeps the Betti numbers of every class.
    """
    if len(ids) == 1 and (label.array == ids[0]).all():
        raise InputError(f"{name} is vessel everywhere, so it has no wall; check the file.")
    cut = _around(label, MARGIN)
    numbers = cut.array.astype(np.int32)
    fields = [cut.with_array(field) for field in class_distances(numbers, ids, cut.spacing)]
    if max(cut.spacing) - min(cut.spacing) <= 1e-3 * min(cut.spacing):
        return fields, "the label's, isotropic"
    even = [isotropic(field, min(cut.spacing)) for field in fields]
    _share_zeros(even)
    changed = [
        number
        for number, field in zip(ids, even, strict=True)
        if betti_numbers(numbers == number) != betti_numbers(field.array <= 0)
    ]
    if not changed:
        return even, "isotropic"
    which = ", ".join(map(str, changed))
    return fields, f"the label's: on an isotropic grid the Betti numbers of {which} would change"


def _around(label: Volume, margin: int) -> Volume:
    """The part of a label around all that is above 0."""
    places = np.argwhere(label.array > 0)
    low = np.maximum(places.min(axis=0) - margin, 0)
    high = places.max(axis=0) + margin + 1
    affine = label.affine.copy()
    affine[:3, 3] = label.to_world(low[None])[0]
    return Volume(label.array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], affine)


def _share_zeros(fields: Sequence[Volume]) -> None:
    """A voxel whose centre lies on the wall between two classes, at zero in both fields, is taken by the first one."""
    taken = np.zeros(fields[0].shape, bool)
    for field in fields:
        field.array[taken & (field.array == 0)] = np.finfo(np.float32).tiny
        taken |= field.array <= 0


def contacts(label: Volume, ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Where classes of a label touch: for each pair its `ids`, `faces`, `area_mm2` and `places`.

    `faces`: pairs of voxels with a face in common, `area_mm2`: the sum of these faces (on an oblique wall, steps and
    all), both 0 for classes that touch at edges and corners alone. `places`: the middle of each patch of contact, mm,
    the largest first.
    """
    chosen = choose_ids(label, ids_of(label, "the label") if ids is None else ids, "the label")
    columns = label.affine[:3, :3].T
    found: dict[tuple[int, int], dict[str, Any]] = {
        pair: {"ids": list(pair), "faces": 0, "area_mm2": 0.0, "places": [list(one) for one in contact.places]}
        for pair, contact in labelled(chosen).contacts.items()
    }
    for axis in range(3):
        face = float(np.linalg.norm(np.cross(columns[axis - 2], columns[axis - 1])))
        for pair, count in _faces(chosen.array, axis):
            found[pair]["faces"] += count
            found[pair]["area_mm2"] += count * face
    return [found[pair] for pair in sorted(found)]


def _faces(label: np.ndarray, axis: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Pairs of ids and how many neighbours along an axis have them."""
    lines = np.moveaxis(label, axis, 0)
    low, high = lines[:-1], lines[1:]
    differ = (low != high) & (low > 0) & (high > 0)
    pairs = np.sort(np.stack([low[differ], high[differ]], axis=1), axis=1)
    for pair, count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
        yield (int(pair[0]), int(pair[1])), int(count)


def class_row(made: Reconstruction, folder: str) -> dict[str, Any]:
    """Betti numbers, volume and length of one class, for `classes.json`."""
    voxel = float(abs(np.linalg.det(made.input.affine[:3, :3])))
    topology = made.topology()
    return {
        "id": made.provenance["id"],
        "name": made.provenance["class"],
        "folder": folder,
        "betti": list(topology["betti"]),
        "voxels_mm3": float(np.count_nonzero(made.input.array)) * voxel,
        "mesh_mm3": float(topology["mesh"]["volume"]),
        "length_mm": float(sum(edge["length"] for _, _, edge in made.graph.edges(data=True))),
        "branches": made.graph.number_of_edges(),
        "agrees": bool(topology["agreement"]["agrees"]),
    }


def save_classes(
    made: dict[str, Reconstruction], label: Volume, folder: str | Path, max_error: float | None = None
) -> dict[str, Any]:
    """Write each class to its own folder below `folder`, then `classes.json`; returns its content.

    The classes are taken out of `made` as they are written, so that not all of their meshes are in memory at once.
    """
    folder = Path(folder)
    rows: list[dict[str, Any]] = []
    ids = [one.provenance["id"] for one in made.values()]
    grid = next(iter(made.values())).provenance["working_grid"]
    for title in list(made):
        one = made.pop(title)
        number = one.provenance["id"]
        below = folder_name(title, [row["folder"] for row in rows], number)
        one.save(folder / below, max_error)
        rows.append(class_row(one, below))
        log.info("%s: written to %s", title, folder / below)
    report = {"classes": rows, "contacts": contacts(label, ids), "working_grid": grid, "wall": WALL}
    write_json(folder / "classes.json", report)
    return report


def folder_name(title: str, taken: Sequence[str], number: int) -> str:
    """A name for the folder of a class, letters, digits, dots and dashes alone.

    >>> folder_name("right posterior communicating artery", [], 8), folder_name("a/b", ["a-b"], 2)
    ('right-posterior-communicating-artery', 'a-b-2')
    """
    plain = re.sub(r"[^\w.-]+", "-", title).strip("-.") or str(number)
    return f"{plain}-{number}" if plain in taken else plain
