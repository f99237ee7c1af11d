"""Data sets as LeRobot writes them: Parquet and videos, of versions 2.1 and 3.0."""

from __future__ import annotations

import json
import math
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from functools import cache, partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from depthray.config.sections import Data
from depthray.data.rendering.render import render_frame

SIZE = (64, 96)
FPS = 10
COLOUR, DEPTH = "observation.images.top", "observation.images.top_depth"
QUANTISED = {"video.depth_min": 0.01, "video.depth_max": 10.0, "video.shift": 3.5, "video.use_log": True}
PATHS = {
    "v2.1": (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
    "v3.0": (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    ),
}


@cache
def picture(number: int) -> NDArray[np.uint8]:
    return render_frame(0, number, height=SIZE[0], width=SIZE[1])["image"]


@cache
def metres(number: int) -> NDArray[np.float32]:
    depth = render_frame(0, number, height=SIZE[0], width=SIZE[1])["depth"].copy()
    depth[:3] = 0  # unmeasured
    return depth


def codes(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """(H,W) metres -> (H,W) uint16: 12 bits, as `quantize_depth` of LeRobot computes them."""
    low, high = math.log(0.01 + 3.5), math.log(10 + 3.5)
    shares = (np.log(depth + np.float32(3.5)) - low) / (high - low)
    return np.asarray(np.rint(shares * 4095).clip(0, 4095), np.uint16)


def write_video(path: Path, frames: list[NDArray[Any]], *, form: str, codec: str, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = frames[0].shape[1], frames[0].shape[0]
        stream.pix_fmt = form
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def write_colour(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Without loss."""
    write_video(path, frames, form="rgb24", codec="libx264rgb", crf="0", g="4")


def write_depth(path: Path, frames: list[NDArray[np.uint16]]) -> None:
    """As LeRobot writes it: HEVC Main 12 without loss."""
    params = {"x265-params": "lossless=1:log-level=none:pools=none:frame-threads=1:info=0"}
    write = partial(write_video, path, frames, form="gray12le", codec="libx265", g="4", **params)
    try:
        write()
    except av.error.PatchWelcomeError:
        # FFmpeg's muxer now and then refuses the headers of x265, by what the process has had in its memory before.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            fresh.submit(write).result()


def features(depth: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """The features, with depth as `video`, `image` or `array`."""
    kinds: dict[str, dict[str, Any]] = {
        "video": {"dtype": "video", "info": {"is_depth_map": True, "video.pix_fmt": "gray12le", **QUANTISED}},
        "image": {"dtype": "image", "info": {"is_depth_map": True, "depth_unit": "mm"}},
        "array": {"dtype": "uint16", "info": {"unit": "millimeters"}},
    }
    chosen = kinds[depth] if facts is None else {**kinds[depth], "info": facts}
    return {
        "observation.state": {"dtype": "float32", "shape": [6]},
        COLOUR: {"dtype": "video", "shape": [*SIZE, 3], "info": {"video.is_depth_map": False}},
        "observation.images.wrist": {"dtype": "video", "shape": [*SIZE, 3], "info": {}},
        DEPTH: {**chosen, "shape": [*SIZE, 1]},
    }


def cells(depth: str, numbers: range) -> Any:
    """The column of depth in Parquet."""
    stored = [np.rint(metres(number) * 1000).astype(np.uint16) for number in numbers]
    if depth == "array":
        return pa.array([each.tolist() for each in stored], pa.list_(pa.list_(pa.uint16())))
    files = [cv2.imencode(".tiff", each)[1].tobytes() for each in stored]
    return pa.array(
        [{"bytes": each, "path": None} for each in files], pa.struct({"bytes": pa.binary(), "path": pa.string()})
    )


def write_set(
    root: Path, *, version: str = "v3.0", depth: str = "video", lengths: tuple[int, ...] = (4, 3), facts: Any = None
) -> Path:
    """Episodes of some lengths; frames are numbered through all of them."""
    data_path, video_path = PATHS[version]
    info = {
        "codebase_version": version,
        "fps": FPS,
        "total_episodes": len(lengths),
        "chunks_size": 1000,
        "data_path": data_path,
        "video_path": video_path,
        "features": features(depth, facts),
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    starts = np.cumsum([0, *lengths]).tolist()
    episodes = [range(*pair) for pair in pairwise(starts)]
    if version == "v2.1":
        for number, frames in enumerate(episodes):
            place = {"episode_chunk": 0, "episode_index": number}
            _write_files(root, data_path, video_path, [(number, frames)], place, depth)
        return root
    place = {"chunk_index": 0, "file_index": 0}
    _write_files(root, data_path, video_path, list(enumerate(episodes)), place, depth)
    table: dict[str, list[Any]] = {"episode_index": list(range(len(lengths))), "length": list(lengths)}
    for key in ("data", *(f"videos/{name}" for name in (COLOUR, DEPTH, "observation.images.wrist"))):
        table |= {f"{key}/chunk_index": [0] * len(lengths), f"{key}/file_index": [0] * len(lengths)}
        if key != "data":
            table[f"{key}/from_timestamp"] = [start / FPS for start in starts[:-1]]
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table(table), path)
    return root


def _write_files(
    root: Path, data_path: str, video_path: str, episodes: list[tuple[int, range]], place: dict[str, int], depth: str
) -> None:
    numbers = [number for _, frames in episodes for number in frames]
    columns = {
        "timestamp": pa.array([index / FPS for _, frames in episodes for index in range(len(frames))], pa.float32()),
        "episode_index": pa.array([episode for episode, frames in episodes for _ in frames], pa.int64()),
    }
    if depth != "video":
        columns[DEPTH] = pa.concat_arrays([cells(depth, frames) for _, frames in episodes])
    path = root / data_path.format(**place)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    write_colour(root / video_path.format(video_key=COLOUR, **place), [picture(number) for number in numbers])
    if depth == "video":
        stored = [codes(metres(number)) for number in numbers]
        write_depth(root / video_path.format(video_key=DEPTH, **place), stored)


def lerobot(root: Path) -> Data:
    """2 episodes of version 3.0."""
    return Data(source="lerobot", root=str(write_set(root)))
