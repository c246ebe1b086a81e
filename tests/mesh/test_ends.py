"""Ends cut flat: areas, normals, identity, topology, and files that other programs read."""

import csv

import networkx as nx
import numpy as np
import pytest
import trimesh

from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.errors import InputError
from vesselsdf.graph import centreline_graph
from vesselsdf.mesh import check, open_ends, surface, write_groups
from vesselsdf.mesh.caps import clip_ears, fill
from vesselsdf.mesh.cutting import encloses_origin, polygon_area
from vesselsdf.synthesis.trees import grow_tree

TURNED = np.array([[0.36, 0.48, -0.8, 5], [-0.8, 0.6, 0.0, -7], [0.48, 0.64, 0.6, 3], [0, 0, 0, 1]])
TURNED[:3, :3] *= 0.5
FLIPPED = TURNED @ np.diag([-1.0, 1, 1, 1])
OBLONG = TURNED @ np.diag([1.0, 1.0, 1.6, 1.0])


def tubes(branches, shape, affine=None):
    """Field (mm) of round cones given in voxels: lists of (points, radii)."""
    affine = np.eye(4) if affine is None else affine
    graph = nx.MultiGraph()
    scale = np.abs(np.linalg.det(affine[:3, :3])) ** (1 / 3)
    for points, radii in branches:
        points = np.asarray(points, dtype=float) @ affine[:3, :3].T + affine[:3, 3]
        u, v = (tuple(points[k].round(6)) for k in (0, -1))
        for node, k in ((u, 0), (v, -1)):
            graph.add_node(node, pos=points[k], radius=radii[k] * scale)
        graph.add_edge(u, v, points=points, radii=np.asarray(radii, dtype=float) * scale, start=u)
    return tube_distance(graph, shape, affine, band=12.0).astype(np.float32)


def opened_tube(branches, shape, affine=None):
    affine = np.eye(4) if affine is None else affine
    sdf = tubes(branches, shape, affine)
    mesh, graph = surface(sdf, affine), centreline_graph(sdf, affine)
    return mesh, graph, open_ends(mesh, graph)


def boundary_loops(mesh):
    edges, count = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    boundary = nx.Graph(edges[count == 1].tolist())
    assert all(degree == 2 for _, degree in boundary.degree())
    return nx.number_connected_components(boundary) if len(boundary) else 0


def sound(mesh, opened):
    """The cut mesh is as closed and of the same topology as before, its caps are flat discs, its wall is open there."""
    before, after = check(mesh), check(opened.mesh)
    for key in ("watertight", "winding_consistent", "manifold_vertices", "outward"):
        assert after[key], key
    for key in ("euler_number", "components", "self_intersections"):
        assert after[key] == before[key], key
    assert after["degenerate_faces"] == 0
    label = opened.mesh.face_attributes["ModelFaceID"]
    assert set(np.unique(label)) == {1, *(cap.id for cap in opened.caps)}
    assert boundary_loops(opened.wall) == len(opened.caps)
    for cap in opened.caps:
        part = opened.mesh.submesh([np.flatnonzero(label == cap.id)], append=True)
        assert part.euler_number == 1
        np.testing.assert_allclose((part.vertices - cap.centre) @ cap.normal, 0, atol=1e-9)
        assert (part.face_normals @ cap.normal > 0.999).all()
        assert part.area == pytest.approx(cap.area)
        assert cap.area == pytest.approx(np.pi * cap.radius**2)


@pytest.mark.parametrize("affine", [np.eye(4), TURNED, FLIPPED, OBLONG], ids=["plain", "turned", "flipped", "oblong"])
def test_both_caps_of_a_straight_tube_are_its_section(affine):
    axis = np.array([[14.0, 14, 14], [26.0, 30, 44]])
    mesh, graph, opened = opened_tube([(axis, [6.0, 6.0])], (42, 46, 60), affine)
    sound(mesh, opened)
    assert opened.closed == ()
    radius = 6.0 * np.abs(np.linalg.det(affine[:3, :3])) ** (1 / 3)
    along = (axis[1] - axis[0]) @ affine[:3, :3].T
    along /= np.linalg.norm(along)
    for cap in opened.caps:
        assert cap.area == pytest.approx(np.pi * radius**2, rel=0.02)
        assert np.degrees(np.arccos(abs(cap.normal @ along))) < 3
        assert (cap.centre - opened.mesh.centroid) @ cap.normal > 0
        assert np.linalg.norm(np.cross(cap.centre - graph.nodes[cap.node]["pos"], along)) < 0.1 * radius


def test_a_capsule_loses_no_more_than_its_half_balls_and_what_was_cut_deeper():
    mesh, _, opened = opened_tube([([[10, 10, 12], [10, 10, 48]], [6.0, 6.0])], (21, 21, 61))
    kept = (opened.caps[0].centre - opened.caps[1].centre)[2]
    assert opened.mesh.volume == pytest.approx(np.pi * 36 * abs(kept), rel=0.015)
    assert mesh.volume - opened.mesh.volume >= 0.97 * 4 / 3 * np.pi * 6**3


def test_a_tapered_tube_is_cut_at_its_own_radius_at_each_end():
    _, _, opened = opened_tube([([[12, 12, 12], [12, 12, 62]], [8.0, 4.0])], (25, 25, 75))
    inlet, outlet = opened.caps
    assert inlet.inlet
    assert not outlet.inlet
    for cap in opened.caps:
        true = np.interp(cap.centre[2], [12, 62], [8, 4])  # measured across the axis: a little less than the cone's own
        assert cap.radius == pytest.approx(true, rel=0.03)
        assert abs(cap.normal[2]) > np.cos(np.radians(3))


def test_the_cap_of_a_bent_tube_follows_the_bend():
    angle = np.linspace(0, np.pi / 2, 40)
    points = np.column_stack([8 + 30 * np.sin(angle), np.full(40, 9.0), 8 + 30 * np.cos(angle)])
    mesh, _, opened = opened_tube([(points, np.full(40, 4.0))], (48, 19, 48))
    sound(mesh, opened)
    assert len(opened.caps) == 2
    for cap in opened.caps:
        radial = cap.centre - np.array([8, 9, 8])
        tangent = np.cross(radial / np.linalg.norm(radial), [0, 1, 0])
        assert abs(cap.normal @ tangent) > np.cos(np.radians(6))


@pytest.mark.parametrize("tilt", [0.0, 0.5, 1.0])
def test_a_vessel_that_leaves_the_grid_is_cut_across_not_along_the_border(tilt):
    direction = np.array([np.sin(tilt), 0, np.cos(tilt)])
    points = np.array([[10.0, 14, 10], [10.0, 14, 10] + 80 * direction])
    shape = (60 if tilt else 21, 28, 40)
    mesh, _, opened = opened_tube([(points, [5.0, 5.0])], shape)
    sound(mesh, opened)
    assert len(opened.caps) == 2
    for cap in opened.caps:
        assert cap.area == pytest.approx(np.pi * 25, rel=0.03)
        assert np.degrees(np.arccos(abs(cap.normal @ direction))) < 5


def test_the_three_ends_of_a_fork_keep_their_names():
    fork = np.array([30.0, 12, 30])
    branches = [
        (np.array([[30.0, 12, 8], fork]), [6.0, 6.0]),
        (np.array([fork, [12.0, 12, 55]]), [4.0, 4.0]),
        (np.array([fork, [50.0, 12, 52]]), [3.0, 3.0]),
    ]
    mesh, graph, opened = opened_tube(branches, (64, 25, 66))
    sound(mesh, opened)
    assert [cap.inlet for cap in opened.caps] == [True, False, False]
    assert opened.caps[0].node == graph.graph["root"]
    assert opened.groups == {1: "wall", **{cap.id: cap.name for cap in opened.caps}}
    tips = np.array([branches[0][0][0], branches[1][0][1], branches[2][0][1]])
    radii = [6.0, 4.0, 3.0]
    for cap in opened.caps:
        nearest = int(np.argmin(np.linalg.norm(tips - graph.nodes[cap.node]["pos"], axis=1)))
        assert np.linalg.norm(cap.centre - tips[nearest]) < 2 * radii[nearest]
        assert cap.radius == pytest.approx(radii[nearest], rel=0.04)


def test_only_the_chosen_end_is_cut_and_can_be_made_the_inlet():
    sdf = tubes([([[10, 10, 12], [10, 10, 48]], [6.0, 5.0])], (21, 21, 61))
    mesh, graph = surface(sdf, np.eye(4)), centreline_graph(sdf, np.eye(4))
    end = next(node for node in graph if node != graph.graph["root"])
    opened = open_ends(mesh, graph, terminals=[end], inlets=[end])
    sound(mesh, opened)
    assert [(cap.node, cap.name) for cap in opened.caps] == [(end, f"inlet_{end}")]
    with pytest.raises(InputError, match="Inlet"):
        open_ends(mesh, graph, terminals=[end], inlets=[graph.graph["root"]])
    with pytest.raises(InputError, match="Node 99 is no end"):
        open_ends(mesh, graph, terminals=[99])


@pytest.mark.parametrize(("seed", "loops"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("masked", [False, True], ids=["field", "mask"])
def test_every_end_of_a_tree_gets_a_cap(seed, loops, masked):
    tree = grow_tree(seed, (64, 64, 64), (1.0, 1.0, 1.0), loops=loops)
    sdf = tube_distance(tree, (64, 64, 64), np.eye(4), band=8.0).astype(np.float32)
    if masked:
        sdf = signed_distance(sdf <= 0, (1.0, 1.0, 1.0), band=5.0)
    mesh, graph = surface(sdf, np.eye(4)), centreline_graph(sdf, np.eye(4))
    opened = open_ends(mesh, graph)
    sound(mesh, opened)
    ends = [node for node, degree in graph.degree() if degree == 1]
    assert sorted([cap.node for cap in opened.caps] + [end.node for end in opened.closed]) == sorted(ends)
    assert len(opened.closed) <= 1


def test_a_vessel_that_the_plane_crosses_elsewhere_stays_whole():
    alone = [([[10, 10, 12], [10, 10, 48]], [5.0, 5.0])]
    both = [*alone, ([[30, 10, 6], [30, 10, 62]], [5.0, 5.0])]
    sdf = tubes(both, (41, 21, 69))
    mesh, graph = surface(sdf, np.eye(4)), centreline_graph(sdf, np.eye(4))
    nodes = [node for node in graph if graph.degree(node) == 1 and graph.nodes[node]["pos"][0] < 20]
    opened = open_ends(mesh, graph, terminals=nodes)
    sound(mesh, opened)
    other = max(opened.mesh.split(), key=lambda part: part.centroid[0])
    untouched = max(mesh.split(), key=lambda part: part.centroid[0])
    assert other.volume == pytest.approx(untouched.volume, rel=1e-12)


def test_an_end_that_touches_another_vessel_stays_closed_with_its_reason():
    # The tip of the short tube is buried in the side of the long one, but the graph claims a free end there.
    sdf = tubes([([[30, 12, 8], [30, 12, 60]], [6.0, 6.0]), ([[30, 12, 34], [8, 12, 34]], [3.0, 3.0])], (48, 25, 69))
    mesh = surface(sdf, np.eye(4))
    graph = nx.MultiGraph(roots=[0], root=0)
    ends = np.array([[32.0, 12, 34], [8.0, 12, 34]])
    for node, pos in enumerate(ends):
        graph.add_node(node, pos=pos, radius=3.0)
    points = np.linspace(*ends, 25)
    graph.add_edge(0, 1, points=points, radii=np.full(25, 3.0), length=24.0, start=0)
    opened = open_ends(mesh, graph)
    sound(mesh, opened)
    assert [cap.node for cap in opened.caps] == [1]
    (closed,) = opened.closed
    assert closed.node == 0
    np.testing.assert_array_equal(closed.place, ends[0])
    assert closed.reason


def test_bad_input_gets_one_sentence():
    sdf = tubes([([[10, 10, 12], [10, 10, 48]], [6.0, 6.0])], (21, 21, 61))
    mesh, graph = surface(sdf, np.eye(4)), centreline_graph(sdf, np.eye(4))
    with pytest.raises(InputError, match="not closed"):
        open_ends(trimesh.Trimesh(mesh.vertices, mesh.faces[1:], process=False), graph)
    with pytest.raises(InputError, match="inwards"):
        open_ends(trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False), graph)
    far = np.eye(4)
    far[:3, 3] = 500
    with pytest.raises(InputError, match="same vessel"):
        open_ends(mesh, centreline_graph(sdf, far))
    x, y, z = np.indices((40, 40, 15)) - np.array([20, 20, 7]).reshape(3, 1, 1, 1)
    torus = np.hypot(np.hypot(x, y) - 13, z) - 4
    with pytest.raises(InputError, match="no end"):
        open_ends(surface(torus, np.eye(4)), centreline_graph(torus, np.eye(4)))


def test_a_cap_fills_a_polygon_that_no_point_sees_whole():
    outline = np.array([[0, 0], [6, 0], [6, 4], [4, 4], [4, 1], [2, 1], [2, 4], [0, 4]], dtype=float)  # a U
    inside, faces = fill(outline)
    assert len(inside) == 0
    corners = outline[faces]
    assert sum(polygon_area(corner) for corner in corners) == pytest.approx(polygon_area(outline))
    assert all(polygon_area(corner) > 0 for corner in corners)
    assert clip_ears(outline[::-1]) is None
    star = np.array([[3, 0], [1, 1], [0, 3], [-1, 1], [-3, 0], [-1, -1], [0, -3], [1, -1]], dtype=float)
    inside, faces = fill(star)
    assert len(inside) >= 1
    assert sum(polygon_area(corner) for corner in np.concatenate([star, inside])[faces]) == pytest.approx(24 / 2)
    assert encloses_origin(star)
    assert not encloses_origin(star + 5)


def test_groups_are_read_back_by_vtk_and_trimesh(tmp_path):
    vtk = pytest.importorskip("vtk")
    _, _, opened = opened_tube([([[10, 10, 12], [10, 10, 48]], [6.0, 5.0])], (21, 21, 61))
    for suffix in (".vtp", ".stl", ".obj", ".csv"):
        write_groups(opened, tmp_path / f"tube{suffix}")
    with pytest.raises(InputError, match="suffix"):
        write_groups(opened, tmp_path / "tube.msh")
    assert len(list(tmp_path.iterdir())) == 4

    reader = vtk.vtkXMLPolyDataReader()
    reader.SetFileName(str(tmp_path / "tube.vtp"))
    reader.Update()
    array = reader.GetOutput().GetCellData().GetArray("ModelFaceID")
    ids = [array.GetValue(k) for k in range(array.GetNumberOfTuples())]
    np.testing.assert_array_equal(ids, opened.mesh.face_attributes["ModelFaceID"])

    parts = trimesh.load(tmp_path / "tube.stl").geometry
    assert sorted(parts) == sorted(opened.groups.values())
    for cap in opened.caps:
        assert parts[cap.name].area == pytest.approx(cap.area, rel=1e-6)
    whole = trimesh.util.concatenate(list(parts.values()))
    whole.merge_vertices()
    assert whole.is_watertight

    whole = trimesh.load(tmp_path / "tube.obj", process=False)
    assert whole.is_watertight
    assert whole.volume == pytest.approx(opened.mesh.volume, rel=1e-6)
    groups = {}
    for line in (tmp_path / "tube.obj").read_text().splitlines():
        if line.startswith("g "):
            name = line.split()[1]
        elif line.startswith("f "):
            groups[name] = groups.get(name, 0) + 1
    label = opened.mesh.face_attributes["ModelFaceID"]
    assert groups == {name: (label == number).sum() for number, name in opened.groups.items()}

    rows = list(csv.DictReader((tmp_path / "tube.csv").read_text().splitlines()))
    assert [(int(row["id"]), row["name"], int(row["node"])) for row in rows] == [
        (cap.id, cap.name, cap.node) for cap in opened.caps
    ]
    assert float(rows[0]["area_mm2"]) == pytest.approx(opened.caps[0].area, rel=1e-8)
