"""Data sets of pairs of files, one of colour and one of depth, in a unit the form of the data set fixes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.sources import Frame
from depthray.data.sources import _kinect as kinect
from depthray.data.sources._images import Files, refuse_unlike_sizes
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample

HINT = "`depthray data check` lists every bad file"


class Pair(NamedTuple):
    """One frame: its files, relative to the root, and what is known of it without reading them."""

    rgb: str
    depth: str
    frame: Frame
    encoding: str
    named: str  # where the pair is named, for errors: "nyu2_train.csv line 3"
    focal: float = 0.0  # focal length in pixels where it is stated


class Pairs:
    """A data set of pairs seen by the camera of NYU Depth V2. See `depthray.data.sources.Source`."""

    keys = frozenset({"image", "depth", "intrinsics"})

    def __init__(self, root: Path, pairs: Sequence[Pair], *, notes: Sequence[str] = ()) -> None:
        self.pairs = pairs
        self.files = Files(root, hint=HINT)
        self.frames = [pair.frame for pair in pairs]
        self.notes = list(notes)  # what was left out, and why

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, of what their files are called and how long they are."""
        digest = sha256(type(self).__name__.encode())
        for index, pair in enumerate(self.pairs):
            try:
                sizes = [self.files.size(name) for name in (pair.rgb, pair.depth)]
            except DataError as error:
                raise self._at(index, error) from None
            digest.update(repr((pair._replace(named=""), sizes)).encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        frame = self.frames[index]
        try:
            sample = self.sample(index)
        except DataError as error:
            raise self._at(index, error) from None
        return {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source}

    def faults(self, index: int) -> list[str]:
        """None: no whole number is odd."""
        return []

    def sample(self, index: int) -> Sample:
        """The arrays of one frame."""
        pair = self.pairs[index]
        image = self.files.colour(pair.rgb)
        depth = self.files.fixed_depth(pair.depth, encoding=pair.encoding)
        refuse_unlike_sizes(image, depth, word="depth", path=self.files.path(pair.depth))
        return {"image": image, "depth": depth, "intrinsics": self.camera(index, image.shape[:2])}

    def camera(self, index: int, size: tuple[int, ...]) -> NDArray[np.float32]:
        """Frame, (H,W) -> (3,3) float32 pinhole matrix."""
        return kinect.COLOUR.matrix(size)

    def _at(self, index: int, error: DataError) -> DataError:
        return DataError(f"{error} (frame {index}, {self.pairs[index].named})")


def room_of(folder: str) -> str:
    """Name of a recording -> its room: 'cafe_0001b' is the second part of a recording of 'cafe_0001'.

    Parts go to the same side of a split.
    """
    return re.sub(r"(?<=_\d{4})[a-z]$", "", folder)
