"""What every form of a data set promises, each promise a function of something that opens one."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from depthray.batch import STRINGS, collate
from depthray.data.source import ALWAYS, Source
from depthray.testing.expect import expect

Open = Callable[[], Source]


def a_sample_agrees_with_the_index(open_it: Open) -> None:
    """Keys, ids, dtypes and sizes of the first and the last frame."""
    source = open_it()
    for index in (0, len(source.frames) - 1):
        _check_sample(source.read(index), source.frames[index], source.keys)


def _check_sample(sample: Any, frame: Any, keys: frozenset[str]) -> None:
    wanted = set(keys) | set(STRINGS)
    expect(set(sample) == wanted, f"read gives {sorted(sample)}, keys and id, scene, source are {sorted(wanted)}")
    names = tuple(sample[key] for key in STRINGS)
    expect(names == (frame.id, frame.scene, frame.source), f"sample {names} is not {frame}")
    image, depth = sample["image"], sample["depth"]
    expect(image.dtype == np.uint8, f"image is {image.dtype}, not uint8")
    expect(depth.dtype == np.float32, f"depth is {depth.dtype}, not float32 metres")
    expect(image.shape == (*depth.shape, 3), f"image is {image.shape}, depth {depth.shape}: give (H,W,3) and (H,W)")
    expect(bool((depth >= 0).all()), "depth is below 0 or NaN somewhere: unmeasured is 0")


def reading_twice_and_elsewhere_gives_the_same(open_it: Open) -> None:
    """In any order, and from a pickled copy, as loader processes do."""
    source = open_it()
    source.read(0)  # opens what is opened lazily
    copied = pickle.loads(pickle.dumps(source))  # noqa: S301 - it was pickled in this line
    for index in (len(source.frames) - 1, 0, len(source.frames) - 1):
        one: dict[str, Any] = {**source.read(index)}
        other: dict[str, Any] = {**copied.read(index)}
        for key in source.keys:
            expect(np.array_equal(one[key], other[key]), f"'{key}' of frame {index} differs in a pickled copy")


def a_sample_belongs_to_its_reader(open_it: Open) -> None:
    """Augmentation changes samples in place."""
    source = open_it()
    before = {key: source.read(0)[key].copy() for key in source.keys}  # type: ignore[literal-required]
    for key in source.keys:
        source.read(0)[key][:] = 0  # type: ignore[literal-required]
    for key in source.keys:
        same = np.array_equal(source.read(0)[key], before[key])  # type: ignore[literal-required]
        expect(same, f"'{key}' of a frame changes when a sample that was read is changed: return a copy")


def samples_collate(open_it: Open) -> None:
    """Into a batch (B,C,H,W)."""
    source = open_it()
    count = min(3, len(source.frames))
    batch = collate([source.read(index) for index in range(count)])
    expect(batch["image"].shape[:2] == (count, 3) and batch["depth"].shape[:2] == (count, 1), "samples do not collate")


def the_fingerprint_is_that_of_the_frames(open_it: Open) -> None:
    """64 hexadecimal digits, the same each time the data set is opened."""
    fingerprint = open_it().fingerprint
    expect(len(fingerprint) == 64, f"fingerprint '{fingerprint}' is not a SHA-256 of 64 digits")
    expect(open_it().fingerprint == fingerprint, "the fingerprint is another one each time: a run could not resume")


def nothing_is_odd_about_good_frames(open_it: Open) -> None:
    """`faults` is for `depthray data check`."""
    faults = open_it().faults(0)
    expect(faults == [], f"faults of frame 0: {faults}")


def keys_are_what_training_needs(open_it: Open) -> None:
    """Image and depth; intrinsics are optional."""
    missing = {"image", "depth"} - open_it().keys
    expect(not missing, f"keys lack {sorted(missing)}; training always reads {', '.join(ALWAYS)}, where they are")


CHECKS: tuple[Callable[[Open], None], ...] = (
    keys_are_what_training_needs,
    a_sample_agrees_with_the_index,
    reading_twice_and_elsewhere_gives_the_same,
    a_sample_belongs_to_its_reader,
    samples_collate,
    the_fingerprint_is_that_of_the_frames,
    nothing_is_odd_about_good_frames,
)
