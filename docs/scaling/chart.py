"""The chart of README.md: efficiency against GPUs, a panel for each cluster and regime, a band for each recipe."""

from __future__ import annotations

import io

import matplotlib
import model
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from model import CLUSTERS, IMAGES, TOGETHER
from networks import counted

RECIPES = ("fpn-resnet101", "unet-resnet34")
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
REGIMES = (
    (f"weak: {IMAGES} images on each GPU", model.weak, IMAGES),
    (f"strong: {TOGETHER:,} images on all GPUs together", model.strong, TOGETHER),
)


def svg() -> str:
    """The chart as text of an SVG file."""
    buffer = io.StringIO()
    # Text stays text, and ids and metadata do not change from one drawing to the next.
    settings = {"svg.fonttype": "none", "svg.hashsalt": "scaling", "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def draw() -> Figure:
    """The chart."""
    figure = Figure((12, 6), layout="constrained")
    title = "Efficiency against the number of GPUs, if no step waits for data: between all ends of the ranges"
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    rows = figure.subfigures(len(REGIMES), 1, squeeze=False)[:, 0]
    for row, (regime, efficiency, images) in zip(rows, REGIMES, strict=True):
        row.suptitle(regime, x=0.01, ha="left", fontsize="medium")
        for axes, cluster in zip(row.subplots(1, len(CLUSTERS), sharey=True), CLUSTERS, strict=True):
            _style(axes, cluster.name)
            for name in RECIPES:
                _band(axes, name, model.efficiencies(efficiency, counted(name), cluster, images, GPUS))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(RECIPES), frameon=False)
    return figure


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize="medium")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 8, 64, 1024], ["1", "8", "64", "1024"])
    axes.set_xlabel("GPUs")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.4)


def _band(axes: Axes, name: str, ends: list[model.Range]) -> None:
    low, high = zip(*ends, strict=True)
    height, width = counted(name).size
    color = f"C{RECIPES.index(name)}"
    label = f"{name} at {width}x{height}"
    axes.fill_between(GPUS, low, high, color=color, alpha=0.3, linewidth=0, label=label, gid="band")
    axes.plot(GPUS, low, GPUS, high, color=color, linewidth=1.2)  # edges, by which overlapping bands stay distinct
