"""Distance to the zero set: cubic interpolation, any frame, and the lids of vessels that leave the grid."""

import numpy as np
import pytest
from vessels import FRAMES, frame, straight

from vesselsdf import mesh
from vesselsdf.errors import InputError
from vesselsdf.mesh.zero_set import zero_set


@pytest.mark.parametrize("name", FRAMES)
def test_quadratic_fields_are_read_exactly_in_any_frame(name):
    affine = frame(name)
    index = np.indices((14, 15, 16)).reshape(3, -1).T.astype(float)
    rng = np.random.default_rng(1)
    square, slope = rng.normal(size=(3, 3)), rng.normal(size=3)
    field = (np.einsum("ni,ij,nj->n", index, square, index) / 50 + index @ slope).reshape(14, 15, 16)
    inner = rng.uniform(2, 11, (200, 3))
    found = zero_set(field, affine, inner @ affine[:3, :3].T + affine[:3, 3])
    expected = np.einsum("ni,ij,nj->n", inner, square, inner) / 50 + inner @ slope
    assert found.distance(inner @ affine[:3, :3].T + affine[:3, 3]) == pytest.approx(expected, abs=2e-5)


def test_the_wall_of_a_thin_vessel_is_where_it_is():
    """At a radius of 1.3 voxels linear interpolation is 0.1 voxel off, cubic 0.02."""
    points = np.array(
        [[10 + 1.3 * np.cos(a), 10.3 + 1.3 * np.sin(a), z] for a in np.arange(0, 6, 0.1) for z in (8, 8.5)]
    )
    x, y, _ = np.indices((21, 21, 20))
    field = np.hypot(x - 10, y - 10.3) - 1.3
    assert np.abs(zero_set(field, np.eye(4), points).distance(points)).max() < 0.03


def test_a_lid_on_the_border_of_the_grid_is_part_of_the_zero_set():
    x, y, _ = np.indices((21, 21, 20))
    tube = mesh.surface(np.hypot(x - 10, y - 10) - 6.0, frame("uneven", 0.4))
    distance = zero_set(np.hypot(x - 10, y - 10) - 6.0, frame("uneven", 0.4), tube.vertices).distance(tube.vertices)
    # The lid is a plane 6 voxels across, where the field goes down to -6; the rim is cut off half-way.
    assert np.abs(distance).max() < 0.6


def test_a_field_of_another_mesh_is_refused():
    _, sdf = straight(frame("plain"))
    with pytest.raises(InputError, match="give the field and the affine that the mesh was made from"):
        zero_set(sdf, frame("plain"), np.array([[500.0, 0, 0]]))
