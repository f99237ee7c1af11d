"""MODEST Museum: file_map.txt (names by tab, without suffix) and the folders bg, bg_fg, bg_fg_mask, bg_fg_depth_map.

Every image is a background, one person in front of it and a placement, and the set has all combinations, so that frames
held out at random have been seen in training except for the placement. Here a share of the backgrounds and the same
share of the persons is held out (data.val_fraction, at least one of each, chosen by data.split_seed). Frames with both
held out are val, frames with neither are train, and the rest, half seen, is left out: with 0.1 held out, 81 % of the
images train, 1 % validate and 18 % are left out. A scene is a background.

Depth is 8 bits over 10 m, predicted by another network. Masks are JPEG and thresholded at half. Sets of one's own
pictures, which `depthray data composite` makes, have masks in PNG, and depth in 16-bit PNG in millimetres or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthray.data.readers.files import GREY, Pixels, data_root, read_text
from depthray.data.readers.frame_files import FrameFiles, FrameRow
from depthray.data.source import Frame, keys_to_read, refuse_encoding
from depthray.errors import DataError

if TYPE_CHECKING:
    from depthray.config.sections import Data

MAP = "file_map.txt"
FOLDERS = {"background": "bg", "image": "bg_fg", "mask": "bg_fg_mask", "depth": "bg_fg_depth_map"}  # as the columns
BOXES = "bbox.txt"  # file of a composite, then x, y, width, height of the person in pixels, by tab; not read here
SUFFIX = ".jpeg"  # the list leaves it out
LOSSLESS = ".png"  # the list has it
ENCODING, LOSSLESS_ENCODING = "uint8_10m", "uint16_mm"


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
    keys = tuple(key for key in FOLDERS if key in ("image", "depth") or key in keys_to_read(section))
    last = lines[0][len(FOLDERS) - 1 :] if lines else []  # the depth of the first image, if the set has any
    roles = keys if last else tuple(key for key in keys if key != "depth")
    rows = list(_rows(lines, roles, held))
    left_out = len(lines) - len(rows)
    note = f"{left_out} images left out: either their background or their person is held out, not both"
    notes = [note] if left_out else []
    encoding = LOSSLESS_ENCODING if last and last[0].endswith(LOSSLESS) else ENCODING
    return ModestMuseum(root, rows, roles=roles, keys=frozenset(keys), encoding=encoding, notes=notes)


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

    def depth(self, index: int) -> NDArray[np.float32]:
        """Frame -> (H,W) float32 metres; 0 throughout where the set has no depth."""
        return super().depth(index) if "depth" in self.roles else self.stored_depth(index).astype(np.float32)

    def stored_depth(self, index: int) -> Pixels:
        """Frame -> (H,W) depth as stored, in 8 bits or 16; 0 where the set has no depth"""
        if "depth" not in self.roles:
            return np.zeros_like(self.files.load(self.file(index, "image"), GREY))
        name = self.file(index, "depth")
        return self.files.load(name, cv2.IMREAD_UNCHANGED if name.endswith(LOSSLESS) else GREY)


def _rows(lines: list[list[str]], roles: tuple[str, ...], held: list[set[str]]) -> Iterator[FrameRow]:
    for line in lines:
        background, person = _identities(line[1])
        unseen = {background in held[0], person in held[1]}
        if len(unseen) == 1:  # both parts held out, or neither
            split = "val" if unseen == {True} else "train"
            stems = dict(zip(FOLDERS, line, strict=False))  # without the last one where there is no depth
            files = tuple(f"{FOLDERS[role]}/{_file_name(stems[role])}" for role in roles)
            yield FrameRow(Frame(stems["image"], background, split, "modest"), files)


def _lines(path: Path) -> Iterator[list[str]]:
    count = 0  # names in a line: all lines have the depth, or none
    for number, line in enumerate(read_text(path).splitlines(), 1):
        stems = line.split("\t")
        count = count or (3 if len(stems) == 3 else len(FOLDERS))
        if line and (len(stems) != count or len(stems[1].split("_")) < 3):
            raise DataError(
                f"{path}: line {number} is not {count} names by tab, as bg001 bg001_fg001_01 ...: '{line[:80]}'"
            )
        if line:
            yield stems


def _file_name(name: str) -> str:
    return name if name.endswith(LOSSLESS) else f"{name}{SUFFIX}"


def _identities(stem: str) -> tuple[str, str]:
    """bg001_fg001_01 -> bg001, fg001."""
    background, person, *_ = stem.split("_")
    return background, person
