"""Training patches: cases prepared once on disk, each patch a pure function of (seed, step, number).

Strategy. Preparing a case (working grid, distance field, skeleton) costs seconds, drawing a patch from it must cost
milliseconds: so prepared cases lie as `.npy` files that are memory-mapped, and a run that is resumed finds them
there. Since a draw depends on nothing but its three numbers, a resumed run sees the patches that the undisturbed one
would have seen.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread

import numpy as np
from jaxtyping import Float, Float32, Int

from vesselsdf.files import PARTIAL
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.progress import track
from vesselsdf.topology.thinning import thin
from vesselsdf.volume import Volume, check_image, resample

# Share of the patches centred near a vessel; the others lie anywhere, so that background is learned too.
CENTRED = 0.7
# Voxels. A branch with a smaller radius is thin; two walls are a near miss if a voxel between them is closer to both.
THIN, GAP = 1.5, 1.75
# Half-way between two walls the distance has a ridge: its central differences are well below 1 there.
RIDGE = 0.5
# Share of the patches that are magnified or shrunk, and by how much: vessels of a modality come in all widths, and the
# widest (an aorta of 25 voxels across) would need cases too large to keep many of.
ZOOMED = 0.5
ZOOM = (0.75, 2.5)


@dataclass(frozen=True)
class PreparedCase:
    """A training case on the working grid.

    `image`: (X, Y, Z) float16, normalised; `sdf`: (X, Y, Z) float16, voxels, clipped, NaN where it is not known;
    `skeleton`: (n, 3) voxel indices; `acquisition`: see `Preprocessing.acquisition`. `hard`: places of this kind each,
    (n, 3): thin branches, forks, near misses. `edges`: of the voxels of its image, mm; NaN where they were not kept.
    """

    name: str
    image: np.ndarray
    sdf: np.ndarray
    skeleton: Int[np.ndarray, "n 3"]
    acquisition: Float32[np.ndarray, "4"]
    hard: tuple[Int[np.ndarray, "_ 3"], ...] = ()
    edges: Float[np.ndarray, "3"] = field(default_factory=lambda: np.full(3, np.nan))


Load = Callable[[], tuple[Volume, Volume]]


@dataclass(frozen=True)
class Batch:
    """Patches (B, 1, p, p, p) float32: `image`, `sdf` in voxels (NaN: not known), `skeleton` 0 or 1.

    `acquisition`: (B, 4), its axes those of the patches.
    """

    image: Float[np.ndarray, "b 1 p p p"]
    sdf: Float[np.ndarray, "b 1 p p p"]
    skeleton: Float[np.ndarray, "b 1 p p p"]
    acquisition: Float32[np.ndarray, "b 4"]


def prepare(folder: Path, name: str, load: Load, settings: Preprocessing, reach: float) -> PreparedCase:
    """Bring one case to the working grid and keep it under `folder`; an earlier preparation there is reused.

    `load` returns the image and the distance to its vessel, mm (NaN: not known), on any grid that covers the image,
    such as a finer one; it is called only if the case is not prepared yet. `reach`: distances are clipped there,
    voxels.
    """
    target = folder / name
    if not target.is_dir():
        image, distance = load()
        check_image(image, name)
        grid = settings.working_volume(image)
        spacing = settings.working_spacing(image)
        sdf = resample(distance, grid.shape, grid.affine).array / np.float32(spacing)
        skeleton = np.argwhere(thin(sdf <= 0, sdf)).astype(np.int32)
        _save_folder(
            target,
            image=grid.array.astype(np.float16),
            sdf=np.clip(sdf, -reach, reach).astype(np.float16),
            skeleton=skeleton,
            acquisition=settings.acquisition(image),
            edges=np.array(image.spacing),
            **hard_places(sdf, skeleton),
        )
    image, sdf = (np.load(target / f"{key}.npy", mmap_mode="r") for key in ("image", "sdf"))
    skeleton, acquisition, *hard = (
        np.load(target / f"{key}.npy") for key in ("skeleton", "acquisition", "thin", "forks", "gaps")
    )
    edges = target / "edges.npy"  # absent from what earlier versions prepared
    known = np.load(edges) if edges.is_file() else np.full(3, np.nan)
    return PreparedCase(name, image, sdf, skeleton, acquisition, tuple(hard), known)


def hard_places(field: Float[np.ndarray, "x y z"], skeleton: Int[np.ndarray, "n 3"]) -> dict[str, np.ndarray]:
    """Voxels where topology is won or lost: `thin` branches, `forks`, and `gaps` between walls; `field` in voxels."""
    line = np.zeros(np.add(field.shape, 2), np.uint8)
    line[tuple((skeleton + 1).T)] = 1
    around = sum(line[tuple((skeleton + step).T)].astype(int) for step in np.ndindex(3, 3, 3))
    between = np.argwhere((field > 0) & (field <= GAP)).astype(np.int32)
    squares = np.zeros(len(between), np.float32)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        ahead, behind = (tuple(np.clip(between + s, 0, np.array(field.shape) - 1).T) for s in (step, -step))
        squares += ((field[ahead] - field[behind]) / 2) ** 2
    return {
        "thin": skeleton[field[tuple(skeleton.T)] > -THIN],
        "forks": skeleton[np.asarray(around) > 3],
        "gaps": between[squares < RIDGE**2],
    }


def prepare_all(
    folder: Path,
    names: Sequence[str],
    load: Callable[[str], tuple[Volume, Volume]],
    settings: Preprocessing,
    reach: float,
) -> list[PreparedCase]:
    """`prepare` every case, those that are missing in worker processes; `load` must be picklable."""
    missing = [name for name in names if not (folder / name).is_dir()]
    if len(missing) > 1:
        # Fresh processes: forking one in which torch runs threads may hang.
        workers = min(len(missing), os.cpu_count() or 1)
        with ProcessPoolExecutor(workers, get_context("spawn"), _end_with_parent) as pool:
            waiting = [pool.submit(_prepare_quietly, folder, name, load, settings, reach) for name in missing]
            for done in track(as_completed(waiting), "prepare cases", len(missing), "case"):
                done.result()
    return [prepare(folder, name, partial(load, name), settings, reach) for name in names]


def _end_with_parent() -> None:
    """Let this worker end as soon as the process that started it has, even if that was killed."""

    def watch() -> None:
        wait([parent_process().sentinel])  # type: ignore[union-attr]
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _prepare_quietly(folder: Path, name: str, load: Callable, settings: Preprocessing, reach: float) -> None:
    prepare(folder, name, partial(load, name), settings, reach)


def _save_folder(target: Path, **arrays: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=target.parent))
    try:
        for key, array in arrays.items():
            np.save(temporary / f"{key}.npy", array)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def draw(cases: Sequence[PreparedCase], size: int, batch: int, seed: int, step: int, first: int = 0) -> Batch:
    """Patches `first` to `first + batch` of a step, augmented, of edge `size`: a pure function of its arguments."""
    patches = []
    for number in range(first, first + batch):
        generator = np.random.default_rng([seed, step, number])
        patches.append(_draw_one(cases[int(generator.integers(len(cases)))], size, generator))
    *voxels, acquisition = (np.stack(part) for part in zip(*patches, strict=True))
    image, sdf, skeleton = (part[:, None] for part in voxels)
    return Batch(image, sdf, skeleton, acquisition)


def _draw_one(case: PreparedCase, size: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    zoom = float(np.exp(generator.uniform(*np.log(ZOOM)))) if generator.random() < ZOOMED else 1.0
    window, start = _window(case, round(size / zoom), generator)
    image, sdf = case.image[window].astype(np.float32), case.sdf[window].astype(np.float32)
    skeleton = np.zeros((size,) * 3, np.float32)
    inside = np.floor((case.skeleton - start + 0.5) * zoom).astype(int)
    skeleton[tuple(inside[((inside >= 0) & (inside < size)).all(axis=1)].T)] = 1
    if zoom != 1.0:
        shape = tuple(min(size, round(n * zoom)) for n in image.shape)
        image, sdf = _zoomed(image, shape), _zoomed(sdf, shape) * np.float32(zoom)
    short = [(0, int(size - n)) for n in image.shape]
    patches = np.pad(image, short, mode="edge"), np.pad(sdf, short, mode="edge"), skeleton
    axes, flips = generator.permutation(3), tuple(np.flatnonzero(generator.random(3) < 0.5).tolist())
    turned = [np.ascontiguousarray(np.flip(part.transpose(axes), flips)) for part in patches]
    acquisition = case.acquisition[[*axes, 3]]
    return vary_intensity(turned[0], generator), turned[1], turned[2], acquisition


def _window(case: PreparedCase, size: int, generator: np.random.Generator) -> tuple[tuple[slice, ...], np.ndarray]:
    free = np.maximum(np.array(case.image.shape) - size, 0)
    kinds = [places for places in (case.skeleton, *case.hard) if len(places)]
    if generator.random() < CENTRED and kinds:
        places = kinds[int(generator.integers(len(kinds)))]
        # Not only in the middle of the patch, or the network would learn to look there.
        near = generator.integers(-3 * size // 8, 3 * size // 8 + 1, 3)
        centre = places[generator.integers(len(places))] + near
        start = np.clip(centre - size // 2, 0, free)
    else:
        start = generator.integers(0, free + 1)
    return tuple(slice(s, s + size) for s in start), start


def _zoomed(patch: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    import torch

    return torch.nn.functional.interpolate(torch.from_numpy(patch)[None, None], shape, mode="trilinear")[0, 0].numpy()


def vary_intensity(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random contrast, brightness and noise on the normalised scale, and now and then a background that was cut off."""
    gain, offset = generator.uniform(0.8, 1.25), generator.normal(0, 0.15)
    noise = generator.uniform(0, 0.15) * (generator.random() < 0.3)
    image = image * np.float32(gain) + np.float32(offset)
    if noise:
        image = image + generator.standard_normal(image.shape, dtype=np.float32) * np.float32(noise)
    if generator.random() < 0.1:
        image = np.maximum(image, np.float32(generator.uniform(-0.5, 1.0)))
    return image
