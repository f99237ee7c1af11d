"""One searched key of a recipe: the values it may take, and how a value is written as a dotted word."""

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

Kind = Literal["uniform", "loguniform", "integer", "logint", "choice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WHOLE, LOGARITHMIC = ("integer", "logint"), ("loguniform", "logint")
DIGITS = 4  # significant ones of a drawn number: more would change nothing but the length of its word
EDGE = 0.02  # share of a range that counts as its edge
EXAMPLE = "optim.lr: {loguniform: [1e-5, 1e-2]}"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")  # 1e-5, which YAML 1.1 takes for text


@dataclass(frozen=True)
class Dimension:
    """A key and its range, both ends within it, or its choices."""

    key: str  # dotted key of the recipe
    kind: Kind
    low: float = 0
    high: float = 0
    values: tuple[Any, ...] = ()  # of a choice

    def sample(self, rng: np.random.Generator) -> Any:
        """A value of the range by chance, as plain Python; of a log kind, each factor is as likely as any other."""
        if self.kind == "choice":
            return self.values[rng.integers(len(self.values))]
        if self.kind == "integer":
            return int(rng.integers(int(self.low), int(self.high), endpoint=True))
        if self.kind == "uniform":
            return self.rounded(rng.uniform(self.low, self.high))
        whole = self.kind == "logint"
        value = math.exp(rng.uniform(math.log(self.low), math.log(self.high + whole)))
        return self.rounded(math.floor(value) if whole else value)

    def rounded(self, value: float) -> Any:
        """A number brought into the range, and short: whole where the range is, otherwise of a few digits."""
        short = round(value) if self.kind in WHOLE else float(f"{value:.{DIGITS}g}")
        return min(max(short, self.low), self.high)

    def edge(self, value: Any) -> Literal["low", "high", ""]:
        """The end that a value lies at or beyond; none for what has no order, such as choices that are no numbers."""
        place = self._place(value)
        if place is None or EDGE < place < 1 - EDGE:
            return ""
        return "low" if place <= EDGE else "high"

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values by which a range is tried before the search: both ends, or each choice."""
        return self.values if self.kind == "choice" else (self.low, self.high)

    def listed(self) -> tuple[Any, ...] | range:
        """Every value, for a grid. Raises UsageError for a range without steps."""
        if self.kind == "choice":
            return self.values
        if self.kind in WHOLE:
            return range(int(self.low), int(self.high) + 1)
        middle = math.sqrt(self.low * self.high) if self.kind in LOGARITHMIC else (self.low + self.high) / 2
        some = ", ".join(text(float(value)) for value in (self.low, float(f"{middle:.1g}"), self.high))
        raise UsageError(
            f"{self.key}: a grid needs single values, and {self.kind} has none; "
            f"write {self.key}: {{choice: [{some}]}}, or search at random"
        )

    def _place(self, value: Any) -> float | None:
        """Where a value lies, from 0 at the low end to 1 at the high one."""
        if not _is_number(value):
            return None
        if self.kind == "choice":
            return _rank(value, self.values)
        if self.high <= self.low:
            return None
        if self.kind not in LOGARITHMIC:
            return float((value - self.low) / (self.high - self.low))
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0


def read_dimension(key: str, tree: Any, *, where: str) -> Dimension:
    """`{loguniform: [1e-5, 1e-2]}` of a key as a dimension; whether the range fits the key is not asked here."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UsageError(f"{where}: {key}: give one range, as in {EXAMPLE}; a fixed value is a word of the command")
    (kind, given), *_ = tree.items()
    if kind not in KINDS:
        raise UsageError(
            f"{where}: {key}: no kind of range '{kind}'{did_you_mean(str(kind), KINDS)}; keys are written with dots, "
            f"as in {EXAMPLE}"
        )
    if not isinstance(given, list | tuple):
        raise UsageError(f"{where}: {key}: {kind} takes a list, as in {{{kind}: [low, high]}} or {{choice: [a, b]}}")
    values = [plain(value, key=key, where=where) for value in given]
    if kind == "choice":
        return Dimension(key, "choice", values=tuple(values))
    return Dimension(key, kind, *_limits(key, kind, values, where=where))


def plain(value: Any, *, key: str, where: str) -> Any:
    """A value as read from YAML or JSON, its lists and numbers too. Raises UsageError for what no word can say."""
    if isinstance(value, list | tuple):
        return [plain(item, key=key, where=where) for item in value]
    if isinstance(value, str):
        return float(value) if NUMBER.fullmatch(value) else value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    said = "nothing" if value is None else f"{value!r}"
    raise UsageError(
        f"{where}: {key}: {said} is no value a word can give; use finite numbers, true, false, text, lists"
    )


def words(point: Mapping[str, Any]) -> list[str]:
    """Dotted key -> value as the words that `depthray train` takes; each gives back exactly its value."""
    return [f"{key}={text(value)}" for key, value in point.items()]


def text(value: Any) -> str:
    """A value as YAML on one line: 1.0e-05 where Python writes 1e-05, which YAML takes for text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return f"[{','.join(text(item) for item in value)}]"
    return yaml.safe_dump([value], default_flow_style=True, width=sys.maxsize, allow_unicode=True).strip()[1:-1]


def _limits(key: str, kind: str, values: list[Any], *, where: str) -> tuple[float, float]:
    if len(values) != 2 or not all(_is_number(value) for value in values):
        raise UsageError(f"{where}: {key}: {kind} takes two numbers, [low, high], not {text(values)}")
    if kind not in WHOLE:
        return float(values[0]), float(values[1])
    if any(value != int(value) for value in values):
        raise UsageError(f"{where}: {key}: {kind} takes whole numbers, not {text(values)}; uniform takes others")
    return int(values[0]), int(values[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rank(value: float, values: tuple[Any, ...]) -> float | None:
    """Where a number stands among choices that are numbers in order, up or down, as a share."""
    if len(values) < 2 or value not in values or not all(_is_number(each) for each in values):
        return None
    upwards = sorted(values)
    if list(values) not in (upwards, upwards[::-1]):
        return None
    return upwards.index(value) / (len(values) - 1)
