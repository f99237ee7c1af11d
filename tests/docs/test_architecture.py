"""The walks of docs/architecture.md name the files whose code runs, no more and no fewer."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from paths import ROOT

from depthray.__main__ import main
from depthray.checkpoints import save
from depthray.runs.run import prepare, record
from depthray.training import preflight
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.state import begin

CPU = torch.device("cpu")
LIBRARY = f"{ROOT / 'depthray'}{os.sep}"
IMPORTS = str(ROOT / "depthray" / "config" / "shadowed_packages.py")  # sees what others import when it is first needed
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SMALL = ["data.size=64,64", "train.batch_size=4", "model.encoder=tiny", "train.epochs=1", "curriculum.chunks=1"]


def walk(title: str) -> set[str]:
    """The files in the table of a section."""
    section = PAGE.split(f"## The walk of {title}\n")[1].split("\n## ")[0]
    return {
        file for row in re.findall(r"^\|.*\|$", section, re.MULTILINE) for file in re.findall(r"`(\w+/\S+\.py)`", row)
    }


@contextmanager
def files_run(seen: set[str]) -> Iterator[None]:
    """Collect the files of this project whose functions are called by the body, in this thread."""

    def look(frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename  # text: it is called very often
        if event == "call" and file.startswith(LIBRARY) and file != IMPORTS:
            seen.add(str(Path(file).relative_to(ROOT)))

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


def recorded(function: Callable[..., Any], seen: set[str]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        with files_run(seen):
            return function(*args, **options)

    return call


def test_every_file_of_a_step_is_in_its_walk(tmp_path: Path) -> None:
    shards = str(tmp_path / "shards")
    assert main(["data", "render", shards, "--layout", "shards", "--frames", "64", "--size", "64", "64"]) == 0
    words = [f"data.root={shards}", "data.source=shards", "train.log_seconds=0.01", "data.workers=0"]
    recipe = preflight.load("unet-resnet34", [*SMALL, *words])
    seen: set[str] = set()
    events: Any = fit(recipe, begin(recipe, CPU), Frames.open(recipe))
    with files_run(seen):
        threading.setprofile(sys.getprofile())  # for the thread of the loader, which is yet to start
        try:
            next(events)
            seen.clear()
            for _ in range(3):  # steps in the middle of an epoch, their samples loaded and augmented
                next(events)
        finally:
            threading.setprofile(None)
    events.close()
    assert seen == walk("one training step")


def test_every_file_of_a_save_is_in_its_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = preflight.load("demo", [*SMALL, "data.frames=24"])
    seen: set[str] = set()
    for name in ("save", "_write"):  # in the caller's thread, and in the writer's
        monkeypatch.setattr(save.CheckpointWriter, name, recorded(getattr(save.CheckpointWriter, name), seen))
    prepare(tmp_path / "run", recipe, resume=False)
    for _ in record(recipe, tmp_path / "run", CPU):
        pass
    assert seen == walk("a save")


@pytest.mark.parametrize("title", ["an HTTP depth request", "a Tune trial"])
def test_the_files_of_the_other_walks_exist(title: str) -> None:
    files = walk(title)
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).is_file()] == []
