"""What a run says of itself: a JSON line each in RUN/progress.jsonl, shown as a bar on a terminal or as plain lines.

Whoever trains writes the file; whoever watches (this process, the driver of a cluster job, `tail -f`) reads it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from depthray.errors import CheckpointError
from depthray.storage.local import explained, passing, sync_folder
from depthray.storage.remote import Folder, StorageError, is_remote

FILE = "progress.jsonl"
TRAINED = b'"kind": "interval"'  # in the file: a step was trained
_LONGEST = 1 << 20  # bytes of a line
Record = dict[str, Any]


def append(run: Path, record: Record) -> None:
    """Add a record, with the time of day in seconds, to the run's progress file."""
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(_spell(record))


def _spell(record: Record) -> str:
    record = {**record, "time": time.time()}
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
    return json.dumps(clean) + "\n"


def sync(file: IO[bytes], data: bytes) -> None:
    """Write bytes through to the file system, which refuses them here or not at all."""
    file.write(data)
    file.flush()


class Appender:
    """Adds records to the run's progress file, from any thread; what a failing disk refuses is added later.

    Raises CheckpointError when the disk has failed for `patience` seconds.
    """

    def __init__(self, run: Path, *, patience: float) -> None:
        self.path, self.patience = run / FILE, patience
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._first = True
        self._begun = False  # on the disk, whatever fails: without it, beginning again at step 0 would not be noticed
        self._whole: int | None = None  # bytes of the file before what was perhaps half written
        self._failing_since: float | None = None

    def append(self, record: Record) -> None:
        """Add a record after those that still wait."""
        with self._lock:
            self._waiting.append(_spell(record))
            self._flush()

    def flush(self) -> None:
        """Add what waits."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        try:
            with explained(self.path.parent):
                self._write()
        except CheckpointError as error:
            now = time.monotonic()
            since = self._failing_since = self._failing_since or now
            if not (isinstance(error.__cause__, OSError) and passing(error.__cause__)) or now - since >= self.patience:
                raise

    def _write(self) -> None:
        if not self._waiting:
            return
        if self._first:
            self._whole = _whole(self.path)
        with self.path.open("ab") as file:
            if self._whole is not None and file.tell() > self._whole:
                file.truncate(self._whole)
            self._whole = file.seek(0, os.SEEK_END)
            sync(file, data := "".join(self._waiting).encode())
            if not self._begun and TRAINED in data:
                os.fsync(file.fileno())
                sync_folder(self.path.parent)
                self._begun = True
        self._waiting.clear()
        self._first, self._whole = False, None
        self._failing_since = None


def _whole(path: Path) -> int:
    """Bytes of a progress file up to the end of its last whole line: a writer before may have been cut off."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _LONGEST)
        file.seek(start)
        return start + file.read().rfind(b"\n") + 1


TOLD = ("abs_rel", "rmse", "delta1", "iou")  # of an epoch's scores, where it has them


def line(record: Record) -> str:
    """A record as one plain line."""
    kind = record["kind"]
    if kind == "interval":
        skipped = f" skipped {record['bad_steps']}" if record["bad_steps"] else ""
        return (
            f"epoch {record['epoch']}/{record['epochs']} step {record['step']}/{record['steps']} "
            f"loss {_number(record['loss'])} lr {record['lr']:.2e} {record['images_per_second']:.1f} img/s "
            f"data wait {record['wait_share']:.0%} mem {record['memory_gib']:.1f} GiB "
            f"eta {clock(record['eta_seconds'])}{skipped}"
        )
    if kind == "epoch":
        scores = " ".join(f"{key} {_number(record[key])}" for key in TOLD if key in record)
        return f"epoch {record['epoch']} done: {scores} train_loss {_number(record['train_loss'])}"
    return str(record["text"])


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"


class Display:
    """Shows records: a rich bar where the stream is a terminal, else one line a record."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stdout
        self.bar: Any = None
        if self.stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            self.bar = Progress(*columns, console=Console(file=self.stream))
            self.task = self.bar.add_task("starting", total=None, text="")
            self.bar.start()

    def show(self, record: Record) -> None:
        """Show one record."""
        if self.bar is None:
            self.stream.write(line(record) + "\n")
            self.stream.flush()
        elif record["kind"] == "interval":
            speed = f"{record['images_per_second']:.0f} img/s  wait {record['wait_share']:.0%}"
            text = f"loss {_number(record['loss'])}  {speed}  {clock(record['eta_seconds'])} left"
            title = f"epoch {record['epoch']}/{record['epochs']}"
            self.bar.update(self.task, completed=record["step"], total=record["steps"], text=text, description=title)
        else:
            self.bar.console.print(line(record), highlight=False)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.stop()


class Follower:
    """Shows what another process appends to a run's progress file, from where it stood at the start.

    Of a run that lies remote it reads what is mirrored there; a store that does not answer is asked again later.
    """

    def __init__(self, run: Path | str, show: Callable[[Record], None], *, every: float | None = None) -> None:
        self._read: Callable[[int], bytes] = _remote(run) if is_remote(run) else _local(Path(run) / FILE)
        self.show, self.every = show, every or (2.0 if is_remote(run) else 0.5)
        self.offset = len(self._read(0))
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Follower:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    def _run(self) -> None:
        while not self.done.wait(self.every):
            self._drain()
        self._drain()

    def _drain(self) -> None:
        for record in self._new():
            self.show(record)

    def _new(self) -> Iterator[Record]:
        for raw in self._read(self.offset).splitlines(keepends=True):
            if not raw.endswith(b"\n"):
                return  # half written
            self.offset += len(raw)
            with suppress(ValueError):  # a disk that failed may have left zeros, or half a line
                yield json.loads(raw.lstrip(b"\0"))


def _local(path: Path) -> Callable[[int], bytes]:
    def read(start: int) -> bytes:
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read()
        except OSError:  # not there yet, or on a file server that is away
            return b""

    return read


def _remote(run: Path | str) -> Callable[[int], bytes]:
    folder = Folder(run, patience=0)

    def read(start: int) -> bytes:
        try:
            return folder.read(FILE, start=start)
        except (StorageError, FileNotFoundError):
            return b""

    return read
