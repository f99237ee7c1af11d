"""What whoever reads a search should know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from depthray.config.metric_names import rank_key
from tuning.space.dimension import WHOLE, Dimension
from tuning.study.importance import distinct
from tuning.study.outcome import Configuration, Outcome

if TYPE_CHECKING:
    from tuning.study.study import Study

STEEP = 0.01  # relative gain of the last epoch above which a metric is still on its way
NAMED = 5  # trials of many
ORDERED = 3  # of two choices each lies at an end, which says nothing

Kind = Literal["none", "failed", "unfinite", "edge", "unused", "budget", "seeds", "default", "population"]


@dataclass(frozen=True)
class Caution:
    """One thing to know."""

    kind: Kind
    text: str  # a sentence without a full stop
    key: str = ""  # the searched key it is about, if it is about one


def cautions(study: Study) -> Iterator[Caution]:
    """All there is to say about a search, the gravest first."""
    winner = study.winner()
    if winner is None:
        yet = "" if study.search.ended else " yet"
        yield Caution("none", f"no searched trial has a finite {study.search.metric}{yet}")
    else:
        yield from _gain(study, winner)
    yield from _lost(study)
    if winner is not None:
        yield from _edges(study, winner.outcome)
        yield from _budget(study, winner.outcome)
        yield from _population(winner.outcome)
    yield from _unused(study)


def _gain(study: Study, winner: Configuration) -> Iterator[Caution]:
    """Whether the winner is better than the recipe as it was given, beyond what the seed alone does."""
    default, gain = study.default(), study.gain()
    if winner.lost:
        seeds = "another seed" if winner.lost == 1 else f"{winner.lost} other seeds"
        yield Caution("seeds", f"the winner {winner.name} failed or had no finite score under {seeds}")
    if default is None:
        yield Caution("default", "the recipe as it was given has no score yet, so no gain over it is known")
    elif gain is None:
        yield Caution(
            "default", "no searched configuration is better than the recipe as it was given: it is the winner"
        )
    elif gain.absolute <= 0:
        yield Caution("default", f"the winner {winner.name} is no better than the recipe as it was given")
    elif gain.spread is None:
        yield Caution("seeds", "neither the winner nor the default was repeated: the gain may be luck of the seed")
    elif not gain.clear:
        yield Caution(
            "seeds",
            f"the gain over the default, {gain.absolute:.3g}, is within the spread over seeds, {gain.spread:.3g}",
        )


def _lost(study: Study) -> Iterator[Caution]:
    """Trials without a usable score."""
    failed = [each for each in study.trials if each.trial.state == "failed"]
    if failed:
        error, often = Counter(each.trial.error or "no reason was given" for each in failed).most_common(1)[0]
        most = "" if len(failed) == often else f" ({often} of them)"
        yield Caution("failed", f"{_trials(len(failed))} of {len(study.trials)} failed: {error}{most}")
    unfinite = [each.name for each in study.trials if each.lost and each.trial.state != "failed"]
    if unfinite:
        names = ", ".join([*unfinite[:NAMED], *(["..."] if len(unfinite) > NAMED else [])])
        yield Caution("unfinite", f"{_trials(len(unfinite))} never had a finite {study.search.metric}: {names}")


def _edges(study: Study, best: Outcome) -> Iterator[Caution]:
    """Best values at an end of what was searched: the optimum may lie outside."""
    for dimension in study.dimensions:
        value = study.value(best, dimension.key)
        edge = _edge(dimension, value)
        if edge:
            further = study.accepts(dimension.key, _beyond(dimension, edge))
            what = f"the best {dimension.key}, {_short(value)}, is at the {edge} end of what was searched"
            advice = "search further there" if further else "the key itself goes no further"
            yield Caution("edge", f"{what}{_range(dimension)}: {advice}", dimension.key)


def _edge(dimension: Dimension, value: Any) -> str:
    if not _is_number(value) or (dimension.kind == "choice" and len(dimension.values) < ORDERED):
        return ""
    return dimension.edge(value)


def _beyond(dimension: Dimension, edge: str) -> float:
    """A value a little outside of what was searched."""
    low, high = min(dimension.ends), max(dimension.ends)
    if dimension.kind in WHOLE or all(isinstance(number, int) for number in dimension.ends):
        return int(high) + 1 if edge == "high" else int(low) - 1
    if edge == "high":
        return float(high + 0.1 * (high - low))
    return float(low / 2 if low > 0 else low - 0.1 * (high - low))


def _range(dimension: Dimension) -> str:
    return "" if dimension.kind == "choice" else f" ({_short(dimension.low)} to {_short(dimension.high)})"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unused(study: Study) -> Iterator[Caution]:
    """Searched keys that had one value in all finished trials, so that nothing is known of them."""
    finished = study.finished()
    if len(finished) < 2:
        return
    for key in study.keys:
        if distinct([study.value(each, key) for each in finished]) < 2:
            yield Caution("unused", f"{key} had the same value in all finished trials: nothing is known of it", key)


def _budget(study: Study, best: Outcome) -> Iterator[Caution]:
    """A metric that was still on its way when the epochs were over."""
    if best.epochs < 2 or best.epochs < study.search.epochs or best.best_epoch != best.epochs or best.score is None:
        return
    before = [rank_key(best.metric, score) for epoch, score in best.scores if epoch < best.epochs and score is not None]
    step = min(before) - rank_key(best.metric, best.score) if before else 0.0
    if step > STEEP * abs(best.score):
        share = f"{step / abs(best.score):.0%}" if best.score else f"{step:.3g}"
        yield Caution(
            "budget",
            f"{best.metric} of the winner {best.name} was still getting better in its last epoch, by {share}: "
            "more epochs may change which configuration is best",
        )


def _population(best: Outcome) -> Iterator[Caution]:
    """Words that changed while the winner trained: one recipe cannot say so."""
    changes: list[Mapping[str, Any]] = [
        change for change in best.trial.history if best.best_epoch is None or change["epoch"] <= best.best_epoch
    ]
    if changes:
        yield Caution(
            "population",
            f"the words of the winner {best.name} changed in training (before epoch "
            f"{', '.join(str(change['epoch']) for change in changes)}): its recipe has the last ones, and trained from "
            "the start with them it may score otherwise",
        )


def _trials(number: int) -> str:
    return "1 trial" if number == 1 else f"{number} trials"
