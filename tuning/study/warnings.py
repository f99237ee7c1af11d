"""What whoever reads a search should know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from depthray.config.metric_names import rank_key
from tuning.space.dimension import INTEGER_KINDS, Dimension
from tuning.study.outcome import Configuration, Outcome
from tuning.values import count_distinct

if TYPE_CHECKING:
    from tuning.study.study import Study

STEEP = 0.01  # relative gain of the last epoch above which a metric is still on its way
MAX_NAMES = 5  # trials of many
ORDERED = 3  # of two choices each lies at an end, which says nothing

Kind = Literal["none", "failed", "unfinite", "edge", "unused", "budget", "seeds", "default", "population"]


@dataclass(frozen=True)
class SearchWarning:
    """One thing to know."""

    kind: Kind
    text: str  # a sentence without a full stop
    key: str = ""  # the searched key it is about, if it is about one


def warnings(study: Study) -> Iterator[SearchWarning]:
    """All there is to say about a search, the gravest first."""
    winner = study.winner()
    if winner is None:
        yet = "" if study.search.ended else " yet"
        yield SearchWarning("none", f"no searched trial has a finite {study.search.metric}{yet}")
    else:
        yield from _gain_warnings(study, winner)
    yield from _lost_warnings(study)
    if winner is not None:
        yield from _edge_warnings(study, winner.outcome)
        yield from _budget_warnings(study, winner.outcome)
        yield from _population_warnings(winner.outcome)
    yield from _unused_warnings(study)


def _gain_warnings(study: Study, winner: Configuration) -> Iterator[SearchWarning]:
    """Whether the winner is better than the recipe as it was given, beyond what the seed alone does."""
    default, gain = study.default(), study.gain()
    if winner.lost:
        seeds = "another seed" if winner.lost == 1 else f"{winner.lost} other seeds"
        yield SearchWarning("seeds", f"the winner {winner.name} failed or had no finite score under {seeds}")
    if default is None:
        yield SearchWarning("default", "the recipe as it was given has no score yet, so no gain over it is known")
    elif gain is None:
        yield SearchWarning(
            "default", "no searched configuration is better than the recipe as it was given: it is the winner"
        )
    elif gain.absolute <= 0:
        yield SearchWarning("default", f"the winner {winner.name} is no better than the recipe as it was given")
    elif gain.spread is None:
        yield SearchWarning(
            "seeds", "neither the winner nor the default was repeated: the gain may be luck of the seed"
        )
    elif not gain.clear:
        yield SearchWarning(
            "seeds",
            f"the gain over the default, {gain.absolute:.3g}, is within the spread over seeds, {gain.spread:.3g}",
        )


def _lost_warnings(study: Study) -> Iterator[SearchWarning]:
    """Trials without a usable score."""
    failed = [each for each in study.trials if each.trial.state == "failed"]
    if failed:
        error, often = Counter(each.trial.error or "no reason was given" for each in failed).most_common(1)[0]
        most = "" if len(failed) == often else f" ({often} of them)"
        yield SearchWarning("failed", f"{_count_trials(len(failed))} of {len(study.trials)} failed: {error}{most}")
    unfinite = [each.name for each in study.trials if each.lost and each.trial.state != "failed"]
    if unfinite:
        names = ", ".join([*unfinite[:MAX_NAMES], *(["..."] if len(unfinite) > MAX_NAMES else [])])
        yield SearchWarning(
            "unfinite", f"{_count_trials(len(unfinite))} never had a finite {study.search.metric}: {names}"
        )


def _edge_warnings(study: Study, best: Outcome) -> Iterator[SearchWarning]:
    """Best values at an end of what was searched: the optimum may lie outside."""
    for dimension in study.dimensions:
        value = study.value(best, dimension.key)
        edge = _edge(dimension, value)
        if edge:
            further = study.accepts(dimension.key, _beyond(dimension, edge))
            what = f"the best {dimension.key}, {_format(value)}, is at the {edge} end of what was searched"
            advice = "search further there" if further else "the key itself goes no further"
            yield SearchWarning("edge", f"{what}{_range(dimension)}: {advice}", dimension.key)


def _edge(dimension: Dimension, value: Any) -> str:
    if not _is_number(value) or (dimension.kind == "choice" and len(dimension.values) < ORDERED):
        return ""
    return dimension.edge(value)


def _beyond(dimension: Dimension, edge: str) -> float:
    """A value a little outside of what was searched."""
    low, high = min(dimension.ends), max(dimension.ends)
    if dimension.kind in INTEGER_KINDS or all(isinstance(number, int) for number in dimension.ends):
        return int(high) + 1 if edge == "high" else int(low) - 1
    if edge == "high":
        return float(high + 0.1 * (high - low))
    return float(low / 2 if low > 0 else low - 0.1 * (high - low))


def _range(dimension: Dimension) -> str:
    return "" if dimension.kind == "choice" else f" ({_format(dimension.low)} to {_format(dimension.high)})"


def _format(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unused_warnings(study: Study) -> Iterator[SearchWarning]:
    """Searched keys that had one value in all finished trials, so that nothing is known of them."""
    finished = study.finished()
    if len(finished) < 2:
        return
    for key in study.keys:
        if count_distinct([study.value(each, key) for each in finished]) < 2:
            yield SearchWarning(
                "unused", f"{key} had the same value in all finished trials: nothing is known of it", key
            )


def _budget_warnings(study: Study, best: Outcome) -> Iterator[SearchWarning]:
    """A metric that was still on its way when the epochs were over."""
    if best.epochs < 2 or best.epochs < study.search.epochs or best.best_epoch != best.epochs or best.score is None:
        return
    before = [rank_key(best.metric, score) for epoch, score in best.scores if epoch < best.epochs and score is not None]
    step = min(before) - rank_key(best.metric, best.score) if before else 0.0
    if step > STEEP * abs(best.score):
        share = f"{step / abs(best.score):.0%}" if best.score else f"{step:.3g}"
        yield SearchWarning(
            "budget",
            f"{best.metric} of the winner {best.name} was still getting better in its last epoch, by {share}: "
            "more epochs may change which configuration is best",
        )


def _population_warnings(best: Outcome) -> Iterator[SearchWarning]:
    """Words that changed while the winner trained: one recipe cannot say so."""
    changes: list[Mapping[str, Any]] = [
        change for change in best.trial.history if best.best_epoch is None or change["epoch"] <= best.best_epoch
    ]
    if changes:
        yield SearchWarning(
            "population",
            f"the words of the winner {best.name} changed in training (before epoch "
            f"{', '.join(str(change['epoch']) for change in changes)}): its recipe has the last ones, and trained from "
            "the start with them it may score otherwise",
        )


def _count_trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"
