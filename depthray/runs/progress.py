"""The progress file of a run, RUN/progress.jsonl: the records that it has, how they are written and read.

A record is a JSON object on a line, with its `kind` and the `time` in seconds since 1970:

    interval   some steps of training: epoch, step, loss, speed (`depthray.training.throughput`)
    epoch      a finished epoch: epoch, step, scores
    state      the run started, resumed, stopped, finished or failed: state, reason, epoch, step, text; and the
               number of workers where it started or resumed
    rewound    a trial continues from an earlier epoch of another one: epoch, text; later epochs are void
    further    a data set of eval.also was scored: set (its path), epoch, step, scores, text
    note       something for people: text

`state` and `reason` are for programs, `text` is the same for people and may be reworded at any time.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

from depthray.errors import CheckpointError
from depthray.runs import layout
from depthray.storage.folders import AnyFolder, LocalFolder, open_folder
from depthray.storage.local import sync_folder
from depthray.storage.os_errors import is_transient, translate_os_errors
from depthray.storage.retry import Outage
from depthray.storage.strict_json import to_json

FILE = layout.PROGRESS
REWOUND = "rewound"
_LONGEST = 1 << 20  # bytes of a line
Record = dict[str, Any]


class RecordedState(NamedTuple):
    """What a run last recorded of its state."""

    state: Literal["running", "stopped", "finished", "failed"]
    reason: str


def parse(data: bytes) -> list[Record]:
    """The records in the bytes of a progress file.

    Left out are lines that are no records: a kill may have cut one short, a failing disk have left zeros.
    """
    records = []
    for line in data.split(b"\n"):  # not splitlines: JSON may hold other line ends
        with suppress(ValueError):
            record = json.loads(line.lstrip(b"\0"))
            if isinstance(record, dict) and "kind" in record:
                records.append(record)
    return records


def read(run: Path) -> list[Record]:
    """The records of a run of this machine, none where it has no progress file."""
    return read_from(LocalFolder(run))


def read_from(folder: AnyFolder) -> list[Record]:
    """The records of a run, here or on a store, none where it has no progress file."""
    try:
        return parse(folder.read(FILE))
    except FileNotFoundError:
        return []


def state_record(state: RecordedState, text: str, *, epoch: int, step: int, **details: int) -> Record:
    """A record of a run's state at an epoch and a step, with a text for people."""
    return {"kind": "state", **state._asdict(), "epoch": epoch, "step": step, **details, "text": text}


def last_state(records: Sequence[Record]) -> RecordedState | None:
    """The state that a run recorded last; None where it recorded none."""
    for record in reversed(records):
        if record["kind"] == "state":
            return RecordedState(record["state"], record["reason"])
    return None


def legacy_state(records: Sequence[Record], error: Mapping[str, Any], *, epochs: int) -> RecordedState | None:
    """The state of a run without state records, made by version 0.1: from the sentences that it wrote instead.

    `error` is its error.json, `epochs` what its recipe has. None where it was trained after its last such sentence.
    """
    if error:
        return RecordedState("failed", str(error.get("text", "")))
    for position, record in reversed(list(enumerate(records))):
        text = str(record.get("text", ""))
        if record["kind"] in ("interval", "epoch"):
            return None
        if text.startswith("training ended: "):
            reason = text.removeprefix("training ended: ")
            early = reason.startswith(("asked to stop", "time limit"))
            return RecordedState("stopped" if early else "finished", reason)
        if text.startswith("stopped at "):
            return RecordedState("stopped", text.partition(";")[0])
        if text.startswith("resumed from "):
            # Version 0.1 logged no end of a run that was resumed after its last epoch.
            trained = [number["epoch"] for number in records[:position] if number["kind"] == "epoch"]
            resumed_at_end = bool(trained) and trained[-1] >= epochs
            return RecordedState("finished", "all epochs done") if resumed_at_end else RecordedState("running", "")
    return None


def epochs(records: Iterable[Record]) -> list[Record]:
    """The records of a run's epochs in order; of an epoch that was trained again the last one."""
    by_number: dict[int, Record] = {}
    for record in records:
        if record["kind"] == REWOUND:
            by_number = {number: epoch for number, epoch in by_number.items() if number <= record["epoch"]}
        elif record["kind"] == "epoch":
            by_number[record["epoch"]] = record
    return [by_number[number] for number in sorted(by_number)]


def append(run: Path, record: Record) -> None:
    """Add a record, with the time of day, to the progress file of a run that nobody else writes to now."""
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(_serialize(record))


def record_failure(run: Path | str, reason: str) -> None:
    """Record that a run failed whose own rank 0 could not, as another process failed or it was killed.

    Nothing is recorded where the run has recorded its end, or has not started.
    """
    # No retries: the store may be what failed.
    folder = open_folder(run, retry_seconds=0)
    try:
        data = folder.read(FILE)
    except FileNotFoundError:
        return
    records = parse(data)
    last = last_state(records)
    if last is None or last.state != "running":
        return
    epoch = next((record["epoch"] for record in reversed(records) if record["kind"] in ("epoch", "state")), 0)
    step = next((record["step"] for record in reversed(records) if "step" in record), 0)
    record = state_record(RecordedState("failed", reason), f"failed: {reason}", epoch=epoch, step=step)
    complete = data[: data.rfind(b"\n") + 1]  # a killed worker may have left half a line
    folder.write(FILE, complete + _serialize(record).encode())  # all of it: stores cannot append to an object


def _serialize(record: Record) -> str:
    return to_json({**record, "time": time.time()}) + "\n"


def sync(file: IO[bytes], data: bytes) -> None:
    """Write bytes through to the file system, which refuses them here or not at all."""
    file.write(data)
    file.flush()


class Appender:
    """Adds records to the run's progress file, from any thread; what a failing disk refuses is added later.

    Raises CheckpointError when the disk has failed for `retry_seconds`.
    """

    def __init__(self, run: Path, *, retry_seconds: float) -> None:
        self.path, self.retry_seconds = run / FILE, retry_seconds
        self._lock = threading.Lock()  # the writer of checkpoints and the uploader log from threads of their own
        self._waiting: list[str] = []
        self._trained = False  # a step was recorded
        self._synced = False  # after the first step: a later start without a checkpoint must see that there was one
        self._first = True
        self._complete: int | None = None  # bytes of the file before what was perhaps half written
        self._outage = Outage()

    def append(self, record: Record) -> None:
        """Add a record after those that still wait."""
        with self._lock:
            self._trained = self._trained or record["kind"] == "interval"
            self._waiting.append(_serialize(record))
            self._flush()

    def flush(self) -> None:
        """Add the records that wait."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        try:
            with translate_os_errors(self.path.parent, to=CheckpointError, doing="write progress"):
                self._write()
        # What was refused stays in `_waiting`, and is written before the next record.
        except CheckpointError as error:
            self._outage.record()
            if not is_transient(error) or self._outage.seconds >= self.retry_seconds:
                raise

    def _write(self) -> None:
        if not self._waiting:
            return
        if self._first:  # a writer before may have been killed, or its disk have failed, amid a line
            self._complete = _complete_bytes(self.path)
        with self.path.open("ab") as file:
            # After a failure nobody knows how much of a line was written: it is cut off and written again.
            if self._complete is not None and file.tell() > self._complete:
                file.truncate(self._complete)
            self._complete = file.seek(0, os.SEEK_END)
            sync(file, "".join(self._waiting).encode())
            if self._trained and not self._synced:
                os.fsync(file.fileno())
                sync_folder(self.path.parent)
                self._synced = True
        self._waiting.clear()
        self._first, self._complete = False, None
        self._outage.reset()


def _complete_bytes(path: Path) -> int:
    """Bytes of a progress file up to the end of its last complete line: a writer before may have been cut off."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _LONGEST)
        file.seek(start)
        return start + file.read().rfind(b"\n") + 1
