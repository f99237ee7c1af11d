"""Depth as pictures: colour maps on one scale in metres, and the contact sheet image | truth | prediction | error.

Near is warm, far is cold, and what was never measured is grey (on a sheet: hatched), a colour no depth has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

RgbImage = NDArray[np.uint8]
Metres = NDArray[np.float32]
Kind = Literal["depth", "mask"]

UNMEASURED = (112, 112, 112)
_GROUND, _FAINT, _PLAIN, _BRIGHT = (20, 22, 26), (72, 76, 84), (160, 166, 176), (240, 242, 246)
_HATCH = ((58, 60, 64), (92, 95, 101))
_MARGIN, _GAP, _LINE, _BAR = 18, 8, 30, 12
_LEAST_WIDTH, _MOST_WIDTH = 240, 480


class ColourScale(NamedTuple):
    """The metres at both ends of a colour bar, and between its labels."""

    near: float
    far: float
    step: float


class SheetRow(NamedTuple):
    """One frame of a sheet. Image, truth and prediction may differ in size but show the same view."""

    id: str
    image: RgbImage  # (H,W,3) RGB
    truth: Metres  # (h,w) metres, 0 = unmeasured or not scored; of a mask 0 or 1
    prediction: Metres  # (h',w') metres; of a mask its probability
    note: str = ""  # shown before the id: "best", "worst"
    score: float | None = None  # AbsRel or, of a mask, IoU as a protocol found it; otherwise computed from the maps
    kind: Kind = "depth"
    caption: str = ""  # instead of the score


def depth_scale(depths: Iterable[Metres]) -> ColourScale:
    """(H,W) metres each -> round ends that hold all but the farthest and nearest 1 % of what was measured."""
    measured = [depth[_measured(depth)] for depth in depths]
    values = np.concatenate(measured) if measured else np.zeros(0, np.float32)
    if not values.size:
        return ColourScale(0.0, 10.0, 2.0)
    low, high = np.percentile(values, [1, 99])
    return _rounded(float(low), float(high), parts=8)


def colour_depth(depth: Metres, *, near: float, far: float) -> RgbImage:
    """(H,W) metres -> (H,W,3) uint8 RGB, near metres dark red to far metres dark blue; unmeasured is grey."""
    painted = _paint(depth, ColourScale(near, far, 1.0), _DEPTH)
    painted[~_measured(depth)] = UNMEASURED
    return painted


def draw_sheet(
    rows: Sequence[SheetRow], *, depth: ColourScale | None = None, error: ColourScale | None = None
) -> RgbImage:
    """Frames -> (H,W,3) uint8 RGB: a line of image, truth, prediction and error each, under colour bars in metres.

    Truth and prediction share one scale for the whole sheet. By default both scales depend on the truths alone, so that
    sheets of the same frames compare from epoch to epoch. Masks are black to white, their errors from 0 to 1; a sheet
    of nothing but masks has bars of that.
    """
    depth = depth or depth_scale(row.truth for row in rows if row.kind == "depth")
    error = error or _rounded(0.0, depth.far / 4, parts=5)
    width, depths = _tile_width(rows), _Inks(depth, error, _DEPTH, " m")
    only_masks = bool(rows) and all(row.kind == "mask" for row in rows)
    bands = [_head(width, _MASKS if only_masks else depths)]
    bands += [_band(row, width, _MASKS if row.kind == "mask" else depths) for row in rows]
    return np.concatenate([*bands, _ground(_MARGIN, bands[0].shape[1])])


def encode_png(picture: RgbImage) -> bytes:
    """(H,W,3) uint8 RGB -> the bytes of a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def save_png(path: str | os.PathLike[str], picture: RgbImage) -> Path:
    """(H,W,3) uint8 RGB -> a PNG file at path; returns the path."""
    path = Path(path)
    path.write_bytes(encode_png(picture))
    return path


def abs_rel(prediction: Metres, truth: Metres) -> float:
    """(H,W) and (H,W) metres -> mean of |prediction - truth| / truth where there is truth; NaN if nowhere."""
    valid = _measured(truth)
    if not valid.any():
        return float("nan")
    return float(np.mean(np.abs(prediction[valid] - truth[valid]) / truth[valid], dtype=np.float64))


def iou(prediction: Metres, truth: Metres) -> float:
    """(H,W) probability and (H,W) 0 or 1 -> shared over united foreground, probable above 0.5; 1 of two empty masks."""
    found, wanted = prediction > 0.5, truth > 0.5
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 1.0


def _table(colormap: int) -> RgbImage:
    """-> (256,3) uint8 RGB, the colours of an OpenCV colour map."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, colormap)[:, 0, ::-1], dtype=np.uint8)


_DEPTH = _table(cv2.COLORMAP_TURBO)[::-1]
_ERROR = _table(cv2.COLORMAP_MAGMA)


class _Inks(NamedTuple):
    """How the maps of a row are coloured."""

    values: ColourScale
    error: ColourScale
    table: RgbImage
    unit: str


_MASKS = _Inks(
    ColourScale(0, 1, 0.2), ColourScale(0, 1, 0.2), np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1), ""
)


def _measured(depth: Metres) -> NDArray[np.bool_]:
    return np.isfinite(depth) & (depth > 0)


def _paint(values: NDArray[Any], scale: ColourScale, table: RgbImage) -> RgbImage:
    """(H,W) metres -> (H,W,3) uint8 RGB by the table, clipped to the scale."""
    share = (np.nan_to_num(values) - scale.near) / max(scale.far - scale.near, 1e-6)
    painted: RgbImage = table[(np.clip(share, 0, 1) * 255).round().astype(np.uint8)]
    return painted


def _rounded(low: float, high: float, *, parts: int) -> ColourScale:
    """The ends moved outwards to multiples of a step of 1, 2 or 5, at most about so many steps apart."""
    raw = max(high - low, 0.05) / parts
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = float(magnitude * next(unit for unit in (1, 2, 5, 10) if unit * magnitude >= raw * 0.999))
    near, far = np.floor(low / step + 1e-6) * step, np.ceil(high / step - 1e-6) * step
    return ColourScale(float(near), float(max(far, near + step)), step)


def _tile_width(rows: Sequence[SheetRow]) -> int:
    """Pixels of a tile: a whole multiple of the widest image, enough to see, not too large for a screen."""
    width = max(max(row.image.shape[1], row.prediction.shape[1]) for row in rows) if rows else _LEAST_WIDTH
    return min(width * -(-_LEAST_WIDTH // width), _MOST_WIDTH)


def _band(row: SheetRow, width: int, inks: _Inks) -> RgbImage:
    """A row -> (h,W,3): a line of text above the four tiles."""
    fitted = _fit(row.prediction, row.truth.shape)
    size = (max(1, round(width * row.truth.shape[0] / row.truth.shape[1])), width)
    known = _known(row.truth, row.kind)
    both = known & _known(fitted, row.kind)
    tiles = [
        _photo(row.image, size),
        _tile(row.truth, known, size=size, scale=inks.values, table=inks.table),
        _tile(row.prediction, _known(row.prediction, row.kind), size=size, scale=inks.values, table=inks.table),
        _tile(np.abs(fitted - row.truth), both, size=size, scale=inks.error, table=_ERROR),
    ]
    return np.concatenate([_caption(row, _score(row, fitted), width), _beside(tiles)])


def _known(values: Metres, kind: Kind) -> NDArray[np.bool_]:
    return _measured(values) if kind == "depth" else np.isfinite(values)


def _score(row: SheetRow, fitted: Metres) -> str:
    if row.caption:
        return row.caption
    if row.kind == "mask":
        return f"mask IoU {iou(fitted, row.truth) if row.score is None else row.score:.3f}"
    if not _measured(row.truth).any():
        return "no truth"
    return f"AbsRel {abs_rel(fitted, row.truth) if row.score is None else row.score:.3f}"


def _fit(prediction: Metres, shape: tuple[int, ...]) -> Metres:
    """(h,w) metres -> (H,W) metres at the size of the truth."""
    if prediction.shape == shape:
        return prediction
    return np.asarray(cv2.resize(prediction, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _photo(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    shrinks = size[1] < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)


def _tile(
    values: Metres, valid: NDArray[np.bool_], *, size: tuple[int, int], scale: ColourScale, table: RgbImage
) -> RgbImage:
    """(h,w) metres -> (H,W,3) uint8 RGB at the tile's size, hatched where not valid."""
    picked = cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST)
    known = cv2.resize(valid.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(known[..., None], _paint(picked, scale, table), _hatch(size))


def _hatch(size: tuple[int, int]) -> RgbImage:
    """-> (H,W,3) uint8, diagonal stripes of two greys."""
    rows, columns = np.indices(size)
    stripes: RgbImage = np.array(_HATCH, np.uint8)[(rows + columns) // 5 % 2]
    return stripes


def _ground(height: int, width: int) -> RgbImage:
    return np.full((height, width, 3), _GROUND, np.uint8)


def _beside(tiles: Sequence[RgbImage]) -> RgbImage:
    """Four (H,w,3) tiles -> (H,W,3) with gaps between and margins around."""
    height = tiles[0].shape[0]
    gap, margin = _ground(height, _GAP), _ground(height, _MARGIN)
    parts = [part for tile in tiles for part in (gap, tile)]
    return np.concatenate([margin, *parts[1:], margin], axis=1)


def _left(column: int, width: int) -> int:
    return _MARGIN + column * (width + _GAP)


def _caption(row: SheetRow, score: str, width: int) -> RgbImage:
    """-> (h,W,3): note and id on the left, the score on the right."""
    band = _ground(_LINE, _left(4, width) - _GAP + _MARGIN)
    x = _MARGIN
    if row.note:
        x += _write(band, row.note, (x, 22), ink=_PLAIN) + 10
    end = band.shape[1] - _MARGIN - _extent(score)
    _write(band, score, (end, 22), ink=_BRIGHT)
    _write(band, _shortened(row.id, end - x - 20), (x, 22), ink=_BRIGHT)
    return band


def _head(width: int, inks: _Inks) -> RgbImage:
    """-> (h,W,3): names of the columns over the colour bars."""
    head = _ground(74, _left(4, width) - _GAP + _MARGIN)
    for column, name in enumerate(("image", "truth", "prediction", "error")):
        _write(head, name, (_left(column, width), 26), ink=_BRIGHT, bold=True)
    head[38 : 38 + _BAR, _MARGIN : _MARGIN + 2 * _BAR] = _hatch((_BAR, 2 * _BAR))
    _write(head, "not measured", (_MARGIN + 2 * _BAR + 8, 49), ink=_PLAIN)
    _bar(head, (_left(1, width), 2 * width + _GAP), scale=inks.values, table=inks.table, unit=inks.unit)
    _bar(head, (_left(3, width), width), scale=inks.error, table=_ERROR, unit=inks.unit)
    return head


def _bar(head: RgbImage, place: tuple[int, int], *, scale: ColourScale, table: RgbImage, unit: str) -> None:
    """Draw a colour bar at (x, width) with its labels below, the last with the unit."""
    x, width = place
    ramp = np.linspace(scale.near, scale.far, width)[None]
    head[38 : 38 + _BAR, x : x + width] = _paint(ramp, scale, table)
    ticks = np.arange(scale.near, scale.far + scale.step / 2, scale.step)
    for index, value in enumerate(ticks):
        at = x + round((value - scale.near) / (scale.far - scale.near) * (width - 1))
        head[38 + _BAR : 42 + _BAR, at] = _PLAIN
        text = f"{value:.4g}{unit}" if index == len(ticks) - 1 else f"{value:.4g}"
        start = min(max(at - _extent(text) // 2, x), x + width - _extent(text))
        _write(head, text, (start, 67), ink=_PLAIN)


_FONT, _BOLD, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, 0.45


def _extent(text: str, *, bold: bool = False) -> int:
    """Width of a text in pixels."""
    return int(cv2.getTextSize(text, _BOLD if bold else _FONT, _SIZE, 1)[0][0])


def _write(canvas: RgbImage, text: str, at: tuple[int, int], *, ink: tuple[int, int, int], bold: bool = False) -> int:
    """Write a line of text whose baseline starts at (x, y); returns its width in pixels."""
    cv2.putText(canvas, text, at, _BOLD if bold else _FONT, _SIZE, ink, 1, cv2.LINE_AA)
    return _extent(text, bold=bold)


def _shortened(text: str, room: int) -> str:
    """The end of a text that fits the room in pixels: of an id, the end is what tells frames apart."""
    if _extent(text) <= room:
        return text
    while text and _extent("..." + text) > room:
        text = text[1:]
    return "..." + text
