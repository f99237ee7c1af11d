"""Frames that are a few files each: the common part of all forms of data sets made of single files."""

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
    """One frame: its files by role, relative to the root, and what its list has about it."""

    frame: Frame
    files: tuple[str, ...]
    named: str = ""  # where the frame is listed, for errors: "nyu2_train.csv line 3"
    camera: tuple[str, ...] = ()  # its listed camera, as text


class FrameFiles:
    """A data set of colour and depth files; a form adds what else it has. See `depthray.data.source.Source`."""

    called: Mapping[str, str] = {"image": "rgb"}  # the users' name for the file of a key, where it differs
    declared = False  # whether the recipe declares the encoding of depth, not the form
    # One a form, and never changed: checkpoints record fingerprints, so that a class may be renamed, but not this.
    fingerprint_tag = "FrameFiles"

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
        self.roles = roles  # of the files of a row, in their order
        self.notes = list(notes)  # the frames that were left out, and why
        self._encoding = encoding
        self._facts = facts  # anything else that decides how frames are read, for the fingerprint

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the frames, of how they are read, and of the names and sizes of their files."""
        digest = sha256(repr((self.fingerprint_tag, self._encoding, self.roles, self._facts)).encode())
        for index, row in enumerate(self.rows):
            try:
                # Sizes, not contents: hashing all files of a data set before training would take hours.
                sizes = [self.files.size(name) for name in row.files]
            except DataError as error:
                raise self._name_row(index, error) from None
            digest.update(f"({_row_text(row)}, {sizes!r})".encode())
        return digest.hexdigest()

    def read(self, index: int) -> Sample:
        """Read the files of one frame."""
        frame = self.frames[index]
        try:
            sample = self.arrays(index)
            self.check_sizes(index, sample)
        except DataError as error:
            raise self._name_row(index, error) from None
        return cast("Sample", {**sample, "id": frame.id, "scene": frame.scene, "source": frame.source})

    def faults(self, index: int) -> list[str]:
        """None: integers have no odd values, and other forms mark pixels as unmeasured on purpose."""
        return []

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        return {"image": self.files.colour(self.file(index, "image")), "depth": self.depth(index)}

    def depth(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres, 0 where unmeasured."""
        return self.metres(index, self.stored_depth(index))

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) or (H,W,1) depth as stored, not yet metres"""
        return self.files.load(self.file(index, "depth"))

    def encoding(self, index: int) -> str:
        """Frame -> how its depth is stored, a name of `encodings.ENCODINGS` unless the form has a unit of its own."""
        return self._encoding

    def metres(self, index: int, stored: Pixels) -> NDArray[np.float32]:
        """Frame, its depth as stored -> (H,W) float32 metres."""
        where, encoding = str(self.path(index, "depth")), self.encoding(index)
        # Where the form states the unit, data.encoding is not the key to correct, so the advice is another.
        if not self.declared and stored.ndim > 1:
            refuse_dtype(stored, encoding, where=where)
        return encodings.decode(stored, encoding, where=where)

    def odd_depth(self, index: int) -> list[str]:
        """Frame -> a fault if values of its depth are read as unmeasured although they are not 0."""
        odd = encodings.describe_odd_values(self.stored_depth(index))
        return [f"{self.path(index, 'depth')}: {odd} values, read as unmeasured"] if odd else []

    def file(self, index: int, role: str) -> str:
        """Name of a frame's file."""
        return self.rows[index].files[self.roles.index(role)]

    def path(self, index: int, role: str) -> Path:
        """The path of a frame's file."""
        return self.files.path(self.file(index, role))

    def check_sizes(self, index: int, sample: Mapping[str, Any]) -> None:
        """Raise DataError for a map of another height and width than the image."""
        height, width = sample["image"].shape[:2]
        for key, other in sample.items():
            if key != "intrinsics" and other.shape[:2] != (height, width):
                called, image = (self.called.get(name, name) for name in (key, "image"))
                raise DataError(
                    f"{self.path(index, key)}: size mismatch, {called} is {other.shape[1]}x{other.shape[0]} but "
                    f"{image} is {width}x{height}; resize one of them (depth with nearest neighbour)"
                )

    def _name_row(self, index: int, error: DataError) -> DataError:
        """The error with the line of the list that named the files, which is what a user can correct."""
        named = self.rows[index].named
        return DataError(f"{error} (frame {index}, {named})") if named else error


def _row_text(row: FrameRow) -> str:
    """A row as text for the fingerprint, without where it is listed: the same frames may be listed in another file."""
    # The words in it are those of the first version: changed, every checkpoint would refuse its own data.
    return f"Row(frame={frame_text(row.frame)}, files={row.files!r}, named='', camera={row.camera!r})"


def refuse_dtype(stored: Pixels, encoding: str, *, where: str) -> None:
    """Raise DataError for depth of another dtype than the form of its data set has."""
    declared = encodings.find(encoding)
    assert declared is not None, encoding  # a form of data set names its own
    if stored.dtype.name not in declared.dtypes:
        raise DataError(
            f"{where}: depth is stored as {stored.dtype.name}, but in this form of data set it is "
            f"{' or '.join(declared.dtypes)}, {declared.about}; name the form it really has with data.source"
        )
