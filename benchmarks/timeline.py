"""What happened over time as a picture: panels below each other on one axis of seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.uint8]

WIDTH, HEIGHT = 900, 190  # pixels of a panel
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 34, 16  # around what is drawn
FOOT = 40  # below the last panel
GROUND, GRID, PLAIN, BRIGHT = (20, 22, 26), (52, 56, 63), (160, 166, 176), (240, 242, 246)
INKS = ((94, 190, 255), (255, 176, 92), (140, 220, 140))
FONT, SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


class Line(NamedTuple):
    """A value over time; `steps` holds it until the next point."""

    name: str
    seconds: Sequence[float]
    values: Sequence[float]
    steps: bool = False


class Panel(NamedTuple):
    """Lines of one unit."""

    title: str
    lines: Sequence[Line]


def draw(panels: Sequence[Panel]) -> Colour:
    """Panels -> (H,W,3) uint8 RGB."""
    end = max(second for panel in panels for line in panel.lines for second in line.seconds)
    foot = np.full((FOOT, WIDTH, 3), GROUND, np.uint8)
    for second in _ticks(end):
        if second <= end:
            _write(foot, f"{second:g}", _x(second, end) - _extent(f"{second:g}") // 2, 8)
    _write(foot, "seconds", (LEFT + WIDTH - RIGHT - _extent("seconds")) // 2, 30)
    return np.concatenate([*(_panel(panel, end) for panel in panels), foot])


def _panel(panel: Panel, end: float) -> Colour:
    canvas = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    ticks = _ticks(max((value for line in panel.lines for value in line.values if np.isfinite(value)), default=1.0))
    for tick in ticks:
        y = _y(tick, ticks[-1])
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), GRID, 1)
        _write(canvas, f"{tick:g}", LEFT - 8 - _extent(f"{tick:g}"), y + 5)
    _write(canvas, panel.title, LEFT, 22, ink=BRIGHT)
    for place, (line, ink) in enumerate(zip(panel.lines, INKS, strict=False)):
        cv2.polylines(canvas, _strokes(line, end, ticks[-1]), False, ink, 2, cv2.LINE_AA)
        _write(canvas, line.name, WIDTH - RIGHT + 12, TOP + 20 + 20 * place, ink=ink)
    return canvas


def _strokes(line: Line, end: float, top: float) -> list[NDArray[np.int32]]:
    """The points of a line in pixels, in pieces where a value is missing."""
    pieces: list[list[tuple[int, int]]] = [[]]
    for second, value in zip(line.seconds, line.values, strict=True):
        if not np.isfinite(value):
            pieces.append([])
            continue
        point = (_x(second, end), _y(value, top))
        if line.steps and pieces[-1]:
            pieces[-1].append((point[0], pieces[-1][-1][1]))
        pieces[-1].append(point)
    return [np.array(piece, np.int32) for piece in pieces if piece]


def _ticks(top: float) -> list[float]:
    """Round numbers from 0 to the largest value or just above, about five of them."""
    raw = max(top, 1e-9) / 5
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(float(unit * magnitude) for unit in (1, 2, 5, 10) if unit * magnitude >= raw * 0.999)
    return [round(step * index, 10) for index in range(int(np.ceil(top / step - 1e-9)) + 1)]


def _x(second: float, end: float) -> int:
    return round(LEFT + second / end * (WIDTH - LEFT - RIGHT))


def _y(value: float, top: float) -> int:
    return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM))


def _extent(text: str) -> int:
    return int(cv2.getTextSize(text, FONT, SIZE, 1)[0][0])


def _write(canvas: Colour, text: str, x: int, y: int, *, ink: tuple[int, int, int] = PLAIN) -> None:
    cv2.putText(canvas, text, (x, y), FONT, SIZE, ink, 1, cv2.LINE_AA)
