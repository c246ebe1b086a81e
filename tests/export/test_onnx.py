"""ONNX Runtime computes what the network computes, for volumes of any size."""

import builtins
import json

import numpy as np
import onnx
import onnxruntime
import pytest

import vesselsdf
from vesselsdf.checkpoint import GENERAL, load_model
from vesselsdf.cli import main
from vesselsdf.export.network_graph import network_model
from vesselsdf.export.onnx_file import facts
from vesselsdf.inference import predict
from vesselsdf.network import VesselNet
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import Volume, write_volume


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(["export", "onnx", "-o", str(file)]) == 0
    return file


def session(model):
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def difference(network, running, image, acquisition):
    expected = predict(network, image, 1.0, acquisition)
    found = running.run(None, {"image": image[None, None], "acquisition": acquisition[None]})
    assert [one.shape[2:] for one in found] == [one.shape for one in expected]
    return max(float(np.abs(a - b[0, 0]).max()) for a, b in zip(expected, found, strict=True)), expected[0]


@pytest.mark.parametrize("modality", ["ct", "mr"])
@pytest.mark.parametrize("shape", [(48, 40, 32), (24, 56, 40), (33, 47, 21), (56, 19, 30)])
def test_fields_are_those_of_the_package(path, modality, shape):
    """In mm, at the spacing of the scan. Shapes that are multiples of 8, and others."""
    model = load_model(GENERAL)
    scan = synthetic_case(7, (56, 56, 56), (0.5,) * 3, modality).image
    middle = tuple(slice((56 - n) // 2, (56 - n) // 2 + n) for n in shape)
    image = np.ascontiguousarray(model.preprocessing.working_volume(scan).array[middle])
    voxels, finest = difference(model.network, session(str(path)), image, model.preprocessing.acquisition(scan))
    assert np.abs(finest).min() < 0.5
    assert voxels * 0.5 <= 1e-4


@pytest.mark.parametrize("levels", [2, 3, 5])
def test_other_networks_too(levels, busy_network):
    """Random weights, whose corrections are as large as the bound allows; at levels that hold more and fewer blocks."""
    import torch

    torch.manual_seed(levels)
    network = busy_network if levels == 4 else VesselNet(levels=levels, width=4)
    for refinement in network.refinements:
        torch.nn.init.normal_(refinement.correction.weight, std=0.5)
    torch.nn.init.constant_(network.coarsest.bias, -0.3)
    torch.nn.init.normal_(network.coarsest.weight, std=0.05)
    network.train()
    with torch.no_grad():
        network(torch.randn(2, 1, 32, 32, 32))
    image = np.random.default_rng(0).normal(size=(34, 25, 40)).astype(np.float32)
    acquisition = np.array([0, 1, 0.5, 1], np.float32)
    voxels, finest = difference(network.eval(), session(network_model(network)), image, acquisition)
    assert (finest < 0).any()
    assert voxels <= 1e-4 * 2**levels


def test_the_file_is_sound_and_says_how_to_use_it(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [one.name for one in model.graph.input] == ["image", "acquisition"]
    assert [one.name for one in model.graph.output] == ["level_0", "level_1", "level_2", "level_3"]
    sizes = [axis.dim_param for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]]
    assert sizes == ["X", "Y", "Z"]
    told = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert told == json.loads(json.dumps(facts(load_model(GENERAL))))
    assert told["operator"] == "sample"
    assert told["level_spacing"] == [1, 2, 4, 8]


def test_metadata_lead_to_the_field_of_reconstruct_without_the_package(path, tmp_path):
    """The recipe in the file, followed by hand, on an anisotropic CT scan."""
    import nibabel
    from scipy.ndimage import map_coordinates

    image = synthetic_case(5, (48, 40, 44), (0.5,) * 3, "ct").image.array.reshape(48, 40, 22, 2).mean(axis=3)
    write_volume(Volume(image, np.diag([-0.5, 0.5, 1.0, 1.0])), tmp_path / "scan.nii.gz")
    running = session(str(path))
    told = {key: json.loads(value) for key, value in running.get_modelmeta().custom_metadata_map.items()}
    file = nibabel.load(tmp_path / "scan.nii.gz")
    image, edges = file.get_fdata(dtype=np.float32), np.array(file.header.get_zooms())
    edge = told["spacing"] or edges.min()
    ratio = edges / edge
    shape = np.ceil(np.array(image.shape) * ratio - 1e-3).astype(int)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    places = (places + 0.5) / ratio[:, None, None, None] - 0.5
    cubic = map_coordinates(image, places, order=1, mode="nearest")
    assert told["window"] is None
    assert image.min() < -50
    normal = np.clip((cubic + 100) / 600 * 2 - 1, -2, 3)
    acquisition = np.append(np.log2(edges / edges.min()), 1).astype(np.float32)
    field = running.run(["level_0"], {"image": normal[None, None], "acquisition": acquisition[None]})[0][0, 0]
    expected = vesselsdf.reconstruct(tmp_path / "scan.nii.gz").sdf.array
    assert expected.min() < 0
    assert np.abs((field - told["threshold"]) * edge - expected).max() <= 1e-3


def test_without_onnx_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    real = builtins.__import__

    def missing(name, *arguments, **named):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["export", "onnx", "-o", str(tmp_path / "model.onnx")]) == 2
    assert "pip install 'vesselsdf[onnx]'" in capsys.readouterr().err
