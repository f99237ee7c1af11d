"""What a check found beside what it should have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the report."""

    what: str
    expected: str
    found: str
    good: bool


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    port: int
    requests: int
    seconds: float
    minutes: float
    bodies: int
