"""A completion curve in its written forms: Markdown for people, JSON and CSV for programs, and a plot."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from depthray.errors import UsageError
from depthray.evaluation.completion import CompletionCurve, CompletionPoint
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title
from depthray.imaging import plots, sheets
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

SHOWN = ("rmse", "mae", "abs_rel", "imae", "delta1")  # in the table for people; the files hold all metrics
SPREAD = ("rmse", "abs_rel")
PLOTTED = ("rmse", "abs_rel", "delta1")
NOTE = "In brackets: 95 % intervals. Spread: the samples alone, spread over the map, which a network has to beat."


def write(curve: CompletionCurve, out: Path) -> None:
    """Write completion.md, .csv, .json and .png into a folder, which is made if need be."""
    texts = {"md": markdown(curve), "csv": as_csv(curve), "json": as_json(curve)}
    with translate_os_errors(out, to=UsageError, doing="write the curve", advice="give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        for form, text in texts.items():
            (out / f"completion.{form}").write_text(text, encoding="utf-8")
        sheets.save_png(out / "completion.png", plot(curve))


def markdown(curve: CompletionCurve) -> str:
    """A table for people, which also lines up in a terminal."""
    names = [name for name in SHOWN if name in curve.names] or curve.names  # a legacy protocol scores none of them
    spread = (f"spread {metric_title(name)}" for name in SPREAD)
    head = ["samples", "given", *map(metric_title, names), *spread]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in curve.about.items()]
    table = markdown_table(head, [_cells(point, names) for point in curve.points])
    return "\n".join(["# Error against the number of samples", "", *facts, "", table, "", NOTE, ""])


def as_csv(curve: CompletionCurve) -> str:
    """A line a point: samples, given, frames and the mean of every metric at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # csv's own default is the line end of Windows
    writer.writerow(["samples", "given", "frames", *curve.names, *(f"spread_{name}" for name in curve.names)])
    for point in curve.points:
        means = [point.scores[name]["mean"] for name in curve.names]
        spread = [point.spread.get(name) for name in curve.names]
        writer.writerow([point.samples, point.given, point.frames, *means, *spread])
    return text.getvalue()


def as_json(curve: CompletionCurve) -> str:
    """The curve as JSON, with null for what could not be scored."""
    keys = ("samples", "given", "frames", "scores", "spread")
    points = [{key: getattr(point, key) for key in keys} for point in curve.points]
    return to_json({**curve.about, "points": points}, indent=2, ensure_ascii=False) + "\n"


def plot(curve: CompletionCurve) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB: a panel a metric, its mean and interval against the number of samples."""
    names = [name for name in PLOTTED if name in curve.names] or curve.names[:3]
    panels = [plots.Panel(metric_title(name), [_line(curve, name)]) for name in names]
    return plots.draw_curves(panels, x_label="sparse samples a frame")


def _line(curve: CompletionCurve, name: str) -> plots.PlotLine:
    mean, low, high = ([point.scores[name][end] for point in curve.points] for end in ("mean", "low", "high"))
    return plots.PlotLine(name, [point.samples for point in curve.points], mean, low, high)


def _cells(point: CompletionPoint, names: list[str]) -> list[str]:
    # Without samples there is nothing to spread.
    spread = (f"{point.spread[name]:.4f}" if point.given and name in point.spread else "-" for name in SPREAD)
    return [str(point.samples), f"{point.given:.1f}", *(_interval(**point.scores[name]) for name in names), *spread]


def _interval(mean: float, low: float, high: float) -> str:
    return "-" if math.isnan(mean) else f"{mean:.4f} ({low:.4f} to {high:.4f})"
