"""`depthray train --out s3://...` on Ray workers: a lost worker, a store that is away, and a lost driver."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hangs
import pytest
from object_store import Store, serving

from chaos.training import kills
from chaos.training.runs import wait_for_step
from cluster import rendezvous
from depthray.checkpoints.remote_checkpoints import cached_checkpoint, complete_checkpoints
from depthray.errors import UsageError
from depthray.runs.download import working_folder
from depthray.storage.remote import RemoteFolder


@pytest.fixture
def store() -> Iterator[Store]:
    with serving(Store()) as running:
        yield running


def test_a_remote_run_survives_its_worker_its_store_and_its_driver(
    cluster_address: str, store: Store, undisturbed_run: Path, tmp_path: Path
) -> None:
    url = store.url("runs/x")
    folder, here = RemoteFolder(url), working_folder(url)
    process = kills.start(url, "--address", cluster_address, "--workers", "1", "--cpus-per-worker", "1")
    # Not until a checkpoint is uploaded: on a fast machine the run ends before.
    wait_for_step(here, 5, process)
    kills.kill("worker", process, random.Random(0))
    with store.away():  # while the worker is replaced
        time.sleep(5)
    wait_until(process, here, lambda: has_trained_again(here))
    kills.kill("driver", process, random.Random(0))

    resumed = kills.start(url, "--address", cluster_address, "--workers", "1", "--cpus-per-worker", "1", "--resume")
    output = kills.finish(resumed)
    assert "resumed from" in output and f"checkpoint   {url}/checkpoints/epoch-000" in output
    newest = cached_checkpoint(f"{url}/checkpoints/{complete_checkpoints(folder)[-1]}")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    newest.rename(tmp_path / "run" / "checkpoints" / newest.name)
    assert kills.distance(tmp_path / "run", undisturbed_run) == 0
    epochs = [int(str(record["epoch"])) for record in kills.records(here) if record["kind"] == "epoch"]
    assert sorted(set(epochs)) == [1, 2, 3]


def wait_until(process: subprocess.Popen[str], run: Path, condition: Callable[[], bool]) -> None:
    """Wait for an effect of a driver while it runs, and its workers write the run."""

    def is_reached() -> bool:
        assert process.poll() is None, process.communicate()[0]
        return condition()

    hangs.until(is_reached, run, tick=0.05)


def has_trained_again(run: Path) -> bool:
    """Whether a run has resumed and trained a step since."""
    records = kills.records(run)
    starts = [index for index, record in enumerate(records) if str(record.get("text")).startswith("resumed from")]
    return bool(starts) and any(record["kind"] == "interval" for record in records[starts[-1] :])


def test_a_folder_that_other_machines_do_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with rendezvous.marker_file(tmp_path, "one"):
        rendezvous.check_shared(str(tmp_path), "one")
        rendezvous.check_shared("s3://bucket/x", "one")
        with pytest.raises(UsageError, match=r"does not see this folder.*NFS.*s3://"):
            rendezvous.check_shared(str(tmp_path), "another")
    assert not list(tmp_path.iterdir())
