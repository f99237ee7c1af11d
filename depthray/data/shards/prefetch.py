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
    return prefetch_shards(source, items, [_indices(item) for item in items], hold=hold)


def _indices(keys: Any) -> list[int]:
    """The frames of a key, or of nested lists of keys."""
    return [index for part in keys for index in _indices(part)] if isinstance(keys, list) else [keys[1]]


def prefetch_shards(
    source: ShardedSource, items: Sequence[T], frames: Sequence[list[int]], *, hold: bool
) -> Iterator[T]:
    """The items in order; when one is yielded, the download of the first shard beyond those of its frames has begun.

    With `hold` an item is only yielded once the shards of its own frames are open in this process.
    """
    numbers = source.shard_numbers
    # The shards of each item, once each, in the order of its frames.
    needs = [list(dict.fromkeys(numbers[each].tolist())) for each in frames]
    # In order of first use. One worker thread: a second download would slow the one that is needed next.
    later = iter(dict.fromkeys(number for need in needs for number in need))
    seen: set[int] = set()
    submitted = 0
    pool = ThreadPoolExecutor(1, thread_name_prefix="depthray-fetch")
    try:
        for item, need in zip(items, needs, strict=True):
            seen.update(need)
            for number in islice(later, len(seen) + 1 - submitted):
                pool.submit(_download, source, number)
                submitted += 1
            if hold:
                source.hold(need)
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an epoch that is abandoned must not wait for a download


def _download(source: ShardedSource, number: int) -> None:
    with suppress(DepthrayError):  # reading the shard raises the same error, in the thread that can report it
        source.download(number)
