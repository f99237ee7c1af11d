"""The labelled part of NYU Depth V2, `nyu_depth_v2_labeled.mat`, with depth as it was measured (`rawDepths`).

1449 frames with class and instance ids. MATLAB stores columns first, so every array in the file is transposed.
`splits.mat` next to it declares the official 795 training and 654 test frames, counted from 1; without it, no side is
declared. The white border of the images is kept. For depth with its holes filled, see nyu_mat_filled.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers import kinect, mat5
from depthray.data.readers.files import data_root
from depthray.data.readers.hdf5 import Hdf5, is_hdf5, open_file, translate_hdf5_errors
from depthray.data.source import DataTerms, Frame, frame_text, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

TERMS = {"nyu": DataTerms("indoors", "none stated by its publisher")}
NAME = "nyu_depth_v2_labeled.mat"
SPLITS = "splits.mat"
SIDES = {"train": "trainNdxs", "test": "testNdxs"}
MEASURED, FILLED = "rawDepths", "depths"
ENCODING = "float_m"
IDS = {"semantics": "labels", "instances": "instances"}


def open_source(section: Data) -> NyuMat:
    """The .mat file at `section.root`, or in it, with depth as measured."""
    return open_mat(section, depth=MEASURED)


def open_mat(section: Data, *, depth: str) -> NyuMat:
    """The .mat file at `section.root`, or in it; `depth` is the variable of the file to read."""
    refuse_encoding(section)
    root = data_root(section)
    return NyuMat(root / NAME if root.is_dir() else root, depth, keys_to_read(section))


def fits(root: Path) -> bool:
    """Whether the path is the file or a folder with it, and the file is one of MATLAB 7.3."""
    path = root / NAME if root.is_dir() else root
    return path.suffix == ".mat" and is_hdf5(path)


class NyuMat:
    """The labelled part. See `depthray.data.source.Source`."""

    def __init__(self, path: Path, depth: str, keys: frozenset[str]) -> None:
        self._mat, self._depth = Hdf5(path), depth
        # Opened for this and closed again: an open file must not be inherited by a fork.
        with translate_hdf5_errors(path), open_file(path) as file:
            self._shapes = {name: file[name].shape for name in ("images", depth, *IDS.values()) if name in file}
            _check_shapes(self._shapes, path, depth)
            scenes = _texts(file, "scenes")
        self._ids = {key: name for key, name in IDS.items() if name in self._shapes and key in keys}
        self.keys = frozenset({"image", "depth", "intrinsics", *self._ids})
        self.frames = _frames(scenes, self._shapes["images"][0], path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, of the variable that is read, and of the name and size of the file."""
        path = self._mat.path
        try:
            size = path.stat().st_size
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        # The size, not the content: the file has 2.8 GB.
        frames = ", ".join(map(frame_text, self.frames))
        facts = f"({path.name!r}, {size!r}, {self._depth!r}, {self._shapes!r}, [{frames}])"
        return sha256(facts.encode()).hexdigest()

    def read(self, index: int) -> Sample:
        """Read one frame."""
        frame = self.frames[index]
        # In one piece: a transposed view would make every later operation on it slow.
        image = np.ascontiguousarray(self._array("images", index))
        sample: Sample = {"image": image, "depth": self._metres(index)}
        for key, name in self._ids.items():
            sample[key] = self._array(name, index).astype(np.int32, order="C")  # type: ignore[literal-required]
        sample["intrinsics"] = kinect.COLOUR.matrix(image.shape[:2])
        return {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source}

    def faults(self, index: int) -> list[str]:
        """Values of depth that are read as unmeasured although they are not 0."""
        odd = encodings.describe_odd_values(self.stored_depth(index))
        return [f"{self._where(index)}: {odd} values, read as unmeasured"] if odd else []

    def encoding(self, index: int) -> str:
        """How the depth of a frame is stored."""
        return ENCODING

    def stored_depth(self, index: int) -> NDArray[Any]:
        """Frame -> (H,W) depth as stored, metres with NaN or 0 where unmeasured"""
        return self._array(self._depth, index)

    def _metres(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres"""
        stored = self.stored_depth(index)
        return np.ascontiguousarray(encodings.decode(stored, ENCODING, where=self._where(index)))

    def _array(self, name: str, index: int) -> NDArray[Any]:
        """Variable, frame -> (H,W) or (H,W,C), transposed back"""
        with translate_hdf5_errors(self._mat.path):
            try:
                stored: NDArray[Any] = self._mat.file[name][index]  # one frame: the whole variable has up to 1.8 GB
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"{self._where(index)}: {name} cannot be read: {reason}; download the file again"
                ) from None
        return stored.T

    def _where(self, index: int) -> str:
        return f"{self._mat.path} frame {index}"


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], path: Path, depth: str) -> None:
    """Raise DataError for a file without images and depth, and for variables of different shapes."""
    for name in ("images", depth):
        if name not in shapes:
            raise DataError(f"{path}: no variable '{name}', so not {NAME}")
    count, *channels = shapes["images"]
    if len(channels) != 3 or channels[0] != 3:
        raise DataError(f"{path}: images have shape {shapes['images']}, wanted (frames, 3, width, height)")
    for name, shape in shapes.items():
        if name != "images" and shape != (count, *channels[1:]):
            raise DataError(f"{path}: {name} have shape {shape}, but images {shapes['images']}")


def _texts(file: Any, name: str) -> list[str]:
    """A cell array of texts: MATLAB stores references to arrays of UTF-16 characters."""
    return ["".join(map(chr, file[reference][()].ravel())) for reference in file[name][()].ravel()]


def _frames(scenes: list[str], count: int, path: Path) -> list[Frame]:
    if len(scenes) != count:
        raise DataError(f"{path}: {len(scenes)} scenes for {count} images")
    sides = _sides(path.parent / SPLITS, count)
    return [
        Frame(f"nyu_{number:04d}", scene, split=sides.get(number, ""), source="nyu")
        for number, scene in enumerate(scenes, 1)  # from 1, as splits.mat counts
    ]


def _sides(path: Path, count: int) -> dict[int, str]:
    """splits.mat, if there is one -> side by number of the frame, from 1; each frame has to be on one."""
    if not path.exists():
        return {}
    variables = mat5.read_arrays(path)
    missing = [name for name in SIDES.values() if name not in variables]
    if missing:
        raise DataError(f"{path}: no variable '{missing[0]}'")
    listed = [(number, side) for side, name in SIDES.items() for number in variables[name].tolist()]
    # A split that lacks frames, or lists some twice, was cut off or is of another set.
    if sorted(number for number, _ in listed) != list(range(1, count + 1)):
        raise DataError(
            f"{path}: {' and '.join(SIDES.values())} must hold each of 1 to {count} once; download it again"
        )
    return {int(number): side for number, side in listed}
