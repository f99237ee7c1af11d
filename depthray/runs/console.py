"""The progress of a run on the console: a bar on a terminal, plain lines in a log, from this process or from another.

The driver of a cluster follows the run's file: Ray Train passes metrics on once an epoch, as a report waits for all
workers and for the next poll of the controller, and a bar needs the intervals between.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from depthray.runs import progress
from depthray.runs.progress import Record
from depthray.storage.folders import open_folder
from depthray.storage.remote import StorageError, is_remote
from depthray.waiting import Heartbeat

SHOWN_SCORES = ("abs_rel", "rmse", "delta1", "iou", "teacher_abs_rel")  # of an epoch's scores those that fit on a line
OWN_SCORES = ("ssim", "mse", "mae", "soft_iou")  # of protocols that score nothing else


def line(record: Record) -> str:
    """A record as one line of text."""
    kind = record["kind"]
    if kind == "interval":
        skipped = f" skipped {record['bad_steps']}" if record["bad_steps"] else ""
        if record.get("overflow_steps"):  # missing in records of versions before
            skipped += f" overflows {record['overflow_steps']}"
        return (
            f"epoch {record['epoch']}/{record['epochs']} step {record['step']}/{record['steps']} "
            f"loss {_format_number(record['loss'])} lr {record['lr']:.2e} {record['images_per_second']:.1f} img/s "
            f"data wait {record['wait_share']:.0%} mem {record['memory_gib']:.1f} GiB "
            f"eta {clock(record['eta_seconds'])}{skipped}"
        )
    if kind == "epoch":
        shown = [key for key in SHOWN_SCORES if key in record] or [key for key in OWN_SCORES if key in record]
        scores = " ".join(f"{key} {_format_number(record[key])}" for key in shown)
        loss = f" train_loss {_format_number(record['train_loss'])}" if record["epoch"] else ""  # 0: nothing trained
        return f"epoch {record['epoch']} done: {scores}{loss}{_scores_by_set(record, shown[:1])}"
    return str(record["text"])


def _scores_by_set(record: Record, metrics: list[str]) -> str:
    """The first of the shown scores of each of several data sets."""
    parts = [
        f"{key.removesuffix(f'/{metric}')} {_format_number(record[key])}"
        for metric in metrics
        for key in record
        if key.endswith(f"/{metric}")
    ]
    return f" ({metrics[0]} of {', '.join(parts)})" if parts else ""


def awaited_after(record: Record) -> str:
    """What a run does after a record, for people who wait for the next one."""
    if record["kind"] == "interval":
        return "the next steps, or the scores of the epoch on the validation frames"
    if record["kind"] == "epoch":
        return "the first steps of the next epoch, or the end of the run"
    return "the first steps: network and frames are loaded"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _format_number(value: float | None) -> str:
    return "nan" if value is None else f"{value:.4f}"  # the file has null for what is not finite


class Display:
    """Shows records: a rich bar where the stream is a terminal, else one line a record.

    Where there is none for some seconds, a line says what is awaited, at first `awaited`.
    """

    def __init__(self, stream: IO[str] | None = None, *, awaited: str = "the first steps") -> None:
        self.stream = stream or sys.stdout
        self.bar: Any = None
        self.heartbeat: Heartbeat | None = None
        if self.stream.isatty():
            # Only here: rich takes a tenth of a second to import, and a log does not need it.
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

            columns = (
                SpinnerColumn(),
                "{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self.bar = Progress(*columns, console=Console(file=self.stream))
            self.task = self.bar.add_task("starting", total=None, text=f"waiting for {awaited}")
            self.bar.start()
        else:
            self.heartbeat = Heartbeat(awaited, stream=self.stream)
            self.heartbeat.__enter__()

    def await_next(self, what: str) -> None:
        """From now on `what` is awaited."""
        if self.heartbeat:
            self.heartbeat.beat(what)
        else:
            self.bar.update(self.task, text=f"waiting for {what}")

    def show(self, record: Record) -> None:
        """Show one record."""
        if self.heartbeat:
            self.heartbeat.beat(awaited_after(record))
            self.stream.write(line(record) + "\n")
            self.stream.flush()
        elif record["kind"] == "interval":
            speed = f"{record['images_per_second']:.0f} img/s  wait {record['wait_share']:.0%}"
            text = f"loss {_format_number(record['loss'])}  {speed}  {clock(record['eta_seconds'])} left"
            title = f"epoch {record['epoch']}/{record['epochs']}"
            self.bar.update(self.task, completed=record["step"], total=record["steps"], text=text, description=title)
        else:
            self.bar.console.print(line(record), highlight=False)  # else rich colours numbers and paths in it

    def close(self) -> None:
        """End the bar, and the lines on what is awaited."""
        if self.heartbeat:
            self.heartbeat.__exit__(None, None, None)
        else:
            self.bar.stop()


class Follower:
    """Shows what another process appends to a run's progress file, from its end at the start.

    Of a remote run it reads what is uploaded; a store that does not answer is asked again later.
    """

    def __init__(self, run: Path | str, show: Callable[[Record], None], *, every: float | None = None) -> None:
        self._folder = open_folder(run, retry_seconds=0)
        # A look at a store is a request over the network; one at a file costs nothing.
        self.show, self.every = show, every or (2.0 if is_remote(run) else 0.5)
        self.offset = len(self._read(0))  # a resumed run shows what is new
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
            self._show_new()
        self._show_new()  # the last records are written right before the run ends

    def _read(self, start: int) -> bytes:
        try:
            return self._folder.read(progress.FILE, start=start)
        except (StorageError, OSError):  # not there yet, or on a store or file server that is away
            return b""

    def _show_new(self) -> None:
        data = self._read(self.offset)
        complete = data[: data.rfind(b"\n") + 1]  # the rest is a line that is being written
        self.offset += len(complete)
        for record in progress.parse(complete):
            self.show(record)
