"""RUN/gain.json, .md, .csv: the weights that a run started from against its best checkpoint, on the same frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from depthray import distributed
from depthray.checkpoints import load, manifest, select
from depthray.config.sections import Recipe
from depthray.errors import CheckpointError
from depthray.evaluation import bootstrap, protocols
from depthray.evaluation.comparing.paired import compare
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title
from depthray.runs import layout
from depthray.runs.loggers import Curves, ProgressLog
from depthray.storage import local
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json
from depthray.training.frames import Frames
from depthray.training.gain import VALIDATION, Scores, score_weights
from depthray.training.state import State


def report(
    recipe: Recipe, run: Path, state: State, frames: Frames, *, is_over: bool, log: ProgressLog, curves: Curves
) -> None:
    """At the end of a run, on rank 0: score its best checkpoint, write the report, log and draw further data sets.

    The others call `join`. The state's weights are overwritten: nothing is trained any more.
    """
    if not _is_due(state, frames):
        return
    checkpoint = distributed.broadcast(tuned_checkpoint(run, recipe.eval.monitor) if is_over else None)
    if checkpoint is None:
        return
    after = score_weights(recipe, state.predictor, load.load(checkpoint).weights, frames, state.device)
    state.hooks.before_save()  # a group of workers that was replaced must not write any more
    _write(recipe, run, state, frames, after, checkpoint)
    at = manifest.read(checkpoint)
    scores = {each.path: after[each.path].means() for each in frames.further}
    for path, each in scores.items():
        log.further(path, each, epoch=at.epoch, step=at.step)
    curves.further(at.step, {frames.further_name(path): each for path, each in scores.items()})


def join(recipe: Recipe, state: State, frames: Frames) -> None:
    """The part of the other processes in `report`, each with its share of the frames."""
    if _is_due(state, frames) and distributed.broadcast(None) is not None:
        score_weights(recipe, state.predictor, None, frames, state.device)


def _is_due(state: State, frames: Frames) -> bool:
    """Whether there is anything to report at the end of the run; the same on every process."""
    return bool(state.before or frames.further)


def tuned_checkpoint(run: Path, monitor: str) -> Path | None:
    """The best of a run's checkpoints that were trained and scored; None where there is none."""
    paths = [path for path in select.committed(run / layout.CHECKPOINTS) if _epoch(path) > 0]
    return next(iter(select.rank(select.scores(paths, monitor), monitor)), None)


def _write(recipe: Recipe, run: Path, state: State, frames: Frames, after: Scores, checkpoint: Path) -> None:
    """Write the comparison of both scores into the run's folder."""
    summary = _summary(recipe, run, state, frames, after, checkpoint)
    files = {
        layout.GAIN_JSON: to_json(summary, indent=2, ensure_ascii=False) + "\n",
        layout.GAIN_TABLE: markdown(summary),
        layout.GAIN_FRAMES: _csv(state.before, after),
    }
    with translate_os_errors(run, to=CheckpointError, doing="write the report of what training gained"):
        for name, text in files.items():
            local.replace(run / name, text.encode())


def _summary(
    recipe: Recipe, run: Path, state: State, frames: Frames, after: Scores, checkpoint: Path
) -> dict[str, Any]:
    best, protocol = select.resolve(run), protocols.of(recipe)
    return {
        "protocol": {"name": protocol.name, "about": protocol.about},
        "monitor": recipe.eval.monitor,
        "started_from": state.origin.source if state.origin else "",
        "checkpoint": checkpoint.name,
        "epoch": _epoch(checkpoint),
        "best_checkpoint": best.name,
        "best_epoch": _epoch(best),
        "sets": [
            {
                "name": path if path == VALIDATION else frames.further_name(path),
                "path": "" if path == VALIDATION else path,
                "frames": len(scores.ids),
                "scene_count": len(set(scores.scenes)),
                "metrics": [gain.as_tree() for gain in compare(state.before.get(path), scores)],
            }
            for path, scores in after.items()
        ],
    }


def _epoch(checkpoint: Path) -> int:
    name = select.CheckpointName.parse(checkpoint.name)
    return name.epoch if name else 0


def markdown(summary: Mapping[str, Any]) -> str:
    """A summary as Markdown whose tables also line up in a terminal."""
    own, *further = summary["sets"]
    tuned = f"epoch {summary['epoch']}"
    parts = []
    if own["metrics"][0]["before"]:
        parts += [
            "# What training gained",
            f"The weights as they are ({summary['started_from']}) against {tuned}, on {_frames(own)} of validation, "
            f"protocol {summary['protocol']['name']}; 95 % intervals of {bootstrap.RESAMPLES} bootstrap draws of whole "
            "scenes, the difference in pairs of the same frames.",
            _table(own, ("zero-shot", "tuned")),
            *_conclusions(summary),
        ]
    if further:
        parts += [
            "# Further data sets",
            f"The sets of eval.also before training and at {tuned}, protocol {summary['protocol']['name']}.",
            _further_table(further),
        ]
    return "\n\n".join(parts) + "\n"


def _frames(each: Mapping[str, Any]) -> str:
    scenes = each["scene_count"]
    return f"{each['frames']} frames of {scenes} scene{'s' if scenes > 1 else ''}"


def _table(each: Mapping[str, Any], sides: tuple[str, str]) -> str:
    head = ["metric", *sides, "difference", "verdict"]
    return markdown_table(head, ([metric_title(gain["metric"]), *_cells(gain)] for gain in each["metrics"]))


def _further_table(sets: Sequence[Mapping[str, Any]]) -> str:
    head = ["data set", "frames", "metric", "before", "after", "difference", "verdict"]
    lines = [
        [each["name"], _frames(each), metric_title(gain["metric"]), *_cells(gain)]
        for each in sets
        for gain in each["metrics"]
    ]
    return markdown_table(head, lines)


def _cells(gain: Mapping[str, Any]) -> list[str]:
    before, after, difference = gain["before"], gain["after"], gain["difference"]
    return [_interval(before), _interval(after), _interval(difference, sign="+"), gain["verdict"] or "-"]


def _interval(value: Mapping[str, float] | None, *, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value['mean']:{sign}.4f} ({value['low']:{sign}.4f} to {value['high']:{sign}.4f})"


def _conclusions(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the table says of the metric that ranks checkpoints, in a sentence."""
    own = summary["sets"][0]
    gains = {gain["metric"]: gain for gain in own["metrics"]}
    gain = gains.get(summary["monitor"], own["metrics"][0])
    metric = gain["metric"]
    yield {
        "better": f"{metric} is better than before training, beyond the luck of the scenes.",
        "worse": f"{metric} is worse than before training, beyond the luck of the scenes.",
        "within luck": f"The difference in {metric} is within luck: its interval includes 0.",
        "too few scenes": f"Whether {metric} changed by more than luck cannot be said of {_frames(own)}: validate on "
        "more scenes.",
    }[gain["verdict"]]
    if not summary["best_epoch"]:
        best = summary["best_checkpoint"]
        yield f"No epoch is better than the weights as they are: the run's best checkpoint is {best}."


def _csv(before: Scores, after: Scores) -> str:
    """A line a frame: the data set, id, scene, and each metric before and after training."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = next(iter(after.values())).names
    writer.writerow(["set", "id", "scene", *(f"{name}_{side}" for name in metrics for side in ("before", "after"))])
    for path, scores in after.items():
        old = before.get(path)
        pairs = zip(scores.ids, scores.scenes, scores.table.tolist(), strict=True)
        earlier = dict(zip(old.ids, old.table.tolist(), strict=True)) if old else {}
        for name, scene, values in pairs:
            first = earlier.get(name, [""] * len(values))
            writer.writerow([path, name, scene, *(cell for pair in zip(first, values, strict=True) for cell in pair)])
    return text.getvalue()
