"""The benchmark of large conversions compares what it has converted, and finds a folder that differs."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import pytest
from paths import ROOT
from scripts import load_script

from depthray.data.sources import open_source


def test_it_compares_what_one_and_several_processes_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script: Any = load_script("many_frames", ROOT / "benchmarks")
    monkeypatch.setattr(cv2, "setNumThreads", lambda _: None)

    def run_here(section: Any, plan: Any, processes: int, *, last: int | None = None) -> Any:
        """In this process, as processes that take seconds to start do it."""
        queue: SimpleQueue[Any] = SimpleQueue()
        for each in range(processes):
            ranges = plan.ranges[each::processes]
            script.work_on(section, plan, [number for number in ranges if last is None or number <= last], queue)
        said = [queue.get() for _ in range(queue.qsize())]
        assert all(progress.resident > 10 and progress.seconds > 0 for _, progress in said)
        return script.ConversionFigures(1.0, 1.0, [progress.resident for _, progress in said][:3])

    monkeypatch.setattr(script, "run", run_here)
    script.make_folder(tmp_path / "frames", 22, rooms=5, size=(24, 32))
    source = open_source(script.plan_of(tmp_path / "frames", tmp_path / "out", 4)[0])
    assert len({frame.id for frame in source.frames}) == 22
    assert (source.read(1)["image"] == source.read(6)["image"]).all()
    assert script.measure(tmp_path, processes=3, frames_per_shard=4) == 0
    assert "22 frames in 6 shards: the same bytes each time" in capsys.readouterr().out
    assert not (tmp_path / "several").exists()  # one copy is the most that the disk has to hold
    (tmp_path / "frames/other").write_bytes(b"x")
    before = script.digest_of(tmp_path / "frames")
    (tmp_path / "frames/other").write_bytes(b"y")
    assert script.digest_of(tmp_path / "frames") != before
