"""Paired differences: luck is called luck, and a true difference is found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from depthray.evaluation import bootstrap, metrics
from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare
from depthray.evaluation.protocols import PROTOCOLS
from depthray.evaluation.report import Evaluation, ScoredFrame

SCENES, FRAMES = 40, 3  # frames a scene


def scores(seed: int, *, factor: float = 1.0, hard: int = 0, scenes: int = SCENES) -> FrameScores:
    """AbsRel of frames: of the scene, of the frame, and of the network (`seed`), by which a scene differs by 4 %."""
    shared, own = np.random.default_rng(hard), np.random.default_rng(1000 + seed)
    of_scene = np.repeat(shared.lognormal(-1.7, 0.4, scenes), FRAMES)
    of_frame = shared.lognormal(0, 0.2, scenes * FRAMES)
    of_network = np.repeat(own.lognormal(0, 0.04, scenes), FRAMES) * own.lognormal(0, 0.08, scenes * FRAMES)
    table = (factor * of_scene * of_frame * of_network)[:, None]
    names = tuple(f"s{number // FRAMES}" for number in range(len(table)))
    ids = tuple(f"f{number}" for number in range(len(table)))
    return FrameScores(ids, names, ("abs_rel",), table, np.empty((len(table), 0)))


def difference(before: FrameScores, after: FrameScores) -> MetricDifference:
    (metric,) = compare(before, after)
    return metric


def test_networks_that_are_equally_good_are_rarely_called_different() -> None:
    verdicts = [difference(scores(2 * pair, hard=pair), scores(2 * pair + 1, hard=pair)).verdict for pair in range(40)]
    assert sum(verdict != "within luck" for verdict in verdicts) <= 4


def test_a_true_difference_of_5_percent_is_found_either_way() -> None:
    for factor, verdict in ((1.05, "worse"), (0.95, "better")):
        found = [
            difference(scores(2 * pair, hard=pair), scores(2 * pair + 1, hard=pair, factor=factor)).verdict
            for pair in range(20)
        ]
        assert found.count(verdict) >= 16
        assert set(found) <= {verdict, "within luck"}


def test_pairs_tell_what_the_intervals_of_the_scores_hide() -> None:
    metric = difference(scores(0), scores(1, factor=0.9))
    assert metric.before is not None and metric.difference is not None
    assert metric.after.high > metric.before.low, "the scenes differ more than the networks do"
    assert metric.verdict == "better" and metric.difference.high < 0
    assert metric.difference.mean == pytest.approx(metric.after.mean - metric.before.mean)


def test_few_scenes_are_no_evidence() -> None:
    assert difference(scores(0, scenes=5), scores(1, factor=0.5, scenes=5)).verdict == "too few scenes"


def test_scenes_without_a_score_are_not_counted() -> None:
    before, after = scores(0), scores(1, factor=0.5)
    after.table[5 * FRAMES :] = np.nan
    assert difference(before, after).verdict == "too few scenes"
    after.table[:] = np.nan
    assert difference(before, after).verdict == ""


def test_other_frames_have_no_difference() -> None:
    metric = difference(scores(0, scenes=7), scores(1))
    assert metric.difference is None and metric.before is None and metric.verdict == ""


def test_better_is_higher_for_some_metrics() -> None:
    made = scores(0)
    before = FrameScores(made.ids, made.scenes, ("delta1",), made.table, made.sums)
    after = FrameScores(made.ids, made.scenes, ("delta1",), made.table + 0.1, made.sums)
    assert compare(before, after)[0].verdict == "better"
    assert compare(after, before)[0].verdict == "worse"


def test_intervals_of_pairs_agree_with_those_of_each_side() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.uniform(size=(2, 40, 3))
    scenes = [f"scene-{number % 8}" for number in range(40)]
    ends = bootstrap.paired_intervals(before, after, scenes)
    assert np.array_equal(ends[0], bootstrap.intervals(before, scenes))
    assert np.array_equal(ends[1], bootstrap.intervals(after, scenes))
    assert np.allclose(ends[2], bootstrap.intervals(after - before, scenes), atol=1e-12)


def pooled_frames() -> Iterator[ScoredFrame]:
    rng = np.random.default_rng(3)
    for number in range(16):
        truth = torch.tensor(rng.uniform(1, 4, (1, 1, 4, 4 + number % 3)))
        predicted = truth * float(rng.uniform(0.8, 1.3))
        sums = metrics.image_sums(predicted, truth, valid=torch.ones_like(truth, dtype=torch.bool))
        yield ScoredFrame(number, str(number), f"scene-{number % 8}", "made", sums[0].numpy(), 0)


def test_a_pooled_protocol_is_compared_by_its_own_scores() -> None:
    evaluation = Evaluation(PROTOCOLS["nyu-eigen-filled"], list(pooled_frames()))
    own = FrameScores.of(evaluation, "abs_rel")
    expected, interval = evaluation.scores(), evaluation.summary()["overall"]
    for gain in compare(own, own):
        assert gain.after.mean == expected[gain.metric]
        assert (gain.after.low, gain.after.high) == pytest.approx(
            (interval[gain.metric]["low"], interval[gain.metric]["high"]), rel=1e-12
        )
        assert gain.difference == (0, 0, 0) and gain.verdict == "within luck"
