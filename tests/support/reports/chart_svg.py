"""Charts read back: their SVG as XML with its numbers checked, and trials to draw."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from tuning.report.charts.history import ScoredTrial
from tuning.report.charts.marks import Mark

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</svg><script>alert('1')</script>\"&\x00\x1b\ud800 0001"


def mark(name: str = "0001", *, state: str = "done", shade: int | None = 0, role: str = "") -> Mark:
    return Mark(name, f"trial {name}", state, shade, role)  # type: ignore[arg-type]


def marked(scores: Sequence[float | None]) -> list[ScoredTrial]:
    states = ("done", "stopped", "running", "done")
    return [
        ScoredTrial(mark(f"{n:04d}", state="failed" if score is None else states[n % 4], shade=n % 8), score)
        for n, score in enumerate(scores)
    ]


def parsed(svg: str) -> ET.Element:
    """The chart as XML, its numbers checked: all finite, nothing far outside of what is shown."""
    tree = ET.fromstring(svg)
    assert not re.search(r"\b(nan|inf)\b", svg.split("<title>")[0], re.IGNORECASE)
    _, _, width, height = map(float, tree.attrib["viewBox"].split())
    cut_off = [circle for inner in tree.iter(f"{SVG}svg") if inner is not tree for circle in inner.iter(f"{SVG}circle")]
    for circle in tree.iter(f"{SVG}circle"):
        if circle in cut_off:
            continue
        assert -1 <= float(circle.attrib["cx"]) <= width + 1
        assert -1 <= float(circle.attrib["cy"]) <= height + 1
    return tree


def trials(tree: ET.Element) -> list[str]:
    return [group.attrib["data-trial"] for group in tree.iter(f"{SVG}g") if "data-trial" in group.attrib]


def group(tree: ET.Element, name: str) -> ET.Element:
    return next(each for each in tree.iter(f"{SVG}g") if each.attrib.get("data-trial") == name)


def labels(tree: ET.Element) -> list[str]:
    return ["".join(each.itertext()) for each in tree.iter(f"{SVG}text")]


def points(line: str) -> list[tuple[float, float]]:
    found = re.findall(r"(-?[\d.]+) (-?[\d.]+)", line)
    return [(float(x), float(y)) for x, y in found]
