"""The index of a folder of shards: the columns of `shard_table` as NumPy files in `index/`, mapped by all processes.

`index.json` has the facts of the set, and size and SHA-256 of each file; it is written last. Any program reads the
files (`np.load`). An index that is not of the shards there is not used: they are then read, one by one, as without.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from depthray.data.columns.frame_columns import SPLITS, Texts
from depthray.data.shards import format
from depthray.data.shards.shard_table import SetFacts, ShardKind, ShardTable, TableBuilder
from depthray.data.source import RESTART
from depthray.errors import DataError, ResourceError
from depthray.storage.local import sync_folder
from depthray.storage.os_errors import translate_os_errors

FOLDER, FACTS = "index", "index.json"
FORMAT, VERSION = "depthray-index", 1
COMMAND = "depthray data index"
SHARD_COLUMNS = ("shard_kind", "shard_text_end", "shard_check")
NOT_WRITTEN = ("shard_time",)  # a copy of the shards has another


class ShardFiles(NamedTuple):
    """The shards in a folder, by name."""

    names: list[str]
    sizes: NDArray[np.int64]  # bytes
    times: NDArray[np.int64]  # of change, in ns


def list_files(root: Path) -> ShardFiles:
    """The shards in a folder; none where it cannot be listed."""
    rows = []
    with suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            if entry.name.endswith(".h5"):
                status = entry.stat()
                rows.append((entry.name, status.st_size, status.st_mtime_ns))
    rows.sort()
    names, sizes, times = ([row[column] for row in rows] for column in range(3))
    return ShardFiles(names, np.array(sizes, np.int64), np.array(times, np.int64))  # type: ignore[arg-type]


class MappedTable(ShardTable):
    """A table whose columns are mapped from files. A copy that is sent to another process maps them there."""

    def __init__(self, folder: Path, times: NDArray[np.int64]) -> None:
        text = (folder / FACTS).read_bytes()
        arrays, facts = _read(folder, json.loads(text))
        super().__init__({**arrays, "shard_time": times}, facts)
        self.folder, self.digest = folder, sha256(text).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return _map_again, (self.folder, self.times, self.digest)


def _map_again(folder: Path, times: NDArray[np.int64], digest: str) -> MappedTable:
    try:
        table = MappedTable(folder, times)
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: gone since the data set was opened; {RESTART}") from None
    if table.digest != digest:
        raise DataError(f"{folder}: changed since the data set was opened; {RESTART}")
    return table


def find(root: Path, *, folder: Path | None = None, files: ShardFiles | None = None) -> MappedTable | None:
    """The table of the shards in a folder, from its index; None where there is no index, or one of other shards.

    `folder` and `files` are the index and the shards where they are elsewhere.
    """
    folder = folder or root / FOLDER
    if not (folder / FACTS).exists():
        return None
    files = files or list_files(root)
    try:
        table = MappedTable(folder, files.times)
        fits = _is_of(table, files)
    except (OSError, ValueError, KeyError, TypeError):  # damaged, or of another version
        return None
    return table if fits else None


def _is_of(table: MappedTable, files: ShardFiles) -> bool:
    return (
        len(table.names) == len(files.names)
        and table.names.data.tobytes() == "".join(files.names).encode()
        and bool(np.array_equal(table.names.ends, Texts.of(files.names).ends))
        and bool(np.array_equal(table.sizes, files.sizes))
    )


def write(root: Path) -> int:
    """Write the index of the shards in a folder, in place of an earlier one. Returns the number of frames.

    Reads the index in each shard, and no frame; memory does not grow with their number but for 8 bytes a frame.
    """
    files = list_files(root)
    if not files.names:
        raise DataError(f"{root}: no *.h5 shards there; make them with `depthray data pack`")
    folder = root / f".{FOLDER}-{uuid4().hex}"
    with translate_os_errors(root / FOLDER, to=ResourceError, doing="be written"):
        for stale in root.glob(f".{FOLDER}-*"):  # of a call that was killed
            shutil.rmtree(stale, ignore_errors=True)
        folder.mkdir()
        try:
            _write_columns(folder, root, files)
            discard(root)
            os.rename(folder, root / FOLDER)
            sync_folder(root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    table = find(root)
    if table is None:
        raise DataError(f"{root}: shards changed while their index was written; write it again: {COMMAND} {root}")
    _refuse_duplicates(table, root)
    return len(table.frames)


def discard(root: Path) -> None:
    """Remove the index of a folder, if it has one: its shards are about to change."""
    folder = root / FOLDER
    if not (folder / FACTS).exists():
        return
    with suppress(OSError):  # another process may remove it too
        # Its facts first, without which it is no index. No file of somebody else's folder of that name.
        for path in (folder / FACTS, *folder.glob("*.npy")):
            path.unlink(missing_ok=True)
        folder.rmdir()


def _refuse_duplicates(table: ShardTable, root: Path) -> None:
    if table.facts.ids_differ:
        return
    seen: set[str] = set()
    for name in table.frames.ids:
        if name in seen:
            discard(root)
            raise DataError(f"{root}: frame id '{name}' is used twice; ids must differ")
        seen.add(name)


class _FileColumn:
    """A column that is appended to a NumPy file, whose header is completed at the end."""

    def __init__(self, path: Path, dtype: DTypeLike, tail: tuple[int, ...]) -> None:
        self.path, self._dtype, self._tail, self._count = path, np.dtype(dtype), tail, 0
        self._file = path.open("w+b")
        self._start = self._write_header()

    def append(self, values: ArrayLike) -> None:
        """Append values (N,...)."""
        array = np.ascontiguousarray(values, self._dtype)
        self._count += len(array)
        self._file.write(array.data)

    def close(self) -> dict[str, Any]:
        """Complete the file -> its record in the facts."""
        self._file.seek(0)
        if self._write_header() != self._start:  # NumPy leaves space for any number
            raise ValueError(f"{self.path}: the header of a NumPy file grew")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        self._file.close()
        return {"bytes": self.path.stat().st_size, "sha256": digest}

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _write_header(self) -> int:
        shape = (self._count, *self._tail)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})
        return self._file.tell()


class _NoColumn:
    """A column that is not written."""

    def append(self, values: ArrayLike) -> None:
        """Do nothing."""


def write_table(folder: Path, table: ShardTable) -> None:
    """Write the index of shards whose table is in memory into an empty folder."""
    columns = {}
    try:
        for name, array in table.arrays.items():
            if name not in NOT_WRITTEN:
                columns[name] = _FileColumn(folder / f"{name}.npy", array.dtype, array.shape[1:])
                columns[name].append(array)
        records = {name: column.close() for name, column in columns.items()}
    finally:
        for column in columns.values():
            column.abandon()
    _write_facts(folder, table.facts, records)


def _write_columns(folder: Path, root: Path, files: ShardFiles) -> None:
    columns: dict[str, _FileColumn] = {}

    def make(name: str, dtype: DTypeLike, tail: tuple[int, ...]) -> _FileColumn | _NoColumn:
        if name in NOT_WRITTEN:
            return _NoColumn()
        return columns.setdefault(name, _FileColumn(folder / f"{name}.npy", dtype, tail))

    try:
        with TableBuilder(make, largest=int(files.sizes.max())) as builder:
            for name in files.names:
                builder.add(name, format.open_shard(root / name))
            facts = builder.finish()
        records = {name: column.close() for name, column in columns.items()}
    finally:
        for column in columns.values():
            column.abandon()
    _write_facts(folder, facts, records)


def _write_facts(folder: Path, facts: SetFacts, records: Mapping[str, Any]) -> None:
    tree = {"format": FORMAT, "version": VERSION, **facts._asdict(), "files": records}
    tree["kinds"] = [kind._asdict() for kind in facts.kinds]
    with (folder / FACTS).open("xb") as file:
        file.write(json.dumps(tree, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def _read(folder: Path, tree: Mapping[str, Any]) -> tuple[dict[str, NDArray[Any]], SetFacts]:
    """The mapped columns and the facts; a ValueError or KeyError where they do not fit together."""
    if (tree["format"], tree["version"]) != (FORMAT, VERSION) or tuple(tree["splits"][: len(SPLITS)]) != SPLITS:
        raise ValueError("of another version")
    facts = SetFacts(
        fingerprint=str(tree["fingerprint"]),
        splits=list(map(str, tree["splits"])),
        sources=list(map(str, tree["sources"])),
        kinds=[
            ShardKind((int(kind["size"][0]), int(kind["size"][1])), str(kind["encoding"]), tuple(kind["keys"]))
            for kind in tree["kinds"]
        ],
        ids_differ=bool(tree["ids_differ"]),
    )
    arrays = {}
    for name, record in tree["files"].items():
        if not name.isidentifier() or (folder / f"{name}.npy").stat().st_size != record["bytes"]:
            raise ValueError(f"{name} is damaged")
        # A plain array over the mapping: slices of `np.memmap` take longer than what is read of them.
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False).view(np.ndarray)
    _check_lengths(arrays)
    return arrays, facts


def _check_lengths(arrays: Mapping[str, NDArray[Any]]) -> None:
    frames, shards = len(arrays["scene"]), len(arrays["shard_end"])
    of_frames = [
        "split",
        "source",
        "id_text_end",
        *(name for name in arrays if name.startswith(("offset_", "camera", "lens"))),
    ]
    for name in of_frames:
        if name not in ("camera_table", "lens_table") and len(arrays[name]) != frames:
            raise ValueError(f"{name} is damaged")
    if any(len(arrays[name]) != shards for name in ("shard_bytes", *SHARD_COLUMNS)):
        raise ValueError("columns of shards are damaged")
    if (np.diff(arrays["shard_end"], prepend=0) < 0).any() or (shards and arrays["shard_end"][-1] != frames):
        raise ValueError("shard_end is damaged")
