"""Scores against a number as a picture: one panel a metric, whiskers for intervals, the number on a log scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.uint8]

WIDTH, HEIGHT = 460, 360  # pixels of a panel
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 50, 54  # around what is drawn
_GROUND, _GRID, _PLAIN, _BRIGHT, _LINE = (20, 22, 26), (52, 56, 63), (160, 166, 176), (240, 242, 246), (94, 190, 255)
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


class Mark(NamedTuple):
    """A score at a number, with the ends of its interval."""

    at: int
    value: float
    low: float
    high: float


class Panel(NamedTuple):
    """A curve with its name."""

    title: str
    marks: Sequence[Mark]


def draw(panels: Sequence[Panel], *, below: str) -> Colour:
    """Panels side by side -> (H,W,3) uint8 RGB; `below` says what the number counts. A NaN leaves a gap."""
    return np.concatenate([_panel(panel, below) for panel in panels], axis=1)


def _panel(panel: Panel, below: str) -> Colour:
    canvas = np.full((HEIGHT, WIDTH, 3), _GROUND, np.uint8)
    marks = sorted(panel.marks)
    ticks = _ticks([end for mark in marks for end in mark[1:] if np.isfinite(end)])
    _axes(canvas, [mark.at for mark in marks], ticks, below=below)
    _write(canvas, panel.title, (LEFT, 28), ink=_BRIGHT)
    known = [mark for mark in marks if np.isfinite(mark.value)]
    places = [(_x(mark.at, marks), _y(mark.value, ticks)) for mark in known]
    for one, two in zip(places, places[1:], strict=False):
        cv2.line(canvas, one, two, _LINE, 2, cv2.LINE_AA)
    # A label lies on the side that the line leaves free.
    drop = 20 if len(known) > 1 and known[-1].value > known[0].value else -8
    for mark, (x, y) in zip(known, places, strict=True):
        if np.isfinite(mark.low) and np.isfinite(mark.high):
            cv2.line(canvas, (x, _y(mark.low, ticks)), (x, _y(mark.high, ticks)), _PLAIN, 1, cv2.LINE_AA)
        cv2.circle(canvas, (x, y), 4, _LINE, -1, cv2.LINE_AA)
        _write(canvas, f"{mark.value:.3f}", (min(x + 6, WIDTH - 44), y + drop), ink=_BRIGHT)
    return canvas


def _axes(canvas: Colour, numbers: Sequence[int], ticks: Sequence[float], *, below: str) -> None:
    """Lines across at the ticks, the numbers below."""
    for tick in ticks:
        y = _y(tick, ticks)
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), _GRID, 1)
        text = f"{tick:.4g}"
        _write(canvas, text, (LEFT - 8 - _extent(text), y + 5), ink=_PLAIN)
    free = 0
    for number in numbers:
        text, x = str(number), _x(number, [Mark(each, 0, 0, 0) for each in numbers])
        start = x - _extent(text) // 2
        if start > free:  # else it would run into the one before
            _write(canvas, text, (start, HEIGHT - BOTTOM + 20), ink=_PLAIN)
            free = start + _extent(text) + 4
    _write(canvas, below, ((LEFT + WIDTH - RIGHT - _extent(below)) // 2, HEIGHT - 12), ink=_PLAIN)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers from 0 to above the largest value, about five of them."""
    top = max([*values, 1e-9])
    raw = top / 5
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(float(unit * magnitude) for unit in (1, 2, 5, 10) if unit * magnitude >= raw * 0.999)
    return [step * index for index in range(int(np.ceil(top / step - 1e-9)) + 1)]


def _x(number: int, marks: Sequence[Mark]) -> int:
    """Column of a number: by its logarithm, 0 having a place of its own before 1."""
    ends = [np.log10(1 + each) for each in (min(m.at for m in marks), max(m.at for m in marks))]
    share = (np.log10(1 + number) - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5
    inset = 16
    return round(LEFT + inset + float(share) * (WIDTH - LEFT - RIGHT - 2 * inset))


def _y(value: float, ticks: Sequence[float]) -> int:
    return round(HEIGHT - BOTTOM - value / ticks[-1] * (HEIGHT - TOP - BOTTOM))


def _extent(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SIZE, 1)[0][0])


def _write(canvas: Colour, text: str, at: tuple[int, int], *, ink: tuple[int, int, int]) -> None:
    cv2.putText(canvas, text, at, _FONT, _SIZE, ink, 1, cv2.LINE_AA)
