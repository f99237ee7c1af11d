"""NYU Depth V2 as sparse-to-dense and FastDepth hand it out: a small HDF5 file a frame, depth in float metres.

`train/<recording>/00001.h5` and `val/official/00001.h5`, each with `rgb` (3,H,W) uint8 and `depth` (H,W) float32.
`val/official` are the 654 frames of the official test set, so they are declared test frames, not validation frames.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.data import encodings
from depthray.data.sources import Frame, refuse_encoding
from depthray.data.sources._hdf5 import open_file, reading
from depthray.data.sources._images import refuse_unlike_sizes
from depthray.data.sources._pairs import HINT, room_of
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.sections import Data

ENCODING = "float_m"
PARTS = ("train", "val")
FILES = "*/[0-9]*.h5"
OFFICIAL = "official"


def open_source(section: Data) -> S2d:
    """The folders `train` and `val` at `section.root`."""
    refuse_encoding(section)
    if not section.root:
        raise DataError("data.root is empty: say where the data lies with --data PATH")
    return S2d(Path(section.root))


def fits(root: Path) -> bool:
    """Whether there is a file of a frame in the folder of a recording."""
    return any(any((root / part).glob(FILES)) for part in PARTS)


class S2d:
    """A data set of one file a frame. See `depthray.data.sources.Source`."""

    keys = frozenset({"image", "depth"})

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names = [str(path.relative_to(root)) for part in PARTS for path in sorted((root / part).glob(FILES))]
        if not self._names:
            raise DataError(f"{root}: no train/<recording>/00001.h5 there, nor val/official/00001.h5")
        self.frames = [_frame(Path(name)) for name in self._names]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the files are called and how long they are."""
        digest = sha256(ENCODING.encode())
        for index, name in enumerate(self._names):
            try:
                digest.update(f"{name}:{os.stat(self._root / name).st_size}".encode())
            except OSError as error:
                raise DataError(f"{self._root / name}: {error.strerror}; {HINT} (frame {index})") from None
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read one frame."""
        frame, path = self.frames[index], self._root / self._names[index]
        try:
            rgb, stored = _arrays(path)
            depth = encodings.decode(stored, ENCODING, where=str(path))
            image = np.ascontiguousarray(rgb.transpose(1, 2, 0))
            refuse_unlike_sizes(image, depth, word="depth", path=path)
        except DataError as error:
            raise DataError(f"{error} (frame {index})") from None
        return {"image": image, "depth": depth, "id": frame.id, "scene": frame.scene, "source": frame.source}

    def faults(self, index: int) -> list[str]:
        """Values of depth that are taken for unmeasured though they are not 0."""
        path = self._root / self._names[index]
        odd = encodings.odd_values(_arrays(path)[1])
        return [f"{path}: {odd} values, read as unmeasured"] if odd else []


def _arrays(path: Path) -> tuple[Any, Any]:
    """The file of a frame -> (3,H,W) uint8 colour, depth as stored."""
    with reading(path), open_file(path) as file:
        rgb, depth = (np.asarray(file[name][()]) for name in ("rgb", "depth"))
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[0] != 3:
        raise DataError(f"{path}: rgb is {rgb.dtype} {rgb.shape}, wanted uint8 (3, H, W)")
    return rgb, depth


def _frame(name: Path) -> Frame:
    part, folder = name.parts[0], name.parent.name
    split = "test" if (part, folder) == ("val", OFFICIAL) else part
    return Frame(str(name.with_suffix("")), room_of(folder), split=split, source="s2d")
