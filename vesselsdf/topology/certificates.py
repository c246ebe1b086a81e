"""What a bound on the difference of two fields proves about their topology, and the check that it is never wrong.

Two certificates say what of `P = {f <= 0}` is in `G = {g <= 0}`, for fields f and g on one grid:

**Uniform.** Let `eps` be the wall error: the largest `|f|` among the voxels that are in one of `P` and `G` only. A
voxel with `f < -eps` is in `P` and so in `G`; a voxel of `G` with `f > 0` is not in `P`, so `f <= eps` there. Hence

    {f <= -e}  <  P & G  <  G  <  P | G  <  {f <= eps}        for every e > eps.                       (1)

On homology, `H_k(f <= -e) -> H_k(f <= eps)` therefore factors through `H_k(G)`, and its rank is at most `beta_k(G)`.
The rank is the number of bars of `f` with birth <= -e and death > eps, and as `e` falls to `eps` all features whose
margin `min(-birth, death)` exceeds `eps` are among them: each of them is alive in `G`, and they are independent there.
Where the signs differ, `|f| <= |f - g|`, so the wall error is at most `sup |f - g|`, and any a-priori bound on that
makes the same statement before `g` is known. (Cohen-Steiner, Edelsbrunner, Harer 2007, made sharp at the level zero.)

**Local.** The rank `r` of `H_k(P & G) -> H_k(P | G)`: the map factors through `H_k(P)` and through `H_k(G)` (inclusions
compose), hence `r` features of `P` and `r` of `G` are the same classes, represented by cycles that lie in both
masks. This needs no bound on `f - g`, only that the masks agree along one cycle for each class. It is computed exactly
in `vesselsdf.topology.matching`. What of `P` is left is lost, what of `G` is left was invented. By (1) the map of the
uniform certificate factors through this one, so the local certificate never counts less.

**Composition**, for fields `phi_0, phi_1, ...` of a pyramid, `U` prolongation, `G_l = {U^l phi_l <= 0}` on the grid of
level 0:

- *Bounds add.* `sup |phi_0 - U^l phi_l| <= sum of sup |phi_k - U phi_{k+1}|` over `k < l`, since `U` does not expand:
  the uniform certificate holds with the sum of the errors of the steps. ("composed")
- *Ranks do not.* That a feature is shared by levels 0 and 1 and some feature by levels 1 and 2 does not say it is
  the same one: the image of the first map and the domain of the second need not meet. What may be claimed for all
  levels up to `l` at once is the rank of `H_k(G_0 & ... & G_l) -> H_k(G_0 | ... | G_l)`: it factors through every
  `H_k(G_j)`, so that many features are there at every one of these levels, as the same independent classes. It is at
  most every single rank, and falls with `l`. ("along")
- A step's rank, between levels `l - 1` and `l` on the grid of level `l - 1`, says what that step alone does; it bounds
  nothing else.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.persistence import certified_count, features

SLACK = 1e-5


def sup_distance(f: np.ndarray, g: np.ndarray) -> float:
    """`sup |f - g|` of two fields on one grid, never rounded down: a float32 result is raised by its rounding error.

    >>> sup_distance(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 4.5]]]))
    2.5
    """
    if f.dtype != np.float32 or g.dtype != np.float32:
        return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(f, g, strict=True))
    largest = max(float(np.abs(a - b).max()) for a, b in zip(f, g, strict=True))
    # Rounding to nearest is monotone: the exact difference is below the next float32 above the largest rounded one.
    return float(np.nextafter(np.float32(largest), np.float32(math.inf))) if largest else 0.0


def raised(bound: float | int) -> float:
    """A bound on the difference of two fields, raised by more than rounding in float32 can add to it.

    Bounds are sums and differences of numbers, and fields are computed: both hold up to rounding only. A vessel that is
    missed by one unit in the last place is missed.
    """
    return float(bound) * (1 + SLACK)


def wall_error(f: np.ndarray, g: np.ndarray) -> float:
    """The largest `|f|` among the voxels that are vessel in one of two fields on one grid and background in the other.

    It is at most `sup |f - g|`; 0 where the masks are equal.

    >>> wall_error(np.array([[[-2.0, -0.5, 9.0]]]), np.array([[[-0.1, 0.3, 1.0]]]))
    0.5
    """
    return exchanged_error(f, f <= 0, g <= 0)


def exchanged_error(f: np.ndarray, p: np.ndarray, g: np.ndarray) -> float:
    """`wall_error` from the masks of the two fields."""
    return float(np.abs(f[p != g].astype(np.float64)).max(initial=0.0))


def check_certificates(f: Shaped[np.ndarray, "..."], g: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    """Both certificates for two fields on one grid (small ones: at most about 64^3 voxels), held against gudhi.

    Gives `eps`, the wall error; `certified`: features of f with a larger margin; `rank` of `H_k(f < -eps) -> H_k(f <=
    eps)`; `local`: rank of `H_k(P & G) -> H_k(P | G)` by `matching`, and `local_rank` by gudhi; `betti` of `{g <= 0}`;
    and `contradicted`, True if not `certified <= rank <= local == local_rank <= betti` in every dimension.
    """
    eps = wall_error(f, g)
    p, g_mask = f <= 0, g <= 0
    found = shared_features(p, g_mask)
    steps = np.where(p & g_mask, 0.0, np.where(p | g_mask, 1.0, 2.0))
    report: dict[str, Any] = {
        "eps": eps,
        "certified": certified_count(features(f), eps),
        "rank": gudhi_rank(f.astype(np.float64), float(np.nextafter(-eps, -np.inf)), eps),
        "local": tuple(found[k]["shared"] for k in range(3)),
        "local_rank": gudhi_rank(steps, 0.0, 1.0),
        "betti": betti_numbers(g_mask),
    }
    report["contradicted"] = any(
        not (certified <= rank <= local == local_rank <= betti)
        for certified, rank, local, local_rank, betti in zip(
            *(report[key] for key in ("certified", "rank", "local", "local_rank", "betti")), strict=True
        )
    )
    return report


def gudhi_rank(field: Float[np.ndarray, "x y z"], low: float, high: float) -> tuple[int, int, int]:
    """Rank of `H_k(field <= low) -> H_k(field <= high)` over Z/2 by gudhi."""
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=np.pad(field, 1, constant_values=field.max() + abs(high) + 1))
    cubical.compute_persistence(homology_coeff_field=2)
    k0, k1, k2 = cubical.persistent_betti_numbers(low, high)[:3]
    return int(k0), int(k1), int(k2)
