"""Ranks of maps in homology without the package: by gudhi's cubical complexes, and by matrices over Z/2 alone."""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation


def cubical_counts(steps: np.ndarray) -> list[dict[tuple[float, float], int]]:
    """gudhi's bars of a field of small integers, per dimension: how many there are with each birth and death."""
    import gudhi

    cubical = gudhi.CubicalComplex(top_dimensional_cells=steps.astype(np.float64))
    cubical.compute_persistence(homology_coeff_field=2)
    result = []
    for dimension in range(3):
        bars, times = np.unique(cubical.persistence_intervals_in_dimension(dimension), axis=0, return_counts=True)
        result.append({tuple(bar): int(n) for bar, n in zip(bars.reshape(-1, 2).tolist(), times, strict=True)})
    return result


def rank(counts: list, low: int, high: int) -> tuple[int, ...]:
    """Ranks of `H_k(steps <= low) -> H_k(steps <= high)`: bars born by `low` that die after `high`."""
    return tuple(sum(n for (birth, death), n in of.items() if birth <= low and death > high) for of in counts)


def nested(*masks: np.ndarray) -> list:
    """Counts of a chain of masks, each within the next, as steps 0, 1, ...; AssertionError where one is not."""
    steps = np.full(masks[0].shape, len(masks))
    for step in reversed(range(len(masks))):
        assert step == 0 or not (masks[step - 1] & ~masks[step]).any(), "an inclusion on which the proof rests fails"
        steps[masks[step]] = step
    return cubical_counts(steps)


def cells_in(mask: np.ndarray) -> np.ndarray:
    """The cells of the closed voxels of a mask as voxels of a grid twice as fine: the same shape, thickened."""
    cells = np.zeros([2 * n + 1 for n in mask.shape], bool)
    cells[1::2, 1::2, 1::2] = mask
    return binary_dilation(cells, np.ones((3, 3, 3)))


def cells_of(mask: np.ndarray) -> list[list[tuple[int, int, int]]]:
    """All cells of the closed voxels of a mask, by dimension; a cell is named by twice the index of its centre."""
    around = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
    cells = {tuple(c) for v in np.argwhere(mask) for c in (2 * v + 1 + around).tolist()}
    by_dimension: list = [[], [], [], []]
    for cell in sorted(cells):
        by_dimension[sum(c % 2 for c in cell)].append(cell)
    return by_dimension


def boundary(cell: tuple[int, int, int], number: dict) -> int:
    """The boundary of a cell as a set of bits: the numbers of its faces."""
    bits = 0
    for axis in range(3):
        if cell[axis] % 2:
            for step in (-1, 1):
                bits ^= 1 << number[(*cell[:axis], cell[axis] + step, *cell[axis + 1 :])]
    return bits


def reduce(vectors: list[int], pivots: dict[int, int]) -> list[int]:
    """Gaussian elimination over Z/2: extends `pivots`; for each vector what was added to make it zero, or 0."""
    relations = []
    basis: dict[int, int] = {}
    for at, start in enumerate(vectors):
        vector, made_of = start, 1 << at
        while vector and vector.bit_length() in pivots:
            made_of ^= basis.get(vector.bit_length(), 0)
            vector ^= pivots[vector.bit_length()]
        if vector:
            pivots[vector.bit_length()], basis[vector.bit_length()] = vector, made_of
        else:
            relations.append(made_of)
    return relations


class BruteForce:
    """Dimensions of images in homology, by ranks of matrices over Z/2."""

    def __init__(self, whole: np.ndarray):
        self.cells = cells_of(whole)
        self.number = [{cell: at for at, cell in enumerate(of)} for of in self.cells]

    def boundaries(self, dimension: int) -> dict[int, int]:
        """A reduced basis of the boundaries of the whole."""
        pivots: dict[int, int] = {}
        reduce([boundary(cell, self.number[dimension]) for cell in self.cells[dimension + 1]], pivots)
        return pivots

    def cycles(self, mask: np.ndarray, dimension: int) -> list[int]:
        """A basis of the cycles of a part of the whole, as sets of cells."""
        cells = cells_of(mask)[dimension]
        number = {cell: at for at, cell in enumerate(cells_of(mask)[dimension - 1])} if dimension else {}
        edges = [boundary(cell, number) if dimension else 0 for cell in cells]
        bits = [1 << self.number[dimension][cell] for cell in cells]
        return [sum(bits[i] for i in range(len(cells)) if made >> i & 1) for made in reduce(edges, {})]

    def image(self, dimension: int, *parts: np.ndarray) -> int:
        """Dimension of the sum of the images of the homology of the parts in that of the whole."""
        pivots = self.boundaries(dimension)
        before = len(pivots)
        reduce([cycle for part in parts for cycle in self.cycles(part, dimension)], pivots)
        return len(pivots) - before


@dataclass(frozen=True)
class Truth:
    """Of a pair of fields, by gudhi: each with a number per dimension."""

    eps: float
    uniform: tuple[int, ...]  # classes of {f < -eps} that live in {f <= eps}
    inside: tuple[int, ...]  # and in G
    local: tuple[int, ...]  # rank of H(P & G) -> H(P | G)
    survivals: tuple[int, ...]  # classes of P and of G that are the same in P | G
    beta_p: tuple[int, ...]
    beta_g: tuple[int, ...]

    @classmethod
    def of(cls, f: np.ndarray, g: np.ndarray) -> "Truth":
        """The truth about a pair of fields on one grid."""
        f = f.astype(np.float64)
        p, g_mask = f <= 0, g <= 0
        eps = float(np.abs(f)[p != g_mask].max(initial=0.0))
        sure, possible = f < -eps, f <= eps
        through_p, through_g = nested(sure, p & g_mask, p, p | g_mask, possible), nested(sure, g_mask, possible)
        return cls(
            eps=eps,
            uniform=rank(through_p, 0, 4),
            inside=rank(through_g, 0, 1),
            local=rank(through_p, 1, 3),
            survivals=rank(nested(cells_in(p) & cells_in(g_mask), cells_in(p | g_mask)), 0, 1),
            beta_p=rank(through_p, 2, 2),
            beta_g=rank(through_g, 1, 1),
        )

    def counts(self, uniform) -> np.ndarray:
        """Uniform, local, true survivals, lesser Betti number; a row each."""
        return np.array([uniform, self.local, self.survivals, np.minimum(self.beta_p, self.beta_g)])
