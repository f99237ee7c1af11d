"""Round steps for axes and colour bars."""

from __future__ import annotations

import math

UNITS = (1, 2, 5, 10)


def round_step(raw: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below a step."""
    magnitude = 10.0 ** math.floor(math.log10(raw))
    # 0.999: a step that is round already stays, in spite of rounding errors.
    return next(unit * magnitude for unit in UNITS if unit * magnitude >= raw * 0.999)
