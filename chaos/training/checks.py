"""What must hold of a run after it was killed or its storage failed."""

from __future__ import annotations

import json
import math
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from depthray.checkpoints import load, manifest, select
from depthray.runs import download, layout
from depthray.storage.remote import RemoteFolder, is_remote

KEPT, MONITOR = 2, "abs_rel"  # train.keep_best and eval.monitor of the recipe
Saved = dict[str, float]  # checkpoints and their scores, NaN for those without one


@dataclass
class Place:
    """Where a run lies: a folder, or an address and the working folder of this machine."""

    out: str

    @property
    def near(self) -> Path:
        return download.working_folder(self.out) if is_remote(self.out) else Path(self.out)

    def listed(self) -> Saved:
        """The checkpoints that are committed where the run lies, in a moment: nothing is read but their scores."""
        root = self.near / layout.CHECKPOINTS
        if is_remote(self.out):
            names = download.complete_checkpoints(RemoteFolder(self.out, retry_seconds=20))
        else:
            names = [path.name for path in select.committed(root)]
        return {name: _score(root / name) for name in names}

    def saved(self) -> Saved:
        """The checkpoints that are committed where the run lies; all of them verify, or CheckpointError."""
        if not is_remote(self.out):
            return _saved(self.near)
        with tempfile.TemporaryDirectory() as copy:
            self.fetch(Path(copy))
            return _saved(Path(copy))

    def fetch(self, to: Path) -> Path:
        """The run's checkpoints in a folder of this machine."""
        if not is_remote(self.out):
            return self.near
        store = RemoteFolder(self.out, retry_seconds=20)
        for name in download.complete_checkpoints(store):
            download.download_checkpoint(store, to, name)
        return to


def _saved(run: Path) -> Saved:
    paths = select.committed(run / layout.CHECKPOINTS)
    return {path.name: load.load(path, state=True).metrics.get(MONITOR, math.nan) for path in paths}


def _score(path: Path) -> float:
    with suppress(OSError):  # pruned at this moment
        value = json.loads((path / manifest.METRICS).read_bytes()).get(MONITOR)
        return math.nan if value is None else float(value)
    return math.nan


def step(name: str) -> int:
    at = select.CheckpointName.parse(name)
    return at.step if at else 0


def newest(saved: Saved) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max((step(name) for name in saved), default=0)


def none_lost(before: Saved, after: Saved) -> None:
    """All checkpoints of before are there, but for those that newer and better ones have replaced."""
    steps = {step(name) for name in after}
    for name, score in before.items():
        if step(name) in steps:
            continue
        assert newest(after) > step(name), f"lost: {name}, the newest is now at step {newest(after)}"
        better = sum(other <= score for other in after.values())
        assert math.isnan(score) or better >= KEPT, f"lost: {name}, one of the best"


def one_clear_line(code: int, output: str, codes: tuple[int, ...]) -> str:
    """The message a run ended with: one line, and an exit code that says what it is about."""
    lines = [line for line in output.splitlines() if line.startswith("depthray:")]
    assert code in codes, f"exit code {code}, {len(lines)} messages"
    assert len(lines) == 1, f"{len(lines)} messages"
    assert "Traceback" not in output, f"a traceback beside: {lines[0]}"
    assert not re.search(r"Exception in|Error:", output.replace(lines[0], "")), "an exception beside the message"
    return lines[0]


@dataclass
class Back:
    """How a run went back: how often, by how many steps at most, and when it first trained on."""

    times: int = 0
    steps: int = 0
    on_at: float | None = None


def reached(records: list[dict[str, object]]) -> int:
    """The furthest step that a run has logged."""
    return max((int(str(record["step"])) for record in records if record.get("kind") == "interval"), default=0)


def none_repeated(records: list[dict[str, object]], before: Saved, harmed: float) -> None:
    """Nothing that was saved before the harm was trained once more after it, even where the record of it is lost."""
    for record in records:
        if record.get("kind") == "interval" and float(str(record["time"])) > harmed:
            now = int(str(record["step"]))
            assert now > newest(before), f"trained step {now} again, step {newest(before)} was saved"


def no_silent_restart(records: list[dict[str, object]], before: Saved, furthest: int = 0) -> Back:
    """How the run went back, each time logged, and never behind what was saved before the first fault.

    `furthest` is a step it had reached before the first fault, for progress that was itself lost with a machine.
    """
    last, back = 0, Back()
    for record in records:
        if record.get("state") == "running":
            at = int(str(record["step"]))
            if at == last == 0:
                continue  # the first start
            back.times, back.steps = back.times + 1, max(back.steps, max(last, furthest) - at)
            last, furthest = at, 0
            assert last >= newest(before), f"resumed at step {last}, step {newest(before)} was saved"
        elif record.get("kind") == "interval":
            now = int(str(record["step"]))
            assert now > last, f"silently back from step {last} to {now}"
            last = now
            if back.times and back.on_at is None:
                back.on_at = float(str(record["time"]))
    return back
