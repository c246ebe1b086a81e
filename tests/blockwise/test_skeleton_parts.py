"""Cavities are filled in blocks as in the whole."""

import numpy as np

from vesselsdf.blockwise.plan import Plan
from vesselsdf.blockwise.skeleton import CAVITY, _filled
from vesselsdf.field_store import write_fields


def test_small_cavities_are_filled_whatever_the_box(tmp_path):
    x, y, z = np.indices((40, 40, 90)) - np.array([20, 20, 0])[:, None, None, None]
    field = (np.hypot(x, y) - 15).astype(np.float32)
    small, large = np.sqrt(x**2 + y**2 + (z - 30) ** 2), np.sqrt(x**2 + y**2 + (z - 65) ** 2)
    field = np.maximum(field, np.maximum(4 - small, CAVITY / 2 + 1 - large)).astype(np.float32)
    store = write_fields(tmp_path / "sdf.zarr", [field], np.eye(4))
    plan = Plan(
        source="", checkpoint="", checkpoint_sha256="", spacing=1.0, shape=field.shape, affine=np.eye(4).tolist(),
        block=8, levels=1, max_error=0.1,
    )  # fmt: skip
    whole = _filled(plan, store, np.zeros(3, int), np.array(field.shape))
    assert (whole[small < 5] <= 0).all(), "the small one is filled"
    assert (whole[large < 7] > 0).all(), "the large one is not"
    for low, high in (((0, 0, 0), (40, 40, 30)), ((18, 18, 28), (22, 22, 33)), ((0, 10, 33), (40, 40, 70))):
        part = _filled(plan, store, np.array(low), np.array(high))
        assert np.array_equal(part, whole[tuple(map(slice, low, high))])
