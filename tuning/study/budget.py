"""The cost of a search: hours used, wasted, saved and left."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tuning.records import Search, Trial
from tuning.study.outcome import Outcome
from tuning.study.study import Study

Unit = Literal["GPU", "CPU"]


@dataclass(frozen=True)
class Budget:
    """Hours of GPUs, or of CPUs where the search requests no GPU."""

    unit: Unit
    used: float  # unit-hours that trials held their resources
    wasted: float  # of these, by trials that failed or never had a finite score,
    wasted_trials: int  # and how many
    saved: float  # that stopped trials would have taken for the rest of their epochs, at their own pace,
    saved_trials: int  # and how many
    wall_seconds: float  # from the start to the end, or to the last record
    left: float | None  # unit-hours to the end; None when it has ended, or before the first epoch of any trial
    left_seconds: float | None  # the same as wall time


def budget(study: Study) -> Budget:
    """The cost of a search so far, and an estimate of the rest."""
    search, outcomes = study.search, study.trials
    unit = unit_of(search)
    wasted, stopped = [each for each in outcomes if each.lost], [each for each in outcomes if _was_saved(each)]
    used = sum(hours(each, unit) for each in outcomes)
    wall = max(0.0, (search.ended or _last_record(search, outcomes)) - search.started)
    seconds = None if search.ended else _seconds_left(search, outcomes)
    left = None if seconds is None else sum(seconds) / 3600 * _amount(search, unit)
    return Budget(
        unit=unit,
        used=used,
        wasted=sum(hours(each, unit) for each in wasted),
        wasted_trials=len(wasted),
        saved=sum(_seconds_saved(search, each) * _amount(each.trial, unit) / 3600 for each in stopped),
        saved_trials=len(stopped),
        wall_seconds=wall,
        left=left if left is None or not search.gpu_hours else min(left, max(0.0, search.gpu_hours - used)),
        left_seconds=None if seconds is None else _wall_left(search, seconds, wall=wall),
    )


def unit_of(search: Search) -> Unit:
    """The unit in which the hours of a search are counted."""
    return "GPU" if search.gpus else "CPU"


def hours(outcome: Outcome, unit: Unit) -> float:
    """Unit-hours that a trial held its resources."""
    return outcome.busy_seconds / 3600 * _amount(outcome.trial, unit)


def _amount(owner: Search | Trial, unit: Unit) -> float:
    """GPUs or CPUs of all workers of a trial."""
    return owner.workers * (owner.gpus if unit == "GPU" else owner.cpus)


def _was_saved(outcome: Outcome) -> bool:
    return outcome.trial.state == "stopped" and outcome.seconds_per_epoch is not None


def _seconds_saved(search: Search, outcome: Outcome) -> float:
    return max(0, search.epochs - outcome.epochs) * (outcome.seconds_per_epoch or 0.0)


def _last_record(search: Search, outcomes: Sequence[Outcome]) -> float:
    """The time of the latest record of a search that runs or was killed."""
    epochs = [float(each.curve[-1].get("time") or 0) for each in outcomes if each.curve]
    return max(search.started, *epochs, *(max(each.trial.started, each.trial.ended) for each in outcomes))


def _seconds_left(search: Search, outcomes: Sequence[Outcome]) -> list[float] | None:
    """Seconds of each trial that is still to start or to end; None before the pace of any is known."""
    full = _seconds_of_full_trial(search, outcomes)
    if full is None:
        return None
    ended = [each.busy_seconds for each in outcomes if each.ended and each.trial.kind == "search"]
    usual = statistics.mean(ended) if ended else full  # less than a full trial, as the scheduler stops some
    running = [_seconds_to_end(search, each, full) for each in outcomes if each.trial.state == "running"]
    kinds = [each.trial.kind for each in outcomes]
    waiting = [each.trial.kind for each in outcomes if each.trial.state == "waiting"]
    searched = waiting.count("search") + max(0, search.trials - kinds.count("search"))
    repeated = waiting.count("repeat") if "repeat" in kinds else _planned_repeats(search)
    default = waiting.count("default") + ("default" not in kinds)
    return [*running, *[usual] * searched, *[full] * (repeated + default)]


def _planned_repeats(search: Search) -> int:
    """Trials under other seeds at the end of a search, the baseline among them; none of a population."""
    return 0 if search.scheduler == "pbt" else search.repeats * (1 + min(search.top, search.trials))


def _seconds_of_full_trial(search: Search, outcomes: Sequence[Outcome]) -> float | None:
    """Seconds of a trial that runs to its last epoch."""
    done = [each.busy_seconds for each in outcomes if each.trial.state == "done"]
    if done:
        return statistics.mean(done)
    paces = [pace for each in outcomes if (pace := each.seconds_per_epoch) is not None]
    return statistics.mean(paces) * search.epochs if paces else None


def _seconds_to_end(search: Search, outcome: Outcome, full: float) -> float:
    pace = outcome.seconds_per_epoch
    return full if pace is None else max(0, search.epochs - outcome.epochs) * pace


def _wall_left(search: Search, seconds: Sequence[float], *, wall: float) -> float:
    """Wall time of the remaining trials, several at a time, at most the rest of --hours."""
    # No number of slots makes the rest shorter than its longest trial.
    together = max(sum(seconds) / max(1, search.concurrent), max(seconds, default=0.0))
    return min(together, max(0.0, search.hours * 3600 - wall)) if search.hours else together
