"""Depth as colour images on one scale in metres, and the contact sheet image | truth | prediction | error.

Near is warm, far is cold, and what was never measured is grey (on a sheet: hatched), a colour no depth has.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.imaging.ticks import round_step

if TYPE_CHECKING:  # not at run time: it imports torch, which reading and drawing depth do not need
    from depthray.batch import Metres

RgbImage = NDArray[np.uint8]
Kind = Literal["depth", "mask", "edges"]

UNMEASURED = (112, 112, 112)
COLUMNS = ("image", "truth", "prediction", "error")
_GROUND, _PLAIN, _BRIGHT = (20, 22, 26), (160, 166, 176), (240, 242, 246)
_HATCH = ((58, 60, 64), (92, 95, 101))
_MARGIN, _GAP, _LINE, _BAR = 18, 8, 30, 12  # pixels
_LEAST_WIDTH, _MOST_WIDTH = 240, 480  # pixels of a tile
_BAR_TOP = 30  # row of a header at which the band of its colour bar begins
_LEAST_SCALE_WIDTH = 120  # pixels of an image that has room for the labels of a colour bar
_MAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "magma": cv2.COLORMAP_MAGMA,
    "inferno": cv2.COLORMAP_INFERNO,
    "viridis": cv2.COLORMAP_VIRIDIS,
}


class ColourScale(NamedTuple):
    """The metres at both ends of a colour bar, and between its labels."""

    near: float
    far: float
    step: float


class SheetRow(NamedTuple):
    """One frame of a sheet. Image, truth and prediction may differ in size but show the same view."""

    id: str
    image: RgbImage  # (H,W,3) RGB
    truth: Metres  # (h,w) metres, 0 = unmeasured or not scored; of a mask 0 or 1; of edges metres a pixel
    prediction: Metres  # (h',w') metres; of a mask its probability
    note: str = ""  # shown before the id: "best", "worst"
    score: float | None = None  # AbsRel or, of a mask, IoU under a protocol; None: computed from the maps here
    kind: Kind = "depth"
    caption: str = ""  # instead of the score


def depth_scale(depths: Iterable[Metres]) -> ColourScale:
    """(H,W) metres each -> round ends that hold all but the farthest and nearest 1 % of what was measured."""
    measured = [depth[is_measured(depth)] for depth in depths]
    values = np.concatenate(measured) if measured else np.zeros(0, np.float32)
    if not values.size:
        return ColourScale(0.0, 10.0, 2.0)  # data.max_depth unless it is set
    # Percentiles, not extremes: one stray pixel at 80 m would leave a room a single colour.
    low, high = np.percentile(values, [1, 99])
    return _round_scale(float(low), float(high), parts=8)


def scale_of(near: float, far: float) -> ColourScale:
    """Ends given by somebody -> a scale of these very ends, with labels at a round distance."""
    return ColourScale(near, far, round_step((far - near) / 8))


def colour_depth(depth: Metres, *, near: float, far: float) -> RgbImage:
    """(H,W) metres -> (H,W,3) uint8 RGB, near metres dark red to far metres dark blue; unmeasured is grey."""
    painted = _apply_map(depth, ColourScale(near, far, 1.0), _DEPTH_MAP)
    painted[~is_measured(depth)] = UNMEASURED
    return painted


def draw_sheet(
    rows: Sequence[SheetRow],
    *,
    depth: ColourScale | None = None,
    error: ColourScale | None = None,
    columns: Sequence[str] = COLUMNS,
    title: str = "",
) -> RgbImage:
    """Frames -> (H,W,3) uint8 RGB: a line of image, truth, prediction and error each, under colour bars in metres.

    Truth and prediction share one scale for the whole sheet. By default both scales depend on the truths alone, so that
    sheets of the same frames compare from epoch to epoch. Masks are black to white, their errors from 0 to 1; a sheet
    of masks alone has colour bars from 0 to 1. `columns` are the names of the four columns, `title` a line above them.
    """
    depth = depth or depth_scale(row.truth for row in rows if row.kind == "depth")
    masks = _MASK_PALETTE if error is None else _MASK_PALETTE._replace(error=error)
    error = error or _round_scale(0.0, depth.far / 4, parts=5)
    palettes: dict[Kind, _Palette] = {
        "depth": _Palette(depth, error, _DEPTH_MAP, " m"),
        "mask": masks,
        "edges": _Palette(depth, error, _ERROR_MAP, " m/pixel"),  # as errors: nothing is dark
    }
    width, kinds = _tile_width(rows), {row.kind for row in rows}
    bands = [_draw_header(width, palettes[kinds.pop() if len(kinds) == 1 else "depth"], columns)]
    bands += [_draw_row(row, width, palettes[row.kind]) for row in rows]
    whole = bands[0].shape[1]
    return np.concatenate([*_draw_title(title, whole), *bands, _background(_MARGIN, whole)])


def add_scale(image: RgbImage, scale: ColourScale, *, unit: str = " m") -> RgbImage:
    """(H,W,3) RGB of `colour_depth` -> (H+38,W,3), with the colour bar of its scale; unchanged where it is narrow."""
    width = image.shape[1]
    if width < _LEAST_SCALE_WIDTH:
        return image
    header = _background(_BAR_TOP + 38, width)
    step = round_step((scale.far - scale.near) / max(2, min(8, width // 60)))  # room for each label
    _draw_bar(header, (8, width - 16), scale=scale._replace(step=step), table=_DEPTH_MAP, unit=unit)
    return np.concatenate([image, header[_BAR_TOP:]])


def encode_png(image: RgbImage) -> bytes:
    """(H,W,3) uint8 RGB -> the bytes of a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return data.tobytes()


def save_png(path: str | os.PathLike[str], image: RgbImage) -> Path:
    """(H,W,3) uint8 RGB -> a PNG file at path; returns the path."""
    path = Path(path)
    path.write_bytes(encode_png(image))
    return path


# The evaluation imports this module, not the reverse: where no protocol has given a score, a sheet computes its own.
def abs_rel(prediction: Metres, truth: Metres) -> float:
    """(H,W) and (H,W) metres -> mean of |prediction - truth| / truth where there is truth; NaN if nowhere."""
    valid = is_measured(truth)
    if not valid.any():
        return float("nan")
    return float(np.mean(np.abs(prediction[valid] - truth[valid]) / truth[valid], dtype=np.float64))


def iou(prediction: Metres, truth: Metres) -> float:
    """(H,W) probability and (H,W) 0 or 1 -> shared over united foreground, probable above 0.5; 1 of two empty masks."""
    predicted, true = prediction > 0.5, truth > 0.5
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else 1.0


def colour_map(name: str) -> RgbImage:
    """Name of a colour map or `gray` -> (256,3) uint8 RGB from near (bright or warm) to far (dark or cold)."""
    ramp = np.arange(256, dtype=np.uint8)[::-1, None]
    if name == "gray":
        return np.repeat(ramp, 3, axis=1)
    return np.ascontiguousarray(cv2.applyColorMap(ramp, _MAPS[name])[:, 0, ::-1], dtype=np.uint8)


_DEPTH_MAP = colour_map("turbo")
_ERROR_MAP = colour_map("magma")[::-1]  # a small error is dark


class _Palette(NamedTuple):
    """How the maps of a row are coloured."""

    values: ColourScale
    error: ColourScale
    table: RgbImage
    unit: str


_MASK_PALETTE = _Palette(ColourScale(0, 1, 0.2), ColourScale(0, 1, 0.2), colour_map("gray")[::-1], "")


def is_measured(depth: Metres) -> NDArray[np.bool_]:
    """(H,W) metres -> (H,W) bool, where finite and positive"""
    return np.isfinite(depth) & (depth > 0)


def _apply_map(values: NDArray[Any], scale: ColourScale, table: RgbImage) -> RgbImage:
    """(H,W) metres -> (H,W,3) uint8 RGB by the table, clipped to the scale."""
    share = (np.nan_to_num(values) - scale.near) / max(scale.far - scale.near, 1e-6)
    painted: RgbImage = table[(np.clip(share, 0, 1) * 255).round().astype(np.uint8)]
    return painted


def _round_scale(low: float, high: float, *, parts: int) -> ColourScale:
    """The ends moved outwards to multiples of a step of 1, 2 or 5 times a power of ten, about `parts` steps apart."""
    # At least 5 cm: a flat wall has a scale, too.
    step = round_step(max(high - low, 0.05) / parts)
    # The 1e-6 keeps a range that is already round as it is, in spite of rounding errors.
    near, far = np.floor(low / step + 1e-6) * step, np.ceil(high / step - 1e-6) * step
    return ColourScale(float(near), float(max(far, near + step)), step)


def _tile_width(rows: Sequence[SheetRow]) -> int:
    """Pixels of a tile: a multiple of the widest image, so that small images are not blurred, within both bounds."""
    width = max(max(row.image.shape[1], row.prediction.shape[1]) for row in rows) if rows else _LEAST_WIDTH
    return min(width * -(-_LEAST_WIDTH // width), _MOST_WIDTH)  # -(-a // b) rounds up


def _draw_row(row: SheetRow, width: int, palette: _Palette) -> RgbImage:
    """A row -> (h,W,3): a line of text above the four tiles."""
    resized = resize_map(row.prediction, row.truth.shape)
    size = (max(1, round(width * row.truth.shape[0] / row.truth.shape[1])), width)
    of_truth = _shown_pixels(row.truth, row.kind)
    of_error = of_truth & _shown_pixels(resized, row.kind)
    tiles = [
        _image_tile(row.image, size),
        _map_tile(row.truth, of_truth, size=size, scale=palette.values, table=palette.table),
        _map_tile(
            row.prediction,
            _shown_pixels(row.prediction, row.kind),
            size=size,
            scale=palette.values,
            table=palette.table,
        ),
        _map_tile(np.abs(resized - row.truth), of_error, size=size, scale=palette.error, table=_ERROR_MAP),
    ]
    return np.concatenate([_draw_caption(row, _score_text(row, resized), width), _join_tiles(tiles)])


def _shown_pixels(values: Metres, kind: Kind) -> NDArray[np.bool_]:
    """(H,W) -> (H,W) bool, the pixels that are not hatched: of a mask also those of 0."""
    return np.isfinite(values) if kind == "mask" else is_measured(values)


def _score_text(row: SheetRow, prediction: Metres) -> str:
    """The score at the right end of a caption; `prediction` has the size of the truth."""
    if row.caption:
        return row.caption
    if row.kind == "mask":
        return f"mask IoU {iou(prediction, row.truth) if row.score is None else row.score:.3f}"
    if not is_measured(row.truth).any():
        return "no truth"
    return f"AbsRel {abs_rel(prediction, row.truth) if row.score is None else row.score:.3f}"


def resize_map(values: Metres, shape: tuple[int, ...]) -> Metres:
    """(h,w) metres or probability -> (H,W) of that shape; of the same shape the array itself.

    Bilinear between pixel centres, not corners, as the evaluation resizes a prediction: equal to torch's to 2e-5.
    """
    if values.shape == shape:
        return values
    return np.asarray(cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def _image_tile(image: RgbImage, size: tuple[int, int]) -> RgbImage:
    """(H,W,3) uint8 RGB -> (h,w,3) uint8 RGB at the tile's size"""
    method = cv2.INTER_AREA if size[1] < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def _map_tile(
    values: Metres, valid: NDArray[np.bool_], *, size: tuple[int, int], scale: ColourScale, table: RgbImage
) -> RgbImage:
    """(h,w) metres -> (H,W,3) uint8 RGB at the tile's size, hatched where not valid."""
    # Nearest neighbour: a blend of two depths at an edge would show a surface that is not there.
    resized = cv2.resize(values, size[::-1], interpolation=cv2.INTER_NEAREST)
    shown = cv2.resize(valid.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return np.where(shown[..., None], _apply_map(resized, scale, table), _hatch(size))


def _hatch(size: tuple[int, int]) -> RgbImage:
    """-> (H,W,3) uint8, diagonal stripes of two greys."""
    rows, columns = np.indices(size)
    stripes: RgbImage = np.array(_HATCH, np.uint8)[(rows + columns) // 5 % 2]
    return stripes


def _background(height: int, width: int) -> RgbImage:
    """-> (H,W,3) uint8 RGB of the sheet's own colour"""
    return np.full((height, width, 3), _GROUND, np.uint8)


def _join_tiles(tiles: Sequence[RgbImage]) -> RgbImage:
    """Four (H,w,3) tiles -> (H,W,3) with gaps between and margins around."""
    height = tiles[0].shape[0]
    gap, margin = _background(height, _GAP), _background(height, _MARGIN)
    parts = [part for tile in tiles for part in (gap, tile)]
    return np.concatenate([margin, *parts[1:], margin], axis=1)


def _column_start(column: int, width: int) -> int:
    return _MARGIN + column * (width + _GAP)


def _draw_caption(row: SheetRow, score: str, width: int) -> RgbImage:
    """-> (h,W,3): note and id on the left, the score on the right."""
    band = _background(_LINE, _column_start(4, width) - _GAP + _MARGIN)
    x = _MARGIN
    if row.note:
        x += _draw_text(band, row.note, (x, 22), ink=_PLAIN) + 10
    end = band.shape[1] - _MARGIN - _text_width(score)
    _draw_text(band, score, (end, 22), ink=_BRIGHT)
    _draw_text(band, _shorten(row.id, end - x - 20), (x, 22), ink=_BRIGHT)
    return band


def _draw_header(width: int, palette: _Palette, columns: Sequence[str]) -> RgbImage:
    """-> (h,W,3): names of the columns over the colour bars."""
    header = _background(74, _column_start(4, width) - _GAP + _MARGIN)
    for column, name in enumerate(columns):
        _draw_text(header, name, (_column_start(column, width), 26), ink=_BRIGHT, bold=True)
    # The key of what is hatched, below the first column, which has no colour bar.
    header[38 : 38 + _BAR, _MARGIN : _MARGIN + 2 * _BAR] = _hatch((_BAR, 2 * _BAR))
    _draw_text(header, "not measured", (_MARGIN + 2 * _BAR + 8, 49), ink=_PLAIN)
    _draw_bar(
        header,
        (_column_start(1, width), 2 * width + _GAP),
        scale=palette.values,
        table=palette.table,
        unit=palette.unit,
    )
    _draw_bar(header, (_column_start(3, width), width), scale=palette.error, table=_ERROR_MAP, unit=palette.unit)
    return header


def _draw_title(title: str, width: int) -> list[RgbImage]:
    """-> one (h,W,3) band with the title, the end of it where it is long; none without one"""
    if not title:
        return []
    band = _background(_LINE, width)
    _draw_text(band, _shorten(title, width - 2 * _MARGIN), (_MARGIN, 22), ink=_PLAIN)
    return [band]


def _draw_bar(header: RgbImage, span: tuple[int, int], *, scale: ColourScale, table: RgbImage, unit: str) -> None:
    """Draw a colour bar at (x, width) with its labels below, the last with the unit."""
    x, width = span
    ramp = np.linspace(scale.near, scale.far, width)[None]
    header[_BAR_TOP + 8 : _BAR_TOP + 8 + _BAR, x : x + width] = _apply_map(ramp, scale, table)
    # At multiples of the step: ends that somebody gave need not be round.
    first = np.ceil(scale.near / scale.step - 1e-6) * scale.step + 0.0  # not -0
    ticks = np.arange(first, scale.far + 1e-3 * scale.step, scale.step)
    for index, value in enumerate(ticks):
        tick = x + round((value - scale.near) / (scale.far - scale.near) * (width - 1))
        header[_BAR_TOP + 8 + _BAR : _BAR_TOP + 12 + _BAR, tick] = _PLAIN
        text = f"{value:.4g}{unit}" if index == len(ticks) - 1 else f"{value:.4g}"
        # Labels at the ends stay within the bar, where neighbouring bars cannot run into them.
        start = min(max(tick - _text_width(text) // 2, x), x + width - _text_width(text))
        _draw_text(header, text, (start, 67), ink=_PLAIN)


_FONT, _BOLD, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, 0.45


def _text_width(text: str, *, bold: bool = False) -> int:
    """Width of a text in pixels."""
    return int(cv2.getTextSize(text, _BOLD if bold else _FONT, _SIZE, 1)[0][0])


def _draw_text(
    canvas: RgbImage, text: str, at: tuple[int, int], *, ink: tuple[int, int, int], bold: bool = False
) -> int:
    """Write a line of text whose baseline starts at (x, y); returns its width in pixels."""
    cv2.putText(canvas, text, at, _BOLD if bold else _FONT, _SIZE, ink, 1, cv2.LINE_AA)
    return _text_width(text, bold=bold)


def _shorten(text: str, width: int) -> str:
    """The end of a text that fits into `width` pixels: ids of frames differ at their end."""
    if _text_width(text) <= width:
        return text
    while text and _text_width("..." + text) > width:
        text = text[1:]
    return "..." + text
