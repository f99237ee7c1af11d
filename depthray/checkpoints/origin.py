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

    def published(self) -> dict[str, Any]:
        """The same for others: without paths of this machine, and without what is not known."""
        public = self.source.startswith(("hf:", "https:", "wheel:"))
        known = asdict(self) | {"source": self.source if public else ""}
        return {key: value for key, value in known.items() if value not in ("", None)}


def from_json(tree: dict[str, Any] | None) -> Origin | None:
    """The origin that a manifest has; None where it has none. Raises TypeError for other fields."""
    return None if tree is None else Origin(**tree)
