"""What came of a trial and of a configuration, read from what they left on disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthray.config.metric_names import rank_key
from tuning.records import ENDED, Search, Trial, curve, read_trials
from tuning.values import finite_or_none

RANKED = ("running", "done", "stopped")  # a failed trial's recipe does not run to its end: it cannot be the best


@dataclass(frozen=True)
class Outcome:
    """A trial, its epochs and its score."""

    trial: Trial
    metric: str
    curve: tuple[Mapping[str, Any], ...]  # see records.curve
    score: float | None  # best of its epochs; None where no epoch had a finite one
    best_epoch: int | None  # the first that had this score

    @property
    def name(self) -> str:
        """The trial's folder below trials/."""
        return self.trial.name

    @property
    def epochs(self) -> int:
        """Number of the last epoch told of; 0 before the first."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def last(self) -> float | None:
        """The last epoch's score; None where it is not finite, or there is no epoch."""
        return self.scores[-1][1] if self.curve else None

    @property
    def scores(self) -> tuple[tuple[int, float | None], ...]:
        """(epoch, score) of each epoch, in order."""
        return tuple((int(told["epoch"]), finite_or_none(told.get(self.metric))) for told in self.curve)

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.trial.state in ENDED

    @property
    def lost(self) -> bool:
        """Whether it ended without a usable score: failed, or never a finite one."""
        return self.trial.state == "failed" or (self.ended and self.score is None)

    @property
    def words(self) -> Mapping[str, Any]:
        """Those its best epoch was trained with, or the latest without one: population based training changes them."""
        words = dict(self.trial.words)
        for change in self.trial.history:
            if self.best_epoch is None or change["epoch"] <= self.best_epoch:
                words |= change["words"]
        return words

    @property
    def seconds_per_epoch(self) -> float | None:
        """Of training and validation, without the start; None before the first epoch."""
        if not self.epochs:
            return None
        return float(self.curve[-1].get("seconds") or self.trial.busy_seconds) / self.epochs

    @property
    def busy_seconds(self) -> float:
        """That its resources were taken; at least what its last epoch tells, while it runs."""
        told = float(self.curve[-1].get("seconds") or 0) if self.curve else 0.0
        return max(self.trial.busy_seconds, 0.0 if self.ended else told)


@dataclass(frozen=True)
class Configuration:
    """Words, as one trial and its repeats under other seeds."""

    outcome: Outcome  # its search trial, or the default; its score is the configuration's
    repeats: tuple[Outcome, ...]  # in whatever state
    seeds: tuple[float, ...]  # scores of the trial and of each repeat that ended well; empty without any
    lost: int  # repeats that failed or have no finite score: it is not to be relied on

    @property
    def name(self) -> str:
        """The folder of its trial below trials/."""
        return self.outcome.name

    @property
    def mean(self) -> float | None:
        """Over the seeds; None without a score."""
        return math.fsum(self.seeds) / len(self.seeds) if self.seeds else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None below two."""
        return statistics.stdev(self.seeds) if len(self.seeds) > 1 else None


def read_outcomes(folder: Path, search: Search) -> tuple[Outcome, ...]:
    """What came of each trial of a search folder, by name."""
    return tuple(outcome(trial, curve(folder / "trials" / trial.name), search.metric) for trial in read_trials(folder))


def outcome(trial: Trial, epochs: Sequence[Mapping[str, Any]], metric: str) -> Outcome:
    """What came of a trial with these epochs."""
    scored = [
        (rank_key(metric, score), told["epoch"])
        for told in epochs
        if (score := finite_or_none(told.get(metric))) is not None
    ]
    worth, epoch = min(scored, default=(None, None))
    return Outcome(trial, metric, tuple(epochs), None if worth is None else rank_key(metric, worth), epoch)


def configuration(own: Outcome, outcomes: Iterable[Outcome]) -> Configuration:
    """A trial with the repeats of it among the outcomes."""
    repeats = tuple(each for each in outcomes if each.trial.kind == "repeat" and each.trial.of == own.name)
    good = [each for each in repeats if each.ended and not each.lost]
    seeds = tuple(each.score for each in (own, *good) if each.score is not None and each.trial.state != "failed")
    return Configuration(own, repeats, seeds, lost=sum(each.lost for each in repeats))
