"""What this machine can do, and what is wrong with it: the facts behind `vesselsdf doctor`."""

import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import torch

from vesselsdf import sites as sites_module
from vesselsdf.network import VesselNet
from vesselsdf.reconstruction import versions

# bf16 has 8 bits of mantissa; a sum of a few hundred products stays well within this of the exact one, relative.
BF16_TOLERANCE = 0.02


@dataclass(frozen=True)
class Finding:
    """One line of the examination: `advice` is empty where all is well."""

    what: str
    value: str
    advice: str = ""


def examine() -> list[Finding]:
    """Versions, devices, bf16, and a self-test of one forward pass."""
    facts = versions()
    found = [Finding("vesselsdf", facts["vesselsdf"]), Finding("python", facts["python"])]
    found += [Finding(name, version, _advice_on(name, version)) for name, version in facts["packages"].items()]
    found.append(_cores())
    found.append(_memory())
    devices = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    for device in devices:
        name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
        found.append(Finding(f"device {device}", name))
        found.append(_bf16(device))
        found.append(_forward(device))
    return found


def _advice_on(name: str, version: str) -> str:
    if name == "torch" and version.startswith("2.9."):
        return "torch 2.9 has a slow 3D convolution; install another, for example `pip install 'torch>=2.8,!=2.9.*'`."
    return ""


def _cores() -> Finding:
    usable, threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 0
    threads = torch.get_num_threads()
    advice = ""
    if threads < usable:
        advice = f"torch uses {threads} of {usable} cores; unset OMP_NUM_THREADS to use them all."
    return Finding("cores", f"{usable} usable, {threads} torch threads", advice)


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):
        return Finding("memory", "unknown")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    advice = "" if gigabytes >= 8 else "Volumes above 256^3 need about 8 GB; crop them first."
    return Finding("memory", f"{gigabytes:.0f} GB", advice)


def _bf16(device: str) -> Finding:
    """A 3D convolution in bf16 against the same in float32: some libraries returned wrong numbers without an error."""
    generator = torch.Generator().manual_seed(0)
    image, kernel = torch.randn(1, 8, 16, 16, 16, generator=generator), torch.randn(8, 8, 3, 3, 3, generator=generator)
    exact = torch.nn.functional.conv3d(image, kernel)
    try:
        half = torch.nn.functional.conv3d(image.to(device, torch.bfloat16), kernel.to(device, torch.bfloat16))
    except RuntimeError as error:
        return Finding(
            f"bf16 on {device}", "not supported", f"Training there uses float32 ({str(error).splitlines()[0]})."
        )
    error_ratio = float((half.float().cpu() - exact).norm() / exact.norm())
    wrong = error_ratio > BF16_TOLERANCE
    advice = "bf16 convolutions are wrong here: update torch or cuDNN before you train on this device." if wrong else ""
    return Finding(f"bf16 on {device}", f"relative error {error_ratio:.4f}", advice)


def _forward(device: str) -> Finding:
    """One pass of a random network: gathered and dense evaluation must agree, and the bound must hold."""
    torch.manual_seed(0)
    network = VesselNet().to(device).eval()
    with torch.no_grad():  # corrections of the size of the bound, around a field that leaves part of the voxels active
        for name, parameter in network.named_parameters():
            if name.endswith("correction.weight"):
                parameter.normal_(std=0.3)
            elif name == "coarsest.bias":
                parameter.fill_(0.3)
    image = torch.randn(1, 1, 64, 64, 64).to(device)
    with torch.inference_mode():
        network(image)
        start = time.monotonic()
        fields = network(image)
        seconds = time.monotonic() - start
        difference = _largest_difference(network, image)
    advice = ""
    if difference > 1e-3 or not all(torch.isfinite(field).all() for field in fields):
        advice = (
            f"Dense and gathered evaluation differ by {difference:.2g} voxels on {device}: do not trust its results."
        )
    return Finding(f"self-test on {device}", f"64^3 in {seconds:.2f} s, largest difference {difference:.1e}", advice)


def _largest_difference(network: VesselNet, image: torch.Tensor) -> float:
    kept: Any = sites_module.DENSE_SHARE
    results = []
    try:
        for share in (-1.0, 2.0):
            sites_module.DENSE_SHARE = share
            results.append(network(image))
    finally:
        sites_module.DENSE_SHARE = kept
    return max(float((a - b).abs().max()) for a, b in zip(*results, strict=True))
