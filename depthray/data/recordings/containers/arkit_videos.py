"""Videos of ARKitScenes: folders of PNG files with the time in seconds in their names, and a camera for each image.

A video has the phone's own images (`lowres_wide`, `lowres_depth`), or `wide` with `highres_depth`, which a laser
scanner measured; the latter are read where both are there. Depth is millimetres.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

from depthray.data.readers.files import read_text
from depthray.data.recordings.containers.image_series import (
    COLOUR,
    DEPTH,
    FolderSeries,
    SeriesImage,
    pinhole_camera,
)
from depthray.data.recordings.messages import CameraMessage
from depthray.errors import DataError

NAME = re.compile(r"(?P<video>\w+?)_(?P<seconds>\d+)\.(?P<part>\d{1,9})\.(?:png|pincam)")
PAIRS = (("wide", "highres_depth"), ("lowres_wide", "lowres_depth"))  # the better first
SIDES = {"training": "train", "validation": "val"}
NEAR = 20_000_000  # nanoseconds between an image and the camera that is its own


class ArkitVideo(FolderSeries):
    """A video. See `Recording`."""

    def __init__(self, path: Path, name: str, *, visits: dict[str, str]) -> None:
        colour, depth = next(pair for pair in PAIRS if all((path / each).is_dir() for each in pair))
        cameras = sorted(_read_cameras(path / f"{colour}_intrinsics"), key=lambda each: each[0])
        times = [time for time, _ in cameras]
        images = []
        for topic, folder in ((COLOUR, colour), (DEPTH, depth)):
            for time, file in _timed(path / folder):
                camera = _nearest(times, cameras, time)
                images.append(SeriesImage(topic, time, f"{folder}/{file.name}", camera))
        super().__init__(path, name, sorted(images, key=lambda image: image.time), colour="png")
        parts = [part.lower() for part in path.resolve().parts]
        self.split = next((side for fold, side in SIDES.items() if fold in parts), "")
        visit = visits.get(path.name.partition("_")[0], "")
        self.scene = f"visit-{visit}" if visit else ""


def find_videos(root: Path) -> list[Path]:
    """The folders with colour and depth, the root or below it."""
    found = {path.parent for _, depth in PAIRS for path in (root, *root.rglob(depth)) if path.name == depth}
    return sorted(path for path in found if any(all((path / each).is_dir() for each in pair) for pair in PAIRS))


def read_visits(root: Path) -> dict[str, str]:
    """The visit of each video, by the lists of the data set in the root or above it; several videos show one room."""
    visits: dict[str, str] = {}
    for folder in (root, *list(root.resolve().parents)[:2]):
        for path in sorted((*folder.glob("*_splits.csv"), *folder.glob("metadata.csv"))):
            for row in csv.DictReader(read_text(path).splitlines()):
                if row.get("video_id") and row.get("visit_id"):
                    visits[str(row["video_id"])] = str(row["visit_id"]).partition(".")[0]
    return visits


def _timed(folder: Path) -> Iterator[tuple[int, Path]]:
    """The files of a folder with the nanoseconds in their names."""
    for file in sorted(folder.iterdir()):
        if match := NAME.fullmatch(file.name):
            yield int(match["seconds"]) * 10**9 + int(match["part"].ljust(9, "0")), file


def _read_cameras(folder: Path) -> Iterator[tuple[int, CameraMessage]]:
    for time, file in _timed(folder) if folder.is_dir() else ():
        try:
            width, height, fx, fy, cx, cy = (float(part) for part in read_text(file).split())
        except ValueError:
            raise DataError(f"{file}: wanted width, height, fx, fy, cx and cy") from None
        yield time, pinhole_camera((int(height), int(width)), (fx, fy), (cx, cy))


def _nearest(times: list[int], cameras: list[tuple[int, CameraMessage]], time: int) -> CameraMessage | None:
    """The camera recorded nearest to a time; None where there is none near it."""
    at = bisect_left(times, time)
    near = [cameras[index] for index in (at - 1, at) if 0 <= index < len(cameras)]
    best = min(near, key=lambda each: abs(each[0] - time), default=None)
    return best[1] if best is not None and abs(best[0] - time) <= NEAR else None
