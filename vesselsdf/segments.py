"""Labels with several ids, as a circle of Willis or arteries and veins: what each segment is, and what it touches.

A segment is all voxels of one id. Segments that are 26-adjacent touch; the graph of what touches what is the anatomy
that the names stand for, whatever grid and frame the labels are in.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers, components
from vesselsdf.volume import Volume, check_finite, slabs

# More ids than this are no anatomical names but instance numbers, or intensities.
MAX_IDS = 256
HALF_OF_26 = [(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)][14:]

Place = tuple[float, float, float]


@dataclass(frozen=True)
class Segment:
    """All voxels of one id.

    volume: mm^3. pieces: volumes (mm^3) of its 26-connected components, largest first. betti: of the segment alone.
    centroid: mm. place: the centre (mm) of its voxel nearest to the centroid. at_border: whether it reaches the border
    of the grid, so that the vessel may go on outside.
    """

    id: int
    volume: float
    pieces: tuple[float, ...]
    betti: tuple[int, int, int]
    centroid: Place
    place: Place
    at_border: bool


@dataclass(frozen=True)
class Contact:
    """Two segments that touch. `places` (mm): one per 26-connected patch of contact, the largest first."""

    ids: tuple[int, int]
    places: tuple[Place, ...]


@dataclass(frozen=True, eq=False)
class Labelled:
    """A volume seen as segments; see `labelled`."""

    volume: Volume
    ids: tuple[int, ...]
    voxels: Int[np.ndarray, "n 3"]  # indices of all voxels above 0
    numbers: Int[np.ndarray, " n"]  # their ids
    segments: dict[int, Segment] = field(repr=False)
    contacts: dict[tuple[int, int], Contact] = field(repr=False)

    @cached_property
    def points(self) -> Float[np.ndarray, "n 3"]:
        """Centres of the voxels, mm."""
        return self.volume.to_world(self.voxels)

    @cached_property
    def graph(self) -> nx.Graph:
        """Which segments touch which; nodes are ids."""
        graph = nx.Graph()
        graph.add_nodes_from(self.ids)
        graph.add_edges_from(self.contacts)
        return graph

    @cached_property
    def betti(self) -> tuple[int, int, int]:
        """Betti numbers of all segments together (26/6)."""
        return self.betti_without(np.zeros(len(self.voxels), bool))

    @property
    def rings(self) -> int:
        """Independent rings of segments, each touching the next."""
        graph = self.graph
        return graph.number_of_edges() - graph.number_of_nodes() + nx.number_connected_components(graph)

    def betti_without(self, left_out: np.ndarray) -> tuple[int, int, int]:
        """Betti numbers of the vessel without some of the voxels (n,) bool."""
        return betti_numbers(self.mask(~left_out))

    def mask(self, chosen: np.ndarray) -> np.ndarray:
        """Some of the voxels (n,) bool, as a mask in the box around all of them."""
        low = self.voxels.min(axis=0)
        mask = np.zeros(self.voxels.max(axis=0) - low + 1, bool)
        mask[tuple((self.voxels[chosen] - low).T)] = True
        return mask

    def pieces(self, chosen: np.ndarray) -> Int[np.ndarray, " n"]:
        """The 26-connected component (1, 2, ...) of each chosen voxel; 0 for the others."""
        labels, _ = components(self.mask(chosen))
        return labels[tuple((self.voxels - self.voxels.min(axis=0)).T)]

    def middle(self, chosen: np.ndarray) -> Place:
        """The centre (mm) of the chosen voxel that lies nearest to the centroid of all chosen ones."""
        points = self.points[chosen]
        return place(points[((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def place(point: np.ndarray) -> Place:
    """A point as plain numbers."""
    x, y, z = np.asarray(point, float).tolist()
    return x, y, z


def label_ids(volume: Volume) -> tuple[int, ...] | None:
    """The ids above 0 that a volume of whole numbers from 0 up holds; None for what is no label, or has too many ids.

    >>> label_ids(Volume(np.array([[[0, 2, 2, 7]]]), np.eye(4)))
    (2, 7)
    """
    found: set[int] = set()
    for slab in slabs(volume.array):
        if volume.array.dtype.kind == "f" and not (np.isfinite(slab).all() and (slab == np.rint(slab)).all()):
            return None
        values = slab[slab != 0]
        if values.size and (values.min() < 0 or values.max() > np.iinfo(np.int32).max):
            return None
        found.update(int(value) for value in np.unique(values))
        if len(found) > MAX_IDS:
            return None
    return tuple(sorted(found))


def labelled(volume: Volume, name: str = "the label") -> Labelled:
    """The segments of a label volume and their contacts; `name` is for error messages.

    Raises InputError for fractions, values below 0, no voxel above 0, or more than 256 ids.
    """
    check_finite(volume.array, name)
    ids = label_ids(volume)
    if ids is None:
        raise InputError(f"{name} holds no labels (whole numbers from 0 up, at most {MAX_IDS} ids): give a label file.")
    if not ids:
        raise InputError(f"{name} is empty (no voxel is above 0): check the file and the label ids.")
    voxels = np.argwhere(volume.array)
    numbers = volume.array[tuple(voxels.T)].astype(np.int64)
    low = voxels.min(axis=0)
    # Positions in `ids`, in the box around the vessel with one voxel of background all around.
    compact = np.zeros(voxels.max(axis=0) - low + 3, np.int32)
    compact[tuple((voxels - low + 1).T)] = np.searchsorted(ids, numbers) + 1
    boxes = ndimage.find_objects(compact)
    segments = {
        number: _segment(volume, number, compact[box] == k + 1, low - 1 + [part.start for part in box])
        for k, (number, box) in enumerate(zip(ids, boxes, strict=True))
    }
    contacts = _contacts(volume, ids, compact, low - 1)
    return Labelled(volume, ids, voxels, numbers, segments, contacts)


def _segment(volume: Volume, number: int, mask: np.ndarray, corner: np.ndarray) -> Segment:
    labels, _ = components(mask)
    voxel = float(abs(np.linalg.det(volume.affine[:3, :3])))
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1] * voxel
    members = np.argwhere(mask)
    middle = members.mean(axis=0)
    nearest = members[(((members - middle) * volume.spacing) ** 2).sum(axis=1).argmin()]
    first, last = members.min(axis=0) + corner, members.max(axis=0) + corner
    return Segment(
        number,
        float(len(members) * voxel),
        tuple(sizes.tolist()),
        betti_numbers(mask),
        place(volume.to_world((middle + corner)[None])[0]),
        place(volume.to_world((nearest + corner)[None])[0]),
        bool((first <= 0).any() or (last >= np.array(volume.shape) - 1).any()),
    )


def _contacts(
    volume: Volume, ids: tuple[int, ...], compact: np.ndarray, corner: np.ndarray
) -> dict[tuple[int, int], Contact]:
    """All pairs of segments with 26-adjacent voxels; `compact` (padded) holds positions in `ids` + 1."""
    flat = compact.ravel()
    here = np.flatnonzero(flat)
    found: list[np.ndarray] = []
    for offset in HALF_OF_26:
        step = int(np.ravel_multi_index(np.array(offset) + 1, compact.shape)) - int(
            np.ravel_multi_index((1, 1, 1), compact.shape)
        )
        there = here + step
        touching = (flat[there] > 0) & (flat[there] != flat[here])
        found.append(np.stack([here[touching], there[touching]], axis=1))
    pairs = np.concatenate(found)
    if len(pairs) == 0:
        return {}
    numbers = np.sort(flat[pairs], axis=1).astype(np.int64)
    code = numbers[:, 0] * (len(ids) + 1) + numbers[:, 1]
    contacts = {}
    for value in np.unique(code):
        a, b = divmod(int(value), len(ids) + 1)
        key = ids[a - 1], ids[b - 1]
        contacts[key] = Contact(key, _patches(volume, pairs[code == value], compact.shape, corner))
    return contacts


def _patches(volume: Volume, pairs: np.ndarray, shape: tuple[int, ...], corner: np.ndarray) -> tuple[Place, ...]:
    """The middle of each 26-connected patch of contact, by the number of adjacent pairs of voxels."""
    ends = np.stack(np.unravel_index(pairs, shape), axis=-1)
    low = ends.reshape(-1, 3).min(axis=0)
    patch = np.zeros(ends.reshape(-1, 3).max(axis=0) - low + 1, bool)
    patch[tuple((ends.reshape(-1, 3) - low).T)] = True
    labels, _ = components(patch)
    of_pair = labels[tuple((ends[:, 0] - low).T)]
    sizes = np.bincount(of_pair)
    middles = [ends[of_pair == k].reshape(-1, 3).mean(axis=0) for k in np.argsort(-sizes[1:], kind="stable") + 1]
    return tuple(place(volume.to_world((middle + corner)[None])[0]) for middle in middles)


def ring_through(graph: nx.Graph, number: int) -> list[int]:
    """The shortest ring of touching segments through one of them, beginning with it; empty if there is none."""
    rest = graph.subgraph(set(graph) - {number})
    best: list[int] = []
    neighbours = sorted(graph[number])
    for position, first in enumerate(neighbours):
        ways = nx.single_source_shortest_path(rest, first)
        for last in neighbours[position + 1 :]:
            if last in ways and (not best or len(ways[last]) + 1 < len(best)):
                best = [number, *ways[last]]
    return best


def ring_over(graph: nx.Graph, a: int, b: int) -> list[int]:
    """The shortest ring over the contact of `a` and `b`, from `a` round to `b`; empty if there is none."""
    rest = nx.restricted_view(graph, [], [(a, b)])
    return nx.shortest_path(rest, a, b) if nx.has_path(rest, a, b) else []


def summary(one: Labelled) -> dict[str, Any]:
    """Topology of one volume as a whole."""
    return {
        "betti": one.betti,
        "segments": len(one.ids),
        "pieces": sum(len(segment.pieces) for segment in one.segments.values()),
        "contacts": len(one.contacts),
        "rings": one.rings,
    }
