"""Which components, loops and cavities two masks share, at the same place, and which only one of them has. Exact.

A feature is shared when it can be drawn inside both masks: the shared features of dimension `k` are counted by the rank
of the map `H_k(P & G) -> H_k(P | G)` that the inclusion induces (over Z/2, closed voxels, so 26/6). It factors
through `H_k(P)` and `H_k(G)`, so the rank is at most either Betti number; what is left of `P` is lost, what is left of
`G` is invented. Kernel and cokernel of the same map add up to the DIU error (Lux et al. 2025, "Topograph").

Strategy. Let `I = P & G` and `U = P | G`. Voxels enter one by one: first those of `I`, then the rest of `P`, then the
rest of `U`. The persistence of this filtration (see `vesselsdf.topology.persistence`) tells everything, since `I`, `P`
and `U` are three of its stages and the rank of a map between two stages is the number of bars that span both:

- bars that exist at stage `P` are the features of `P`. Those born in `I` that never die are shared. A lost one was
  either born after `I` (`G` lacks a piece of it, where its birth voxel lies) or dies by `U` (`G` fills or merges it,
  where its death voxel lies). A class born after `I` is not in the image of `H_k(I)`, since bars are a basis of each
  stage in which those born by `I` span that image.
- bars that exist at `I` and die later are the kernel, bars born later that exist at `U` the cokernel.

Within a stage voxels enter from the contact with the stage before outwards, so that those places lie in the middle of
the missing or added piece; or, where a distance field is given, by its value: then the places are the very voxels at
which the features of that field are born and die, unless the missing piece lies elsewhere.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.ndimage import find_objects
from scipy.spatial import cKDTree

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import as_mask, betti_numbers, components
from vesselsdf.topology.persistence import Bars, bars
from vesselsdf.topology.places import checked_affine, world

ABSENT = ("absent", "cut", "opened")
CLOSED = ("merged", "filled", "filled")


@dataclass(frozen=True)
class Difference:
    """A feature of one mask that the other does not share.

    `kind` says what the other mask does to it. Components: "absent" (no voxel in common) or "merged" (joined to another
    one). Loops: "cut" or "filled". Cavities: "opened" or "filled". `place` (mm, or voxel indices without an affine)
    lies in the component, in the missing piece of the loop or wall, or in the piece that merges or fills.
    """

    dimension: int
    kind: str
    place: tuple[float, float, float]


def shared_features(
    p: Shaped[np.ndarray, "..."],
    g: Shaped[np.ndarray, "..."],
    affine: np.ndarray | None = None,
    order: Shaped[np.ndarray, "..."] | None = None,
) -> dict[int, dict[str, Any]]:
    """Per dimension 0, 1, 2: how many features masks `p` and `g` (X, Y, Z) share, and where those are that they do not.

    affine: 4x4, voxel index -> mm; without it, places are voxel indices.
    order: a field (X, Y, Z), as the signed distance of `p`, by which voxels enter within a stage (see the module).

    Each dimension maps to a dict with `betti_p`, `betti_g`, `betti_intersection`, `betti_union`, `shared` (the rank),
    `kernel` and `cokernel` (dimensions of those of the map from intersection to union; their sum is the DIU error), and
    the lists

    - `lost` (features of `p` that `g` does not share) and `invented` (of `g` that `p` does not), each with `dimension`,
      `kind` and `place`: see `Difference`;
    - `kernel_generators` and `cokernel_generators`, each with `place` and `only_in`, "p" or "g": the voxel that ends a
      feature of the intersection, or completes one that the union has beyond them, and whose it is.

    Two empty masks share nothing and miss nothing. Raises InputError for what is no 3D mask or not on one grid.

    >>> ring = np.ones((5, 5, 1), bool); ring[1:4, 1:4] = False
    >>> cut = ring.copy(); cut[4, 2] = False
    >>> loops = shared_features(ring, cut)[1]
    >>> loops["shared"], loops["lost"]
    (0, [{'dimension': 1, 'kind': 'cut', 'place': (4.0, 2.0, 0.0)}])
    >>> loops["cokernel_generators"]
    [{'place': (4.0, 2.0, 0.0), 'only_in': 'p'}]
    """
    p, g = as_mask(p, "p"), as_mask(g, "g")
    for name, other in (("g", g), ("order", order)):
        if other is not None and p.shape != other.shape:
            raise InputError(f"p has shape {p.shape} and {name} {other.shape}; compare what lies on one grid.")
    affine = checked_affine(affine).copy()
    box = box_around(p, g)
    affine[:3, 3] += affine[:3, :3] @ [part.start for part in box]
    p, g, order = p[box], g[box], None if order is None else order[box]
    betti = [betti_numbers(mask) for mask in (p, g, p & g, p | g)]
    stages = Stages(p, g, order)
    shared, lost = stages.shared, stages.differences(affine)
    invented = Stages(g, p, order).differences(affine) if tuple(shared) != betti[1] else []
    generators = stages.generators(affine)
    return {
        k: {
            "betti_p": betti[0][k],
            "betti_g": betti[1][k],
            "betti_intersection": betti[2][k],
            "betti_union": betti[3][k],
            "shared": shared[k],
            "kernel": betti[2][k] - shared[k],
            "cokernel": betti[3][k] - shared[k],
            "lost": [asdict(d) for d in lost if d.dimension == k],
            "invented": [asdict(d) for d in invented if d.dimension == k],
            "kernel_generators": generators["kernel"][k],
            "cokernel_generators": generators["cokernel"][k],
        }
        for k in range(3)
    }


class Stages:
    """The bars of the filtration by `one & other < one < one | other`; births and deaths are positions in time."""

    def __init__(
        self,
        one: Bool[np.ndarray, "x y z"],
        other: Bool[np.ndarray, "x y z"],
        order: Shaped[np.ndarray, "x y z"] | None,
    ):
        self.one = one
        self.from_field = order is not None
        common, union = one & other, one | other
        self.ends = [int(np.count_nonzero(mask)) for mask in (common, one, union)]
        voxels = np.flatnonzero(union)
        stage = np.where(common.reshape(-1)[voxels], 0, np.where(one.reshape(-1)[voxels], 1, 2))
        if order is not None:
            within = order.reshape(-1)[voxels]
        else:
            within = distances(np.stack(np.unravel_index(voxels, one.shape), axis=-1), stage, [common, one])
        when = np.full(one.shape, voxels.size, np.int32)
        when.reshape(-1)[voxels[np.lexsort((within, stage))]] = np.arange(voxels.size)
        self.bars: Bars = bars(when, max(voxels.size, 1))
        # A field without any voxel has one bar at its limit; and what lies in the band does not die beyond it.
        self.death = np.where(self.bars.dies[:, 0] < 0, np.inf, self.bars.death)
        self.real = self.bars.birth < voxels.size

    def count(self, chosen: Bool[np.ndarray, " n"]) -> list[int]:
        """How many of some bars there are in each dimension."""
        return np.bincount(self.bars.dimension[chosen], minlength=3).tolist()

    @property
    def shared(self) -> list[int]:
        """Rank of the map from the intersection to the union in each dimension."""
        return self.count(self.real & (self.bars.birth < self.ends[0]) & np.isinf(self.death))

    def differences(self, affine: Float[np.ndarray, "4 4"]) -> list[Difference]:
        """The features of mask `one` that the intersection does not have or the union ends."""
        common, own, _ = self.ends
        late = self.bars.birth >= common
        chosen = self.real & (self.bars.birth < own) & (self.death >= own) & (late | np.isfinite(self.death))
        labels, boxes = None, []
        found = []
        for i in np.flatnonzero(chosen):
            k = int(self.bars.dimension[i])
            kind, place = (ABSENT[k], self.bars.born[i]) if late[i] else (CLOSED[k], self.bars.dies[i])
            if kind == "absent" and not self.from_field:
                if labels is None:
                    labels = components(self.one)[0]
                    boxes = find_objects(labels)
                place = middle(labels, boxes, place)
            found.append(Difference(k, kind, world(affine, place)))
        return found

    def generators(self, affine: Float[np.ndarray, "4 4"]) -> dict[str, list[list[dict[str, Any]]]]:
        """Where each generator of the kernel ends and of the cokernel begins, and in whose part, by dimension."""
        common, own, _ = self.ends
        late = self.bars.birth >= common
        cases = {
            "kernel": (~late & (self.death >= common) & np.isfinite(self.death), self.death, self.bars.dies),
            "cokernel": (late & np.isinf(self.death), self.bars.birth, self.bars.born),
        }
        return {
            name: [
                [
                    {"place": world(affine, voxels[i]), "only_in": "p" if time[i] < own else "g"}
                    for i in np.flatnonzero(chosen & self.real & (self.bars.dimension == k))
                ]
                for k in range(3)
            ]
            for name, (chosen, time, voxels) in cases.items()
        }


def box_around(p: Bool[np.ndarray, "x y z"], g: Bool[np.ndarray, "x y z"]) -> tuple[slice, slice, slice]:
    """The box around both masks; one voxel where both are empty."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(p.any(axis=others) | g.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1))
    return box[0], box[1], box[2]


def distances(
    voxels: Int64[np.ndarray, "n 3"], stage: Int64[np.ndarray, " n"], masks: list[Bool[np.ndarray, "x y z"]]
) -> Float[np.ndarray, " n"]:
    """Distance of the voxels of each stage but the first to where they touch the mask that was there before; or 0."""
    result = np.zeros(len(voxels))
    for k, mask in enumerate(masks, start=1):
        entering = np.flatnonzero(stage == k)
        contact = touching(mask, voxels[entering])
        if contact.size:
            tree = cKDTree(contact, balanced_tree=False, compact_nodes=False)
            result[entering] = tree.query(voxels[entering])[0]
    return result


def touching(mask: Bool[np.ndarray, "x y z"], voxels: Int64[np.ndarray, "n 3"]) -> Int64[np.ndarray, "m 3"]:
    """The voxels of a mask that touch some voxels outside."""
    padded = np.pad(mask, 1)
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    around = (np.indices((3, 3, 3)).reshape(3, -1).T @ strides)[:, None] + voxels @ strides
    found = np.unique(around[padded.reshape(-1)[around]])
    return np.stack(np.unravel_index(found, padded.shape), axis=-1) - 1


def middle(labels: np.ndarray, boxes: list, voxel: Int64[np.ndarray, " 3"]) -> Int64[np.ndarray, " 3"]:
    """The voxel nearest to the centroid of the labelled component to which a voxel belongs; boxes: of each label."""
    label = labels[tuple(voxel)]
    box = boxes[label - 1]
    members = np.argwhere(labels[box] == label) + [part.start for part in box]
    return members[np.argmin(((members - members.mean(axis=0)) ** 2).sum(axis=1))]
