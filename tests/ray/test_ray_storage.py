"""`depthray train --out s3://...` on Ray workers: a lost worker, a store that is away, and the progress of both."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import Store, serving

from chaos.training import kills
from cluster import rendezvous
from depthray.checkpoints import remote_checkpoints
from depthray.errors import UsageError
from depthray.storage.remote import RemoteFolder


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


def test_a_remote_run_survives_its_worker_and_its_store(
    store: Store, undisturbed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHRAY_CACHE", str(tmp_path / "cache"))
    url = store.url("runs/x")
    process = kills.start(url, "--cpus-per-worker", "1")
    outage = threading.Thread(target=_kill_and_away, args=(store, url, process.pid))
    outage.start()
    output = kills.finish(process)
    outage.join()
    newest = remote_checkpoints.cached_checkpoint(
        f"{url}/checkpoints/{remote_checkpoints.complete_checkpoints(RemoteFolder(url))[-1]}"
    )
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    newest.rename(tmp_path / "run" / "checkpoints" / newest.name)
    assert kills.distance(tmp_path / "run", undisturbed_run) == 0.0
    assert "resumed from" in output and f"checkpoint   {url}/checkpoints/epoch-000" in output


def _kill_and_away(store: Store, url: str, driver: int) -> None:
    """Kill the worker when its first checkpoint is there, and take the store away while it is replaced."""
    while not remote_checkpoints.complete_checkpoints(RemoteFolder(url)):
        time.sleep(0.05)
    for pid in kills.workers(driver):
        os.kill(pid, signal.SIGKILL)
    with store.away():
        time.sleep(5)


def test_a_folder_that_other_machines_do_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with rendezvous.marker_file(tmp_path, "one"):
        rendezvous.check_shared(str(tmp_path), "one")
        rendezvous.check_shared("s3://bucket/x", "one")
        with pytest.raises(UsageError, match=r"does not see this folder.*NFS.*s3://"):
            rendezvous.check_shared(str(tmp_path), "another")
    assert not list(tmp_path.iterdir())
