"""Values of a recipe and scores as plain numbers: which are numbers, which are equal, and how they are shown."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 80  # columns of a line of text


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def finite_or_none(value: Any) -> float | None:
    """A finite number as a float; None for anything else."""
    return float(value) if is_number(value) else None


def canonical(value: Any) -> str:
    """A value as text that is equal for equal values: 1 and 1.0 are the same, true and 1 are not."""
    return repr(float(value)) if is_number(value) else json.dumps(value, default=str)


def count_distinct(values: Sequence[Any]) -> int:
    """The number of different values, lists among them."""
    return len({canonical(value) for value in values})


def format_value(value: Any) -> str:
    """A value as a recipe has it: short numbers exactly, long fractions with three digits."""
    if isinstance(value, bool) or value is None:  # as YAML has them, so that values can be pasted into a recipe
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(each) for each in value) + "]"
    if not is_number(value):
        return str(value)
    # Six digits where they are exact: 0.000125 is a choice of somebody, 0.000125371 a sample.
    return format_number(value, 6 if float(f"{value:.6g}") == value else 3).replace(",", "")


def format_number(value: float | None, digits: int = 4) -> str:
    """A number for people: 0.1432, 12.5, 3.2e-4, 1,400,000; a dash for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e9:  # 3.2e-4, as learning rates are written
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = f"{value:,.{decimals}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def sentence(text: str) -> str:
    """A clause as a sentence: a full stop, and a capital unless it begins with a name such as abs_rel."""
    is_word = text.split(" ", 1)[0].rstrip(":,").isalpha()
    return f"{text[:1].upper() if is_word else text[:1]}{text[1:]}." if text else ""


def wrapped(text: str) -> str:
    """A text in lines of 80 columns, where its words allow it; all but the first are indented."""
    return textwrap.fill(text, WIDTH, subsequent_indent=8 * " ", break_long_words=False, break_on_hyphens=False)
