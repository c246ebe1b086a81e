"""Losses on signed distance fields, all in voxels of level 0, averaged over the batch.

Fields and targets are tensors (B, 1, X, Y, Z), negative inside the vessel. `h` is the spacing of the level in level-0
voxels (2**level).
"""

import numpy as np
import torch
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional as F

from vesselsdf import processes
from vesselsdf.prolongation import prolong
from vesselsdf.topology.repair import critical_sites

BAND = 3.0
"""Half-width of the band around the wall in which distances are learned, in units of the level's spacing."""

# Width of the transition of the soft mask sigmoid(-phi / SOFTNESS), in voxels: at 0.5 a vessel of one voxel radius
# has a soft value of 0.88 on its centreline, while the wall is still sharp enough to separate neighbours two voxels
# apart.
SOFTNESS = 0.5

# Largest grid on which the topological loss acts, voxels: its cost grows with the level, and the bound on refinement
# carries the coarse levels' topology down.
TOPOLOGY_VOXELS = 32**3

WITHIN_REACH = 0.5
"""Of the coarse spacing: well within what a refinement can move (0.8 to 0.9), so that errors are forgiven."""

COARSE_WALL = 0.5
"""Where the topological loss puts the wall, in units of the level's spacing outside the zero set.

On a coarse level `{phi <= 0}` is no place to look for topology: a vessel thinner than a voxel hardly gets below zero
there, and falls to pieces. Half a spacing farther out it is whole again, and still within the reach of refinement: of
12 held-out synthetic trees (beta0, beta1 = 1, 1.9 on average) the true fields of levels 1, 2, 3 have 15, 5, 1 and 1.3,
0.3, 0 at zero, but 1, 1, 1.4 and 2.3, 2.0, 1.1 at half a spacing.
"""


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """`part / whole` with the whole of all processes, such that the mean over processes is the ratio of the sums."""
    return part * processes.size() / processes.total(whole.detach()).clamp(min=1.0)


def distance_loss(field: Tensor, target: Tensor, h: float) -> Tensor:
    """Huber loss of the distance in units of `h`, averaged over the band and every voxel on the wrong side of it.

    Both are clipped to the band, so that only the side matters for what lies beyond.
    """
    field, target = (field / h).clamp(-BAND, BAND), (target / h).clamp(-BAND, BAND)
    near = ((field != target) | (target.abs() < BAND)).float()
    error = F.smooth_l1_loss(field, target, beta=0.25, reduction="none")
    return _share((error * near).sum(), near.sum())


def gradient(field: Tensor) -> Tensor:
    """Central differences (B, 3, X-2, Y-2, Z-2) of the inner voxels; dimensionless for a field in voxels."""
    inner = slice(1, -1)
    return (
        torch.cat(
            [
                field[..., 2:, inner, inner] - field[..., :-2, inner, inner],
                field[..., inner, 2:, inner] - field[..., inner, :-2, inner],
                field[..., inner, inner, 2:] - field[..., inner, inner, :-2],
            ],
            dim=1,
        )
        / 2
    )


def eikonal_loss(field: Tensor, target: Tensor) -> Tensor:
    """Mean of ``(|grad phi| - 1)^2`` on the wall's neighbourhood (Gropp et al. 2020, eq. 2).

    Restricted to ``0.5 < |target| < 2`` voxels: on the medial axis of thin vessels central differences vanish for an
    exact distance field as well.
    """
    inner = target[..., 1:-1, 1:-1, 1:-1].abs()
    near = ((inner > 0.5) & (inner < 2.0)).float()
    norm = (gradient(field).square().sum(1, keepdim=True) + 1e-6).sqrt()
    return _share(((norm - 1).square() * near).sum(), near.sum())


def adaptive_gaussian_loss(field: Tensor, width: float = 1.5) -> Tensor:
    """Adaptive Gaussian regulariser (VesselSDF, 2025): smooth far from the wall, sharp near it.

    Mean of ``(1 - exp(-phi^2 / (2 width^2))) (phi - G * phi)^2`` with a small Gaussian ``G`` (weights 1/4, 1/2, 1/4
    per axis), within the band; the weight does not pass gradients, so that the wall cannot flee from it.
    """
    band = field.clamp(-BAND, BAND)
    smooth = band
    for axis in (2, 3, 4):
        n = smooth.shape[axis]
        middle = smooth.narrow(axis, 1, n - 2)
        smooth = middle / 2 + (smooth.narrow(axis, 0, n - 2) + smooth.narrow(axis, 2, n - 2)) / 4
    inner = band[..., 1:-1, 1:-1, 1:-1]
    weight = 1 - torch.exp(-inner.detach().square() / (2 * width**2))
    return (weight * (inner - smooth).square()).mean()


def soft_mask(field: Tensor) -> Tensor:
    """Soft occupancy in (0, 1): one half on the wall."""
    return torch.sigmoid(-field / SOFTNESS)


_dice = DiceLoss(squared_pred=True, smooth_nr=1.0, smooth_dr=1.0)


def overlap_loss(field: Tensor, target: Tensor) -> Tensor:
    """One less the soft Dice of the zero sets per case (Milletari et al. 2016, section 3); 0 for the truth, below 1."""
    return _dice(soft_mask(field), soft_mask(target))


def centreline_loss(field: Tensor, target: Tensor, skeleton: Tensor) -> Tensor:
    """One less the soft clDice of the zero sets (Shit et al. 2021, eq. 1 to 3); in [0, 1].

    `skeleton`: (B, 1, X, Y, Z) the exact skeleton of the true vessel, 0 or 1. The prediction's soft skeleton needs no
    iterated pooling: the ridge of a distance field is where its gradient vanishes, so ``soft_mask * (1 - |grad
    phi|)_+`` serves, with the ridge factor held constant in the gradient.
    """
    inner = (slice(None), slice(None), *[slice(1, -1)] * 3)
    mask, truth = soft_mask(field), soft_mask(target)
    sensitivity = ((mask * skeleton).flatten(1).sum(1) + 1) / (skeleton.flatten(1).sum(1) + 1)
    ridge = (1 - gradient(field.detach()).square().sum(1, keepdim=True).sqrt()).clamp(min=0)
    soft_skeleton = mask[inner] * ridge
    precision = ((soft_skeleton * truth[inner]).flatten(1).sum(1) + 1) / (soft_skeleton.flatten(1).sum(1) + 1)
    return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()


def reach_loss(coarse: Tensor, target: Tensor, skeleton: Tensor) -> Tensor:
    """How far the true centreline lies out of reach of the next refinement, in units of the coarse spacing; 0 to 2.

    `coarse`, `target`: a field and the truth of one level, (B, 1, x, y, z), in units of that level's spacing;
    `skeleton`: (B, 1, X, Y, Z) the true skeleton on the next finer grid. Refinement is bounded: a vessel where the
    prolonged coarse field exceeds the bound is lost for good. Distance losses do not see that coming: a thin vessel has
    few voxels on a coarse level, and where it is faint the best guess of its distance is "far". So every voxel of the
    skeleton, whatever the width of its vessel, asks for a prolonged field of at most `WITHIN_REACH`, or the truth's own
    if that is more, which the truth itself always fulfils.
    """
    shape = skeleton.shape[2:]
    base, truth = prolong(coarse, shape), prolong(target, shape)
    beyond = (base - truth.clamp(min=WITHIN_REACH)).clamp(0, 2)
    return _share((beyond * skeleton).sum(), skeleton.sum())


def topological_loss(field: Tensor, target: Tensor, h: float, wall: float = COARSE_WALL) -> Tensor:
    """Huber loss of the distance in units of `h` at the voxels on which the topology hinges, per voxel of the level.

    Those are the `critical_sites` of each case: the places where `field <= wall * h` cuts, joins, fills or lacks a
    component, loop or cavity of `target <= wall * h`, or invents one. Without any, loss and gradient are zero. The
    sites are constant in the gradient, which leads to the truth at each of them; since that lies on the other side, the
    distance loss never pulls the other way. The sum is divided by the number of all voxels: a weight of 20 lets a
    critical voxel count for about 20 others.
    """
    if not torch.isfinite(field).all():
        return (field * torch.nan).sum()
    critical = np.zeros(field.shape, bool)
    predicted, truth = ((part.detach() / h - wall).cpu().numpy()[:, 0] for part in (field, target))
    for case, sites in enumerate(map(critical_sites, predicted, truth)):
        critical[case, 0][tuple(sites.T)] = True
    # As a product with a mask instead of by gathering, so that the gradient is deterministic on every device.
    error = F.smooth_l1_loss(field / h, (target / h).clamp(-BAND, BAND), beta=0.25, reduction="none")
    return (error * torch.from_numpy(critical).to(field.device)).mean()


def on_level(skeleton: Tensor, level: int) -> Tensor:
    """The voxels of a level in which a skeleton of level 0 has a voxel."""
    return skeleton if level == 0 else F.max_pool3d(skeleton, 2**level, ceil_mode=True)


def total_loss(fields: list[Tensor], targets: list[Tensor], skeleton: Tensor, weights) -> dict[str, Tensor]:
    """All terms and their weighted sum under the key `total`.

    `fields`, `targets`: one (B, 1, x, y, z) per level, finest first, in level-0 voxels; a target is NaN where nobody
    knows. `weights`: `config.LossSettings`.
    """
    # What is not known is whatever was predicted: no error and no gradient, in every term.
    targets = [
        torch.where(torch.isnan(target), field.detach(), target) for field, target in zip(fields, targets, strict=True)
    ]
    terms = {
        f"distance_{level}": weights.distance * distance_loss(field, target, 2.0**level)
        for level, (field, target) in enumerate(zip(fields, targets, strict=True))
    }
    finest, truth = fields[0], targets[0]
    if weights.topology:
        for level, (field, target) in enumerate(zip(fields, targets, strict=True)):
            if level > 0 and field[0].numel() <= TOPOLOGY_VOXELS:
                terms[f"topology_{level}"] = weights.topology * topological_loss(field, target, 2.0**level)
    if weights.reach:
        for level in range(1, len(fields)):
            h, line = 2.0**level, on_level(skeleton, level - 1)
            terms[f"reach_{level}"] = weights.reach * reach_loss(fields[level] / h, targets[level] / h, line)
    if weights.eikonal:
        terms["eikonal"] = weights.eikonal * eikonal_loss(finest, truth)
    if weights.gaussian:
        terms["gaussian"] = weights.gaussian * adaptive_gaussian_loss(finest)
    if weights.centreline:
        terms["centreline"] = weights.centreline * centreline_loss(finest, truth, skeleton)
    if weights.overlap:
        terms["overlap"] = weights.overlap * overlap_loss(finest, truth)
    return {"total": torch.stack(list(terms.values())).sum(), **terms}
