"""How a contract says that it is broken."""

from __future__ import annotations


def expect(holds: object, message: str) -> None:
    """Raise AssertionError with what is wrong and what to do, unless it holds."""
    if not holds:
        raise AssertionError(message)
