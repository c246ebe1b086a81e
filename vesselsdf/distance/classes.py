"""Signed distances of classes that touch, as arteries and veins, so that the wall between two of them is one surface.

Why. The distance field of each class by itself has a wall of its own. Between two classes alone they coincide (the
masks are each other's complement there), but where background is near, each takes account of it in its own way: the
surfaces gape or overlap by a fraction of a voxel, all around every contact of thin vessels.

Strategy. Let `d(v)` be the depth of a labelled voxel: how far it lies inside its own class. The field of class A takes
`+d(v)`, instead of its own distance, at the voxels v of other classes that are 26-adjacent to A. These differ near the
places where three meet only, and keep every sign. Then in a cell of the grid (eight voxel centres) with corners in A
and B all corners in B are 26-adjacent to A and the other way round, and

- if all eight corners are in A or B, `phi_A = -phi_B` at all of them: the same zero set of any interpolation that takes
  these eight values and does not prefer a sign, from both sides: no gap, no overlap;
- if there is background or a third class too, `phi_A + phi_B >= 0` at all corners: no overlap, and a gap inside that
  cell, since both walls turn off to the sides there.

Cells without corners in both classes hold no wall between them.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int
from scipy import ndimage

from vesselsdf.distance.labels import signed_distance


def class_distances(
    label: Int[np.ndarray, "x y z"], ids: Sequence[int], spacing: tuple[float, float, float]
) -> list[Float32[np.ndarray, "x y z"]]:
    """Signed distance in mm of each class, negative inside; as `signed_distance` but beside another class.

    label: (X, Y, Z), the classes as whole numbers. ids: which of them; all others count as background. Every sign is
    that of the label. Raises InputError for an id that no voxel has, or all have.

    >>> label = np.array([1, 1, 1, 2, 2, 2, 0, 0])[:, None, None]
    >>> for field in class_distances(label, (1, 2), (1.0, 1.0, 1.0)):
    ...     print(*field.ravel().round(3))
    -2.5 -1.5 -0.5 0.5 1.5 2.5 3.5 4.5
    2.5 1.5 0.5 -0.5 -1.5 -0.5 0.5 1.5
    """
    fields = [signed_distance(label == number, spacing) for number in ids]
    depth = np.zeros(label.shape, np.float32)
    for number, field in zip(ids, fields, strict=True):
        inside = label == number
        depth[inside] = -field[inside]
    labelled = depth > 0
    for number, field in zip(ids, fields, strict=True):
        inside = label == number
        beside = grown(inside) & labelled & ~inside
        field[beside] = depth[beside]
    return fields


def grown(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The mask with all voxels that are 26-adjacent to it."""
    return ndimage.maximum_filter(mask, 3, mode="constant", cval=False)
