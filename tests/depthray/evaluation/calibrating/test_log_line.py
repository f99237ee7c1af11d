"""Scale and slope of ln depth: hard to mislead, and taken only where they help on frames that were held out."""

from __future__ import annotations

import numpy as np
import pytest

from depthray.errors import DataError
from depthray.evaluation.calibrating.cross_validation import BEYOND_LUCK, HeldOut, decide
from depthray.evaluation.calibrating.log_line import FramePairs, LogLine, fit_line, fit_scale


def frames(
    count: int = 40, *, scenes: int = 10, shift: float = 0.0, slope: float = 1.0, noise: float = 0.1, wild: float = 0.0
) -> list[FramePairs]:
    """Frames whose ln truth is shift + slope x ln prediction, with errors of each scene, pixel, and of wild pixels."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, noise, scenes)
    made = []
    for number in range(count):
        scene = number * scenes // count
        predicted = np.log(rng.uniform(0.7, 8.0, 300))
        measured = shift + slope * predicted + offsets[scene] + rng.normal(0, noise, 300)
        is_wild = rng.random(300) < wild
        measured[is_wild] = np.log(rng.uniform(0.7, 8.0, is_wild.sum()))
        made.append(FramePairs(f"f{number}", f"s{scene}", predicted, measured))
    return made


@pytest.mark.parametrize("wild", [0.0, 0.2])
@pytest.mark.parametrize(("shift", "slope"), [(0.4, 1.0), (-0.7, 1.0), (0.2, 0.7), (-0.3, 1.4)])
def test_a_line_is_found_again(shift: float, slope: float, wild: float) -> None:
    made = frames(shift=shift, slope=slope, noise=0.02, wild=wild)
    if slope == 1.0:
        assert fit_scale(made).shift == pytest.approx(shift, abs=0.06)
    found = fit_line(made)
    assert found.slope == pytest.approx(slope, abs=0.03 if not wild else 0.1)


def test_no_other_scale_has_a_lower_error() -> None:
    made = frames(noise=0.4, wild=0.1)
    best = fit_scale(made)
    error = np.mean([best.abs_rel(frame) for frame in made])
    for other in np.linspace(-0.3, 0.3, 61):
        assert error <= np.mean([LogLine(best.shift + other).abs_rel(frame) for frame in made]) + 1e-5


def test_frames_of_one_depth_have_no_slope() -> None:
    flat = [FramePairs(f"f{number}", "s", np.zeros(50), np.full(50, 0.5)) for number in range(6)]
    assert fit_line(flat) == LogLine(0.5)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"shift": 0.3}, "scale"),
        ({"shift": 0.3, "scenes": 1}, "scale"),
        ({"shift": 0.0}, "as it is"),
        ({"shift": 0.01}, "as it is"),
        ({"shift": 0.3, "slope": 0.6}, "scale and slope"),
        ({"shift": 0.5, "noise": 0.5}, "as it is"),  # of errors so wide the best scale is below their mean
        ({"shift": 0.3, "scenes": 3, "noise": 0.3}, "as it is"),  # three scenes that differ as much
    ],
)
def test_what_gains_on_held_out_frames_is_taken(options: dict[str, float], kind: str) -> None:
    decision = decide(frames(**options))
    assert decision.chosen.name == kind
    assert (decision.line == LogLine()) == (kind == "as it is")


@pytest.mark.parametrize(
    ("before", "after", "gains"),
    [
        # Twenty points: seven of ten folds gain, by a third of the error.
        (
            (0.148, 0.087, 0.309, 0.894, 0.460, 0.264, 0.317, 0.437, 0.327, 0.157),
            (0.153, 0.227, 0.109, 0.509, 0.355, 0.070, 0.047, 0.277, 0.057, 0.252),
            True,
        ),
        ((0.204, 0.269, 0.215, 0.554, 0.339), (0.178, 0.184, 0.168, 0.314, 0.263), True),  # the parts of a scene
        ((0.156, 0.209, 0.188, 0.403, 0.292), (0.155, 0.206, 0.183, 0.299, 0.290), False),  # all by one part
        ((0.2, 0.3, 0.4), (0.195, 0.294, 0.391), False),  # in each, and not by 3 %
        ((0.2, 0.3), (0.1, 0.2), True),  # two parts that gain the same
    ],
)
def test_a_gain_is_beyond_the_luck_of_the_folds(
    before: tuple[float, ...], after: tuple[float, ...], gains: bool
) -> None:
    plain, corrected = (HeldOut("", float(np.mean(each)), each) for each in (before, after))
    assert corrected.gains_over(plain, level=0.95) == gains and not plain.gains_over(corrected, level=0.80)


@pytest.mark.parametrize("level", BEYOND_LUCK)
def test_the_quantiles_are_those_of_student(level: float) -> None:
    """Of folds that gain nothing on average so many means stay below their limit."""
    rng = np.random.default_rng(0)
    for folds, limit in enumerate(BEYOND_LUCK[level], 2):
        drawn = rng.normal(size=(200_000, folds))
        share = np.mean(drawn.mean(axis=1) <= limit * drawn.std(axis=1, ddof=1) / folds**0.5)
        assert share == pytest.approx(level, abs=0.004)


def points(count: int, *, scale: float, noise: float, seed: int) -> list[FramePairs]:
    """Points of photographs of their own, whose metres are the best with depths times `scale`."""
    rng = np.random.default_rng(seed)
    predicted = np.log(rng.uniform(0.7, 8.0, count))
    measured = predicted + np.log(scale) + noise**2 + rng.normal(0, noise, count)
    return [FramePairs(f"p{n}", f"p{n}", predicted[n : n + 1], measured[n : n + 1]) for n in range(count)]


@pytest.mark.parametrize(("scale", "least", "most"), [(1.0, 0.0, 0.1), (0.75, 0.8, 1.0), (1.35, 0.8, 1.0)])
def test_twenty_points_correct_what_is_wrong(scale: float, least: float, most: float) -> None:
    """Of a hundred draws: seldom a scale that is right, mostly one that is a quarter off, and never by a slope."""
    lines = [decide(points(20, scale=scale, noise=0.26, seed=seed)).line for seed in range(100)]
    assert least <= np.mean([line != LogLine() for line in lines]) <= most
    assert all(line.slope == 1.0 for line in lines)
    assert [row.name for row in decide(points(20, scale=scale, noise=0.26, seed=0)).rows] == ["as it is", "scale"]
    near = [abs(line.shift - np.log(scale)) < 0.15 for line in lines if line != LogLine()]
    assert scale == 1.0 or np.mean(near) >= 0.9


def test_many_points_say_something_of_a_slope() -> None:
    made = points(200, scale=1.0, noise=0.1, seed=0)
    bent = [point._replace(measured=0.5 + 0.7 * point.predicted + 0.1 * n % 0.2) for n, point in enumerate(made)]
    assert decide(bent).line.slope == pytest.approx(0.7, abs=0.1)


def test_one_scene_says_nothing_of_a_slope() -> None:
    decision = decide(frames(scenes=1, slope=0.7))
    _, scale, line = decision.rows
    assert line.mean < scale.mean, "it looks better on other frames of the same scene"
    assert decision.line.slope == 1.0 and "one scene" in decision.how


def test_whole_scenes_are_held_out() -> None:
    """A scale that is each scene's own helps on frames of the same scenes, and on no others."""
    made = frames(noise=0.0)
    shifts = np.random.default_rng(1).permutation(np.linspace(-0.4, 0.4, 10))
    moved = [frame._replace(measured=frame.measured + shifts[int(frame.scene[1:])]) for frame in made]
    assert decide(moved).line == LogLine()


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(DataError, match="4 frames with measured depth are too few to hold some out; give 5"):
        decide(frames(4))
