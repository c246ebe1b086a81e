"""3D warping error: where two masks differ in topology, and not merely in the course of their walls.

Jain et al. 2010 ("Boundary learning by optimization with topological constraints", CVPR) warp the reference towards the
prediction: voxels where they differ are flipped one by one, as long as they are simple points, so that the topology
of the reference stays as it is. What still differs at the end is the warping error. Here in 3D, 26-connected vessel.

Strategy. In a round, the voxels that are simple now are flipped: one layer of each difference, from where the masks
agree outwards. Rounds go on until there are none: first with additions only, so that a piece that touches its place in
the other mask is carried over to it, then with removals too. (Voxels whose coordinates have equal parities are never
26-neighbours, so those of such a sub-lattice are flipped at once, as if one by one.) The prediction is then warped
towards the warped reference. That shrinks missing segments, separating membranes and invented pieces to a few voxels
each, the *critical sites*: 26-connected clusters of voxels that all are missing in the prediction, or all are extra.

What is proved. Flipping a simple voxel is a homotopy equivalence of the unions of closed voxels: removal is a
deformation retraction, addition the inverse of one. So the warped masks satisfy `R' ~ R` and `P' ~ P`. Without sites
`R' = P'`, hence R and P are homotopy equivalent, by a chain of such steps at voxels where they differ, and all their
Betti numbers are equal. With sites, the changes of the Betti numbers at the sites add up to `betti(P) - betti(R)`: they
are taken along one chain of masks from R' to P'. Missing sites are removed one after the other, in the order of the
list, which ends at `R' & P'`; then extra sites are added. (A site's share in this depends on those before it: of two
cuts in one ring, the first opens the loop and the second splits the rest. Its share in the Euler number does not.)

What is not. Which voxels are left over depends on the order of flips, and the best order is hard to find: the numbers
of critical voxels and of sites are upper bounds of their least values. They are reproducible, for the order is fixed. A
piece that has moved so far that it neither overlaps nor touches itself is two errors, one missing and one extra. And
homology is blind to a lost terminal branch: it leaves no site.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped
from scipy.spatial import cKDTree

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import as_mask, join
from vesselsdf.topology.flips import Box, Clusters, agreed, flip, sublattices, topological_changes
from vesselsdf.topology.neighbourhood import CENTRE, Voxels, adjacent_pairs, simple
from vesselsdf.topology.places import Place, checked_affine, world


@dataclass(frozen=True)
class Site:
    """One topological error of a prediction.

    kind: "cut": missing voxels whose lack splits a component or opens a loop. "bridge": extra voxels that join
        components or close a loop. "hole": missing voxels that pierce a wall or leave a cavity, or extra ones that fill
        or seal a hole or a cavity. "blob": a component missing or invented, that is, voxels that touch nothing which
        both masks share. "mixed": changes that cancel (a loop is filled and one closed), or an unlucky order of flips.
    sign: "missing" (voxels of the reference that the prediction lacks) or "extra" (voxels it has and should not).
    place: the site's voxel nearest to its middle, mm.
    size: voxels. Of a cut, the length of the gap; of a bridge, its smallest cross-section; of a blob or a cavity, its
        volume. In general the voxels nearest to this site among those at which the reference got stuck.
    change: what the prediction does to (beta0, beta1, beta2) here.
    """

    kind: str
    sign: str
    place: Place
    size: int
    change: tuple[int, int, int]

    @property
    def dimension(self) -> int | None:
        """The lowest dimension whose Betti number changes: 0 components, 1 loops, 2 cavities; None if none does."""
        return next((k for k in range(3) if self.change[k]), None)


@dataclass(frozen=True)
class Warping:
    """Result of `warping_error`.

    voxels: Jain's warping error, the voxels that still differ once the reference is warped towards the prediction.
    share: the same as a share of the voxels that are in either mask, 0..1; 0 where both are empty.
    sites: the topological errors, missing ones first, each in C order of their first voxels.
    """

    voxels: int
    share: float
    sites: list[Site]


def warping_error(
    prediction: Shaped[np.ndarray, "..."],
    reference: Shaped[np.ndarray, "..."],
    affine: Float[np.ndarray, "4 4"] | None = None,
) -> Warping:
    """Topological errors of a prediction: both masks (X, Y, Z), boolean or integers. Method: see the module.

    affine: 4x4, voxel index -> mm; without it, places are voxel indices.

    Exchanging the masks exchanges missing and extra, cut and bridge; the numbers may differ, for another mask is
    warped first. Judge by `sites`: they are about as many either way. `voxels` is not symmetric: a lost component
    shrinks to one voxel, an invented one counts with all of them. Equal masks, two empty ones included: no error. An
    empty prediction: a missing blob per component, and `share` is small. An empty reference: `share` is 1.

    Raises InputError for what is no 3D mask, for masks on different grids, for an affine that cannot be inverted.

    >>> line = np.zeros((9, 3, 3), bool); line[:, 1, 1] = True
    >>> gap = line.copy(); gap[3:6] = False
    >>> found = warping_error(gap, line)
    >>> found.voxels, found.sites
    (3, [Site(kind='cut', sign='missing', place=(4.0, 1.0, 1.0), size=3, change=(1, 0, 0))])
    """
    p, r = as_mask(prediction, "prediction"), as_mask(reference, "reference")
    if p.shape != r.shape:
        raise InputError(f"prediction has shape {p.shape} and reference {r.shape}; compare masks on one grid.")
    affine = checked_affine(affine)
    p, r = in_c_order(p), in_c_order(r)
    different = p ^ r
    if not different.any():
        return Warping(0, 0.0, [])
    box = Box.around(different)
    start = box.inside(different)
    state = Voxels(box.shape, box.inside(r))
    # Additions go first: what has moved to a place that touches its old one is then carried over.
    held = r[tuple(box.coordinates(start).T)]
    stuck = warp(state, np.sort(np.append(start[held], warp(state, start[~held]))))
    share = stuck.size / int(np.count_nonzero(p | r))
    if stuck.size:
        flip(state, stuck)  # now it is the prediction, whose goal is what has become of the reference
    critical = warp(state, stuck)
    sites: list[Site] = []
    if critical.size:
        clusters = Clusters.of(box, critical, r)
        change, touching = topological_changes(state, clusters, agreed(state, box, p & r, start), box)
        sites = described(clusters, change, touching, Clusters.of(box, stuck, r), Clusters.of(box, start, r), affine)
    return Warping(int(stuck.size), share, sites)


def in_c_order(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The mask itself or a copy. Plane by plane, which for masks in Fortran order is three times as fast as at once."""
    if mask.flags.c_contiguous:
        return mask
    copy = np.empty(mask.shape, bool)
    for y in range(mask.shape[1]):
        copy[:, y] = mask[:, y]
    return copy


@no_type_check
def warp(state: Voxels, voxels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """Flip simple ones among these voxels, in rounds, until there are none; those never flipped are returned, in order.

    A round begins with the voxels that are simple then and flips those of them that still are when their turn comes.
    """
    lattice = sublattices(state, voxels)
    seen = np.zeros(voxels.size, np.uint32)  # the neighbourhood with which each voxel was last found not simple
    while voxels.size:
        codes = state.neighbourhoods(voxels)
        changed = np.flatnonzero(codes != seen)
        seen[changed] = codes[changed]
        layer = changed[simple(codes[changed])]
        if layer.size == 0:
            break
        seen[layer] = CENTRE  # no such neighbourhood: a lone voxel is never simple, so it is not looked for
        left = np.ones(voxels.size, bool)
        for parity in range(8):
            turn = layer[lattice[layer] == parity]
            turn = turn[simple(state.neighbourhoods(voxels[turn]))]
            flip(state, voxels[turn])
            left[turn] = False
        voxels, lattice, seen = voxels[left], lattice[left], seen[left]
    return voxels


def described(
    sites: Clusters,
    change: Int64[np.ndarray, "k 3"],
    touching: Bool[np.ndarray, " k"],
    stuck: Clusters,
    start: Clusters,
    affine: Float[np.ndarray, "4 4"],
) -> list[Site]:
    """The sites with their kinds, places and sizes; `stuck` and `start` are what differed before and at the start."""
    missing = np.arange(len(change)) < sites.missing
    kinds = [kind(*each) for each in zip(missing.tolist(), touching.tolist(), change.tolist(), strict=True)]
    size = nearest_count(sites, stuck)
    # What shrank to nothing when the reference was warped is measured as it was at the start.
    blobs = np.flatnonzero(missing & (np.array(kinds) == "blob"))
    size[blobs] = volumes(sites, start, blobs, faces=False)
    cavities = np.flatnonzero(~missing & (change[:, 2] < 0))
    size[cavities] = volumes(sites, start, cavities, faces=True)
    return [
        Site(name, "missing" if lacks else "extra", world(affine, place), int(voxels), tuple(delta))
        for name, lacks, place, voxels, delta in zip(kinds, missing, middles(sites), size, change.tolist(), strict=True)
    ]


def kind(missing: bool, touching: bool, change: list[int]) -> str:
    """What a site is: see `Site`."""
    if not touching:
        return "blob"
    components, loops, cavities = (-c for c in change) if missing else change
    if components < 0 or loops > 0:
        return "cut" if missing else "bridge"
    return "hole" if loops or cavities else "mixed"


def middles(sites: Clusters) -> Int64[np.ndarray, "k 3"]:
    """For each cluster the voxel of it that is nearest to its centroid."""
    counts = np.bincount(sites.cluster)
    centroid = np.stack([np.bincount(sites.cluster, axis) for axis in sites.places.T], axis=1) / counts[:, None]
    away = ((sites.places - centroid[sites.cluster]) ** 2).sum(axis=1)
    order = np.lexsort([away, sites.cluster])
    return sites.places[order[np.cumsum(counts) - counts]]


def nearest_count(sites: Clusters, stuck: Clusters) -> Int64[np.ndarray, " k"]:
    """How many voxels of the stuck clusters, which hold the sites, lie nearest to each site of their own cluster."""
    apart = 4.0 * (np.ptp(stuck.places, axis=0).sum() + 1)  # farther than any two voxels of one cluster
    holder = stuck.cluster[np.searchsorted(stuck.voxels, sites.voxels)]
    tree = cKDTree(np.column_stack([sites.places, apart * holder]))
    _, nearest = tree.query(np.column_stack([stuck.places, apart * stuck.cluster]), workers=1)
    own = holder[nearest] == stuck.cluster
    return np.bincount(sites.cluster[nearest[own]], minlength=sites.missing + sites.extra)


def volumes(sites: Clusters, start: Clusters, chosen: Int64[np.ndarray, " c"], faces: bool) -> Int64[np.ndarray, " c"]:
    """Voxels of the clusters at the start in which the chosen sites lie; with `faces`, of their 6-connected parts."""
    if len(chosen) == 0:
        return np.zeros(0, np.int64)
    label = start.cluster
    if faces:
        a, b = adjacent_pairs(start.places)
        joined = (label[a] == label[b]) & (np.abs(start.places[a] - start.places[b]).sum(axis=1) == 1)
        _, label = join(label.size, a[joined], b[joined])
    first = np.searchsorted(start.voxels, sites.voxels[np.unique(sites.cluster, return_index=True)[1][chosen]])
    return np.bincount(label)[label[first]]
