"""Grids, coarse-graining, prolongation and bounds: how a signed distance field is carried across scales.

Strategy. Level ``l`` is a cell-centred grid of spacing ``h_l = 2**l * h_0``. An odd axis is padded by repeating its
last value, so that level ``l + 1`` has ``ceil(n / 2)`` cells along it. Two operators tie the levels together:

* coarse-graining ``C`` (`coarsen`), always named: ``mean``, ``min`` or ``sample``;
* prolongation ``U`` (`prolong`), trilinear between cell centres. Its weights are convex, so it never expands the
  sup norm: ``sup |U f - U g| <= sup |f - g|``.

**The bound.** Let ``phi`` be a distance field (1-Lipschitz in mm) on an isotropic grid. Then at every fine voxel ``x``

    |phi(x) - (U C phi)(x)| <= c(C) * h_{l+1}                                                            (1)

with a constant ``c`` that depends on the operator alone (`REFINEMENT_CONSTANT`). *Proof.* ``U C phi`` at ``x`` is a
sum ``sum_j W_j phi(x_j)`` over fine voxels with ``sum_j W_j = 1``. For any coupling ``T >= 0`` that carries the
positive part of ``W - delta_x`` to its negative part, ``|phi(x) - sum_j W_j phi(x_j)| = |sum_ij T_ij (phi(x_i) -
phi(x_j))| <= sum_ij T_ij |x_i - x_j|``, and the least such sum is attained by a 1-Lipschitz function (Kantorovich
duality), so the constant is sharp.

* ``mean``: ``W`` is a product of (3/8, 3/8, 1/8, 1/8) at offsets (0, -1/2, 1/2, 1) ``h_{l+1}`` per axis. All
  weights are positive, everything is carried to ``x``, and ``c = sum_j W_j |x_j - x| = 0.80077``.
* ``sample``: the value at the coarse centre. It lies between fine voxels, so it is interpolated by the 4-point
  Lagrange weights (-1, 9, 9, -1)/16 per axis, exact for cubics, where the mean of the children is only second-order.
  Some weights are negative; the transport problem gives ``c = 0.88127`` inside the grid. The test solves it again,
  for every case at the border too.
* ``min``: ``(U C phi)(x) = sum_n w_n min_{j in n} phi(x_j)`` over 8 coarse nodes ``n``, and each minimum differs from
  ``phi(x)`` by at most the largest distance from ``x`` to a child of ``n``: ``c = sum_n w_n max_j |x_j - x| =
  1.12005``, sharp for ``phi(y) = -|y - x|``.
* Where coarse values are those of a known field at the coarse centres (``exact``), ``c = sum_n w_n |x_n - x|
  = 0.70602``.

At the border, clamped interpolation moves weight from a node outside to the nearest node inside, whose children are
no farther from ``x``, so the constants of ``mean``, ``min`` and ``exact`` still hold; for ``sample`` the border is
included in the constant.

**Several levels.** Since ``U`` does not expand, ``sup |phi_0 - U^l phi_l| <= b_1 + ... + b_l`` whenever ``sup |phi_k
- U phi_{k+1}| <= b_{k+1}``, and with ``b_l = kappa h_l`` that sum is below ``2 kappa h_l``.

**Activity.** A finer level that may move ``U phi_{l+1}`` by less than ``b_{l+1}`` cannot change the sign where ``|U
phi_{l+1}| >= b_{l+1}``; only the other voxels are *active*. Between ``c h_{l+1}`` (all that a distance field can
need) and ``b_{l+1}`` the activity falls linearly from one to zero, so that the refined field depends continuously on
the coarse one: rounding errors are not amplified into a jump, and dense, tiled and sparse evaluation agree.
"""

from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from vesselsdf.constants import REFINEMENT_CONSTANT as REFINEMENT_CONSTANT
from vesselsdf.errors import InputError

Operator = Literal["mean", "min", "sample"]
OPERATORS: tuple[str, ...] = get_args(Operator)


def level_shape(shape: tuple[int, ...], level: int) -> tuple[int, ...]:
    """Number of voxels per axis at `level` of a grid whose level 0 has `shape`.

    >>> level_shape((65, 64, 3), 2)
    (17, 16, 1)
    """
    return tuple(-(-n // 2**level) for n in shape)


def level_affine(affine: Float[np.ndarray, "4 4"], level: int) -> Float[np.ndarray, "4 4"]:
    """Affine (voxel centre -> RAS+ mm) of the grid at `level` of a grid whose level 0 has `affine`.

    The lower corner of the box, at index -1/2, is the same point at every level.
    """
    index = np.diag([2.0**level] * 3 + [1.0])
    index[:3, 3] = (2.0**level - 1) / 2
    return affine @ index


def coarsen(sdf: Float[np.ndarray, "x y z"], operator: Operator = "mean") -> Float[np.ndarray, "cx cy cz"]:
    """The field on the next coarser grid, (X, Y, Z) -> (ceil(X/2), ceil(Y/2), ceil(Z/2)), same unit and dtype.

    `mean`: average of the 8 children. `min`: their least value; keeps every connection, may merge near neighbours.
    `sample`: value at the coarse centre (cubic interpolation). What each one loses is measured by `topology.survival`.
    """
    if operator not in OPERATORS:
        raise InputError(f"Unknown coarse-graining operator {operator!r}; use one of {', '.join(OPERATORS)}.")
    for axis in range(3):
        sdf = _coarsen_axis(sdf, axis, operator)
    return np.ascontiguousarray(sdf)


def _coarsen_axis(field: np.ndarray, axis: int, operator: Operator) -> np.ndarray:
    field = np.moveaxis(field, axis, 0)
    if len(field) % 2:
        field = np.concatenate([field, field[-1:]])
    even, odd = field[0::2], field[1::2]
    if operator == "min":
        coarse = np.minimum(even, odd)
    else:
        coarse = (even + odd) / 2
        if operator == "sample":
            before = np.concatenate([even[:1], odd[:-1]])
            after = np.concatenate([even[1:], odd[-1:]])
            coarse += (even + odd - before - after) / 16
    return np.moveaxis(coarse, 0, axis)


def prolong(coarse: Float[np.ndarray, "cx cy cz"], shape: tuple[int, ...]) -> Float[np.ndarray, "x y z"]:
    """Trilinear, cell-centred values of the next finer grid, cropped to its `shape`; same unit and dtype.

    Per axis a fine voxel takes 3/4 of the coarse cell it lies in and 1/4 of the nearer neighbour, the border cell being
    repeated outwards (as `torch.nn.functional.interpolate` with ``align_corners=False``).
    """
    if level_shape(tuple(shape), 1) != coarse.shape:
        raise InputError(
            f"A coarse field of shape {coarse.shape} cannot be prolonged to {tuple(shape)}; it needs "
            f"{level_shape(tuple(shape), 1)}."
        )
    # The last axis first, while the arrays are small: there every other value in memory is written.
    for axis in (2, 1, 0):
        field = np.moveaxis(coarse, axis, 0)
        doubled = [2 * n if a == axis else n for a, n in enumerate(coarse.shape)]
        fine = np.moveaxis(np.empty(doubled, coarse.dtype), axis, 0)
        fine[0::2] = field * 0.75
        fine[1::2] = fine[0::2]
        field = field * 0.25
        fine[2::2] += field[:-1]
        fine[0] += field[0]
        fine[1:-1:2] += field[1:]
        fine[-1] += field[-1]
        coarse = np.moveaxis(fine[: shape[axis]], 0, axis)
    return np.ascontiguousarray(coarse)


def prolong_to(field: Float[np.ndarray, "cx cy cz"], shape: tuple[int, ...], level: int) -> Float[np.ndarray, "x y z"]:
    """`field` at `level`, prolonged `level` times to the grid of level 0 with `shape`: ``U^l phi_l``."""
    for finer in range(level - 1, -1, -1):
        field = prolong(field, level_shape(shape, finer))
    return field


def pyramid(sdf: Float[np.ndarray, "x y z"], levels: int, operator: Operator = "mean") -> list[np.ndarray]:
    """`levels` fields, finest first: the given one and its repeated coarse-grainings, in the same unit.

    >>> [field.shape for field in pyramid(np.zeros((8, 8, 5), np.float32), 3)]
    [(8, 8, 5), (4, 4, 3), (2, 2, 2)]
    """
    if levels < 1:
        raise InputError(f"A pyramid needs at least one level, not {levels}.")
    fields = [sdf]
    while len(fields) < levels:
        fields.append(coarsen(fields[-1], operator))
    return fields


def bounds(spacing: float, levels: int, kappa: float) -> list[float]:
    """A-priori bounds ``B_l`` in mm on ``sup |phi_0 - U^l phi_l|``, one per level (0 for level 0).

    `spacing`: h_0 in mm; `kappa`: the bound of one refinement in units of the coarse spacing.

    >>> bounds(0.5, 4, kappa=1.0)
    [0.0, 1.0, 3.0, 7.0]
    """
    return [0.0, *np.cumsum([kappa * spacing * 2.0**level for level in range(1, levels)]).tolist()]


def activity(prolonged: Any, bound: float, needed: float) -> Any:
    """Share of the bound that may be used at each voxel, in [0, 1], for a NumPy array or a torch tensor of ``U
    phi_{l+1}``.

    One where ``|U phi| <= needed`` (``c h_{l+1}``: a distance field may change sign there), zero where ``|U phi| >=
    bound`` (``b_{l+1}``: nothing can), linear between. `bound` and `needed` in the unit of the field, ``needed <
    bound``.
    """
    return ((bound - abs(prolonged)) / (bound - needed)).clip(0, 1)
