"""Numbers of a report as text: durations, scores with their spread, gains and counts."""

from __future__ import annotations

import pytest

from tuning.report import phrases


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, "–"), (0, "0 s"), (45, "45 s"), (99.6, "2 min"), (3000, "50 min"), (11100, "3 h 05 min"), (2e5, "2 d 7 h")],
)
def test_durations_have_two_units_at_most(seconds: float | None, expected: str) -> None:
    assert phrases.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "spread", "expected"),
    [
        (0.13218, 0.00314, "0.1322 ± 0.0031"),
        (0.3, None, "0.3000"),
        (0.3, 0.0, "0.3000 ± 0"),
        (0.3, 2e-6, "0.3000 ± 2e-6"),
        (12.345, 0.5, "12.35 ± 0.50"),
        (2.5e-5, 1e-6, "2.5e-5 ± 1e-6"),
        (0.0, 0.1, "0 ± 0.1"),
        (None, None, "–"),
        (float("nan"), 1.0, "–"),
    ],
)
def test_scores_keep_their_zeros_and_spreads_their_decimals(value: float, spread: float | None, expected: str) -> None:
    assert phrases.score(value, spread) == expected


@pytest.mark.parametrize(
    ("metric", "share", "expected"),
    [
        ("abs_rel", 0.123, "12 % less error"),
        ("abs_rel", -0.05, "5 % more error"),
        ("delta1", 0.0312, "3.1 % higher"),
        ("delta1", -1.5, "150 % lower"),
    ],
)
def test_gains_are_phrased_by_the_direction_of_the_metric(metric: str, share: float, expected: str) -> None:
    assert phrases.describe_gain(metric, share) == expected


def test_every_metric_that_ranks_has_a_name() -> None:
    from typing import get_args

    from depthray.config.sections import Monitor

    assert set(get_args(Monitor)) <= set(phrases.NAMES)
    assert phrases.metric_title("rmse") == "RMSE [m]" and phrases.metric_title("never heard of") == "never heard of"
    assert all(
        phrases.meaning(metric, 0.5) == ""
        or "0.5" in phrases.meaning(metric, 0.5)
        or "50" in phrases.meaning(metric, 0.5)
        for metric in get_args(Monitor)
    )


@pytest.mark.parametrize(("count", "expected"), [(950, "950"), (12_345, "12.3 k"), (2_073_600, "2.07 M"), (3e9, "3 G")])
def test_counts_are_short(count: float, expected: str) -> None:
    assert phrases.format_count(count) == expected
