"""The wall in parts: together it is one closed surface, whatever the parts and the field."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import RunError
from vesselsdf.mesh import check, surface
from vesselsdf.mesh.parts import MARGIN, joined, wall_part
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.topology.betti import betti_numbers

TURNED = np.array([[0.0, -0.5, 0, 7.3], [0.4, 0, 0.3, -3], [-0.3, 0, 0.4, 2.1], [0, 0, 0, 1]])


def parts_of(field, edge, affine=TURNED):
    size = np.array(field.shape)
    for corner in itertools.product(*(range(0, n, edge) for n in field.shape)):
        low = np.array(corner)
        high = np.minimum(low + edge, size)
        first, last = np.maximum(low - MARGIN, 0), np.minimum(high + MARGIN + 1, size)
        yield wall_part(field[tuple(map(slice, first, last))], first, np.where(low == 0, -1, low), high, affine)


@pytest.mark.parametrize("edge", [20, 32, 45])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_tree_is_closed_and_about_that_of_one_piece(edge, flipped):
    sdf = synthetic_case(5, (90, 70, 64), (0.5,) * 3, "ct").sdf.array
    affine = TURNED @ np.diag([-1.0, 1, 1, 1]) if flipped else TURNED
    whole, mesh = surface(sdf, affine), joined(list(parts_of(sdf, edge, affine)))
    found, expected = check(mesh), check(whole)
    for key in ("watertight", "winding_consistent", "manifold_vertices", "outward", "euler_number", "components"):
        assert found[key] == expected[key]
    assert found["self_intersections"] == found["degenerate_faces"] == 0
    assert found["volume"] == pytest.approx(expected["volume"], rel=1e-3)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(4, 17)] * 3),
    edge=st.integers(3, 12),
    rough=st.floats(0.0, 1.5),
    scale=st.sampled_from([1e-6, 1.0, 3e5]),
)
def test_noise_is_closed_with_the_topology_of_the_field(seed, shape, edge, rough, scale):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), rough) * scale + 1e-3 * scale
    if not field.min() <= 0 < field.max():
        return
    mesh = joined(list(parts_of(field, edge)))
    beta0, beta1, beta2 = betti_numbers(field <= 0)
    assert mesh.is_watertight
    assert mesh.euler_number == 2 * (beta0 - beta1 + beta2)
    assert check(mesh)["self_intersections"] == 0


def test_parts_of_different_fields_are_noticed():
    sdf = synthetic_case(5, (40, 40, 40), (0.5,) * 3, "ct").sdf.array
    parts, others = list(parts_of(sdf, 20)), list(parts_of(sdf + np.float32(0.01), 20))
    with pytest.raises(RunError, match="do not fit together"):
        joined([*parts[:4], *others[4:]])
