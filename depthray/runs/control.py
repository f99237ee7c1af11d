"""How a run is asked to stop: a file STOP in its folder ends training after the step under way, saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from depthray.runs import download
from depthray.storage.remote import Folder, is_remote

STOP = download.STOP


def stop_on_signals(run: Path | str, say: Callable[[str], None]) -> None:
    """On SIGTERM or the first Ctrl-C, ask the run to save and stop; a second Ctrl-C ends at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        ask_to_stop(run)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("stopping after the step under way, with a checkpoint; Ctrl-C again ends at once")

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)


def ask_to_stop(run: Path | str) -> None:
    """Put the file STOP into a run's folder; for a remote one also into the working folder of this machine."""
    if not is_remote(run):
        (Path(run) / STOP).touch()
        return
    if (here := download.working_folder(run)).is_dir():
        (here / STOP).touch()
    threading.Thread(target=Folder(run).write, args=(STOP, b""), daemon=True).start()  # the store may be slow


def asked_to_stop(run: Path) -> bool:
    """Whether somebody put a file STOP into the run's folder; a file server that is away does not ask for it."""
    try:
        return (run / STOP).exists()
    except OSError:
        return False


def stopped(run: Path | str) -> bool:
    """Whether a run was asked to stop, wherever it lies."""
    if not is_remote(run):
        return asked_to_stop(Path(run))
    return asked_to_stop(download.working_folder(run)) or Folder(run).size(STOP) is not None
