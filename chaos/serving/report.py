"""What a check observed, next to what was expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    expected: str
    observed: str
    good: bool


@dataclass(frozen=True)
class Sizes:
    """How long and with how much load the checks run."""

    port: int
    requests: int
    seconds: float
    minutes: float
    bodies: int
