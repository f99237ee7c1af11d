"""Warnings about the result of a search: what to know before relying on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from depthray.config.metric_names import rank_key
from tuning.space.dimension import INTEGER_KINDS, Dimension
from tuning.study.outcome import Configuration, Outcome
from tuning.study.study import Study, describe_constraints
from tuning.values import count_distinct, is_number

STEEP = 0.01  # relative gain of the last epoch above which a metric is still improving
MAX_NAMES = 5  # trials named in a text
ORDERED = 3  # choices from which on an end means something: of two, each is an end

# Kinds are values of study.json, which scripts read: they keep their names.
Kind = Literal["none", "failed", "unfinite", "edge", "unused", "budget", "seeds", "default", "population", "infeasible"]


@dataclass(frozen=True)
class SearchWarning:
    """One warning."""

    kind: Kind
    text: str  # a sentence without a full stop
    key: str = ""  # the searched key it is about, if it is about one


def warnings(study: Study) -> list[SearchWarning]:
    """All warnings about a search, the most severe first."""
    winner = study.winner
    if winner is None:
        yet = "" if study.search.ended else " yet"
        within = f" within {describe_constraints(study.search)}" if study.search.constraints else ""
        none = SearchWarning("none", f"no searched trial{within} has a finite {study.metric}{yet}")
        return [none, *_infeasible_warnings(study), *_lost_warnings(study), *_unused_warnings(study)]
    return [
        *_gain_warnings(study, winner),
        *_infeasible_warnings(study),
        *_lost_warnings(study),
        *_edge_warnings(study, winner.outcome),
        *_budget_warnings(study, winner.outcome),
        *_population_warnings(winner.outcome),
        *_unused_warnings(study),
    ]


def _gain_warnings(study: Study, winner: Configuration) -> Iterator[SearchWarning]:
    """Whether the winner is better than the baseline by more than the seed alone explains."""
    default, gain = study.default, study.gain()
    if winner.lost:
        seeds = "another seed" if winner.lost == 1 else f"{winner.lost} other seeds"
        yield SearchWarning("seeds", f"the winner {winner.name} failed or had no finite score under {seeds}")
    if default is None:
        yield SearchWarning("default", "the baseline recipe has no score yet, so no gain over it is known")
    elif gain is None:  # a searched trial has the values of the baseline, and wins
        yield SearchWarning("default", "no searched configuration is better than the baseline: it is the winner")
    elif gain.absolute <= 0:
        yield SearchWarning("default", f"the winner {winner.name} is no better than the baseline")
    elif gain.spread is None:
        yield SearchWarning(
            "seeds", "neither the winner nor the baseline was repeated: the gain may be luck of the seed"
        )
    elif not gain.clear:
        yield SearchWarning(
            "seeds",
            f"the gain over the baseline, {gain.absolute:.3g}, is within the spread over seeds, {gain.spread:.3g}",
        )


def _infeasible_warnings(study: Study) -> Iterator[SearchWarning]:
    """Trials that a constraint keeps from being the best, and a baseline that the gain is over though it is beyond."""
    limits = describe_constraints(study.search)
    if study.infeasible:
        names = _join_names([each.name for each in study.infeasible])
        count = f"{_count_trials(len(study.infeasible))} of {len(study.searched)}"
        yield SearchWarning("infeasible", f"{count} beyond {limits}, and so never the best: {names}")
    if study.default is not None and study.is_infeasible(study.default.outcome):
        yield SearchWarning("infeasible", f"the baseline recipe is beyond {limits} itself")


def _lost_warnings(study: Study) -> Iterator[SearchWarning]:
    """Trials without a usable score."""
    failed = [each for each in study.trials if each.trial.state == "failed"]
    if failed:
        # The most common error is enough: usually all trials fail for the same reason.
        error, often = Counter(each.trial.error or "no reason was given" for each in failed).most_common(1)[0]
        most = "" if len(failed) == often else f" ({often} of them)"
        yield SearchWarning("failed", f"{_count_trials(len(failed))} of {len(study.trials)} failed: {error}{most}")
    unfinite = [each.name for each in study.trials if each.lost and each.trial.state != "failed"]
    if unfinite:
        names = _join_names(unfinite)
        yield SearchWarning("unfinite", f"{_count_trials(len(unfinite))} never had a finite {study.metric}: {names}")


def _edge_warnings(study: Study, best: Outcome) -> Iterator[SearchWarning]:
    """Best values at an end of their range: the optimum may be outside."""
    for dimension in study.dimensions:
        value = study.value(best, dimension.key)
        edge = _edge(dimension, value)
        if edge:
            # Advice to search augment.hflip beyond 1 would be useless.
            further = study.accepts(dimension.key, _beyond(dimension, edge))
            what = f"the best {dimension.key}, {_format(value)}, is at the {edge} end of what was searched"
            advice = "search further there" if further else "the recipe allows no values beyond"
            yield SearchWarning("edge", f"{what}{_format_range(dimension)}: {advice}", dimension.key)


def _edge(dimension: Dimension, value: Any) -> str:
    if not is_number(value) or (dimension.kind == "choice" and len(dimension.values) < ORDERED):
        return ""
    return dimension.edge(value)


def _beyond(dimension: Dimension, edge: str) -> float:
    """A value a little outside of the range."""
    low, high = min(dimension.ends), max(dimension.ends)
    # A step of one for integers: 10 % of a small range would round to nothing.
    if dimension.kind in INTEGER_KINDS or all(isinstance(number, int) for number in dimension.ends):
        return int(high) + 1 if edge == "high" else int(low) - 1
    if edge == "high":
        return float(high + 0.1 * (high - low))
    return float(low / 2 if low > 0 else low - 0.1 * (high - low))


def _format_range(dimension: Dimension) -> str:
    return "" if dimension.kind == "choice" else f" ({_format(dimension.low)} to {_format(dimension.high)})"


def _format(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _unused_warnings(study: Study) -> Iterator[SearchWarning]:
    """Searched keys that had one value in all finished trials, so that their effect is unknown."""
    if len(study.finished) < 2:
        return
    for key in study.keys:
        if count_distinct([study.value(each, key) for each in study.finished]) < 2:
            yield SearchWarning(
                "unused", f"{key} had the same value in all finished trials: its effect is unknown", key
            )


def _budget_warnings(study: Study, best: Outcome) -> Iterator[SearchWarning]:
    """A metric that was still improving in the last epoch."""
    # Only of a winner whose best epoch is its last: an earlier best means that more epochs do not help.
    if best.epochs < 2 or best.epochs < study.search.epochs or best.best_epoch != best.epochs or best.score is None:
        return
    before = [rank_key(best.metric, score) for epoch, score in best.scores if epoch < best.epochs and score is not None]
    step = min(before) - rank_key(best.metric, best.score) if before else 0.0
    if step > STEEP * abs(best.score):
        share = f"{step / abs(best.score):.0%}" if best.score else f"{step:.3g}"
        yield SearchWarning(
            "budget",
            f"{best.metric} of the winner {best.name} was still improving in its last epoch, by {share}: "
            "more epochs may change which configuration is best",
        )


def _population_warnings(best: Outcome) -> Iterator[SearchWarning]:
    """Overrides that changed while the winner trained: no single recipe has them all."""
    epochs = [
        str(change["epoch"])
        for change in best.trial.history
        if best.best_epoch is None or change["epoch"] <= best.best_epoch
    ]
    if epochs:
        yield SearchWarning(
            "population",
            f"the overrides of the winner {best.name} changed in training (before epoch {', '.join(epochs)}): its "
            "recipe has the last ones, and may score otherwise when trained with them from the start",
        )


def _join_names(names: list[str]) -> str:
    return ", ".join([*names[:MAX_NAMES], *(["..."] if len(names) > MAX_NAMES else [])])


def _count_trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"
