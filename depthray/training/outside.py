"""What whoever started a run has to say to it while it trains, without the run knowing who that is.

The lines of `Outside` do nothing unless given: alone and under torchrun nobody says anything. On a Ray cluster
`cluster.elastic` gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outside:
    """Callables that a run asks or tells."""

    save: Callable[[], bool] = lambda: False  # asked on each process after each step: whether to save now
    check: Callable[[], None] = lambda: None  # called on rank 0 before it saves; raises where the run is not its own
    saved: Callable[[], None] = lambda: None  # called on rank 0 when a save point that was asked for is on disk
