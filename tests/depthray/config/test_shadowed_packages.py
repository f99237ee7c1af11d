"""Commands beside a user's own serve.py, cluster/ and tuning/: the package's are meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from depthray.config import shadowed_packages

USERS = ("serve.py", "cluster/__init__.py", "tuning/__init__.py")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a user's files of these names."""
    for name in USERS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the file of the user was imported')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [["serve", "list", "--store", "none"], ["tune", "--help"]])
def test_a_command_is_the_package_s(home: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = subprocess.run([sys.executable, "-m", "depthray", *command], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr


def test_workers_get_a_hook_only_where_something_hides_the_packages(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shadowed_packages.shadowed() == ["cluster", "serve", "tuning"]
    hook = {"worker_process_setup_hook": "depthray.config.shadowed_packages.install"}
    assert shadowed_packages.ray_arguments() == {"runtime_env": hook}
    for name in USERS:
        (home / name).unlink()  # folders without an __init__.py hide nothing
    assert shadowed_packages.ray_arguments() == {}
    monkeypatch.chdir(ROOT)
    assert shadowed_packages.ray_arguments() == {}, "these are the packages themselves"


def test_the_hook_finds_the_packages_and_nothing_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    shadowed_packages.install()
    shadowed_packages.install()
    finders = [each for each in sys.meta_path if isinstance(each, shadowed_packages.SiblingFinder)]
    assert len(finders) == 1
    for name in shadowed_packages.NAMES:
        spec = finders[0].find_spec(name)
        assert spec is not None and spec.origin == str(ROOT / name / "__init__.py")
    assert finders[0].find_spec("json") is None and finders[0].find_spec("mypkg.serve", ["x"]) is None


def test_a_function_whose_package_is_hidden_says_by_what(home: Path) -> None:
    code = "import depthray\ntry: depthray.tune\nexcept depthray.errors.UsageError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    assert f"'tuning' is hidden by {home / 'tuning' / '__init__.py'}" in done.stdout
