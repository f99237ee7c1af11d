"""What a table is, and its cells as text: ranges, bytes, times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from model import Range

Table = tuple[Sequence[str], Iterable[Sequence[Any]]]  # headers and rows


def span(ends: Range, digits: int = 2, factor: float = 1.0) -> str:
    """A range as people write it."""
    # Compared as text: two ends that round to the same are one number.
    low, high = (f"{end * factor:,.{digits}f}" for end in ends)
    return low if low == high else f"{low}-{high}"


def in_bytes(count: float) -> str:
    """With a unit that keeps the number short."""
    for size, unit in ((1e12, "TB"), (1e9, "GB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e6:.0f} MB"


def in_time(seconds: float) -> str:
    """With a unit that keeps the number short."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
