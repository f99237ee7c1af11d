"""A correction of a network's depth that was fitted afterwards: part of a checkpoint's manifest, not of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Calibration:
    """ln metres = shift + slope x ln prediction, and what it was fitted to."""

    shift: float
    slope: float = 1.0
    data: str = ""  # its frames or points, as the user named them
    fingerprint: str = ""  # of the frames
    frames: int = 0
    before: float = 0.0  # AbsRel of frames that were held out of the fit, as the network predicts them
    after: float = 0.0  # the same, corrected

    def __str__(self) -> str:
        power = "" if self.slope == 1.0 else f" of depth to the power of {self.slope:.3f}"
        return f"x {2.718281828459045**self.shift:.3f}{power}"


def from_json(tree: dict[str, Any] | None) -> Calibration | None:
    """The calibration that a manifest has; None where it has none. Raises TypeError for other fields."""
    return None if tree is None else Calibration(**tree)
