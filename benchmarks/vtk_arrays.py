"""Arrays to VTK and back. VTK's first axis runs fastest: x and z change places on the way there and the way back."""

import numpy as np


def vtk_image(values: np.ndarray):
    """A volume of 1 mm voxels, z first."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(values.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel()))
    return image


def read_polydata(data) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of a surface of such a volume, x first; the exchange turns the faces inside out, so they are turned."""
    vertices, faces = triangles_of(data)
    return vertices[:, ::-1], faces[:, ::-1]


def triangles_of(data) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces as they are."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    faces = vtk_to_numpy(data.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int64)
    return vtk_to_numpy(data.GetPoints().GetData()).astype(np.float64), faces


def polydata_of(vertices: np.ndarray, faces: np.ndarray):
    """Triangles as polydata, float64, copied."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    points, cells, data = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices, dtype=np.float64), deep=True))
    sized = np.hstack([np.full((len(faces), 1), 3), faces]).astype(np.int64)
    cells.SetCells(len(sized), numpy_to_vtkIdTypeArray(sized.ravel(), deep=True))
    data.SetPoints(points)
    data.SetPolys(cells)
    return data
