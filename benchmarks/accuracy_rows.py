"""The rows of `accuracy.py`: networks, their losses, and how each makes a distance or a probability of an image.

Rows 1 to 4 share a U-Net as nnU-Net configures it (MONAI's DynUNet: two 3x3x3 convolutions a stage, strided
downsampling, instance norm, leaky ReLU), trained with deep supervision where nnU-Net has it, and are evaluated in
windows of the patch's size that overlap by half, blended by a Gaussian. The last ones are ours, whole and with one
thing left out. All have about the same number of parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from accuracy_cases import TestCase
from torch import Tensor, nn
from torch.nn import functional as F

from vesselsdf.config import LossSettings, NetworkSettings
from vesselsdf.losses import adaptive_gaussian_loss, distance_loss, eikonal_loss, total_loss
from vesselsdf.sampling import Batch
from vesselsdf.scales import pyramid

FILTERS = (16, 32, 48, 72)
PATCH = 64
SUPERVISION = (4 / 7, 2 / 7, 1 / 7)
"""Weights of the outputs of a U-Net, finest first: halved with each level, as nnU-Net does."""
TUBE = 2
"""Voxels by which skeleton recall thickens the true skeleton (Kirchhoff et al. 2024, section 3.1)."""

Loss = Callable[[nn.Module, Batch], Tensor]
Predict = Callable[[nn.Module, TestCase], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One line of the table. `predict` gives voxels of distance, or one minus the probability; vessel is at or below.

    `usual`: the threshold that its authors use; `thresholds`: those of the curve.
    """

    title: str
    build: Callable[[], nn.Module]
    loss: Loss
    predict: Predict
    usual: float
    thresholds: tuple[float, ...]
    settings: dict = field(default_factory=dict)


def unet(supervised: bool) -> nn.Module:
    """MONAI's DynUNet with one output per voxel."""
    from monai.networks.nets import DynUNet

    stages = len(FILTERS)
    return DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        kernel_size=[3] * stages,
        strides=[1] + [2] * (stages - 1),
        upsample_kernel_size=[2] * (stages - 1),
        filters=FILTERS,
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=supervised,
        deep_supr_num=len(SUPERVISION) - 1,
    )


def dice_and_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """nnU-Net's loss: soft Dice over the batch, and cross entropy."""
    share = torch.sigmoid(logits)
    dice = (2 * (share * truth).sum() + 1e-5) / (share.sum() + truth.sum() + 1e-5)
    return 1 - dice + F.binary_cross_entropy_with_logits(logits, truth)


def cldice_term(logits: Tensor, truth: Tensor, skeleton: Tensor) -> Tensor:
    """Soft clDice with iterated pooling (Shit et al. 2021), as MONAI has it."""
    from monai.losses import SoftclDiceLoss

    share = torch.sigmoid(logits)
    # Its first channel is taken for background.
    pair = [torch.cat([1 - part, part], dim=1) for part in (truth, share)]
    return SoftclDiceLoss(iter_=3)(*pair)


def skeleton_recall_term(logits: Tensor, truth: Tensor, skeleton: Tensor) -> Tensor:
    """Share of the thickened true skeleton that is missed (Kirchhoff et al. 2024, eq. 2)."""
    tube = F.max_pool3d(skeleton, 2 * TUBE + 1, stride=1, padding=TUBE) * truth
    return 1 - (torch.sigmoid(logits) * tube).sum() / tube.sum().clamp(min=1e-5)


def mask_loss(extra: Callable[[Tensor, Tensor, Tensor], Tensor] | None) -> Loss:
    """Deep supervision of `dice_and_entropy`, and another term on the finest output."""

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        outputs = network(torch.from_numpy(batch.image)).unbind(1)
        truth = torch.from_numpy((batch.sdf <= 0).astype(np.float32))
        total = sum(
            weight * dice_and_entropy(output, truth) for weight, output in zip(SUPERVISION, outputs, strict=True)
        )
        if extra is not None:
            total = total + extra(outputs[0], truth, torch.from_numpy(batch.skeleton))
        return total

    return loss


def single_distance_loss(network: nn.Module, batch: Batch) -> Tensor:
    """VesselSDF (2025): distance regression, Eikonal term, adaptive Gaussian regulariser, at one resolution."""
    found, truth = network(torch.from_numpy(batch.image)), torch.from_numpy(batch.sdf)
    weights = LossSettings()
    return (
        distance_loss(found, truth, 1.0)
        + weights.eikonal * eikonal_loss(found, truth)
        + weights.gaussian * adaptive_gaussian_loss(found)
    )


def in_windows(network: nn.Module, image: np.ndarray) -> Tensor:
    """The network's output by overlapping windows."""
    from monai.inferers import sliding_window_inference

    volume = torch.from_numpy(image)[None, None]
    return sliding_window_inference(volume, PATCH, 2, network, overlap=0.5, mode="gaussian")[0, 0]


def absence(network: nn.Module, case: TestCase) -> np.ndarray:
    """One minus the probability."""
    return 1 - torch.sigmoid(in_windows(network, case.image)).numpy()


def distance(network: nn.Module, case: TestCase) -> np.ndarray:
    """Distance in voxels."""
    return in_windows(network, case.image).numpy()


def levels(network: nn.Module, case: TestCase) -> list[np.ndarray]:
    """Fields of all levels in voxels of level 0, in one piece."""
    image, acquisition = torch.from_numpy(case.image)[None, None], torch.from_numpy(case.acquisition)[None]
    return [field[0, 0].numpy() for field in network(image, acquisition=acquisition)]


def finest(network: nn.Module, case: TestCase) -> np.ndarray:
    """Distance in voxels."""
    return levels(network, case)[0]


PROBABILITIES = {"usual": 0.5, "thresholds": (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95)}
DISTANCES = {"usual": 0.0, "thresholds": (-0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8)}


def unbounded(network: nn.Module) -> nn.Module:
    """Our network with corrections as large as it likes."""
    network.limited = lambda raw: raw
    return network


def ours(
    title: str,
    network: dict | None = None,
    loss: dict | None = None,
    bound: bool = True,
    coarse: bool = True,
    learned: bool = False,
) -> Row:
    """The bounded multi-resolution network with settings changed.

    `coarse`: distances are learned on all levels; `learned`: the weights of the levels are learned as well, as those of
    tasks of unequal uncertainty (Kendall et al. 2018, eq. 7).
    """
    from vesselsdf.checkpoint import build_network

    shape, weights = NetworkSettings(**(network or {})), LossSettings(**(loss or {}))

    def losses(net: nn.Module, batch: Batch) -> Tensor:
        fields = net(torch.from_numpy(batch.image), acquisition=torch.from_numpy(batch.acquisition))
        levels = [pyramid(sdf[0], shape.levels, shape.operator) for sdf in batch.sdf]
        targets = [torch.from_numpy(np.stack(level)[:, None]) for level in zip(*levels, strict=True)]
        terms = total_loss(fields, targets, torch.from_numpy(batch.skeleton), weights)
        distances = torch.stack([terms[f"distance_{level}"] for level in range(shape.levels)])
        if learned:
            return terms["total"] + ((torch.exp(-net.uncertainty) - 1) * distances + net.uncertainty).sum()
        return terms["total"] if coarse else terms["total"] - distances[1:].sum()

    settings = {"network": shape.model_dump(), "loss": weights.model_dump(), "bound": bound, "coarse": coarse}
    settings |= {"learned": True} if learned else {}

    def build() -> nn.Module:
        net = build_network(shape) if bound else unbounded(build_network(shape))
        if learned:
            net.uncertainty = nn.Parameter(torch.zeros(shape.levels))
        return net

    return Row(title, build, losses, finest, **DISTANCES, settings=settings)


def tuned() -> Row:
    """Ours, started from the weights that come with the package."""
    from vesselsdf.checkpoint import GENERAL, load_model

    scratch = ours("5 ours, from the general weights")
    return replace(scratch, build=lambda: load_model(GENERAL).network, settings=scratch.settings | {"start": "general"})


def rows() -> dict[str, Row]:
    """All rows by their short names. One thing at a time is removed from the network that averages."""
    averaged = partial(ours, network={"operator": "mean", "kappa": 0.9})

    def masks(title: str, extra: Callable | None = None) -> Row:
        settings = {"filters": FILTERS}
        return Row(title, lambda: unet(True), mask_loss(extra), absence, **PROBABILITIES, settings=settings)

    return {
        "nnunet": masks("1 DynUNet as nnU-Net, Dice + CE"),
        "cldice": masks("2 the same + soft clDice", cldice_term),
        "recall": masks("3 the same + skeleton recall", skeleton_recall_term),
        "single": Row(
            "4 single-resolution SDF U-Net", lambda: unet(False), single_distance_loss, distance, **DISTANCES
        ),
        "ours": ours("5 ours"),
        "tuned": tuned(),
        "min": ours("5 with min", network={"operator": "min", "kappa": 1.2}),
        "mean": averaged("5 with mean"),
        "no_bound": averaged("5 with mean, without the bound", bound=False),
        "no_coarse": averaged("5 with mean, without distances on coarse levels", coarse=False),
        "no_reach": averaged("5 with mean, without reach", loss={"reach": 0.0}),
        "no_centreline": averaged("5 with mean, without centreline", loss={"centreline": 0.0}),
        "no_overlap": averaged("5 with mean, without overlap", loss={"overlap": 0.0}),
        "no_shape": averaged("5 with mean, without Eikonal and Gaussian", loss={"eikonal": 0.0, "gaussian": 0.0}),
        "topology": averaged("5 with mean and coarse topology", loss={"topology": 20.0}),
        "learned": averaged("5 with mean, weights of levels learned", learned=True),
    }
