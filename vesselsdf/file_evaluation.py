"""Evaluation of files: a prediction or a folder of them against references, several methods side by side, and pages."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vesselsdf import __version__
from vesselsdf.data import by_stem, stem
from vesselsdf.errors import InputError
from vesselsdf.evaluation import across_levels, with_segments
from vesselsdf.files import write_json
from vesselsdf.masks import mask_distance
from vesselsdf.metrics import Side, measure, summarise, write_csv
from vesselsdf.progress import track
from vesselsdf.report import packing
from vesselsdf.report.comparison_page import Method, write_comparison, write_overview
from vesselsdf.segment_findings import read_names
from vesselsdf.volume import Volume, check_mask, read_volume

# Findings on segments that count as another topology, though no Betti number may say so.
SEGMENT_FAULTS = {"frames": "frame(s) not known", "mirrored": "side(s) swapped", "segment": "segment(s) missing"}
SEGMENT_FAULTS |= {"contact": "contact(s) missing"}

log = logging.getLogger(__name__)


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
    p, p_name = _opened(prediction, "the prediction")
    r, r_name = _opened(reference, "the reference")
    table = read_names(names) if isinstance(names, str) else names
    result, _ = _compared(p, r, (p_name, r_name), table, align)
    return {**result["metrics"], **{key: value for key, value in result.items() if key == "segments"}}


def evaluate_files(
    prediction: str | Path,
    reference: str | Path,
    levels: bool = False,
    names: str | None = None,
    align: bool = False,
    folder: str | Path | None = None,
    image: str | Path | None = None,
) -> dict[str, Any]:
    """Compare files, or two folders of files with the same stems; `levels` adds what survives at coarser levels.

    `names`, `align`: see `evaluate`. `folder`: for `evaluation.json`, `evaluation.csv` and pages to look at
    (`report.html`; of several cases an overview, and one page each in `pages/`). `image`: the scan, or a folder of
    them, for the slices of the pages.
    """
    table = None if names is None else read_names(names)
    pairs = paired(Path(prediction), Path(reference))
    images = _images(image, [name for name, *_ in pairs])
    results = []
    for name, p_path, r_path in track(pairs, "evaluate", unit="case"):
        p, r = read_volume(p_path), read_volume(r_path)
        result, sides = _compared(p, r, (str(p_path), str(r_path)), table, align, levels)
        results.append({"case": name, **result})
        if folder is not None and sides is not None:
            method = p_path.resolve().parent.name if stem(p_path) == stem(r_path) else stem(p_path)
            one = Method(method, result["metrics"], sides[0], result.get("levels", ()))
            page = page_of(name, folder, len(pairs))
            write_page(
                page,
                f"{name}, measured against its reference",
                [one],
                sides[1],
                r,
                read_volume(images[name]) if name in images else None,
            )
    report = {"cases": results, "mean": {"metrics": summarise([{"case": r["case"], **r["metrics"]} for r in results])}}
    if folder is not None:
        save_evaluation(report, folder)
    return report


def page_of(case: str, folder: str | Path, cases: int) -> Path:
    """Where the page of a case lies."""
    return Path(folder) / "report.html" if cases == 1 else Path(folder) / "pages" / f"{case}.html"


def write_page(
    path: Path, title: str, methods: Sequence[Method], reference: Side, grid: Volume, image: Volume | None
) -> None:
    """The page of a case; a warning if the package was built without its viewer."""
    if not packing.available():
        log.warning("%s is not written: this copy of the package was built without three.js.", path)
        return
    write_comparison(path, title, methods, reference, grid, image, made())


def made() -> str:
    """The foot of a page."""
    return f"vesselsdf {__version__}, {time.strftime('%Y-%m-%d')}. Not a medical device."


def _images(image: str | Path | None, names: Sequence[str]) -> dict[str, Path]:
    """The scan of each case that has one."""
    if image is None:
        return {}
    path = Path(image)
    if not path.exists():
        raise InputError(f"There is no image at {path}; check --image.")
    if len(names) == 1 and (path.is_file() or not by_stem(path)):
        return {names[0]: path}
    known = by_stem(path) if path.is_dir() else {}
    if not set(known) & set(names):
        raise InputError(f"{path} has no image for {', '.join(names[:5])}; images are found by the names of the cases.")
    return known


@dataclass(frozen=True)
class SideBySide:
    """Several methods on one case, measured against one reference."""

    title: str
    methods: list[Method]
    reference: Side
    grid: Volume
    image: Volume | None = None

    def save(self, path: str | Path) -> None:
        """Write the page, and the metrics of all methods beside it as CSV."""
        write_page(Path(path), self.title, self.methods, self.reference, self.grid, self.image)
        write_csv([{"case": one.name, **one.metrics} for one in self.methods], Path(path).with_suffix(".csv"))


def compare(
    predictions: Sequence[str | Path] | Mapping[str, Volume | str | Path],
    reference: Volume | str | Path,
    image: Volume | str | Path | None = None,
) -> SideBySide:
    """Several predictions of one case (masks or SDFs on one grid, by name or named by their files) side by side."""
    if isinstance(predictions, Mapping):
        named = dict(predictions)
    else:
        named = dict(zip(distinct_names([Path(one) for one in predictions]), predictions, strict=True))
    r, r_name = _opened(reference, "the reference")
    methods, graph = [], None
    for name, prediction in track(list(named.items()), "compare", unit="method"):
        p, p_name = _opened(prediction, name)
        metrics, sides = measure(p, r, names=(p_name, r_name), reference_graph=graph)
        graph = sides[1].graph
        methods.append(Method(name, metrics, sides[0]))
    scan = _opened(image, "the image")[0] if image is not None else None
    title = f"{', '.join(named)} against {'the reference' if isinstance(reference, Volume) else stem(Path(reference))}"
    return SideBySide(title, methods, sides[1], r, scan)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """The stem of each file, with as many of its folders as it takes to tell them apart.

    >>> distinct_names([Path("a/x/p.nii.gz"), Path("b/x/p.nii.gz"), Path("b/q.nii.gz")])
    ['a/x/p', 'b/x/p', 'b/q']
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("compare: the same prediction was given twice; give each file once.")
    given, whole = [path.parts[:-1] for path in paths], [path.resolve().parts[:-1] for path in paths]
    for last in ([stem(path) for path in paths], [path.name for path in paths]):
        for folders in (given, whole):
            for depth in range(1 + max(map(len, folders))):
                names = [
                    "/".join([*one[max(len(one) - depth, 0) :], end]) for one, end in zip(folders, last, strict=True)
                ]
                if len(set(names)) == len(names):
                    return names
    return [str(path) for path in paths]


def _opened(volume: Volume | str | Path, name: str) -> tuple[Volume, str]:
    return (volume, name) if isinstance(volume, Volume) else (read_volume(volume), str(volume))


def _compared(
    p: Volume,
    r: Volume,
    files: tuple[str, str],
    names: Mapping[int, str] | None,
    align: bool,
    levels: bool = False,
) -> tuple[dict[str, Any], tuple[Side, Side] | None]:
    """Metrics, segments of labels with several ids, and levels; without a common frame, the segments alone."""
    on_grid, segments = with_segments(p, r, files, names, align)
    result: dict[str, Any] = {"metrics": {}} if segments is None else {"metrics": {}, "segments": segments}
    if on_grid is None:
        return result, None
    result["metrics"], sides = measure(on_grid, r, names=files)
    if levels:
        result |= across_levels(_as_distance(on_grid, files[0]), _as_distance(r, files[1]))
    return result, sides


def paired(prediction: Path, reference: Path) -> list[tuple[str, Path, Path]]:
    """Names, predictions and references: of two files, or of two folders by the names of their files."""
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
    """Write `evaluation.json` (everything), `evaluation.csv` (one line a case) and, of several, an overview page."""
    write_json(Path(folder) / "evaluation.json", report)
    rows = [{"case": case["case"], **case["metrics"]} for case in report["cases"]]
    write_csv(rows, Path(folder) / "evaluation.csv")
    if len(rows) > 1:
        # Labels without a common frame have no metrics and no page.
        links = [page_of(row["case"], ".", len(rows)).as_posix() if "dice" in row else None for row in rows]
        write_overview(Path(folder) / "report.html", Path(folder).name, rows, report["mean"]["metrics"], links, made())


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
