"""What the driver and the workers of one attempt at a run know of each other, whatever becomes of the run's folder."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from depthray.errors import DepthrayError, UsageError
from depthray.storage.remote import is_remote

ERRORS = b"depthray-errors"  # of workers, by attempt, in the key-value store of the cluster
MARK = ".attempt-"


@contextmanager
def marked(run: Path | str, attempt: str) -> Iterator[None]:
    """Leave a file in a local run folder, by which workers on other machines know that it is the same folder."""
    if is_remote(run):
        yield
        return
    mark = Path(run, f"{MARK}{attempt}")
    for old in Path(run).glob(f"{MARK}*"):
        old.unlink(missing_ok=True)
    mark.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def check_shared(run: str, attempt: str) -> None:
    """Raise UsageError unless this machine sees the run folder of the driver, which is told over the network."""
    if is_remote(run):
        return
    for _ in range(20):  # a file server may show a new name late
        if Path(run, f"{MARK}{attempt}").exists():
            return
        time.sleep(0.5)
    raise UsageError(
        f"--out {run}: the worker on {socket.gethostname()} does not see this folder, which is local to another "
        "machine; give a folder that all machines share (NFS), or s3://BUCKET/..."
    )


def tell(attempt: str, error: DepthrayError) -> None:
    """Leave the user's error with the cluster: the run's own folder may be what fails."""
    from ray.experimental.internal_kv import _internal_kv_put

    text = json.dumps({"exit_code": error.exit_code, "text": str(error)})
    _internal_kv_put(attempt.encode(), text.encode(), overwrite=False, namespace=ERRORS)  # the first is the cause


def told(attempt: str) -> bytes | None:
    from ray.experimental.internal_kv import _internal_kv_get

    found: bytes | None = _internal_kv_get(attempt.encode(), namespace=ERRORS)
    return found


def raise_known(attempt: str) -> None:
    """Raise the user's error that a worker left behind."""
    if text := told(attempt):
        found = json.loads(text)
        error = DepthrayError(found["text"])
        error.exit_code = found["exit_code"]
        raise error
