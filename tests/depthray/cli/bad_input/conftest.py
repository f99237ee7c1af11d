"""Bad input through the command line, in process: an exit code and one line on stderr that names the mistake.

What a message must say in every detail is tested next to the code that says it; here each class of mistake is made once
as a user would make it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bad_input import ROOMS, SIZE, Fails
from frames import folder_dataset

from depthray.__main__ import main


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run the command line and see it end with a code and one line that contains `message`, besides warnings."""

    def run(code: int, *arguments: Any, message: tuple[str, ...] | str) -> None:
        capsys.readouterr()
        found = main([str(argument) for argument in arguments])
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("WARNING: ")]
        assert found == code, lines
        assert len(lines) == 1 and lines[0].startswith("depthray: "), lines
        for part in [message] if isinstance(message, str) else message:
            assert part in lines[0], lines[0]

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on rendered rooms. Not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "demo", "--local", *ROOMS, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be harmed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "grey.png"
    cv2.imwrite(str(path), np.full((40, 60, 3), 90, np.uint8))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folder_dataset(tmp_path / "data", size=SIZE)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file, where a folder is wanted."""
    path = tmp_path / "file"
    path.write_text("x")
    return path
