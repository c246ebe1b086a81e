"""A reconstructed vessel network: the field on its levels, and all that follows from it."""

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import trimesh

from vesselsdf import __version__
from vesselsdf.agreement import agreement
from vesselsdf.anatomy import summary
from vesselsdf.branch_persistence import Describe
from vesselsdf.branch_table import write_bifurcations, write_branches, write_terminals
from vesselsdf.errors import RunError
from vesselsdf.false_features import false_features, mended
from vesselsdf.field_store import write_fields
from vesselsdf.files import write_bytes, write_json, write_text
from vesselsdf.graph import centreline_graph
from vesselsdf.graph_files import write_graphml, write_swc, write_vtp
from vesselsdf.graph_files import write_json as write_graph_json
from vesselsdf.mesh import check, colour_by_radius, surface, write_mesh
from vesselsdf.report import packing, page
from vesselsdf.report.barcode import write_barcode
from vesselsdf.report.findings import facts, sentence
from vesselsdf.report.notebook import Frame, summary_html
from vesselsdf.report.preview import preview_png
from vesselsdf.roots import set_roots
from vesselsdf.topology.betti import betti_numbers
from vesselsdf.topology.survival import survival
from vesselsdf.volume import Volume, read_volume, resample, write_volume

log = logging.getLogger(__name__)


@dataclass
class Reconstruction:
    """A vessel network as a signed distance field, with its mesh, centreline graph and topology.

    `levels`: fields (X, Y, Z) float32 in mm, finest first, zero on the wall, negative inside; `affine`: of level 0.
    `input`: the volume it was made from; `operator`: the coarse-graining that made, or taught, the coarser levels.
    `bounds`: a-priori bounds on the difference of each level to level 0 in mm, if the network gives them.
    `roots`: points in RAS mm at which the trees begin; without them, at their thickest ends.
    """

    levels: list[np.ndarray]
    affine: np.ndarray
    input: Volume
    from_mask: bool
    operator: str = "mean"
    bounds: list[float] | None = None
    roots: Any = None
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def sdf(self) -> Volume:
        """The signed distance field of level 0."""
        return Volume(self.levels[0], self.affine)

    @cached_property
    def graph(self) -> nx.MultiGraph:
        """The centreline graph (positions and radii in mm)."""
        self._require_vessel()
        with self.timed("centreline graph"):
            graph = centreline_graph(self.sdf.array, self.affine)
            if self.roots is not None and len(self.roots):
                set_roots(graph, self.roots)
            return graph

    @cached_property
    def _mesh(self) -> trimesh.Trimesh:
        self._require_vessel()
        with self.timed("mesh"):
            return surface(self.sdf.array, self.affine)

    def mesh(self) -> trimesh.Trimesh:
        """The watertight vessel wall in RAS mm."""
        return self._mesh

    @cached_property
    def _topology(self) -> dict[str, Any]:
        self._require_vessel()
        with self.timed("topology"):
            mesh_facts = check(self.mesh())
            describe = Describe(lambda: self.graph)
            report = survival(
                self.levels, self.sdf.spacing, affine=self.affine, operator=self.operator, decide=describe,
                bounds=self.bounds,
            )  # fmt: skip
            compared = agreement(self.sdf.array, self.affine, self.mesh(), self.graph)
            suspects = false_features(self.sdf.array, self.affine)
        for one in compared["disagreements"]:
            log.warning("%s", one["message"])
        return {
            "connectivity": "26 for vessels, 6 for background",
            "betti": tuple(compared["field"]),
            "betti_of_mask_on_input_grid": betti_numbers(self.mask.array > 0),
            "mesh": mesh_facts,
            "agreement": compared,
            "false_features": [one.summary() for one in suspects],
            "levels": report,
        }

    def topology(self) -> dict[str, Any]:
        """Betti numbers, agreement of field, mesh and graph, and what survives at each level; JSON-able."""
        return self._topology

    def mend(self) -> None:
        """Take the false features (`vesselsdf.false_features`) out of level 0; call it before anything is made of it.

        They are listed in `provenance["mended"]`. Bounds on the difference to level 0 grow by what that changes.
        """
        features = false_features(self.levels[0], self.affine)
        repaired = mended(self.levels[0], features)
        change = max((float(np.abs(repaired - self.levels[0])[tuple(f.voxels.T)].max()) for f in features), default=0.0)
        if self.bounds is not None:
            self.bounds = [bound + (change if level else 0.0) for level, bound in enumerate(self.bounds)]
        self.levels = [repaired, *self.levels[1:]]
        self.provenance["mended"] = [one.summary() for one in features]

    @cached_property
    def mask(self) -> Volume:
        """The vessel mask, 0 or 1, on the input's grid."""
        if self.from_mask:
            return self.input.with_array((self.input.array > 0).astype(np.uint8))
        values = resample(self.sdf, self.input.shape, self.input.affine, order=1).array
        return self.input.with_array((values <= 0).astype(np.uint8))

    def save(self, folder: str | Path, max_error: float | None = None) -> None:
        """Write field, mask, meshes, centreline, anatomy, topology report and preview; `run.json` comes last.

        `max_error`: of the fields in `sdf.zarr`, mm; by default an eighth of a voxel. Near the wall it is an eighth of
        that, and every voxel is on its side of the wall whatever it is (`field_store`).
        """
        folder = Path(folder)
        graph, mesh, topology = self.graph, self.mesh(), self.topology()
        with self.timed("writing"):
            write_volume(self.sdf, folder / "sdf.nii.gz")
            write_fields(folder / "sdf.zarr", self.levels, self.affine, max_error)
            write_volume(self.mask, folder / "vessels.nii.gz")
            coloured = colour_by_radius(mesh, graph)
            for suffix in ("ply", "stl", "glb", "vtp"):
                write_mesh(coloured, folder / f"mesh.{suffix}")
            save_graph(graph, folder)
            write_json(folder / "topology.json", topology)
        with self.timed("preview"):
            features = topology["levels"]["levels"][0]["features"]
            image = None if self.from_mask else self.input
            write_bytes(folder / "preview.png", preview_png(self.sdf, graph, coloured, image, features))
            write_barcode(folder / "barcode.svg", features)
        with self.timed("report"):
            self.write_report(folder / "report.html")
        write_json(folder / "run.json", self.provenance | {"seconds": self.seconds} | versions())

    def write_report(self, path: str | Path) -> None:
        """One page to look at in a browser (`report.page`); a warning if the package was built without its viewer."""
        if not packing.available():
            log.warning("%s is not written: this copy of the package was built without three.js.", path)
            return
        write_text(path, self._page())

    def _page(self) -> str:
        made = f"vesselsdf {__version__}, {time.strftime('%Y-%m-%d')}. Not a medical device."
        return page.reconstruction_page(
            self._title, self.levels, self.affine, self.graph, self.mesh(), self.topology(),
            None if self.from_mask else self.input, made,
        )  # fmt: skip

    @property
    def _title(self) -> str:
        return Path(self.provenance.get("input", "vessels")).name

    def view(self, height: int = 800) -> Frame:
        """The page of the report within a notebook, `height` pixels high: put it at the end of a cell."""
        return Frame(self._page(), height)

    def _repr_html_(self) -> str:
        """The picture and the facts, for notebooks."""
        features = self.topology()["levels"]["levels"][0]["features"]
        image = None if self.from_mask else self.input
        picture = preview_png(self.sdf, self.graph, self.mesh(), image, features)
        return summary_html(self._title, sentence(self.topology()), facts(self.topology(), self.graph), picture)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Add the time the block takes to `seconds`."""
        start = time.monotonic()
        inner = sum(self.seconds.values())
        yield
        # What a nested step took is counted there, not twice.
        nested = sum(self.seconds.values()) - inner
        self.seconds[what] = round(self.seconds.get(what, 0.0) + time.monotonic() - start - nested, 3)
        log.info("%s: %.1f s", what, self.seconds[what])

    def _require_vessel(self) -> None:
        lowest, highest = float(self.levels[0].min()), float(self.levels[0].max())
        if lowest > 0 or highest <= 0:
            what = "no vessel was found" if lowest > 0 else "everything was taken for vessel"
            raise RunError(
                f"In {self.provenance.get('input', 'the volume')} {what}: the network was trained on images that look "
                "different; train on cases like it, or check its spacing and intensities with `vesselsdf inspect`."
            )


def save_graph(graph: nx.MultiGraph, folder: Path) -> None:
    """Write a centreline graph in all formats, its tables and its anatomy."""
    write_graph_json(graph, folder / "centreline.json")
    write_swc(graph, folder / "centreline.swc")
    write_graphml(graph, folder / "centreline.graphml")
    write_vtp(graph, folder / "centreline.vtp")
    write_branches(graph, folder / "branches.csv")
    write_bifurcations(graph, folder / "bifurcations.csv")
    write_terminals(graph, folder / "terminals.csv")
    write_json(folder / "anatomy.json", summary(graph))


def versions() -> dict[str, Any]:
    """Versions of what computed a result."""
    from importlib.metadata import version

    packages = ("torch", "monai", "numpy", "numba", "scipy", "scikit-image", "trimesh", "gudhi", "nibabel", "SimpleITK")
    return {
        "vesselsdf": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "command": sys.argv,
    }


def opened(
    volume: Volume | str | Path, spacing: tuple[float, float, float] | None
) -> tuple[Volume, str, dict[str, Any]]:
    """A volume that may be in a file, what to call it in messages, where it came from; `spacing`: see `read_volume`."""
    if isinstance(volume, Volume):
        return volume, "the volume", {"input": "array"}
    path = Path(volume)
    return read_volume(path, spacing), str(path), {"input": str(path), "input_sha256": file_hash(path)}


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files in order."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            if path.is_dir():
                digest.update(file.name.encode())
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
