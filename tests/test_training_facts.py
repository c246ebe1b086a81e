"""What a run understood: radii that are right whatever the direction, odd things named, a pace that is measured."""

import math
import re
import time
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from vesselsdf.config import parse_config
from vesselsdf.distance import signed_distance, tube_distance
from vesselsdf.preprocessing import Preprocessing
from vesselsdf.sampling import PreparedCase
from vesselsdf.topology.thinning import thin
from vesselsdf.training_facts import Pacing, centreline_radii, training_facts


def tube(radius, seed=0, size=40):
    """Distance in voxels of a straight tube in a random direction, and its skeleton."""
    generator = np.random.default_rng(seed)
    direction = generator.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre = size / 2 + generator.uniform(-0.5, 0.5, 3)
    points = np.stack([centre - 0.4 * size * direction, centre + 0.4 * size * direction])
    graph = nx.MultiGraph()
    for node, place in enumerate(points):
        graph.add_node(node, pos=place, radius=radius)
    graph.add_edge(0, 1, points=points, radii=np.full(2, radius), length=0.8 * size, start=0)
    field = tube_distance(graph, (size,) * 3, np.eye(4))
    return field.astype(np.float16), np.argwhere(thin(field <= 0, field)).astype(np.int32)


def case(radius=2.0, size=40, edges=(0.5, 0.5, 0.5), seed=0):
    field, skeleton = tube(radius, seed, size)
    return PreparedCase("tube", field, field, skeleton, np.zeros(4, np.float32), (), np.array(edges, float))


def wide():
    """A case of which vessel fills a good part."""
    one = case()
    return replace(one, sdf=one.sdf - np.float16(11.0))


def facts(cases, held_out=1, spacing=None, **training):
    config = parse_config({"training": {"patch": 32} | training}, "here")
    return training_facts(config, cases, held_out, Preprocessing(spacing=spacing))


@pytest.mark.parametrize("radius", [0.7, 1.0, 1.5, 2.5, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_radii_of_tubes_come_out_right_in_any_direction(radius, seed):
    field, skeleton = tube(radius, seed)
    found = centreline_radii(field, skeleton)
    assert np.median(found) == pytest.approx(radius, rel=0.02)
    assert np.quantile(found, 0.05) == pytest.approx(radius, rel=0.16), "the round ends are somewhat thinner"
    if radius >= 1.0:
        mask = signed_distance(field <= 0, (1.0, 1.0, 1.0))
        from_label = centreline_radii(mask.astype(np.float16), np.argwhere(thin(mask <= 0, mask)).astype(np.int32))
        assert np.median(from_label) == pytest.approx(radius, rel=0.08)


def test_places_that_nobody_labelled_have_no_radius():
    field, skeleton = tube(2.0)
    field = field.copy()
    field[:20] = np.nan
    found = centreline_radii(field, skeleton)
    assert np.isfinite(found).all()
    assert 0 < len(found) < len(skeleton)
    assert len(centreline_radii(field, skeleton[:0])) == 0


def test_a_run_says_what_it_understood():
    found = facts([case(2.0), case(3.0, edges=(0.5, 0.5, 0.9))], batch=4, start="general")
    assert (found.training, found.held_out, found.batch, found.patch, found.start) == (2, 1, 4, 32, "general")
    assert found.edges == (0.5, 0.9)
    assert found.working == (0.5, 0.5)
    assert found.thinnest == pytest.approx(2.0, rel=0.05)
    share = np.mean([(case(radius).sdf <= 0).mean() for radius in (2.0, 3.0)])
    assert found.vessel_share == pytest.approx(share, rel=0.3)
    assert found.parameters > 100_000
    assert found.remarks == ()
    assert facts([case(), case()], spacing=0.25).working == (0.25, 0.25)


@pytest.mark.parametrize(
    ("cases", "settings", "words"),
    [
        ([case(0.7), case(0.7, seed=1)], {}, r"radius of 0\.\d+ working voxels.*--data\.spacing 0\.2"),
        ([case(), case()], {"patch": 64}, r"2 of 2 cases are smaller than a patch \(the smallest is 40 x 40 x 40"),
        ([case(edges=(0.3,) * 3), case(edges=(0.9,) * 3)], {}, r"Working voxels are 0\.3 to 0\.9 mm"),
        ([case()], {}, "only 2 cases"),
        ([wide(), wide()], {}, r"\d\d% of the voxels are vessel.*--data\.vessel-ids"),
    ],
    ids=["thin", "patch", "spacing", "few", "share"],
)
def test_what_is_odd_is_named(cases, settings, words):
    (remark,) = facts(cases, **settings).remarks
    assert re.search(words, remark)


def test_facts_of_cases_without_vessels_or_edges_are_not_known():
    field = np.full((40, 40, 40), 9.0, np.float16)
    empty = PreparedCase("none", field, field, np.zeros((0, 3), np.int32), np.zeros(4, np.float32))
    found = facts([empty, empty])
    assert math.isnan(found.thinnest)
    assert math.isnan(found.working[0])
    assert found.vessel_share == 0


def test_many_cases_are_looked_at_in_part_and_fast():
    many = [case(size=96, seed=seed) for seed in range(4)] * 100
    start = time.monotonic()
    facts(many)
    assert time.monotonic() - start < 2.0


def test_the_pace_is_that_of_the_steps_after_the_first_ones():
    said = []
    pacing = Pacing(100, said.append)
    for step in range(41, 70):
        time.sleep(0.2 if step < 43 else 0.005)
        pacing.figures(step, {"loss/total": 1.0})
        pacing.figures(step, {"validation/dice": 1.0})
    (pace,) = said
    assert (pace.first, pace.last) == (43, 62)
    assert 0.005 <= pace.step_seconds < 0.1
    assert pace.seconds == pytest.approx(pace.step_seconds * 38)
    assert pace.gigabytes > 0.05
