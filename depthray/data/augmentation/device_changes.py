"""The changes of a batch made on its device: one sampling of frames for the geometry, colours as batched operations.

They are drawn on the CPU as ever, by augment.py, and are the same: geometry pixel for pixel up to rounding, colours in
distribution. The CPU only reads frames and draws then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from depthray.batch import COLOURS, MAPS, WIDE, Batch
from depthray.data.augmentation import cutdepth
from depthray.data.augmentation.augment import SampleChanges
from depthray.data.augmentation.device_camera import CameraBatch
from depthray.data.augmentation.device_colour import ColourChanges
from depthray.data.augmentation.geometry import Size, View
from depthray.data.augmentation.movable import Movable
from depthray.data.augmentation.warp import in_boxes, nearest_place
from depthray.data.resize import resize_nearest

METRES = ("depth", "sparse")


@dataclass(frozen=True)
class Group(Movable):
    """Samples of a batch whose frames are averaged over boxes of equal size before they are sampled."""

    boxes: Size
    which: Tensor | None  # (n) their positions in the batch; None = all of it
    taps: Tensor | None  # (n,2) of `View.taps`, None where all are 0


@dataclass(frozen=True)
class DeviceChanges(Movable):
    """The changes of B samples of one size. See `depthray.batch.Changes`."""

    size: Size  # of the samples after it
    with_maps: bool  # else the maps of the batch are changed already, and have that size
    turns: bool  # whether any is turned
    places: Tensor  # (B,6) the places of their pixels in the frames, as `Affine`, for maps
    # (B,w) and (B,h) int64: what samples that are windows look up, as OpenCV resizes them; -1 for all others.
    columns: Tensor
    rows: Tensor
    colour_places: Tensor  # (B,6) the same in the frames averaged over boxes
    turned: Tensor  # (B,1,1) bool
    bounds: Tensor  # (B,4) first and last column, first and last row that are seen
    colour_bounds: Tensor  # (B,4) the same in the frames averaged over boxes
    groups: tuple[Group, ...]
    camera: CameraBatch
    colours: ColourChanges
    cuts: Tensor | None  # (B,6) of `cutdepth.paste_batch`, None where no depth is pasted

    @staticmethod
    def of(changes: Sequence[SampleChanges], *, with_maps: bool) -> DeviceChanges:
        """The changes drawn for the samples of a batch."""
        views = [each.view for each in changes]
        boxes = [view.boxes for view in views]
        placed = [in_boxes(view.place, box) for view, box in zip(views, boxes, strict=True)]
        return DeviceChanges(
            size=views[0].size,
            with_maps=with_maps,
            turns=any(view.turned for view in views),
            places=torch.tensor([nearest_place(view) for view in views]),
            columns=torch.from_numpy(np.stack([_window_columns(view) for view in views])),
            rows=torch.from_numpy(np.stack([_window_rows(view) for view in views])),
            colour_places=torch.tensor(placed),
            turned=torch.tensor([view.turned for view in views])[:, None, None],
            bounds=torch.tensor([_bounds(view, (1, 1)) for view in views], dtype=torch.float32),
            colour_bounds=torch.tensor(
                [_bounds(view, box) for view, box in zip(views, boxes, strict=True)], dtype=torch.float32
            ),
            groups=_groups(views),
            camera=CameraBatch.of([each.camera for each in changes], views[0].size),
            cuts=cutdepth.stack([each.cut for each in changes]),
            colours=ColourChanges.of([each.drawn for each in changes], [each.noise for each in changes]),
        )

    def make(self, batch: Batch) -> Batch:
        """Frames (B,C,H,W) on any device -> (B,C,h,w) changed, colour float32 of 0 to 255."""
        here = self.to(batch["image"].device)
        changed = batch.copy()
        keys = [key for key in COLOURS if key in batch]
        exposed = here.camera.expose([here.sample(batch[key]) for key in keys])  # type: ignore[literal-required]
        colours = here.camera.compress(here.colours.make(exposed))
        changed.update(zip(keys, colours, strict=True))  # type: ignore[typeddict-item]
        if self.with_maps:
            here._look_up_maps(batch, changed)
        return changed if here.cuts is None else cutdepth.paste_batch(changed, here.cuts)

    def sample(self, frames: Tensor) -> Tensor:
        """(B,3,H,W) uint8 -> (B,3,h,w) float32 of 0 to 255, interpolated as `warp.show_colour` does."""
        x, y = _positions(self.colour_places, self.size)
        left, right, top, bottom = self.colour_bounds[:, :, None, None].unbind(1)
        x = torch.where(self.turned, _reflect(x, right), torch.clamp(x, left, right))
        y = torch.where(self.turned, _reflect(y, bottom), torch.clamp(y, top, bottom))
        if len(self.groups) == 1:
            return _interpolate(_smooth(frames.float(), self.groups[0]), x, y)
        sampled = frames.new_empty((*frames.shape[:2], *self.size), dtype=torch.float32)
        for group in self.groups:
            assert group.which is not None
            part = _smooth(frames.index_select(0, group.which).float(), group)
            mine = (each.index_select(0, group.which) for each in (x, y))
            sampled.index_copy_(0, group.which, _interpolate(part, *mine))
        return sampled

    def _look_up_maps(self, batch: Batch, changed: Batch) -> None:
        """Put the maps of frames (B,1,H,W) into `changed` as (B,1,h,w), each value that of the nearest pixel."""
        where, inside = self.nearest(batch["image"].shape[2:])
        for key in (*MAPS, "mask_valid"):
            if key in batch:
                values = batch[key]  # type: ignore[literal-required]
                # Few operations take uint16, of which float32 holds every value.
                frames = (values.to(WIDE[key]) if key in METRES else values).flatten(2)
                looked_up = frames.gather(2, where).masked_fill(~inside, 0)
                changed[key] = looked_up.view(len(looked_up), 1, *self.size)  # type: ignore[literal-required]
        if "mask" in batch and "mask_valid" not in batch and self.turns:
            changed["mask_valid"] = inside.view(len(inside), 1, *self.size)

    def nearest(self, frame: Sequence[int]) -> tuple[Tensor, Tensor]:
        """-> (B,1,h*w) the nearest pixel of a flattened frame of that size, and whether it is within the frame"""
        x, y = _positions(self.places, self.size)
        left, right, top, bottom = self.bounds[:, :, None, None].unbind(1)
        column, row = torch.floor(x + 0.5), torch.floor(y + 0.5)
        inside = (column >= left) & (column <= right) & (row >= top) & (row <= bottom)
        inside = inside | ~self.turned  # else only rounding leaves the frame
        column, row = torch.clamp(column, left, right), torch.clamp(row, top, bottom)
        column = torch.where(self.columns[:, None] >= 0, self.columns[:, None], column.long())
        row = torch.where(self.rows[:, :, None] >= 0, self.rows[:, :, None], row.long())
        where = row * frame[1] + column
        return where.flatten(1).unsqueeze(1), inside.flatten(1).unsqueeze(1)


def _groups(views: Sequence[View]) -> tuple[Group, ...]:
    together: dict[Size, list[int]] = {}
    for position, view in enumerate(views):
        together.setdefault(view.boxes, []).append(position)
    groups = []
    for boxes, which in together.items():
        taps = [views[position].taps for position in which]
        # Cut out, frames are not interpolated, nor smoothed: their taps are 0.
        smooth = torch.tensor(taps) if any(any(each) for each in taps) else None
        groups.append(Group(boxes, None if len(together) == 1 else torch.tensor(which), smooth))
    return tuple(groups)


def _bounds(view: View, boxes: Size) -> tuple[float, float, float, float]:
    """-> first and last column, first and last row that a view shows of its frame averaged over boxes"""
    height, width = (side // box for side, box in zip(view.frame, boxes, strict=True))
    if view.window is None or boxes != (1, 1):
        return 0, width - 1, 0, height - 1
    top, left, height, width = view.window
    return left, left + width - 1, top, top + height - 1


def _window_columns(view: View) -> NDArray[np.int64]:
    """-> (w) the columns of the frame that a view looks up, -1 where it is no window"""
    if view.window is None:
        return np.full(view.size[1], -1)
    columns = view.window[1] + _resized(view.window[3], view.size[1])
    return columns[::-1] if view.flipped else columns


def _window_rows(view: View) -> NDArray[np.int64]:
    """-> (h) the rows of the frame that a view looks up, -1 where it is no window"""
    if view.window is None:
        return np.full(view.size[0], -1)
    rows = view.window[0] + _resized(view.window[2], view.size[0])
    return rows[::-1] if view.upside_down else rows


@lru_cache(maxsize=4096)
def _resized(number: int, size: int) -> NDArray[np.int64]:
    """-> (size) which of so many pixels in a row are looked up; asked of OpenCV, whose rounding is its own"""
    looked_up: NDArray[np.int64] = resize_nearest(np.arange(number, dtype=np.float32)[None], (1, size))[0].astype(
        np.int64
    )
    return looked_up


def _positions(places: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """(B,6) -> (B,h,w) columns and rows in the frame of the pixels (h,w)"""
    xx, xy, x0, yx, yy, y0 = places[:, :, None, None].unbind(1)
    columns = torch.arange(size[1], dtype=torch.float32, device=places.device)
    rows = torch.arange(size[0], dtype=torch.float32, device=places.device)[:, None]
    return xx * columns + xy * rows + x0, yx * columns + yy * rows + y0


def _reflect(positions: Tensor, last: Tensor) -> Tensor:
    """Positions mirrored at the centres of the pixels 0 and `last`, as OpenCV's BORDER_REFLECT_101"""
    return last - (torch.remainder(positions, 2 * last.clamp(min=0.5)) - last).abs()


def _smooth(frames: Tensor, group: Group) -> Tensor:
    """(n,3,H,W) -> (n,3,H/box,W/box) averaged over boxes, then over 3 rows and columns; see `View`"""
    if group.boxes != (1, 1):
        frames = F.avg_pool2d(frames, group.boxes)
    if group.taps is None:
        return frames
    for dim, weight in ((2, group.taps[:, 0]), (3, group.taps[:, 1])):
        weight = weight[:, None, None, None]
        padded = F.pad(frames, (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0), mode="reflect")
        before, after = (padded.narrow(dim, start, frames.shape[dim]) for start in (0, 2))
        frames = frames * (1 - 2 * weight) + weight * (before + after)
    return frames


def _interpolate(frames: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n,3,H,W) at columns and rows (n,h,w) within it -> (n,3,h,w)"""
    height, width = frames.shape[2:]
    grid = torch.stack([x * (2 / max(1, width - 1)) - 1, y * (2 / max(1, height - 1)) - 1], dim=-1)
    return F.grid_sample(frames, grid, mode="bilinear", padding_mode="border", align_corners=True)
