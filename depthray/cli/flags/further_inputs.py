"""Inputs of a network other than the photograph: their flags, the file that belongs to an image, its array."""

from __future__ import annotations

import argparse
import glob
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depthray.errors import DataError, UsageError

if TYPE_CHECKING:  # torch takes seconds to import; --help and a wrong flag do without it
    from numpy.typing import NDArray

    from depthray.imaging.photos import PhotoLimits

KINDS = {
    "background": "the scene without its foreground object, for networks that take it",
    "sparse": "measured depth: 16-bit PNG in millimetres or .npy in metres, 0 = unmeasured",
    "semantics": "class ids as PNG or .npy",
    "instances": "instance ids as PNG or .npy",
}


def add_flags(parser: argparse.ArgumentParser, *, metavar: str) -> None:
    """A flag for each kind of further input."""
    for key, about in KINDS.items():
        parser.add_argument(f"--{key}", type=Path, metavar=metavar, help=about)


def given(arguments: argparse.Namespace) -> dict[str, Path]:
    """The paths that the command line gives, by kind."""
    return {key: path for key in KINDS if (path := getattr(arguments, key))}


def check(kinds: Collection[str], inputs: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> None:
    """Raise a UsageError unless these kinds are what a network takes besides the image, `optional` ones or not."""
    for key in inputs:
        if key not in ("image", *optional, *kinds):
            raise UsageError(f"this network needs --{key} as well; its inputs are {', '.join(inputs)}")
    for key in kinds:
        if key not in inputs:
            raise UsageError(f"--{key}: this network does not take it; its inputs are {', '.join(inputs)}")


def find(path: Path, name: Path) -> Path:
    """The file of a further input that belongs to an image: in a folder the one of its name, whatever the suffix."""
    if not path.is_dir():
        return path
    stem = path / name  # by name alone: a photograph is a JPEG, its depth a PNG
    files = sorted(file for file in stem.parent.glob(f"{glob.escape(stem.name)}.*") if file.is_file())
    if len(files) != 1:
        raise DataError(f"{stem}.*: {'several files' if files else 'no file'} for this image; one is needed")
    return files[0]


def read(key: str, path: Path, *, limits: PhotoLimits) -> NDArray[Any]:
    """A file of a further input -> its array; sparse depth as 16-bit PNG in millimetres or float .npy in metres."""
    from depthray.data import encodings
    from depthray.imaging import photos

    if key == "background":
        return photos.read(path, limits=limits)
    stored = photos.read_map(path, limits=limits)
    if key != "sparse":
        return stored
    return encodings.decode(stored, "float_m" if stored.dtype.kind == "f" else "uint16_mm", where=str(path))
