"""Frames that are a few files each: what all forms of data sets made of single files have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from depthray.data import encodings
from depthray.data.readers.files import HINT, Files, Pixels
from depthray.data.source import Frame, frame_text
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.batch import Sample

PAIR = ("image", "depth")


class FrameRow(NamedTuple):
    """One frame: its files by role, relative to the root, and what a list says of it."""

    frame: Frame
    files: tuple[str, ...]
    named: str = ""  # where the frame is listed, for errors: "nyu2_train.csv line 3"
    camera: tuple[str, ...] = ()  # what is listed of its camera, as it is written


class FrameFiles:
    """A data set of colour and depth files; a form adds what else it has. See `depthray.data.source.Source`."""

    called: Mapping[str, str] = {"image": "rgb"}  # what users call the file of a key, where it is another word
    declared = False  # whether the recipe declares the encoding of depth, not the form
    fingerprint_tag = (
        "FrameFiles"  # fixed per form: checkpoints record fingerprints, so a class may be renamed, not this
    )

    def __init__(
        self,
        root: Path,
        rows: Sequence[FrameRow],
        *,
        keys: frozenset[str],
        encoding: str,
        roles: tuple[str, ...] = PAIR,
        facts: str = "",
        notes: Sequence[str] = (),
        hint: str = HINT,
    ) -> None:
        self.keys = keys
        self.rows = rows
        self.frames = [row.frame for row in rows]
        self.files = Files(root, hint=hint)
        self.roles = roles  # what each file of a row is
        self.notes = list(notes)  # what was left out, and why
        self._encoding = encoding
        self._facts = facts  # what else decides how frames are read, for the fingerprint

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, of how they are read, of what their files are called and how long they are."""
        digest = sha256(repr((self.fingerprint_tag, self._encoding, self.roles, self._facts)).encode())
        for index, row in enumerate(self.rows):
            try:
                sizes = [self.files.size(name) for name in row.files]
            except DataError as error:
                raise self._at(index, error) from None
            digest.update(f"({_row_text(row)}, {sizes!r})".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        frame = self.frames[index]
        try:
            sample = self.arrays(index)
            self.refuse_unlike_sizes(index, sample)
        except DataError as error:
            raise self._at(index, error) from None
        return cast("Sample", {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source})

    def faults(self, index: int) -> list[str]:
        """None: no whole number is odd, and other forms mark as unmeasured on purpose."""
        return []

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        return {"image": self.files.colour(self.file(index, "image")), "depth": self.depth(index)}

    def depth(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres, 0 where unmeasured."""
        return self.metres(index, self.stored_depth(index))

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> depth in the numbers its file holds."""
        return self.files.load(self.file(index, "depth"))

    def encoding(self, index: int) -> str:
        """Frame -> how its depth is stored, a name of `encodings.ENCODINGS` unless the form has a unit of its own."""
        return self._encoding

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its depth as stored -> (H,W) float32 metres."""
        where, encoding = str(self.path(index, "depth")), self.encoding(index)
        if not self.declared and stored.ndim > 1:
            refuse_dtype(stored, encoding, where=where)
        return encodings.decode(stored, encoding, where=where)

    def odd_depth(self, index: int) -> list[str]:
        """Frame -> which values of its depth are taken for unmeasured though they are not 0, as `faults` tells it."""
        odd = encodings.describe_odd_values(self.stored_depth(index))
        return [f"{self.path(index, 'depth')}: {odd} values, read as unmeasured"] if odd else []

    def file(self, index: int, role: str) -> str:
        """Name of a frame's file."""
        return self.rows[index].files[self.roles.index(role)]

    def path(self, index: int, role: str) -> Path:
        """Where a frame's file lies."""
        return self.files.path(self.file(index, role))

    def refuse_unlike_sizes(self, index: int, sample: Mapping[str, Any]) -> None:
        """Refuse a map of another height and width than the image."""
        height, width = sample["image"].shape[:2]
        for key, other in sample.items():
            if key != "intrinsics" and other.shape[:2] != (height, width):
                word, image = (self.called.get(name, name) for name in (key, "image"))
                raise DataError(
                    f"{self.path(index, key)}: size mismatch, {word} is {other.shape[1]}x{other.shape[0]} but {image} "
                    f"is {width}x{height}; resize one of them (depth with nearest neighbour)"
                )

    def _at(self, index: int, error: DataError) -> DataError:
        named = self.rows[index].named
        return DataError(f"{error} (frame {index}, {named})") if named else error


def _row_text(row: FrameRow) -> str:
    """A row as text for the fingerprint, without where it is listed: the same frames may be listed in another file."""
    return f"Row(frame={frame_text(row.frame)}, files={row.files!r}, named='', camera={row.camera!r})"


def refuse_dtype(stored: Pixels, encoding: str, *, where: str) -> None:
    """Refuse depth of another dtype than the form of its data set has."""
    known = encodings.ENCODINGS[encoding]
    if stored.dtype.name not in known.dtypes:
        raise DataError(
            f"{where}: depth is stored as {stored.dtype.name}, but in this form of data set it is "
            f"{' or '.join(known.dtypes)}, {known.about}; name the form it really has with data.source"
        )
