"""Frames -> what a network that is trained on them has seen: sizes, cameras, light, sharpness and depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.batch import Sample
from depthray.checkpoints.model_facts import Span, TrainedLimits, TrainingData
from depthray.config import own_code
from depthray.config.sections import Data
from depthray.data import sources
from depthray.data.cameras.canonical_camera import with_camera
from depthray.data.columns.frame_columns import FrameColumns
from depthray.data.encodings import judged_depth
from depthray.data.resize import resize_colour, size_for_inference
from depthray.data.source import Source
from depthray.storage.remote import is_remote

SAMPLE = 32  # frames that are read
EVERY = 4  # pixel of a row and of a column whose depth counts
ENDS = (0.5, 99.5)  # per cent of all depths
LICENCES = ("LICENSE*", "LICENCE*", "license*", "licence*")


class PhotoLight(NamedTuple):
    """What can be said of a photograph without a network."""

    brightness: float  # mean of grey, 0 for black to 1 for white
    sharpness: float  # mean size of the Laplacian as a share of the standard deviation of grey


def light(image: NDArray[np.uint8]) -> PhotoLight:
    """(h,w,3) uint8 RGB of the size that a network gets -> its brightness and sharpness"""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edges = np.abs(cv2.Laplacian(grey, cv2.CV_16S)).mean()
    # A standard deviation of at least 1: a wall without any texture is neither sharp nor blurred.
    return PhotoLight(float(grey.mean()) / 255, float(edges / max(float(grey.std()), 1.0)))


def limits(source: Source, indices: Sequence[int], section: Data) -> TrainedLimits:
    """What a sample of frames is like, evenly spread over those with these indices."""
    count = min(SAMPLE, len(indices))
    chosen = [int(indices[place * len(indices) // count]) for place in range(count)]
    measured = [_Frame.of(with_camera(source.read(index), section), section) for index in chosen]
    depths = np.concatenate([frame.depths for frame in measured])
    cameras = [frame.focal for frame in measured if frame.focal]
    has_cameras = len(cameras) == len(measured)
    return TrainedLimits(
        measured=count,
        width=_span(frame.size[1] for frame in measured),
        height=_span(frame.size[0] for frame in measured),
        brightness=_span(frame.light.brightness for frame in measured),
        sharpness=_span(frame.light.sharpness for frame in measured),
        focal=_span(cameras) if has_cameras else None,
        input_focal=_span(frame.focal * frame.scale for frame in measured) if has_cameras else None,
        depth=_span(np.percentile(depths, ENDS).tolist()) if depths.size else None,
    )


def training_data(source: Source, indices: Sequence[int], section: Data) -> TrainingData:
    """Whose frames these are, how many, and on which terms."""
    columns, numbers = FrameColumns.of(source.frames), np.asarray(indices)
    names = tuple(filter(None, (columns.sources[each] for each in np.unique(columns.source[numbers]).tolist())))
    known = [terms for name in names if (terms := sources.terms(name))]
    own = [line for root in (section.root, *(each.root for each in section.sets)) if (line := _licence_file(root))]
    return TrainingData(
        names=names or (own_code.short_name(section.source),),
        frames=len(numbers),
        scenes=len(np.unique(columns.scene[numbers])),
        fingerprint=source.fingerprint,
        licences=tuple(dict.fromkeys([*own, *(terms.licence for terms in known if terms.licence)])),
        places=tuple(dict.fromkeys(terms.places for terms in known)),
    )


class _Frame(NamedTuple):
    """What is kept of a frame."""

    size: tuple[int, int]  # (H,W) pixels
    scale: float  # columns of the network's input to columns of the photograph
    light: PhotoLight
    focal: float  # pixels of the photograph; 0: unknown
    depths: NDArray[np.float32]  # metres, of some pixels

    @classmethod
    def of(cls, sample: Sample, section: Data) -> _Frame:
        image = sample["image"]
        height, width = image.shape[:2]
        own, name = sample.get("intrinsics"), sample.get("id", "")
        size = size_for_inference((height, width), section, camera=own, name=name)
        metres = judged_depth(sample)[::EVERY, ::EVERY].ravel() if "depth" in sample else np.empty(0, np.float32)
        inside = (metres > section.min_depth) & (metres < section.max_depth)
        camera = sample.get("intrinsics")
        focal = 0.0 if camera is None else float(camera[0, 0])
        return cls((height, width), size[1] / width, light(resize_colour(image, size)), focal, metres[inside])


def _span(values: Iterable[float]) -> Span:
    each = [float(value) for value in values]
    return round(min(each), 6), round(max(each), 6)


def _licence_file(root: str) -> str:
    """The first line of a licence that lies beside the data; "" where there is none."""
    if not root or is_remote(root):
        return ""
    folder = Path(root) if Path(root).is_dir() else Path(root).parent
    for path in sorted(path for pattern in LICENCES for path in folder.glob(pattern) if path.is_file()):
        with path.open(encoding="utf-8", errors="replace") as file:
            line = next((text.strip(" #\t\n") for text in file if text.strip(" #\t\n")), "")
        if line:
            return line[:200]
    return ""
