"""What a reconstruction needs is known before, kept to, and said where it is too much."""

import os
import subprocess
import sys

import numpy as np
import pytest

import vesselsdf
from vesselsdf import needs
from vesselsdf.api import inspect
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.needs import block_memory, crossings, gigabytes, largest_block, of_image, of_mask
from vesselsdf.network import VesselNet
from vesselsdf.synthesis.cases import synthetic_case


def test_what_is_foretold_is_what_is_taken(tmp_path):
    """Of a process of its own: within 20%; time is looked at by the benchmark, on a machine that is not busy."""
    case = synthetic_case(4, (96, 112, 128), (0.5,) * 3, "mr")
    vesselsdf.write_volume(case.image, tmp_path / "scan.nii.gz")
    needed = inspect(tmp_path / "scan.nii.gz")["needs"]
    made = subprocess.run(
        [sys.executable, "-c", TAKEN, str(tmp_path)], capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    taken = float(made.stdout.split()[-1]) / 1e6
    assert needed["gigabytes"] == pytest.approx(taken, rel=0.2)
    assert needed["seconds"] > 3


TAKEN = """
import sys
from pathlib import Path
from vesselsdf.cli import main

assert main(["reconstruct", sys.argv[1] + "/scan.nii.gz", "-o", sys.argv[1] + "/result"]) == 0
# What `getrusage` says begins with the size of the process that started this one.
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def test_more_wall_takes_more_and_is_found_by_looking_at_some_of_it(monkeypatch):
    model = load_model(GENERAL)
    image = synthetic_case(5, (96, 96, 96), (0.5,) * 3, "mr").image
    seen, acquired = model.preprocessing.working_volume(image).array, model.preprocessing.acquisition(image)
    whole = of_image(model.network, seen, acquired)
    assert whole["gigabytes"] > of_image(model.network, np.zeros_like(seen), acquired)["gigabytes"]
    monkeypatch.setattr(needs, "SAMPLE", 2 * needs.BRICK**3)
    assert of_image(model.network, seen, acquired)["gigabytes"] == pytest.approx(whole["gigabytes"], rel=0.05)


def test_a_mask_is_counted():
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[10:20, 10:20, 10:20] = 3
    assert crossings(mask > 0) == 600
    fine = of_mask(mask, (60, 60, 60))["gigabytes"] - of_mask(0 * mask, (60, 60, 60))["gigabytes"]
    assert fine == pytest.approx(4 * 600 * needs.BYTES_PER_CROSSING / 1e9)


def test_a_block_is_as_large_as_memory_allows():
    network = VesselNet()
    for limit in (1.0, 2.0, 4.0, 16.0):
        block = largest_block(limit, network, 32)
        assert block_memory(block, network) <= limit < block_memory(block + 32, network)
    with pytest.raises(InputError, match="smallest block"):
        largest_block(0.1, network, 32)


@pytest.mark.parametrize("text", ["4", "four GB", "-1GB", "4 GB of it", "4KB", ""])
def test_memory_that_is_no_memory(text):
    with pytest.raises(InputError, match="4GB"):
        gigabytes(text)


@pytest.mark.parametrize("mask", [False, True])
def test_what_needs_more_than_is_allowed_is_refused_before_it_begins(tmp_path, capsys, mask):
    case = synthetic_case(3, (48, 48, 24), (0.5, 0.5, 1.0), "ct")
    scan = tmp_path / "scan.nii.gz"
    vesselsdf.write_volume(case.label if mask else case.image, scan)
    command = ["reconstruct", str(scan), "-o", str(tmp_path / "result"), *(["--mask"] if mask else [])]
    assert main([*command, "--max-error", "-1"]) == 2
    assert "--max-error" in capsys.readouterr().err
    assert main([*command, "--memory", "100MB"]) == 2
    said = capsys.readouterr().err
    assert "48 x 48 x 48" in said
    assert "vesselsdf blocks" in said
    assert not (tmp_path / "result").exists()
    assert vesselsdf.reconstruct(scan, mask=mask, memory=8.0).levels[0].shape == (48, 48, 48)
