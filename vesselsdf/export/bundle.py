"""A checkpoint as a MONAI bundle: configuration, metadata, weights and a page to read, for the tools of `monai.bundle`.

The configuration names the parts of `bundle_parts`, so the package must be installed where the bundle runs. The weights
stay safetensors: MONAI's own `model.pt` would have to be unpickled.
"""

import platform
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from vesselsdf import __version__
from vesselsdf.checkpoint import GENERAL, Model, load_model, save_model
from vesselsdf.files import atomic_folder, require_own, write_json, write_text
from vesselsdf.inference import alignment

PARTS = "vesselsdf.export.bundle_parts"
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
DISTRIBUTIONS = ("vesselsdf", "safetensors", "nibabel", "pytorch-ignite", "fire")
"""What the bundle needs beside MONAI, PyTorch and NumPy: the last two for `python -m monai.bundle run`."""


def write_bundle(folder: str | Path, checkpoint: str | Path | None = None) -> None:
    """Write the bundle of a checkpoint (by default the weights that come with the package) to a new or old folder.

    Raises `InputError` for a checkpoint that is none, and for a folder that holds something else.
    """
    path = Path(checkpoint or GENERAL)
    model = load_model(path)
    require_own(folder, "configs/inference.json")
    with atomic_folder(folder) as temporary:
        save_model(temporary / "models" / "model.safetensors", model, model.config.training.steps)
        write_json(temporary / "configs" / "inference.json", inference(model))
        write_json(temporary / "configs" / "metadata.json", metadata(model, own=path == GENERAL))
        write_text(temporary / "docs" / "README.md", readme(model, Path(folder).name))
        write_text(temporary / "LICENSE", licence())


def inference(model: Model) -> dict[str, Any]:
    """`configs/inference.json`: the workflow, from the files of `datalist` to field and mask in `output_dir`."""
    net, settings = model.network, model.preprocessing
    save = {
        "_target_": "SaveImaged", "output_dir": "@output_dir", "output_ext": ".nii.gz", "resample": False,
        "separate_folder": False, "print_log": False,
    }  # fmt: skip
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "checkpoint": "$@bundle_root + '/models/model.safetensors'",
        "dataset_dir": "$@bundle_root + '/input'",
        "datalist": "$sorted(glob.glob(os.path.join(@dataset_dir, '*.nii*')))",
        "output_dir": "$@bundle_root + '/eval'",
        "network_def": {
            "_target_": f"{PARTS}.FinestField", "levels": net.levels, "width": model.config.network.width,
            "kappa": net.kappa, "needed": net.needed,
        },
        "network": {
            "_target_": f"{PARTS}.with_weights", "network": "@network_def", "path": "@checkpoint", "device": "@device",
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "reader": {"_target_": f"{PARTS}.VolumeReader"}},
                {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": "no_channel"},
                {
                    "_target_": f"{PARTS}.WorkingGridd", "keys": "image", "spacing": settings.spacing,
                    "window": settings.window,
                },
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0,
        },
        "inferer": {"_target_": f"{PARTS}.ActiveVoxelInferer", "threshold": settings.threshold},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": f"{PARTS}.InputGridMaskd", "keys": "pred"},
                save | {"keys": "pred", "output_postfix": "sdf", "output_dtype": "float32"},
                save | {"keys": "mask", "output_postfix": "vessels", "output_dtype": "uint8"},
            ],
        },
        "prepare_batch": {
            "_target_": "PrepareBatchExtraInput",
            "extra_keys": {"spacing": "spacing", "acquisition": "acquisition"},
        },
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network", "inferer": "@inferer", "prepare_batch": "@prepare_batch",
            "postprocessing": "@postprocessing", "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def metadata(model: Model, own: bool) -> dict[str, Any]:
    """`configs/metadata.json`; `own`: the weights are those that come with the package."""
    import monai
    import numpy as np
    import torch

    multiple = alignment(model.network)
    field = {
        "type": "image", "num_channels": 1, "spatial_shape": ["*", "*", "*"], "dtype": "float32",
        "is_patch_data": False, "value_range": [],
    }  # fmt: skip
    return {
        "schema": SCHEMA,
        "name": "vesselsdf",
        "version": __version__,
        "changelog": {__version__: "exported by `vesselsdf export bundle`"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {name: _version(name) for name in DISTRIBUTIONS if _version(name)},
        "python_version": platform.python_version(),
        "task": "Signed distance field of the vessels of a CT, MR or microscopy volume",
        "description": (
            f"A multi-resolution network ({model.network.levels} levels, bounded refinement) that predicts the signed "
            "distance to the vessel wall in mm, negative inside. It runs with the package vesselsdf, which also makes "
            "mesh, centreline graph and topology report of the field."
        ),
        "authors": "VesselSDF contributors" if own else "whoever trained the checkpoint, with VesselSDF",
        "copyright": "Copyright VesselSDF contributors; Apache-2.0" if own else "see LICENSE",
        "data_source": "synthetic scans grown by vesselsdf" if own else str(model.config.data.root),
        "data_type": "nibabel",
        "image_classes": "one channel, vessels brighter than what surrounds them; CT in HU",
        "pred_classes": "one channel: distance to the vessel wall in mm, negative inside the vessel",
        "intended_use": "Research only; not a medical device.",
        "network_data_format": {
            "inputs": {
                "image": field | {"format": "magnitude", "modality": "n/a", "channel_def": {"0": "image, normalised"}}
            },
            "outputs": {
                "pred": field | {"format": "distance", "channel_def": {"0": "signed distance, negative inside"}}
            },
        },
        "working_grid": {
            "spacing_mm": model.preprocessing.spacing or "the finest voxel edge of the volume",
            "exact_when_cut_at_multiples_of": multiple,
        },
    }  # fmt: skip


def _version(name: str) -> str:
    """Of an installed package, or nothing."""
    from importlib.metadata import PackageNotFoundError, version

    if name == "vesselsdf":
        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def readme(model: Model, name: str) -> str:
    """`docs/README.md`."""
    settings = model.preprocessing
    return f"""# {name}

A vessel network of VesselSDF as a MONAI bundle: a volume in; out come the signed
distance to the vessel wall (mm, negative inside, on the isotropic working grid) and the mask on the volume's own grid.

It needs `pip install "vesselsdf[bundle]"`. The numbers are those of `vesselsdf reconstruct` with the same
checkpoint. Research only; not a medical device.

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --datalist "['scan.nii.gz']" --output_dir out

writes `out/scan_sdf.nii.gz` and `out/scan_vessels.nii.gz`. `--dataset_dir FOLDER` takes all NIfTI files of a folder.
NIfTI, NRRD, MetaImage, OME-Zarr and folders of a DICOM series are read, whatever their affine.

The weights are `models/model.safetensors`, of which nothing is unpickled; MONAI's `bundle.load` reads `model.pt` alone:
take `monai.bundle.create_workflow(config_file="configs/inference.json", bundle_root=".")` and its `network` instead.

| setting | value |
| --- | --- |
| levels, width, bound | {model.network.levels}, {model.config.network.width}, {model.network.kappa} |
| working spacing | {settings.spacing or "the finest voxel edge"} |
| intensity window | {settings.window or "-100 to 500 HU for CT in HU, else relative to the tissue"} |
| wall at | {settings.threshold} voxels |
"""


def licence() -> str:
    """The licence of the package, which is that of the configuration and of the weights that come with it."""
    checkout = Path(__file__).resolve().parents[2] / "LICENSE"
    text = checkout.read_text(encoding="utf-8") if checkout.is_file() else None
    text = text or distribution("vesselsdf").read_text("licenses/LICENSE") or "Apache License, Version 2.0\n"
    return "Weights that you trained yourself are yours to license; for all else:\n\n" + text
