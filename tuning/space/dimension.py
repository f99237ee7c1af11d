"""One searched key of a recipe: the values it may take, and how a value is written as a dotted override."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import yaml

from depthray.errors import UsageError, did_you_mean
from tuning.values import is_number

Kind = Literal["uniform", "loguniform", "integer", "logint", "choice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
INTEGER_KINDS, LOG_KINDS = ("integer", "logint"), ("loguniform", "logint")
DIGITS = 4  # significant digits of a sampled number: more would only lengthen its override
EDGE = 0.02  # share of a range that counts as its edge
EXAMPLE = "optim.lr: {loguniform: [1e-5, 1e-2]}"
EXPONENT_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # 1e-5, which YAML 1.1 reads as text


@dataclass(frozen=True)
class Dimension:
    """A key and its range, including both ends, or its choices."""

    key: str  # dotted key of the recipe
    kind: Kind
    low: float = 0
    high: float = 0
    values: tuple[Any, ...] = ()  # of a choice

    def sample(self, rng: np.random.Generator) -> Any:
        """A random value of the range, as plain Python; a log kind is uniform in the logarithm."""
        if self.kind == "choice":
            return self.values[rng.integers(len(self.values))]
        if self.kind == "integer":
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "uniform":
            return self.round(rng.uniform(self.low, self.high))
        # Up to high + 1 and rounded down, so that the largest integer is as likely as its share of the logarithm.
        is_integer = self.kind == "logint"
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high + is_integer)))
        return self.round(math.floor(value) if is_integer else value)

    def round(self, value: float) -> Any:
        """A number clamped to the range and shortened: to an integer, or to a few digits."""
        short = round(value) if self.kind in INTEGER_KINDS else float(f"{value:.{DIGITS}g}")
        # Clamped last: rounding may leave the range.
        return min(max(short, self.low), self.high)

    def edge(self, value: Any) -> Literal["low", "high", ""]:
        """The end of the range that a value is at or beyond; "" in between and where values have no order."""
        position = self._position(value)
        if position is None or EDGE < position < 1 - EDGE:
            return ""
        return "low" if position <= EDGE else "high"

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are checked before the search: both ends of a range, or each choice."""
        return self.values if self.kind == "choice" else (self.low, self.high)

    def grid_values(self) -> tuple[Any, ...] | range:
        """Every value, for a grid. Raises UsageError for a continuous range."""
        if self.kind == "choice":
            return self.values
        if self.kind in INTEGER_KINDS:
            return range(int(self.low), int(self.high) + 1)
        center = math.sqrt(self.low * self.high) if self.kind in LOG_KINDS else (self.low + self.high) / 2
        some = ", ".join(to_yaml(float(value)) for value in (self.low, float(f"{center:.1g}"), self.high))
        raise UsageError(
            f"{self.key}: a grid needs single values, and {self.kind} is continuous; "
            f"write {self.key}: {{choice: [{some}]}}, or use --search random"
        )

    def _position(self, value: Any) -> float | None:
        """Position in the range, from 0 at the low end to 1 at the high end; None where there is no order."""
        if not is_number(value):
            return None
        if self.kind == "choice":
            return _choice_position(value, self.values)
        if self.high <= self.low:
            return None
        if self.kind not in LOG_KINDS:
            return float((value - self.low) / (self.high - self.low))
        # What is not positive is below every range of a logarithm.
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0


def read_dimension(key: str, tree: Any, *, where: str) -> Dimension:
    """`{loguniform: [1e-5, 1e-2]}` of a key as a dimension; whether it fits the recipe is for `space_check`."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UsageError(
            f"{where}: {key}: give one range, as in {EXAMPLE}; a fixed value is an override of the command"
        )
    (kind, given), *_ = tree.items()
    if kind not in KINDS:
        raise UsageError(
            f"{where}: {key}: no kind of range '{kind}'{did_you_mean(str(kind), KINDS)}; keys are written with dots, "
            f"as in {EXAMPLE}"
        )
    if not isinstance(given, list | tuple):
        raise UsageError(f"{where}: {key}: {kind} takes a list, as in {{{kind}: [low, high]}} or {{choice: [a, b]}}")
    values = [parse_value(value, key=key, where=where) for value in given]
    if kind == "choice":
        return Dimension(key, "choice", values=tuple(values))
    return Dimension(key, kind, *_parse_ends(key, kind, values, where=where))


def parse_value(value: Any, *, key: str, where: str) -> Any:
    """A value as read from YAML or JSON, with lists and 1e-5 as Python has them.

    Raises UsageError for a value that no override can have.
    """
    if isinstance(value, list | tuple):
        return [parse_value(item, key=key, where=where) for item in value]
    if isinstance(value, str):
        return float(value) if EXPONENT_NUMBER.fullmatch(value) else value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    shown = "null" if value is None else f"{value!r}"
    raise UsageError(
        f"{where}: {key}: {shown} cannot be the value of an override; use finite numbers, true, false, text, lists"
    )


def overrides(point: Mapping[str, Any]) -> list[str]:
    """Dotted key -> value as the overrides that `depthray train` takes; each is read back to exactly its value."""
    return [f"{key}={to_yaml(value)}" for key, value in point.items()]


def to_yaml(value: Any) -> str:
    """A value as YAML on one line: 1.0e-05 where Python writes 1e-05, which YAML reads as text."""
    # YAML's safe writer refuses NumPy's numbers.
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return f"[{','.join(to_yaml(item) for item in value)}]"
    # As a list of one without its brackets: a single value would end with "...".
    return yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize, allow_unicode=True).strip()[1:-1]


def _parse_ends(key: str, kind: str, values: list[Any], *, where: str) -> tuple[float, float]:
    if len(values) != 2 or not all(is_number(value) for value in values):
        raise UsageError(f"{where}: {key}: {kind} takes two numbers, [low, high], not {to_yaml(values)}")
    if kind not in INTEGER_KINDS:
        return float(values[0]), float(values[1])
    if any(value != int(value) for value in values):
        raise UsageError(f"{where}: {key}: {kind} takes whole numbers, not {to_yaml(values)}; uniform takes others")
    return int(values[0]), int(values[1])


def _choice_position(value: float, values: tuple[Any, ...]) -> float | None:
    """Position of a number among choices that are sorted numbers, ascending or descending, from 0 to 1."""
    if len(values) < 2 or value not in values or not all(is_number(each) for each in values):
        return None
    ascending = sorted(values)
    if list(values) not in (ascending, ascending[::-1]):
        return None
    return ascending.index(value) / (len(values) - 1)
