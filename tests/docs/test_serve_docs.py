"""The commands and the Python of docs/serving.md work as documented, against the real API with a fake network."""

from __future__ import annotations

import json
import runpy
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from doc_pages import Block, blocks, commands
from paths import ROOT
from serve_fake import Wall, running

from serve.http import auth, routes
from serve.settings import RequestLimits, Settings

TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = [block for block in blocks("console", "python") if block.page.name == "serving.md"]
STARTS = {
    ".txt": b"# HELP",
    ".png": b"\x89PNG",
    ".npy": b"\x93NUMPY",
    ".ply": b"ply\n",
    ".glb": b"glTF",
    ".zip": b"PK",
    ".webp": b"RIFF",
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    async def page() -> bytes:
        return b"# HELP a What.\n"

    with running(routes.create(Wall(), Settings(), keys=auth.Keys(), metrics_page=page)) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rgb = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    for name in ("room.jpg", "hall.jpg"):
        cv2.imwrite(str(tmp_path / name), rgb)
    cv2.imwrite(str(tmp_path / "measured.png"), np.full((48, 64), 1500, np.uint16))
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINES = [arguments for block in BLOCKS if block.language == "console" for arguments in commands(block.text)]


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl: apt-get install curl")
@pytest.mark.parametrize("arguments", LINES, ids=shlex.join)
def test_a_command_gets_the_documented_answer(arguments: list[str], url: str, folder: Path) -> None:
    curl = [argument.replace("http://localhost:8000", url) for argument in arguments]
    assert curl[0] == "curl"
    request, _, target = shlex.join(curl).partition(" '>' ")
    done = subprocess.run(
        [*shlex.split(request), "--silent", "--show-error", "--fail"], capture_output=True, timeout=30, check=True
    )
    if target:
        assert done.stdout.startswith(STARTS[Path(target).suffix])
    else:
        assert json.loads(done.stdout)["models"][0]["name"] == "room"
    if target.endswith(".zip"):
        (folder / target).write_bytes(done.stdout)
        with zipfile.ZipFile(target) as archive:
            assert archive.namelist() == ["0000.npy", "0001.npy", "index.json"]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=["client"])
def test_the_python_runs(block: Block, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("httpx")
    (folder / "tour.py").write_text(block.text.replace("http://localhost:8000", url), encoding="utf-8")
    names = runpy.run_path("tour.py")
    assert len(names["cloud"]) == 48 * 64 and names["glb"].startswith(b"glTF")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("(48, 64) room@0123456789ab") and len(lines) == 3


SH = [arguments for block in blocks("sh") if block.page.name == "serving.md" for arguments in commands(block.text)]


@pytest.mark.parametrize("arguments", SH, ids=shlex.join)
def test_a_command_of_ray_is_valid(arguments: list[str]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.scripts.scripts import cli as ray
        from ray.serve.scripts import cli as serve
    if arguments[0] == "export":
        return
    command = {"ray": ray, "serve": serve}[arguments[0]].commands[arguments[1]]
    command.make_context(arguments[1], arguments[2:])
    assert all((ROOT / argument).is_file() for argument in arguments if argument.endswith(".yaml"))


def test_the_page_lists_every_metric_with_its_labels() -> None:
    from serve.monitoring.telemetry import METRICS

    documented: dict[str, Any] = {}
    for line in TEXT.splitlines():
        if line.startswith("| `ray_depthray"):
            names, labels, _ = line.strip("| ").split(" | ")
            documented |= {
                name.strip("`"): {label.strip("`") for label in labels.split(", ")} for name in names.split(", ")
            }
    endings = {"counter": "_total", "gauge": "", "histogram": ""}
    assert documented == {f"ray_{name}{endings[one.kind]}": {*one.labels} for name, one in METRICS.items()}


def test_every_format_and_limit_of_the_page_is_as_the_code_has_it() -> None:
    from serve.http.query import COLOURED, MEDIA

    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| `") and line.count("|") == 4]
    documented = {
        row[1].strip(" `"): {media.strip(" `") for media in row[2].split(",")} for row in rows if "/" in row[2]
    }
    known = {form: {media for media, each in MEDIA.items() if each == form} for form in MEDIA.values()}
    assert documented == known | {"colour": set(COLOURED)}
    limits = RequestLimits()
    for number in (limits.body_bytes // 2**20, limits.pixels // 10**6, limits.side, limits.shortest_side):
        assert str(number) in TEXT.split("**Limits**")[1].split("\n\n")[0]
