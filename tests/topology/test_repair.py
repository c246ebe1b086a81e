"""The voxels on which topology hinges: found for every kind of error, none where both topologies agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.matching import shared_features
from vesselsdf.topology.repair import critical_sites


def grid(*shape):
    return np.meshgrid(*[np.arange(n, dtype=float) for n in shape], indexing="ij")


def ring():
    """Exact distance of a torus in a box of 15 x 15 x 7 voxels: radius 4.5, tube 1.6."""
    x, y, z = grid(15, 15, 7)
    return np.hypot(np.hypot(x - 7, y - 7) - 4.5, z - 3) - 1.6


def ball(centre, radius):
    x, y, z = grid(15, 15, 7)
    return np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) - radius


def cut(field, centre, radius):
    return np.maximum(field, -ball(centre, radius))


def bar():
    """A straight tube along y through the middle of the ring."""
    x, _, z = grid(15, 15, 7)
    return np.hypot(x - 7, z - 3) - 0.8


def lid():
    """A disc that fills the ring."""
    x, y, z = grid(15, 15, 7)
    return np.maximum(np.hypot(x - 7, y - 7) - 4, np.abs(z - 3) - 0.6)


def shell():
    return np.abs(ball(MIDDLE, 2.2)) - 0.9


MIDDLE = (7, 7, 3)
# Prediction, truth, and where they differ.
ERRORS = {
    "a cut loop": (cut(ring(), (7, 2.5, 3), 2.2), ring(), (7, 2.5, 3)),
    "a blob": (np.minimum(ring(), ball(MIDDLE, 1.2)), ring(), MIDDLE),
    "a missing component": (ring(), np.minimum(ring(), ball(MIDDLE, 1.2)), MIDDLE),
    "a false bridge": (np.minimum(ring(), bar()), ring(), MIDDLE),
    "a filled loop": (np.minimum(ring(), lid()), ring(), MIDDLE),
    "a pin-hole": (cut(ball(MIDDLE, 2.8), MIDDLE, 0.7), ball(MIDDLE, 2.8), MIDDLE),
    "a missing cavity": (ball(MIDDLE, 3.1), shell(), MIDDLE),
    "an opened cavity": (cut(shell(), (7, 9.2, 3), 1.1), shell(), (7, 9.2, 3)),
}


@pytest.mark.parametrize("error", ERRORS)
def test_every_kind_of_error_is_found_at_its_place(error):
    predicted, truth, place = ERRORS[error]
    assert betti_numbers(predicted <= 0) != betti_numbers(truth <= 0)
    sites = critical_sites(predicted, truth)
    assert len(sites) > 0
    assert (np.linalg.norm(sites - place, axis=1) < 3.2).any()


@pytest.mark.parametrize("error", ERRORS)
def test_moving_sites_to_the_truth_again_and_again_gives_the_true_topology(error):
    predicted, truth, _ = ERRORS[error]
    predicted = predicted.copy()
    for _ in range(60):
        sites = tuple(critical_sites(predicted, truth).T)
        if len(sites[0]) == 0:
            break
        predicted[sites] = truth[sites]
    assert betti_numbers(predicted <= 0) == betti_numbers(truth <= 0)


def test_nothing_hinges_on_a_wall_that_lies_too_far_in_or_out():
    for shift in (-0.5, 0.3, 0.5):
        assert len(critical_sites(ring() + shift, ring())) == 0


def test_the_same_topology_elsewhere_is_another_one():
    sites = critical_sites(ball((3, 3, 3), 1.5), ball((11, 11, 3), 1.5))
    assert sites.tolist() == [[3, 3, 3], [10, 10, 3]], (
        "the middle of the false one, and the true one where it is nearest"
    )


def test_a_loop_that_takes_a_detour_is_cut_there_and_closed_on_the_true_way():
    way = np.array([list(row) for row in ("#####..", "#...#..", "#...@++", "#...-.+", "#...@++", "#...#..", "#####..")])
    truth = np.where(np.isin(way, ["#", "@", "-"]), -1.0, 1.0)[..., None]
    detour = np.where(np.isin(way, ["#", "@", "+"]), -1.0, 1.0)[..., None]
    detour[3, 6] = -0.5
    assert betti_numbers(detour <= 0) == betti_numbers(truth <= 0) == (1, 1, 0)
    assert critical_sites(detour, truth).tolist() == [[3, 4, 0], [3, 6, 0]]


def test_the_weakest_place_is_chosen():
    truth = np.full((1, 1, 12), 1.0)
    truth[..., 1:4] = truth[..., 8:11] = -1.0
    bridged = truth.copy()
    bridged[..., 4:8] = -0.5, -0.1, -0.4, -0.3
    assert critical_sites(bridged, truth).tolist() == [[0, 0, 5]]
    blob = truth.copy()
    blob[..., 5:7] = -0.2, -0.6
    assert critical_sites(blob, truth).tolist() == [[0, 0, 6]]


def masks(density):
    return arrays(np.int64, (4, 4, 3), elements=st.integers(0, 9)).map(lambda a: np.where(a < density, -1.0, 1.0))


@given(masks(6), masks(6), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_none_exactly_when_all_features_are_shared(signs, truth, seed):
    field = signs * np.random.default_rng(seed).uniform(0.1, 2, signs.shape)
    shared = shared_features(field <= 0, truth <= 0)
    # The rank of H(I) -> H(U) equals all four Betti numbers exactly when the inclusions between I, P, G and U are
    # isomorphisms (for an inclusion through which an isomorphism factors is injective, or surjective).
    agree = all(
        row["shared"] == row[f"betti_{name}"] for row in shared.values() for name in ("p", "g", "intersection", "union")
    )
    sites = critical_sites(field, truth)
    assert (len(sites) == 0) == agree
    wrong = (field <= 0) != (truth <= 0)
    assert wrong[tuple(sites.T)].all()
    assert len(np.unique(sites, axis=0)) == len(sites)


@pytest.mark.parametrize(("value", "other"), [(1.0, 1.0), (-1.0, -1.0), (0.0, -2.0)])
def test_empty_and_full_fields_agree_with_themselves(value, other):
    assert len(critical_sites(np.full((3, 4, 5), value), np.full((3, 4, 5), other))) == 0


def test_an_empty_prediction_lacks_one_component_and_a_full_one_has_it_too_many():
    empty, truth = np.full((5, 5, 5), 2.0), np.full((5, 5, 5), 1.0)
    truth[2, 2, 1:4] = -1
    empty[2, 2, 2] = 0.5
    assert critical_sites(empty, truth).tolist() == [[2, 2, 2]]
    assert critical_sites(-empty, -truth).tolist() == [[2, 2, 2]], "a full box lacks the cavity"
    assert critical_sites(np.minimum(truth, -0.1), np.full((5, 5, 5), 1.0)).shape == (1, 3)


def test_bad_fields_are_refused():
    good = np.zeros((3, 3, 3))
    with pytest.raises(InputError, match="reference has shape"):
        critical_sites(good, np.zeros(3))
    with pytest.raises(InputError, match="compare fields on one grid"):
        critical_sites(good, np.zeros((3, 3, 4)))
    with pytest.raises(InputError, match="field has NaN"):
        critical_sites(good * np.nan, good)
