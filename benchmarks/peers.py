"""The jobs of `topology.py`: ours, and the same by every peer that can do it, with the comparison of their answers.

A job has `inputs`, made from the two fields before the clock starts, and calls that take them and return arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Answer = dict[str, Any]
BAND = 3.0
TOLERANCE = 1.0
TARGETS = {
    ("betti", 128): 0.02,
    ("betti", 256): 0.12,
    ("betti", 512): 1.1,
    ("persistence", 128): 0.3,
    ("persistence", 256): 2.5,
    ("persistence", 512): 25,
    ("thinning", 128): 0.08,
    ("thinning", 256): 0.5,
    ("thinning", 512): 3.3,
    ("diu", 128): 0.3,
    ("diu", 256): 2.5,
    ("warping", 128): 0.1,
    ("warping", 256): 0.5,
    ("survival", 256): 10,
    ("survival", 512): 90,
}
MEMORY = {("persistence", 256): 400, ("persistence", 512): 2500}  # MB


@dataclass(frozen=True)
class Peer:
    """A peer's call on the job's inputs, and the largest edge at which it is still worth the wait."""

    call: Callable[..., Answer]
    largest: int


@dataclass(frozen=True)
class Job:
    """What is measured; `two` if it compares two fields; `compare` says in a few words what the peer's answer is."""

    name: str
    inputs: Callable[..., tuple]
    ours: Callable[..., Answer]
    compare: Callable[[Answer, Answer], str]
    peers: dict[str, Peer] = field(default_factory=dict)
    two: bool = False
    largest: int = 512

    def alone(self) -> "Job":
        """The job without its peers."""
        return replace(self, peers={})


def one_mask(phi: np.ndarray, _: Any) -> tuple:
    return (np.ascontiguousarray(phi <= 0),)


def two_masks(phi: np.ndarray, other: np.ndarray) -> tuple:
    return np.ascontiguousarray(phi <= 0), np.ascontiguousarray(other <= 0)


def equal(ours: Answer, theirs: Answer) -> str:
    """Whether all arrays are the same; the first that is not is shown."""
    for key, value in ours.items():
        if key in theirs and not np.array_equal(value, theirs[key]):
            return f"{key} {np.asarray(theirs[key]).tolist()}, ours {value.tolist()}"
    return "the same"


def close(ours: Answer, theirs: Answer) -> str:
    """Which numbers agree to nine digits; the peer's others."""
    words = []
    for key, value in ours.items():
        same = np.isclose(value, theirs[key], rtol=1e-9)
        words.append(f"{key} the same" if same else f"{key} {float(theirs[key]):.4f}, ours {float(value):.4f}")
    return "; ".join(words)


# Betti and Euler numbers.


def our_betti(mask):
    from vesselsdf.topology.betti import betti_numbers

    return {"betti": betti_numbers(mask)}


def scikit_image_betti(mask):
    from skimage.measure import euler_number, label

    beta0 = label(mask, connectivity=3, return_num=True)[1]
    beta2 = label(np.pad(~mask, 1, constant_values=True), connectivity=1, return_num=True)[1] - 1
    return {"betti": (beta0, beta0 + beta2 - euler_number(mask, connectivity=3), beta2)}


def gudhi_betti(mask):
    return {"betti": [int(np.isinf(bars[:, 1]).sum()) for bars in gudhi_bars(np.where(mask, 0.0, np.inf))]}


def cripser_betti(mask):
    bars = cripser_bars(np.where(mask, 0.0, np.inf))
    return {"betti": [int((rows[:, 1] > 0).sum()) for rows in bars]}


def our_euler(mask):
    from vesselsdf.topology.betti import euler_number

    return {"euler": euler_number(mask)}


def scikit_image_euler(mask):
    from skimage.measure import euler_number

    return {"euler": euler_number(mask, connectivity=3)}


# Persistence in the band.


def gudhi_bars(field: np.ndarray) -> list[np.ndarray]:
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    return [cubical.persistence_intervals_in_dimension(k).reshape(-1, 2) for k in range(3)]


def cripser_bars(field: np.ndarray) -> list[np.ndarray]:
    import cripser

    rows = cripser.computePH_T(np.asarray(field, np.float64), maxdim=2)
    return [rows[rows[:, 0] == k, 1:3] for k in range(3)]


def in_band(bars: list[np.ndarray]) -> Answer:
    """Bars clipped to the band, those of no length dropped, in order."""
    result = {}
    for k, rows in enumerate(bars):
        clipped = np.clip(np.asarray(rows, np.float64), -BAND, BAND)
        clipped = clipped[clipped[:, 0] < clipped[:, 1]]
        result[f"H{k}"] = clipped[np.lexsort(clipped.T)]
    return result


def same_bars(ours: Answer, theirs: Answer) -> str:
    counts = [len(ours[f"H{k}"]) for k in range(3)]
    same = all(np.array_equal(ours[f"H{k}"], theirs[f"H{k}"]) for k in range(3) if f"H{k}" in theirs)
    return f"the same {sum(counts)} bars" if same else f"{[len(theirs[f'H{k}']) for k in range(3)]}, ours {counts}"


def our_persistence(phi):
    from vesselsdf.topology.persistence import diagrams

    return in_band(diagrams(phi, BAND))


def cripser_persistence(phi):
    return in_band(cripser_bars(np.where(phi <= BAND, phi, np.inf)))


def gudhi_persistence(phi):
    return in_band(gudhi_bars(phi))


def betti_matching_3d_persistence(phi):
    """Voxels are its vertices (6/26), so it gets the background: by duality, dimensions 2 - k and signs exchanged."""
    import betti_matching

    background = -np.pad(np.clip(phi, -BAND, BAND).astype(np.float64), 1, constant_values=2 * BAND)
    found = betti_matching.compute_barcode(background)
    bars = []
    for k in range(3):
        births, deaths = found.birth_coordinates[2 - k], found.death_coordinates[2 - k]
        rows = np.stack([-background[tuple(deaths.T)], -background[tuple(births.T)]], axis=1)
        bars.append(rows)
    return in_band(bars)


# Skeletons.


def our_thinning(mask):
    from vesselsdf.topology.thinning import thin

    return {"skeleton": thin(mask)}


def scikit_image_thinning(mask):
    from skimage.morphology import skeletonize

    return {"skeleton": skeletonize(mask)}


def kimimaro_thinning(mask):
    """Constants for voxels as units; a graph, whose components and loops are counted."""
    import kimimaro

    settings = {"scale": 1.5, "const": 3, "pdrf_scale": 100000, "pdrf_exponent": 4, "soma_detection_threshold": 1e9}
    skeletons = kimimaro.skeletonize(
        mask.astype(np.uint8), settings, anisotropy=(1, 1, 1), dust_threshold=0, progress=False
    )
    return {"graph": [(len(s.vertices), len(s.edges), len(s.components())) for s in skeletons.values()]}


def same_topology(ours: Answer, theirs: Answer) -> str:
    from vesselsdf.topology.betti import betti_numbers

    expected = betti_numbers(ours["skeleton"])
    if "skeleton" in theirs:
        found = betti_numbers(theirs["skeleton"])
    else:
        vertices, edges, components = theirs["graph"].sum(axis=0).tolist()
        found = (components, edges - vertices + components, 0)
    return f"beta {found}" + ("" if found == expected else f", the mask has {expected}")


# Two masks.


def our_diu(p, g):
    from vesselsdf.topology.matching import shared_features

    found = shared_features(p, g)
    return {name: [found[k][name] for k in range(3)] for name in ("shared", "kernel", "cokernel")}


def ranks(bars: list[np.ndarray]) -> Answer:
    """Of the map from the intersection (from 0 on) to the union (from 1 on)."""
    shared = [int(((rows[:, 0] <= 0) & (rows[:, 1] > 1)).sum()) for rows in bars]
    common = [int(((rows[:, 0] <= 0) & (rows[:, 1] > 0)).sum()) for rows in bars]
    union = [int(((rows[:, 0] <= 1) & (rows[:, 1] > 1)).sum()) for rows in bars]
    return {"shared": shared, "kernel": np.subtract(common, shared), "cokernel": np.subtract(union, shared)}


def stages(p, g) -> np.ndarray:
    return np.where(p & g, 0.0, np.where(p | g, 1.0, np.inf))


def gudhi_diu(p, g):
    return ranks(gudhi_bars(stages(p, g)))


def cripser_diu(p, g):
    return ranks(cripser_bars(stages(p, g)))


def our_warping(p, g):
    from vesselsdf.topology.warping import warping_error

    found = warping_error(g, p)
    return {"voxels": found.voxels, "sites": len(found.sites)}


# The surfaces have the same elements; some are triangulated in another way, and their areas add up to 0.3% more.


def our_distances(p, g):
    from vesselsdf.surface_distance import hd95, nsd, surface_distances

    found = surface_distances(g, p, (1.0, 1.0, 1.0))
    return {"NSD": nsd(found, TOLERANCE), "HD95": hd95(found)}


def google_distances(p, g):
    import surface_distance

    found = surface_distance.compute_surface_distances(p, g, (1.0, 1.0, 1.0))
    return {
        "NSD": surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE),
        "HD95": surface_distance.compute_robust_hausdorff(found, 95),
    }


def monai_distances(p, g):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    p, g = (torch.from_numpy(mask)[None, None] for mask in (p, g))
    options = {"include_background": True, "spacing": (1.0, 1.0, 1.0)}
    return {
        "NSD": float(compute_surface_dice(g, p, [TOLERANCE], use_subvoxels=True, **options)),
        "HD95": float(compute_hausdorff_distance(g, p, percentile=95, **options)),
    }


def our_cldice(p, g):
    from vesselsdf.overlap import cldice

    return {"clDice": cldice(g, p, (1.0, 1.0, 1.0))}


def scikit_image_cldice(p, g):
    from skimage.morphology import skeletonize

    of_p, of_g = skeletonize(p), skeletonize(g)
    sensitivity, precision = g[of_p].mean(), p[of_g].mean()
    return {"clDice": 2 * precision * sensitivity / (precision + sensitivity)}


def monai_cldice(p, g):
    import torch
    from monai.losses import SoftclDiceLoss

    p, g = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (p, g))
    return {"clDice": 1 - float(SoftclDiceLoss(iter_=10)(p, g))}


# Two fields, and a pyramid.


def matched(ours: Answer, theirs: Answer) -> str:
    return f"{theirs['matched']} matched (voxels as vertices), ours {ours['matched']} (as cubes)"


def our_matching(phi, other):
    from vesselsdf.topology.induced import betti_matching

    return {"matched": len(betti_matching(phi, other, BAND).matched)}


def betti_matching_3d(phi, other):
    import betti_matching

    found = betti_matching.compute_matching(*(np.clip(f, -BAND, BAND).astype(np.float64) for f in (phi, other)))
    return {"matched": int(np.sum(found.num_matched))}


def four_levels(phi, _):
    from vesselsdf.scales import pyramid

    return (pyramid(phi, 4),)


def our_survival(fields):
    from vesselsdf.topology.survival import survival

    return {"survived": [level["survived"] for level in survival(fields, (1.0, 1.0, 1.0))["levels"]]}


ALL = (
    Job(
        "betti",
        one_mask,
        our_betti,
        equal,
        {
            "scikit-image": Peer(scikit_image_betti, 512),
            "cripser": Peer(cripser_betti, 256),
            "gudhi": Peer(gudhi_betti, 128),
        },
    ),
    Job("euler", one_mask, our_euler, equal, {"scikit-image": Peer(scikit_image_euler, 512)}),
    Job(
        "persistence",
        lambda phi, _: (phi,),
        our_persistence,
        same_bars,
        {
            "cripser": Peer(cripser_persistence, 512),
            "gudhi": Peer(gudhi_persistence, 128),
            "Betti-Matching-3D": Peer(betti_matching_3d_persistence, 128),
        },
    ),
    Job(
        "thinning",
        one_mask,
        our_thinning,
        same_topology,
        {"scikit-image": Peer(scikit_image_thinning, 512), "kimimaro": Peer(kimimaro_thinning, 256)},
    ),
    Job("diu", two_masks, our_diu, equal, {"cripser": Peer(cripser_diu, 256), "gudhi": Peer(gudhi_diu, 128)}, True),
    Job("warping", two_masks, our_warping, equal, two=True),
    Job("survival", four_levels, our_survival, equal),
    Job(
        "NSD, HD95",
        two_masks,
        our_distances,
        close,
        {"surface-distance": Peer(google_distances, 256), "MONAI": Peer(monai_distances, 256)},
        True,
    ),
    Job(
        "clDice",
        two_masks,
        our_cldice,
        close,
        {"scikit-image": Peer(scikit_image_cldice, 256), "MONAI (soft)": Peer(monai_cldice, 128)},
        True,
    ),
    Job(
        "matching",
        lambda phi, other: (phi, other),
        our_matching,
        matched,
        {"Betti-Matching-3D": Peer(betti_matching_3d, 128)},
        True,
        128,
    ),
)
JOBS = {job.name: job for job in ALL}
