"""One small picture of a case while a network learns: the image with the reference's wall and the predicted one.

On the left the maximum intensity projection along the shortest body axis of the scan, with the outlines of what is
vessel along the line of sight; on the right the plane through the thickest vessel, with the walls at their sub-voxel
places.
"""

import numpy as np
from jaxtyping import UInt8

from vesselsdf.report.preview import OUTLINE, VIEWS, View, grid_axes, label, projected
from vesselsdf.volume import Volume

REFERENCE, PREDICTED = "#00d0ff", OUTLINE
PANEL = 3.4
"""Inches, the width of one panel."""
DPI = 100


def wall_picture(image: Volume, truth: Volume, predicted: Volume, title: str) -> UInt8[np.ndarray, "h w 3"]:
    """A picture (h, w, 3) RGB of about 700 x 400 pixels, which takes some tenths of a second.

    Args:
        image: normalised or not.
        truth: signed distance, mm, on the image's grid, NaN where it is not known.
        predicted: the same of a network.
        title: written above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    truth = truth.with_array(np.where(np.isnan(truth.array), np.float32(max(image.spacing)), truth.array))
    view = _shortest(image)
    _, extent = projected(image, view, thickness=False)
    aspect = abs(extent[3] - extent[2]) / abs(extent[1] - extent[0])
    height = float(np.clip(PANEL * aspect, 1.2, 1.6 * PANEL))
    figure = Figure(figsize=(2 * PANEL, height + 0.32), dpi=DPI, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    top = height / (height + 0.32)
    parts = [(image, truth, predicted), tuple(_plane(one, view, truth, predicted) for one in (image, truth, predicted))]
    for number, (shown, *walls) in enumerate(parts):
        axes = figure.add_axes((0.5 * number + 0.003, 0.005, 0.494, top - 0.01))
        picture, extent = projected(shown, view, thickness=False)
        low, high = np.percentile(picture, (1, 99.7))
        axes.imshow(picture, origin="lower", extent=extent, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
        for wall, colour in zip(walls, (REFERENCE, PREDICTED), strict=True):
            _outline(axes, wall, view, colour)
        label(axes, view, "0.7")
    words = [(title, "white", 0.01, "left"), ("reference", REFERENCE, 0.75, "center")]
    for text, colour, x, side in [*words, ("prediction", PREDICTED, 0.9, "center")]:
        figure.text(x, (1 + top) / 2, text, color=colour, fontsize=9, ha=side, va="center")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _shortest(image: Volume) -> View:
    """The view along the body axis in which the scan is shortest: there vessels hide each other least."""
    edges, axes = np.multiply(image.shape, image.spacing), grid_axes(image)
    return min(VIEWS, key=lambda view: edges[axes[view.viewer[0]]])


def _plane(volume: Volume, view: View, truth: Volume, predicted: Volume) -> Volume:
    """The plane of `volume` across the line of sight, through the thickest place of the reference."""
    deepest = truth if truth.array.min() <= 0 else predicted
    place = np.unravel_index(int(np.argmin(deepest.array)), volume.shape)
    axis = grid_axes(volume)[view.viewer[0]]
    kept = tuple(slice(place[k], place[k] + 1) if k == axis else slice(None) for k in range(3))
    affine = volume.affine.copy()
    affine[:3, 3] += volume.affine[:3, axis] * place[axis]
    return Volume(volume.array[kept], affine)


def _outline(axes, wall: Volume, view: View, colour: str) -> None:
    """The zero level of a distance field, projected."""
    depth, (left, right, bottom, top) = projected(wall.with_array(-wall.array), view, thickness=False)
    if not depth.min() < 0 < depth.max():
        return
    rows, columns = depth.shape
    across = left + (right - left) * (np.arange(columns) + 0.5) / columns
    upwards = bottom + (top - bottom) * (np.arange(rows) + 0.5) / rows
    axes.contour(across, upwards, depth, levels=[0.0], colors=colour, linewidths=0.9)
