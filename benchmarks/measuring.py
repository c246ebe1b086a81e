"""How the benchmarks measure: in a process of its own, on one thread, CPU seconds, peak memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

ENOUGH = 10.0  # seconds after which a call is not repeated


@dataclass(frozen=True)
class Method:
    """One way to do a job; `largest` is the edge up to which it is worth the wait, `package` what it needs."""

    call: Callable[..., Any]
    read: Callable[..., Any] = lambda answer: answer
    largest: int = 512
    package: str | None = None
    repeats: int = 3


def run(script: str, arguments: list[str], cache: str | None = None, timeout: float | None = None) -> dict:
    """A script in a process of its own, on one thread; the last line it prints, as JSON."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    if cache is not None:
        environment["NUMBA_CACHE_DIR"] = cache
    command = [sys.executable, script, *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {timeout:.0f} s"}
    if result.returncode:
        return {"failed": (result.stderr.strip().splitlines() or ["killed"])[-1]}
    return json.loads(result.stdout.strip().splitlines()[-1])


def measure(call: Callable[..., Any], inputs: tuple, repeats: int = 3) -> tuple[Any, float, float]:
    """What a call gives, its least CPU seconds, and the peak of its memory above what was in use before, MB."""
    before = memory(reset=True)
    best, answer, peak = np.inf, None, before
    for repeat in range(repeats):
        start = time.process_time()
        answer = call(*inputs)
        best = min(best, time.process_time() - start)
        if repeat == 0:
            peak = memory()
        if best > ENOUGH:
            break
    return answer, best, peak - before


def memory(reset: bool = False) -> float:
    """Peak memory of this process so far, MB; on Linux it can be set back to what is in use."""
    import resource

    if reset and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def around_deepest(field: np.ndarray, reach: int) -> tuple[slice, ...]:
    """A small box with vessel in it."""
    deepest = np.unravel_index(int(np.argmin(field)), field.shape)
    return tuple(slice(max(0, int(at) - reach), int(at) + reach) for at in deepest)


def installed(name: str) -> bool:
    """Whether a distribution is there."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def machine(packages: tuple[str, ...]) -> str:
    """The processor, its cores and the versions that were measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    found = [f"{name} {version(name)}" if installed(name) else f"no {name}" for name in packages]
    load = f"load {os.getloadavg()[0]:.1f}"
    return f"{model}, {os.cpu_count()} cores, one thread per measurement, {load}; {', '.join(found)}"


def progress(text: str) -> None:
    """What is being measured, on one line that is written over."""
    print(f"\r{text:<70}", end="\n" if not sys.stderr.isatty() else "", file=sys.stderr, flush=True)
