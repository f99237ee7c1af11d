"""Lenses of images that are not undistorted, in shards and in the index of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from depthray.batch import Sample
from depthray.config.sections import Data
from depthray.data import packing
from depthray.data.loader import eval_group
from depthray.data.shards import index_files
from depthray.data.source import Frame
from depthray.data.sources import open_source
from depthray.imaging.distortion import DistortedCamera, as_numbers, camera_of

LENSES = [
    as_numbers("brown-conrady", (0.1, -0.2, 0.01, 0.02, 1e-7)),
    as_numbers("fisheye", (0.1, 0, 0, 0)),
    np.zeros(9),
]
K = np.array([[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]], np.float32)


class Bent:
    """A source of frames with lenses."""

    keys = frozenset(("image", "depth", "intrinsics", "distortion"))
    fingerprint = "f"
    frames = [Frame(str(number), f"scene {number}", "", "") for number in range(3)]  # noqa: RUF012 - not changed

    def read(self, index: int) -> Sample:
        made: Any = {"image": np.full((24, 32, 3), index, np.uint8), "depth": np.full((24, 32), 2.0, np.float32)}
        made |= {"intrinsics": K, "distortion": LENSES[index], **self.frames[index]._asdict()}
        sample: Sample = made
        return sample

    def faults(self, index: int) -> list[str]:
        return []


def test_they_are_read_as_they_were_packed_and_are_no_part_of_a_batch(tmp_path: Path) -> None:
    packing.pack(Bent(), tmp_path, provenance={}, frames_per_shard=2)
    for indexed in (False, True):
        if indexed:
            index_files.write(tmp_path)
        source = open_source(Data(source="shards", root=str(tmp_path)))
        assert "distortion" in source.keys
        for index, lens in enumerate(LENSES):
            np.testing.assert_array_equal(source.read(index)["distortion"], lens)
        cameras = [camera_of(each["intrinsics"], each["distortion"]) for each in map(source.read, range(3))]
        assert [getattr(camera, "model", "") for camera in cameras] == ["brown-conrady", "fisheye", ""]
        assert isinstance(cameras[0], DistortedCamera) and cameras[0].coefficients[4] == 1e-7
        ((_, batch),) = eval_group(source, [0, 1, 2], data=Data(size=(24, 32)))
        assert "distortion" not in batch and batch["intrinsics"].shape == (3, 3, 3)
