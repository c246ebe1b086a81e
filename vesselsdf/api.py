"""The three jobs: `reconstruct`, `train`, `evaluate`. Here, and in the command line, the parts meet."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vesselsdf import needs, scales
from vesselsdf.checkpoint import GENERAL, Model, load_model
from vesselsdf.classes import MASK_LEVELS, choose_ids
from vesselsdf.config import RunConfig
from vesselsdf.data import by_stem, stem
from vesselsdf.errors import InputError
from vesselsdf.evaluation import across_levels, evaluate_case, summarise_cases, with_segments
from vesselsdf.familiarity import of_image, of_vessels, strange
from vesselsdf.files import write_json
from vesselsdf.graph import centreline_graph
from vesselsdf.graph_files import write_json as write_graph_json
from vesselsdf.graph_files import write_swc
from vesselsdf.inference import predict
from vesselsdf.masks import mask_distance, mask_field, mended_mask
from vesselsdf.metrics import evaluate as evaluate_volumes
from vesselsdf.metrics import summarise, write_csv
from vesselsdf.progress import track
from vesselsdf.reconstruction import Reconstruction, file_hash, opened
from vesselsdf.roots import set_roots
from vesselsdf.runs import RUNS, Started, newest_run, run_name, train_run
from vesselsdf.segment_findings import read_names
from vesselsdf.sources import LabelledCase, open_source
from vesselsdf.synthesis.cases import synthetic_case, write_case
from vesselsdf.trackers import Tracker
from vesselsdf.volume import Volume, check_image, check_mask, isotropic_grid, read_volume
from vesselsdf.volume import facts as volume_facts

log = logging.getLogger(__name__)

# Findings on segments that count as another topology, though no Betti number may say so.
SEGMENT_FAULTS = {"frames": "frame(s) not known", "mirrored": "side(s) swapped", "segment": "segment(s) missing"}
SEGMENT_FAULTS |= {"contact": "contact(s) missing"}


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
    name = str(path / "sdf.nii.gz" if (path / "sdf.nii.gz").is_file() else path)
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


def evaluate(
    prediction: Volume | str | Path,
    reference: Volume | str | Path,
    names: str | Mapping[int, str] | None = None,
    align: bool = False,
) -> dict[str, Any]:
    """Compare a prediction with a reference (masks or SDFs on one grid): the whole table of metrics.

    Where both are labels with several ids, `segments` holds what one of them lacks: `names` are their names (or where
    to read them, see `segment_findings.read_names`), `align` brings labels on different grids together.
    """
    p, p_name, _ = opened(prediction, None)
    r, r_name, _ = opened(reference, None)
    table = read_names(names) if isinstance(names, str) else names
    result = _compared(p, r, (p_name, r_name), table, align)
    return {**result["metrics"], **{key: value for key, value in result.items() if key == "segments"}}


def evaluate_files(
    prediction: str | Path,
    reference: str | Path,
    levels: bool = False,
    names: str | None = None,
    align: bool = False,
) -> dict[str, Any]:
    """Compare files, or two folders of files with the same stems; `levels` adds what survives at coarser levels.

    `names`, `align`: see `evaluate`.
    """
    table = None if names is None else read_names(names)
    results = []
    for name, p_path, r_path in track(_pairs(Path(prediction), Path(reference)), "evaluate", unit="case"):
        p, r = read_volume(p_path), read_volume(r_path)
        results.append({"case": name, **_compared(p, r, (str(p_path), str(r_path)), table, align, levels)})
    return {"cases": results, "mean": {"metrics": summarise([{"case": r["case"], **r["metrics"]} for r in results])}}


def _compared(
    p: Volume,
    r: Volume,
    files: tuple[str, str],
    names: Mapping[int, str] | None,
    align: bool,
    levels: bool = False,
) -> dict[str, Any]:
    """Metrics, segments of labels with several ids, and levels; without a common frame, the segments alone."""
    on_grid, segments = with_segments(p, r, files, names, align)
    result: dict[str, Any] = {"metrics": {}} if segments is None else {"metrics": {}, "segments": segments}
    if on_grid is not None:
        result["metrics"] = evaluate_volumes(on_grid, r, names=files)
        if levels:
            result |= across_levels(_as_distance(on_grid, files[0]), _as_distance(r, files[1]))
    return result


def _pairs(prediction: Path, reference: Path) -> list[tuple[str, Path, Path]]:
    for path in (prediction, reference):
        if not path.exists():
            raise InputError(f"There is no file or folder at {path}; check the path.")
    if prediction.is_dir() != reference.is_dir():
        raise InputError(f"{prediction} and {reference} must both be files or both be folders.")
    if not prediction.is_dir():
        return [(stem(prediction), prediction, reference)]
    predicted, references = by_stem(prediction), by_stem(reference)
    missing = sorted(set(references) - set(predicted))
    if missing or not references:
        what = f"no prediction for {', '.join(missing[:5])}" if missing else "no readable volumes"
        raise InputError(f"{prediction} and {reference}: {what}; files are paired by their names without suffix.")
    return [(name, predicted[name], references[name]) for name in sorted(references)]


def _as_distance(volume: Volume, name: str) -> Volume:
    if volume.array.dtype.kind == "f" and volume.array.min() < 0:
        return volume
    check_mask(volume, name)
    return volume.with_array(mask_distance(volume, name))


def save_evaluation(report: dict[str, Any], folder: str | Path) -> None:
    """Write `evaluation.json` (everything) and `evaluation.csv` (one line a case) to `folder`."""
    write_json(Path(folder) / "evaluation.json", report)
    write_csv([{"case": case["case"], **case["metrics"]} for case in report["cases"]], Path(folder) / "evaluation.csv")


def topology_differences(report: dict[str, Any]) -> list[str]:
    """What keeps the topology of each case from being that of its reference; empty if it is the same everywhere."""
    keys = ("beta0_error", "beta1_error", "beta2_error", "diu0", "diu1", "diu2")
    wrong = []
    for case in report["cases"]:
        found = [f"{key} {case['metrics'][key]}" for key in keys if case["metrics"].get(key)]
        kinds = [finding["kind"] for finding in case.get("segments", {}).get("findings", ())]
        found += [f"{kinds.count(kind)} {what}" for kind, what in SEGMENT_FAULTS.items() if kind in kinds]
        if found:
            wrong.append(f"{case['case']} has {', '.join(found)}")
    return wrong


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


def evaluate_run(run: str | Path | None = None) -> dict[str, Any]:
    """Reconstruct the held-out cases of a run (by default the newest) and measure them, level by level.

    Writes `evaluation.json` to the run's folder and returns its content.
    """
    folder = Path(run) if run else newest_run()
    model = load_model(folder / "model.safetensors")
    source = open_source(model.config.data, model.config.training.seed)
    cases: Sequence[LabelledCase] = [source.load(name) for name in source.validation]
    results = [evaluate_case(reconstruct_with(model, case.image), model, case) for case in track(cases, "evaluate")]
    report = {"run": str(folder), "cases": results, "mean": summarise_cases(results)}
    write_json(folder / "evaluation.json", report)
    return report
