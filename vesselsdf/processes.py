"""Several processes that train one network, started by `torchrun`: what they share, so that they act as one.

Strategy. Each process takes its share of the patches of every step. Sums over the batch (statistics of normalisation,
denominators of losses, gradients) become sums over all processes; everything else follows. So the weights of all
processes stay equal, and equal those of one process with the whole batch, up to rounding. In one process every
function here is the identity.

Gradients are summed here and not by `DistributedDataParallel`: which levels take part in a step depends on the data,
and these networks are so small that one sum of all gradients at the end costs next to nothing.
"""

import os

import torch
from torch import Tensor, distributed, nn


def join() -> None:
    """Join the other processes if `torchrun` started this one: NCCL where there is a GPU for each, else Gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available() and torch.cuda.device_count() > local:
        torch.cuda.set_device(local)
        distributed.init_process_group("nccl")
    else:
        distributed.init_process_group("gloo")


def leave() -> None:
    """Leave the group, if there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process, also before it has joined the others and after it has left them; 0 writes."""
    if distributed.is_initialized():
        return distributed.get_rank()
    return int(os.environ.get("RANK", "0")) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0


def size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait() -> None:
    """Until all processes have come here."""
    if size() > 1:
        distributed.barrier()


class _Total(torch.autograd.Function):
    """Sum over processes; since every process depends on the sum, so is the gradient."""

    @staticmethod
    def forward(ctx, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def total(value: Tensor) -> Tensor:
    """Sum of `value` over all processes, with its gradient. All must call it, in the same order."""
    return value if size() == 1 else _Total.apply(value)


def mean(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over all processes, without gradient."""
    if size() == 1:
        return values
    stacked = torch.stack([value.detach() for value in values.values()])
    distributed.all_reduce(stacked)
    return dict(zip(values, stacked / size(), strict=True))


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over all processes; what has none counts as zero."""
    if size() == 1:
        return
    parts = [part for part in network.parameters() if part.requires_grad]
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parts])
    distributed.all_reduce(flat)
    for part, gradient in zip(parts, (flat / size()).split([p.numel() for p in parts]), strict=True):
        part.grad = gradient.view_as(part)


def batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm3d, features: Tensor) -> Tensor:
    """Training-mode batch normalisation of (n, C, ...) with the statistics of all processes; n may be 0 in some."""
    over = [axis for axis in range(features.dim()) if axis != 1]
    shape = [1, -1] + [1] * (features.dim() - 2)
    wide = features.float()
    count = total(torch.tensor(float(features.numel() // features.shape[1]), device=features.device))
    centre = total(wide.sum(over)) / count
    variance = total((wide - centre.view(shape)).square().sum(over)) / count
    with torch.no_grad():
        unbiased = variance * count / (count - 1).clamp(min=1)
        for running, value in ((norm.running_mean, centre), (norm.running_var, unbiased)):
            assert running is not None, "networks here keep running statistics"
            running.lerp_(value, norm.momentum or 0.0)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return ((wide - centre.view(shape)) * scale.view(shape) + norm.bias.view(shape)).to(features.dtype)
