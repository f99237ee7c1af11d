"""Charts show any numbers correctly, and are well-formed SVG whatever the text is."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from chart_svg import HOSTILE, SVG, group, labels, mark, marked, parsed, points, trials

from tuning.report.charts import axes, cost, history, parameters, schedules
from tuning.report.charts.axes import Axis
from tuning.report.charts.cost import BudgetShare, CostPoint, TrialSpan
from tuning.report.charts.history import LearningCurve, ScoredTrial, SeedSpread
from tuning.report.charts.marks import Mark
from tuning.report.charts.parameters import Parameter, TriedConfiguration
from tuning.report.charts.schedules import ValueChange, ValueSchedule

SCORES: dict[str, list[float | None]] = {
    "none": [],
    "one": [0.2],
    "one lost": [None],
    "all lost": [None] * 5,
    "equal": [0.3] * 6,
    "zero": [0.0] * 3,
    "some lost": [0.3, None, 0.1, 0.2, None],
    "one far off": [0.1, 0.11, 0.12, 0.13, 1e6],
    "tiny": [1e-9, 2e-9, 3e-9],
    "huge": [1e15, 2e15],
    "negative": [-0.5, -0.4, 0.2],
    "hundreds": [0.2 + 0.001 * n for n in range(300)],
}


# -- every chart, on everything ---------------------------------------------------------------------------------------


def _strip(scores: Sequence[float | None], higher: bool) -> str:
    found = marked(scores)
    spreads = [SeedSpread("baseline", 0.3, 0.01, "default"), SeedSpread("best", 0.1, None, "best")]
    axis = axes.score_axis([each.score for each in found], higher=higher, title="AbsRel")
    return history.strip(found, spreads if scores else [], score=axis)


def _history(scores: Sequence[float | None], higher: bool) -> str:
    axis = axes.score_axis(scores, higher=higher, title="AbsRel")
    return history.history(marked(scores), score=axis, default=0.3 if len(scores) % 2 else None)


def _curves(scores: Sequence[float | None], higher: bool) -> str:
    lines = [
        LearningCurve(each.mark, tuple((epoch, each.score + 1 / epoch) for epoch in range(1, 5)) if each.score else ())
        for each in marked(scores)
    ]
    return history.curves(lines, metric="AbsRel", higher=higher, epochs=4)


def _tried(scores: Sequence[float | None]) -> tuple[list[Parameter], list[TriedConfiguration]]:
    keys = [
        Parameter("optim.lr", parameters.axis_of([1e-5, 1e-2], kind="loguniform"), 3e-3),
        Parameter("optim.name", parameters.axis_of(["adam", "adan"], order=["adan", "adam"]), "adam"),
        Parameter("model.depth", parameters.axis_of([1, 2, None]), None),
    ]
    values = [(10.0 ** -(2 + n % 4), ("adam", "adan")[n % 2], (1, 2, None)[n % 3]) for n in range(len(scores))]
    return keys, [
        TriedConfiguration(each.mark, row, each.score) for each, row in zip(marked(scores), values, strict=True)
    ]


def _parallel(scores: Sequence[float | None], higher: bool) -> str:
    keys, tried = _tried(scores)
    return parameters.parallel(keys, tried, score=axes.score_axis(scores, higher=higher, title="AbsRel"))


def _slice(scores: Sequence[float | None], higher: bool) -> str:
    keys, tried = _tried(scores)
    place = len(scores) % 3
    return parameters.slice_chart(keys[place], place, tried, score=axes.score_axis(scores, higher=higher))


def _pair(scores: Sequence[float | None], higher: bool) -> str:
    keys, tried = _tried(scores)
    return parameters.pair(keys[0], keys[1], tried)


def _tradeoff(scores: Sequence[float | None], higher: bool) -> str:
    priced = [CostPoint(each.mark, 5.0, each.score) for each in marked(scores) if each.score is not None]
    return cost.tradeoff(priced, cost="ms an image", metric="AbsRel", higher=higher, log=False)


def _timeline(scores: Sequence[float | None], higher: bool) -> str:
    return cost.timeline(
        [TrialSpan(each.mark, 1e9 + n, 1e9 + n + (each.score or 0)) for n, each in enumerate(marked(scores))]
    )


def _importance(scores: Sequence[float | None], higher: bool) -> str:
    return parameters.importance({f"optim.key{n}": score or 0.0 for n, score in enumerate(scores[:9])}, doubtful=higher)


def _schedule(scores: Sequence[float | None], higher: bool) -> str:
    axis = parameters.axis_of([score for score in scores if score is not None], kind="uniform")
    return schedules.schedule("optim.lr", _population(scores), axis=axis, epochs=4)


def _lineage(scores: Sequence[float | None], higher: bool) -> str:
    return schedules.lineage(_population(scores), epochs=4)


def _population(scores: Sequence[float | None]) -> list[ValueSchedule]:
    return [
        ValueSchedule(each.mark, (ValueChange(0, each.score), ValueChange(2, each.score, "0000")), until=4)
        for each in marked(scores)
    ]


CHARTS: list[Callable[[Sequence[float | None], bool], str]] = [
    *(_strip, _history, _curves, _parallel, _slice, _pair),
    *(_tradeoff, _timeline, _importance, _schedule, _lineage),
]


@pytest.mark.parametrize("higher", [False, True])
@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_well_formed_on_any_scores(
    chart: Callable[[Sequence[float | None], bool], str], scores: list[float | None], higher: bool
) -> None:
    tree = parsed(chart(scores, higher))
    assert tree.tag == f"{SVG}svg" and tree.attrib["role"] == "img" and tree.attrib["aria-label"]


# -- single charts -----------------------------------------------------------------------------------------------------


def test_a_trial_carries_its_name_tooltip_state_and_shade() -> None:
    tree = parsed(history.history(marked([0.3, 0.2, None]), score=axes.score_axis([0.3, 0.2], higher=False)))
    assert sorted(trials(tree)) == ["0000", "0001", "0002"]
    assert group(tree, "0001").attrib["class"] == "t stopped q1"
    assert group(tree, "0002").attrib["class"] == "t failed q2"
    assert group(tree, "0000").find(f"{SVG}title").text == "trial 0000"


@pytest.mark.parametrize("higher", [False, True])
def test_the_line_of_the_best_so_far_never_gets_worse(higher: bool) -> None:
    scores = np.random.default_rng(3).uniform(0.1, 0.4, 30).tolist()
    axis = axes.axis(scores)._replace(hint="higher is better" if higher else "lower is better")
    tree = parsed(history.history(marked(scores), score=axis))
    front = next(each for each in tree.iter(f"{SVG}path") if each.attrib.get("class") == "front")
    heights = [y for _, y in points(front.attrib["d"])]
    assert heights == sorted(heights, reverse=higher)
    top = axes.TOP + (1 - axis.share(max(scores) if higher else min(scores))) * (axes.HEIGHT - axes.TOP - axes.FOOT)
    assert heights[-1] == pytest.approx(top, abs=0.06)


def test_a_score_beyond_the_axis_is_an_arrow_with_its_own_tooltip() -> None:
    axis = axes.score_axis([0.1, 0.2], higher=False)
    tree = parsed(history.history(marked([0.1, 0.2, 50.0]), score=axis))
    assert group(tree, "0002").find(f"{SVG}circle") is None
    assert group(tree, "0002").find(f"{SVG}path") is not None


def test_a_strip_shows_every_score_once_and_outliers_next_to_it() -> None:
    scores: Sequence[float | None] = [0.1 + 0.001 * n for n in range(20)] + [9.0] * 7
    axis = axes.score_axis(scores[:20], higher=False, title="AbsRel")
    tree = parsed(history.strip(marked(scores), [SeedSpread("best 0.1 ± 0.002", 0.1, 0.002, "best")], score=axis))
    assert len(trials(tree)) == len(set(trials(tree))) == 27
    assert "7 worse" in labels(tree) and "best 0.1 ± 0.002" in labels(tree)


@pytest.mark.parametrize(("mean", "spread"), [(0.1, 0.001), (0.2, 0.001), (0.15, 0.05), (0.18, 0.02)])
def test_the_label_of_a_bracket_is_within_the_chart(mean: float, spread: float) -> None:
    axis = axes.score_axis([0.1, 0.2], higher=False, title="AbsRel")
    label = f"best {mean:.4f} ± {spread:.4f}"
    tree = parsed(history.strip(marked([0.1, 0.2]), [SeedSpread(label, mean, spread, "best")], score=axis))
    (text,) = (each for each in tree.iter(f"{SVG}text") if each.attrib.get("class") == "label")
    x, width = float(text.attrib["x"]), history.LETTER * len(label)
    start = x - width * {"start": 0, "middle": 0.5, "end": 1}[text.attrib["text-anchor"]]
    assert start >= 0 and start + width <= axes.WIDTH


def test_stacked_scores_do_not_cover_each_other() -> None:
    tree = parsed(_strip([0.2] * 8 + [0.1, 0.3], higher=False))
    centres = [
        (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
        for circle in tree.iter(f"{SVG}circle")
        if circle.attrib.get("r") == "5"
    ]
    assert len(centres) == len(set(centres)) > 5


def test_a_stopped_curve_ends_in_a_bar_and_the_best_is_on_top() -> None:
    lines = [
        LearningCurve(mark("0001", role="best"), ((1, 0.5), (2, 0.3))),
        LearningCurve(mark("0002", state="stopped", shade=5), ((1, 0.7),)),
        LearningCurve(mark("0003", shade=7), ((1, 0.9), (2, 0.8))),
    ]
    tree = parsed(history.curves(lines, metric="AbsRel", higher=False, epochs=2))
    assert trials(tree)[-1] == "0001"
    assert group(tree, "0002").find(f"{SVG}line").attrib["class"] == "end"
    assert len(list(tree.iter(f"{SVG}svg"))) == 2  # what is beyond the axis is cut off by an inner one


def test_upright_axes_carry_the_heights_that_a_page_chooses_by() -> None:
    keys, tried = _tried([0.1, 0.2, None])
    tree = parsed(parameters.parallel(keys, tried, score=axes.score_axis([0.1, 0.2], higher=False, title="AbsRel")))
    heights = group(tree, "0001").attrib["data-at"].split(" ")
    assert len(heights) == 4 and all(heights)
    assert group(tree, "0002").attrib["data-at"].endswith(" ")  # no score
    poles = [each.attrib["data-axis"] for each in tree.iter(f"{SVG}g") if "data-axis" in each.attrib]
    assert poles == ["0", "1", "2", "3"]


def test_the_recipe_s_own_value_is_a_line_where_it_is_in_range() -> None:
    axis = axes.score_axis([0.1, 0.2], higher=False)
    inside = Parameter("optim.lr", axes.axis([1e-4, 1e-2], log=True), 1e-3)
    outside = inside._replace(default=5.0)
    tried = [TriedConfiguration(mark(), (1e-3,), 0.1)]
    assert 'class="level"' in parameters.slice_chart(inside, 0, tried, score=axis)
    assert 'class="level"' not in parameters.slice_chart(outside, 0, tried, score=axis)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1e-5, 1e-2], "loguniform", "log"),
        ([8, 64], "logint", "log"),
        ([0.0, 1.0], "uniform", "linear"),
        ([1, 2, 4], "", "choices"),
        (list(range(9)), "", "linear"),
        (["a", 1], "", "choices"),
        ([True, False], "", "choices"),
        ([[1, 2], [3, 4]], "choice", "choices"),
    ],
)
def test_the_axis_of_a_parameter_fits_its_kind(values: list[object], kind: str, expected: str) -> None:
    axis = parameters.axis_of(values, kind=kind)
    assert ("choices" if axis.choices else "log" if axis.log else "linear") == expected
    assert all(axis.holds(value) for value in values)


def test_importance_is_drawn_longest_first_and_pale_where_uncertain() -> None:
    svg = parameters.importance({"optim.lr": 0.2, "loss.l1": 0.7, "augment.hue": 0.1}, doubtful=True)
    tree = parsed(svg)
    widths = [float(each.attrib["width"]) for each in tree.iter(f"{SVG}rect")]
    assert widths == sorted(widths, reverse=True)
    assert [label for label in labels(tree) if "." in label] == ["loss.l1", "optim.lr", "augment.hue"]
    assert "doubtful" in tree.attrib["class"]


def test_slots_hold_one_trial_at_a_time_and_are_as_few_as_can_be() -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 1000, 60)
    busy = [TrialSpan(mark(f"{n:04d}"), start, start + rng.uniform(1, 200)) for n, start in enumerate(starts)]
    rows = cost.slots(busy)
    assert sum(map(len, rows)) == 60
    assert all(one.end <= other.start + 0.5 for row in rows for one, other in itertools.pairwise(row))
    most = max(sum(each.start <= at.start < each.end for each in busy) for at in busy)
    assert len(rows) <= most


@pytest.mark.parametrize("seconds", [0.0, 90.0, 5000.0, 1e6])
def test_the_timeline_has_a_unit_that_fits(seconds: float) -> None:
    tree = parsed(cost.timeline([TrialSpan(mark(), 1e9, 1e9 + seconds)]))
    unit = "s" if seconds < 180 else "min" if seconds < 10800 else "h"
    assert f"{unit} since the first trial started" in labels(tree)


def test_parts_of_a_budget_fill_the_whole_bar() -> None:
    tree = parsed(
        cost.shares(
            [BudgetShare("a", 3, "done"), BudgetShare("b", 0, "stopped"), BudgetShare("c", 1, "wasted")],
            unit="GPU-hours",
        )
    )
    widths = [float(each.attrib["width"]) for each in tree.iter(f"{SVG}rect")]
    assert widths == pytest.approx([840, 0, 280])
    assert "a: 3 GPU-hours (75%)" in "".join(tree.itertext())
    parsed(cost.shares([BudgetShare("a", 0, "done")], unit="CPU-hours"))


@pytest.mark.parametrize("higher", [False, True])
def test_the_front_is_what_none_beats_in_both(higher: bool) -> None:
    rng = np.random.default_rng(1)
    priced = [CostPoint(mark(f"{n}"), float(rng.integers(1, 9)), float(rng.integers(1, 9))) for n in range(40)]
    front = {(each.cost, each.score) for each in cost.pareto_front(priced, higher=higher)}
    sign = -1 if higher else 1
    for each in priced:
        beaten = any(
            (other.cost <= each.cost and sign * other.score <= sign * each.score)
            and (other.cost, other.score) != (each.cost, each.score)
            for other in priced
        )
        assert ((each.cost, each.score) in front) is not beaten


def test_the_best_weights_are_traced_back_through_copies() -> None:
    population = [
        ValueSchedule(mark("0001", role="best"), (ValueChange(0, 1.0), ValueChange(4, 1.0, "0002")), until=8),
        ValueSchedule(mark("0002"), (ValueChange(0, 1.0), ValueChange(2, 1.0, "0003")), until=8),
        ValueSchedule(mark("0003"), (ValueChange(0, 1.0), ValueChange(6, 1.0, "0001")), until=8),
    ]
    tree = parsed(schedules.lineage(population, epochs=8))
    way = next(each for each in tree.iter(f"{SVG}path") if each.attrib.get("class") == "front")
    rows = [round((y - 8) / schedules.ROW - 0.5) for _, y in points(way.attrib["d"])]
    assert rows == [0, 0, 1, 1, 2, 2]


def test_trials_that_copied_each_other_at_once_end() -> None:
    population = [
        ValueSchedule(mark("0001", role="best"), (ValueChange(0, 1.0), ValueChange(2, 1.0, "0002")), until=4),
        ValueSchedule(
            mark("0002"), (ValueChange(0, 1.0), ValueChange(2, 1.0, "0001"), ValueChange(3, 1.0, "gone")), until=4
        ),
    ]
    parsed(schedules.lineage(population, epochs=4))


@pytest.mark.parametrize("state", ["done", "stopped", "running", "failed", "waiting"])
@pytest.mark.parametrize("role", ["", "best", "default"])
def test_hostile_names_stay_text_in_every_form(state: str, role: str) -> None:
    hostile = Mark(HOSTILE, HOSTILE, state, 3, role)
    axis = axes.choice_axis([HOSTILE, "b"], title=HOSTILE)
    score = axes.score_axis([0.1, 0.2], higher=False, title=HOSTILE)
    found = [
        history.history([ScoredTrial(hostile, 0.1)], score=score, default=0.2),
        history.strip([ScoredTrial(hostile, 0.1)], [SeedSpread(HOSTILE, 0.1, 0.01, "best")], score=score),
        history.curves([LearningCurve(hostile, ((1, 0.1), (2, 0.2)))], metric=HOSTILE, higher=False, epochs=2),
        parameters.parallel(
            [Parameter(HOSTILE, axis, HOSTILE)], [TriedConfiguration(hostile, (HOSTILE,), 0.1)], score=score
        ),
        parameters.slice_chart(
            Parameter(HOSTILE, axis), 0, [TriedConfiguration(hostile, (HOSTILE,), 0.1)], score=score
        ),
        parameters.importance({HOSTILE: 1.0}, doubtful=False),
        cost.timeline([TrialSpan(hostile, 0.0, 1e4)]),
        cost.shares([BudgetShare(HOSTILE, 1.0, "done")], unit=HOSTILE),
        schedules.lineage([ValueSchedule(hostile, (ValueChange(0, HOSTILE),), 2)], epochs=2),
    ]
    for svg in found:
        tree = ET.fromstring(svg)
        assert not [each for each in tree.iter() if each.tag.endswith("script")]
        assert not [name for each in tree.iter() for name in each.attrib if name.startswith("on")]


def test_an_axis_without_numbers_of_a_logarithmic_kind_draws_nothing_on_it() -> None:
    parameter = Parameter("optim.lr", Axis(1e-5, 1e-2, (), log=True))
    tree = parsed(
        parameters.slice_chart(parameter, 0, [TriedConfiguration(mark(), (0.0,), 0.1)], score=axes.axis([0, 1]))
    )
    assert trials(tree) == []
