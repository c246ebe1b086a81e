"""Bringing one labelled volume into the frame of another: a rigid motion that maps landmarks of the same name.

Two scanners seldom share a frame, but the same anatomy has the same landmarks in both: the places where two segments of
the same names touch. The motion that fits them best is the alignment, and what it leaves between them is its residual.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vesselsdf.volume import Volume

# A motion whose residual exceeds this share of the landmarks' spread is not believed. The places where the segments of
# one patient's circle of Willis touch in CT and in MR leave 3%; names that do not belong together leave 50% and more.
LARGEST_RESIDUAL = 0.1
# A landmark is left out if the others fit each other this many times better without it.
OUTLYING = 2.0
LANDMARKS = 3  # fewest that fix a motion
# Landmarks whose second largest extent is less than this share of the largest lie on a line, and can turn around it.
LINE = 0.05


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the frame of the prediction lies in that of the reference.

    kind: "grid" (one grid), "world" (two grids, one frame), "rigid" (a motion that was found), or "none" (`why` says
    why not). transform: 4x4, mm of the prediction to mm of the reference. residual: error of a landmark, mm (root
    mean square, see `_residual`), NaN if there is none; worst: the largest one. used, left_out: names of landmarks.
    landmarks: (n, 3), mm of the reference. mirrored: a reflection fits the landmarks where no motion does, as after a
    swap of left and right.
    """

    kind: str
    transform: Float[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    residual: float = float("nan")
    worst: float = float("nan")
    landmarks: Float[np.ndarray, "n 3"] = field(default_factory=lambda: np.zeros((0, 3)))
    used: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    why: str = ""
    mirrored: bool = False

    @property
    def known(self) -> bool:
        """Whether places of one volume can be told in the frame of the other."""
        return self.kind != "none"

    def to_reference(self, points: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """Points (n, 3) in mm of the prediction, in mm of the reference."""
        return moved(self.transform, points)

    def to_prediction(self, points: np.ndarray) -> Float[np.ndarray, "n 3"]:
        """Points (n, 3) in mm of the reference, in mm of the prediction."""
        return moved(np.linalg.inv(self.transform), points)

    def error_at(self, point: Sequence[float]) -> float:
        """How far off (mm, root mean square) a place given in mm of the reference is after a motion that was found.

        Fitzpatrick, West and Maurer (1998), eq. 46: `E^2 / n (1 + (d1^2 / f1^2 + d2^2 / f2^2 + d3^2 / f3^2) / 3)`, with
        the error `E` of a landmark and the distances `d` of the place and `f` (root mean square) of the landmarks from
        the principal axes of the landmarks. 0 where nothing was moved.
        """
        if self.kind != "rigid":
            return 0.0
        middle = self.landmarks.mean(axis=0)
        axes = np.linalg.svd(self.landmarks - middle)[2]
        along = [((points - middle) @ axes.T) ** 2 for points in (np.array([point], float), self.landmarks)]
        d, f = (squares.sum(axis=1, keepdims=True) - squares for squares in along)
        spread = (d[0] / f.mean(axis=0)).sum() / 3
        return float(self.residual * np.sqrt((1 + spread) / len(self.landmarks)))

    def apply(self, prediction: Volume) -> Volume:
        """The prediction in the frame of the reference: the same voxels, another affine."""
        return Volume(prediction.array, self.transform @ prediction.affine)

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        keys = ("kind", "residual", "worst", "used", "left_out", "why", "mirrored")
        return {**{key: getattr(self, key) for key in keys}, "transform": self.transform.tolist()}


def moved(transform: Float[np.ndarray, "4 4"], points: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Points (n, 3) after an affine map."""
    return np.asarray(points, np.float64).reshape(-1, 3) @ transform[:3, :3].T + transform[:3, 3]


def rigid_motion(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"], reflect: bool = False
) -> Float[np.ndarray, "4 4"]:
    """The rotation and shift (4x4) that take `source` nearest to `target` in the least squares (Kabsch 1976).

    The rotation is `V diag(1, 1, d) U^T` from the singular value decomposition `U S V^T` of the covariance, with the
    sign `d` that makes its determinant 1, or -1 with `reflect`. n >= 1.

    >>> quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> corners = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> np.allclose(rigid_motion(corners, corners @ quarter.T + 5)[:3, :3], quarter)
    True
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - source_mean).T @ (target - target_mean))
    sign = np.sign(np.linalg.det(vt.T @ u.T)) * (-1.0 if reflect else 1.0)
    rotation = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = target_mean - rotation @ source_mean
    return transform


def align(
    prediction: Mapping[str, Sequence[float | int]], reference: Mapping[str, Sequence[float | int]], voxel: float | int
) -> Alignment:
    """The alignment by landmarks (name to place in mm) that both have; `voxel`: longest edge of both grids, mm.

    Places that agree within a voxel as they are need no motion. Else the best rigid motion is taken, without landmarks
    that fit nowhere (see `OUTLYING`; four at least stay). It is refused, with the reason, for fewer than three
    landmarks, landmarks on a line, or a residual above a tenth of their spread.
    """
    names = sorted(prediction.keys() & reference.keys())
    source = np.array([prediction[name] for name in names], np.float64).reshape(-1, 3)
    target = np.array([reference[name] for name in names], np.float64).reshape(-1, 3)
    if names and _rms(off := np.linalg.norm(source - target, axis=1)) <= voxel:
        return Alignment("world", np.eye(4), _rms(off), float(off.max()), target, tuple(names))
    if len(names) < LANDMARKS:
        return Alignment("none", why=f"they have {len(names)} landmark(s) in common, and a motion takes {LANDMARKS}")
    keep = _fitting(source, target, voxel)
    transform = rigid_motion(source[keep], target[keep])
    off = np.linalg.norm(moved(transform, source[keep]) - target[keep], axis=1)
    extents = np.linalg.svd(target[keep] - target[keep].mean(axis=0), compute_uv=False)
    if extents[1] < LINE * extents[0]:
        return Alignment("none", why="the landmarks that they have in common lie on a line")
    spread = _rms(np.linalg.norm(target[keep] - target[keep].mean(axis=0), axis=1))
    residual, kept = _residual(source[keep], target[keep]), tuple(names[k] for k in keep)
    left_out = tuple(name for name in names if name not in kept)
    # More than a third of the landmarks left out is no set of outliers.
    if residual > max(LARGEST_RESIDUAL * spread, voxel / 2) or 3 * len(left_out) > len(names):
        return _refused(source, target, spread, voxel)
    return Alignment("rigid", transform, residual, float(off.max()), target[keep], kept, left_out)


def _residual(source: np.ndarray, target: np.ndarray, reflect: bool = False) -> float:
    """Root mean square error of a landmark, from what the best motion leaves of n >= 3.

    A motion has 6 degrees of freedom and n places have 3 n, so the squares are divided by n - 2 instead of n.
    """
    off = moved(rigid_motion(source, target, reflect), source) - target
    return float(np.sqrt((off**2).sum() / (len(off) - 2)))


def _fitting(source: np.ndarray, target: np.ndarray, voxel: float | int) -> Int[np.ndarray, " k"]:
    """Positions of the landmarks without those that lie elsewhere: the worst one first, as long as that helps much."""
    keep = np.arange(len(source))
    residual = _residual(source, target)
    while len(keep) > LANDMARKS + 1 and residual > voxel / 2:
        rests = [np.delete(keep, k) for k in range(len(keep))]
        left = [_residual(source[rest], target[rest]) for rest in rests]
        best = int(np.argmin(left))
        if left[best] > residual / OUTLYING:
            break
        keep, residual = rests[best], left[best]
    return keep


def _refused(source: np.ndarray, target: np.ndarray, spread: float, voxel: float | int) -> Alignment:
    turned, mirrored = _residual(source, target), _residual(source, target, reflect=True)
    why = f"the best rigid motion leaves {turned:.3g} mm between landmarks that are {spread:.3g} mm from their middle"
    swapped = mirrored < turned / 2 and mirrored <= max(LARGEST_RESIDUAL * spread, voxel)
    if swapped:
        why += f", while a reflection leaves {mirrored:.3g} mm: left and right are swapped in one of them"
    return Alignment("none", residual=turned, why=why, mirrored=swapped)


def _rms(distances: np.ndarray) -> float:
    return float(np.sqrt(np.mean(distances**2)))
