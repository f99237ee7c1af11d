"""Limits on what a network may cost: a trial beyond one is never the best, and the searcher avoids its like."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from depthray.errors import UsageError, did_you_mean

KEY = "constraints"  # in the file of a space
COSTS = ("latency_ms", "parameters")  # what is measured of a trial besides its scores; lower is better
EXAMPLE = "latency_ms=20"


def parse(tree: Any, *, where: str) -> dict[str, float]:
    """Cost -> the most it may be, of a mapping of plain values. Raises UsageError for anything else."""
    if not isinstance(tree, Mapping):
        raise UsageError(f"{where}: {KEY} is limits by name, as in {KEY}: {{latency_ms: 20}}, not {tree!r}")
    return {str(name): _limit(str(name), value, where=where) for name, value in tree.items()}


def parse_flags(words: Sequence[str]) -> dict[str, float]:
    """The same of arguments such as latency_ms=20."""
    pairs = [word.partition("=") for word in words]
    for word, (_, equals, _) in zip(words, pairs, strict=True):
        if not equals:
            raise UsageError(f"--{KEY} {word}: give a name and a limit, as in {EXAMPLE}")
    return parse({name: value for name, _, value in pairs}, where=f"--{KEY}")


def excess(constraints: Mapping[str, float], costs: Mapping[str, float | None]) -> dict[str, float]:
    """Constraint -> by what share of its limit a trial is beyond it, below 0 within; of the costs that are known."""
    known = {name: costs.get(name) for name in constraints}
    return {name: cost / constraints[name] - 1 for name, cost in known.items() if cost is not None}


def _limit(name: str, value: Any, *, where: str) -> float:
    if name not in COSTS:
        raise UsageError(f"{where}: {name} is nothing that can be limited{did_you_mean(name, COSTS)}")
    try:
        limit = math.nan if isinstance(value, bool) else float(value)  # 5e6 is text to YAML
    except (TypeError, ValueError):
        limit = math.nan
    if not 0 < limit < math.inf:
        raise UsageError(f"{where}: {name} is limited to a number above 0, not {value!r}")
    return limit
