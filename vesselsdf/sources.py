"""Where labelled cases come from: a folder in a known layout, or trees grown by the package."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float

from vesselsdf.config import DataSettings
from vesselsdf.data import Card, Case, find_cases, load_card, vessel_mask
from vesselsdf.distance import signed_distance
from vesselsdf.errors import InputError, RunError
from vesselsdf.segments import label_ids
from vesselsdf.synthesis.cases import close_up, empty_case, synthetic_case
from vesselsdf.volume import Volume, check_same_grid

log = logging.getLogger(__name__)

MIXED = ("ct", "mr", "microscopy")
# Voxel edge of synthetic cases, mm: near that of CT and MR angiograms. The network works in voxels, so nothing hangs
# on it.
SYNTHETIC_SPACING = 0.5
# One in so many synthetic training cases has no vessel at all; this share of the others has two trees in each other's
# way, as arteries and veins are.
EMPTY, TWO_TREES = 25, 0.2
# Vessels of the widest synthetic tree are an eleventh of the box in radius; close-ups show them so many times as wide.
MAGNIFICATION = (2.0, 8.0)
# Distances that differ by less than this, voxels, are the same: labels say no more.
SURE = 0.1


@dataclass(frozen=True)
class LabelledCase:
    """An image with its vessels: a mask on the image's grid, or an exact SDF (mm) where the tree is known.

    `unlabelled`: where nobody knows, on the image's grid.
    """

    name: str
    image: Volume
    vessel: Bool[np.ndarray, "x y z"] | Volume
    graph: nx.MultiGraph | None = None
    unlabelled: Bool[np.ndarray, "x y z"] | None = None

    def reference(self) -> Volume:
        """The truth as a volume: the SDF, or the mask as 0 and 1."""
        return self.vessel if isinstance(self.vessel, Volume) else self.image.with_array(self.vessel.astype(np.uint8))

    def distance(self) -> Volume:
        """The truth as a signed distance field in mm, NaN where it cannot be known (`known_distance`)."""
        if isinstance(self.vessel, Volume):
            return self.vessel
        for wrong, what in (
            (not self.vessel.any(), "holds no vessel voxel"),
            (self.vessel.all(), "is vessel everywhere"),
        ):
            if wrong:
                raise InputError(f"The label of {self.name} {what}; leave the case out or check the vessel ids.")
        if self.unlabelled is None or not self.unlabelled.any():
            return self.image.with_array(signed_distance(self.vessel, self.image.spacing))
        return self.image.with_array(known_distance(self.vessel, self.unlabelled, self.image.spacing))


@dataclass(frozen=True)
class Source:
    """Names of the cases for training and for validation, and how to load one (in any process)."""

    training: Sequence[str]
    validation: Sequence[str]
    load: Callable[[str], LabelledCase]
    window: tuple[float, float] | None


def open_source(data: DataSettings, seed: int) -> Source:
    """The cases that the settings name, split by `seed` into training and validation."""
    if data.root == "synthetic":
        return _synthetic_source(data, seed)
    return _folder_source(data, seed)


def _split(names: Sequence[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    held_out = max(1, round(share * len(names)))
    chosen = set(np.random.default_rng(seed).permutation(len(names))[:held_out].tolist())
    return [n for i, n in enumerate(names) if i not in chosen], [n for i, n in enumerate(names) if i in chosen]


def _synthetic_source(data: DataSettings, seed: int) -> Source:
    names = [f"tree_{index:04d}" for index in range(data.synthetic_cases)]
    held_out = max(1, round(data.validation * len(names)))
    # Nobody asks for the vessels of a scan without any, but parts of many scans are like that.
    close = np.random.default_rng(seed).random(len(names)) < data.close_ups
    training = [
        name.replace("tree", "none" if number % EMPTY == EMPTY - 1 else "near" if close[number] else "tree")
        for number, name in enumerate(names[:-held_out])
    ]
    return Source(training, names[-held_out:], partial(_grow_case, data, seed), data.window)


def _grow_case(data: DataSettings, seed: int, name: str) -> LabelledCase:
    kind, _, index = name.partition("_")
    number = seed * 1_000_003 + int(index)
    generator = np.random.default_rng([number, 2])
    shape, spacing = (data.synthetic_size,) * 3, (SYNTHETIC_SPACING,) * 3
    asked = MIXED if data.modality == "mixed" else data.modality
    modality = asked if isinstance(asked, str) else asked[int(index) % len(asked)]
    slices = int(generator.choice(data.slices))
    if kind == "none":
        return LabelledCase(name, *empty_case(number, shape, spacing, modality, slices))
    if kind == "near":
        magnification = float(np.exp(generator.uniform(*np.log(MAGNIFICATION))))
        return LabelledCase(name, *close_up(number, shape, spacing, modality, magnification, slices))
    grow = partial(synthetic_case, number, shape, spacing, modality, slices=slices)
    try:
        case = grow(trees=2 if generator.random() < TWO_TREES else 1)
    except RunError:  # no room for two
        case = grow()
    return LabelledCase(name, case.image, case.sdf, case.graph)


def _folder_source(data: DataSettings, seed: int) -> Source:
    root = Path(data.root).expanduser()
    if not root.is_dir():
        raise InputError(f"No data folder at {root}; give a folder of cases, or 'synthetic'.")
    card: Card | None = load_card(data.card) if data.card else None
    cases = {case.name: case for case in find_cases(root, card) if case.labelled}
    if len(cases) < 2:
        raise InputError(
            f"{root} holds {len(cases)} labelled case(s); training needs at least 2, one of them for validation."
        )
    ids = data.vessel_ids or (tuple(card.vessel_ids) if card and card.vessel_ids else None)
    ignored = data.ignore_ids if data.ignore_ids is not None else card.ignore_ids if card else ()
    both = sorted(set(ids or ()) & set(ignored))
    if both:
        raise InputError(f"The label ids {both} are both vessel and to be ignored; take them out of one of the two.")
    training, validation = _split(sorted(cases), data.validation, seed)
    if ids is None:
        _warn_of_classes(cases[training[0]], ignored)
    load = partial(_read_case, cases, ids, ignored)
    return Source(training, validation, load, data.window or (card.window if card else None))


def _warn_of_classes(case: Case, ignored: tuple[int, ...]) -> None:
    found = sorted(set(label_ids(case.read_label()) or ()) - set(ignored))
    if len(found) > 1:
        shown = ", ".join(map(str, found))
        log.warning(
            "The label of %s has the ids %s, and all count as vessel; data.vessel_ids says which do.", case.name, shown
        )


def _read_case(
    cases: dict[str, Case], ids: tuple[int, ...] | None, ignored: tuple[int, ...], name: str
) -> LabelledCase:
    case = cases[name]
    image, label = case.read_image(), case.read_label()
    check_same_grid(image, label, (str(case.image), f"the label of {name}"))
    unlabelled = np.isin(label.array, ignored) if ignored else None
    return LabelledCase(name, image, vessel_mask(label, ids, ignored), unlabelled=unlabelled)


def known_distance(
    vessel: Bool[np.ndarray, "x y z"], unlabelled: Bool[np.ndarray, "x y z"], spacing: tuple[float, float, float]
) -> Float[np.ndarray, "x y z"]:
    """Signed distance to the vessel in mm, NaN where it hangs on what nobody has labelled.

    The true vessel holds what is labelled vessel, and at most all that is unlabelled besides. The larger a set, the
    lower its distance field: so the truth lies between the fields of the two, and is known where they agree.
    """
    upper, lower = signed_distance(vessel, spacing), signed_distance(vessel | unlabelled, spacing)
    return np.where(~unlabelled & (upper - lower < SURE * min(spacing)), upper, np.float32(np.nan))
