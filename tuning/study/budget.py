"""What a search cost, what was lost and saved of it, and what is to come."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.records import Search, Trial
from tuning.study.outcome import Outcome


@dataclass(frozen=True)
class Budget:
    """Hours of GPUs, or of CPUs where the search asks for no GPU."""

    unit: Literal["GPU", "CPU"]
    used: float  # unit-hours that trials held their resources
    wasted: float  # of these, by trials that failed or never had a finite score,
    wasted_trials: int  # and how many
    saved: float  # that stopped trials would have taken for the rest of their epochs, at their own pace,
    saved_trials: int  # and how many
    wall_seconds: float  # from the start to the end, or to the last sign of life
    left: float | None  # unit-hours to the end; None when it has ended, or while there is no pace to judge by
    left_seconds: float | None  # the same as wall time


def budget(search: Search, outcomes: Sequence[Outcome]) -> Budget:
    """The cost of a search with these trials."""
    unit = unit_of(search)
    wasted, stopped = [each for each in outcomes if each.lost], [each for each in outcomes if _was_saved(each)]
    used = sum(hours(each, unit) for each in outcomes)
    wall = max(0.0, (search.ended or _last_sign(search, outcomes)) - search.started)
    seconds = None if search.ended else _seconds_left(search, outcomes)
    left = None if seconds is None else sum(seconds) / 3600 * _amount(search, unit)
    spared = sum(_seconds_saved(search, each) * _amount(each.trial, unit) / 3600 for each in stopped)
    return Budget(
        unit=unit,
        used=used,
        wasted=sum(hours(each, unit) for each in wasted),
        wasted_trials=len(wasted),
        saved=spared,
        saved_trials=len(stopped),
        wall_seconds=wall,
        left=left if left is None or not search.gpu_hours else min(left, max(0.0, search.gpu_hours - used)),
        left_seconds=None if seconds is None else _wall_left(search, seconds, wall=wall),
    )


def unit_of(search: Search) -> Literal["GPU", "CPU"]:
    """What the hours of a search are hours of."""
    return "GPU" if search.gpus else "CPU"


def hours(outcome: Outcome, unit: Literal["GPU", "CPU"]) -> float:
    """Unit-hours that a trial held its resources."""
    return outcome.busy_seconds / 3600 * _amount(outcome.trial, unit)


def _amount(asked: Search | Trial, unit: Literal["GPU", "CPU"]) -> float:
    """GPUs or CPUs of all workers of a trial."""
    return asked.workers * (asked.gpus if unit == "GPU" else asked.cpus)


def _was_saved(outcome: Outcome) -> bool:
    return outcome.trial.state == "stopped" and outcome.seconds_per_epoch is not None


def _seconds_saved(search: Search, outcome: Outcome) -> float:
    return max(0, search.epochs - outcome.epochs) * (outcome.seconds_per_epoch or 0.0)


def _last_sign(search: Search, outcomes: Sequence[Outcome]) -> float:
    """The latest time that anything was written, of a search that runs or was killed."""
    told = [float(each.curve[-1].get("time") or 0) for each in outcomes if each.curve]
    return max(search.started, *told, *(max(each.trial.started, each.trial.ended) for each in outcomes))


def _seconds_left(search: Search, outcomes: Sequence[Outcome]) -> list[float] | None:
    """Seconds of each trial that is still to run, or to run to its end."""
    whole = _seconds_of_a_whole(search, outcomes)
    if whole is None:
        return None
    ended = [each.busy_seconds for each in outcomes if each.ended and each.trial.kind == "search"]
    usual = statistics.mean(ended) if ended else whole
    running = [_seconds_to_end(search, each, whole) for each in outcomes if each.trial.state == "running"]
    kinds = [each.trial.kind for each in outcomes]
    waiting = [each.trial.kind for each in outcomes if each.trial.state == "waiting"]
    searched = waiting.count("search") + max(0, search.trials - kinds.count("search"))
    repeated = waiting.count("repeat") if "repeat" in kinds else _repeats(search)
    default = waiting.count("default") + ("default" not in kinds)
    return [*running, *[usual] * searched, *[whole] * (repeated + default)]


def _repeats(search: Search) -> int:
    """Trials under other seeds that a search ends with, of the recipe as it was given too; a population has none."""
    return 0 if search.scheduler == "pbt" else search.repeats * (1 + min(search.top, search.trials))


def _seconds_of_a_whole(search: Search, outcomes: Sequence[Outcome]) -> float | None:
    """Seconds of a trial that runs to its last epoch."""
    done = [each.busy_seconds for each in outcomes if each.trial.state == "done"]
    if done:
        return statistics.mean(done)
    paces = [pace for each in outcomes if (pace := each.seconds_per_epoch) is not None]
    return statistics.mean(paces) * search.epochs if paces else None


def _seconds_to_end(search: Search, outcome: Outcome, whole: float) -> float:
    pace = outcome.seconds_per_epoch
    return whole if pace is None else max(0, search.epochs - outcome.epochs) * pace


def _wall_left(search: Search, seconds: Sequence[float], *, wall: float) -> float:
    """Wall time of the trials to come, several at a time, within the time the search was given."""
    together = max(sum(seconds) / max(1, search.concurrent), max(seconds, default=0.0))
    return min(together, max(0.0, search.hours * 3600 - wall)) if search.hours else together
