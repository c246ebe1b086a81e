"""The folder of a reconstruction (`reconstruct` or `blocks`), as the exports read it."""

from pathlib import Path

import networkx as nx
import numpy as np
from jaxtyping import Float, UInt8

from vesselsdf.errors import InputError
from vesselsdf.graph_files import read_json
from vesselsdf.volume import Volume, read_volume, resample

FIELD = ("sdf.nii.gz", "sdf.zarr")
MASK = ("vessels.nii.gz", "vessels.zarr")
GRAPH = ("centreline.json",)


def file_of(folder: str | Path, names: tuple[str, ...]) -> Path:
    """The first of the named files (or Zarr folders) that a result has; `InputError` if it has none of them."""
    for name in names:
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise InputError(
        f"{folder} has no {' or '.join(names)}: give the folder that `vesselsdf reconstruct` or `blocks` wrote."
    )


def read_field(folder: str | Path) -> Volume:
    """The signed distance of level 0, mm."""
    return read_volume(file_of(folder, FIELD))


def read_mask(folder: str | Path) -> Volume:
    """The mask, 0 or 1, on the grid of the scan, or of a blockwise result on its working grid."""
    mask = read_volume(file_of(folder, MASK))
    return mask.with_array((mask.array > 0).astype(np.uint8))


def read_graph(folder: str | Path) -> nx.MultiGraph:
    """The centreline graph, RAS mm."""
    return read_json(file_of(folder, GRAPH))


def mask_on(
    folder: str | Path, shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"]
) -> UInt8[np.ndarray, "x y z"]:
    """The mask of a result on another grid; vessels end where the result's own grid does.

    Voxel by voxel where both have the same voxels, whatever the order and direction of their axes; else the sign of the
    distance field there.
    """
    mask = read_mask(folder)
    index_map = np.linalg.solve(mask.affine, affine)
    whole = np.rint(index_map)
    if np.abs((index_map - whole) @ [*shape, 1]).max() < 1e-2 and (np.abs(whole[:3, :3]).sum(axis=0) == 1).all():
        return resample(mask, shape, affine, order=0, fill=0).array
    field = read_field(folder)
    outside = float(np.abs(field.array).max())
    return (resample(field, shape, affine, order=1, fill=outside).array <= 0).astype(np.uint8)
