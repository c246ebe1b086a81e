"""VMTK's centrelines of a surface, run by a Python that has VMTK: `python vmtk_lines.py input.npz output.npz`.

The input holds `vertices`, `faces`, `source` (3,) and `targets` (n, 3), the end points, which VMTK wants to be given.
The output holds the lines one after the other (`points`, `radii`, `lengths`), the places of the bifurcations, CPU
seconds and peak memory in MB. Nothing of this project is imported: the two Pythons need not be alike.
"""

import sys
import time

import numpy as np
import vtk
from vmtk import vmtkscripts
from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy


def polydata(vertices, faces):
    """Triangles as VTK has them."""
    points, cells, surface = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices, dtype=np.float64), deep=True))
    cells_with_size = np.hstack([np.full((len(faces), 1), 3), faces]).astype(np.int64)
    cells.SetCells(len(faces), numpy_to_vtkIdTypeArray(cells_with_size.ravel(), deep=True))
    surface.SetPoints(points)
    surface.SetPolys(cells)
    return surface


def centrelines(surface, source, targets):
    """One line from the source to every target, with radii."""
    tool = vmtkscripts.vmtkCenterlines()
    tool.Surface = surface
    tool.SeedSelectorName = "pointlist"
    tool.SourcePoints = [float(x) for x in source]
    tool.TargetPoints = [float(x) for x in np.ravel(targets)]
    tool.AppendEndPoints = 0
    tool.Execute()
    return tool.Centerlines


def branches(lines):
    """Lines split into groups; a group that is blanked lies at a bifurcation."""
    tool = vmtkscripts.vmtkBranchExtractor()
    tool.Centerlines = lines
    tool.Execute()
    return tool.Centerlines


def cells_of(lines):
    """Points and radii of each line."""
    points = vtk_to_numpy(lines.GetPoints().GetData())
    radii = vtk_to_numpy(lines.GetPointData().GetArray("MaximumInscribedSphereRadius"))
    found = []
    for k in range(lines.GetNumberOfCells()):
        ids = lines.GetCell(k).GetPointIds()
        at = [ids.GetId(i) for i in range(ids.GetNumberOfIds())]
        found.append((points[at], radii[at]))
    return found


def main():
    with np.load(sys.argv[1]) as stored:
        given = dict(stored)
    before = peak()
    start = time.process_time()
    lines = centrelines(polydata(given["vertices"], given["faces"]), given["source"], given["targets"])
    split = branches(lines)
    seconds, mb = time.process_time() - start, peak() - before
    groups = vtk_to_numpy(split.GetCellData().GetArray("GroupIds"))
    blanked = vtk_to_numpy(split.GetCellData().GetArray("Blanking"))
    seen, kept, places = set(), [], {}
    for group, blank, (points, radius) in zip(groups, blanked, cells_of(split), strict=True):
        if blank:
            places.setdefault(group, []).append(points)
        if group not in seen:  # tracts that run together are alike: one of each
            seen.add(group)
            kept.append((points, radius))
    whole = [points for points, _ in cells_of(lines)]
    np.savez(
        sys.argv[2],
        points=np.concatenate([points for points, _ in kept]),
        radii=np.concatenate([radius for _, radius in kept]),
        lengths=np.array([len(points) for points, _ in kept]),
        bifurcations=np.array([np.concatenate(parts).mean(axis=0) for parts in places.values()]).reshape(-1, 3),
        ends=np.array([whole[0][0], *[points[-1] for points in whole]]),
        seconds=seconds,
        mb=mb,
    )


def peak() -> float:
    """Peak memory so far, MB."""
    with open("/proc/self/status") as status:
        return float(status.read().split("VmHWM:")[1].split()[0]) / 1e3


if __name__ == "__main__":
    main()
