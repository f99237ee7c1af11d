"""MODEST Museum: file_map.txt (names by tab, without suffix) and the folders bg, bg_fg, bg_fg_mask, bg_fg_depth_map.

Every image is a background, one person in front of it and a placement, and the set has all combinations, so that frames
held out at random have been seen in training except for the placement. Here a share of the backgrounds and the same
share of the persons is held out (data.val_fraction, at least one of each, chosen by data.split_seed). Frames with both
held out are val, frames with neither are train, and the rest, half seen, is left out: with 0.1 held out, 81 % of the
images train, 1 % validate and 18 % are left out. A scene is a background.

Depth is 8 bits over 10 m, predicted by another network. Masks are JPEG and thresholded at half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depthray.data.readers.files import GREY, Pixels, data_root, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

MAP = "file_map.txt"
FOLDERS = {"background": "bg", "image": "bg_fg", "mask": "bg_fg_mask", "depth": "bg_fg_depth_map"}  # as the columns
SUFFIX = ".jpeg"  # the list leaves it out
ENCODING = "uint8_10m"


def open_source(section: Data) -> ModestMuseum:
    """The images at `section.root` that are on a side of the split."""
    refuse_encoding(section)
    root = data_root(section)
    lines = list(_lines(root / MAP))
    held = [
        choose_held_out(
            {_identities(line[1])[part] for line in lines}, section.val_fraction, f"{section.split_seed}/{name}"
        )
        for part, name in enumerate(("background", "person"))
    ]
    roles = tuple(key for key in FOLDERS if key in ("image", "depth") or key in keys_to_read(section))
    rows = list(_rows(lines, roles, held))
    left_out = len(lines) - len(rows)
    note = f"{left_out} images left out: either their background or their person is held out, not both"
    notes = [note] if left_out else []
    return ModestMuseum(root, rows, roles=roles, keys=frozenset(roles), encoding=ENCODING, notes=notes)


def fits(root: Path) -> bool:
    """Whether the folder has the list of files."""
    return (root / MAP).is_file()


def choose_held_out(identities: Iterable[str], share: float, salt: str) -> set[str]:
    """A share of the identities, the first in the order of a hash; at least one and never all, but none for 0."""
    # By hash, so that further identities move few of the others to another side.
    order = sorted(set(identities), key=lambda identity: sha256(f"{salt}/{identity}".encode()).digest())
    if share == 0 or len(order) < 2:
        return set()
    # At least one on each side, however small the share or the set.
    return set(order[: min(max(round(share * len(order)), 1), len(order) - 1)])


class ModestMuseum(FrameFiles):
    """The images. See `depthray.data.source.Source`."""

    fingerprint_tag = "Museum"  # the class's name when fingerprints were first recorded

    def arrays(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, by key."""
        arrays = super().arrays(index)
        if "background" in self.roles:
            arrays["background"] = self.files.colour(self.file(index, "background"))
        if "mask" in self.roles:
            # JPEG smears the mask's 0 and 255, so its threshold is the middle.
            arrays["mask"] = (self.files.load(self.file(index, "mask"), GREY) > 127).astype(np.uint8)
        return arrays

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) depth as stored, in 8 bits"""
        return self.files.load(self.file(index, "depth"), GREY)


def _rows(lines: list[list[str]], roles: tuple[str, ...], held: list[set[str]]) -> Iterator[FrameRow]:
    for line in lines:
        background, person = _identities(line[1])
        unseen = {background in held[0], person in held[1]}
        if len(unseen) == 1:  # both parts held out, or neither
            split = "val" if unseen == {True} else "train"
            stems = dict(zip(FOLDERS, line, strict=True))
            files = tuple(f"{FOLDERS[role]}/{stems[role]}{SUFFIX}" for role in roles)
            yield FrameRow(Frame(stems["image"], background, split, "modest"), files)


def _lines(path: Path) -> Iterator[list[str]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        stems = line.split("\t")
        if line and (len(stems) != len(FOLDERS) or len(stems[1].split("_")) < 3):
            raise DataError(f"{path}: line {number} is not 4 names by tab, as bg001 bg001_fg001_01 ...: '{line[:80]}'")
        if line:
            yield stems


def _identities(stem: str) -> tuple[str, str]:
    """bg001_fg001_01 -> bg001, fg001."""
    background, person, *_ = stem.split("_")
    return background, person
