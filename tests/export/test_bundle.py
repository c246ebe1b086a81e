"""An exported bundle makes the field of `reconstruct`, run by MONAI itself."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from monai.bundle import create_workflow, run, verify_metadata, verify_net_in_out

import vesselsdf
from vesselsdf.checkpoint import GENERAL, load_model, save_model
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.export.bundle import write_bundle
from vesselsdf.volume import read_volume

# What MONAI's own metadata schema (2024-07-25) asks for.
REQUIRED = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
    "description", "authors", "copyright", "network_data_format",
)  # fmt: skip
TENSOR = {
    "type": "string", "format": "string", "num_channels": "integer", "spatial_shape": "array", "dtype": "string",
    "value_range": "array", "is_patch_data": "boolean", "channel_def": "object",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "vessels"
    assert main(["export", "bundle", "-o", str(folder)]) == 0
    return folder


# MONAI says that configurations are code, that a file has no hash, and that it has no GPU's codec.
QUIET = pytest.mark.filterwarnings("ignore::UserWarning")


def config(bundle):
    return str(bundle / "configs" / "inference.json")


def check_outputs(folder, made):
    sdf, mask = read_volume(folder / "scan_sdf.nii.gz"), read_volume(folder / "scan_vessels.nii.gz")
    assert sdf.array.min() < 0
    assert np.abs(sdf.array - made.sdf.array).max() <= 1e-4
    assert np.allclose(sdf.affine, made.affine, atol=1e-5)
    assert np.array_equal(mask.array, made.mask.array)
    assert np.allclose(mask.affine, made.input.affine, atol=1e-5)


@QUIET
def test_monai_runs_it_and_the_field_is_that_of_reconstruct(bundle, scan, made, tmp_path):
    run(config_file=config(bundle), bundle_root=str(bundle), datalist=[str(scan)], output_dir=str(tmp_path))
    check_outputs(tmp_path, made)


@pytest.mark.slow
def test_so_it_does_from_the_command_line(bundle, scan, made, tmp_path):
    command = [
        sys.executable, "-m", "monai.bundle", "run", "--config_file", config(bundle), "--bundle_root", str(bundle),
        "--datalist", f"['{scan}']", "--output_dir", str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check_outputs(tmp_path, made)


@QUIET
def test_its_parts_are_those_that_monai_looks_for(bundle):
    workflow = create_workflow(
        "monai.bundle.ConfigWorkflow", config_file=config(bundle), workflow_type="infer", bundle_root=str(bundle)
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    weights = workflow.parser.get_parsed_content("network").state_dict()
    expected = load_model(GENERAL).network.state_dict()
    assert all(bool((weights[name] == value).all()) for name, value in expected.items())


@QUIET
def test_its_metadata_fit_the_schema(bundle, tmp_path):
    kinds = {name: {"type": kind} for name, kind in TENSOR.items()}
    tensor = {"type": "object", "required": list(TENSOR), "properties": kinds}
    tensors = {"type": "object", "minProperties": 1, "patternProperties": {"^.+$": tensor}}
    sides = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": tensors, "outputs": tensors}}
    schema = {
        "type": "object",
        "required": list(REQUIRED),
        "properties": {
            **{name: {"type": "string"} for name in REQUIRED},
            "required_packages_version": {"type": "object", "required": ["vesselsdf"]},
            "network_data_format": sides,
        },
    }
    # In the place where MONAI would download the schema to: nothing is fetched here.
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))


def test_the_network_keeps_what_the_metadata_say(bundle):
    verify_net_in_out(
        "network_def", meta_file=str(bundle / "configs" / "metadata.json"), config_file=config(bundle), any=20
    )


def test_nothing_in_it_is_a_pickle(bundle):
    names = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    assert names == [
        "LICENSE", "configs/inference.json", "configs/metadata.json", "docs/README.md", "models/model.safetensors"
    ]  # fmt: skip
    assert "Apache License" in (bundle / "LICENSE").read_text()


@QUIET
def test_settings_of_a_checkpoint_come_with_it(scan, tmp_path):
    """Another working spacing (coarser than the pixels), a window, and a wall that is not at zero."""
    general = load_model(GENERAL)
    settings = general.preprocessing.model_copy(update={"spacing": 0.8, "window": (0.0, 1500.0), "threshold": 0.3})
    checkpoint = tmp_path / "model.safetensors"
    save_model(checkpoint, replace(general, preprocessing=settings), 1)
    write_bundle(tmp_path / "bundle", checkpoint)
    root = tmp_path / "bundle"
    run(config_file=config(root), bundle_root=str(root), datalist=[str(scan)], output_dir=str(tmp_path))
    expected = vesselsdf.reconstruct(scan, checkpoint)
    assert expected.sdf.spacing == pytest.approx((0.8, 0.8, 0.8))
    check_outputs(tmp_path, expected)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        write_bundle(tmp_path / "bundle", tmp_path / "model.safetensors")
    assert not (tmp_path / "bundle").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    assert main(["export", "bundle", "-o", str(tmp_path)]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    for _ in range(2):
        assert main(["export", "bundle", "-o", str(tmp_path / "bundle")]) == 0
