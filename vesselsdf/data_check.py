"""What is missing or odd in somebody's copy of a data set, and the same data in a layout that other tools read, too."""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from vesselsdf.data import Card, Case, collect, vessel_mask
from vesselsdf.errors import InputError
from vesselsdf.files import atomic_folder, write_json
from vesselsdf.progress import track
from vesselsdf.report.text import columns
from vesselsdf.segments import label_ids
from vesselsdf.topology.betti import components
from vesselsdf.volume import Volume, check_same_grid, write_volume

log = logging.getLogger(__name__)

THICK = 6.0
"""Slices are so many times as thick as pixels are wide, or more: odd."""
EDGES = (2e-5, 10.0)
"""Voxel edges, mm, that scans of vessels have."""
AROUND = 3
"""Voxels around vessels that they are compared with."""


@dataclass(frozen=True)
class CaseFacts:
    """One case: `spacing` mm; label `ids`; `share` of vessel voxels; 26-connected `components` of the vessels; lowest
    and highest value of the image. What could not be read is None. `findings`: a sentence for each odd thing.
    """

    name: str
    shape: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    ids: tuple[int, ...] | None = None
    share: float | None = None
    components: int | None = None
    low: float | None = None
    high: float | None = None
    findings: tuple[str, ...] = ()
    digest: str = field(default="", repr=False)


def check(root: str | Path, card: Card) -> tuple[list[CaseFacts], list[str]]:
    """All cases of a data set, and a sentence for each thing that is missing or odd in it.

    Raises `InputError` where there is no data set of that layout.
    """
    cases, findings = collect(root, card)
    if card.cases is not None and len(cases) != card.cases:
        findings.append(f"{len(cases)} complete cases, where the card {card.name} says {card.cases}")
    facts = [case_facts(case, card) for case in track(cases, "check", unit="case")]
    seen: dict[str, str] = {}
    for one in facts:
        findings += [f"{one.name}: {sentence}" for sentence in one.findings]
        if one.digest and one.digest in seen:
            findings.append(f"{one.name}: its image is that of {seen[one.digest]}: leave one of them out")
        seen.setdefault(one.digest, one.name)
    return facts, findings


def case_facts(case: Case, card: Card) -> CaseFacts:
    """What a case holds, and what is odd about it."""
    try:
        image = case.read_image()
    except InputError as error:
        return CaseFacts(case.name, findings=(str(error),))
    found = [
        f"its voxels are {edges}: check the unit of its header"
        for edges in [" x ".join(f"{edge:.4g}" for edge in image.spacing) + " mm"]
        if not all(EDGES[0] <= edge <= EDGES[1] for edge in image.spacing)
    ]
    if max(image.spacing) > THICK * min(image.spacing):
        found.append(f"its slices are {max(image.spacing) / min(image.spacing):.1f} times as thick as pixels are wide")
    facts: dict[str, Any] = {
        "shape": image.shape,
        "spacing": image.spacing,
        "low": float(image.array.min()),
        "high": float(image.array.max()),
        "digest": hashlib.sha256(np.ascontiguousarray(image.array).data).hexdigest(),
    }
    if case.labelled:
        try:
            label = case.read_label()
            check_same_grid(image, label, ("its image", "its label"))
        except InputError as error:
            found.append(str(error))
        else:
            vessel = vessel_mask(label, card.vessel_ids, card.ignore_ids)
            facts |= {"share": float(vessel.mean()), "components": components(vessel)[1], "ids": label_ids(label)}
            found += _label_findings(image, label, vessel, card, facts["ids"])
    return CaseFacts(case.name, findings=tuple(found), **facts)


def _label_findings(
    image: Volume, label: Volume, vessel: Bool[np.ndarray, "_ _ _"], card: Card, ids: tuple[int, ...] | None
) -> list[str]:
    found = []
    unknown = sorted(set(ids or ()) - set(card.label_ids.values())) if card.label_ids else []
    if unknown:
        found.append(f"its label has the ids {', '.join(map(str, unknown))}, which the card does not know")
    if not vessel.any():
        return [*found, "its label holds no vessel: leave it out, or check the vessel ids"]
    if vessel.all():
        return [*found, "its label is vessel everywhere"]
    x, y, z = (
        slice(max(p.start - AROUND, 0), p.stop + AROUND) for p in ndimage.find_objects(vessel.astype(np.uint8))[0]
    )
    near = vessel[x, y, z]
    shell = ndimage.binary_dilation(near, iterations=AROUND) & (label.array[x, y, z] == 0)
    inside = float(np.median(image.array[x, y, z][near]))
    if card.window and not card.window[0] <= inside <= card.window[1]:
        low, high = (f"{value:g}" for value in card.window)
        found.append(f"vessels have intensities about {inside:.4g}, outside the card's window of {low} to {high}")
    if shell.any() and inside <= (outside := float(np.median(image.array[x, y, z][shell]))):
        found.append(f"vessels (about {inside:.4g}) are no brighter than what is around them (about {outside:.4g})")
    return found


def summary(facts: list[CaseFacts], findings: list[str]) -> str:
    """A table of the cases, and the findings."""
    header = ["case", "voxels", "spacing, mm", "values", "ids", "vessel, %", "components"]
    rows = [
        [
            one.name,
            "x".join(map(str, one.shape)) if one.shape else None,
            " x ".join(f"{edge:.3g}" for edge in one.spacing) if one.spacing else None,
            None if one.low is None else f"{one.low:g} to {one.high:g}",
            " ".join(map(str, one.ids)) if one.ids else None,
            None if one.share is None else 100 * one.share,
            one.components,
        ]
        for one in facts
    ]
    said = [f"- {sentence}" for sentence in findings] or ["Nothing is missing or odd."]
    return "\n".join([columns(header, rows), "", *said])


def prepare(root: str | Path, card: Card, folder: str | Path) -> int:
    """Write all labelled cases in nnU-Net's layout, NIfTI in mm, vessel 1 (and `ignore` 2); returns how many.

    The folder appears when all is written. Raises `InputError` for the first case that is incomplete or odd in a way
    that would spoil training: unreadable, on two grids, without vessel.
    """
    cases, problems = collect(root, card)
    cases = [case for case in cases if case.labelled]
    if problems:
        raise InputError(problems[0])
    if not cases:
        raise InputError(f"the data set {card.name} has no labels: there is nothing to train on")
    if Path(folder).exists():
        raise InputError(f"{folder} exists: give a new folder")
    with atomic_folder(folder) as temporary:
        for name in ("imagesTr", "labelsTr"):
            (temporary / name).mkdir(parents=True)
        for case in track(cases, "prepare", unit="case"):
            image, label = case.read_image(), case.read_label()
            check_same_grid(image, label, (str(case.image), f"the label of {case.name}"))
            vessel = vessel_mask(label, card.vessel_ids, card.ignore_ids)
            if not vessel.any():
                raise InputError(
                    f"the label of {case.name} holds no vessel: leave the case out or check the vessel ids"
                )
            ids = np.where(np.isin(label.array, card.ignore_ids), np.uint8(2), vessel.astype(np.uint8))
            write_volume(image, temporary / "imagesTr" / f"{case.name}_0000.nii.gz")
            write_volume(image.with_array(ids), temporary / "labelsTr" / f"{case.name}.nii.gz")
        names = {"background": 0, "vessel": 1} | ({"ignore": 2} if card.ignore_ids else {})
        channel = "CT" if card.modality == ("ct",) else "+".join(card.modality) or "image"
        content = {
            "name": card.name, "description": card.title, "reference": card.citation, "licence": card.licence,
            "channel_names": {"0": channel}, "labels": names, "numTraining": len(cases), "file_ending": ".nii.gz",
        }  # fmt: skip
        write_json(temporary / "dataset.json", content)
    return len(cases)
