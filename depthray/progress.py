"""What a run says of itself: a JSON line each in RUN/progress.jsonl, shown as a bar on a terminal or as plain lines.

Whoever trains writes the file; whoever watches (this process, the driver of a cluster job, `tail -f`) reads it.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

FILE = "progress.jsonl"
Record = dict[str, Any]


def append(run: Path, record: Record) -> None:
    """Add a record, with the time of day in seconds, to the run's progress file."""
    record = {**record, "time": time.time()}
    clean = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(clean) + "\n")


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
    """Shows what another process appends to a run's progress file, from where it stood at the start."""

    def __init__(self, run: Path, show: Callable[[Record], None], *, every: float = 0.5) -> None:
        self.path, self.show, self.every = run / FILE, show, every
        self.offset = self.path.stat().st_size if self.path.exists() else 0
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
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for raw in file:
                if not raw.endswith(b"\n"):
                    return  # half written
                self.offset += len(raw)
                yield json.loads(raw)
