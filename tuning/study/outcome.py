"""The outcome of a trial and of a configuration, read from their files on disk."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthray.config.metric_names import rank_key
from depthray.runs import layout
from tuning.records import ENDED, Search, Trial, curve, read_trials
from tuning.values import finite_or_none

# States of trials that may win: the recipe of a failed one does not run to its end, however good it was before.
RANKED = ("running", "done", "stopped")


@dataclass(frozen=True)
class Outcome:
    """A trial, its epochs and its score."""

    trial: Trial
    metric: str
    curve: tuple[Mapping[str, Any], ...]  # see records.curve
    score: float | None  # best over its epochs; None without a finite one
    best_epoch: int | None  # the first that had this score

    @property
    def name(self) -> str:
        """The folder of the trial below trials/."""
        return self.trial.name

    @property
    def epochs(self) -> int:
        """The number of the last epoch reported; 0 before the first."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def last(self) -> float | None:
        """The score of the last epoch; None if it is not finite, or there is no epoch."""
        return self.scores[-1][1] if self.curve else None

    @property
    def scores(self) -> tuple[tuple[int, float | None], ...]:
        """(epoch, score) of each epoch, in order."""
        return tuple((int(epoch["epoch"]), finite_or_none(epoch.get(self.metric))) for epoch in self.curve)

    @property
    def ended(self) -> bool:
        """Whether the trial is done, stopped or failed."""
        return self.trial.state in ENDED

    @property
    def lost(self) -> bool:
        """Whether it ended without a usable score: it failed, or never had a finite one."""
        return self.trial.state == "failed" or (self.ended and self.score is None)

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Dotted key -> value in its best epoch, or in its latest without one: a population changes them."""
        values = dict(self.trial.words)
        for change in self.trial.history:
            if self.best_epoch is None or change["epoch"] <= self.best_epoch:
                values |= change["words"]
        return values

    @property
    def seconds_per_epoch(self) -> float | None:
        """Of training and validation, without the start; None before the first epoch."""
        if not self.epochs:
            return None
        return float(self.curve[-1].get("seconds") or self.trial.busy_seconds) / self.epochs

    @property
    def busy_seconds(self) -> float:
        """Seconds that it held its resources."""
        # trial.json is written less often than progress.jsonl, so of a running trial the last epoch may be ahead.
        reported = float(self.curve[-1].get("seconds") or 0) if self.curve else 0.0
        return max(self.trial.busy_seconds, 0.0 if self.ended else reported)


@dataclass(frozen=True)
class Configuration:
    """Overrides of the recipe, as one trial and its repeats under other seeds."""

    outcome: Outcome  # its search trial, or the default; its score is that of the configuration
    repeats: tuple[Outcome, ...]  # in whatever state
    seeds: tuple[float, ...]  # scores of the trial and of each repeat that ended well; empty without any
    lost: int  # repeats that failed or have no finite score: the configuration is not reliable

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
    """The outcome of each trial of a search folder, by name."""
    return tuple(
        outcome(trial, curve(layout.trial(folder, trial.name)), search.metric) for trial in read_trials(folder)
    )


def outcome(trial: Trial, epochs: Sequence[Mapping[str, Any]], metric: str) -> Outcome:
    """The outcome of a trial with these epochs."""
    scored = [
        (rank_key(metric, score), epoch["epoch"])
        for epoch in epochs
        if (score := finite_or_none(epoch.get(metric))) is not None
    ]
    best_key, best_epoch = min(scored, default=(None, None))
    # rank_key only changes the sign of a metric, so that applied twice it gives back the score.
    return Outcome(trial, metric, tuple(epochs), None if best_key is None else rank_key(metric, best_key), best_epoch)


def configuration(own: Outcome, outcomes: Iterable[Outcome]) -> Configuration:
    """A trial with its repeats among the outcomes."""
    repeats = tuple(each for each in outcomes if each.trial.kind == "repeat" and each.trial.of == own.name)
    good = [each for each in repeats if each.ended and not each.lost]
    seeds = tuple(each.score for each in (own, *good) if each.score is not None and each.trial.state != "failed")
    return Configuration(own, repeats, seeds, lost=sum(each.lost for each in repeats))
