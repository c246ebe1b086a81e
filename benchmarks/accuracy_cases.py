"""Cases of `accuracy.py`: synthetic trees to train on, held-out ones, and simulated scans of real anatomy to test on.

Every case is made once and kept: the image on the isotropic grid that is asked for, its true distance in voxels, and
the true centreline. A third each are CT, MR and microscopy. Thick slices: 3 or 5 layers of the isotropic grid are
averaged into one slice, as a scanner would, and the image is brought back to the isotropic grid by interpolation; the
truth is not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np
from accuracy_tables import TREES

from vesselsdf.config import DataSettings
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import PreparedCase, prepare_all
from vesselsdf.sources import LabelledCase, open_source
from vesselsdf.volume import Volume, resample

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SPACING = 0.5
SLICES = (1, 3, 5)
TRAINING_SLICES = (1, 1, 3, 5)
REACH = 24.0
"""Voxels; stored distances are clipped there."""
TRAINING_CASES, TRAINING_SIZE = 120, 96
HELD_OUT, HELD_OUT_SIZE = 20, 128
HELD_OUT_SEED = 900_000
CROP = 128
"""Edge of what is cut out of large anatomy, voxels: three windows of 64 that overlap by half."""
BRAVA = ("BG001records.swc", "BG05records.swc", "BG10records.swc", "BG18records.swc")
PULMONARY, PULMONARY_CROPS = "pulmonary/PA000005.nii.gz", 3
WILLIS = ("topcow_ct_roi_003.nii.gz", "topcow_mr_roi_003.nii.gz")


@dataclass(frozen=True)
class TestCase:
    """`image`: normalised, on the isotropic grid; `sdf`: mm on the same grid; `points`, `radii`: true centreline, mm.

    `group` is the test set, `slices` the layers of one slice, `acquisition` as of `Preprocessing`.
    """

    name: str
    group: str
    slices: int
    image: np.ndarray
    acquisition: np.ndarray
    sdf: Volume
    points: np.ndarray
    radii: np.ndarray


def training_cases(folder: Path) -> list[PreparedCase]:
    """Synthetic cases on which every row is trained."""
    data = DataSettings(synthetic_cases=TRAINING_CASES, synthetic_size=TRAINING_SIZE, slices=TRAINING_SLICES)
    source = open_source(data, seed=0)
    names = [*source.training, *source.validation]
    return prepare_all(folder, names, partial(_image_and_distance, source.load), Preprocessing(), REACH)


def _image_and_distance(load: Callable[[str], LabelledCase], name: str) -> tuple[Volume, Volume]:
    case = load(name)
    return case.image, case.distance()


def test_cases(folder: Path) -> Iterator[TestCase]:
    """All test cases, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in makers().items():
        yield kept(folder / f"{name}.npz", make)


def kept(path: Path, make: Callable[[], TestCase]) -> TestCase:
    """A test case from its file, made if there is none."""
    if not path.exists():
        _save(path, make())
    return _load(path)


def makers() -> dict[str, Callable[[], TestCase]]:
    """By name, what makes each case."""
    found: dict[str, Callable[[], TestCase]] = {}
    for index in range(HELD_OUT):
        found[f"tree_{index:02d}"] = partial(_tree, index)
    for slices in SLICES:
        for index, tree in enumerate(BRAVA):
            found[f"cerebral_{index}_{slices}"] = partial(_cerebral, index, tree, slices)
        for index in range(PULMONARY_CROPS):
            found[f"pulmonary_{index}_{slices}"] = partial(_pulmonary, index, slices)
        for index, label in enumerate(WILLIS):
            found[f"willis_{index}_{slices}"] = partial(_willis, index, label, slices)
    return found if DATA.exists() else {name: make for name, make in found.items() if name.startswith("tree")}


def _tree(index: int) -> TestCase:
    from vesselsdf.synthesis.cases import synthetic_case

    modality = ("ct", "mr", "microscopy")[index % 3]
    case = synthetic_case(HELD_OUT_SEED + index, (HELD_OUT_SIZE,) * 3, (SPACING,) * 3, modality)
    return _test_case(f"tree_{index:02d}", TREES, 1, case.image, case.sdf, case.graph)


def _cerebral(index: int, tree: str, slices: int) -> TestCase:
    """A traced cerebral tree as tubes, around its thickest vessel, in MR."""
    from vesselsdf.distance import tube_distance
    from vesselsdf.graph_files import read_swc

    graph = read_swc(DATA / "brava" / tree)
    points, radii = _line(graph)
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = points[radii > np.quantile(radii, 0.8)].mean(axis=0) - SPACING * (CROP - 1) / 2
    field = Volume(tube_distance(graph, (CROP,) * 3, affine, band=REACH * SPACING), affine)
    return _scanned(f"cerebral_{index}_{slices}", "cerebral arteries, MR", slices, field, "mr", index, graph)


def _pulmonary(index: int, slices: int) -> TestCase:
    """A part of the pulmonary artery tree, in CT."""
    from vesselsdf import read_volume
    from vesselsdf.topology.thinning import thin

    label = read_volume(DATA / PULMONARY)
    around = np.argwhere(thin(label.array > 0))  # by length, so that small vessels get their share
    middle = label.to_world(around[np.random.default_rng(index).integers(len(around))][None])[0]
    return _labelled(f"pulmonary_{index}_{slices}", "pulmonary arteries, CT", slices, label, middle, "ct", index)


def _willis(index: int, name: str, slices: int) -> TestCase:
    """A circle of Willis, in the modality that it was labelled in."""
    from vesselsdf import read_volume

    label = read_volume(DATA / "circle_of_willis" / name)
    middle = label.to_world(np.argwhere(label.array > 0).mean(axis=0)[None])[0]
    modality = "ct" if "_ct_" in name else "mr"
    return _labelled(f"willis_{index}_{slices}", "circle of Willis", slices, label, middle, modality, 50 + index)


def _labelled(name: str, group: str, slices: int, label: Volume, middle, modality: str, seed: int) -> TestCase:
    """What a label has within half the crop of a place, on an isotropic grid along the label's axes."""
    from vesselsdf.distance import signed_distance

    mask = label.array > 0
    field = label.with_array(signed_distance(mask, label.spacing, REACH * SPACING))
    axes = label.affine[:3, :3] / np.array(label.spacing)
    shape = np.minimum(CROP, np.floor(np.array(label.shape) * label.spacing / SPACING)).astype(int)
    shape -= shape % 15  # whole slices of 3 and of 5 layers
    # The crop is pushed back to where the label knows of vessels.
    corner = label.to_index(middle[None])[0] * label.spacing - SPACING * (shape - 1) / 2
    corner = np.clip(corner, 0, (np.array(label.shape) - 1) * label.spacing - SPACING * (shape - 1))
    affine = np.eye(4)
    affine[:3, :3] = axes * SPACING
    affine[:3, 3] = label.to_world((corner / label.spacing)[None])[0]
    cropped = resample(field, (int(shape[0]), int(shape[1]), int(shape[2])), affine)
    return _scanned(name, group, slices, cropped, modality, seed, None)


def _scanned(name: str, group: str, slices: int, field: Volume, modality: str, seed: int, graph) -> TestCase:
    from vesselsdf.synthesis.scanner import scan, thick_affine

    image = scan(field.array, (SPACING,) * 3, modality, np.random.default_rng([seed, 77]), slices)
    return _test_case(name, group, slices, Volume(image, thick_affine(field.affine, slices)), field, graph)


def _test_case(name: str, group: str, slices: int, image: Volume, field: Volume, graph) -> TestCase:
    settings = Preprocessing(spacing=SPACING)
    grid = settings.working_volume(image)
    truth = resample(field, grid.shape, grid.affine)
    points, radii = centreline_of(truth) if graph is None else _line(graph)
    index = truth.to_index(points)
    inside = ((index >= 0) & (index <= np.array(truth.shape) - 1)).all(axis=1)
    acquisition = settings.acquisition(image)
    return TestCase(name, group, slices, grid.array, acquisition, truth, points[inside], radii[inside])


def centreline_of(truth: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Points on the centreline of a true distance field, and their radii, mm."""
    from vesselsdf.graph import centreline_graph

    return _line(centreline_graph(truth.array, truth.affine))


def _line(graph: nx.MultiGraph) -> tuple[np.ndarray, np.ndarray]:
    """Points half a voxel apart on the centreline, and their radii, mm."""
    from vesselsdf.centreline_points import sample

    found = sample(graph, SPACING / 2)
    return found.points, found.radii


def _save(path: Path, case: TestCase) -> None:
    np.savez(
        path,
        image=case.image.astype(np.float16),
        acquisition=case.acquisition,
        sdf=case.sdf.array.astype(np.float32),
        affine=case.sdf.affine,
        points=case.points,
        radii=case.radii,
        about=np.array([case.name, case.group, str(case.slices)]),
    )


def _load(path: Path) -> TestCase:
    with np.load(path) as stored:
        name, group, slices = stored["about"].tolist()
        image, field = stored["image"].astype(np.float32), Volume(stored["sdf"], stored["affine"])
        known = stored["acquisition"]
        return TestCase(name, group, int(slices), image, known, field, stored["points"], stored["radii"])
