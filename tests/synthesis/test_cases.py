import networkx as nx
import numpy as np
import pytest

from vesselsdf.distance import tube_distance
from vesselsdf.errors import InputError
from vesselsdf.synthesis import cases
from vesselsdf.synthesis.cases import close_up, grid_affine, synthetic_case, write_case
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.volume import read_volume

SHAPE, SPACING = (56, 48, 52), (0.5, 0.5, 0.8)


@pytest.mark.parametrize("modality", ["ct", "mr", "microscopy"])
def test_image_label_field_and_graph_tell_the_same_story(modality, monkeypatch):
    monkeypatch.setattr(cases, "DISEASED", 0.0)  # sacs have no centreline
    case = synthetic_case(3, SHAPE, SPACING, modality, loops=1, branches=16)
    assert case.image.shape == case.label.shape == case.sdf.shape == SHAPE
    assert case.sdf.spacing == pytest.approx(SPACING)
    assert np.array_equal(case.label.array > 0, case.sdf.array <= 0)
    assert betti_numbers(case.label.array) == (1, 1, 0)
    np.testing.assert_allclose(case.sdf.array, tube_distance(case.graph, SHAPE, case.sdf.affine))
    for _, node in case.graph.nodes(data=True):
        index = case.sdf.to_index(node["pos"][None])[0]
        assert (index >= 0).all()
        assert (index <= np.array(SHAPE) - 1).all()


def test_the_same_seed_gives_the_same_case():
    one, two = (synthetic_case(8, SHAPE, SPACING, "mr", band=2.0) for _ in range(2))
    assert np.array_equal(one.image.array, two.image.array)
    assert np.array_equal(one.sdf.affine, two.sdf.affine)
    assert nx.utils.graphs_equal(nx.MultiGraph(one.graph.edges(keys=True)), nx.MultiGraph(two.graph.edges(keys=True)))
    assert np.abs(one.sdf.array).max() <= 2.0


@pytest.mark.parametrize("seed", range(10))
def test_any_seed_gives_a_case_in_a_small_box(seed):
    case = synthetic_case(seed, (48, 48, 48), (1.0, 1.0, 1.0), "ct", band=2.0)
    beta0, beta1, beta2 = betti_numbers(case.label.array)
    assert (beta0, beta2) == (1, 0)
    assert beta1 == case.graph.number_of_edges() - case.graph.number_of_nodes() + 1


def test_grids_are_oblique_but_orthogonal_and_some_are_left_handed():
    generator = np.random.default_rng(0)
    affines = [grid_affine(SHAPE, SPACING, generator) for _ in range(12)]
    for affine in affines:
        axes = affine[:3, :3] / SPACING
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(affine @ [*(np.array(SHAPE) - 1) / 2, 1], [0, 0, 0, 1], atol=1e-9)
    assert len({np.sign(np.linalg.det(affine[:3, :3])) for affine in affines}) == 2
    assert np.allclose(grid_affine(SHAPE, SPACING, None)[:3, :3], np.diag(SPACING))


def test_thick_slices_cover_the_same_box():
    case = synthetic_case(2, (48, 48, 50), (0.5, 0.5, 0.5), "ct", slices=4, band=2.0)
    assert case.image.shape == (48, 48, 12)
    assert case.image.spacing == pytest.approx((0.5, 0.5, 2.0))
    corner = np.array([[-0.5, -0.5, -0.5]])
    np.testing.assert_allclose(case.image.to_world(corner), case.label.to_world(corner))


def test_a_written_case_reads_back(tmp_path):
    case = synthetic_case(1, (48, 48, 48), (0.5, 0.5, 0.5), "ct", band=2.0)
    paths = write_case(case, tmp_path, "tree_001")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"{kind}/tree_001.nii.gz" for kind in ("images", "labels", "sdf")
    ]
    for path, volume in zip(paths, (case.image, case.label, case.sdf), strict=True):
        back = read_volume(path)
        np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
        np.testing.assert_allclose(back.array, volume.array, atol=1e-4)


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="modality"):
        synthetic_case(0, SHAPE, SPACING, "pet", loops=0)
    with pytest.raises(InputError, match="loops"):
        synthetic_case(0, SHAPE, SPACING, "ct", loops=-1)


@pytest.mark.parametrize(("magnification", "seed"), [(1.5, 1), (4.0, 2), (8.0, 3)])
def test_a_close_up_is_the_same_vessel_so_many_times_as_large(magnification, seed):
    image, field = close_up(seed, SHAPE, SPACING, "mr", magnification)
    assert image.shape == field.shape == SHAPE
    assert np.array_equal(image.affine, field.affine)
    # The place that is looked at is a point of a centreline: the box's centre is vessel, as deep as a thick branch.
    centre = tuple((np.array(SHAPE) - 1) // 2)
    voxel = np.sqrt(np.mean(np.square(SPACING)))
    assert field.array[centre] < -0.8 * magnification * voxel
    # Distances: nowhere steeper than 1, and no voxel of vessel farther from its wall than the box and the tree allow.
    for axis, step in enumerate(field.spacing):
        assert np.abs(np.diff(field.array, axis=axis)).max() <= step * (1 + 1e-4)


def test_thick_slices_of_a_close_up_cover_its_box():
    image, field = close_up(4, (40, 40, 42), (0.5, 0.5, 0.5), "ct", 3.0, slices=4)
    assert image.shape == (40, 40, 10)
    low, high = (field.to_index(image.to_world(np.array([[0, 0, z]], float))) for z in (0, 9))
    assert low[0, 2] == pytest.approx(1.5)
    assert high[0, 2] == pytest.approx(37.5)
