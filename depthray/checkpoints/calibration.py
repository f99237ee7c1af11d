"""Corrections of depth and its confidence that were fitted afterwards: in a checkpoint's manifest, not its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NETWORK = "network"


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


@dataclass(frozen=True)
class Temperature:
    """The factor of a deviation, that which a network predicts or the spread of several predictions; its origin."""

    factor: float
    data: str = ""  # its frames, as the user named them
    fingerprint: str = ""  # of the frames
    frames: int = 0
    before: tuple[float, ...] = ()  # shares of the pixels of frames that were held out in the intervals of 68 and 95 %
    after: tuple[float, ...] = ()  # the same with the factor
    of: str = NETWORK  # whose deviation it is, as `depthray.runtimes.spread` names it

    def __str__(self) -> str:
        return f"x {self.factor:.3f}" + ("" if self.of == NETWORK else f", {self.of}")


def temperature_from_json(tree: dict[str, Any] | None) -> Temperature | None:
    """The temperature that a manifest has; None where it has none. Raises TypeError for other fields."""
    if tree is None:
        return None
    return Temperature(**{**tree, "before": tuple(tree["before"]), "after": tuple(tree["after"])})


def from_json(tree: dict[str, Any] | None) -> Calibration | None:
    """The calibration that a manifest has; None where it has none. Raises TypeError for other fields."""
    return None if tree is None else Calibration(**tree)
