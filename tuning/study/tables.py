"""A study as plain values for study.json and as a table for trials.csv."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tuning.study.budget import hours, unit_of
from tuning.study.outcome import Configuration, Outcome

if TYPE_CHECKING:
    from tuning.study.study import Study

COLUMNS = ("name", "kind", "of", "state", "score", "best_epoch", "epochs", "seconds")


def as_csv(study: Study) -> str:
    """One line a trial; after what became of it, a column for each searched key with the value it had."""
    unit = unit_of(study.search)
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*COLUMNS, f"{unit.lower()}_hours", "error", *study.keys])
    for each in study.trials:
        values = [_cell(study.value(each, key)) for key in study.keys]
        table.writerow([*_row(each), hours(each, unit), " ".join(each.trial.error.split()), *values])
    return file.getvalue()


def as_json(study: Study) -> dict[str, Any]:
    """All of a study but the curves, as JSON has it: lists, and None for what is no finite number."""
    winner, default = study.winner(), study.default()
    found = {
        "search": asdict(study.search),
        "winner": None if winner is None else _configuration(winner),
        "default": None if default is None else _configuration(default),
        "gain": _fields(study.gain()),
        "gain_over_median": _fields(study.gain_over_median()),
        "ranking": [_configuration(each) for each in study.ranking()],
        "budget": asdict(study.budget()),
        "importance": asdict(study.importance()),
        "cautions": [asdict(each) for each in study.cautions()],
        "objectives": study.objectives(),
        "pareto": [each.name for each in study.pareto()],
        "provenance": study.provenance(),
        "trials": [_trial(study, each) for each in study.trials],
    }
    plain: dict[str, Any] = _unused_plain(found)
    return plain


def _row(each: Outcome) -> list[Any]:
    trial = each.trial
    return [each.name, trial.kind, trial.of, trial.state, each.score, each.best_epoch, each.epochs, each.busy_seconds]


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple | bool) else value


def _configuration(each: Configuration) -> dict[str, Any]:
    return {
        "name": each.name,
        "score": each.outcome.score,
        "words": each.outcome.words,
        "seeds": each.seeds,
        "mean": each.mean,
        "spread": each.spread,
        "lost": each.lost,
    }


def _trial(study: Study, each: Outcome) -> dict[str, Any]:
    told = {"score": each.score, "best_epoch": each.best_epoch, "epochs": each.epochs, "last": each.last}
    return {**asdict(each.trial), **told, "hours": hours(each, unit_of(study.search))}


def _fields(gain: Any) -> dict[str, Any] | None:
    return None if gain is None else asdict(gain)


def _unused_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _unused_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unused_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
