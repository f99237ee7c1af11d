"""How a run is asked to stop: a file STOP in its folder ends training after the current step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from depthray.runs import download
from depthray.runs.layout import STOP
from depthray.storage.remote import RemoteFolder, is_remote


def stop_on_signals(run: Path | str, log: Callable[[str], None]) -> None:
    """On SIGTERM or the first Ctrl-C, ask the run to save and stop; a second Ctrl-C ends at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        request_stop(run)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log("stopping after the current step, with a checkpoint; Ctrl-C again ends at once")

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def request_stop(run: Path | str) -> None:
    """Put the file STOP into a run's folder; for a remote one also into the working folder of this machine."""
    if not is_remote(run):
        (Path(run) / STOP).touch()
        return
    # On this machine the run sees it after the current step; the store is looked at only every few seconds.
    if (here := download.working_folder(run)).is_dir():
        (here / STOP).touch()
    # A signal handler must return soon, and a store may be slow to answer.
    threading.Thread(target=RemoteFolder(run).write, args=(STOP, b""), daemon=True).start()


def is_stop_requested(run: Path | str) -> bool:
    """Whether a run was asked to stop, on this machine or on the store."""
    if is_remote(run):
        # The folder first: where the file is there, no request to the store is needed.
        return is_stop_requested(download.working_folder(run)) or RemoteFolder(run).size(STOP) is not None
    try:
        return Path(run, STOP).exists()
    except OSError:  # a file server that is away is no request
        return False
