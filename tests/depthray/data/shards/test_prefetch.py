"""The next shard of an object store is downloaded while frames of the one before are used, and no other one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from depthray.data.shards.prefetch import prefetch_shards


def test_the_next_shard_is_on_its_way_while_one_is_used() -> None:
    class Shelf:
        remote, shard_numbers = True, np.repeat(np.arange(4), 3)

        def __init__(self) -> None:
            self.downloads: list[int] = []
            self.held: list[int] = []

        def download(self, number: int) -> None:
            self.downloads.append(number)

        def hold(self, numbers: list[int]) -> None:
            self.held += numbers

    shelf: Any = Shelf()
    frames = [[0, 1], [2, 6], [7, 8], [11, 9]]
    states = []
    for item in prefetch_shards(shelf, "abcd", frames, hold=True):
        time.sleep(0.05)
        states.append((item, list(shelf.downloads)))
    assert states == [("a", [0, 2]), ("b", [0, 2, 3]), ("c", [0, 2, 3]), ("d", [0, 2, 3])]
    assert shelf.held == [0, 0, 2, 2, 3]


def test_downloads_look_no_farther_ahead_than_the_next_shard() -> None:
    looked: list[int] = []

    class Frames(list[list[int]]):
        def __iter__(self) -> Iterator[list[int]]:
            for number, each in enumerate(super().__iter__()):
                looked.append(number)
                yield each

    shelf: Any = SimpleNamespace(remote=True, shard_numbers=np.repeat(np.arange(50), 4), download=lambda number: None)
    frames = Frames([[number, number + 1] for number in range(0, 200, 2)])
    next(iter(prefetch_shards(shelf, range(100), frames, hold=False)))
    assert max(looked) == 2  # the first step of the second shard
