"""What must hold of a run after it was killed or its storage failed."""

from __future__ import annotations

import json
import math
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from depthray.checkpoints import load, manifest, remote_checkpoints, select
from depthray.runs import download, layout
from depthray.storage.remote import RemoteFolder, is_remote

KEPT, MONITOR = 2, "abs_rel"  # train.keep_best and eval.monitor of the recipe
Scores = dict[str, float]  # checkpoints and their scores, NaN for those without one


@dataclass
class RunLocation:
    """Where a run is stored: a folder, or an address and the working folder of this machine."""

    out: str

    @property
    def local_folder(self) -> Path:
        return download.working_folder(self.out) if is_remote(self.out) else Path(self.out)

    def list_scores(self) -> Scores:
        """The checkpoints that are committed where the run is stored; quick, as nothing is read but their scores."""
        # Scores are those of the working folder: reading them from a store would take longer than a step.
        root = self.local_folder / layout.CHECKPOINTS
        if is_remote(self.out):
            names = remote_checkpoints.complete_checkpoints(RemoteFolder(self.out, retry_seconds=20))
        else:
            names = [path.name for path in select.committed(root)]
        return {name: _read_score(root / name) for name in names}

    def verify_scores(self) -> Scores:
        """The checkpoints that are committed where the run is stored; all of them verify, or CheckpointError."""
        if not is_remote(self.out):
            return _verify_all(self.local_folder)
        # As another machine would have it: what counts is what the store holds.
        with tempfile.TemporaryDirectory() as copy:
            self.download(Path(copy))
            return _verify_all(Path(copy))

    def download(self, to: Path) -> Path:
        """The run's checkpoints in a folder of this machine."""
        if not is_remote(self.out):
            return self.local_folder
        store = RemoteFolder(self.out, retry_seconds=20)
        for name in remote_checkpoints.complete_checkpoints(store):
            remote_checkpoints.download_checkpoint(store, to, name)
        return to


def _verify_all(run: Path) -> Scores:
    paths = select.committed(run / layout.CHECKPOINTS)
    return {path.name: load.load(path, state=True).metrics.get(MONITOR, math.nan) for path in paths}


def _read_score(path: Path) -> float:
    with suppress(OSError):  # pruned at this moment
        value = json.loads((path / manifest.METRICS).read_bytes()).get(MONITOR)
        return math.nan if value is None else float(value)
    return math.nan


def step_of(name: str) -> int:
    at = select.CheckpointName.parse(name)
    return at.step if at else 0


def newest_step(saved: Scores) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max((step_of(name) for name in saved), default=0)


def check_none_lost(before: Scores, after: Scores) -> None:
    """All checkpoints of before are there, but for those that newer and better ones have replaced."""
    steps = {step_of(name) for name in after}  # by step: a step that is saved again gets another name
    for name, score in before.items():
        if step_of(name) in steps:
            continue
        assert newest_step(after) > step_of(name), f"lost: {name}, the newest is now at step {newest_step(after)}"
        # One without a score is kept only while it is the newest.
        better = sum(other <= score for other in after.values())
        assert math.isnan(score) or better >= KEPT, f"lost: {name}, one of the best"


def check_one_message(code: int, output: str, codes: tuple[int, ...]) -> str:
    """The message a run ended with: one line, and an exit code that says what it is about."""
    lines = [line for line in output.splitlines() if line.startswith("depthray:")]
    assert code in codes, f"exit code {code}, {len(lines)} messages"
    assert len(lines) == 1, f"{len(lines)} messages"
    assert "Traceback" not in output, f"a traceback besides: {lines[0]}"
    # Threads and Ray print errors without a traceback.
    assert not re.search(r"Exception in|Error:", output.replace(lines[0], "")), "an exception besides the message"
    return lines[0]


@dataclass
class Restarts:
    """How a run resumed: how often, how many steps it repeated at most, and when its first step after that was."""

    count: int = 0
    repeated_steps: int = 0
    trained_at: float | None = None


def furthest_step(records: list[dict[str, object]]) -> int:
    """The furthest step that a run has logged."""
    return max((int(str(record["step"])) for record in records if record.get("kind") == "interval"), default=0)


def check_none_repeated(records: list[dict[str, object]], before: Scores, harmed: float) -> None:
    """No step saved before the harm was trained again after it, even where the record of it is lost."""
    for record in records:
        if record.get("kind") == "interval" and float(str(record["time"])) > harmed:
            now = int(str(record["step"]))
            assert now > newest_step(before), f"trained step {now} again, step {newest_step(before)} was saved"


def check_restarts(records: list[dict[str, object]], before: Scores, furthest: int = 0) -> Restarts:
    """How the run resumed: each time logged, and never behind what was saved before the first fault.

    `furthest` is a step it had reached before the first fault, for progress that was itself lost with a machine.
    """
    last, restarts = 0, Restarts()
    for record in records:
        if record.get("state") == "running":
            at = int(str(record["step"]))
            if at == last == 0:
                continue  # the first start
            restarts.count += 1
            restarts.repeated_steps = max(restarts.repeated_steps, max(last, furthest) - at)
            last, furthest = at, 0  # records are lost with the first machine only
            assert last >= newest_step(before), f"resumed at step {last}, step {newest_step(before)} was saved"
        elif record.get("kind") == "interval":
            now = int(str(record["step"]))
            assert now > last, f"went back from step {last} to {now} without a record of it"
            last = now
            if restarts.count and restarts.trained_at is None:
                restarts.trained_at = float(str(record["time"]))
    return restarts
