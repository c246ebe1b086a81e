"""A checkpoint as one ONNX file, with what its user has to do before and after in the file's metadata."""

import json
from pathlib import Path
from typing import Any

from vesselsdf import __version__
from vesselsdf.checkpoint import GENERAL, Model, load_model
from vesselsdf.errors import InputError
from vesselsdf.files import atomic_path
from vesselsdf.preprocessing import FAT, SOFT_TISSUE, VESSEL_LEVEL, ZEROED


def write_onnx(path: str | Path, checkpoint: str | Path | None = None) -> None:
    """Write the network of a checkpoint (by default the weights that come with the package) as an .onnx file.

    Inputs and outputs: `network_graph.network_model`. The file's `metadata_props` (`facts`) are JSON, one text each.
    Raises `InputError` for a checkpoint that is none, and without the package onnx.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("export onnx needs the package onnx: run `pip install 'vesselsdf[onnx]'`.") from None
    from vesselsdf.export.network_graph import network_model

    model = load_model(checkpoint or GENERAL)
    made = network_model(model.network)
    made.producer_name, made.producer_version = "vesselsdf", __version__
    made.doc_string = "Signed distance to the vessel wall at several resolutions; how to use it stands in the metadata."
    onnx.helper.set_model_props(made, {key: json.dumps(value) for key, value in facts(model).items()})
    onnx.checker.check_model(made, full_check=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(made.SerializeToString())


def facts(model: Model) -> dict[str, Any]:
    """All that a user of the ONNX file has to know, so that it gives what `vesselsdf.reconstruct` gives."""
    settings = model.preprocessing
    return {
        "unit": "working voxels; mm = (level_0 - threshold) * edge of a working voxel in mm; negative inside",
        "levels": model.network.levels,
        "level_spacing": [2**level for level in range(model.network.levels)],
        "kappa": model.network.kappa,
        "operator": model.config.network.operator,
        "threshold": settings.threshold,
        "spacing": settings.spacing,
        "spacing_note": "edge of the cubic working voxels, mm; null: the finest voxel edge of the scan",
        "window": settings.window,
        "window_note": (
            f"intensities that become -1 and 1, linear, clipped at -2 and 3; null: {list(SOFT_TISSUE)} if any voxel is "
            f"below {FAT} (CT in HU), else arcsinh((v - median) / s) with median and s = (q90 - q10) / 2 of the voxels "
            f"above the minimum; if those are fewer than {ZEROED} of all, arcsinh((v - minimum) / s) with s = (their "
            f"median - minimum) / {VESSEL_LEVEL}"
        ),
        "axes": "X, Y, Z of the scan's own voxel grid (nibabel's order), resampled linearly to cubic voxels",
        "acquisition": "log2(edge / finest edge) of the scan's voxels along X, Y, Z; 1 if a window was used, else 0",
    }
