"""The parts of charts: escaped SVG elements, and the group that represents one trial in every chart.

Text from trials and recipes may be hostile or broken: it is escaped, and characters that XML forbids are replaced.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal, NamedTuple

Point = tuple[float, float]
Role = Literal["", "best", "default"]
SHADES = 8  # classes q0 (best) to q7 (worst) that a page colours

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Mark(NamedTuple):
    """A trial as every chart draws it."""

    trial: str
    title: str  # the text of its tooltip
    state: str = "done"
    shade: int | None = None  # 0 best ... SHADES - 1 worst; None without a score
    role: Role = ""

    @property
    def draw_order(self) -> tuple[bool, int, bool]:
        """A key to sort trials by, so that the better ones are drawn over the others, and the best over all."""
        return bool(self.role), -(self.shade or 0), self.role == "best"


def clean(text: str) -> str:
    """The text without control characters and halves of surrogate pairs, which XML and UTF-8 cannot hold."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """An SVG element; children are markup, attributes are escaped. `cls` is class, `a_b` is a-b, None is left out."""
    pairs = [
        f' {"class" if name == "cls" else name.replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None and value != ""
    ]
    # Coordinates are rounded by _attribute: full precision would double the size of a page.
    head = f"<{tag}{''.join(pairs)}"
    return f"{head}>{''.join(children)}</{tag}>" if children else f"{head}/>"


def title(text: str) -> str:
    """A tooltip."""
    return element("title", escape(clean(text)))


def text(content: str, at: Point, *, cls: str = "", anchor: str = "", **more: str | float | None) -> str:
    """A line of text whose baseline starts at (x, y), or has its end or middle there, by its anchor."""
    return element("text", escape(clean(content)), x=at[0], y=at[1], cls=cls, text_anchor=anchor, **more)


def span(content: str, *, cls: str = "") -> str:
    """A piece of a line of text."""
    return element("tspan", escape(clean(content)), cls=cls)


def line(start: Point, end: Point, *, cls: str = "") -> str:
    """A straight line."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], cls=cls)


def path(points: Iterable[Point], *, cls: str = "") -> str:
    """A line through points in order; nothing for fewer than two."""
    corners = [f"{format_coordinate(x)} {format_coordinate(y)}" for x, y in points]
    return element("path", d="M" + "L".join(corners), cls=cls) if len(corners) > 1 else ""


def steps(points: Sequence[Point], *, cls: str = "") -> str:
    """A line that keeps its height until the next point."""
    corners = [(x, before[1]) for before, (x, _) in itertools.pairwise(points)]
    # Each point, then the corner below or above the next one.
    both = [point for pair in zip(points, [*corners, points[-1]], strict=True) for point in pair] if points else []
    return path(both, cls=cls)


def svg(size: tuple[float, float], *children: str, label: str, cls: str = "") -> str:
    """A chart of (width, height) units with a name for those who cannot see it."""
    return element(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {format_coordinate(size[0])} {format_coordinate(size[1])}",
        role="img",
        aria_label=label,
        cls=f"chart {cls}".strip(),
    )


def trial(mark: Mark, *children: str, lines: bool = False, **more: str) -> str:
    """The group of a trial in a chart, with its tooltip; the page highlights it by data-trial."""
    # Colours are classes, not attributes, so that the page can have a dark theme.
    shade = "" if mark.shade is None else f" q{mark.shade}"
    classes = f"t {'l ' if lines else ''}{mark.state}{shade} {mark.role}".strip()
    return element("g", title(mark.title), *children, cls=classes, data_trial=mark.trial, **more)


def dot(mark: Mark, at: Point, *, radius: float = 5.0) -> str:
    """A trial as a point whose shape shows its state: disc, ring (stopped), dashed ring (running), cross (failed)."""
    return trial(mark, shape(mark, at, radius=radius))


def shape(mark: Mark, at: Point, *, radius: float = 5.0) -> str:
    """The shape of a trial at (x, y): the best is a star, the default a diamond."""
    x, y = at
    if mark.role == "best":
        return polygon(star(at, radius * 1.9), cls="m")
    if mark.role == "default":
        r = radius * 1.35
        return polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], cls="m")
    if mark.state == "failed":
        r = radius * 0.8
        down, back = (format_coordinate(2 * r), format_coordinate(-2 * r))
        start = f"M{format_coordinate(x - r)} {format_coordinate(y - r)}"
        return element("path", d=f"{start}l{down} {down}m0 {back}l{back} {down}", cls="m x")
    return element("circle", cx=x, cy=y, r=radius, cls="m")


def star(at: Point, radius: float) -> list[Point]:
    """The corners of a five-pointed star around (x, y)."""
    x, y = at
    turns = [(radius if number % 2 == 0 else radius * 0.45, math.pi * number / 5) for number in range(10)]
    return [(x + r * math.sin(turn), y - r * math.cos(turn)) for r, turn in turns]


def polygon(points: Iterable[Point], *, cls: str = "") -> str:
    """A closed polygon."""
    return element(
        "polygon", points=" ".join(f"{format_coordinate(x)},{format_coordinate(y)}" for x, y in points), cls=cls
    )


def format_coordinate(value: float) -> str:
    """A coordinate to a tenth of a unit."""
    rounded = f"{value:.1f}".removesuffix(".0")  # a tenth of a unit cannot be seen
    return "0" if rounded == "-0" else rounded


def _attribute(value: str | float) -> str:
    return escape(clean(value)) if isinstance(value, str) else format_coordinate(value)
