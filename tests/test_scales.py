"""Coarse-graining, prolongation and the bound that ties the levels together."""

import itertools

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from vesselsdf import scales
from vesselsdf.errors import InputError

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
OPERATOR = st.sampled_from(scales.OPERATORS)


def distance_field(shape, seed):
    """A 1-Lipschitz field: least distance to a few random points, less a radius, with a random sign."""
    generator = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).astype(float)
    centres = generator.uniform(-2, max(shape) + 2, (generator.integers(1, 6), 3))
    radii = generator.uniform(0, 2, len(centres))
    field = np.min(np.linalg.norm(cells[..., None, :] - centres, axis=-1) - radii, axis=-1)
    return field * generator.choice([-1, 1])


@given(SHAPES, st.integers(0, 10**6), OPERATOR)
@settings(max_examples=300, deadline=None)
def test_no_distance_field_exceeds_the_bound(shape, seed, operator):
    field = distance_field(shape, seed)
    moved = field - scales.prolong(scales.coarsen(field, operator), shape)
    assert np.abs(moved).max() <= 2 * scales.REFINEMENT_CONSTANT[operator] + 1e-9


def axis_weights(kernel, node_offsets):
    """Weights of U C along one axis at a fine voxel, as {offset in coarse spacings: weight}."""
    weights = {}
    for first_child, share in node_offsets:
        for child, weight in kernel(first_child).items():
            weights[child] = weights.get(child, 0) + share * weight
    return {offset: weight for offset, weight in weights.items() if weight}


def transport_constant(axes):
    """Least cost that carries the weights of U C to x: the sharp constant of the bound (Kantorovich)."""
    points = np.array(list(itertools.product(*axes)))
    weights = np.array([np.prod(w) for w in itertools.product(*[a.values() for a in axes])])
    weights[np.flatnonzero(~points.any(axis=1))[0]] -= 1
    source, sink = weights > 1e-12, weights < -1e-12
    cost = np.linalg.norm(points[source][:, None] - points[sink][None], axis=-1)
    rows, columns = cost.shape
    constraints = scipy.sparse.vstack(
        [
            scipy.sparse.kron(scipy.sparse.eye(rows), np.ones((1, columns))),
            scipy.sparse.kron(np.ones((1, rows)), scipy.sparse.eye(columns)),
        ]
    ).tocsr()
    masses = np.r_[weights[source], -weights[sink]]
    return linprog(cost.ravel(), A_eq=constraints[:-1], b_eq=masses[:-1]).fun


def axis_cases(operator, cells=5):
    """Every different case along one axis of `cells` coarse cells, the border included: U C applied to unit vectors."""
    n = 2 * cells
    unit = np.eye(n)
    response = np.stack(
        [scales.prolong(scales.coarsen(unit[i][:, None, None], operator), (n, 1, 1))[:, 0, 0] for i in range(n)],
        axis=1,
    )
    cases = {}
    for x in range(n):
        weights = {(i - x) / 2: response[x, i] for i in np.flatnonzero(response[x])}
        if 0.0 not in weights:
            weights[0.0] = 0.0
        cases[tuple((offset, round(weight, 12)) for offset, weight in sorted(weights.items()))] = weights
    return list(cases.values())


@pytest.mark.parametrize("operator", ["mean", "sample"])
def test_the_constant_is_the_optimal_transport_cost_at_every_kind_of_voxel(operator):
    costs = [transport_constant(axes) for axes in itertools.combinations_with_replacement(axis_cases(operator), 3)]
    assert max(costs) <= scales.REFINEMENT_CONSTANT[operator]
    assert max(costs) > scales.REFINEMENT_CONSTANT[operator] - 2e-5


def test_the_constants_of_min_and_exact_by_enumeration():
    nodes = list(itertools.product((0, 1), repeat=3))
    share = [np.prod([0.25 if far else 0.75 for far in node]) for node in nodes]
    farthest_child = [np.linalg.norm([1.0 if far else 0.5 for far in node]) for node in nodes]
    centre = [np.linalg.norm([0.75 if far else 0.25 for far in node]) for node in nodes]
    assert np.dot(share, farthest_child) == pytest.approx(scales.REFINEMENT_CONSTANT["min"], abs=1e-5)
    assert np.dot(share, centre) == pytest.approx(scales.REFINEMENT_CONSTANT["exact"], abs=1e-5)


def test_the_bound_of_min_is_attained():
    cells = np.stack(np.meshgrid(*[np.arange(8.0)] * 3, indexing="ij"), -1)
    x = (3, 3, 3)
    field = -np.linalg.norm(cells - np.array(x), axis=-1)
    moved = abs(field - scales.prolong(scales.coarsen(field, "min"), field.shape))[x]
    assert moved == pytest.approx(2 * scales.REFINEMENT_CONSTANT["min"], abs=1e-4)


@given(st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_prolongation_is_that_of_torch_and_never_expands(shape, seed):
    coarse = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    fine = scales.prolong(coarse, tuple(2 * n for n in shape))
    reference = torch.nn.functional.interpolate(torch.tensor(coarse)[None, None], scale_factor=2, mode="trilinear")
    assert np.allclose(fine, reference[0, 0].numpy(), atol=1e-6)
    assert np.abs(fine).max() <= np.abs(coarse).max() + 1e-6


@pytest.mark.parametrize("operator", ["mean", "sample"])
def test_linear_fields_pass_through_coarsening_in_world_coordinates(operator):
    angle = 0.4
    affine = np.array(
        [[np.cos(angle), -np.sin(angle), 0, 5], [np.sin(angle), np.cos(angle), 0, -3], [0, 0, -1, 9], [0, 0, 0, 1.0]]
    )

    def field(level):
        shape = scales.level_shape((16, 12, 10), level)
        indices = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        world = indices @ scales.level_affine(affine, level)[:3, :3].T + scales.level_affine(affine, level)[:3, 3]
        return world @ np.array([0.3, -0.5, 0.2])

    inner = (slice(1, -1),) * 3
    assert np.allclose(scales.coarsen(field(0), operator)[inner], field(1)[inner])


def test_sample_is_closer_than_mean_to_the_value_at_the_coarse_centre():
    def ball(shape, level):
        indices = (
            np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) * 2.0**level + (2.0**level - 1) / 2
        )
        return np.linalg.norm(indices - 15.5, axis=-1) - 6

    truth = ball((16, 16, 16), 1)
    near = abs(truth) < 3
    error = {op: abs(scales.coarsen(ball((32, 32, 32), 0), op) - truth)[near].mean() for op in ("mean", "sample")}
    assert error["sample"] < error["mean"] / 10


def test_min_keeps_every_component_and_connection():
    generator = np.random.default_rng(0)
    field = generator.normal(size=(8, 8, 8))
    coarse = scales.coarsen(field, "min") <= 0
    assert np.array_equal(coarse, (field <= 0).reshape(4, 2, 4, 2, 4, 2).any(axis=(1, 3, 5)))


def test_sums_of_bounds_stay_below_twice_the_coarsest():
    for level, bound in enumerate(scales.bounds(0.7, 6, 0.9)):
        assert bound <= 2 * 0.9 * 0.7 * 2**level


def test_activity_is_one_where_needed_and_zero_beyond_the_bound():
    values = np.array([-2.0, -1.0, -0.5, 0.0, 0.8, 0.9, 1.0])
    assert np.allclose(scales.activity(values, 1.0, 0.8), [0, 0, 1, 1, 1, 0.5, 0])
    assert torch.equal(scales.activity(torch.tensor([0.0, 1.0]), 1.0, 0.8), torch.tensor([1.0, 0.0]))


def test_bad_arguments_get_one_sentence():
    field = np.zeros((4, 4, 4))
    with pytest.raises(InputError, match="at least one level"):
        scales.pyramid(field, 0)
    with pytest.raises(InputError, match="cannot be prolonged"):
        scales.prolong(field, (10, 8, 8))
