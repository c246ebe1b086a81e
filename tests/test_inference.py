"""Slabs of active voxels or everything in one piece: the same numbers."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from vesselsdf import inference
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.errors import RunError
from vesselsdf.inference import coarse_stem, predict, refined
from vesselsdf.network import VesselNet
from vesselsdf.synthesis.cases import synthetic_case

CUBIC = np.zeros(4, np.float32)


SLABS = pytest.mark.parametrize(("slab", "most"), [(1 << 24, 1 << 21), (1, 1 << 21), (40_000, 500)])


@SLABS
def test_slabs_give_the_numbers_of_one_piece_but_for_rounding(busy_network, slab, most):
    """In double precision: weights as wild as these amplify the rounding of single precision to 2e-4."""
    network = busy_network.double()
    image = torch.randn(1, 1, 43, 22, 17, dtype=torch.float64)
    acquired = torch.tensor([[0, 0.4, 0, 0.2]], dtype=torch.float64)
    with torch.inference_mode():
        whole, found = network(image, 1.0, acquired), inference._fields(network, image, acquired, slab, most)
    for a, b in zip(whole, found, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-10


def restless_network(levels):
    torch.manual_seed(levels)
    network = VesselNet(levels, width=4)
    torch.nn.init.constant_(network.coarsest.bias, 0.1)
    for part in (network.coarsest, *(refinement.correction for refinement in network.refinements)):
        torch.nn.init.normal_(part.weight, std=0.3)
    return network.eval()


def coarse_stem_in_blocks(network, image, edge):
    """Every block's own part of the coarsest stem, from no more of the image than it needs."""
    step, margin = 2 ** (network.levels - 1), inference.coarse_margin(network)
    size = np.array(image.shape)
    stem = np.zeros((*-(-size // step), network.stem_channels[-1]), np.float32)
    for block in np.ndindex(*-(-size // edge)):
        low = np.array(block) * edge
        high, first = np.minimum(low + edge, size), np.maximum(low - margin, 0)
        seen = image[tuple(map(slice, first, np.minimum(high + margin, size)))]
        inner = tuple(map(slice, (low - first) // step, -(-(high - first) // step)))
        stem[tuple(map(slice, low // step, -(-high // step)))] = coarse_stem(network, seen, CUBIC)[inner]
    return stem


def fields_of_block(network, image, stem, low, high):
    step, margin, reach = 2 ** (network.levels - 1), inference.margin(network), inference.context_reach()
    first, last = np.maximum(low - margin, 0), np.minimum(high + margin, image.shape)
    begin = np.maximum(first // step - reach, 0)
    around = stem[tuple(map(slice, begin, -(-last // step) + reach))]
    seen = image[tuple(map(slice, first, last))]
    fields = refined(network, seen.shape, lambda: seen, CUBIC, around, tuple((first // step - begin).tolist()))
    for level, field in enumerate(fields):
        yield field[tuple(map(slice, (low - first) // 2**level, -(-(high - first) // 2**level)))]


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_blocks_have_the_bits_of_one_piece(levels):
    network = restless_network(levels)
    image = np.random.default_rng(levels).normal(size=(235, 41, 46)).astype(np.float32)
    wholes = predict(network, image, 1.0, CUBIC)
    stem = coarse_stem_in_blocks(network, image, edge=64)
    for low, high in (((96, 0, 0), (128, 41, 32)), ((192, 32, 0), (235, 41, 46))):
        parts = fields_of_block(network, image, stem, np.array(low), np.array(high))
        for level, (whole, part) in enumerate(zip(wholes, parts, strict=True)):
            step = 2**level
            box = tuple(slice(first // step, -(-last // step)) for first, last in zip(low, high, strict=True))
            assert np.array_equal(part, whole[box])


def test_an_image_in_which_nothing_is_refined_is_not_asked_for():
    network = restless_network(3)
    torch.nn.init.constant_(network.coarsest.bias, 50.0)
    coarse = np.zeros((4, 4, 4, network.stem_channels[-1]), np.float32)

    def image():
        raise AssertionError("it was asked for")

    fields = refined(network, (16, 16, 16), image, CUBIC, coarse, (0, 0, 0))
    assert [field.shape for field in fields] == [(16,) * 3, (8,) * 3, (4,) * 3]
    assert all((field > 10).all() for field in fields)


def test_whatever_the_slabs_the_bits_are_the_same(busy_network):
    image = np.random.default_rng(0).normal(size=(43, 70, 61)).astype(np.float32)
    whole = predict(busy_network, image, 1.0, CUBIC)
    assert all((np.abs(field) < 1).any() for field in whole)
    for slab, most in ((1, 1 << 21), (40_000, 500)):
        for a, b in zip(whole, predict(busy_network, image, 1.0, CUBIC, slab, most), strict=True):
            assert np.array_equal(a, b)


def test_a_slab_for_which_memory_does_not_suffice_is_done_in_halves():
    """In a process that may have 100 MB beyond what it has begun with: the whole at once would need 300 more."""
    made = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "done in halves" in made.stderr


SHORT_OF_MEMORY = """
import resource, numpy as np, torch
from vesselsdf.inference import predict
from vesselsdf.network import VesselNet

torch.manual_seed(0)
torch.set_num_threads(1)
network = VesselNet()
torch.nn.init.constant_(network.coarsest.bias, 0.1)
for part in network.refinements:
    torch.nn.init.normal_(part.correction.weight, std=0.3)
image = np.random.default_rng(0).normal(size=(128, 96, 96)).astype(np.float32)
slices = np.zeros(4, np.float32)
usual = predict(network, image, 1.0, slices)
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(1e8), resource.RLIM_INFINITY))
short = predict(network, image, 1.0, slices, slab=1 << 24, most=1 << 24)
assert all(np.array_equal(a, b) for a, b in zip(usual, short))
"""


@SLABS
def test_with_the_weights_of_the_package_slabs_differ_by_rounding(slab, most):
    case = synthetic_case(7, (75, 58, 49), (0.5,) * 3, "mr")
    model = load_model(GENERAL)
    image = model.preprocessing.working_volume(case.image).array
    with torch.inference_mode():
        whole = model.network(torch.from_numpy(image)[None, None], 0.5, torch.from_numpy(CUBIC)[None])
    found = predict(model.network, image, 0.5, CUBIC, slab, most)
    assert (found[0] <= 0).any()
    for a, b in zip(whole, found, strict=True):
        assert np.abs(a[0, 0].numpy() - b).max() <= 1e-4


def test_fields_scale_with_the_spacing(busy_network):
    image = np.random.default_rng(1).normal(size=(24, 24, 24)).astype(np.float32)
    small, large = (predict(busy_network, image, spacing, CUBIC)[0] for spacing in (0.5, 2.0))
    assert np.allclose(large, 4 * small, atol=1e-4)


def test_broken_weights_are_noticed(busy_network):
    busy_network.coarsest.bias.data.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        predict(busy_network, np.zeros((16, 16, 16), np.float32), 1.0, CUBIC)
