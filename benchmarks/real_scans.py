"""Reconstruct the real public scans beside the project: what was found, and how far it agrees with what is known.

    python benchmarks/real_scans.py [--checkpoint runs/.../model.safetensors] [--output demo/real] [--scans aorta ...]

By default with the weights that come with the package, which have seen no real scan. Each scan runs in a process of its
own, so that its peak memory is its own; a picture of each (`preview.png`) lies in the output. Then:

- aorta: distances of the centreline and the surface that VMTK made of the same image to ours (mm);
- fistula: share of the surface that comes with the scan within 1 mm of our largest component, arterial and venous limb
  together;
- head: how much of the centreline hangs together, in ours and in the voxels that the scan's removed background left;
- two-photon stacks: agreement with their labels. Voxels are taken to be 2 x 2 x 5 um; their files do not say.
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
    "aorta": "aorta/aorta.mha",
    "avf": "avf/avf_float_32.nii.gz",
    "head_avm": "head_avm/AVM.nii.gz",
    "dicom_chest": "dicom_chest",
    "pulmonary_mask": "pulmonary/PA000005.nii.gz",
}
STACKS = {
    "burgess_bbb": ("burgess2014_bbbDisruption_BM4D_denoised", "burgess2014_bbbDisruption_labels_v1"),
    "burgess_mouse": ("burgess2014_tgMouse_BM4D_denoised", "burgess2014_tgMouse_labels_v1"),
    "poon": ("poon2015_BBB_Leakage_BM4D_denoised", "poon2015_BBB_Leakage_manualLabels_v2"),
    "santos": ("santos2015_lowContrastVessels_BM4D_denoised", "santos2015_lowContrastVessels_labelsMarc"),
}
STACK_SPACING = (0.002, 0.002, 0.005)
PIECE = 20
"""Voxels of centreline below which a piece is a fragment."""


def stack(name: str) -> Path:
    return DATA / "two_photon" / f"{name}.tif"


def reconstruct_one(name: str, output: Path, checkpoint: str | None) -> dict:
    """Runs in a process of its own."""
    from vesselsdf.api import reconstruct

    start = time.monotonic()
    if name in STACKS:
        made = reconstruct(stack(STACKS[name][0]), checkpoint, spacing=STACK_SPACING)
    else:
        made = reconstruct(DATA / SCANS[name], checkpoint, mask=name.endswith("mask"))
    made.save(output)
    seconds = time.monotonic() - start
    lengths = component_lengths(made.graph)
    return {
        "voxels": int(np.prod(made.sdf.shape)),
        "vessel, %": 100 * float((made.sdf.array <= 0).mean()),
        "beta0,1,2": made.topology()["betti"],
        "closed": made.topology()["mesh"]["watertight"],
        "length mm": float(sum(lengths)),
        "largest": float(max(lengths) / sum(lengths)) if lengths else 0.0,
        "unlike training": len(made.provenance.get("unfamiliar", ())),
        "s": seconds,
        "GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def component_lengths(graph) -> list[float]:
    """Total centreline length of each component, mm."""
    import networkx as nx

    return [
        sum(edge["length"] for _, _, edge in graph.subgraph(nodes).edges(data=True))
        for nodes in nx.connected_components(graph)
    ]


def vtk_points(path: Path) -> np.ndarray:
    """Points of a VTK polydata file, .vtp or legacy .vtk."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOLegacy import vtkPolyDataReader
    from vtkmodules.vtkIOXML import vtkXMLPolyDataReader

    reader = vtkXMLPolyDataReader() if path.suffix == ".vtp" else vtkPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    return vtk_to_numpy(reader.GetOutput().GetPoints().GetData()).astype(float)


def on_surface(mesh) -> np.ndarray:
    """Points spread over a mesh."""
    import trimesh

    return np.asarray(trimesh.sample.sample_surface(mesh, 400_000, seed=0)[0])


def compare_aorta(output: Path) -> str:
    """Distances of VMTK's centreline and surface points to ours."""
    import trimesh

    from vesselsdf import read_volume

    mesh = trimesh.load(output / "mesh.ply")
    lines = []
    for name, theirs, ours in (
        ("centreline", vtk_points(DATA / "aorta/aorta-centerline.vtp"), vtk_points(output / "centreline.vtp")),
        ("surface", vtk_points(DATA / "aorta/aorta-surface.vtp"), on_surface(mesh)),
    ):
        away = cKDTree(ours).query(theirs)[0]
        lines.append(
            [name, len(theirs), float(np.median(away)), float(np.percentile(away, 95)), float((away <= 2).mean())]
        )
    field = read_volume(output / "sdf.nii.gz")
    index = np.rint(field.to_index(vtk_points(DATA / "aorta/aorta-centerline.vtp"))).astype(int)
    inside = (field.array[tuple(np.clip(index, 0, np.array(field.shape) - 1).T)] <= 0).mean()
    table = columns(["VMTK's points to ours", "points", "median mm", "95% mm", "within 2 mm"], lines)
    return f"{table}\n{100 * inside:.0f}% of VMTK's centreline lies inside our vessel."


def compare_fistula(output: Path) -> str:
    """How much of the surface that comes with the scan our largest component covers."""
    import trimesh

    mesh = trimesh.load(output / "mesh.ply")
    parts = sorted(mesh.split(only_watertight=False), key=lambda part: -part.area)
    theirs = vtk_points(DATA / "avf/avf.vtk")
    # Which of the two world frames the surface was written in is not said; the scan's own tells.
    frames = {"RAS": theirs, "LPS": theirs * [-1, -1, 1]}
    rows = []
    for frame, points in frames.items():
        away = cKDTree(on_surface(parts[0])).query(points)[0]
        rows.append([frame, len(points), float(np.median(away)), float((away <= 1).mean()), len(parts)])
    best = max(rows, key=lambda row: row[3])
    return columns(["fistula's surface to our largest part", "points", "median mm", "within 1 mm", "parts"], [best])


def compare_head(output: Path) -> str:
    """Share of the largest component in the length of ours, and of all voxels that are not background in the scan."""
    from scipy.ndimage import label

    from vesselsdf import read_volume
    from vesselsdf.topology.thinning import thin

    scan, ours = read_volume(DATA / SCANS["head_avm"]), read_volume(output / "vessels.nii.gz")
    rows = []
    for name, mask in (("ours", ours.array > 0), ("the scan's own foreground", scan.array > scan.array.min())):
        pieces, count = label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(pieces[thin(mask)], minlength=count + 1)[1:]  # skeleton voxels
        longer = sizes[sizes >= PIECE]
        rows.append([name, count, *(float(sizes.max() / part.sum()) for part in (sizes, longer))])
    return columns(["head", "pieces", "largest / all", f"largest / those of {PIECE} voxels or more"], rows)


def compare_stacks(output: Path, names: list[str]) -> str:
    """Agreement with the labels of the two-photon stacks."""
    from vesselsdf import evaluate, read_volume

    keys = ("dice", "cldice", "tree_length_detected", "tree_length_precision", "beta0_error", "beta1_error")
    rows = []
    for name in names:
        label = read_volume(stack(STACKS[name][1]), STACK_SPACING)
        label = label.with_array((label.array > 0).astype(np.uint8))
        found = read_volume(output / name / "vessels.nii.gz")
        table = evaluate(label.with_array(found.array), label)
        rows.append([name, *(float(table[key]) for key in keys)])
    return columns(["stack", *keys], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--output", type=Path, default=Path("demo/real"))
    parser.add_argument("--scans", nargs="+", default=[*SCANS, *STACKS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(reconstruct_one(given.one, given.output / given.one, given.checkpoint)))
        return 0
    if not DATA.is_dir():
        print(f"real_scans: the public data are not at {DATA}", file=sys.stderr)
        return 2
    rows, header = [], ["scan"]
    for name in given.scans:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"{name} failed: {result.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        found = json.loads(result.stdout.strip().splitlines()[-1])
        header = ["scan", *found]
        rows.append([name, *found.values()])
    print(columns(header, rows))
    done = {row[0] for row in rows}
    if "aorta" in done:
        print("\n" + compare_aorta(given.output / "aorta"))
    if "avf" in done:
        print("\n" + compare_fistula(given.output / "avf"))
    if "head_avm" in done:
        print("\n" + compare_head(given.output / "head_avm"))
    stacks = [name for name in given.scans if name in STACKS and name in done]
    if stacks:
        print("\n" + compare_stacks(given.output, stacks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
