"""A completion curve in its written forms: Markdown for people, JSON and CSV for programs, and a plot."""

from __future__ import annotations

import csv
import io
import math
from functools import partial
from pathlib import Path

from depthray.errors import UsageError
from depthray.evaluation.completion.curve import CompletionCurve, CompletionPoint
from depthray.evaluation.completion.regions import NAMES, REGIONS, score_name
from depthray.evaluation.markdown_table import markdown_table
from depthray.evaluation.report import metric_title
from depthray.imaging import plots, sheets
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.strict_json import to_json

SHOWN = ("rmse", "mae", "abs_rel", "imae", "delta1")  # in the table for people; the files hold all metrics
FILLED = ("rmse", "abs_rel")
PLOTTED = ("rmse", "abs_rel", "delta1")
PLOTTED_REGIONS = ("sampled", "unsampled", "edges")
NOTE = (
    "In brackets: 95 % intervals. Spread and bilateral: the samples alone, spread over the map, and spread along the "
    "colours of the image; a network has to beat both."
)
REGION_NOTE = (
    "RMSE in metres of network / spread / bilateral, by region: pixels of samples, all others, those by pixels to the "
    "nearest sample, and those at edges of the truth."
)


def write(curve: CompletionCurve, out: Path) -> None:
    """Write completion.md, .csv, .json and .png, and regions.png into a folder, which is made if need be."""
    texts = {"md": markdown(curve), "csv": as_csv(curve), "json": as_json(curve)}
    with translate_os_errors(out, to=UsageError, doing="write the curve", advice="give another --out"):
        out.mkdir(parents=True, exist_ok=True)
        for form, text in texts.items():
            (out / f"completion.{form}").write_text(text, encoding="utf-8")
        sheets.save_png(out / "completion.png", plot(curve))
        sheets.save_png(out / "regions.png", plot_regions(curve))


def markdown(curve: CompletionCurve) -> str:
    """A table for people, which also lines up in a terminal."""
    names = [name for name in SHOWN if name in curve.names] or curve.names  # a legacy protocol scores none of them
    fills = [f"{fill} {metric_title(name)}" for fill in ("spread", "bilateral") for name in FILLED]
    head = ["samples", "given", *map(metric_title, names), *fills]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in curve.about.items()]
    table = markdown_table(head, [[_label(curve, point), *_cells(point, names)] for point in curve.points])
    regions = [[_label(curve, point), *map(partial(_region, point), REGIONS)] for point in curve.points]
    by_region = markdown_table(["samples", *REGIONS], regions)
    title = "# Error against the number of samples" if curve.counted else "# Error with samples of a sensor"
    return "\n".join([title, "", *facts, "", table, "", NOTE, "", by_region, "", REGION_NOTE, ""])


def as_csv(curve: CompletionCurve) -> str:
    """A line a point: samples, given, frames and the mean of every metric at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")  # csv's own default is the line end of Windows
    names = [*curve.names, *NAMES]
    filled = [f"{fill}_{name}" for fill in ("spread", "bilateral") for name in names]
    writer.writerow(["samples", "given", "frames", *names, *filled])
    for point in curve.points:
        means = [point.scores[name]["mean"] if name in point.scores else None for name in names]
        fills = [scores.get(name) for scores in (point.spread, point.bilateral) for name in names]
        writer.writerow([point.samples, point.given, point.frames, *means, *fills])
    return text.getvalue()


def as_json(curve: CompletionCurve) -> str:
    """The curve as JSON, with null for what could not be scored."""
    keys = ("samples", "given", "frames", "scores", "spread", "bilateral")
    points = [{key: getattr(point, key) for key in keys} for point in curve.points]
    return to_json({**curve.about, "points": points}, indent=2, ensure_ascii=False) + "\n"


def plot(curve: CompletionCurve) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB: a panel a metric, its mean and interval against the number of samples."""
    names = [name for name in PLOTTED if name in curve.names] or curve.names[:3]
    panels = [plots.Panel(metric_title(name), _lines(curve, name)) for name in names]
    return plots.draw_curves(panels, x_label="sparse samples a frame")


def plot_regions(curve: CompletionCurve) -> sheets.RgbImage:
    """(H,W,3) uint8 RGB: a panel a region, RMSE of network and fills against the number of samples."""
    names = {region: score_name("rmse", region) for region in PLOTTED_REGIONS}
    panels = [plots.Panel(f"RMSE [m], {region}", _lines(curve, name)) for region, name in names.items()]
    return plots.draw_curves(panels, x_label="sparse samples a frame")


def _lines(curve: CompletionCurve, name: str) -> list[plots.PlotLine]:
    """The network, then the fills."""
    points = [point for point in curve.points if name in point.scores]
    counts = [point.samples for point in points]
    fills = {"spread": [point.spread for point in points], "bilateral fill": [point.bilateral for point in points]}
    # Without samples there is nothing to fill.
    filled = [
        plots.PlotLine(
            fill,
            counts,
            [each.get(name, math.nan) if point.given else math.nan for each, point in zip(scores, points, strict=True)],
        )
        for fill, scores in fills.items()
    ]
    return [_line(curve, name), *filled] if points else []


def _line(curve: CompletionCurve, name: str) -> plots.PlotLine:
    points = [point for point in curve.points if name in point.scores]
    mean, low, high = ([point.scores[name][end] for point in points] for end in ("mean", "low", "high"))
    return plots.PlotLine("network", [point.samples for point in points], mean, low, high)


def _label(curve: CompletionCurve, point: CompletionPoint) -> str:
    return str(point.samples) if curve.counted else str(curve.about["pattern"])


def _region(point: CompletionPoint, region: str) -> str:
    name = score_name("rmse", region)
    network = point.scores[name]["mean"] if name in point.scores else math.nan
    values = [network, *(scores.get(name, math.nan) for scores in (point.spread, point.bilateral) if scores)]
    return " / ".join("-" if math.isnan(value) else f"{value:.3f}" for value in values)


def _cells(point: CompletionPoint, names: list[str]) -> list[str]:
    # Without samples there is nothing to fill.
    fills = [
        f"{scores[name]:.4f}" if point.given and name in scores else "-"
        for scores in (point.spread, point.bilateral)
        for name in FILLED
    ]
    return [f"{point.given:.1f}", *(_interval(**point.scores[name]) for name in names), *fills]


def _interval(mean: float, low: float, high: float) -> str:
    return "-" if math.isnan(mean) else f"{mean:.4f} ({low:.4f} to {high:.4f})"
