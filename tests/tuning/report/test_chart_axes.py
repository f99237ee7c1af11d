"""Numbers and axes of charts: written for people, holding their values, with ticks inside."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from chart_svg import HOSTILE

from tuning import values as tuning_values
from tuning.report.charts import axes
from tuning.report.charts.marks import clean, element, format_coordinate, text
from tuning.values import format_number, format_value

# -- numbers and marks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.14321, 4, "0.1432"),
        (0.1, 4, "0.1"),
        (0.0, 4, "0"),
        (3.2e-4, 3, "3.2e-4"),
        (1e-5, 4, "1e-5"),
        (0.001, 3, "0.001"),
        (12.5, 4, "12.5"),
        (1234567.0, 3, "1,234,567"),
        (100.0, 2, "100"),
        (-0.25, 3, "-0.25"),
        (2.5e12, 3, "2.5e12"),
        (0.99999, 3, "1"),
        (math.nan, 4, "–"),
        (math.inf, 4, "–"),
        (None, 4, "–"),
    ],
)
def test_numbers_are_formatted_for_readers(value: float | None, digits: int, expected: str) -> None:
    assert format_number(value, digits) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, "true"), (None, "none"), ([1, 0.5], "[1, 0.5]"), ("adam", "adam"), (2048, "2048"), (0.9995, "0.9995")],
)
def test_values_are_written_as_in_a_recipe(value: object, expected: str) -> None:
    assert format_value(value) == expected


def test_choices_that_are_close_stay_apart() -> None:
    axis = axes.choice_axis([0.999, 0.9995, 0.9999, 0.99995])
    assert len(axis.choices) == 4
    assert [axis.share(value) for value in (0.999, 0.9995, 0.9999, 0.99995)] == [0.125, 0.375, 0.625, 0.875]


def test_coordinates_are_short_and_never_minus_zero() -> None:
    assert [format_coordinate(value) for value in (1.0, 1.25, -0.04, 0.0, 1e4)] == ["1", "1.2", "0", "0", "10000"]


def test_text_and_attributes_are_escaped_and_stay_readable() -> None:
    tree = ET.fromstring(element("g", text(HOSTILE, (0, 0)), data_trial=HOSTILE))
    assert tree.attrib["data-trial"] == clean(HOSTILE) == "".join(tree.itertext())
    assert "<script>" in "".join(tree.itertext())
    assert "\x00" not in clean(HOSTILE) and clean("a\tb\n😀é") == "a\tb\n😀é"


# -- axes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("ends", [(0.1, 0.4), (1e-5, 1e-2), (3.0, 3.0), (16, 20), (0.99, 1.01), (1e-12, 1e12)])
def test_an_axis_holds_its_values_and_has_ticks_inside(ends: tuple[float, float], log: bool) -> None:
    axis = axes.axis(ends, log=log)
    low, high = (axis.share(value) for value in ends)
    assert 0 < low <= high < 1
    assert len(axis.ticks) >= 2 and len(axis.ticks) <= 12
    assert all(axis.low * (1 - 1e-9) <= tick <= axis.high * (1 + 1e-9) for tick in axis.ticks)
    assert list(axis.ticks) == sorted(set(axis.ticks))


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_of_nothing_is_an_axis(values: list[float], log: bool) -> None:
    axis = axes.axis(values, log=log)
    assert axis.low < axis.high and all(math.isfinite(tick) for tick in axis.ticks)


def test_a_logarithmic_axis_gives_decades_equal_space() -> None:
    axis = axes.axis([1e-5, 1e-2], log=True)
    shares = [axis.share(10.0**power) for power in (-5, -4, -3, -2)]
    np.testing.assert_allclose(np.diff(shares), np.diff(shares)[0])
    assert not axis.holds(0) and not axis.holds(-1) and not axis.holds("text") and axis.holds(1e-3)


def test_values_beyond_an_axis_are_put_at_its_end() -> None:
    axis = axes.axis([0, 1])
    assert axis.share(99) == 1 and axis.share(-99) == 0 and axis.unclamped(99) > 1
    assert axis.clamps(99) and not axis.clamps(0.5)


def test_true_is_no_number_and_choices_have_an_order() -> None:
    assert not tuning_values.is_number(True)
    assert axes.choice_axis([10, 9, "text", True, 9.5]).choices == ("9", "9.5", "10", "true", "text")
    assert axes.choice_axis(["b", "a"], ordered=True).choices == ("b", "a")
    assert axes.choice_axis([]).choices == ("",)


@pytest.mark.parametrize("higher", [False, True])
def test_a_diverged_trial_does_not_stretch_the_axis_of_scores(higher: bool) -> None:
    good = [0.10, 0.11, 0.12, 0.13, 0.14]
    axis = axes.score_axis([*good, -500.0 if higher else 500.0, None, math.nan], higher=higher)
    assert axis.low > -1 and axis.high < 1
    assert all(not axis.clamps(value) for value in good)
