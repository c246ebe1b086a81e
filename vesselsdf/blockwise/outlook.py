"""Whether a scan that was reconstructed in blocks is like those that the network was trained on.

The figures of `familiarity`: intensities from what the surveys of all blocks sampled, the others as medians over bricks
around places on the centreline. Which places does not depend on the blocks.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from vesselsdf.blockwise.plan import Plan
from vesselsdf.blockwise.tasks import loaded, sampled, scale_of, seen
from vesselsdf.familiarity import of_image, of_vessels, strange
from vesselsdf.field_store import FieldStore

BRICKS = 16
EDGE = 64
"""Voxels along the edge of a brick."""


def unfamiliar(folder: Path, plan: Plan, store: FieldStore, places: Float[np.ndarray, "n 3"]) -> list[str]:
    """One phrase for each figure outside what training has seen; `places`: voxels of the centreline's nodes."""
    sample = scale_of(str(folder))(sampled(folder, plan))
    dark, median, bright = np.quantile(sample, [0.001, 0.5, 0.999])
    chosen = places[np.linspace(0, len(places) - 1, min(BRICKS, len(places))).astype(int)]
    found = [_around(folder, plan, store, place) for place in np.rint(chosen).astype(int)]
    figures = {
        key: float(np.median([one[key] for one in found if key in one]))
        for key in ("noise", "blur", "contrast")
        if any(key in one for one in found)
    }
    known = loaded(plan.checkpoint).seen
    return strange({"median": float(median), "bright": float(bright), "dark": float(dark)} | figures, known)


def _around(folder: Path, plan: Plan, store: FieldStore, place: np.ndarray) -> dict[str, float]:
    low = np.clip(place - EDGE // 2, 0, np.maximum(np.array(plan.shape) - EDGE, 0))
    high = np.minimum(low + EDGE, plan.shape)
    image, field = seen(str(folder), low, high), store.read(0, low, high)
    return of_image(image) | of_vessels(image, field / np.float32(plan.spacing))
