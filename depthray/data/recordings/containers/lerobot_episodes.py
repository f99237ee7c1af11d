"""Data sets of LeRobot, versions 2 and 3: episodes in Parquet files, with images in them or in videos.

Depth is what `meta/info.json` marks as such: a video of 12-bit numbers, quantised as the feature's `info` says, or
images or arrays in the unit that it says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.recordings.containers.video_frames import VideoFrames
from depthray.data.recordings.messages import IMAGE, ImageMessage, Message, RecordedMessage, Topic
from depthray.data.recordings.recording import RecordedFile
from depthray.errors import DataError

MOST_CODE = 4095  # of 12 bits
START = 10**9  # nanoseconds that are added to times, which begin at 0: 0 is for images without a time
PLAIN = ("uint16", "float32")  # dtypes of arrays in Parquet that may be depth


class LerobotFeature(NamedTuple):
    """A feature with images, of `meta/info.json`."""

    name: str
    stored: str  # video, image, or the dtype of arrays
    encoding: str  # as in messages: rgb8, 32FC1 for depth of a known unit, which is made metres, else mono16
    quantised: tuple[float, float, float, bool] | None = None  # nearest, farthest, shift in metres; logarithmic
    per_metre: float = 1.0  # steps


class EpisodeVideo(NamedTuple):
    """The video of a feature in an episode."""

    path: Path
    start: float  # seconds into it


class _OpenEpisode:
    """Open videos of an episode, and the rows of its table that were read last."""

    def __init__(self) -> None:
        self.videos: dict[str, VideoFrames] = {}
        self.rows: dict[str, tuple[int, Any]] = {}  # by feature: the first row of a group of rows, and its column


class LerobotEpisode(RecordedFile[_OpenEpisode]):
    """An episode. See `Recording`."""

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        features: Mapping[str, LerobotFeature],
        videos: Mapping[str, EpisodeVideo],
        first_row: int,
        times: NDArray[np.float64],
    ) -> None:
        super().__init__(path, name)
        self._features, self._videos, self._first_row, self._times = features, videos, first_row, times

    def topics(self) -> list[Topic]:
        """The features that have images."""
        return [Topic(name, IMAGE, each.stored, len(self._times)) for name, each in self._features.items()]

    def entries(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """The images of some features, without pixels: their times are those of the rows."""
        for row in range(len(self._times)):
            for name in sorted(topics):
                message = self._message(self._features[name], row, np.zeros((0, 0), np.uint8))
                yield RecordedMessage(name, message.stamp, row, message)

    def message(self, topic: str, position: Any) -> Message:
        """The image of a feature in a row."""
        feature = self._features[topic]
        with self.opened() as episode:
            if feature.stored == "video":
                pixels = self._read_video(episode, feature, position)
            else:
                pixels = self._read_row(episode, feature, position)
        return self._message(feature, position, pixels)

    def open_handle(self) -> _OpenEpisode:
        """Nothing is open yet."""
        return _OpenEpisode()

    def close_handle(self, handle: _OpenEpisode) -> None:
        """Close the videos."""
        for video in handle.videos.values():
            video.close()

    def files(self, topics: Collection[str]) -> list[Path]:
        """The table, and the videos of some features."""
        return [self.path, *(video.path for name, video in sorted(self._videos.items()) if name in topics)]

    def _message(self, feature: LerobotFeature, row: int, pixels: NDArray[Any]) -> ImageMessage:
        stamp = START + round(float(self._times[row]) * 10**9)
        data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
        height, width = pixels.shape[:2]
        return ImageMessage(stamp, "", feature.encoding, height, width, data.size // max(height, 1), False, data)

    def _read_video(self, episode: _OpenEpisode, feature: LerobotFeature, row: int) -> NDArray[Any]:
        path, start = self._videos[feature.name]
        if feature.name not in episode.videos:
            episode.videos[feature.name] = VideoFrames(path, colour=feature.encoding == "rgb8")
        pixels = episode.videos[feature.name].at(start + float(self._times[row]))
        return pixels if feature.quantised is None else _dequantise(pixels, *feature.quantised)

    def _read_row(self, episode: _OpenEpisode, feature: LerobotFeature, row: int) -> NDArray[Any]:
        where = f"{self.path}: {feature.name} of row {self._first_row + row}"
        first, column = episode.rows.get(feature.name, (0, ()))
        number = self._first_row + row - first
        if not 0 <= number < len(column):
            first, column = _read_group(self.path, feature.name, self._first_row + row)
            episode.rows[feature.name] = (first, column)
            number = self._first_row + row - first
        cell = column[number].as_py()
        if feature.stored == "image":
            return _decode_cell(cell, feature, where=where)
        try:
            pixels = np.asarray(cell, feature.stored).squeeze()
        except (TypeError, ValueError):
            raise DataError(f"{where}: not numbers of {feature.stored}") from None
        return _in_metres(pixels, feature, where=where)


def open_episodes(root: Path) -> list[LerobotEpisode]:
    """The episodes of a data set; a DataError where its metadata are not those of a known version."""
    info = read_info(root)
    features = {name: made for name, raw in info["features"].items() if (made := _feature(name, raw))}
    if str(info.get("codebase_version", "")).startswith("v3"):
        return list(_episodes_of_version_3(root, info, features))
    return list(_episodes_of_version_2(root, info, features))


def read_info(root: Path) -> dict[str, Any]:
    """`meta/info.json`, with `features`."""
    path = root / "meta" / "info.json"
    try:
        info: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not the description of a data set of LeRobot: {error}") from None
    version = str(info.get("codebase_version", "")) if isinstance(info, dict) else ""
    if not version.startswith(("v2", "v3")) or not isinstance(info.get("features"), dict):
        raise DataError(f"{path}: codebase_version is '{version}', known are v2.0, v2.1 and v3.0")
    return info


def _feature(name: str, raw: Mapping[str, Any]) -> LerobotFeature | None:
    """A feature with images; None for any other."""
    stored, facts = str(raw.get("dtype")), {**(raw.get("video_info") or {}), **(raw.get("info") or {})}
    marked = bool(facts.get("is_depth_map") or facts.get("video.is_depth_map"))
    named = "depth" in name.lower()
    if stored not in ("video", "image") and not (stored in PLAIN and named and len(raw.get("shape", ())) >= 2):
        return None
    if stored == "video":
        return _video_feature(name, facts, marked)
    if not (marked or named):
        return LerobotFeature(name, stored, "rgb8")
    unit = {"mm": 1000.0, "millimeters": 1000.0, "m": 1.0, "meters": 1.0}.get(
        str(facts.get("depth_unit", facts.get("unit", "")))
    )
    return LerobotFeature(name, stored, "mono16" if unit is None else "32FC1", per_metre=unit or 1.0)


def _video_feature(name: str, facts: Mapping[str, Any], marked: bool) -> LerobotFeature:
    keys = ("video.depth_min", "video.depth_max", "video.shift", "video.use_log")
    wide = str(facts.get("video.pix_fmt", "")).startswith(("gray1", "yuv420p12"))
    if marked and all(key in facts for key in keys):
        nearest, farthest, shift = (float(facts[key]) for key in keys[:3])
        return LerobotFeature(name, "video", "32FC1", quantised=(nearest, farthest, shift, bool(facts[keys[3]])))
    return LerobotFeature(name, "video", "mono16" if wide else "rgb8")


def _dequantise(
    codes: NDArray[np.uint16], nearest: float, farthest: float, shift: float, logarithmic: bool
) -> NDArray[np.float32]:
    """(H,W) codes of 12 bits -> (H,W) float32 metres; 0, unmeasured, for the first and the last code.

    All that is nearer or farther than the range has these, and so has depth of 0.
    """
    low, high = (math.log(each + shift) if logarithmic else each for each in (nearest, farthest))
    table = low + np.arange(MOST_CODE + 1) * ((high - low) / MOST_CODE)
    table = np.exp(table) - shift if logarithmic else table
    table[[0, MOST_CODE]] = 0
    return table.astype(np.float32)[np.minimum(codes, MOST_CODE)]


def _decode_cell(cell: Any, feature: LerobotFeature, *, where: str) -> NDArray[Any]:
    """The file in a cell of a table, PNG, JPEG or TIFF -> its pixels"""
    content = cell.get("bytes") if isinstance(cell, dict) else None
    flags = cv2.IMREAD_COLOR_RGB if feature.encoding == "rgb8" else cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(content or b"", np.uint8), flags) if content else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise DataError(f"{where}: no image that can be read")
    return np.asarray(pixels) if feature.encoding == "rgb8" else _in_metres(pixels, feature, where=where)


def _in_metres(pixels: NDArray[Any], feature: LerobotFeature, *, where: str) -> NDArray[Any]:
    """(H,W) depth as stored -> (H,W) float32 metres where its unit is stated, else as it is"""
    if pixels.ndim != 2 or pixels.dtype.name not in PLAIN:
        raise DataError(f"{where}: depth is {pixels.dtype} {pixels.shape}, wanted (H, W) of {' or '.join(PLAIN)}")
    if feature.encoding == "mono16" and pixels.dtype == np.uint16:
        return pixels  # of a unit that the user declares
    if feature.encoding == "mono16":
        raise DataError(
            f"{where}: depth of {pixels.dtype}, whose unit meta/info.json does not state: give depth_unit there"
        )
    return (pixels / np.float64(feature.per_metre)).astype(np.float32)


def _episodes_of_version_3(
    root: Path, info: Mapping[str, Any], features: Mapping[str, LerobotFeature]
) -> Iterator[LerobotEpisode]:
    """Episodes of which several share a file; `meta/episodes` says where each is."""
    tables = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    rows = [row for table in tables for row in _read_rows(table)]
    if not rows:
        raise DataError(f"{root}/meta/episodes: no episodes listed there")
    first_rows: dict[Path, int] = {}
    for row in sorted(rows, key=lambda each: each["episode_index"]):
        number, length = int(row["episode_index"]), int(row["length"])
        path = root / str(info["data_path"]).format(
            chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
        )
        first = first_rows.setdefault(path, 0)
        first_rows[path] += length
        videos = {}
        for name in (each.name for each in features.values() if each.stored == "video"):
            place = {key: row[f"videos/{name}/{key}"] for key in ("chunk_index", "file_index")}
            file = root / str(info["video_path"]).format(video_key=name, **place)
            videos[name] = EpisodeVideo(file, float(row[f"videos/{name}/from_timestamp"]))
        times = _read_times(path, number)
        yield LerobotEpisode(
            path, f"episode_{number:06d}", features=features, videos=videos, first_row=first, times=times
        )


def _episodes_of_version_2(
    root: Path, info: Mapping[str, Any], features: Mapping[str, LerobotFeature]
) -> Iterator[LerobotEpisode]:
    """Episodes with a file each."""
    for number in range(int(info.get("total_episodes", 0))):
        place = {"episode_chunk": number // int(info.get("chunks_size", 1000)), "episode_index": number}
        videos = {
            name: EpisodeVideo(root / str(info["video_path"]).format(video_key=name, **place), 0.0)
            for name in (each.name for each in features.values() if each.stored == "video")
        }
        path = root / str(info["data_path"]).format(**place)
        times = _read_times(path, number)
        yield LerobotEpisode(path, f"episode_{number:06d}", features=features, videos=videos, first_row=0, times=times)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a small table, without its statistics."""
    table = _open_table(path)
    names = [name for name in table.schema_arrow.names if not name.startswith("stats/")]
    rows: list[dict[str, Any]] = table.read(columns=names).to_pylist()
    return rows


def _read_times(path: Path, number: int) -> NDArray[np.float64]:
    """The times in seconds of the rows of an episode, which are consecutive."""
    episodes, times = _read_columns(path)
    own: NDArray[np.float64] = times[episodes == number]
    if not own.size:
        raise DataError(f"{path}: no rows of episode {number}")
    return own


@lru_cache(maxsize=2)
def _read_columns(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Episode and time in seconds of each row: episodes of one file are opened one after the other."""
    table = _open_table(path).read(columns=["episode_index", "timestamp"])
    episodes: NDArray[np.int64] = np.asarray(table["episode_index"], np.int64).reshape(-1)
    times: NDArray[np.float64] = np.asarray(table["timestamp"], np.float64).reshape(-1)
    return episodes, times


def _read_group(path: Path, column: str, row: int) -> tuple[int, Any]:
    """The group of rows that has a row -> the number of its first row, and a column of it."""
    table, first = _open_table(path), 0
    for group in range(table.num_row_groups):
        count = table.metadata.row_group(group).num_rows
        if row < first + count:
            return first, table.read_row_group(group, columns=[column])[column]
        first += count
    raise DataError(f"{path}: {first} rows, but row {row} belongs to an episode")


def _open_table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a table that can be read: {str(error).splitlines()[0]}") from None
