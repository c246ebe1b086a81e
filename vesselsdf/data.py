"""Which cases a folder of somebody's data holds: dataset cards and the discovery of images with their labels.

A card (TOML, in `datasets/`) says how a dataset is laid out and what its label ids mean. Folders in the layouts of
nnU-Net, of the Medical Segmentation Decathlon (MSD), or with plain images/ and labels/, are recognised without one.
"""

import glob
import json
import logging
import textwrap
import tomllib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, ValidationError

from vesselsdf.errors import InputError
from vesselsdf.formats import suffix_of
from vesselsdf.volume import Volume, check_image, check_mask, check_same_grid, read_volume

log = logging.getLogger(__name__)

UNITS = {"mm": 1.0, "um": 1e-3}
"""In mm."""


class Card(BaseModel):
    """What is known about a dataset; unknown keys are errors.

    images, labels: folders below the root; for the layout "pairs" a glob for images (files, or folders with a DICOM
        series), and a path from the folder of an image, which may begin with ../, to its label. There {name} stands for
        what the last star of `images` matched, another star for anything, if just one file fits; {label} for each key
        of `label_ids`, if they are masks of their own, of which a case need not have all. Empty: without labels.
    spacing: voxel edges in mm of files that do not carry them (TIFF, .npy); spacings: others of cases whose names match
        a pattern. unit: of lengths in headers that name none.
    split: how the data set is usually split.
    window: intensities (low, high) that hold the vessels and their surroundings, HU for CT; None: by percentiles.
    vessel_ids: label ids that count as vessel; None: everything above 0 but the ids to ignore.
    ignore_ids: label ids of what nobody has labelled, or could: neither vessel nor background.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    layout: Literal["nnunet", "msd", "plain", "pairs", "synthetic"]
    modality: tuple[Literal["ct", "mr", "microscopy"], ...] = ()
    anatomy: str = ""
    images: str = ""
    labels: str = ""
    unit: Literal["mm", "um"] = "mm"
    spacing: tuple[float, float, float] | None = None
    spacings: dict[str, tuple[float, float, float]] = {}
    window: tuple[float, float] | None = None
    label_ids: dict[str, int] = {}
    vessel_ids: tuple[int, ...] | None = None
    ignore_ids: tuple[int, ...] = ()
    cases: int | None = None
    split: str = ""
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Case:
    """One image, with its label if it has one; either may be a folder with a DICOM series.

    `masks`: where the label is in several files, masks with the id that each stands for. `spacing`, `unit`: mm, of
    files that do not say (`volume.read_volume`).
    """

    name: str
    image: Path
    label: Path | None
    masks: tuple[tuple[int, Path], ...] = ()
    spacing: tuple[float, float, float] | None = None
    unit: float = 1.0

    @property
    def labelled(self) -> bool:
        """Whether there is a label."""
        return self.label is not None or bool(self.masks)

    def read_image(self) -> Volume:
        """The image; raises `InputError` for what cannot be trusted."""
        image = read_volume(self.image, self.spacing, self.unit)
        check_image(image, str(self.image))
        return image

    def read_label(self) -> Volume:
        """The label, with its ids; where masks overlap, the id of the last counts."""
        if self.label is not None:
            label = read_volume(self.label, self.spacing, self.unit)
            check_mask(label, str(self.label))
            return label
        result = None
        for number, path in self.masks:
            mask = read_volume(path, self.spacing, self.unit)
            if result is None:
                result = mask.with_array(np.zeros(mask.shape, np.uint8))
            check_same_grid(result, mask, (str(self.masks[0][1]), str(path)))
            result.array[mask.array > 0] = number
        if result is None:
            raise InputError(f"the case {self.name} has no label: leave it out")
        return result


def cards_folder() -> Path:
    """Where the cards lie: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_datasets"
    return installed if installed.is_dir() else package.parent / "datasets"


def load_card(name_or_path: str | Path) -> Card:
    """The card of that name (as "msd_task08"), or the one in that .toml file; raises `InputError` if it is wrong.

    >>> load_card("msd_task08").vessel_ids
    (1,)
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = cards_folder() / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(sorted(card.stem for card in cards_folder().glob("*.toml")))
            raise InputError(
                f"there is no dataset card {name_or_path}: use one of {known}, or the path of a .toml file"
            )
    try:
        return Card.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"the dataset card {path} cannot be read ({error.strerror}): check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the dataset card {path} is not valid TOML ({error}): correct it") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"the dataset card {path} has a wrong field {field} ({first['msg']}): correct it") from error


def text_of(card: Card) -> str:
    """A card to read: what is known, one fact a line.

    >>> text_of(load_card("minivess")).splitlines()[0]
    'minivess: MiniVess, two-photon microscopy of brain vessels'
    """
    ids = ", ".join(
        f"{number} {name}" + ("" if card.vessel_ids is None or number in card.vessel_ids else " (no vessel)")
        for name, number in card.label_ids.items()
    )
    where = f"{card.layout}: images {card.images or '-'}, labels {card.labels or '-'}"
    facts = {
        "modality": ", ".join(card.modality), "anatomy": card.anatomy, "cases": card.cases, "split": card.split,
        "licence": card.licence or "not known: ask those who give it out", "source": card.source,
        "citation": card.citation, "layout": where, "label ids": ids,
        "window": card.window and f"{card.window[0]:g} to {card.window[1]:g}", "notes": card.notes.strip(),
    }  # fmt: skip
    lines = [f"{card.name}: {card.title}"]
    for name, value in facts.items():
        if value:
            lines += textwrap.wrap(f"{name:<10}{value}", 100, subsequent_indent=" " * 10, break_on_hyphens=False)
    return "\n".join(lines)


def find_cases(root: str | Path, card: Card | None = None) -> list[Case]:
    """All labelled or unlabelled cases below `root`, by name.

    Without a card the layout is recognised: MSD (dataset.json with a list `training`), nnU-Net (imagesTr/ with
    NAME_0000 files, labelsTr/), plain (images/ and, if there are labels, labels/ with the same stems; a DICOM series
    is a folder). Raises `InputError` for no cases, a label or image without its partner, or two files of one name.
    """
    cases, problems = collect(root, card)
    if problems:
        raise InputError(problems[0])
    if card and card.cases is not None and len(cases) != card.cases:
        log.warning("%s has %d cases where the card %s expects %d", root, len(cases), card.name, card.cases)
    return cases


def collect(root: str | Path, card: Card | None = None) -> tuple[list[Case], list[str]]:
    """The cases that are complete, by name, and a sentence for each that is not."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"the data folder {root} does not exist: check the path")
    layout = card.layout if card else _recognise(root)
    images, labels = (card.images, card.labels) if card else ("", "")
    if layout == "msd":
        cases, problems = _msd(root)
    elif layout == "nnunet":
        cases, problems = _nnunet(root, images or "imagesTr", labels or "labelsTr")
    elif layout == "pairs" and card:
        cases, problems = _pairs(root, card)
    else:
        cases, problems = _plain(root, images or "images", labels or "labels")
    if not cases and not problems:
        raise InputError(f"{root} holds no cases in the layout {layout}: check the folder and the dataset card")
    if card:
        cases = [replace(case, spacing=_spacing(case, card), unit=UNITS[card.unit]) for case in cases]
    return sorted(cases, key=lambda case: case.name), problems


def _spacing(case: Case, card: Card) -> tuple[float, float, float] | None:
    return next((edges for name, edges in card.spacings.items() if fnmatchcase(case.name, name)), card.spacing)


def vessel_mask(
    label: Volume, vessel_ids: tuple[int, ...] | None, ignore_ids: tuple[int, ...] = ()
) -> Bool[np.ndarray, "x y z"]:
    """Which voxels of a label are vessel: those with one of `vessel_ids`, or (None) all above 0 but `ignore_ids`."""
    if vessel_ids is None:
        return (label.array > 0) & ~np.isin(label.array, ignore_ids)
    return np.isin(label.array, vessel_ids)


def _recognise(root: Path) -> str:
    if (root / "dataset.json").is_file() and "training" in _dataset_json(root):
        return "msd"
    if (root / "imagesTr").is_dir():
        return "nnunet"
    if (root / "images").is_dir():
        return "plain"
    raise InputError(
        f"{root} is in no known layout: it needs images/ and labels/, or imagesTr/ and labelsTr/, or a dataset card"
    )


def _dataset_json(root: Path) -> dict[str, Any]:
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): correct it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object: correct it")
    return content


def stem(path: Path) -> str:
    """Name of a volume without its suffix.

    >>> stem(Path("scans/a.b.nii.gz"))
    'a.b'
    """
    return path.name.removesuffix(suffix_of(path))


def by_stem(folder: Path, ending: str | None = None) -> dict[str, Path]:
    """Readable files (with `ending`, if given) and non-empty sub-folders of `folder` by their stem."""
    if not folder.is_dir():
        raise InputError(f"the folder {folder} does not exist: check the layout of the dataset")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue  # among them the ._ files that macOS leaves in archives
        suffix = suffix_of(path) if path.is_file() else ""
        if not suffix and not (path.is_dir() and any(path.iterdir())):
            continue
        if ending and suffix and not path.name.endswith(ending):
            continue
        name = path.name[: len(path.name) - len(suffix)]
        if name in found:
            raise InputError(f"{found[name]} and {path.name} have the same stem: remove one of them")
        found[name] = path
    return found


Found = tuple[list[Case], list[str]]


def _match(images: dict[str, Path], labels: dict[str, Path], images_folder: Path, labels_folder: Path) -> Found:
    problems = [
        f"the image {images[name]} has no label: add {labels_folder / name} or remove the image"
        for name in images
        if name not in labels
    ]
    problems += [
        f"the label {labels[name]} has no image: add {images_folder / name} or remove the label"
        for name in labels
        if name not in images
    ]
    return [Case(name, image, labels[name]) for name, image in images.items() if name in labels], problems


def _plain(root: Path, images_name: str, labels_name: str) -> Found:
    images = by_stem(root / images_name)
    if not (root / labels_name).is_dir():
        return [Case(name, image, None) for name, image in images.items()], []
    return _match(images, by_stem(root / labels_name), root / images_name, root / labels_name)


def _nnunet(root: Path, images_name: str, labels_name: str) -> Found:
    described = _dataset_json(root) if (root / "dataset.json").is_file() else {}
    ending = described.get("file_ending")
    images: dict[str, Path] = {}
    problems = []
    further = 0
    for stem, path in by_stem(root / images_name, ending).items():
        name, _, channel = stem.rpartition("_")
        if len(channel) != 4 or not channel.isdigit():
            problems.append(f"{path} does not end in a channel number as _0000: rename it as nnU-Net expects")
        elif channel == "0000":
            images[name] = path
        else:
            further += 1
    if further:
        log.warning("%s has %d images of further channels: only channel 0000 is used", root / images_name, further)
    cases, unmatched = _match(images, by_stem(root / labels_name, ending), root / images_name, root / labels_name)
    return cases, problems + unmatched


def _msd(root: Path) -> Found:
    cases: dict[str, Case] = {}
    problems: list[str] = []
    entries = _dataset_json(root).get("training")
    if not isinstance(entries, list):
        raise InputError(f"{root / 'dataset.json'} has no list `training`: correct it, or use another layout")
    for entry in entries:
        if not (isinstance(entry, dict) and {"image", "label"} <= entry.keys()):
            raise InputError(f"{root / 'dataset.json'}: the training entry {entry!r} lacks image or label: correct it")
        image, label = root / entry["image"], root / entry["label"]
        suffix = suffix_of(image)
        name = image.name[: len(image.name) - len(suffix)]
        if not image.is_file():
            # The first version of nnU-Net kept MSD's list while its images carry a channel number.
            image = image.with_name(f"{name}_0000{suffix}")
        missing = [
            f"{root / 'dataset.json'} lists the {what} {path}, which does not exist: complete the data"
            for what, path in (("image", image), ("label", label))
            if not path.is_file()
        ]
        if name in cases:
            missing.append(f"{root / 'dataset.json'} lists the image {name} twice: correct it")
        problems += missing
        if not missing:
            cases[name] = Case(name, image, label)
    return list(cases.values()), problems


def _pairs(root: Path, card: Card) -> Found:
    parts = PurePosixPath(card.images).parts
    starred = [number for number, part in enumerate(parts) if "*" in part and part != "**"]
    if not starred:
        raise InputError(f"the layout pairs needs images with a *, not {card.images!r}: correct the card {card.name}")
    part = starred[-1] - len(parts)
    before, _, after = parts[part].rpartition("*")
    # A label beside its image may fit the pattern of images, too.
    ending = card.labels.rpartition("{name}")[2] if "/" not in card.labels else ""
    cases: dict[str, Case] = {}
    problems: list[str] = []
    for image in sorted(root.glob(card.images)):
        if image.name.startswith(".") or (ending and image.name.endswith(ending)):
            continue
        name = image.parts[part][len(before) : len(image.parts[part]) - len(after)]
        masks = _labels_of(image, name, card)
        if card.labels and not masks:
            wanted = card.labels.replace("{name}", name)
            problems.append(f"the image {image} has no label: add {image.parent / wanted} or remove the image")
        elif name in cases:
            problems.append(f"{cases[name].image} and {image} have the same name: remove one of them")
        elif "{label}" not in card.labels and len(masks) > 1:
            problems.append(f"the image {image} has {len(masks)} labels, as {masks[1][1]}: remove all but one")
        elif "{label}" in card.labels:
            cases[name] = Case(name, image, None, masks)
        else:
            cases[name] = Case(name, image, masks[0][1] if masks else None)
    return list(cases.values()), problems


def _labels_of(image: Path, name: str, card: Card) -> tuple[tuple[int, Path], ...]:
    """The files that the card's `labels` stands for, with the ids of those that are masks."""
    folder, wanted = image.parent, card.labels.replace("{name}", glob.escape(name))
    while wanted.startswith("../"):
        folder, wanted = folder.parent, wanted[3:]
    if not wanted:
        return ()
    ids = card.label_ids if "{label}" in wanted else {"": 0}
    found = [(number, path) for key, number in ids.items() for path in folder.glob(wanted.replace("{label}", key))]
    return tuple(sorted((number, path) for number, path in found if not path.name.startswith(".")))
