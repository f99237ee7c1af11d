"""Depth of a video or a camera: frames as files, a video in one fixed colour scale, and the time of each frame."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from depthray.cli.predicting.depth_files import TIMES, VIDEO, shown_depth, write_maps
from depthray.errors import DataError, ResourceError, count_of

if TYPE_CHECKING:  # torch and OpenCV take long to import; --help and a wrong flag do without them
    import numpy as np
    from numpy.typing import NDArray

    from depthray.imaging.camera import Camera
    from depthray.imaging.photos import PhotoLimits
    from depthray.imaging.sheets import ColourScale
    from depthray.imaging.video import Video, VideoFrame

    Maps = dict[str, NDArray[np.float32]]

SAMPLED = 5  # frames of a file by which the colour scale is chosen
SILENCE = 5.0  # seconds between two lines of progress
_COLUMNS = ("frame", "seconds", "nearest", "median", "farthest")


@dataclass(frozen=True)
class ClipRequest:
    """What the command line asks for of a video."""

    formats: Sequence[str]  # colour is one video, each other format a file for each frame
    camera: Camera | None
    limits: PhotoLimits
    scale: ColourScale | None  # None: by some frames of the video
    every: int  # predict one frame in so many
    most: int  # frames to predict; 0 = all
    unit: str  # of depth, with a space before it; "" where it has none
    min_confidence: float = 0.0  # of points
    keep_invalid: bool = False  # depth where the network says that there is none

    def shown(self, maps: Maps) -> Maps:
        """The maps with the depth that files of one map have."""
        return maps if self.keep_invalid or "depth" not in maps else {**maps, "depth": shown_depth(maps)}


def predict_clip(source: Path, stem: Path, request: ClipRequest, maps_of: Callable[[NDArray[np.uint8]], Maps]) -> str:
    """Predict a video and write its files at `stem`, which has no suffix; returns the lines to print.

    Ctrl-C ends a camera; files of what was predicted until then are complete, as they are when it ends a video.
    """
    from depthray.imaging import sheets, video

    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            clip = files.enter_context(video.open_video(source, limits=request.limits))
            began = time.perf_counter()
            sampled = [maps_of(rgb) for rgb in clip.sample(SAMPLED)]
            if not sampled:
                raise DataError(f"{source}: no frame of it can be read")
            # A camera is predicted as fast as the network computes; a video keeps its own time.
            fps = min(clip.fps, 1 / (time.perf_counter() - began)) if clip.is_camera else clip.fps / request.every
            scale = request.scale or sheets.depth_scale(
                request.shown(maps)["depth"] for maps in sampled if "depth" in maps
            )
            writer = None
            if "colour" in request.formats and "depth" in sampled[0]:
                path = stem.with_name(stem.name + VIDEO)
                writer = files.enter_context(video.DepthVideo(path, fps=fps, scale=scale, unit=request.unit))
            table = files.enter_context(_times(stem.with_name(stem.name + TIMES)))
            count = _predict_frames(clip, stem, request, maps_of, writer=writer, table=table)
    except OSError as error:
        raise ResourceError(f"{stem}: cannot be written: {error.strerror}; choose another --out") from None
    return _lines(source, clip, count, stem, request, scale if writer else None, sampled[0])


def _predict_frames(
    clip: Video,
    stem: Path,
    request: ClipRequest,
    maps_of: Callable[[NDArray[np.uint8]], Maps],
    *,
    writer: Any,
    table: Any,
) -> int:
    """Predict the frames and write each; returns how many there were."""
    frames = [name for name in request.formats if name != "colour"]
    progress = _Progress(clip, request)
    count = 0
    try:
        for frame in _chosen(clip, request):
            maps = maps_of(frame.rgb)
            each = stem / f"{frame.number:06d}"
            if frames or "mask" in maps:
                how: Any = {"camera": request.camera, "unit": request.unit, "min_confidence": request.min_confidence}
                how["keep_invalid"] = request.keep_invalid
                write_maps(each, maps, frames, rgb=frame.rgb, scale=None, **how)
            if "depth" in maps and writer is not None:
                writer.write(request.shown(maps)["depth"])
            table.writerow(_row(frame, maps))
            count += 1
            progress.show(frame.number)
    except KeyboardInterrupt:
        if not clip.is_camera:  # a camera has no other end
            raise
    return count


def _chosen(clip: Video, request: ClipRequest) -> Iterator[VideoFrame]:
    """The frames to predict."""
    count = 0
    for frame in clip:
        if frame.number % request.every == 0:
            yield frame
            count += 1
            if count == request.most:
                return


def _row(frame: VideoFrame, maps: Maps) -> list[str]:
    """A frame's line of the table: number, seconds, and depth in the network's unit."""
    import numpy as np

    depth = maps.get("depth")
    numbers = [] if depth is None else [depth.min(), float(np.median(depth)), depth.max()]
    return [str(frame.number), f"{frame.seconds:.4f}", *(f"{number:.4f}" for number in numbers)]


@contextmanager
def _times(path: Path) -> Iterator[Any]:
    """The table of frames, which gets its name when it is complete; what an interrupt left is complete, too."""
    partial = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(_COLUMNS)
            try:
                yield table
            except KeyboardInterrupt:
                file.flush()
                os.replace(partial, path)
                raise
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class _Progress:
    """Prints how far a video is, every few seconds."""

    def __init__(self, clip: Video, request: ClipRequest) -> None:
        self.clip, self.request = clip, request
        self.began = self.shown = time.monotonic()

    def show(self, index: int) -> None:
        now = time.monotonic()
        if now - self.shown < SILENCE:
            return
        self.shown = now
        rate = (index + 1) / (now - self.began)
        length = min(self.clip.length, self.request.most * self.request.every or self.clip.length)
        rest = f" of {length}, {max(0, length - index - 1) / rate:.0f} s left" if length else ""
        print(f"{self.clip.name}  frame {index + 1}{rest}  ({rate:.1f} frames/s)", flush=True)


def _lines(
    source: Path, clip: Video, count: int, stem: Path, request: ClipRequest, scale: ColourScale | None, maps: Maps
) -> str:
    """What is printed of a video that was predicted."""
    height, width = next(iter(maps.values())).shape
    lines = [f"{source}  {width}x{height}  {count_of(count, 'frame')}"]
    if scale:
        path, unit = stem.with_name(stem.name + VIDEO), request.unit
        lines.append(f"  -> {path}  (red {scale.near:g}{unit} to blue {scale.far:g}{unit} in all frames)")
    if "mask" in maps or any(name != "colour" for name in request.formats):
        lines.append(f"  -> {stem}{os.sep}  (a file for each frame)")
    lines.append(f"  -> {stem.with_name(stem.name + TIMES)}  (the time of each frame)")
    expected = 0 if request.most else -(-clip.length // request.every)
    if expected and count < 0.9 * expected:  # headers of some formats only estimate it
        lines.append(f"  WARNING: its header names {expected} such frames; the file may be cut short")
    return "\n".join(lines)
