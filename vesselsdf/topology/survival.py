"""What a vessel network keeps, loses and gains as its field is carried to coarser levels, and what of that is certain.

Level `l` of a pyramid is compared with level 0 on the grid of level 0, where it is `g = U^l phi_l` (prolonged `l`
times); `f = phi_0`, `P = {f <= 0}`, `G = {g <= 0}`. Two certificates say what of `P` is in `G`:

**Uniform.** Let `eps` be the wall error: the largest `|f|` among the voxels that are in one of `P` and `G` only. A
voxel with `f < -eps` is in `P` and so in `G`; a voxel of `G` with `f > 0` is not in `P`, so `f <= eps` there. Hence

    {f <= -e}  <  G  <  {f <= eps}        for every e > eps.

On homology, `H_k(f <= -e) -> H_k(f <= eps)` therefore factors through `H_k(G)`, and its rank is at most `beta_k(G)`.
The rank is the number of bars of `f` with birth <= -e and death > eps, and as `e` falls to `eps` all features whose
margin `min(-birth, death)` exceeds `eps` are among them: they are alive in `G`, as independent classes. Where the signs
differ, `|f| <= |f - g|`, so the wall error is at most `sup |f - g|`, and any a-priori bound `B_l` on that makes the
same statement before `g` is known. (Cohen-Steiner, Edelsbrunner, Harer 2007, made sharp at the level zero.)

**Local.** The rank `r` of `H_k(P & G) -> H_k(P | G)`: the map factors through `H_k(P)` and through `H_k(G)` (inclusions
compose), hence `r` features of `P` and `r` of `G` are the same classes, represented by cycles that lie in both
masks. This needs no bound on `f - g`, only that the masks agree along one cycle for each class. It is computed exactly
in `vesselsdf.topology.matching`. What of `P` is left is lost, what of `G` is left was invented.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vesselsdf.errors import InputError
from vesselsdf.files import jsonable
from vesselsdf.scales import level_affine, level_shape, prolong_to
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.decisions import changed
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.persistence import MAX_VOXELS, Feature, certified_count, check_field, features

Decide = Callable[[np.ndarray, np.ndarray], dict[str, Any]]

# The end of a branch moves by its radius when a level rounds it off; thin ones are resolved by about this many voxels.
REACH_IN_VOXELS = 3.0


def survival(
    pyramid: Sequence[Shaped[np.ndarray, "..."]],
    spacing: Sequence[float | int],
    affine: Float[np.ndarray, "4 4"] | None = None,
    operator: str = "mean",
    decide: Decide | None = None,
    bounds: Sequence[float | int] | None = None,
    length_tolerance: float | int = 0.05,
    radius_tolerance: float | int = 0.10,
) -> dict[str, Any]:
    """What survives at each level of a pyramid, as a report in JSON's types.

    pyramid: fields (X, Y, Z), mm, negative inside, finest first; level l + 1 has ceil(n / 2) voxels per axis.
    spacing: of level 0, mm, per axis. affine: of level 0, voxel index -> mm; without it, spacing alone.
    operator: the name of the coarse-graining, repeated in the report.
    decide: what a user decides from a field: `decide(sdf, affine) -> dict`, called for every level with a vessel in it.
    bounds: a-priori bounds (mm) on `sup |phi_0 - U^l phi_l|` for each level, 0 for level 0 (`scales.bounds`).
    length_tolerance, radius_tolerance: relative differences that do not change a decision.

    The report has `operator`, `coarsest_safe_level` (the coarsest level such that it and all finer ones leave every
    decision as it is at level 0; None without `decide`) and `levels`, each with

    - `level`, `shape`, `spacing` (mm), `betti`, `volume` (mm^3) of the level on its own grid;
    - `betti_on_finest_grid`, `survived` (per dimension), `lost` and `invented` (each `dimension`, `kind`, `place` in
      mm; see `matching.Difference`), `error` (measured `sup |phi_0 - U^l phi_l|`), `wall_error` (the largest `|phi_0|`
      where vessel and background were exchanged) and `bound`, all mm;
    - `certified`: features per dimension that are proved to survive: `local` (the rank), `uniform` (from `wall_error`)
      and `a_priori` (from `bound`), the last two None, with a `reason`, where level 0 has more than 64^3 voxels;
    - `features`: those alive at this level with margin, places and passport (`passport_level`, `passport_spacing`: the
      coarsest level at which the bounds guarantee survival; `birth_place` is where a loop breaks first), or None above
      64^3 voxels;
    - `decisions` and `changed`: what `decide` said, and how that differs from level 0 (see `decisions.changed`).

    Raises InputError for an empty pyramid, shapes that do not halve, NaN or infinite values, bad spacing or bounds.
    """
    check_pyramid(pyramid, spacing, bounds)
    base = grid_affine(spacing, affine)
    of_finest = features(pyramid[0], base) if pyramid[0].size <= MAX_VOXELS else None
    levels = []
    for level, field in enumerate(pyramid):
        grid = level_affine(base, level)
        row = describe(level, field, grid)
        row |= compare(pyramid[0], field, level, base, bounds, of_finest)
        found = of_finest if level == 0 else features(field, grid) if field.size <= MAX_VOXELS else None
        row["features"] = passports(found, level, row["spacing"], bounds)
        levels.append(row)
    safe = None
    if decide is not None:
        safe = judge(pyramid, base, levels, decide, (length_tolerance, radius_tolerance))
    return jsonable({"operator": operator, "coarsest_safe_level": safe, "levels": levels})


def describe(level: int, field: np.ndarray, affine: Float[np.ndarray, "4 4"]) -> dict[str, Any]:
    """Shape, spacing, Betti numbers and volume of one level on its own grid."""
    vessel = field <= 0
    return {
        "level": level,
        "shape": list(field.shape),
        "spacing": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "betti": list(betti_numbers(vessel)),
        "volume": float(np.count_nonzero(vessel) * abs(np.linalg.det(affine[:3, :3]))),
    }


def compare(
    finest: np.ndarray,
    field: np.ndarray,
    level: int,
    affine: Float[np.ndarray, "4 4"],
    bounds: Sequence[float | int] | None,
    of_finest: list[Feature] | None,
) -> dict[str, Any]:
    """What one level shares with level 0, on the grid of level 0, and what is certified."""
    coarse = field if field.dtype.kind == "f" else field.astype(np.float32)
    on_finest = prolong_to(coarse, finest.shape, level)
    wall = wall_error(finest, on_finest)
    bound = None if bounds is None else float(bounds[level])
    found = shared_features(finest <= 0, on_finest <= 0, affine)
    survived = [found[k]["shared"] for k in range(3)]
    certified: dict[str, Any] = {"local": survived, "uniform": None, "a_priori": None}
    if of_finest is None:
        certified["reason"] = "level 0 has more than 64^3 voxels, too many for its margins"
    else:
        certified["uniform"] = list(certified_count(of_finest, wall))
        certified["a_priori"] = None if bound is None else list(certified_count(of_finest, bound))
    return {
        "betti_on_finest_grid": [found[k]["betti_g"] for k in range(3)],
        "survived": survived,
        "lost": list(itertools.chain.from_iterable(found[k]["lost"] for k in range(3))),
        "invented": list(itertools.chain.from_iterable(found[k]["invented"] for k in range(3))),
        "error": sup_distance(finest, on_finest),
        "wall_error": wall,
        "bound": bound,
        "certified": certified,
    }


def sup_distance(f: np.ndarray, g: np.ndarray) -> float:
    """`sup |f - g|` of two fields on one grid, without rounding the difference of two float32 values down."""
    return max(float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(f, g, strict=True))


def wall_error(f: np.ndarray, g: np.ndarray) -> float:
    """The largest `|f|` among the voxels that are vessel in one of two fields on one grid and background in the other.

    It is at most `sup |f - g|`; 0 where the masks are equal.

    >>> wall_error(np.array([[[-2.0, -0.5, 9.0]]]), np.array([[[-0.1, 0.3, 1.0]]]))
    0.5
    """
    exchanged = (f <= 0) != (g <= 0)
    return float(np.abs(f[exchanged].astype(np.float64)).max(initial=0.0))


def passports(
    found: list[Feature] | None, level: int, spacing: list[float], bounds: Sequence[float | int] | None
) -> list[dict[str, Any]] | None:
    """The features alive at a level with their margins, and how far up the pyramid the bounds carry each of them.

    Between level k and a coarser level l the fields differ by at most `B_l - B_k` on the grid of level k, because
    prolongation does not expand the sup norm: that is what the margin at level k has to exceed.
    """
    if found is None:
        return None
    rows = []
    for feature in found:
        if not feature.alive:
            continue
        row: dict[str, Any] = {
            "dimension": feature.dimension,
            "birth": feature.birth,
            "death": feature.death,
            "margin": feature.margin,
            "birth_place": feature.birth_place,
            "death_place": feature.death_place,
        }
        if bounds is not None:
            beyond = (k for k in range(level, len(bounds)) if bounds[k] - bounds[level] >= feature.margin)
            row["passport_level"] = coarsest = max(level, next(beyond, len(bounds)) - 1)
            row["passport_spacing"] = [h * 2.0 ** (coarsest - level) for h in spacing]
        rows.append(row)
    return rows


def judge(
    pyramid: Sequence[np.ndarray],
    affine: Float[np.ndarray, "4 4"],
    levels: list[dict[str, Any]],
    decide: Decide,
    tolerances: tuple[float | int, float | int],
) -> int | None:
    """Add `decisions` and `changed` to the levels; the coarsest level up to which nothing has changed.

    None where there is no vessel at level 0, and so nothing to decide.
    """
    for level, (field, row) in enumerate(zip(pyramid, levels, strict=True)):
        row["decisions"] = decide(field, level_affine(affine, level)) if row["betti"][0] else None
        first = levels[0]["decisions"]
        if first is None or row["decisions"] is None:
            nothing = {"decision": "any vessel", "before": first is not None, "after": row["decisions"] is not None}
            row["changed"] = [] if nothing["before"] == nothing["after"] else [nothing]
        else:
            row["changed"] = changed(first, row["decisions"], REACH_IN_VOXELS * max(row["spacing"]), *tolerances)
    if levels[0]["decisions"] is None:
        return None
    return len(list(itertools.takewhile(lambda row: not row["changed"], levels))) - 1


def grid_affine(spacing: Sequence[float | int], affine: np.ndarray | None) -> Float[np.ndarray, "4 4"]:
    """The affine of level 0; InputError where it contradicts the spacing."""
    if affine is None:
        return np.diag([*(float(h) for h in spacing), 1.0])
    columns = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    if not np.allclose(columns, spacing, rtol=1e-3):
        raise InputError(
            f"The affine has voxels of {columns.tolist()} mm and spacing says {list(spacing)}; which is it?"
        )
    return np.asarray(affine, np.float64)


def check_pyramid(
    pyramid: Sequence[np.ndarray], spacing: Sequence[float | int], bounds: Sequence[float | int] | None
) -> None:
    """InputError for what is not a pyramid of finite 3D fields with three spacings and one bound per level."""
    if not pyramid:
        raise InputError("The pyramid has no level; give a list of fields, finest first.")
    for level, field in enumerate(pyramid):
        check_field(field, f"Level {level} of the pyramid")
        if field.shape != level_shape(pyramid[0].shape, level):
            raise InputError(
                f"Level {level} of the pyramid has shape {field.shape}; under {pyramid[0].shape} it must be "
                f"{level_shape(pyramid[0].shape, level)}."
            )
    if len(spacing) != 3 or not all(math.isfinite(h) and h > 0 for h in spacing):
        raise InputError(f"spacing is {list(spacing)}; give three positive lengths in mm.")
    if bounds is not None and (len(bounds) != len(pyramid) or not all(b >= 0 for b in bounds)):
        raise InputError(f"bounds is {list(bounds)}; give one length >= 0 in mm for each of {len(pyramid)} levels.")


def check_certificates(f: Shaped[np.ndarray, "..."], g: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    """Both certificates for two fields on one grid (at most 64^3 voxels), held against gudhi.

    Gives `eps`, the wall error; `certified`: features of f with a larger margin; `rank` of `H_k(f < -eps) -> H_k(f <=
    eps)`; `local`: rank of `H_k(P & G) -> H_k(P | G)` by `matching`, and `local_rank` by gudhi; `betti` of `{g <= 0}`;
    and `contradicted`, True if not `certified <= rank <= betti` and `local == local_rank <= betti` in every dimension.
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
        not (certified <= rank <= betti and local == local_rank <= betti)
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
