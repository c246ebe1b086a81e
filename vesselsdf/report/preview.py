"""One picture of a reconstruction: projections of the image with the vessel's outline, its barcode, and the surface.

Strategy: above are maximum intensity projections of the image along the three body axes (radiological convention: the
patient's right on the left of the picture), and the barcode; below, the mesh on a turntable, by its radius, drawn by a
small z-buffer of our own (at each pixel the nearest of the faces that look at the viewer wins), and the difference
between the depth and its blurred copy darkens what lies behind something (Luft, Colditz and Deussen 2006), which is
what makes a tree of vessels readable. No display, no OpenGL.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import trimesh
from jaxtyping import Float, Int
from scipy import ndimage

from vesselsdf.mesh.colours import balls, deepest_ball
from vesselsdf.report.barcode import draw_barcode
from vesselsdf.report.text import plural
from vesselsdf.report.views import VIEWS, Turn, View, turntable
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import Volume

# The radius is coloured up to this percentile: one aneurysm should not take all the colours.
RADIUS_RANGE = (2, 98)
OVERSAMPLING = 2
PIXELS = 560
PIXELS_AT_ONCE = 1 << 21
LIGHT = np.array([-0.35, 0.45, 0.82])
OUTLINE = "#ff7f0e"


def preview_png(
    sdf: Volume,
    graph: nx.MultiGraph,
    mesh: trimesh.Trimesh,
    image: Volume | None = None,
    features: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """A PNG of a reconstruction.

    Args:
        sdf: signed distance, mm, negative inside; its Betti numbers are stated (26/6).
        graph: centreline graph; its radii colour the surface.
        mesh: surface, RAS mm.
        image: what the field was made from, on any grid with about the same axes; without it, the thickness of the
            vessel along the line of sight is shown.
        features: of the finest level, from the topology report, for the barcode.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16.5, 9.2), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, 5, width_ratios=(1, 1, 1, 1, 0.035), left=0.015, right=0.955, top=0.89, bottom=0.03, wspace=0.06, hspace=0.12
    )
    radii = vertex_radii(mesh, graph)
    low, high = np.percentile(radii, RADIUS_RANGE) if len(radii) else (0.0, 1.0)
    colours = ScalarMappable(
        PowerNorm(0.5, max(float(low), 1e-6), max(float(high), float(low) * 1.1, 2e-6)), "plasma_r"
    )
    palette = colours.to_rgba(radii)[:, :3]
    for column, view in enumerate(VIEWS):
        draw_projection(figure.add_subplot(grid[0, column]), view, sdf, image)
    # The bars' labels need more room than the pictures' edges.
    left, bottom, width, height = grid[0, 3].get_position(figure).bounds
    draw_barcode(figure.add_axes((left + 0.02, bottom + 0.09, width - 0.02, height - 0.17)), features)
    size = np.ptp(np.asarray(mesh.vertices), axis=0) if len(mesh.faces) else np.ones(3)
    for column, turn in enumerate(turntable(size)):
        draw_surface(figure.add_subplot(grid[1, column]), turn, mesh, palette)
    bar = figure.colorbar(colours, cax=figure.add_subplot(grid[1, 4]))
    bar.set_label("radius (mm)")
    figure.text(0.015, 0.965, headline(sdf, graph), fontsize=13, weight="bold", va="center")
    shown = "maximum intensity" if image is not None else "vessel thickness along the line of sight"
    figure.text(0.015, 0.932, f"{surface_line(mesh)}. Above: {shown}.", fontsize=10.5, color="0.3", va="center")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()


def headline(sdf: Volume, graph: nx.MultiGraph) -> str:
    """Betti numbers of the field and size of the graph in one line."""
    beta = betti_numbers(sdf.array <= 0)
    length = sum(edge["length"] for _, _, edge in graph.edges(data=True))
    ends = sum(degree == 1 for _, degree in graph.degree)
    parts = [
        plural(beta[0], "component"),
        plural(beta[1], "loop"),
        plural(beta[2], "cavity", "cavities"),
        plural(graph.number_of_edges(), "branch", "branches"),
        plural(ends, "end"),
        f"total length {length:.0f} mm" if length < 1e4 else f"total length {length / 1e3:.2f} m",
    ]
    return "  ·  ".join(parts)


def surface_line(mesh: trimesh.Trimesh) -> str:
    """Size of the mesh in one line."""
    if not len(mesh.faces):
        return "No surface"
    low, high = mesh.bounds
    size = " x ".join(f"{extent:.0f}" if extent >= 10 else f"{extent:.2g}" for extent in high - low)
    volume = float(mesh.volume)
    amount = f"{volume / 1000:.1f} ml" if volume > 1e4 else f"{volume:.4g} mm³"
    return f"{plural(len(mesh.faces), 'face')}, Euler number {mesh.euler_number}, {amount} in a box of {size} mm"


def vertex_radii(mesh: trimesh.Trimesh, graph: nx.MultiGraph) -> Float[np.ndarray, " v"]:
    """Radius of the vessel at each vertex, mm: as the mesh carries it, or else as `mesh.colours` finds it."""
    if "radius" in mesh.vertex_attributes:
        return np.asarray(mesh.vertex_attributes["radius"], dtype=np.float64)
    if not graph.number_of_nodes() or not len(mesh.vertices):
        return np.zeros(len(mesh.vertices))
    centres, radii = balls(graph)
    return radii[deepest_ball(np.asarray(mesh.vertices), centres, radii)]


def grid_axes(volume: Volume) -> list[int]:
    """The grid's axis nearest to each body axis (right, front, head), each taken once."""
    directions = volume.affine[:3, :3] / np.asarray(volume.spacing)
    remaining = [0, 1, 2]
    order = []
    for body in range(3):
        axis = max(remaining, key=lambda a: abs(directions[body, a]))
        remaining.remove(axis)
        order.append(axis)
    return order


def along_body_axes(volume: Volume) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """The array with axes nearest to right, front and head, each rising, and their extents in mm (outer faces)."""
    directions, order = volume.affine[:3, :3] / np.asarray(volume.spacing), grid_axes(volume)
    array = volume.array.transpose(order)
    extents = []
    for body, axis in enumerate(order):
        sign = 1 if directions[body, axis] >= 0 else -1
        if sign < 0:
            array = np.flip(array, body)
        first = float(directions[:, axis] @ volume.affine[:3, 3]) * sign
        size, step = volume.array.shape[axis], volume.spacing[axis]
        start = first if sign > 0 else first - (size - 1) * step
        extents.append((start - step / 2, start + (size - 0.5) * step))
    return array, extents


def projected(volume: Volume, view: View, thickness: bool) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Maximum (or sum times spacing) along the line of sight, as rows from the top, and its extent for `imshow`."""
    array, extents = along_body_axes(volume)
    along = view.viewer[0]
    step = float(np.diff(extents[along])[0]) / array.shape[along]
    flat = array.sum(axis=along, dtype=np.float64) * step if thickness else array.max(axis=along)
    # The two axes left are in rising order; wanted: rows up, columns right.
    picture = flat.T if view.right[0] < view.up[0] else flat
    picture = picture[:: view.up[1], :: view.right[1]]
    left, right = extents[view.right[0]][:: view.right[1]]
    bottom, top = extents[view.up[0]][:: view.up[1]]
    return picture, (left, right, bottom, top)


def draw_projection(axes, view: View, sdf: Volume, image: Volume | None) -> None:
    """Projection of the image with the outline of the projected vessel."""
    mask = sdf.with_array((sdf.array <= 0).astype(np.float32))
    picture, extent = projected(image if image is not None else mask, view, thickness=image is None)
    if image is None:
        picture = np.sqrt(picture)  # thin vessels beside thick ones
    low, high = np.percentile(picture, (1, 99.7)) if image is not None else (0.0, float(picture.max()) or 1.0)
    axes.imshow(
        picture,
        origin="lower",
        extent=extent,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        interpolation="bilinear",
    )
    shadow, (left, right, bottom, top) = projected(mask, view, thickness=False)
    if image is not None and 0 < shadow.mean() < 1:
        rows, columns = shadow.shape
        across = left + (right - left) * (np.arange(columns) + 0.5) / columns
        upwards = bottom + (top - bottom) * (np.arange(rows) + 0.5) / rows
        axes.contour(across, upwards, shadow, levels=[0.5], colors=OUTLINE, linewidths=0.7)
    else:
        # Without an image there is nothing to see far from the vessel.
        rows, columns = (np.flatnonzero(shadow.any(axis=k)) for k in (1, 0))
        if len(rows):
            axes.set_xlim(*window(columns, shadow.shape[1], left, right))
            axes.set_ylim(*window(rows, shadow.shape[0], bottom, top))
    axes.set_facecolor("black")
    label(axes, view, "white")
    axes.set_title(view.name, fontsize=10, color="0.25", pad=4)


def window(used: np.ndarray, size: int, start: float, end: float) -> tuple[float, float]:
    """From the first to the last used pixel of `size` between `start` and `end` mm, with a margin."""
    margin = 2 + (used[-1] - used[0]) // 16
    low, high = max(used[0] - margin, 0), min(used[-1] + 1 + margin, size)
    return start + (end - start) * low / size, start + (end - start) * high / size


def draw_surface(axes, view: Turn, mesh: trimesh.Trimesh, palette: Float[np.ndarray, "v 3"]) -> None:
    """The mesh as seen from `view`."""
    if len(mesh.faces):
        axes.imshow(render(mesh, view, palette, PIXELS), interpolation="antialiased")
    label(axes, view, "0.25")
    axes.set_title(view.name, fontsize=10, color="0.25", pad=4)


def label(axes, view: View | Turn, colour: str) -> None:
    """Letters of the body's directions on the four sides, no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    for letter, (x, y) in zip(view.letters, places, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, color=colour, fontsize=10, ha="center", va="center")


def render(
    mesh: trimesh.Trimesh, view: View | Turn, palette: Float[np.ndarray, "v 3"], pixels: int
) -> Float[np.ndarray, "h w 3"]:
    """Picture (h, w, 3) in 0..1 of the mesh on white, `pixels` along its longer side, coloured by vertex."""
    points = view.turned(np.asarray(mesh.vertices, dtype=np.float64))
    low, high = points.min(axis=0), points.max(axis=0)
    size = high - low
    scale = OVERSAMPLING * pixels * 0.94 / max(float(size[:2].max()), 1e-9)
    margin = 0.03 * OVERSAMPLING * pixels
    shape = tuple(int(np.ceil(s * scale + 2 * margin)) for s in size[[1, 0]])
    placed = (points - low) * scale + [margin, margin, 0]
    faces = np.asarray(mesh.faces)
    depth, face, weights = nearest_faces(placed, faces, shape)
    hit = face >= 0
    corner, weight = faces[face[hit]], weights[hit]
    normals = view.turned(np.asarray(mesh.vertex_normals))
    colour = shade(np.einsum("nk,nkc->nc", weight, palette[corner]), np.einsum("nk,nkc->nc", weight, normals[corner]))
    picture = np.ones((len(face), 3))
    picture[hit] = occlude(colour, depth.reshape(shape), float(size[2]) * scale)
    return shrink(picture.reshape(*shape, 3))[::-1]


def nearest_faces(
    placed: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, " p"], Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    """Per pixel: depth (rising to the viewer; NaN where nothing is), nearest face (-1), barycentric weights."""
    depth = np.full(shape[0] * shape[1], -np.inf)
    face = np.full(depth.shape, -1, dtype=np.int64)
    weights = np.zeros((len(depth), 3))
    for which, weight, pixel in rasterise(placed, faces, shape[1]):
        height = np.einsum("nk,nk->n", weight, placed[faces[which], 2])
        order = np.argsort(height, kind="stable")
        order = order[height[order] > depth[pixel[order]]]
        # Of equal indices the last assignment stays: the one nearest to the viewer.
        depth[pixel[order]], face[pixel[order]], weights[pixel[order]] = height[order], which[order], weight[order]
    return np.where(face >= 0, depth, np.nan), face, weights


def rasterise(
    placed: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], width: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"], Int[np.ndarray, " n"]]]:
    """Pixels whose centres each face that looks at the viewer covers, in portions: faces, barycentric weights, pixels.

    Every pixel centre in the box of a face is tested; boxes of a fine mesh hold few.
    """
    x, y = placed[faces, 0], placed[faces, 1]
    doubled = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    first = np.ceil(np.stack([x.min(axis=1), y.min(axis=1)], axis=1) - 0.5).astype(np.int64)
    last = np.floor(np.stack([x.max(axis=1), y.max(axis=1)], axis=1) - 0.5).astype(np.int64)
    size = last - first + 1
    seen = np.flatnonzero((doubled > 1e-9) & (size > 0).all(axis=1))
    count = size[seen].prod(axis=1)
    portion = np.cumsum(count) // PIXELS_AT_ONCE
    for part in np.split(np.arange(len(seen)), np.flatnonzero(np.diff(portion)) + 1):
        n = count[part]
        face = np.repeat(seen[part], n)
        k = np.arange(len(face)) - np.repeat(np.cumsum(n) - n, n)
        column = first[face, 0] + k % size[face, 0]
        row = first[face, 1] + k // size[face, 0]
        u, v = column + 0.5 - x[face, 0], row + 0.5 - y[face, 0]
        second = (u * (y[face, 2] - y[face, 0]) - v * (x[face, 2] - x[face, 0])) / doubled[face]
        third = (v * (x[face, 1] - x[face, 0]) - u * (y[face, 1] - y[face, 0])) / doubled[face]
        inside = (second >= 0) & (third >= 0) & (second + third <= 1)
        second, third = second[inside], third[inside]
        yield face[inside], np.stack([1 - second - third, second, third], axis=1), (row * width + column)[inside]


def shade(colour: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Diffuse light from the upper left, some from the viewer, and a small highlight."""
    light = LIGHT / np.linalg.norm(LIGHT)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    diffuse = 0.3 + 0.55 * np.clip(normal @ light, 0, 1) + 0.2 * np.clip(normal[:, 2], 0, 1)
    half = light + np.array([0.0, 0.0, 1.0])
    highlight = 0.22 * np.clip(normal @ (half / np.linalg.norm(half)), 0, 1) ** 30
    return np.clip(colour * diffuse[:, None] + highlight[:, None], 0, 1)


def occlude(
    colour: Float[np.ndarray, "n 3"], depth: Float[np.ndarray, "h w"], range_: float
) -> Float[np.ndarray, "n 3"]:
    """Darken what lies behind its surroundings and fade what is far; `colour` is that of the n pixels with a depth.

    The blurred depth is wanted coarsely only, so it is taken from every `coarse`-th pixel.
    """
    coarse = 2 * OVERSAMPLING
    thin = depth[::coarse, ::coarse]
    drawn = np.isfinite(thin)
    weight = ndimage.gaussian_filter(drawn.astype(np.float64), 3.0)
    mean = ndimage.gaussian_filter(np.where(drawn, thin, 0.0), 3.0) / np.maximum(weight, 1e-6)
    seen = np.nonzero(np.isfinite(depth))
    here = depth[seen]
    around = ndimage.map_coordinates(mean, np.stack(seen) / coarse, order=1, mode="nearest")
    sparse = ndimage.map_coordinates(weight, np.stack(seen) / coarse, order=1, mode="nearest") < 1e-3
    behind = np.where(sparse, 0.0, np.clip((around - here) / (40.0 * OVERSAMPLING), 0, 1))
    distance = np.clip(1 - here / max(range_, 1e-9), 0, 1)
    shaded = colour * (1 - 0.55 * behind)[:, None]
    return shaded + (1 - shaded) * (0.28 * distance)[:, None]


def shrink(picture: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "a b 3"]:
    """Mean over blocks of `OVERSAMPLING` pixels."""
    k = OVERSAMPLING
    h, w = (n // k * k for n in picture.shape[:2])
    return picture[:h, :w].reshape(h // k, k, w // k, k, 3).mean(axis=(1, 3))
