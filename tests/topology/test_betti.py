"""Betti numbers: solids whose topology is known by hand, then gudhi and scikit-image, then random masks."""

import gudhi
import numpy as np
import pytest
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import betti_numbers, components, euler_number


def gudhi_betti(mask):
    """Betti numbers of the union of closed voxels (T-construction), by persistence over Z/2."""
    field = np.pad(np.where(mask, 0.0, 1.0), 1, constant_values=1.0)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    counts = cubical.persistent_betti_numbers(0.5, 0.5)
    return tuple(counts[:3])


def random_mask(seed, shape, density):
    return np.random.default_rng(seed).random(shape) < density


def solid(name, h):
    """A solid of known topology, sampled with spacing h in a box of side 4."""
    x, y, z = np.meshgrid(*[np.arange(-2, 2, h) + h / 2] * 3, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)

    def torus(x, y, z, big=1.1, small=0.4):
        return np.hypot(np.hypot(x, y) - big, z) <= small

    solids = {
        "ball": (r <= 1.5, (1, 0, 0)),
        "shell": ((r <= 1.5) & (r >= 0.8), (1, 0, 1)),
        "torus": (torus(x, y, z), (1, 1, 0)),
        "hollow torus": (torus(x, y, z) & ~torus(x, y, z, small=0.15), (1, 2, 1)),
        "Hopf link": (torus(x - 0.4, y, z, 0.8, 0.2) | torus(x + 0.4, z, y, 0.8, 0.2), (2, 2, 0)),
        "two shells": ((abs(r - 1.6) <= 0.25) | (abs(r - 0.6) <= 0.25), (2, 0, 2)),
        "tunnel and cavity": (
            (np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1.5)
            & (np.hypot(x - 0.8, y) > 0.3)
            & (np.sqrt((x + 0.6) ** 2 + y**2 + z**2) > 0.4),
            (1, 1, 1),
        ),
    }
    return solids[name]


@pytest.mark.parametrize("h", [0.2, 0.1, 0.07])
@pytest.mark.parametrize(
    "name", ["ball", "shell", "torus", "hollow torus", "Hopf link", "two shells", "tunnel and cavity"]
)
def test_solids_have_their_betti_numbers_at_every_spacing(name, h):
    mask, expected = solid(name, h)
    assert betti_numbers(mask) == expected


def test_tiny_masks_by_hand():
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    assert betti_numbers(one) == (1, 0, 0)
    corner = one.copy()
    corner[2, 2, 2] = True
    assert betti_numbers(corner) == (1, 0, 0)  # voxels that share a corner are connected
    apart = np.array([[[True, False, True]]])
    assert betti_numbers(apart) == (2, 0, 0)
    shell = np.ones((3, 3, 3), bool)
    shell[1, 1, 1] = False
    assert betti_numbers(shell) == (1, 0, 1)
    shell[0, 0, 0] = False  # a missing corner does not open the cavity: the background is 6-connected
    assert betti_numbers(shell) == (1, 0, 1)
    shell[0, 1, 1] = False
    assert betti_numbers(shell) == (1, 0, 0)


def test_empty_and_full_masks():
    assert betti_numbers(np.zeros((4, 5, 6), bool)) == (0, 0, 0)
    assert euler_number(np.zeros((4, 5, 6), bool)) == 0
    assert betti_numbers(np.ones((4, 5, 6), bool)) == (1, 0, 0)
    assert betti_numbers(np.ones((1, 1, 1), bool)) == (1, 0, 0)
    labels, count = components(np.zeros((2, 2, 2), bool))
    assert count == 0
    assert not labels.any()


def test_box_border_is_background():
    ring = np.ones((5, 5, 1), bool)
    ring[1:4, 1:4] = False
    assert betti_numbers(ring) == (1, 1, 0)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98])
def test_random_masks_agree_with_gudhi(density):
    for seed, shape in enumerate([(6, 7, 8), (9, 5, 11), (1, 8, 9), (12, 1, 1), (3, 3, 70)]):
        mask = random_mask(seed, shape, density)
        assert betti_numbers(mask) == gudhi_betti(mask)


@pytest.mark.parametrize("shape", [(20, 21, 63), (20, 21, 64), (20, 21, 65), (4, 5, 127), (4, 5, 129)])
def test_words_of_64_voxels_have_no_seams(shape):
    for density in (0.1, 0.5, 0.9):
        mask = random_mask(7, shape, density)
        beta0 = ndimage.label(mask, np.ones((3, 3, 3)))[1]
        beta2 = ndimage.label(~np.pad(mask, 1))[1] - 1
        chi = skimage.measure.euler_number(np.pad(mask, 1), connectivity=3)
        assert euler_number(mask) == chi
        assert betti_numbers(mask) == (beta0, beta0 + beta2 - chi, beta2)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_counts_do_not_depend_on_axes_flips_or_memory_order(seed, shape, density):
    mask = random_mask(seed, shape, density)
    expected = betti_numbers(mask)
    assert betti_numbers(mask[::-1].transpose(2, 0, 1)) == expected
    assert betti_numbers(np.asfortranarray(mask)) == expected
    assert betti_numbers(mask.astype(np.uint8)) == expected
    assert expected[0] - expected[1] + expected[2] == euler_number(mask)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_scipy(seed, shape, density):
    mask = random_mask(seed, shape, density)
    labels, count = components(mask)
    reference, expected = ndimage.label(mask, np.ones((3, 3, 3)))
    assert labels.dtype == np.int32
    assert count == expected
    assert np.array_equal(labels, reference)
    assert np.array_equal(components(np.asfortranarray(mask))[0], reference)


@pytest.mark.parametrize("function", [betti_numbers, euler_number, components])
def test_what_is_no_mask_is_refused_in_one_sentence(function):
    for bad in (np.zeros((3, 3), bool), np.zeros((1, 3, 3, 3), bool), np.zeros((3, 0, 3), bool), np.zeros((3, 3, 3))):
        with pytest.raises(InputError, match="mask has"):
            function(bad)


@pytest.mark.parametrize(("modality", "expected"), [("ct", (1, 0, 0)), ("mr", (2, 1, 0))])
def test_circle_of_willis_labels(shared_data, modality, expected):
    import nibabel

    file = shared_data / "circle_of_willis" / f"topcow_{modality}_roi_003.nii.gz"
    assert betti_numbers(np.asarray(nibabel.load(file).dataobj) > 0) == expected
