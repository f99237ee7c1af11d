"""Paired differences: luck is called luck, and a true difference is found."""

from __future__ import annotations

import numpy as np
import pytest

from depthray.evaluation.comparing.paired import FrameScores, MetricDifference, compare

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
