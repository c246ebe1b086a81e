"""Which components, loops and cavities two masks share, at the same place, and which only one of them has. Exact.

A feature is shared when it can be drawn inside both masks: the shared features of dimension `k` are counted by the rank
of the map `H_k(P & G) -> H_k(P | G)` that the inclusion induces (over Z/2, closed voxels, so 26/6). It factors
through `H_k(P)` and `H_k(G)`, so the rank is at most either Betti number; what is left of `P` is lost, what is left of
`G` is invented. Kernel and cokernel of the same map add up to the DIU error (Lux et al. 2025, "Topograph").

Strategy. With `I = P & G` and `U = P | G`, the chain `I < P < U` is replaced by a small one with the same homology and
maps, and persistence of that chain in three steps tells everything.

1. *Collapse.* `I0` = `I` without simple voxels, `P0` = `P` without simple voxels outside `I0`, `U0` = `U` without
   simple voxels outside `P0`. Removing a simple voxel is a strong deformation retraction of the union of closed
   voxels, so `I0 < I`, `P0 < P` and `U0 < U` are homotopy equivalences. They commute with the inclusions of the chains
   `I0 < P0 < U0` and `I < P < U`, hence both chains induce isomorphic maps on homology.
2. *Nerve.* Closed voxels are boxes: if they meet pairwise, they all meet (Helly). The nerve of the voxels is therefore
   the flag complex of their 26-adjacency graph, and by the nerve theorem, which is natural for inclusions, it has
   the homology of their union.
3. *Persistence* of the flag complex with value 0 on `I0`, in (0, 1] on the rest of `P0`, in (1, 2] on the rest of `U0`.
   Bars alive at 1 are the features of `P`; those born at 0 that never die are shared. A lost one was either born
   after 0 (`G` lacks a piece of it; its birth simplex lies there) or dies by 2 (`G` fills or merges it; its death
   simplex lies there). Within a step voxels enter from the contact outwards, so these simplices lie in the middle of
   the missing or added piece. (A class born inside `P0 & I` is in `P` the image of a class of `I`: not lost.)
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.spatial import cKDTree

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import as_mask, betti_numbers, components
from vesselsdf.topology.neighbourhood import adjacent_pairs
from vesselsdf.topology.places import checked_affine, world
from vesselsdf.topology.thinning import collapse

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
    p: Shaped[np.ndarray, "..."], g: Shaped[np.ndarray, "..."], affine: Float[np.ndarray, "4 4"] | None = None
) -> dict[int, dict[str, Any]]:
    """Per dimension 0, 1, 2: how many features masks `p` and `g` (X, Y, Z) share, and where those are that they do not.

    affine: 4x4, voxel index -> mm; without it, places are voxel indices.

    Each dimension maps to a dict with `betti_p`, `betti_g`, `betti_intersection`, `betti_union`, `shared` (the rank),
    `kernel` and `cokernel` of the map from intersection to union (their sum is the DIU error), and the lists `lost`
    (features of `p` that `g` does not share) and `invented` (of `g` that `p` does not), each with `dimension`,
    `kind` and `place`: see `Difference`. Two empty masks share nothing and miss nothing. Raises InputError for what is
    no 3D mask or not on one grid.

    >>> ring = np.ones((5, 5, 1), bool); ring[1:4, 1:4] = False
    >>> cut = ring.copy(); cut[4, 2] = False
    >>> loops = shared_features(ring, cut)[1]
    >>> loops["shared"], loops["lost"]
    (0, [{'dimension': 1, 'kind': 'cut', 'place': (4.0, 2.0, 0.0)}])
    """
    p, g = as_mask(p, "p"), as_mask(g, "g")
    if p.shape != g.shape:
        raise InputError(f"p has shape {p.shape} and g {g.shape}; compare masks on one grid.")
    affine = checked_affine(affine)
    corner, (p, g) = crop_together(p, g)
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ corner
    common, union = p & g, p | g
    betti = [betti_numbers(mask) for mask in (p, g, common, union)]
    shared = list(betti[0])
    lost: list[Difference] = []
    invented: list[Difference] = []
    if not np.array_equal(p, g):
        core = collapse(common, np.zeros_like(common))
        shared, lost = differences(core, common, p, union, betti[0], affine)
        if tuple(shared) != betti[1]:
            _, invented = differences(core, common, g, union, betti[1], affine)
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
        }
        for k in range(3)
    }


def crop_together(p: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The corner of the box around both masks, and the masks in it (one voxel where both are empty)."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(p.any(axis=others) | g.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1))
    return np.array([part.start for part in box]), (p[tuple(box)], g[tuple(box)])


def differences(
    core: Bool[np.ndarray, "x y z"],
    common: Bool[np.ndarray, "x y z"],
    one: Bool[np.ndarray, "x y z"],
    union: Bool[np.ndarray, "x y z"],
    betti: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
) -> tuple[list[int], list[Difference]]:
    """Ranks of the map from intersection to union, and the features of mask `one` that it does not reach."""
    shared, found = [0, 0, 0], []
    one_small = collapse(one, core)
    union_small = collapse(union, one_small)
    voxels = np.argwhere(union_small)
    values = entry_values(voxels, core, common, one, one_small)
    for dimension, birth, death in bars(voxels, values, dimensions=3 if betti[2] else 2):
        born = values[birth].max()
        dies = values[death].max() if death.size else np.inf
        if born > 1 or dies <= 1:
            continue
        if born == 0 and dies == np.inf:
            shared[dimension] += 1
            continue
        kind, simplex = (ABSENT, birth) if born > 0 else (CLOSED, death)
        place = voxels[simplex[np.argmax(values[simplex])]]
        found.append((dimension, kind[dimension], place))
    if any(kind == "absent" for _, kind, _ in found):
        labels, _ = components(one)
        found = [(k, kind, middle(labels, at) if kind == "absent" else at) for k, kind, at in found]
    return shared, [Difference(k, kind, world(affine, at)) for k, kind, at in found]


def entry_values(
    voxels: Int64[np.ndarray, "n 3"], core: np.ndarray, common: np.ndarray, one: np.ndarray, one_small: np.ndarray
) -> Float[np.ndarray, " n"]:
    """When each voxel enters: at 0 the core, in (0, 1] the rest of `one`, in (1, 2] all others; farther ones later."""
    at = tuple(voxels.T)
    values = np.zeros(len(voxels))
    first = one_small[at] & ~core[at]
    values[first] = 0.5 + 0.5 * relative_distance(voxels[first], common)
    second = ~one_small[at]
    values[second] = 1.5 + 0.5 * relative_distance(voxels[second], one)
    return values


def relative_distance(voxels: Int64[np.ndarray, "n 3"], mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, " n"]:
    """Distance to the mask as a fraction of the largest one; 0 inside."""
    outside = np.flatnonzero(~mask[tuple(voxels.T)])
    result = np.zeros(len(voxels))
    if outside.size and mask.any():
        tree = cKDTree(np.argwhere(mask), balanced_tree=False, compact_nodes=False)
        distance = tree.query(voxels[outside])[0]
        result[outside] = distance / distance.max()
    return result


def bars(
    voxels: Int64[np.ndarray, "n 3"], values: Float[np.ndarray, " n"], dimensions: int
) -> list[tuple[int, Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]]:
    """Bars of positive length of the flag complex below `dimensions`: (dimension, birth simplex, death simplex)."""
    if len(voxels) == 0:
        return []
    import gudhi

    edges = adjacent_pairs(voxels)
    tree = gudhi.SimplexTree()
    tree.insert_batch(np.arange(len(voxels))[None], values)
    tree.insert_batch(edges, values[edges].max(axis=0))
    tree.expansion(dimensions)
    # Without `persistence_dim_max`, gudhi leaves out the top dimension, whose classes the expansion has cut short.
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=tree.dimension() < dimensions)
    return [
        (len(birth) - 1, np.array(birth, np.int64), np.array(death, np.int64))
        for birth, death in tree.persistence_pairs()
    ]


def middle(labels: np.ndarray, voxel: Int64[np.ndarray, " 3"]) -> Int64[np.ndarray, " 3"]:
    """The voxel nearest to the centroid of the labelled component to which a voxel belongs."""
    members = np.argwhere(labels == labels[tuple(voxel)])
    return members[np.argmin(((members - members.mean(axis=0)) ** 2).sum(axis=1))]
