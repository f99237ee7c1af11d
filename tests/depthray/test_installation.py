"""Installations from a checkout: importable from any folder, and with all files of the packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

from depthray import __version__

PACKAGES = ("depthray", "cluster", "tuning", "serve")

BUILD = pytest.importorskip("hatchling.build", reason="hatchling is of depthray[dev], where it is new")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder named as the package, like a clone, with just what an installation needs."""
    folder = tmp_path / "depthray"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    return folder


def test_an_editable_installation_beats_a_folder_of_the_same_name(checkout: Path, tmp_path: Path) -> None:
    """In the folder above a clone, `depthray` is a folder without an __init__.py, which Python takes for a package."""
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / BUILD.build_editable(str(tmp_path))) as wheel:
        wheel.extractall(site)
    code = (
        f"import site; site.addsitedir({str(site)!r}); import depthray, serve; print(depthray.__file__, serve.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, env={}
    )
    assert done.stdout.split() == [str(checkout / each / "__init__.py") for each in ("depthray", "serve")], done.stderr


def test_a_wheel_has_every_file_of_the_packages_and_the_version(checkout: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / BUILD.build_wheel(str(tmp_path))) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = wheel.read(f"depthray-{__version__}.dist-info/METADATA").decode()
    files = {path.relative_to(checkout).as_posix() for each in PACKAGES for path in (checkout / each).rglob("*.*")}
    assert packed == files
    assert {"depthray/recipes/demo.yaml", "serve/page/index.html", "tuning/spaces/all.yaml"} <= packed
    assert f"Version: {__version__}\n" in metadata
