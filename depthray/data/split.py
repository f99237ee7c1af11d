"""The split of frames into train, val and test. A scene is never on two sides: its frames look alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from depthray.data.columns.frame_columns import SPLITS, FrameColumns
from depthray.data.columns.selection import Selection
from depthray.data.source import Frame
from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from depthray.config.sections import Data

SIDES = ("train", "val", "test")
AT_ONCE = 1 << 22  # frames whose sides are found in one go

Counts = NDArray[np.int64]  # (scenes, declared splits) frames


class Split(NamedTuple):
    """Frames of each side, by number."""

    train: Selection
    val: Selection
    test: Selection


def split(frames: Sequence[Frame], section: Data) -> Split:
    """Declared sides win; without a declared val, whole scenes are held out. Neither train nor val is ever empty."""
    sides = _sides(FrameColumns.of(frames), section)
    if not sides.val:
        raise DataError(f"no frames to validate on: {_why_no_val(frames, section)}")
    if not sides.train:
        raise DataError("no frames to train on: the index declares all of them val or test")
    return sides


def divide(frames: Sequence[Frame], section: Data) -> Split:
    """As `split`, but any side may be empty."""
    return _sides(FrameColumns.of(frames), section)


def side(frames: Sequence[Frame], section: Data, name: str) -> Selection:
    """The frames of one side, or of 'all', by number; only that side must not be empty."""
    if name not in (*SIDES, "all"):
        raise UsageError(f"no split '{name}'{did_you_mean(name, (*SIDES, 'all'))}")
    if name == "all":
        return Selection.all(len(frames))
    chosen: Selection = getattr(_sides(FrameColumns.of(frames), section), name)
    if not chosen:
        hint = _why_no_val(frames, section) if name == "val" else f"no frame of the index is declared {name}"
        raise DataError(f"split '{name}' has no frames: {hint}; `--split all` takes every frame")
    return chosen


def declared(frames: Sequence[Frame], name: str) -> Selection:
    """The frames that the data set itself declares to be on a side."""
    columns = FrameColumns.of(frames)
    code = list(columns.splits).index(name)
    return Selection.of_masks(columns.split[part] == code for part in _parts(columns))


def count_scenes(frames: Sequence[Frame], chosen: Selection) -> int:
    """The number of scenes that some frames are of."""
    columns = FrameColumns.of(frames)
    seen = np.zeros(len(columns.scenes), np.bool_)
    for part in _parts(columns):
        seen[columns.scene[part][chosen.mask(part.start, part.stop)]] = True
    return int(seen.sum())


def overlaps(frames: Sequence[Frame]) -> dict[str, list[str]]:
    """Scenes whose frames are declared to be on more than one side, with those sides."""
    columns = FrameColumns.of(frames)
    return _overlaps(columns, _count(columns))


def _overlaps(columns: FrameColumns, counts: Counts) -> dict[str, list[str]]:
    there = counts > 0
    there[:, SPLITS.index("train")] |= there[:, 0]  # an undeclared frame trains
    there[:, 0] = False
    return {
        columns.scenes[scene]: sorted(columns.splits[code] for code in np.flatnonzero(there[scene]).tolist())
        for scene in np.flatnonzero(there.sum(axis=1) > 1).tolist()
    }


def _sides(columns: FrameColumns, section: Data) -> Split:
    counts = _count(columns)
    _refuse_bad_declaration(columns, counts)
    # By scene and declaration. An undeclared frame trains, so that an index without splits can be used as it is.
    sides = np.tile(np.array([SIDES.index(name or "train") for name in SPLITS], np.int8), (len(counts), 1))
    if not counts[:, SPLITS.index("val")].any():
        sides[_hold_out(columns, counts, section)] = SIDES.index("val")
    flat, width = sides.ravel(), len(SPLITS)
    parts = (flat[columns.scene[part] * np.int64(width) + columns.split[part]] for part in _parts(columns))
    return Split(*Selection.by_value(parts, len(SIDES)))


def _refuse_bad_declaration(columns: FrameColumns, counts: Counts) -> None:
    if counts[:, len(SPLITS) :].any():
        first = next(
            part.start + int(np.argmax(unknown))
            for part in _parts(columns)
            if (unknown := columns.split[part] >= len(SPLITS)).any()
        )
        name = columns.splits[int(columns.split[first])]
        raise DataError(f"frame '{columns.ids[first]}': unknown split '{name}'{did_you_mean(name, SIDES)}")
    for scene, sides in _overlaps(columns, counts).items():
        raise DataError(f"scene '{scene}' is declared {' and '.join(sides)}: a scene must be on one side of the split")


def _hold_out(columns: FrameColumns, counts: Counts, section: Data) -> list[int]:
    """The numbers of the scenes to hold out."""
    trained = _trained(counts)
    numbers = np.flatnonzero(trained).tolist()
    names = [columns.scenes[number] for number in numbers]
    held = _choose(dict(zip(names, trained[numbers].tolist(), strict=True)), section)
    return [number for number, name in zip(numbers, names, strict=True) if name in held]


def _trained(counts: Counts) -> NDArray[np.int64]:
    """(scenes,) frames that are not for testing: those that are neither train nor are held out, so do not count."""
    return np.asarray(counts.sum(axis=1) - counts[:, SPLITS.index("test")])


def _choose(scenes: dict[str, int], section: Data) -> set[str]:
    """Scenes in the order of a hash, as long as they fit into val_fraction of the frames; at least the smallest one."""
    if len(scenes) < 2 or section.val_fraction == 0:
        return set()
    # A hash, not a shuffle: a scene that is added later moves few others to the other side.
    order = sorted(scenes, key=lambda scene: sha256(f"{section.split_seed}/{scene}".encode()).digest())
    left = section.val_fraction * sum(scenes.values())  # frames that may still be held out
    held: set[str] = set()
    for scene in order[:-1]:  # even with val_fraction=1 something is left to train on
        if scenes[scene] <= left + 1e-9:  # the product above may be just below a whole number
            held.add(scene)
            left -= scenes[scene]
    # No scene fits into the fraction: the smallest exceeds it least.
    return held or {min(order, key=lambda scene: scenes[scene])}


def _why_no_val(frames: Sequence[Frame], section: Data) -> str:
    if section.val_fraction == 0:
        return "data.val_fraction is 0 and the index declares no val frames"
    count = int((_trained(_count(FrameColumns.of(frames))) > 0).sum())
    return f"whole scenes are held out, and there is {count} scene; declare a `split` column or add more scenes"


def _count(columns: FrameColumns) -> Counts:
    """The frames of each scene and declaration."""
    shape = (len(columns.scenes), len(columns.splits))
    counts = np.zeros(shape[0] * shape[1], np.int64)
    for part in _parts(columns):
        kinds = columns.scene[part].astype(np.int64) * shape[1] + columns.split[part]
        if kinds.min() < 0 or kinds.max() >= len(counts):
            raise DataError("scenes or splits in the index of the data set are damaged; write it anew")
        counts += np.bincount(kinds, minlength=len(counts))
    return counts.reshape(shape)


def _parts(columns: FrameColumns) -> Iterator[slice]:
    """Slices of the frames: what is computed of all at once would take as much memory as a table of them."""
    for start in range(0, len(columns), AT_ONCE):
        yield slice(start, min(start + AT_ONCE, len(columns)))
