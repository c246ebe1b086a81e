"""The three jobs: `reconstruct`, `train`, `evaluate`. Here, and in the command line, the parts meet."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf import needs, scales
from vesselsdf.checkpoint import GENERAL, Model, load_model
from vesselsdf.classes import MASK_LEVELS, choose_ids
from vesselsdf.config import RunConfig
from vesselsdf.errors import InputError
from vesselsdf.evaluation import evaluate_case, summarise_cases
from vesselsdf.export.result import FIELD
from vesselsdf.familiarity import of_image, of_vessels, strange
from vesselsdf.file_evaluation import evaluate, page_of, save_evaluation, write_page
from vesselsdf.graph import centreline_graph
from vesselsdf.graph_files import write_json as write_graph_json
from vesselsdf.graph_files import write_swc
from vesselsdf.inference import predict
from vesselsdf.masks import mask_field, mended_mask
from vesselsdf.progress import track
from vesselsdf.reconstruction import Reconstruction, file_hash, opened
from vesselsdf.report.comparison_page import Method
from vesselsdf.roots import set_roots
from vesselsdf.runs import RUNS, Started, newest_run, run_name, train_run
from vesselsdf.sources import LabelledCase, open_source
from vesselsdf.synthesis.cases import synthetic_case, write_case
from vesselsdf.trackers import Tracker
from vesselsdf.volume import Volume, check_image, check_mask, isotropic_grid, read_volume
from vesselsdf.volume import facts as volume_facts

__all__ = ["evaluate", "evaluate_run", "inspect", "make_mesh", "reconstruct", "reconstruct_with", "synthesise", "train"]

log = logging.getLogger(__name__)


def reconstruct(
    volume: Volume | str | Path,
    checkpoint: str | Path | None = None,
    mask: bool = False,
    spacing: tuple[float, float, float] | None = None,
    mend: bool = False,
    roots: Any = None,
    memory: float | None = None,
    ids: Sequence[int] | None = None,
) -> Reconstruction:
    """Reconstruct the vessels of an image, or of somebody's mask.

    `volume`: a `Volume` or a file (`spacing`, mm, only for formats that have none). `checkpoint`: a model that `train`
    wrote; by default the general one that comes with the package. `mask`: the volume is a segmentation (vessel above
    0), and no network is used. `mend`: take out false features: holes, cavities, specks and gaps of a voxel or two.
    `roots`: points in RAS mm at which the trees begin; without them, at their thickest ends. `memory`: GB that may be
    taken. `ids`: those of a label with several that are vessel, as one (`reconstruct_classes`: each by itself). Raises
    `InputError` for anything unusable, and where more memory would be needed.

    >>> x, y, z = np.indices((24, 24, 40)) - 12
    >>> made = reconstruct(Volume((np.hypot(x, y) < 4).astype(np.uint8), np.diag([0.5, 0.5, 0.5, 1])), mask=True)
    >>> made.topology()["betti"], made.mesh().is_watertight, made.graph.number_of_edges()
    ((1, 0, 0), True, 1)
    """
    source, name, provenance = opened(volume, spacing)
    if ids is not None:
        if not mask:
            raise InputError("ids are those of a label: add --mask (mask=True) if the volume is one.")
        source, provenance["ids"] = choose_ids(source, ids, name), list(ids)
    if mask:
        check_mask(source, name)
        if memory is not None:
            shape = working_shape(source)
            needs.require(needs.of_mask(source.array, shape)["gigabytes"], memory, shape)
        if mend:
            source, provenance["mended"] = mended_mask(source, name)
        made = Reconstruction([], source.affine, source, from_mask=True, roots=roots, provenance=provenance)
        with made.timed("distance"):
            field, made.provenance["working_grid"] = mask_field(source, name)
            made.levels, made.affine = scales.pyramid(field.array, MASK_LEVELS), field.affine
        return made
    check_image(source, name)
    path = Path(checkpoint or GENERAL)
    model = load_model(path)
    provenance |= {"checkpoint": str(path), "checkpoint_sha256": file_hash(path), "config": model.config.model_dump()}
    made = reconstruct_with(model, source, provenance, memory)
    for one in made.provenance["unfamiliar"]:
        log.warning("%s is unlike the scans that the network was trained on: %s.", name, one)
    made.roots = roots
    if mend:
        with made.timed("mending"):
            made.mend()
    return made


def reconstruct_with(
    model: Model, source: Volume, provenance: dict[str, Any] | None = None, memory: float | None = None
) -> Reconstruction:
    """Reconstruct the vessels of an image with a loaded model; `memory`: see `reconstruct`."""
    settings = model.preprocessing
    operator = model.config.network.operator
    made = Reconstruction([], source.affine, source, False, operator, provenance=provenance or {})
    with made.timed("preprocessing"):
        working = settings.working_volume(source)
        spacing, acquired = settings.working_spacing(source), settings.acquisition(source)
        if memory is not None:
            needed = needs.of_image(model.network, working.array, acquired)["gigabytes"]
            needs.require(needed, memory, working.shape)
    with made.timed("network"):
        fields = predict(model.network, working.array, spacing, acquired)
    figures = of_image(working.array) | of_vessels(working.array, fields[0] / np.float32(spacing))
    made.provenance |= {"unfamiliar": strange(figures, model.seen), "window": settings.window_of(source)}
    # The wall lies where the field takes the threshold; taking it off every level leaves all differences as they are.
    made.levels = [level - np.float32(settings.threshold * spacing) for level in fields]
    made.affine = working.affine
    made.bounds = model.network.apriori_bounds(spacing)
    return made


def make_mesh(
    source: str | Path,
    output: str | Path,
    mask: bool = False,
    smooth: bool = False,
    faces: int | None = None,
    error: float | None = None,
    open_ends: bool = False,
    roots: Any = None,
) -> dict[str, Any]:
    """A mesh for printing, rendering or flow simulation, written to `output`; returns what can be said of it.

    `source`: a result of `reconstruct`, a distance field in mm, or with `mask` a segmentation. The wall is made with
    the topology of the field, then smoothed, decimated (to `faces`, or as far as `error` in mm allows), and cut open at
    the ends if that is asked for; its topology stays. `output`: .ply, .stl, .obj, .glb or .vtp, coloured by radius
    where the format can; with `open_ends` .vtp (`ModelFaceID`), .stl (a solid for each group) or .obj, and a table of
    the caps beside it. `roots`: points in RAS mm where flow comes in; without them, at the thickest ends.
    """
    from vesselsdf import mesh as meshes
    from vesselsdf.mesh import groups, writers

    path = Path(source)
    name = str(next((path / one for one in FIELD if (path / one).exists()), path))
    field = read_volume(name)
    if mask:
        check_mask(field, name)
        field, _ = mask_field(field, name)
    elif not (field.array.dtype.kind == "f" and field.array.min() < 0 < field.array.max()):
        raise InputError(f"{name} is no distance field (mm, negative inside); add --mask if it is a segmentation.")
    suffixes = groups.SUFFIXES[:-1] if open_ends else writers.WRITERS
    if Path(output).suffix.lower() not in suffixes:
        raise InputError(f"{output}: give a name that ends in {', '.join(suffixes)}.")
    wall = meshes.surface(field.array, field.affine)
    if smooth:
        wall = meshes.smooth(wall, field.array, field.affine)
    if faces is not None or error is not None:
        wall = meshes.decimate(wall, field.array, field.affine, faces, error)
    graph = centreline_graph(field.array, field.affine)
    if roots is not None and len(roots):
        set_roots(graph, roots)
    if not open_ends:
        meshes.write_mesh(meshes.colour_by_radius(wall, graph), output)
        return {"mesh": meshes.check(wall)}
    opened = meshes.open_ends(wall, graph)
    meshes.write_groups(opened, output)
    meshes.write_groups(opened, Path(output).with_suffix(".csv"))
    return {"mesh": meshes.check(opened.mesh), "caps": opened.caps, "closed": opened.closed}


def train(
    config: RunConfig | None = None,
    output: str | Path | None = None,
    trackers: Sequence[Tracker] | None = None,
    started: Started | None = None,
) -> Path:
    """Train a network; returns the folder of the run. A run that was interrupted goes on where it stopped.

    `output`: folder of the run; by default ./runs/<data>-<hash of the configuration>, so that the same configuration
    finds its own run again. `trackers`: who is told figures and pictures (`vesselsdf.trackers`), instead of TensorBoard
    in the run's folder; they are closed at the end. `started`: called once with what the run understood
    (`training_facts.TrainingFacts`), before its first step. Of several processes only the first calls either.
    """
    config = config or RunConfig()
    folder = Path(output) if output else RUNS / run_name(config)
    train_run(config, folder, trackers, started)
    return folder


def synthesise(folder: str | Path, cases: int, seed: int, modality: str, size: int, spacing: float) -> list[str]:
    """Write synthetic cases to `folder`: images, labels, exact distance fields, and graphs as JSON and SWC."""
    if cases < 1 or size < 32 or not spacing > 0:
        what = f"not {cases} of {size} at {spacing} mm"
        raise InputError(f"synth needs at least 1 case of at least 32 voxels and a positive spacing, {what}.")
    folder = Path(folder)
    names = []
    for index in track(range(cases), "grow", unit="tree"):
        name = f"{modality}_{index:04d}"
        case = synthetic_case(seed * 1_000_003 + index, (size,) * 3, (spacing,) * 3, modality)
        write_case(case, folder, name)
        write_graph_json(case.graph, folder / "graphs" / f"{name}.json")
        write_swc(case.graph, folder / "graphs" / f"{name}.swc")
        names.append(name)
    return names


def inspect(
    path: str | Path,
    spacing: tuple[float, float, float] | None = None,
    checkpoint: str | Path | None = None,
) -> dict[str, Any]:
    """Facts about a file, and what reconstructing it will take on this machine (the speed is measured).

    `unfamiliar`: in what an image differs from those that the network of `checkpoint` (by default the general one) was
    trained on; `window`: through which the network sees it, None if relative to the tissue (`Preprocessing.window_of`).
    """
    volume = read_volume(path, spacing)
    facts = volume_facts(volume, path)
    if facts["looks_like_labels"]:
        shape, working = working_shape(volume), min(volume.spacing)
        facts |= {"unfamiliar": [], "window": None, "needs": needs.of_mask(volume.array, shape)}
    else:
        model = load_model(checkpoint or GENERAL)
        settings = model.preprocessing
        image, working = settings.working_volume(volume).array, settings.working_spacing(volume)
        shape = image.shape
        facts |= {"unfamiliar": strange(of_image(image), model.seen), "window": settings.window_of(volume)}
        facts["needs"] = needs.of_image(model.network, image, settings.acquisition(volume))
    return facts | {"working_spacing": working, "working_shape": shape}


def working_shape(volume: Volume) -> tuple[int, int, int]:
    """Voxels of a volume once it is isotropic, as fine as its finest edge."""
    return isotropic_grid(volume.shape, volume.spacing, min(volume.spacing))[1]


def evaluate_run(run: str | Path | None = None, output: str | Path | None = None) -> dict[str, Any]:
    """Reconstruct the held-out cases of a run (by default the newest) and measure them, level by level.

    Writes `evaluation.json`, `evaluation.csv` and pages to look at (`report.html`; of several cases an overview, and
    one page each in `pages/`) to `output`, by default the run's folder. Returns what is in the JSON.
    """
    folder = Path(run) if run else newest_run()
    output = Path(output) if output else folder
    model = load_model(folder / "model.safetensors")
    source = open_source(model.config.data, model.config.training.seed)
    cases: Sequence[LabelledCase] = [source.load(name) for name in source.validation]
    results = []
    for case in track(cases, "evaluate", unit="case"):
        result, sides = evaluate_case(reconstruct_with(model, case.image), model, case)
        results.append(result)
        method = Method(folder.name, result["metrics"], sides[0], result["levels"])
        page = page_of(case.name, output, len(cases))
        write_page(page, f"{case.name}, held out", [method], sides[1], case.reference(), case.image)
    report = {"run": str(folder), "cases": results, "mean": summarise_cases(results)}
    save_evaluation(report, output)
    return report
