"""What a vessel network keeps, loses and gains as its field is carried to coarser levels, and what of that is certain.

Level `l` of a pyramid is compared with level 0 on the grid of level 0, where it is `g = U^l phi_l` (prolonged `l`
times); `f = phi_0`, `P = {f <= 0}`, `G = {g <= 0}`. How many features they share, and which ones are lost and
invented, is exact (`matching`); `fates` tells which feature of level 0 a lost one is; `certificates` says what bounds
on `f - g` prove beforehand, and how the certificates of several levels compose; `decisions` what changes for a user,
and `blockwise_safety` where in the volume a level is still good enough.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vesselsdf.errors import InputError
from vesselsdf.files import jsonable
from vesselsdf.scales import level_affine, level_shape, prolong, prolong_to
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.blockwise_safety import block_safety
from vesselsdf.topology.certificates import check_certificates as check_certificates
from vesselsdf.topology.certificates import exchanged_error, raised, sup_distance
from vesselsdf.topology.certificates import wall_error as wall_error
from vesselsdf.topology.decisions import (
    REACH_IN_VOXELS,
    Decide,
    Description,
    changed,
    described,
    distances_to,
    unpaired,
)
from vesselsdf.topology.fates import Finest, alive_features, band_of, fates, identify, passports
from vesselsdf.topology.matching import Stages, box_around, shared_features
from vesselsdf.topology.persistence import certified_count, check_field

BLOCK = 64


def survival(
    pyramid: Sequence[Shaped[np.ndarray, "..."]],
    spacing: Sequence[float | int],
    affine: Float[np.ndarray, "4 4"] | None = None,
    operator: str = "mean",
    decide: Decide | None = None,
    bounds: Sequence[float | int] | None = None,
    length_tolerance: float | int = 0.05,
    radius_tolerance: float | int = 0.10,
    block: int = BLOCK,
) -> dict[str, Any]:
    """What survives at each level of a pyramid, as a report in JSON's types.

    pyramid: fields (X, Y, Z), mm, negative inside, finest first; level l + 1 has ceil(n / 2) voxels per axis.
    spacing: of level 0, mm, per axis. affine: of level 0, voxel index -> mm; without it, spacing alone.
    operator: the name of the coarse-graining, repeated in the report.
    decide: what a user decides from a field: `decide(sdf, affine) -> dict`, or a `decisions.Description`, called for
        every level with a vessel in it, finest first. `vesselsdf.branch_persistence.Describe()` is one.
    bounds: a-priori bounds (mm) on `sup |phi_0 - U^l phi_l|` for each level, 0 for level 0 (`scales.bounds`).
    length_tolerance, radius_tolerance: relative differences that do not change a decision.
    block: edge of the blocks, in voxels of level 0, for which the coarsest safe level is told one by one.

    The report has `operator`, `coarsest_safe_level` (the coarsest level such that it and all finer ones leave every
    decision as it is at level 0; None without `decide`), `blocks` (see `blockwise_safety.block_safety`; None without
    vessel) and `levels`, each with

    - `level`, `shape`, `spacing` (mm), `betti`, `volume` (mm^3) of the level on its own grid;
    - `betti_on_finest_grid`, `survived` (per dimension), `lost` and `invented` (each `dimension`, `kind`, `place` in
      mm; see `matching.Difference`; a lost one also `feature`, its position in `features` of level 0);
    - `step`: `survived`, `lost`, `invented` against the level before, on that level's grid; None at level 0;
    - `error` (measured `sup |phi_0 - U^l phi_l|`), `wall_error` (the largest `|phi_0|` where vessel and background were
      exchanged) and `bound`, all mm;
    - `certified`: features per dimension that are proved to survive: `local` (the rank), `along` (at this and all finer
      levels, as the same classes), `uniform` (from `wall_error`), `composed` (from the sum of the steps' errors) and
      `a_priori` (from `bound`, None without); see `certificates`;
    - `band` (mm): how far from the wall the level's features were followed; `features`: those alive at this level with
      margin (`margin_is_lower_bound`: it is at least the band), places, and what breaks it first (`breaks_by`,
      `breaks_at`). With `bounds`, its passport: `passport_level`, `passport_spacing`, the coarsest at which they
      guarantee survival. At level 0 also `certified_level`, `certified_spacing` (the same from the measured wall
      errors), `fates` (one per level) and `lost_at` (see `fates.fates`);
    - `decisions` and `changed`: what `decide` said, and how that differs from level 0 (see `decisions.changed`);
      `branches_lost`, `branches_invented`, `necks_lost`, `necks_invented`: see `vesselsdf.branch_persistence`. A branch
      is lost when its tip is; `away` (mm) says how far that is from the nearest centreline left (None: none is left).

    Raises InputError for an empty pyramid, shapes that do not halve, NaN or infinite values, bad spacing, bounds or
    block.
    """
    check_pyramid(pyramid, spacing, bounds, block)
    base = grid_affine(spacing, affine)
    own = [with_features(field, level_affine(base, level)) for level, field in enumerate(pyramid)]
    finest = own[0]
    levels = [describe(level, here) for level, here in enumerate(own)]
    compare_all(pyramid, finest, levels, bounds)
    errors = [row["wall_error"] for row in levels]
    for here, row in zip(own, levels, strict=True):
        known = errors if here is finest else None
        row["features"] = passports(here.features, row["level"], row["spacing"], row["band"], bounds, known)
    for row, fate in zip(levels[0]["features"], fates(len(finest.features), levels), strict=True):
        row |= fate
    descriptions: list[Description | None] = [None] * len(pyramid)
    safe = None
    if decide is not None:
        descriptions = describe_all(pyramid, base, levels, decide)
        safe = judge(levels, descriptions, (length_tolerance, radius_tolerance))
    blocks = None
    if finest.mask.any():
        blocks = block_safety(finest.mask, base, levels, descriptions, block, length_tolerance)
    return jsonable({"operator": operator, "coarsest_safe_level": safe, "blocks": blocks, "levels": levels})


def with_features(field: np.ndarray, affine: Float[np.ndarray, "4 4"]) -> Finest:
    """A level with the features found in a band around its wall."""
    band = band_of(field, float(np.linalg.norm(affine[:3, :3], axis=0).max()))
    return Finest(field, field <= 0, affine, alive_features(field, affine, band), band)


def describe(level: int, own: Finest) -> dict[str, Any]:
    """Shape, spacing, Betti numbers, volume and band of one level on its own grid."""
    return {
        "level": level,
        "shape": list(own.field.shape),
        "spacing": np.linalg.norm(own.affine[:3, :3], axis=0).tolist(),
        "betti": list(betti_numbers(own.mask)),
        "volume": float(np.count_nonzero(own.mask) * abs(np.linalg.det(own.affine[:3, :3]))),
        "band": own.band,
    }


def compare_all(
    pyramid: Sequence[np.ndarray],
    finest: Finest,
    levels: list[dict[str, Any]],
    bounds: Sequence[float | int] | None,
) -> None:
    """Add to each level's row what it shares with level 0 and with the level before, and what is certified."""
    common, union, along = finest.mask, finest.mask, list(betti_numbers(finest.mask))
    taken = 0.0  # sum of the errors of the steps so far
    for level, (field, row) in enumerate(zip(pyramid, levels, strict=True)):
        coarse = field if field.dtype.kind == "f" else field.astype(np.float32)
        on_finest = prolong_to(coarse, finest.field.shape, level) if level else finest.field
        row |= compare(finest, on_finest)
        row["bound"] = None if bounds is None else float(bounds[level])
        row["step"] = None
        if level == 1:
            taken = row["error"]
            row["step"] = {key: row[key] for key in ("survived", "lost", "invented")}
        elif level > 1:
            row["step"], error = compare_step(pyramid[level - 1], coarse, level_affine(finest.affine, level - 1))
            taken += error
        if level:
            mask = on_finest <= 0
            common, union = common & mask, union | mask
            along = row["survived"] if level == 1 else chain_rank(common, union, finest.field)
        row["certified"] = {
            "local": row["survived"],
            "along": along,
            "uniform": list(certified_count(finest.features, row["wall_error"])),
            "composed": list(certified_count(finest.features, raised(taken))),
            "a_priori": None if row["bound"] is None else list(certified_count(finest.features, raised(row["bound"]))),
        }


def compare(finest: Finest, on_finest: np.ndarray) -> dict[str, Any]:
    """What one level, prolonged to the grid of level 0, shares with level 0."""
    if on_finest is finest.field:
        betti = list(betti_numbers(finest.mask))
        nothing: dict[str, Any] = {"lost": [], "invented": [], "error": 0.0, "wall_error": 0.0}
        return {"betti_on_finest_grid": betti, "survived": betti} | nothing
    mask = on_finest <= 0
    wall = exchanged_error(finest.field, finest.mask, mask)
    found = shared_features(finest.mask, mask, finest.affine, order=finest.field)
    lost = list(itertools.chain.from_iterable(found[k]["lost"] for k in range(3)))
    for entry, feature in zip(lost, identify(lost, finest, mask, wall), strict=True):
        entry["feature"] = feature
    return {
        "betti_on_finest_grid": [found[k]["betti_g"] for k in range(3)],
        "survived": [found[k]["shared"] for k in range(3)],
        "lost": lost,
        "invented": list(itertools.chain.from_iterable(found[k]["invented"] for k in range(3))),
        "error": sup_distance(finest.field, on_finest),
        "wall_error": wall,
    }


def compare_step(
    fine: np.ndarray, coarse: np.ndarray, affine: Float[np.ndarray, "4 4"]
) -> tuple[dict[str, Any], float]:
    """What two consecutive levels share, on the grid of the finer one, and how far they are apart (sup norm, mm)."""
    prolonged = prolong(coarse, fine.shape)
    found = shared_features(fine <= 0, prolonged <= 0, affine, order=fine)
    step: dict[str, Any] = {"survived": [found[k]["shared"] for k in range(3)]}
    for name in ("lost", "invented"):
        step[name] = list(itertools.chain.from_iterable(found[k][name] for k in range(3)))
    return step, sup_distance(fine, prolonged)


def chain_rank(common: np.ndarray, union: np.ndarray, order: np.ndarray) -> list[int]:
    """Rank of `H_k(common) -> H_k(union)`: features that are there at every level that went into the two masks."""
    box = box_around(union, union)
    return Stages(common[box], union[box], order[box]).shared


def describe_all(
    pyramid: Sequence[np.ndarray], affine: Float[np.ndarray, "4 4"], levels: list[dict[str, Any]], decide: Decide
) -> list[Description | None]:
    """What `decide` says of every level with a vessel in it."""
    return [
        described(decide(field, level_affine(affine, level))) if row["betti"][0] else None
        for level, (field, row) in enumerate(zip(pyramid, levels, strict=True))
    ]


def judge(
    levels: list[dict[str, Any]],
    descriptions: Sequence[Description | None],
    tolerances: tuple[float | int, float | int],
) -> int | None:
    """Add `decisions`, `changed` and lost branches to the levels; the coarsest level up to which nothing has changed.

    None where there is no vessel at level 0, and so nothing to decide.
    """
    first = descriptions[0]
    for row, here in zip(levels, descriptions, strict=True):
        reach = REACH_IN_VOXELS * max(row["spacing"])
        row["decisions"] = here and here.decisions
        if first is None or here is None:
            nothing = {"decision": "any vessel", "before": first is not None, "after": here is not None}
            row["changed"] = [] if nothing["before"] == nothing["after"] else [nothing]
        else:
            row["changed"] = changed(first.decisions, here.decisions, reach, *tolerances)
        old, new = first or Description({}), here or Description({})
        # Where a loop is farthest from the root is no place of its own: loops are told by homology.
        before, after = ([branch for branch in side.branches if branch["kind"] == "end"] for side in (old, new))
        lost, row["branches_invented"] = unpaired(before, after, reach)
        row["branches_lost"] = [
            {**branch, "away": distance} for branch, distance in zip(lost, distances_to(new, lost), strict=True)
        ]
        row["necks_lost"], row["necks_invented"] = unpaired(old.necks, new.necks, reach)
    if first is None:
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
    pyramid: Sequence[np.ndarray], spacing: Sequence[float | int], bounds: Sequence[float | int] | None, block: int
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
    if block < 1:
        raise InputError(f"block is {block}; give the edge of a block in voxels, at least 1.")
