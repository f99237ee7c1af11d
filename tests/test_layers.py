"""Imports point one way: depthray <- cluster <- tuning, depthray <- serve; and the library never needs Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

MAY_IMPORT = {
    "depthray": {"depthray"},
    "cluster": {"depthray", "cluster"},
    "tuning": {"depthray", "cluster", "tuning"},
    "serve": {"depthray", "serve"},
}
OURS = set(MAY_IMPORT)
FILES = sorted(path for room in OURS for path in (ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level packages a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert names & OURS <= MAY_IMPORT[room]
    if room == "depthray":
        assert "ray" not in names


BLOCKED = """
import sys
sys.modules["ray"] = None  # any import of it fails
from pathlib import Path
from depthray.__main__ import main
run = Path(sys.argv[1])
words = "data.size=32,64 data.frames=24 train.batch_size=8 train.epochs=1 eval.batch_size=4".split()
assert main(["train", "demo", *words, "--local", "--out", str(run / "run")]) == 0
assert main(["evaluate", str(run / "run"), "--out", str(run / "scores")]) == 0
assert main(["data", "render", str(run / "new"), "--layout", "folder", "--frames", "1", "--size", "32", "64"]) == 0
image = next((run / "new").rglob("*.jpg"))
assert main(["predict", str(run / "run"), str(image), "--out", str(run / "out")]) == 0
assert list((run / "out").glob("*.png"))
"""


def test_the_library_trains_evaluates_and_predicts_with_ray_blocked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("argv", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from depthray.__main__ import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'ray', 'cv2', 'numpy', 'albumentations', 'pydantic', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_import_of_the_package_imports_nothing_heavy() -> None:
    code = "import sys, depthray; assert not {'torch', 'numpy', 'cv2', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
