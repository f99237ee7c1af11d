"""The split of frames into train, val and test. A scene is never on two sides: its frames look alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from depthray.data.source import Frame
from depthray.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from depthray.config.sections import Data

SIDES = ("train", "val", "test")


class Split(NamedTuple):
    """Indices of frames, ascending."""

    train: list[int]
    val: list[int]
    test: list[int]


def split(frames: Sequence[Frame], section: Data) -> Split:
    """Declared sides win; without a declared val, whole scenes are held out. Neither train nor val is ever empty."""
    sides = _sides(frames, section)
    if not sides.val:
        raise DataError(f"no frames to validate on: {_why_no_val(frames, section)}")
    if not sides.train:
        raise DataError("no frames to train on: the index declares all of them val or test")
    return sides


def side(frames: Sequence[Frame], section: Data, name: str) -> list[int]:
    """The indices of the frames of one side, or of 'all'; only that side must not be empty."""
    if name not in (*SIDES, "all"):
        raise UsageError(f"no split '{name}'{did_you_mean(name, (*SIDES, 'all'))}")
    if name == "all":
        return list(range(len(frames)))
    chosen: list[int] = getattr(_sides(frames, section), name)
    if not chosen:
        hint = _why_no_val(frames, section) if name == "val" else f"no frame of the index is declared {name}"
        raise DataError(f"split '{name}' has no frames: {hint}; `--split all` takes every frame")
    return chosen


def overlaps(frames: Sequence[Frame]) -> dict[str, list[str]]:
    """Scenes whose frames are declared to be on more than one side, with those sides."""
    declared: dict[str, set[str]] = defaultdict(set)
    for frame in frames:
        declared[frame.scene].add(frame.split or "train")
    return {scene: sorted(sides) for scene, sides in declared.items() if len(sides) > 1}


def _sides(frames: Sequence[Frame], section: Data) -> Split:
    _refuse_bad_declaration(frames)
    if not any(frame.split == "val" for frame in frames):
        frames = _hold_out(frames, section)
    # An undeclared frame trains, so that an index without a split column can be used as it is.
    return Split(*([i for i, frame in enumerate(frames) if (frame.split or "train") == name] for name in SIDES))


def _refuse_bad_declaration(frames: Sequence[Frame]) -> None:
    for frame in frames:
        if frame.split not in ("", *SIDES):
            raise DataError(f"frame '{frame.id}': unknown split '{frame.split}'{did_you_mean(frame.split, SIDES)}")
    for scene, sides in overlaps(frames).items():
        raise DataError(f"scene '{scene}' is declared {' and '.join(sides)}: a scene must be on one side of the split")


def _hold_out(frames: Sequence[Frame], section: Data) -> list[Frame]:
    scenes: dict[str, int] = defaultdict(int)
    for frame in frames:
        if frame.split != "test":  # test frames are neither trained nor held out, so they do not count
            scenes[frame.scene] += 1
    held = _choose(scenes, section)
    return [frame._replace(split="val") if frame.scene in held else frame for frame in frames]


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
    count = len({frame.scene for frame in frames if frame.split != "test"})
    return f"whole scenes are held out, and there is {count} scene; declare a `split` column or add more scenes"
