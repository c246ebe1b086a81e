"""A picture of a vessel network from three sides: the wall coloured by radius, see-through, the centreline in it."""

from pathlib import Path

import networkx as nx
import numpy as np
from scipy.spatial import cKDTree
from vtk_arrays import polydata_of

SIDES = (((0, 1, 0), (0, 0, 1)), ((1, 0, 0), (0, 0, 1)), ((0, 0, 1), (0, 1, 0)))  # from where, and what is up (RAS)
SIZE = (1800, 800)


def picture(mesh, graph: nx.MultiGraph, path: Path) -> None:
    """Write a PNG. Bifurcations are red, ends blue."""
    from geometry_scores import lines_of, sampled
    from vtkmodules.vtkIOImage import vtkPNGWriter
    from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow, vtkWindowToImageFilter

    import vtkmodules.vtkRenderingOpenGL2  # noqa: F401, isort: skip (registers the renderer)

    lines = lines_of(graph)
    points, radii = sampled(lines)
    nearest = cKDTree(points).query(mesh.vertices)[1] if len(points) else np.zeros(len(mesh.vertices), int)
    colours = radii[nearest] if len(points) else np.zeros(len(mesh.vertices))
    thin = 0.3 * float(np.median(radii)) if len(points) else 1.0
    actors = [
        wall_actor(mesh, colours),
        line_actor(lines.branches, thin / 2),
        ball_actor(lines.bifurcations, 2 * thin, (0.85, 0.1, 0.1)),
        ball_actor(lines.ends, 2 * thin, (0.1, 0.2, 0.9)),
    ]
    window = vtkRenderWindow()
    window.SetOffScreenRendering(1)
    window.SetSize(*SIZE)
    window.SetAlphaBitPlanes(1)
    window.SetMultiSamples(0)
    for k, (way, up) in enumerate(SIDES):
        renderer = vtkRenderer()
        renderer.SetViewport(k / 3, 0, (k + 1) / 3, 1)
        renderer.SetBackground(1, 1, 1)
        for actor in actors:
            renderer.AddActor(actor)
        camera = renderer.GetActiveCamera()
        middle = mesh.bounds.mean(axis=0)
        camera.SetFocalPoint(*middle)
        camera.SetPosition(*(middle + np.array(way)))
        camera.SetViewUp(*up)
        camera.ParallelProjectionOn()
        renderer.SetUseDepthPeeling(1)
        renderer.SetMaximumNumberOfPeels(8)
        renderer.ResetCamera()
        camera.SetParallelScale(half_height(mesh.bounds, np.array(way), np.array(up)))
        window.AddRenderer(renderer)
    window.Render()
    image, writer = vtkWindowToImageFilter(), vtkPNGWriter()
    image.SetInput(window)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.SetFileName(str(path))
    writer.SetInputConnection(image.GetOutputPort())
    writer.Write()


def half_height(bounds: np.ndarray, way: np.ndarray, up: np.ndarray) -> float:
    """Half the height in mm that a view must show so that a box fits into it, with a little room."""
    extent = np.ptp(bounds, axis=0)
    across = float(np.abs(np.cross(way, up)) @ extent)
    return 0.54 * max(float(np.abs(up) @ extent), across * 3 * SIZE[1] / SIZE[0])


def wall_actor(mesh, colours: np.ndarray):
    """The wall, coloured from thin (blue) to thick (red)."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonCore import vtkLookupTable
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    data, mapper, actor = polydata_of(mesh.vertices, mesh.faces), vtkPolyDataMapper(), vtkActor()
    data.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(colours, dtype=np.float64), deep=True))
    mapper.SetInputData(data)
    low, high = np.percentile(colours, (2, 98)) if len(colours) else (0, 1)
    table = vtkLookupTable()
    table.SetHueRange(0.667, 0.0)
    table.Build()
    mapper.SetLookupTable(table)
    mapper.SetScalarRange(low, high)
    actor.SetMapper(mapper)
    actor.GetProperty().SetOpacity(0.35)
    return actor


def line_actor(branches: list, radius: float):
    """The centreline as a thin black tube."""
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkFiltersCore import vtkTubeFilter
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    points, cells, data = vtkPoints(), vtkCellArray(), vtkPolyData()
    for line, _ in branches:
        cells.InsertNextCell(len(line))
        for point in line:
            cells.InsertCellPoint(points.InsertNextPoint(*point))
    data.SetPoints(points)
    data.SetLines(cells)
    tube, mapper, actor = vtkTubeFilter(), vtkPolyDataMapper(), vtkActor()
    tube.SetInputData(data)
    tube.SetRadius(radius)
    tube.SetNumberOfSides(6)
    mapper.SetInputConnection(tube.GetOutputPort())
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(0, 0, 0)
    return actor


def ball_actor(places: np.ndarray, radius: float, colour: tuple[float, float, float]):
    """A small ball at every place."""
    import trimesh
    from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper

    ball = trimesh.creation.icosphere(subdivisions=1, radius=radius)
    mapper, actor = vtkPolyDataMapper(), vtkActor()
    if len(places):
        balls = trimesh.util.concatenate([ball.copy().apply_translation(place) for place in places])
        mapper.SetInputData(polydata_of(balls.vertices, balls.faces))
    actor.SetMapper(mapper)
    actor.GetProperty().SetColor(*colour)
    return actor
