"""What the driver and the workers of one attempt at a run share besides the run's folder, which may be what fails."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster import ray_private
from depthray.errors import DepthrayError, UsageError, error_of
from depthray.storage.remote import is_remote

NAMESPACE = b"depthray-errors"  # of workers' errors by attempt, in the cluster's key-value store
MARKER_PREFIX = ".attempt-"


@contextmanager
def marker_file(run: Path | str, attempt: str) -> Iterator[None]:
    """Keep a file in a local run folder, by which workers on other machines know that it is the same folder."""
    if is_remote(run):
        yield
        return
    marker = Path(run, f"{MARKER_PREFIX}{attempt}")
    for old in Path(run).glob(f"{MARKER_PREFIX}*"):  # of drivers that were killed
        old.unlink(missing_ok=True)
    marker.touch()
    try:
        yield
    finally:
        with suppress(OSError):  # an error of the run itself must not be hidden by this one
            marker.unlink(missing_ok=True)


def check_shared(run: str, attempt: str) -> None:
    """Raise UsageError unless this machine sees the run folder of the driver, whose path came over the network."""
    if is_remote(run):
        return
    for _ in range(20):  # a file server may show a new name late
        if Path(run, f"{MARKER_PREFIX}{attempt}").exists():
            return
        time.sleep(0.5)
    raise UsageError(
        f"--out {run}: the worker on {socket.gethostname()} does not see this folder, which is local to another "
        "machine; give a folder that all machines share (NFS), or s3://BUCKET/..."
    )


def report_error(attempt: str, error: DepthrayError) -> None:
    """Publish the user's error on the cluster's head: Ray would wrap it, and the run's own folder may be what fails."""
    text = json.dumps({"exit_code": error.exit_code, "text": str(error)})
    ray_private.put_value(NAMESPACE, attempt, text, overwrite=False)  # the first error is the cause of the others


def reported_error(attempt: str) -> DepthrayError | None:
    """The user's error that a worker of the attempt has published first."""
    text = ray_private.get_value(NAMESPACE, attempt)
    if not text:
        return None
    report = json.loads(text)
    return error_of(report["text"], report["exit_code"])


def raise_reported_error(attempt: str) -> None:
    """Raise the user's error that a worker has published."""
    if error := reported_error(attempt):
        raise error
