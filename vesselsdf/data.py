"""Which cases a folder of somebody's data holds: dataset cards and the discovery of images with their labels.

A card (TOML, in `datasets/`) says how a dataset is laid out and what its label ids mean. Folders in the layouts of
nnU-Net, of the Medical Segmentation Decathlon (MSD), or with plain images/ and labels/, are recognised without one.
"""

import json
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import BaseModel, ConfigDict, ValidationError

from vesselsdf.errors import InputError
from vesselsdf.formats import suffix_of
from vesselsdf.volume import Volume

log = logging.getLogger(__name__)


class Card(BaseModel):
    """What is known about a dataset; unknown keys are errors.

    images, labels: folders below the root; for the layout "pairs" a glob for images, and a name beside the image in
    which {name} stands for what the star in the last part of `images` matched.
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
    window: tuple[float, float] | None = None
    label_ids: dict[str, int] = {}
    vessel_ids: tuple[int, ...] | None = None
    ignore_ids: tuple[int, ...] = ()
    cases: int | None = None
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""


@dataclass(frozen=True)
class Case:
    """One image, with its label if it has one; either may be a folder with a DICOM series."""

    name: str
    image: Path
    label: Path | None


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


def find_cases(root: str | Path, card: Card | None = None) -> list[Case]:
    """All labelled or unlabelled cases below `root`, by name.

    Without a card the layout is recognised: MSD (dataset.json with a list `training`), nnU-Net (imagesTr/ with
    NAME_0000 files, labelsTr/), plain (images/ and, if there are labels, labels/ with the same stems; a DICOM series
    is a folder). Raises `InputError` for no cases, a label or image without its partner, or two files of one name.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"the data folder {root} does not exist: check the path")
    layout = card.layout if card else _recognise(root)
    images, labels = (card.images, card.labels) if card else ("", "")
    if layout == "msd":
        cases = _msd(root)
    elif layout == "nnunet":
        cases = _nnunet(root, images or "imagesTr", labels or "labelsTr")
    elif layout == "pairs":
        cases = _pairs(root, images, labels)
    else:
        cases = _plain(root, images or "images", labels or "labels")
    if not cases:
        raise InputError(f"{root} holds no cases in the layout {layout}: check the folder and the dataset card")
    if card and card.cases is not None and len(cases) != card.cases:
        log.warning("%s has %d cases where the card %s expects %d", root, len(cases), card.name, card.cases)
    return sorted(cases, key=lambda case: case.name)


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


def _match(images: dict[str, Path], labels: dict[str, Path], images_folder: Path, labels_folder: Path) -> list[Case]:
    for name in images:
        if name not in labels:
            raise InputError(f"the image {images[name]} has no label: add {labels_folder / name} or remove the image")
    for name in labels:
        if name not in images:
            raise InputError(f"the label {labels[name]} has no image: add {images_folder / name} or remove the label")
    return [Case(name, image, labels[name]) for name, image in images.items()]


def _plain(root: Path, images_name: str, labels_name: str) -> list[Case]:
    images = by_stem(root / images_name)
    if not (root / labels_name).is_dir():
        return [Case(name, image, None) for name, image in images.items()]
    return _match(images, by_stem(root / labels_name), root / images_name, root / labels_name)


def _nnunet(root: Path, images_name: str, labels_name: str) -> list[Case]:
    described = _dataset_json(root) if (root / "dataset.json").is_file() else {}
    ending = described.get("file_ending")
    images: dict[str, Path] = {}
    further = 0
    for stem, path in by_stem(root / images_name, ending).items():
        name, _, channel = stem.rpartition("_")
        if len(channel) != 4 or not channel.isdigit():
            raise InputError(f"{path} does not end in a channel number as _0000: rename it as nnU-Net expects")
        if channel == "0000":
            images[name] = path
        else:
            further += 1
    if further:
        log.warning("%s has %d images of further channels: only channel 0000 is used", root / images_name, further)
    return _match(images, by_stem(root / labels_name, ending), root / images_name, root / labels_name)


def _msd(root: Path) -> list[Case]:
    cases: dict[str, Case] = {}
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
        for what, path in (("image", image), ("label", label)):
            if not path.is_file():
                raise InputError(
                    f"{root / 'dataset.json'} lists the {what} {path}, which does not exist: complete the data"
                )
        if name in cases:
            raise InputError(f"{root / 'dataset.json'} lists the image {name} twice: correct it")
        cases[name] = Case(name, image, label)
    return list(cases.values())


def _pairs(root: Path, images: str, labels: str) -> list[Case]:
    before, star, after = Path(images).name.partition("*")
    if not star or "{name}" not in labels:
        raise InputError(f"the layout pairs needs images with a * and labels with {{name}}, not {images} and {labels}")
    cases: dict[str, Case] = {}
    for image in sorted(root.glob(images)):
        if image.name.startswith("."):
            continue
        name = image.name[len(before) : len(image.name) - len(after)]
        label = image.with_name(labels.replace("{name}", name))
        if not label.is_file():
            raise InputError(f"the image {image} has no label: add {label} or remove the image")
        if name in cases:
            raise InputError(f"{cases[name].image} and {image} have the same name: remove one of them")
        cases[name] = Case(name, image, label)
    return list(cases.values())
