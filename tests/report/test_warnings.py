"""The terminal names what field, mesh and graph disagree about, and what is as small as noise."""

from pathlib import Path

import networkx as nx
import numpy as np

from vesselsdf.agreement import agreement
from vesselsdf.false_features import false_features
from vesselsdf.report.text import warnings_of


def test_a_missing_component_and_a_pin_hole_are_told_with_place_and_kind():
    plate = np.full((9, 9, 5), 1.0)
    plate[1:8, 1:8, 1:4] = -1
    plate[4, 4, 1:4] = 0.25
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    topology = {
        "agreement": agreement(plate, affine, graph=nx.MultiGraph()),
        "false_features": [one.summary() for one in false_features(plate, affine)],
    }
    lines = warnings_of(topology, Path("out"))
    assert lines[0] == "warning: The graph lacks a component at (0.5, 0.5, 0.5) mm."
    assert lines[-1] == "as small as noise: 1 hole(s); see false_features in out/topology.json"
    assert warnings_of({"agreement": {"disagreements": []}, "false_features": []}, Path("out")) == []
