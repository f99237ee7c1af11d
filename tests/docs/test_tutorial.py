"""docs/tutorial.md: its steps run in small, and examples/first_hour.py walks them and measures each."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from rendered import drawn_once
from scripts import load_script
from serve_fake import Wall, running

from depthray.__main__ import main
from serve.http import auth, routes
from serve.settings import Settings

first_hour = load_script("first_hour", ROOT / "examples")

SMALL = ["model.encoder=tiny", "model.weights=", "data.size=32,64", "train.epochs=1", "curriculum.sizes=[]"]


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Training in this process takes over the signals, which are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader of the page is: two folders of pictures and a photograph."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPTHRAY_LOG", "csv")
    with drawn_once():
        assert main(["data", "render", "my-frames", "--frames", "24", "--size", "48", "64"]) == 0
    Path("my-frames", "index.csv").unlink()
    shutil.copy("my-frames/rgb/000000.jpg", "photo.jpg")
    return tmp_path


def steps(port: str = "8000"):
    return list(first_hour.steps(first_hour.PAGE.read_text(encoding="utf-8"), port=port, training=SMALL))


def test_the_page_has_the_steps_of_a_first_hour() -> None:
    shown = steps()
    words = [step.title.split()[:2] for step in shown]
    assert [" ".join(each) for each in words] == [
        *("depthray data", "depthray data", "depthray data", "depthray train", "depthray evaluate"),
        *("depthray predict", "depthray export", "depthray serve", "curl --no-progress-meter", "a notebook"),
    ]
    assert [step.serves for step in shown].count(True) == 1 and shown[7].serves
    assert shown[3].argv[-len(SMALL) :] == SMALL and shown[8].output == "depth.png"


def test_another_port_reaches_all_steps() -> None:
    serve, curl, cell = steps("8123")[-3:]
    assert serve.argv[-2:] == ["--port", "8123"]
    assert "http://localhost:8123/v1/depth" in curl.argv and "http://localhost:8123" in cell.argv[-1]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl: apt-get install curl")
@pytest.mark.usefixtures("folder")
def test_the_steps_run_in_small(capsys: pytest.CaptureFixture[str]) -> None:

    async def page() -> bytes:
        return b""

    with running(routes.create(Wall(), Settings(), keys=auth.Keys(), metrics_page=page)) as address:
        for step in steps(address.rsplit(":", 1)[1]):
            if step.argv[:3] == [sys.executable, "-m", "depthray"]:
                if step.argv[3] not in ("serve", "export"):  # a fake answers; exports have tests of their own
                    assert main(step.argv[3:]) == 0, step.title
            elif step.output:
                done = subprocess.run([*step.argv, "--silent", "--fail"], capture_output=True, check=True, timeout=30)
                assert done.stdout.startswith(b"\x89PNG")
            else:
                exec(compile(step.argv[-1], "cell", "exec"), {})  # noqa: S102 - our own page
    assert Path("predictions/photo.ply").is_file() and list(Path("runs/first/evaluations").glob("*/sheet.png"))
    assert "(48, 64)" in capsys.readouterr().out


def test_plain_copies_are_larger_and_have_no_index(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    (frames / "depth").mkdir(parents=True)
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(frames / "a.jpg")
    Image.fromarray(np.array([[0, 1500]] * 2, np.uint16)).save(frames / "depth" / "a.png")
    with (frames / "index.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["rgb", "depth", "scene"], ["a.jpg", "depth/a.png", "s"]])
    first_hour.prepare(tmp_path / "new", frames)
    assert sorted(path.name for path in (tmp_path / "new").rglob("*.*")) == ["a.jpg", "a.png", "photo.jpg"]
    with Image.open(tmp_path / "new" / "my-frames" / "depth" / "a.png") as depth:
        assert depth.size == (640, 480) and set(np.unique(np.asarray(depth))) == {0, 1500}  # nothing between


def step(code: str, **more):
    return first_hour.Step("a step", [sys.executable, "-c", code], **more)


def test_a_walk_measures_silence_and_keeps_the_output(tmp_path: Path) -> None:
    walk = first_hour.Walk(tmp_path)
    assert walk.make(step("import time; print('one'); time.sleep(0.4); print('two')"))
    assert 0.3 < walk.walked[0].silence < walk.walked[0].seconds
    assert walk.make(step("print('three')", output="file.txt"))
    assert (tmp_path / "file.txt").read_text() == "three\n"
    assert not walk.make(step("raise SystemExit(3)"))
    assert walk.walked[-1].code == 3 and "a step" in walk.table()
    assert (tmp_path / "first-hour.log").read_text().splitlines()[1:4] == ["$ a step", "one", "two"]


def test_a_walk_ends_its_server_in_order(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "try:\n    print('next: ask me', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open('ended', 'w').close()"
    )
    walk = first_hour.Walk(tmp_path)
    assert walk.make(step(code, serves=True)) and walk.walked[0].code is None
    walk.end()
    assert (tmp_path / "ended").is_file()
    assert not walk.make(step("print('no server')", serves=True))


def test_the_walk_stops_at_a_step_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    made = []

    def fail(walk, step):
        made.append(step.title)
        walk.walked.append(first_hour.Walked(step, 3, 0.1, 0.1))
        return False

    monkeypatch.setattr(first_hour, "prepare", lambda folder, frames: None)
    monkeypatch.setattr(first_hour.Walk, "make", fail)
    assert first_hour.main([str(tmp_path / "hour")]) == 1
    assert len(made) == 1 and "depthray data index" in capsys.readouterr().out
