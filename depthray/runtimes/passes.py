"""Several forward passes for one prediction: flipped, at other sizes, and in overlapping tiles of a larger picture.

Metres stay those of one pass over the whole picture at the network's own size: what another size predicts is scaled to
it, and of tiles only what is finer than a part of one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from depthray import models
from depthray.config.sections import Data, Eval
from depthray.errors import UsageError
from depthray.models import INTRINSICS

if TYPE_CHECKING:  # torch takes seconds to import, and checking a recipe does without
    from torch import Tensor, nn

    from depthray.batch import Batch, Prediction

PICTURES = ("image", "background")
AVERAGED = ("depth", "mask", "valid")  # in metres and logits
MOST_TILES = 8  # of a side
SCALES = (0.25, 4.0)  # smallest and largest
LEAST = 1e-3  # metres, for logarithms
FINE = 4  # a tile has so many parts across, and below their size its detail is taken
ENOUGH = 0.75  # share of the larger size that a picture must have on each side: an enlarged one has no detail to find


@dataclass(frozen=True)
class Passes:
    """Which passes a prediction is the mean of; by default it is that of one."""

    flip: bool = False  # one more of the mirrored picture
    scales: tuple[float, ...] = ()  # one more at each of these multiples of the network's size
    tiles: int = 1  # a picture of so many times the network's size, in 2n - 1 overlapping tiles across and down

    def __post_init__(self) -> None:
        """Raise UsageError for values that are no passes."""
        low, high = SCALES
        if wrong := [scale for scale in self.scales if not low <= scale <= high]:
            raise UsageError(f"scales={wrong[0]:g}: give multiples of the network's size, {low:g} to {high:g}")
        if not 1 <= self.tiles <= MOST_TILES:
            raise UsageError(f"tiles={self.tiles}: give 1 to {MOST_TILES}")

    @staticmethod
    def of(section: Eval) -> Passes:
        """Those of a recipe's evaluation."""
        return Passes(section.flip, section.scales, section.tiles)

    def __str__(self) -> str:
        parts = [
            *(["flipped"] if self.flip else []),
            *(["at " + ", ".join(f"{scale:g}" for scale in self.scales) + " of the size"] if self.scales else []),
            *([f"in {2 * self.tiles - 1}x{2 * self.tiles - 1} tiles"] if self.tiles > 1 else []),
        ]
        return " and ".join(parts) or "one"

    @property
    def is_one(self) -> bool:
        """Whether the prediction is that of the network as it is."""
        return self == Passes()

    def check(self, data: Data, *, metric: bool) -> None:
        """Raise UsageError where a network of this section cannot be computed so."""
        if self.tiles == 1 and not self.scales:
            return
        name = "tiles" if self.tiles > 1 else "scales"
        if others := [key for key in data.inputs if key not in PICTURES]:
            raise UsageError(f"{name}: this network reads {', '.join(others)}, which has no other size; leave it out")
        if not metric:
            raise UsageError(f"{name}: this network's depth is not in metres, so that sizes have nothing in common")
        if self.tiles > 1 and data.fit == "native":
            raise UsageError("tiles: this network sees pictures at their own size (data.fit=native) already")

    def enlarged(self, data: Data) -> Data:
        """The section with the size of which the tiles are parts."""
        if self.tiles == 1:
            return data
        height, width = (side * self.tiles for side in data.size)
        return data.model_copy(update={"size": (height, width)})

    def fits(self, size: tuple[int, int], larger: tuple[int, int]) -> bool:
        """Whether a picture of (H,W) pixels has the detail of the larger size."""
        return self.tiles > 1 and all(have >= ENOUGH * need for have, need in zip(size, larger, strict=True))


ONE = Passes()


def run(model: nn.Module, batch: Batch, passes: Passes = ONE) -> Prediction:
    """A batch of any size -> the prediction at that size, as `models.run`; with tiles the batch is that much larger.

    Maps other than depth and masks are those of the first pass; with tiles the deviation of ln depth alone is left.
    """
    if passes.tiles > 1:
        return _tiled(model, batch, passes)
    return _averaged(model, batch, passes)


def _averaged(model: nn.Module, batch: Batch, passes: Passes) -> Prediction:
    """The mean of a pass and its variants, in metres and logits."""
    first = models.run(model, batch)
    if not passes.flip and not passes.scales:
        return first
    values: Any = dict(first)
    sums: dict[str, Tensor] = {key: values[key].float() for key in AVERAGED if key in values}
    count = 1
    for other in _variants(model, batch, passes):
        for key in sums:
            sums[key] = sums[key] + _aligned(other[key].float(), values[key].float(), is_depth=key == "depth")
        count += 1
    return values | {key: value / count for key, value in sums.items()}  # type: ignore[no-any-return]


def _variants(model: nn.Module, batch: Batch, passes: Passes) -> Iterator[Any]:
    """Predictions of all passes but the first, mirrored back, each at its own size."""
    for scale in (1.0, *passes.scales):
        scaled = batch if scale == 1.0 else _resized(model, batch, scale)
        if scale != 1.0:
            yield models.run(model, scaled)
        if passes.flip:
            mirrored: Any = models.run(model, flipped(model, scaled))
            yield {key: mirrored[key].flip(-1) for key in AVERAGED if key in mirrored}


def _tiled(model: nn.Module, batch: Batch, passes: Passes) -> Prediction:
    """A batch that is larger than the network's size -> the whole at that size with the detail of its tiles."""
    import torch

    values: Any = batch
    key = _maps(model)[0]
    height, width = values[key].shape[-2:]
    rows, columns = (-(-side // passes.tiles) for side in (height, width))
    whole: Any = _averaged(model, _resized(model, batch, 1 / passes.tiles, size=(rows, columns)), passes)
    maps = {name: _resize(whole[name].float(), (height, width)) for name in AVERAGED if name in whole}
    sums = {name: torch.zeros_like(value) for name, value in maps.items()}
    weights = torch.zeros_like(next(iter(maps.values()))[:, :, :height, :width])
    window = _window(rows, columns, like=weights)
    for top, left in product(*(_starts(side, part, passes.tiles) for side, part in ((height, rows), (width, columns)))):
        place = (..., slice(top, top + rows), slice(left, left + columns))
        part: Any = _changed(model, batch, lambda _, value, place=place: value[place])
        if INTRINSICS in values:
            part[INTRINSICS] = _moved_camera(values[INTRINSICS], down=-top, across=-left)
        tile: Any = _averaged(model, part, passes)
        for name, value in maps.items():
            found = _resize(tile[name].float(), (rows, columns))
            sums[name][place] += window * (_detailed(value[place], found) if name == "depth" else found)
        weights[place] += window
    merged = {name: value / weights for name, value in sums.items()}
    if "log_sigma" in whole:  # a share of depth, whatever the size
        merged["log_sigma"] = _resize(whole["log_sigma"].float(), (height, width))
    return merged  # type: ignore[return-value]


def _starts(side: int, part: int, tiles: int) -> list[int]:
    """Where tiles of `part` pixels begin on a side, half of each shared with the next."""
    return [round(place * (side - part) / (2 * tiles - 2)) for place in range(2 * tiles - 1)]


def _window(rows: int, columns: int, *, like: Tensor) -> Tensor:
    """-> (h,w) weights of a tile's pixels, which fall towards its edges and are 0 nowhere"""
    import torch

    across, down = (
        1 - ((torch.arange(side, device=like.device) + 0.5) * 2 / side - 1).abs() for side in (columns, rows)
    )
    return down[:, None] * across[None, :]


def _detailed(whole: Tensor, tile: Tensor) -> Tensor:
    """(B,1,h,w) metres of the whole and of a tile of it -> metres of the first with the detail of the second"""
    coarse, fine = whole.clamp(min=LEAST).log(), tile.clamp(min=LEAST).log()
    return (fine + _smooth(coarse - fine)).exp()


def _smooth(values: Tensor) -> Tensor:
    """(B,1,h,w) -> means over squares of a part of the shorter side"""
    from torch.nn import functional

    side = max(1, min(values.shape[-2:]) // FINE) | 1
    return functional.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)


def _aligned(values: Tensor, first: Tensor, *, is_depth: bool) -> Tensor:
    """(B,1,h,w) -> (B,1,H,W) of the first pass; depth of another size is scaled to it by the median of their ratio."""
    if values.shape == first.shape:
        return values
    resized = _resize(values, (first.shape[-2], first.shape[-1]))
    if not is_depth:
        return resized
    ratio = (first.clamp(min=LEAST) / resized.clamp(min=LEAST)).flatten(1).median(dim=1).values
    return resized * ratio[:, None, None, None]


def _resized(model: nn.Module, batch: Batch, scale: float, *, size: tuple[int, int] | None = None) -> Batch:
    """The batch with inputs of a multiple of their size."""

    def resize(key: str, value: Tensor) -> Tensor:
        height, width = value.shape[-2:]
        return _resize(value.float(), size or (max(1, round(height * scale)), max(1, round(width * scale))))

    resized: Any = _changed(model, batch, resize)
    if INTRINSICS in batch:
        key = _maps(model)[0]
        old, new = (each[key].shape[-2:] for each in (batch, resized))  # type: ignore[literal-required]
        resized[INTRINSICS] = _scaled_camera(batch["intrinsics"], down=new[0] / old[0], across=new[1] / old[1])
    return resized  # type: ignore[no-any-return]


def _resize(value: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,C,h,w) -> (B,C,H,W), bilinearly, smoothed where it shrinks"""
    from torch.nn import functional

    if tuple(value.shape[-2:]) == size:
        return value
    return functional.interpolate(value, size, mode="bilinear", antialias=True)


def _scaled_camera(matrix: Tensor, *, down: float, across: float) -> Tensor:
    """(B,3,3) in pixels of an image -> in those of one with so many times its rows and columns, centres whole"""
    scaled = matrix.clone()
    for row, factor in ((0, across), (1, down)):
        scaled[:, row] *= factor
        scaled[:, row, 2] += (factor - 1) / 2
    return scaled


def _moved_camera(matrix: Tensor, *, down: float, across: float | Tensor) -> Tensor:
    """(B,3,3) -> the same with the principal point so many pixels, one or (B), further down and to the right"""
    moved = matrix.clone()
    moved[:, 0, 2] += across
    moved[:, 1, 2] += down
    return moved


def flipped(model: nn.Module, batch: Batch) -> Batch:
    """The batch with inputs mirrored from left to right."""
    mirrored: Any = _changed(model, batch, lambda _, value: value.flip(-1))
    if INTRINSICS in mirrored:
        matrix, last = mirrored[INTRINSICS], mirrored[_maps(model)[0]].shape[-1] - 1
        mirrored[INTRINSICS] = _moved_camera(matrix, down=0, across=last - 2 * matrix[:, 0, 2])
    return mirrored  # type: ignore[no-any-return]


def _changed(model: nn.Module, batch: Batch, change: Any) -> Batch:
    """The batch with each of the network's maps (B,C,H,W) changed; the rest, such as the truth, as it is."""
    values: Any = dict(batch)
    return values | {key: change(key, values[key]) for key in _maps(model)}  # type: ignore[no-any-return]


def _maps(model: nn.Module) -> tuple[str, ...]:
    """The keys of the batch whose maps a network reads."""
    network: Any = model
    while not hasattr(network, "stride"):  # as in `models.run`
        network = network.module
    return models.maps_of(network.inputs)
