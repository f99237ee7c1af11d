"""The chart of docs/scaling.md: efficiency against GPUs, one panel a cluster and regime, a band a recipe."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import scaling_training as training
from scaling_machines import CLUSTERS, Cluster
from scaling_networks import Network, counted
from scaling_tables import IMAGES, TOGETHER
from scaling_training import Corner, over

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tuning.charts import axes
from tuning.charts.axes import Axis, Box
from tuning.charts.marks import element, line, path, polygon, svg, text

WIDTH, HEIGHT = 1180, 590
LEFT, TOP, PANEL, TALL, GAP, BETWEEN = 58, 104, 180, 170, 46, 84
RECIPES = ("fpn-resnet101", "unet-resnet34")
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
X = Axis(1, 1024, (1, 8, 64, 1024), log=True)
Y = Axis(0, 1, (0, 0.25, 0.5, 0.75, 1))
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #444 }
.head { font-size: 17px; font-weight: 600; fill: #111 } .part { font-size: 13px; font-weight: 600; fill: #111 }
.grid { stroke: #e4e4e4 } .rule { stroke: #888 } .tick { font-size: 11px; fill: #666 }
.b0 { fill: #1f6fb4; fill-opacity: .30 } .b1 { fill: #d9711c; fill-opacity: .30 }
.l0, .l1 { fill: none; stroke-width: 1.6 } .l0 { stroke: #1f6fb4 } .l1 { stroke: #d9711c }
"""

Efficiency = Callable[[Network, Cluster, int, float, Corner], float]


def draw() -> str:
    """The chart as SVG text."""
    weak = f"weak: {IMAGES} images on each GPU"
    strong = f"strong: {TOGETHER:,} images on all GPUs together"
    parts = [
        element("style", STYLE),
        element("rect", width=WIDTH, height=HEIGHT, fill="#fff"),
        text("Efficiency against the number of GPUs, with data that never wait", (LEFT - 40, 28), cls="head"),
        *_legend(),
        *_row(0, weak, training.weak, IMAGES),
        *_row(1, strong, training.strong, TOGETHER),
    ]
    return svg((WIDTH, HEIGHT), *parts, label="Efficiency against the number of GPUs for five clusters and two recipes")


def _legend() -> list[str]:
    parts = []
    for place, name in enumerate(RECIPES):
        x = LEFT - 40 + place * 430
        height, width = counted(name).size
        parts.append(element("rect", x=x, y=42, width=22, height=12, cls=f"b{place}"))
        parts.append(line((x, 42), (x + 22, 42), cls=f"l{place}"))
        parts.append(line((x, 54), (x + 22, 54), cls=f"l{place}"))
        parts.append(text(f"{name} at {width}x{height}: between all ends of the ranges", (x + 29, 52)))
    return parts


def _row(number: int, title: str, efficiency: Efficiency, images: int) -> list[str]:
    top = TOP + number * (TALL + BETWEEN)
    parts = [text(title, (LEFT - 40, top - 26), cls="part")]
    for place, cluster in enumerate(CLUSTERS):
        box = Box(LEFT + place * (PANEL + GAP), top, PANEL, TALL, X, Y)
        parts.append(axes.draw(box))
        parts.append(text(cluster.name, (box.left, top - 8)))
        for kind, name in enumerate(RECIPES):
            parts += _band(box, counted(name), cluster, efficiency, images, kind)
    end = LEFT + len(CLUSTERS) * (PANEL + GAP) - GAP
    return [*parts, text("GPUs", (end, top + TALL + 34), anchor="end")]


def _band(box: Box, network: Network, cluster: Cluster, efficiency: Efficiency, images: int, kind: int) -> list[str]:
    found = [over(lambda c, gpus=gpus: efficiency(network, cluster, gpus, images, c)) for gpus in GPUS]
    low = [box.at(gpus, each.low) for gpus, each in zip(GPUS, found, strict=True)]
    high = [box.at(gpus, each.high) for gpus, each in zip(GPUS, found, strict=True)]
    return [polygon([*low, *reversed(high)], cls=f"b{kind}"), path(low, cls=f"l{kind}"), path(high, cls=f"l{kind}")]
