"""What a reconstruction needs is known before, kept to, and said where it is too much."""

import pytest

import vesselsdf
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.needs import block_memory, estimate, gigabytes, largest_block
from vesselsdf.network import VesselNet
from vesselsdf.synthesis.cases import synthetic_case


def test_larger_volumes_are_expected_to_need_more():
    small, large = estimate((64, 64, 64)), estimate((256, 256, 256))
    assert large["gigabytes"] > small["gigabytes"]
    assert large["seconds"] > small["seconds"] > 0


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
    assert main([*command, "--memory", "100MB"]) == 2
    said = capsys.readouterr().err
    assert "48 x 48 x 48" in said
    assert "vesselsdf blocks" in said
    assert not (tmp_path / "result").exists()
    assert vesselsdf.reconstruct(scan, mask=mask, memory=8.0).levels[0].shape == (48, 48, 48)
