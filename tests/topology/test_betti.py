"""Betti numbers: solids whose topology is known by hand, then gudhi and scikit-image, then random masks."""

import itertools

import gudhi
import numpy as np
import pytest
import skimage.measure
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vesselsdf.errors import InputError
from vesselsdf.topology.betti import ambiguous_contacts, betti_numbers, components, euler_number


def gudhi_betti(mask):
    """Betti numbers of the union of closed voxels (T-construction), by persistence over Z/2."""
    field = np.pad(np.where(mask, 0.0, 1.0), 1, constant_values=1.0)
    cubical = gudhi.CubicalComplex(top_dimensional_cells=field)
    cubical.compute_persistence(homology_coeff_field=2)
    counts = cubical.persistent_betti_numbers(0.5, 0.5)
    return tuple(counts[:3])


def gudhi_betti_open(mask):
    """Betti numbers with voxels as vertices (V-construction), by persistence over Z/2."""
    cubical = gudhi.CubicalComplex(vertices=np.pad(np.where(mask, 0.0, 1.0), 1, constant_values=1.0))
    cubical.compute_persistence(homology_coeff_field=2)
    return tuple(cubical.persistent_betti_numbers(0.5, 0.5)[:3])


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
    for pair in ("26/6", "6/26"):
        assert betti_numbers(np.zeros((4, 5, 6), bool), pair) == (0, 0, 0)
        for shape in ((4, 5, 6), (1, 1, 1), (1, 64, 64), (70, 1, 1), (1, 1, 128)):
            assert betti_numbers(np.ones(shape, bool), pair) == (1, 0, 0)
            assert euler_number(np.ones(shape, bool), pair) == 1
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
        assert betti_numbers(mask, pair="6/26") == gudhi_betti_open(mask)


@pytest.mark.parametrize("shape", [(20, 21, 63), (20, 21, 64), (20, 21, 65), (4, 5, 127), (4, 5, 129)])
def test_words_of_64_voxels_have_no_seams(shape):
    for density in (0.1, 0.5, 0.9):
        mask = random_mask(7, shape, density)
        beta0 = ndimage.label(mask, np.ones((3, 3, 3)))[1]
        beta2 = ndimage.label(~np.pad(mask, 1))[1] - 1
        chi = skimage.measure.euler_number(np.pad(mask, 1), connectivity=3)
        assert euler_number(mask) == chi
        assert betti_numbers(mask) == (beta0, beta0 + beta2 - chi, beta2)
        beta0 = ndimage.label(mask)[1]
        beta2 = ndimage.label(~np.pad(mask, 1), np.ones((3, 3, 3)))[1] - 1
        chi = skimage.measure.euler_number(np.pad(mask, 1), connectivity=1)
        assert euler_number(mask, "6/26") == chi
        assert betti_numbers(mask, "6/26") == (beta0, beta0 + beta2 - chi, beta2)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_counts_do_not_depend_on_axes_flips_or_memory_order(seed, shape, density):
    mask = random_mask(seed, shape, density)
    expected = betti_numbers(mask)
    for axes in itertools.permutations(range(3)):
        assert betti_numbers(mask[::-1, :, ::-1].transpose(axes)) == expected
    assert betti_numbers(np.asfortranarray(mask)) == expected
    assert betti_numbers(np.repeat(mask, 2, axis=2)[:, :, ::-2]) == expected
    assert betti_numbers(np.asfortranarray(mask).astype(np.int16) * -7) == expected
    assert betti_numbers(mask.astype(np.uint8)) == expected
    assert expected[0] - expected[1] + expected[2] == euler_number(mask)


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_open_voxels_are_the_complement_of_closed_background(seed, shape, density):
    # Alexander duality in a ball.
    mask = random_mask(seed, shape, density)
    beta0, beta1, beta2 = betti_numbers(~np.pad(mask, 1))
    assert betti_numbers(mask, pair="6/26") == (beta2, beta1, beta0 - 1)


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


def test_a_diagonal_contact_is_where_the_pairs_disagree():
    affine = np.array([[0.5, 0, 0, 10], [0, 2, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1.0]])
    ring = np.zeros((7, 7, 5), bool)
    ring[1:6, 1:6, 2] = True
    ring[2:5, 2:5] = False
    assert len(ambiguous_contacts(ring)) == 0
    ring[1, 1] = False  # the ring now closes at two voxels that share an edge
    assert betti_numbers(ring) == (1, 1, 0)
    assert betti_numbers(ring, "6/26") == (1, 0, 0)
    found = ambiguous_contacts(ring, affine)
    assert found.voxels.tolist() == [[[1, 2, 2], [2, 1, 2]]]
    assert found.places.tolist() == [[10.75, 23.0, 32.0]]
    # Two voxels that share a corner, and the same with background and vessel exchanged.
    corner = np.zeros((4, 4, 70), bool)
    corner[1, 2, 63] = corner[2, 1, 64] = True
    for mask, of_vessel in ((corner, True), (~corner, False)):
        found = ambiguous_contacts(mask)
        assert found.voxels.tolist() == [[[1, 2, 63], [2, 1, 64]]]
        assert found.vessel.tolist() == [of_vessel]
        assert found.places.tolist() == [[1.5, 1.5, 63.5]]
    assert (betti_numbers(corner), betti_numbers(corner, "6/26")) == ((1, 0, 0), (2, 0, 0))
    assert (betti_numbers(~corner), betti_numbers(~corner, "6/26")) == ((1, 0, 2), (1, 0, 1))


def test_around_a_corner_without_contact_both_kinds_are_connected_through_squares():
    """The one step of the theorem that a computer can check: all 256 neighbourhoods of a corner."""
    without = 0
    for bits in itertools.product((False, True), repeat=8):
        mask = np.array(bits).reshape(2, 2, 2)
        contacts = ambiguous_contacts(mask)
        pieces = ndimage.label(mask)[1], ndimage.label(~mask)[1]
        assert (max(pieces) > 1) == (len(contacts) > 0)
        without += len(contacts) == 0
    assert 2 < without < 256


def contacts_one_by_one(mask):
    """Contacts by the definition, corner by corner and edge by edge."""
    padded = np.pad(mask, 1)
    found = set()
    for size in set(itertools.permutations((2, 2, 1))) | {(2, 2, 2)}:
        for start in np.ndindex(*(n - s + 1 for n, s in zip(padded.shape, size, strict=True))):
            box = padded[tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))]
            for of_vessel in (True, False) if size == (2, 2, 2) else (True,):
                voxels = np.argwhere(box == of_vessel)
                if len(voxels) == 2 and (abs(voxels[0] - voxels[1]) == np.array(size) - 1).all():
                    found.add((*map(tuple, (voxels + start - 1).tolist()), of_vessel))
    return found


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 5)] * 3), st.floats(0, 1), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_contacts_are_those_of_the_definition(seed, shape, density, axis):
    mask = random_mask(seed, shape, density)
    far = [(0, 0)] * 3
    far[axis] = (61, 2)  # across the seam between two words
    mask = np.pad(mask, far)
    found = ambiguous_contacts(mask)
    rows = [
        (tuple(p), tuple(q), kind) for (p, q), kind in zip(found.voxels.tolist(), found.vessel.tolist(), strict=True)
    ]
    assert rows == sorted(rows)
    assert set(rows) == contacts_one_by_one(mask)
    assert len(rows) == len(set(rows))
    assert np.array_equal(mask[tuple(found.voxels.reshape(-1, 3).T)], np.repeat(found.vessel, 2))


@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 8)] * 3), st.floats(0, 0.6))
@settings(max_examples=80, deadline=None)
def test_without_contacts_both_pairs_agree(seed, shape, density):
    mask = random_mask(seed, shape, density)
    # Fill the contacts until there are none; that ends with the full box at the latest.
    while len(contacts := ambiguous_contacts(mask)):
        for p, q in contacts.voxels:
            mask[tuple(slice(min(a, b), max(a, b) + 1) for a, b in zip(p, q, strict=True))] = True
    assert betti_numbers(mask) == betti_numbers(mask, "6/26")
    assert euler_number(mask) == euler_number(mask, "6/26")


def test_contacts_of_what_has_none():
    for mask in (
        np.zeros((3, 4, 5), bool),
        np.ones((3, 4, 5), bool),
        np.ones((1, 1, 1), bool),
        np.ones((5, 1, 1), bool),
    ):
        found = ambiguous_contacts(mask)
        assert len(found) == 0
        assert found.voxels.shape == (0, 2, 3)
        assert found.places.shape == (0, 3)
    with pytest.raises(InputError, match="affine"):
        ambiguous_contacts(np.ones((3, 3, 3), bool), np.full((4, 4), np.nan))


@pytest.mark.parametrize("function", [betti_numbers, euler_number, components, ambiguous_contacts])
def test_what_is_no_mask_is_refused_in_one_sentence(function):
    for bad in (np.zeros((3, 3), bool), np.zeros((1, 3, 3, 3), bool), np.zeros((3, 0, 3), bool), np.zeros((3, 3, 3))):
        with pytest.raises(InputError, match="mask has"):
            function(bad)
    for function in (betti_numbers, euler_number):
        with pytest.raises(InputError, match="pair is '18/6'"):
            function(np.ones((2, 2, 2), bool), pair="18/6")


@pytest.mark.parametrize(("modality", "expected"), [("ct", (1, 0, 0)), ("mr", (2, 1, 0))])
def test_circle_of_willis_labels(shared_data, modality, expected):
    import nibabel

    file = shared_data / "circle_of_willis" / f"topcow_{modality}_roi_003.nii.gz"
    assert betti_numbers(np.asarray(nibabel.load(file).dataobj) > 0) == expected
