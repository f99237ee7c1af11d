"""Plots as images, drawn by matplotlib: scores against a count, values over time, and differences with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depthray.imaging.sheets import RgbImage

if TYPE_CHECKING:  # matplotlib takes half a second to import; only drawing needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 460, 360  # pixels of a panel of scores
NARROW = 320  # pixels of a panel over epochs
DOTTED = 60  # epochs from which on points are not marked
LONG, LOW = 900, 190  # pixels of a panel over time
ROW, EDGE = 22, 90  # pixels of a row of a forest plot, and of what is above and below its rows
SMALL, COLUMNS = 220, 5  # pixels of a panel of a grid, and how many are side by side
DPI = 100
COLOURS = {"better": "#0072b2", "worse": "#d55e00"}  # of verdicts; gray for what may be luck
LABEL_GAP = 0.08  # of the axis between two labels, so that they do not overlap


class PlotLine(NamedTuple):
    """Values over x, with the ends of their intervals if there are any. A NaN leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    steps: bool = False  # hold each value until the next point


class Panel(NamedTuple):
    """Lines of one unit."""

    title: str
    lines: Sequence[PlotLine]


class SharePanel(NamedTuple):
    """Lines over a share in percent, and what that is a share of."""

    title: str
    lines: Sequence[PlotLine]
    x_label: str


class ForestMark(NamedTuple):
    """A difference in per cent with the ends of its interval, and what it means: better, worse, or neither."""

    mean: float
    low: float
    high: float
    verdict: str


class ForestPanel(NamedTuple):
    """A metric's differences, one a row; None where there is none."""

    title: str
    marks: Sequence[ForestMark | None]


def draw_curves(panels: Sequence[Panel], *, x_label: str) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, side by side; x is a count on a log scale that includes 0."""
    figure = _figure(len(panels) * WIDTH, HEIGHT)
    for column, panel in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), column)
        # symlog: linear up to 1, so that 0 sparse samples are on the axis with 500.
        axes.set_xscale("symlog", linthresh=1, linscale=0.5)
        _plot(axes, panel, marker="o")
        _label_counts(axes, sorted({x for line in panel.lines for x in line.x}))
        axes.set_xlabel(x_label)
        if column == 1 and len(panel.lines) > 1:
            axes.legend(frameon=False, fontsize=9)
    return _pixels(figure)


def draw_epochs(panels: Sequence[Panel]) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, side by side; x is the number of an epoch."""
    figure = _figure(len(panels) * NARROW, HEIGHT)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _plot(axes, panel, marker="." if len(panel.lines[0].x) < DOTTED else "")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
    return _pixels(figure)


def draw_shares(panels: Sequence[SharePanel]) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, side by side; x is from 0 to 100 percent."""
    figure = _figure(len(panels) * NARROW, HEIGHT)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _plot(axes, Panel(panel.title, panel.lines), marker="")
        axes.set_xlim(0, 100)
        axes.set_xlabel(panel.x_label)
        axes.legend(frameon=False, fontsize=9)
    return _pixels(figure)


def draw_timeline(panels: Sequence[Panel]) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, one below the other on one axis of seconds."""
    figure = _figure(LONG, len(panels) * LOW)
    for axes, panel in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        _plot(axes, panel, marker="")
        axes.margins(x=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set_xlabel("seconds")
    return _pixels(figure)


def draw_grid(panels: Sequence[Panel], *, x_label: str, y_label: str) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, in rows of COLUMNS with the same axes; x is a whole number."""
    rows = -(-len(panels) // COLUMNS)
    columns = min(COLUMNS, len(panels))
    figure = _figure(columns * SMALL, rows * SMALL)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        _plot(axes, panel, marker=".")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    ends = [end for panel in panels for line in panel.lines for end in line.high or line.y if np.isfinite(end)]
    grid[0].set_ylim(0, 1.05 * max(ends, default=1.0))
    if len(panels[0].lines) > 1:
        grid[0].legend(frameon=False, fontsize=9)
    figure.supxlabel(x_label, fontsize=10)
    figure.supylabel(y_label, fontsize=10)
    return _pixels(figure)


def draw_forest(panels: Sequence[ForestPanel], labels: Sequence[str], *, baseline: str) -> RgbImage:
    """Panels -> (H,W,3) uint8 RGB, side by side, with a row a label: differences and intervals around 0."""
    figure = _figure(len(panels) * NARROW + 8 * max(map(len, labels)), len(labels) * ROW + EDGE)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.set_title(panel.title, loc="left", fontsize=11)
        axes.axvline(0, color="0.4", linewidth=1)
        axes.grid(axis="x", alpha=0.4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        for row, mark in enumerate(panel.marks):
            if mark is not None and np.isfinite(mark.mean):
                colour = COLOURS.get(mark.verdict, "0.55")
                axes.hlines(row, mark.low, mark.high, color=colour, linewidth=2)
                axes.plot(mark.mean, row, marker="o", color=colour, markersize=5)
    all_axes[0].set_yticks(range(len(labels)), labels, fontsize=9)
    all_axes[0].set_ylim(len(labels) - 0.5, -0.5)
    for axes in all_axes:
        axes.tick_params(axis="y", length=0)
    figure.supxlabel(f"difference from {baseline} in % (blue: better, red: worse, gray: may be luck)", fontsize=9)
    return _pixels(figure)


def _plot(axes: Axes, panel: Panel, *, marker: str) -> None:
    axes.set_title(panel.title, loc="left", fontsize=11)
    axes.grid(axis="y", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    for index, line in enumerate(panel.lines):
        style = "steps-post" if line.steps else "default"
        (drawn,) = axes.plot(line.x, line.y, label=line.name, marker=marker, drawstyle=style, zorder=4 - index / 10)
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=drawn.get_color(), alpha=0.2, linewidth=0)
            axes.vlines(line.x, line.low, line.high, color="0.5", linewidth=1)  # one point alone has no band
    axes.set_ylim(bottom=0)


def _label_counts(axes: Axes, counts: Sequence[float]) -> None:
    """Ticks at the counts and the value at each point of the first line, except where labels would overlap."""
    positions = axes.xaxis.get_transform().transform(np.asarray(counts, float))
    labelled = [0]
    for index, position in enumerate(positions):
        if position - positions[labelled[-1]] >= LABEL_GAP * (positions[-1] - positions[0]) > 0:
            labelled.append(index)
    shown = [counts[index] for index in labelled]
    axes.minorticks_off()
    axes.set_xticks(shown, [f"{count:g}" for count in shown])
    for line in axes.lines[:1]:
        points = [(x, y) for x, y in np.asarray(line.get_xydata()) if np.isfinite(y)]
        below = bool(points) and points[-1][1] > points[0][1]  # the side that a rising line leaves free
        for x, y in points:
            if x in shown:
                axes.annotate(f"{y:.3f}", (x, y), (5, -12 if below else 5), textcoords="offset points", fontsize=8)


def _figure(width: int, height: int) -> Figure:
    """A figure of its own, outside pyplot's state, which threads and other libraries share."""
    from matplotlib.figure import Figure

    return Figure((width / DPI, height / DPI), dpi=DPI, layout="constrained")


def _pixels(figure: Figure) -> RgbImage:
    """A figure -> (H,W,3) uint8 RGB"""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    width, height = figure.canvas.get_width_height()
    return np.frombuffer(buffer.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()
