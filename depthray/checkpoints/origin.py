"""Where the weights of a network come from, and on which terms they may be used: part of a checkpoint's manifest."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """The file or run that a network started from. Fields that are not known are empty."""

    source: str  # as `model.weights` names it
    family: str = ""  # what the file was recognised as
    licence: str = ""  # as its publisher states it
    commercial: bool | None = None  # whether that licence allows commercial use
    trained_on: str = ""
    sha256: str = ""  # of the file

    def to_json(self) -> dict[str, Any]:
        """Plain values, by name."""
        return asdict(self)


def from_json(tree: dict[str, Any] | None) -> Origin | None:
    """The origin of `to_json`; None where there is none. Raises TypeError for other fields."""
    return None if tree is None else Origin(**tree)
