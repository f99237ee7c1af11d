"""Shards on an object store: indexes are read by themselves, a shard is downloaded completely into the node's cache.

The name of a shard in the cache ends in the SHA-256 of its index, which holds that of every frame: a set that was
packed anew at the same address never uses the files of the old one.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from depthray.data.shards import format
from depthray.data.shards.format import TAIL, Shard
from depthray.data.source import RESTART
from depthray.errors import DataError, ResourceError
from depthray.storage import cache, remote
from depthray.storage.environment import CACHE, CACHE_GB
from depthray.storage.local import replace
from depthray.storage.os_errors import translate_os_errors
from depthray.storage.remote import RemoteFolder

INDEXES_AT_ONCE = 16  # indexes read at a time: each is a wait for the storage


class RemoteShards:
    """The shards below an address, or the one that it names."""

    def __init__(self, url: str) -> None:
        url = remote.normalize_address(url)
        where, _, only = url.rpartition("/") if url.endswith(".h5") else (url, "", "")
        self._folder, self._process = RemoteFolder(where), os.getpid()
        self._cache = cache.node_cache()
        files = self._folder.files()
        # Without subfolders: a set is one folder, as on a disk.
        names = [only] if only else sorted(name for name in files if name.endswith(".h5") and "/" not in name)
        if not names or (only and only not in files):
            raise DataError(f"{url}: no *.h5 shards there; make them with `depthray data pack` and copy them there")
        with ThreadPoolExecutor(INDEXES_AT_ONCE) as threads:
            self.shards = list(threads.map(lambda name: self._read_index(name, files[name]), names))
        self._names = {shard.path: name for shard, name in zip(self.shards, names, strict=True)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickled copy starts its own clients and may download, unlike a fork, which has inherited dead ones.
        self.__dict__.update(state, _process=os.getpid())

    def open(self, shard: Shard) -> int:
        """The shard in the cache, open for reading and safe from removal until it is closed."""
        return self._cache.open(cache.CachedFile(shard.path, shard.stamp[0], lambda path: self._download(shard, path)))

    def refuse_misfit(self, shards: Iterable[Shard]) -> None:
        """Raise ResourceError where the cache cannot hold these shards at once."""
        self._cache.refuse_misfit({shard.path: shard.stamp[0] for shard in shards})

    def _read_index(self, name: str, size: int) -> Shard:
        """A shard's index: from the cache where the checksum in the shard's last bytes is that of the cached one."""
        with format.translate_index_errors(f"{self._folder}/{name}"):
            tail = self._folder.read(name, start=max(size - TAIL.size, 0))
            length, checksum = format.read_tail(tail)
            path = self._cache_path(name, checksum)
            index = _read_cached_index(path.with_suffix(".index"), checksum)
            if not index:
                index = self._folder.read(name, start=max(size - TAIL.size - length, 0))
                _cache_index(path.with_suffix(".index"), index)
            # The size is that of the whole shard, by which positions in it are checked.
            return format.parse_shard(io.BytesIO(index), path, stamp=(size, None))

    def _cache_path(self, name: str, checksum: bytes) -> Path:
        # 16 of 64 digits keep paths short; 64 bits do not meet by chance.
        folder = sha256(self._folder.url.encode()).hexdigest()[:16]
        return self._cache.root / folder / f"{name.removesuffix('.h5')}-{checksum.hex()[:16]}.h5"

    def _download(self, shard: Shard, path: Path) -> None:
        """Download a shard; check that it is complete and the one whose index was read."""
        if os.getpid() != self._process:  # storage clients do not survive a fork; the parent process downloads
            raise ResourceError(f"{shard.path}: gone from the cache while it was used; raise {CACHE_GB}")
        name = self._names[shard.path]
        where = f"{self._folder}/{name}"
        try:
            self._folder.download(name, path)
        except FileNotFoundError:
            raise DataError(f"{where}: no longer there; it was when the data set was opened") from None
        downloaded = format.open_shard(path)
        if downloaded.digests != shard.digests or downloaded.frames != shard.frames:
            raise DataError(f"{where}: changed since the data set was opened; {RESTART}")
        _refuse_damaged(downloaded, where)  # every frame, once: reading from the cache verifies nothing


def _read_cached_index(path: Path, checksum: bytes) -> bytes:
    """The cached end of a shard, its index and the bytes after it; empty where it is missing or damaged."""
    try:
        end = path.read_bytes()
    except OSError:
        return b""
    return end if sha256(end[: -TAIL.size]).digest() == checksum else b""


def _cache_index(path: Path, data: bytes) -> None:
    with translate_os_errors(path, to=ResourceError, doing="be written", advice=f"{{remedy}}, or set {CACHE}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, data)


def _refuse_damaged(shard: Shard, where: str) -> None:
    """Raise DataError for a downloaded shard with a frame whose bytes are not those that were packed."""
    with shard.path.open("rb") as file:
        for row, frame in enumerate(shard.frames):
            if not format.is_unaltered(shard, file.fileno(), row):
                raise DataError(f"{where}: frame '{frame.id}' is not as it was packed; copy the shard there again")
