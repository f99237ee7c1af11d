"""A data set predicted in this process, as commands do."""

from __future__ import annotations

from depthray.predicted_sets import set_parts, set_plan
from depthray.predicted_sets.set_plan import SetRequest


def predict(wanted: SetRequest, *, lasts: int = 10**9) -> set_parts.SetSummary:
    """Predict as a command does; it is interrupted at a frame."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done > lasts:
            raise KeyboardInterrupt

    source, plan = set_plan.prepare(wanted)
    set_parts.predict_all(plan, source, advance=advance)
    return set_parts.finish(plan)
