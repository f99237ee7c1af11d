"""docs/python.md runs from its first line to its last, in small: a tiny network, and neither Ray nor an export."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doc_pages import FENCED
from paths import ROOT
from PIL import Image
from videos import grey_frames, write_video

import depthray

PAGE = ROOT / "docs" / "python.md"
SMALL = [
    *("data.size=32,64", "data.frames=24", "train.batch_size=8", "train.epochs=1", "eval.batch_size=4"),
    "train.log_seconds=0.001",
]


def in_small(function):
    """Training as the page has it, but of the demo, whose frames are rendered."""

    def call(recipe="", *overrides, data=None, **options):
        kept = [each for each in overrides if not each.startswith("train.epochs")]
        words = [] if options.get("resume") else ["demo", *SMALL, *kept]
        return function(*words, **options)

    return call


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("photo.jpg")
    write_video(tmp_path / "clip.mp4", grey_frames(3))
    asked = {}

    def only_checked(name, result):
        signature = inspect.signature(getattr(depthray, name))

        def call(*words, **options):
            asked[name] = signature.bind(*words, **options).arguments
            return result

        monkeypatch.setattr(depthray, name, call, raising=False)

    only_checked("export", None)
    only_checked("tune", depthray.TunedSearch(tmp_path / "search", best=None, finished=True))
    load = depthray.load
    monkeypatch.setattr(depthray, "load", lambda run: None if run == "exported" else load(run), raising=False)
    for name in ("train", "train_events"):
        monkeypatch.setattr(depthray, name, in_small(getattr(depthray, name)), raising=False)
    page: dict[str, Any] = {}
    for language, text in FENCED.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), page)  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert page["run"].finished and page["run"].path == (tmp_path / "runs" / "mine").resolve()
    assert page["depth"].shape == page["colours"].shape[:2] == (48, 64) and len(page["points"]) == 48 * 64
    assert (tmp_path / "depth.png").is_file() and (tmp_path / "scores" / "evaluation.csv").is_file()
    assert "training ended: all epochs done" in printed and len(page["metres"]) == 3
    assert asked["export"]["to"] == "onnx" and asked["tune"]["trials"] == 8
