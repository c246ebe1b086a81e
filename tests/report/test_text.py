"""The text about levels: short, and it names what is lost first, with places."""

import numpy as np

from vesselsdf.branch_persistence import Describe
from vesselsdf.report.text import columns, survival_table
from vesselsdf.scales import pyramid
from vesselsdf.topology.survival import survival


def test_a_ring_that_level_two_loses():
    x, y, z = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    field = (np.hypot(np.hypot(x, y) - 10, z) - 2.2).astype(np.float32)
    text = survival_table(survival(pyramid(field, 3), (0.5, 0.5, 0.5), decide=Describe(), block=20))
    lines = text.splitlines()
    assert len(lines) <= 12
    assert lines[0].split()[:3] == ["level", "mm", "beta0,1,2"]
    assert "Coarsest safe level (all decisions as at level 0): level" in text
    assert "blocks of 20 voxels with vessel" in text
    assert "First losses, at level 2 (places in mm):" in text
    assert "loop cut at (" in text
    assert "margin" in text


def test_ends_are_told_with_their_distance_from_what_is_left():
    x, y, z = np.meshgrid(*[np.arange(40) - 19.5] * 3, indexing="ij")
    wire = np.maximum(np.hypot(x + 5, y) - 1.1, np.abs(z) - 15)
    bar = np.maximum(np.hypot(x - 7, y) - 5, np.abs(z) - 15)
    text = survival_table(survival(pyramid(np.minimum(wire, bar).astype(np.float32), 3), (1.0,) * 3, decide=Describe()))
    assert "  end at (" in text
    assert "mm from what is left" in text


def test_a_report_without_decisions_or_blocks():
    far = np.full((8, 8, 8), 5.0, np.float32)
    text = survival_table(survival(pyramid(far, 2), (1.0, 1.0, 1.0)))
    assert text.endswith("no level.")


def test_columns_keep_numbers_short():
    assert columns(["a"], [[1234.5678], [None], [(1.0, 2)]]).splitlines()[1:] == ["  1235", "     -", "(1, 2)"]
