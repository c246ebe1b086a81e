"""Neuroglancer's precomputed format, read by its specification, and by tensorstore where that is installed."""

import json

import networkx as nx
import numpy as np
import pytest
import trimesh
import zarr

from vesselsdf.blockwise.run import make_plan, reconstruct_in_blocks, tidy
from vesselsdf.cli import main
from vesselsdf.errors import InputError
from vesselsdf.export import neuroglancer
from vesselsdf.export.neuroglancer import write_neuroglancer
from vesselsdf.mesh import write_mesh
from vesselsdf.synthesis.cases import synthetic_case
from vesselsdf.volume import Volume, read_volume
from vesselsdf.zarr_volume import write_volume

TURNED = np.array([[0.0, -0.5, 0, 7], [0.5, 0, 0, -3], [0, 0, -1.0, 2], [0, 0, 0, 1]])


def level(folder, number):
    """The voxels of a level, from its files."""
    scale = json.loads((folder / "info").read_text())["scales"][number]
    values = np.zeros(scale["size"], np.uint8)
    for file in (folder / scale["key"]).iterdir():
        box = tuple(slice(*map(int, part.split("-"))) for part in file.name.split("_"))
        values[box] = np.fromfile(file, np.uint8).reshape(values[box].shape, order="F")
        assert values[box].any()
    return values


def wall(folder):
    """The fragments of the mesh, in nm, as one."""
    assert json.loads((folder / "mesh/info").read_text()) == {"@type": "neuroglancer_legacy_mesh"}
    parts = []
    for name in json.loads((folder / "mesh/1:0").read_text())["fragments"]:
        data = (folder / "mesh" / name).read_bytes()
        count = int(np.frombuffer(data, "<u4", 1)[0])
        vertices = np.frombuffer(data, "<f4", 3 * count, 4).reshape(-1, 3)
        faces = np.frombuffer(data, "<u4", -1, 4 + 12 * count).reshape(-1, 3)
        parts.append(trimesh.Trimesh(vertices.astype(float), faces, process=False))
    return trimesh.util.concatenate(parts)


def skeleton(folder):
    """Places in nm, edges, radii in nm."""
    info = json.loads((folder / "skeleton/info").read_text())
    assert info["@type"] == "neuroglancer_skeletons"
    assert info["transform"] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert info["vertex_attributes"] == [{"id": "radius", "data_type": "float32", "num_components": 1}]
    data = (folder / "skeleton/1").read_bytes()
    n, m = np.frombuffer(data, "<u4", 2).tolist()
    assert len(data) == 8 + 12 * n + 8 * m + 4 * n
    places = np.frombuffer(data, "<f4", 3 * n, 8).reshape(-1, 3)
    edges = np.frombuffer(data, "<u4", 2 * m, 8 + 12 * n).reshape(-1, 2)
    return places.astype(float), edges, np.frombuffer(data, "<f4", n, 8 + 12 * n + 8 * m)


def in_world(folder, places):
    matrix = np.array(json.loads((folder / "info").read_text())["vesselsdf"]["ras_mm_of_nm"])
    return places @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.fixture(scope="module")
def folder(result, made, tmp_path_factory):
    write_mesh(made.mesh(), result / "mesh.ply")
    output = tmp_path_factory.mktemp("neuroglancer") / "precomputed"
    assert main(["export", "neuroglancer", str(result), "-o", str(output)]) == 0
    return output


def test_the_volume_is_the_mask(folder, made):
    info = json.loads((folder / "info").read_text())
    assert (info["@type"], info["type"]) == ("neuroglancer_multiscale_volume", "segmentation")
    assert info["scales"][0]["resolution"] == pytest.approx([5e5, 5e5, 1e6], rel=1e-6)
    assert np.array_equal(level(folder, 0), made.mask.array)
    names = json.loads((folder / info["segment_properties"] / "info").read_text())
    assert names["inline"]["ids"] == ["1"]


def test_mesh_and_skeleton_lie_in_the_voxels_and_lead_back_to_the_world(folder, made):
    found = wall(folder)
    assert np.abs(in_world(folder, found.vertices) - made.mesh().vertices).max() <= 1e-5
    assert found.volume > 0  # outwards, though the grid is mirrored
    assert found.volume * 1e-18 == pytest.approx(made.mesh().volume, rel=1e-5)
    places, edges, radii = skeleton(folder)
    graph = made.graph
    assert (
        np.abs(in_world(folder, places[: len(graph)]) - [data["pos"] for _, data in graph.nodes(data=True)]).max()
        <= 1e-5
    )
    assert np.allclose(radii[: len(graph)] / 1e6, [data["radius"] for _, data in graph.nodes(data=True)], rtol=1e-6)
    drawn = nx.MultiGraph(edges.tolist())
    drawn.add_nodes_from(range(len(places)))
    assert nx.number_connected_components(drawn) == nx.number_connected_components(graph)
    assert len(edges) - len(places) == graph.number_of_edges() - len(graph)
    index = np.floor(places / [5e5, 5e5, 1e6]).astype(int)
    within = ((index >= 0) & (index < made.mask.shape)).all(axis=1)
    assert level(folder, 0)[tuple(index[within].T)].mean() > 0.9


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A blockwise result of two boxes and several levels; its mesh and graph are left in parts."""
    image = synthetic_case(11, (150, 70, 44), (0.5,) * 3, "mr").image.array
    base = tmp_path_factory.mktemp("blocks")
    write_volume(Volume(image.reshape(150, 70, 22, 2).mean(axis=3), TURNED), base / "scan.zarr")
    reconstruct_in_blocks(make_plan(base / "scan.zarr", block=80), base / "result")
    tidy(base / "result")
    return base / "result"


def test_a_blockwise_result_is_read_box_by_box(blocks, tmp_path, monkeypatch):
    """Boxes of 64 voxels here, so that several are read; parts of the mesh become fragments."""
    monkeypatch.setattr(neuroglancer, "BOX", 64)
    monkeypatch.setattr(neuroglancer, "CHUNK", 16)
    made = write_neuroglancer(blocks, tmp_path / "out")
    group = zarr.open_group(str(blocks / "vessels.zarr"), mode="r")
    expected = group["0"][...]
    assert np.array_equal(expected, read_volume(blocks / "vessels.zarr").array)
    (scales,) = group.attrs["ome"]["multiscales"]
    scale, shift = scales["datasets"][0]["coordinateTransformations"]
    assert (scale["scale"], shift["translation"]) == ([0.5, 0.5, 0.5], [7, -3, 2.25])  # first half slice
    parts = len(list((blocks / "mesh").glob("*.ply")))
    assert made["levels"] == 5
    assert made["mesh"] == parts > 1
    for number in range(made["levels"]):
        assert np.array_equal(level(tmp_path / "out", number), expected > 0)
        expected = np.pad(expected, [(0, n % 2) for n in expected.shape])
        x, y, z = (n // 2 for n in expected.shape)
        expected = expected.reshape(x, 2, y, 2, z, 2).max(axis=(1, 3, 5))
    whole = trimesh.load_mesh(blocks / "mesh.ply", process=False)
    found = wall(tmp_path / "out")
    assert found.volume * 1e-18 == pytest.approx(whole.volume, rel=1e-4)
    assert np.allclose(in_world(tmp_path / "out", found.vertices).min(axis=0), whole.bounds[0], atol=1e-5)


def test_a_graph_in_parts_is_one_skeleton(blocks, tmp_path):
    """What a run with more branches than fit into one file leaves."""
    for name in ("vessels.zarr", "mesh"):
        (tmp_path / name).symlink_to(blocks / name)
    parts = tmp_path / "centreline"
    parts.mkdir()
    text = (blocks / "centreline.json").read_text()
    for name in ("0_0_0_0.json", "0_1_0_0.json"):
        (parts / name).write_text(text)
    write_neuroglancer(blocks, tmp_path / "one")
    write_neuroglancer(tmp_path, tmp_path / "two")
    places, edges, radii = skeleton(tmp_path / "one")
    again, more, twice = skeleton(tmp_path / "two")
    assert np.array_equal(again, np.concatenate([places, places]))
    assert np.array_equal(more, np.concatenate([edges, edges + len(places)]))
    assert np.array_equal(twice, np.concatenate([radii, radii]))


def test_what_is_no_result_is_refused_and_nothing_left(tmp_path):
    with pytest.raises(InputError, match=r"has no vessels\.nii\.gz or vessels\.zarr"):
        write_neuroglancer(tmp_path, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_tensorstore_reads_the_same(folder, made):
    tensorstore = pytest.importorskip("tensorstore")
    store = tensorstore.open(
        {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    ).result()
    assert np.array_equal(store[..., 0].read().result(), made.mask.array)
