"""How much a search may use, and whether it has."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Limits:
    """Until a time of day in seconds, and so many seconds of GPUs over all trials; 0 = without limit."""

    deadline: float = 0.0
    gpu_seconds: float = 0.0
    gpu_seconds_used: float = 0.0

    @property
    def reached(self) -> bool:
        """Whether nothing is left."""
        return 0 < self.deadline <= time.time() or 0 < self.gpu_seconds <= self.gpu_seconds_used
