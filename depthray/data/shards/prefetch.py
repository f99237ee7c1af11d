"""Downloads the shards that steps need one ahead of their first use, in the process that trains.

Loader processes are forked, and storage clients do not survive that: they only read what this process has downloaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

from depthray.data.source import ShardedSource, Source
from depthray.errors import DepthrayError

T = TypeVar("T")


def prefetch(source: Source, items: Sequence[T], *, hold: bool) -> Iterable[T]:
    """Steps or micro-batches of keys in order; where the shards are remote, those they need are downloaded ahead."""
    if not (isinstance(source, ShardedSource) and source.remote):
        return items
    return prefetch_shards(source, items, _FramesOf(items), hold=hold)


class _FramesOf(Iterable[list[int]]):
    """The frames of each item, made anew whenever they are gone through."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[list[int]]:
        return map(_indices, iter(self._items))


def _indices(keys: Any) -> list[int]:
    """The frames of a key, or of nested lists of keys."""
    return [index for part in keys for index in _indices(part)] if isinstance(keys, list) else [keys[1]]


def prefetch_shards(
    source: ShardedSource, items: Sequence[T], frames: Iterable[list[int]], *, hold: bool
) -> Iterator[T]:
    """The items in order; when one is yielded, the download of the first shard beyond those of its frames has begun.

    With `hold` an item is only yielded once the shards of its own frames are open in this process.
    """
    # In order of first use, found as far ahead as the first shard that is not needed yet: never for the whole epoch.
    later = _unique(number for need in _needs(source, frames) for number in need)
    # One worker thread: a second download would slow the one that is needed next.
    seen: set[int] = set()
    submitted = 0
    pool = ThreadPoolExecutor(1, thread_name_prefix="depthray-fetch")
    try:
        for item, need in zip(items, _needs(source, frames), strict=True):
            seen.update(need)
            for number in islice(later, len(seen) + 1 - submitted):
                pool.submit(_download, source, number)
                submitted += 1
            if hold:
                source.hold(need)
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an epoch that is abandoned must not wait for a download


def _needs(source: ShardedSource, frames: Iterable[list[int]]) -> Iterator[list[int]]:
    """The shards of each item, once each, in the order of its frames."""
    numbers = source.shard_numbers
    return (list(dict.fromkeys(numbers[each].tolist())) for each in frames)


def _unique(numbers: Iterable[int]) -> Iterator[int]:
    seen: set[int] = set()
    for number in numbers:
        if number not in seen:
            seen.add(number)
            yield number


def _download(source: ShardedSource, number: int) -> None:
    with suppress(DepthrayError):  # reading the shard raises the same error, in the thread that can report it
        source.download(number)
