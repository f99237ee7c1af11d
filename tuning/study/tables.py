"""A study as plain values for study.json and as a table for trials.csv."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from depthray.storage.strict_json import finite_tree
from tuning.study.budget import budget, hours, unit_of
from tuning.study.importance import importance
from tuning.study.outcome import Configuration, Outcome
from tuning.study.study import Gain, Study
from tuning.study.warnings import warnings

# Scripts read these columns: they keep their names and order, new ones go to the end of the fixed part.
COLUMNS = ("name", "kind", "of", "state", "score", "best_epoch", "epochs", "seconds")


def as_csv(study: Study) -> str:
    """A line a trial: its outcome, then a column for each searched key with the value it had."""
    unit = unit_of(study.search)
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*COLUMNS, f"{unit.lower()}_hours", "error", *study.keys])
    for each in study.trials:
        # Where a trial leaves a key as it is, the value of the baseline: a column without gaps can be sorted.
        values = [_cell(study.value(each, key)) for key in study.keys]
        # The error on one line: tools such as cut and grep work on lines.
        table.writerow([*_row(each), hours(each, unit), " ".join(each.trial.error.split()), *values])
    return file.getvalue()


def as_json(study: Study) -> dict[str, Any]:
    """Everything of a study but the curves, as plain values: lists, and None for numbers that are not finite.

    The keys are read by scripts and stay the same: `words` are overrides, `cautions` are warnings.
    """
    tree: dict[str, Any] = finite_tree(
        {
            "search": asdict(study.search),
            "winner": None if study.winner is None else _configuration(study.winner),
            "default": None if study.default is None else _configuration(study.default),
            "gain": _gain(study.gain()),
            "gain_over_median": _gain(study.gain_over_median()),
            "ranking": [_configuration(each) for each in study.ranking],
            "budget": asdict(budget(study)),
            "importance": asdict(importance(study)),
            "cautions": [asdict(each) for each in warnings(study)],
            "objectives": study.objectives,
            "pareto": [each.name for each in study.pareto()],
            "infeasible": [each.name for each in study.infeasible],
            "provenance": study.provenance(),
            "trials": [_trial(study, each) for each in study.trials],
        }
    )
    return tree


def _row(each: Outcome) -> list[Any]:
    trial = each.trial
    return [each.name, trial.kind, trial.of, trial.state, each.score, each.best_epoch, each.epochs, each.busy_seconds]


def _cell(value: Any) -> Any:
    # As JSON: true rather than Python's True, as an override takes it.
    return json.dumps(value) if isinstance(value, list | tuple | bool) else value


def _configuration(each: Configuration) -> dict[str, Any]:
    return {
        "name": each.name,
        "score": each.outcome.score,
        "words": each.outcome.overrides,
        "seeds": each.seeds,
        "mean": each.mean,
        "spread": each.spread,
        "lost": each.lost,
    }


def _trial(study: Study, each: Outcome) -> dict[str, Any]:
    scores = {"score": each.score, "best_epoch": each.best_epoch, "epochs": each.epochs, "last": each.last}
    return {**asdict(each.trial), **scores, "hours": hours(each, unit_of(study.search))}


def _gain(gain: Gain | None) -> dict[str, Any] | None:
    return None if gain is None else asdict(gain)
