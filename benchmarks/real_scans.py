"""Reconstruct the real public scans beside the project and print what was found, how long it took and how much memory.

    python benchmarks/real_scans.py [--checkpoint runs/.../model.safetensors] [--output demo/real]

Each scan runs in a process of its own, so that its peak memory is its own. For the aorta, the distances of the
centreline and the surface that VMTK made of the same image to ours are measured (mm): every point of theirs to the
nearest of ours.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from vesselsdf.report.text import columns

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SCANS = {
    "aorta": ("aorta/aorta.mha", False),
    "avf": ("avf/avf_float_32.nii.gz", False),
    "head_avm": ("head_avm/AVM.nii.gz", False),
    "dicom_chest": ("dicom_chest", False),
    "pulmonary (mask)": ("pulmonary/PA000005.nii.gz", True),
}


def reconstruct_one(path: str, output: str, checkpoint: str, mask: bool) -> None:
    """Runs in a process of its own; prints one line of JSON."""
    from vesselsdf.api import reconstruct

    start = time.monotonic()
    made = reconstruct(path, None if mask else checkpoint, mask=mask)
    made.save(output)
    seconds = time.monotonic() - start
    lengths = component_lengths(made.graph)
    found = {
        "voxels": int(np.prod(made.sdf.shape)),
        "betti": made.topology()["betti"],
        "mesh_euler": made.topology()["mesh"]["euler_number"],
        "watertight": made.topology()["mesh"]["watertight"],
        "length_mm": float(sum(lengths)),
        "largest_share": float(max(lengths) / sum(lengths)) if lengths else 0.0,
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    print(json.dumps(found))


def component_lengths(graph) -> list[float]:
    """Total centreline length of each component, mm."""
    import networkx as nx

    return [
        sum(edge["length"] for _, _, edge in graph.subgraph(nodes).edges(data=True))
        for nodes in nx.connected_components(graph)
    ]


def vtp_points(path: Path) -> np.ndarray:
    """Points of a VTK polydata file."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).astype(float)


def compare_aorta(output: Path) -> str:
    """Distances of VMTK's centreline and surface points to ours."""
    import trimesh

    mesh = trimesh.load(output / "mesh.ply")
    sampled, _ = trimesh.sample.sample_surface(mesh, 400_000, seed=0)
    lines = []
    for name, theirs, ours in (
        ("centreline", vtp_points(DATA / "aorta/aorta-centerline.vtp"), vtp_points(output / "centreline.vtp")),
        ("surface", vtp_points(DATA / "aorta/aorta-surface.vtp"), sampled),
    ):
        away = cKDTree(ours).query(theirs)[0]
        lines.append(
            [name, len(theirs), float(np.median(away)), float(np.percentile(away, 95)), float((away <= 2).mean())]
        )
    return columns(["VMTK's points to ours", "points", "median mm", "95% mm", "within 2 mm"], lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--output", default="demo/real")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        path, output, checkpoint, mask = given.one
        reconstruct_one(path, output, checkpoint, mask == "mask")
        return 0
    if not DATA.is_dir():
        print(f"real_scans: the public data are not at {DATA}", file=sys.stderr)
        return 2
    from vesselsdf.api import newest_run

    checkpoint = given.checkpoint or str(newest_run() / "model.safetensors")
    rows = []
    for name, (path, mask) in SCANS.items():
        output = Path(given.output) / name.split()[0]
        command = [
            sys.executable,
            __file__,
            "--one",
            str(DATA / path),
            str(output),
            checkpoint,
            "mask" if mask else "image",
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            rows.append([name, "failed", result.stderr.strip().splitlines()[-1], *[None] * 6])
            continue
        found = json.loads(result.stdout.strip().splitlines()[-1])
        rows.append([name, *found.values()])
    header = ["scan", "voxels", "beta0,1,2", "mesh Euler", "watertight", "length mm", "largest", "s", "GB"]
    print(columns(header, rows))
    if (Path(given.output) / "aorta" / "run.json").is_file():
        print("\n" + compare_aorta(Path(given.output) / "aorta"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
