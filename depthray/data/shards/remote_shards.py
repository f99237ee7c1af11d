"""Shards on an object store: indexes are read by themselves, a shard is downloaded completely into the node's cache.

The name of a shard in the cache ends in the SHA-256 of its index, which holds that of every frame: a set that was
packed anew at the same address never uses the files of the old one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from depthray.data.shards import format, index_files
from depthray.data.shards.format import TAIL, Shard
from depthray.data.shards.shard_table import ShardTable, build_table
from depthray.data.source import RESTART
from depthray.errors import DataError, ResourceError
from depthray.storage import cache, remote
from depthray.storage.environment import CACHE, CACHE_GB
from depthray.storage.file_lock import lock
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
        self.table: ShardTable = (None if only else self._find_index(names, files)) or self._read_all(names, files)

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickled copy starts its own clients and may download, unlike a fork, which has inherited dead ones.
        self.__dict__.update(state, _process=os.getpid())

    def path(self, number: int) -> Path:
        """The path of a shard in the cache."""
        return self._cache_path(self.table.names[number], self.table.checks[number].tobytes())

    def open(self, number: int) -> int:
        """The shard in the cache, open for reading and safe from removal until it is closed."""
        size = int(self.table.sizes[number])
        return self._cache.open(cache.CachedFile(self.path(number), size, lambda path: self._download(number, path)))

    def refuse_misfit(self, numbers: Iterable[int]) -> None:
        """Raise ResourceError where the cache cannot hold these shards at once."""
        self._cache.refuse_misfit({self.path(number): int(self.table.sizes[number]) for number in numbers})

    def _read_all(self, names: list[str], files: Mapping[str, int]) -> ShardTable:
        """The table of the shards, from the index in each."""
        with ThreadPoolExecutor(INDEXES_AT_ONCE) as threads:
            shards = threads.map(lambda name: self._read_index(name, files[name]), names)
            return build_table(zip(names, shards, strict=True), largest=max(files[name] for name in names))

    def _find_index(self, names: list[str], files: Mapping[str, int]) -> ShardTable | None:
        """The table of the shards, from the index of the set, which the first process of a node downloads."""
        facts = f"{index_files.FOLDER}/{index_files.FACTS}"
        if facts not in files:
            return None
        text = self._folder.read(facts)
        folder = self._cache_folder() / f"{index_files.FOLDER}-{sha256(text).hexdigest()[:16]}"
        with translate_os_errors(folder, to=ResourceError, doing="be written", advice=f"{{remedy}}, or set {CACHE}"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock(folder.with_name(f".{folder.name}.lock")):
                if not folder.exists() and not self._download_index(folder, text):
                    return None
        sizes = np.array([files[name] for name in names], np.int64)
        there = index_files.ShardFiles(names, sizes, np.full(len(names), -1, np.int64))
        return index_files.find(folder, folder=folder, files=there)

    def _download_index(self, folder: Path, text: bytes) -> bool:
        """Download the columns of an index into the cache; False where they are not those that its facts name."""
        work = folder.with_name(f".{folder.name}.writing")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            for name, record in json.loads(text)["files"].items():
                path = work / f"{Path(name).name}.npy"
                self._folder.download(f"{index_files.FOLDER}/{path.name}", path)
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != record["sha256"]:
                        return False
            (work / index_files.FACTS).write_bytes(text)
            work.rename(folder)
        except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):
            return False  # damaged, or copied in part
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return True

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
        return self._cache_folder() / f"{name.removesuffix('.h5')}-{checksum.hex()[:16]}.h5"

    def _cache_folder(self) -> Path:
        # 16 of 64 digits keep paths short; 64 bits do not meet by chance.
        return self._cache.root / sha256(self._folder.url.encode()).hexdigest()[:16]

    def _download(self, number: int, path: Path) -> None:
        """Download a shard; check that it is complete and the one whose index was read."""
        if os.getpid() != self._process:  # storage clients do not survive a fork; the parent process downloads
            raise ResourceError(f"{self.path(number)}: gone from the cache while it was used; raise {CACHE_GB}")
        name = self.table.names[number]
        where = f"{self._folder}/{name}"
        try:
            self._folder.download(name, path)
        except FileNotFoundError:
            raise DataError(f"{where}: no longer there; it was when the data set was opened") from None
        downloaded = format.open_shard(path)
        if downloaded.checksum != self.table.checks[number].tobytes():
            raise DataError(f"{where}: changed since the data set was opened; {RESTART}")
        _refuse_damaged(downloaded, where)  # every frame, once: reading from the cache verifies nothing


def discard_index(folder: RemoteFolder) -> None:
    """Remove the facts of an index, without which it is none: the shards are about to change."""
    folder.remove(f"{index_files.FOLDER}/{index_files.FACTS}")


def write_index(folder: RemoteFolder) -> None:
    """Write the index of the shards in a folder, in place of an earlier one, from the index in each."""
    discard_index(folder)
    table = RemoteShards(folder.url).table
    with TemporaryDirectory(prefix="depthray-index-") as name:
        index_files.write_table(Path(name), table)
        # The facts last, which make it an index.
        for path in sorted(Path(name).iterdir(), key=lambda path: path.name == index_files.FACTS):
            (folder / index_files.FOLDER).upload(path.name, path)


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
