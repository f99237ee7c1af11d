"""docs/own-code.md: its commands run, one after the other in a new folder, and its Python too."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_pages import blocks, commands
from own_package import forget

from depthray.__main__ import main
from depthray.testing.__main__ import main as check

PAGE = "own-code.md"
SMALL = ["data.size=32,32", "data.frames=8", "train.batch_size=4", "train.epochs=1", "eval.batch_size=2", "--local"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new folder; training in this process takes over the signals, which are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    forget(monkeypatch, tmp_path)
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_commands_of_the_page_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [argv for block in blocks("sh") if block.page.name == PAGE for argv in commands(block.text)]
    assert {argv[1] for argv in lines} == {"new", "train", "evaluate", "-m"}
    for argv in lines:
        forget(monkeypatch, home)  # each is a process of its own
        if argv[0] == "python":
            assert check(argv[3:]) == 0, argv
        else:
            encoder = ["model.encoder=tiny"] if "runs/huber" in argv else []
            assert main([*argv[1:], *(SMALL + encoder if argv[1] == "train" else [])]) == 0, argv
    assert sorted(path.name for path in home.glob("*.py")) == ["huber.py", "my_net.py", "pairs.py"]


def test_the_python_of_the_page_runs(home: Path) -> None:
    texts = [block.text for block in blocks("python") if block.page.name == PAGE]
    assert len(texts) == 2
    for text in texts:
        exec(compile(text, PAGE, "exec"), {})  # noqa: S102 - it is a page of this repository
