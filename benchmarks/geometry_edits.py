"""Smoothing and decimation of walls, ours and the peers': what they cost, and what they do to volume and topology.

Every method is given our wall and its field: for smoothing that of the mask's distance, for decimation that of the
exact distance, which is brought to a quarter of its faces.
"""

import numpy as np
from measuring import Method
from vtk_arrays import polydata_of, triangles_of

KEPT = 0.25  # share of the faces


def wall_and_field(field: np.ndarray) -> tuple:
    """Our wall of a field, and the field."""
    from vesselsdf.mesh import surface

    return surface(field, np.eye(4)), field


def read_trimesh(mesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces."""
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def before(mesh, field):
    return mesh


def our_smoothing(mesh, field):
    from vesselsdf.mesh import smooth

    return smooth(mesh, field, np.eye(4))


def our_decimation(mesh, field):
    from vesselsdf.mesh import decimate

    return decimate(mesh, field, np.eye(4), faces=round(KEPT * len(mesh.faces)))


def our_decimation_by_error(mesh, field):
    """A tenth of a voxel."""
    from vesselsdf.mesh import decimate

    return decimate(mesh, field, np.eye(4), error=0.1)


def trimesh_taubin(mesh, field):
    from trimesh.smoothing import filter_taubin

    return filter_taubin(mesh.copy(), lamb=0.5, nu=0.53, iterations=10)


def vtk_windowed_sinc(mesh, field):
    from vtkmodules.vtkFiltersCore import vtkWindowedSincPolyDataFilter

    tool = vtkWindowedSincPolyDataFilter()
    tool.SetInputData(polydata_of(*read_trimesh(mesh)))
    tool.SetNumberOfIterations(20)
    tool.SetPassBand(0.1)
    tool.NormalizeCoordinatesOn()
    tool.Update()
    return tool.GetOutput()


def vtk_quadric(mesh, field):
    from vtkmodules.vtkFiltersCore import vtkQuadricDecimation

    tool = vtkQuadricDecimation()
    tool.SetInputData(polydata_of(*read_trimesh(mesh)))
    tool.SetTargetReduction(1 - KEPT)
    tool.VolumePreservationOn()
    tool.Update()
    return tool.GetOutput()


def vtk_decimate_pro(mesh, field):
    from vtkmodules.vtkFiltersCore import vtkDecimatePro

    tool = vtkDecimatePro()
    tool.SetInputData(polydata_of(*read_trimesh(mesh)))
    tool.SetTargetReduction(1 - KEPT)
    tool.PreserveTopologyOn()
    tool.Update()
    return tool.GetOutput()


EDITS: dict[str, dict[str, Method]] = {
    "smoothing": {
        "ours": Method(our_smoothing, read_trimesh),
        "ours, before": Method(before, read_trimesh),
        "trimesh, Taubin": Method(trimesh_taubin, read_trimesh),
        "VTK windowed sinc": Method(vtk_windowed_sinc, triangles_of, package="vtk"),
    },
    "decimation": {
        "ours, to a quarter": Method(our_decimation, read_trimesh),
        "ours, error 0.1": Method(our_decimation_by_error, read_trimesh),
        "ours, before": Method(before, read_trimesh),
        "VTK quadric": Method(vtk_quadric, triangles_of, package="vtk"),
        "VTK decimate pro": Method(vtk_decimate_pro, triangles_of, package="vtk"),
    },
}
