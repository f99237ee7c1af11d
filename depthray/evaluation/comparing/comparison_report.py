"""A comparison in its written forms: Markdown for people, JSON and CSV for programs, and a forest plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from depthray.errors import UsageError, count_of
from depthray.evaluation import bootstrap
from depthray.evaluation.comparing.comparison import CandidateScores, ComparedSet, Comparison
from depthray.evaluation.comparing.paired import SHOWN, MetricDifference, ScoreInterval, of_metric
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title
from depthray.imaging import plots, sheets
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

NOTE = (
    f"In brackets: 95 % intervals of {bootstrap.RESAMPLES} bootstrap draws of whole scenes; the difference is drawn in "
    "pairs of the same frames. The verdict is on these networks: another seed of the same recipe is another network."
)


def write(comparison: Comparison, out: Path) -> None:
    """Write comparison.md, .json, .csv and .png into a folder, which is made if need be."""
    texts = {"md": markdown(comparison), "json": as_json(comparison), "csv": as_csv(comparison)}
    with translate_os_errors(out, to=UsageError, doing="write the comparison", advice="give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        for form, text in texts.items():
            (out / f"comparison.{form}").write_text(text, encoding="utf-8")
        sheets.save_png(out / "comparison.png", plot(comparison))


def markdown(comparison: Comparison) -> str:
    """Tables for people, which also line up in a terminal."""
    parts = [f"# Compared with {comparison.names[0]}", *_conclusions(comparison)]
    for each in comparison.sets:
        parts += [
            f"## {each.about['data']}",
            f"{_frames(each)}, split {each.about['split']}, protocol {each.protocol}.",
            *(f"**Not a fair score:** {warning}." for warning in each.warnings),
            _overall_table(each),
        ]
        if any(score.ranges for score in each.scores):
            parts += [f"By true depth, {metric_title(comparison.monitor)}:", _range_table(each, comparison.monitor)]
    return "\n\n".join([*parts, NOTE]) + "\n"


def as_json(comparison: Comparison) -> str:
    """The comparison as JSON, with null for what could not be scored."""
    content = {
        "baseline": comparison.names[0],
        "monitor": comparison.monitor,
        "sets": [
            {
                **each.about,
                "protocol": each.protocol,
                "frames": len(each.scores[0].frames.ids),
                "scene_count": len(set(each.scores[0].frames.scenes)),
                "candidates": [
                    {
                        "name": score.name,
                        "trained_on": score.trained_on,
                        "overall": [metric.as_tree() for metric in score.overall],
                        "ranges": {
                            name: [metric.as_tree() for metric in range_] for name, range_ in score.ranges.items()
                        },
                    }
                    for score in each.scores
                ],
            }
            for each in comparison.sets
        ],
    }
    return to_json(content, indent=2, ensure_ascii=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A line a frame and candidate: data, id, scene, candidate and its metrics at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(dict.fromkeys(name for each in comparison.sets for name in each.scores[0].frames.names))
    writer.writerow(["data", "id", "scene", "checkpoint", *names])
    for each in comparison.sets:
        for score in each.scores:
            frames = score.frames
            for id_, scene, values in zip(frames.ids, frames.scenes, frames.table.tolist(), strict=True):
                by_name = dict(zip(frames.names, values, strict=True))
                writer.writerow([each.about["data"], id_, scene, score.name, *(by_name.get(name) for name in names)])
    return text.getvalue()


def plot(comparison: Comparison) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB forest plot: a panel a metric, a row a candidate, data set and range of true depth."""
    names = [name for name in comparison.sets[0].scores[0].frames.names if name in (*SHOWN, comparison.monitor)][:3]
    rows = [row for each in comparison.sets for score in each.scores[1:] for row in _rows(comparison, each, score)]
    panels = [
        plots.ForestPanel(metric_title(name).partition(" [")[0], [_mark(metrics.get(name)) for _, metrics in rows])
        for name in names
    ]
    return plots.draw_forest(panels, [label for label, _ in rows], baseline=comparison.names[0])


def _rows(
    comparison: Comparison, each: ComparedSet, score: CandidateScores
) -> Iterator[tuple[str, dict[str, MetricDifference]]]:
    data = f", {Path(each.about['data'].partition(' (')[0]).name}" if len(comparison.sets) > 1 else ""
    for range_, metrics in {"": score.overall, **score.ranges}.items():
        label = f"{score.name}{data}" if not range_ else f"at {range_}"
        yield label, {metric.metric: metric for metric in metrics}


def _mark(metric: MetricDifference | None) -> plots.ForestMark | None:
    """A difference as a share of the baseline's score; None where there is none."""
    if metric is None or metric.difference is None or metric.before is None or not metric.before.mean > 0:
        return None
    mean, low, high = (100 * end / metric.before.mean for end in metric.difference)
    return plots.ForestMark(mean, low, high, metric.verdict)


def _conclusions(comparison: Comparison) -> Iterator[str]:
    """A sentence for each candidate and data set about the metric that ranks checkpoints."""
    for each in comparison.sets:
        where = f" on {each.about['data']}" if len(comparison.sets) > 1 else ""
        for score in each.scores[1:]:
            metric = of_metric(score.overall, comparison.monitor)
            yield f"{score.name}{where}: {_sentence(metric)}"


def _sentence(metric: MetricDifference) -> str:
    if metric.difference is None or metric.before is None:
        return f"no {metric.metric} to compare."
    share = f"{metric.difference.mean / metric.before.mean:+.1%}".replace("%", " %") if metric.before.mean else ""
    change = f"{metric.metric} {_interval(metric.difference, sign='+')}, {share}"
    return {
        "better": f"**better** beyond the luck of which scenes were scored: {change}.",
        "worse": f"**worse** beyond the luck of which scenes were scored: {change}.",
        "within luck": f"no difference that is beyond the luck of which scenes were scored: {change}.",
        "too few scenes": f"{change}; too few scenes to tell.",
        "": "nothing was scored.",
    }[metric.verdict]


def _frames(each: ComparedSet) -> str:
    frames = each.scores[0].frames
    return f"{count_of(len(frames.ids), 'frame')} of {count_of(len(set(frames.scenes)), 'scene')}"


def _overall_table(each: ComparedSet) -> str:
    head = ["metric", "checkpoint", "score", "difference", "verdict"]
    names = each.scores[0].frames.names
    by_metric = [
        (name, score, metric)
        for name in names
        for score in each.scores
        for metric in score.overall
        if metric.metric == name
    ]
    lines = [
        [
            metric_title(name),
            score.name,
            _interval(metric.after),
            _interval(metric.difference, sign="+"),
            metric.verdict,
        ]
        for name, score, metric in by_metric
    ]
    return markdown_table(head, lines)


def _range_table(each: ComparedSet, monitor: str) -> str:
    ranges = list(each.scores[0].ranges)
    return markdown_table(
        ["checkpoint", *ranges], [[score.name, *_range_cells(score, monitor)] for score in each.scores]
    )


def _range_cells(score: CandidateScores, monitor: str) -> Iterator[str]:
    for metrics in score.ranges.values():
        metric = next((one for one in metrics if one.metric == monitor), None)
        if metric is None or metric.after.mean != metric.after.mean:  # NaN: no pixel of the range
            yield "-"
        elif metric.verdict in ("better", "worse"):
            yield f"{metric.after.mean:.4f} {metric.verdict}"
        else:
            yield f"{metric.after.mean:.4f}"


def _interval(value: ScoreInterval | None, *, sign: str = "") -> str:
    if value is None or value.mean != value.mean:
        return "-"
    return f"{value.mean:{sign}.4f} ({value.low:{sign}.4f} to {value.high:{sign}.4f})"
