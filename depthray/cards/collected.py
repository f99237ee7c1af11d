"""The facts of a network with the reports that were made of it since: evaluations and robustness, beside the run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from depthray.checkpoints import load
from depthray.checkpoints.model_facts import MeanAndEnds, ModelFacts, ProtocolScores, finite
from depthray.runtimes import export_folder

MOST_BYTES = 1 << 24  # of a report; a larger file is none of ours


def facts_of(path: Path, *, reports: Path | None) -> ModelFacts | None:
    """The facts of a checkpoint or an export, with the reports in a folder; None where it does not say any."""
    if export_folder.is_export(path):
        return export_folder.read(path).facts
    facts = load.read_facts(path)
    return None if facts is None else with_reports(facts, reports, path.name)


def with_reports(facts: ModelFacts, folder: Path | None, checkpoint: str) -> ModelFacts:
    """Facts with what the reports on a checkpoint of that name say, which are in folders that begin with its name."""
    if folder is None:
        return facts
    scores: list[ProtocolScores] = []
    robustness, confidence = dict(facts.robustness), dict(facts.confidence)
    for report in sorted(folder.glob(f"{checkpoint}-*/*.json")):
        if report.name == "evaluation.json" and (tree := _read(report)):
            scores += _scores(tree)
            confidence |= _numbers(tree.get("confidence"))
        if report.name == "robustness.json" and (tree := _read(report)):
            robustness |= _slopes(tree)
    # Validation is scored again by `depthray evaluate`, in more metrics.
    again = {(each.protocol, each.split, each.frames) for each in scores}
    first = [each for each in facts.scores if (each.protocol, each.split, each.frames) not in again]
    return replace(facts, scores=(*first, *scores), robustness=robustness, confidence=confidence)


def _read(path: Path) -> dict[str, Any]:
    """A report; {} where it cannot be read: a card is made without it."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return {}
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _scores(tree: dict[str, Any]) -> Iterator[ProtocolScores]:
    """The scores of evaluation.json; none where it is not of this form."""
    try:
        metrics: dict[str, MeanAndEnds] = {
            name: (float(value["mean"]), float(value["low"]), float(value["high"]))
            for name, value in tree["overall"].items()
            if None not in (value["mean"], value["low"], value["high"])
        }
        # The last part of the path alone: a card is for others.
        place, _, form = str(tree["data"]).partition(" (")
        data = Path(place).name + (f" ({form}" if form else "")
        yield ProtocolScores(
            str(tree["protocol"]["name"]),
            data,
            str(tree["split"]),
            int(tree["frames"]),
            int(tree["scene_count"]),
            finite(metrics),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return


def _slopes(tree: dict[str, Any]) -> dict[str, float]:
    """By corruption the slope of the first network in robustness.json."""
    try:
        corruptions = tree["networks"][0]["corruptions"]
        return _numbers({name: each["slope"] for name, each in corruptions.items()})
    except (KeyError, IndexError, TypeError, AttributeError):
        return {}


def _numbers(tree: Any) -> dict[str, float]:
    """The numbers of a dict; {} of anything else."""
    if not isinstance(tree, dict):
        return {}
    return {str(key): float(value) for key, value in tree.items() if isinstance(value, int | float)}
