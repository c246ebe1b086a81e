"""Cerebral arteries traced from MR angiography (BraVa), put on a grid as tubes and recovered: length, branches, radii.

    python benchmarks/brava.py [--spacing 0.35] [--trees BG001 BG05 BG07 BG10 BG18] [--mask]

The traced tree (SWC) is the truth: one tree without loops, 150 to 300 branches, radii 0.31 to 2.7 mm (one value per
stretch of a vessel; places rounded to 0.3 or 0.6 mm). The default spacing keeps the thinnest vessel whole: a ball of
radius sqrt(3)/2 voxels always holds a voxel's centre, and 0.31 mm / 0.866 = 0.358 mm. Coarser grids break it.

Traced tubes of different vessels run into each other, so on any grid the union of the tubes has loops that the tree has
not. They are told apart: `overlap` counts the places where two stretches of the tree that are far apart along it have
walls that cross, `touch` those where the walls come so close (within the diagonal of a voxel) that their voxels may be
neighbours; `unexplained` are false merges (`vesselsdf.comparison`) with no such place within 2 mm. What was found of
the truth is measured point by point, so it does not depend on them: share of the true length with a found centreline
within a voxel (or the radius), share of true branches of which 80% was found, and errors of centre and radius there.
The sum of lengths does: 8 to 10% of the traced length runs inside the lumen of another branch, where one centreline
stands for both.
`clear` errors leave out what lies within three radii of a junction or a contact.
"""

import argparse
import sys
import time
from pathlib import Path

import networkx as nx
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from vesselsdf.anatomy import summary
from vesselsdf.centreline_points import sample
from vesselsdf.comparison import compare_graphs
from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.graph import centreline_graph
from vesselsdf.graph_files import read_swc
from vesselsdf.report.text import columns
from vesselsdf.topology.betti import betti_numbers

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "brava"
TREES = ("BG001", "BG05", "BG07", "BG10", "BG18")


def on_grid(tree: nx.MultiGraph, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact signed distance of the tree's tubes, and the affine of a grid that holds them."""
    line = sample(tree, spacing)
    margin = line.radii.max() + 4 * spacing
    low, high = line.points.min(axis=0) - margin, line.points.max(axis=0) + margin
    affine = np.diag([spacing] * 3 + [1.0])
    affine[:3, 3] = low
    shape = tuple(int(n) for n in np.ceil((high - low) / spacing) + 1)
    return tube_distance(tree, shape, affine, band=float(margin)), affine


def contacts(tree: nx.MultiGraph, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """All places where stretches of the tree that are far apart along it meet, and for each contact (a cluster of such
    places) whether the walls cross there.
    """
    line = sample(tree, spacing / 2)
    pairs = cKDTree(line.points).query_pairs(2 * line.radii.max() + 2 * spacing, output_type="ndarray")
    both = line.radii[pairs].sum(axis=1)
    away = np.linalg.norm(line.points[pairs[:, 0]] - line.points[pairs[:, 1]], axis=1)
    near = away < both + np.sqrt(3) * spacing
    pairs, both, away = pairs[near], both[near], away[near]
    far = np.concatenate(
        [
            line.geodesic(part[:, 0], part[:, 1]) > 3 * width + 4 * spacing
            for part, width in zip(np.array_split(pairs, 40), np.array_split(both, 40), strict=True)
        ]
    )
    pairs, both, away = pairs[far], both[far], away[far]
    if not len(pairs):
        return np.zeros((0, 3)), np.zeros(0, bool)
    middle = line.points[pairs].mean(axis=1)
    ties = cKDTree(middle).query_pairs(3 * spacing, output_type="ndarray")
    _, label = connected_components(
        coo_array((np.ones(len(ties), bool), (ties[:, 0], ties[:, 1])), shape=(len(pairs),) * 2), directed=False
    )
    crossing = np.zeros(label.max() + 1, bool)
    crossing[label[away < both]] = True
    return middle, crossing


def clear_errors(found: nx.MultiGraph, tree: nx.MultiGraph, places: np.ndarray, spacing: float) -> dict[str, float]:
    """Errors of centre and radius away from junctions and contacts, over the found centreline."""
    line, truth = sample(found, spacing / 2), sample(tree, spacing / 8)
    away, nearest = cKDTree(truth.points).query(line.points)
    blurred = [
        (attributes["pos"], attributes["radius"]) for n, attributes in tree.nodes(data=True) if tree.degree(n) > 2
    ]
    blurred += [(attributes["pos"], attributes["radius"]) for n, attributes in found.nodes(data=True)]
    clear = away < truth.radii[nearest]
    for place, radius in blurred:
        clear &= np.linalg.norm(line.points - place, axis=1) > 3 * radius + spacing
    if len(places):
        clear &= cKDTree(places).query(line.points)[0] > 3 * spacing + 3 * truth.radii[nearest]
    relative = line.radii[clear] / truth.radii[nearest][clear] - 1
    weights = line.weights[clear]
    order = np.argsort(np.abs(relative))
    share = np.cumsum(weights[order]) / weights.sum()
    return {
        "share": float(weights.sum() / line.weights.sum()),
        "centre": float(np.average(away[clear], weights=weights)),
        "radius_median": float(np.abs(relative)[order][np.searchsorted(share, 0.5)]),
        "radius_bias": float(np.average(relative, weights=weights)),
    }


def recover(path: Path, spacing: float, mask: bool) -> list:
    """One row of the table."""
    tree = read_swc(path)
    field, affine = on_grid(tree, spacing)
    if mask:
        field = signed_distance(field <= 0, (spacing,) * 3, band=float(field.max()))
    start = time.process_time()
    found = centreline_graph(field, affine)
    seconds = time.process_time() - start
    beta = betti_numbers(field <= 0)
    scores = compare_graphs(found, tree, spacing)
    places, crossing = contacts(tree, spacing)
    merges = np.array([record["place"] for record in scores["places"]["false_merges"]]).reshape(-1, 3)
    unexplained = int((cKDTree(places).query(merges)[0] > 2).sum()) if len(places) and len(merges) else len(merges)
    errors = clear_errors(found, tree, places, spacing)
    true, ours = summary(tree), summary(found)
    return [
        path.stem.removesuffix("records"),
        f"{field.size / 1e6:.0f} M",
        f"{true['length']:.0f} / {ours['length']:.0f}",
        f"{true['branches']} / {ours['branches']}",
        f"{true['terminals']} / {ours['terminals']}",
        f"{beta[0]},{beta[1]},{beta[2]}",
        ours["loops"],
        int(crossing.sum()),
        int((~crossing).sum()),
        scores["false_merges"],
        unexplained,
        scores["false_splits"],
        100 * scores["tree_length_detected"],
        100 * scores["branches_detected"],
        100 * scores["tree_length_precision"],
        errors["share"],
        errors["centre"] / spacing,
        100 * errors["radius_median"],
        100 * errors["radius_bias"],
        f"{true['volume'] / 1000:.1f} / {ours['volume'] / 1000:.1f}",
        seconds,
    ]


HEADER = [
    "tree", "voxels", "length mm", "branches", "terminals", "beta0,1,2", "loops", "overlap", "touch", "merges",
    "unexplained", "splits", "length found %", "branches %", "length right %", "clear", "centre vox", "radius %",
    "bias %", "volume ml", "s",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spacing", type=float, default=0.35)
    parser.add_argument("--trees", nargs="+", default=TREES)
    parser.add_argument("--mask", action="store_true", help="from the voxels alone, not the exact distance")
    given = parser.parse_args()
    if not DATA.is_dir():
        print(f"brava: the traced trees are not at {DATA}", file=sys.stderr)
        return 2
    rows = []
    for name in given.trees:
        print(f"brava: {name}", file=sys.stderr)
        rows.append(recover(DATA / f"{name}records.swc", given.spacing, given.mask))
    print(f"{given.spacing} mm, {'voxels only' if given.mask else 'exact distance'}; true / found")
    print(columns(HEADER, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
