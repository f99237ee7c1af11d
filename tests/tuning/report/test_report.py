"""The report of a search: complete, offline, and safe to open, however the search went."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import searches
import yaml
from report_html import HOSTILE, Page, checked

from depthray.errors import UsageError
from depthray.storage import local
from tuning import records
from tuning.report import build
from tuning.study.study import Study
from tuning.study.warnings import warnings

CASES: dict[str, dict[str, Any]] = {
    **searches.UNUSUAL,
    "usual": {},
    "some of each": {"trials": 16, "running": 2, "waiting": 3, "failed": 2, "nan": 1},
    "higher is better": {"metric": "delta1"},
    "objectives": {"objectives": ("latency_ms", "parameters")},
    "population": {"history": True, "epochs": 8},
    "GPUs": {"gpus": 1.0},
    "many": {"trials": 450},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


# -- every search -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_report_is_made_of_any_search(folder: Path, case: dict[str, Any]) -> None:
    searches.make(folder, **case)
    page = checked(build.write(folder, images=False).parent)
    study = Study.read(folder)
    shown = [each["data-trial"] for each in page.named("tbody") if "data-trial" in each]
    assert sorted(shown) == sorted(each.name for each in study.trials)
    states = [each["data-state"] for each in page.named("tbody") if "data-state" in each]
    assert sorted(states) == sorted(each.trial.state for each in study.trials)
    assert json.loads((folder / "study.json").read_text())["search"]["recipe"] == "demo"
    lines = list(csv.reader((folder / "trials.csv").read_text(encoding="utf-8").splitlines()))
    assert len(lines) == 1 + len(study.trials)
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("# Search over demo\n")
    assert (folder / "best.yaml").exists() == (study.winner is not None)
    for each in warnings(study):
        assert (each.key if each.kind == "unused" else " ".join(each.text[1:].split())) in page.text


def test_a_report_is_made_again_over_the_old_one(folder: Path) -> None:
    searches.make(folder, trials=3, running=3, default=False)
    first = build.write(folder, images=False).read_text(encoding="utf-8")
    shutil.rmtree(folder)
    searches.make(folder)
    second = build.write(folder, images=False).read_text(encoding="utf-8")
    assert "Best so far" in first and "Best configuration" in second
    assert not list(folder.glob(".writing-*"))


def test_a_copied_folder_has_the_same_report(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: searches.BEGAN + 9e5)
    searches.make(folder)
    elsewhere = searches.copy(folder, tmp_path / "elsewhere")
    pages = [build.write(each, images=False).read_text(encoding="utf-8") for each in (folder, elsewhere)]
    assert pages[0] == pages[1] and str(tmp_path) not in pages[0]


def test_a_report_without_images_needs_neither_ray_nor_torch(folder: Path) -> None:
    searches.make(folder, trials=4)
    code = f"""
import sys
from tuning.report import build
assert build.main([{str(folder)!r}, "--no-images"]) == 0
assert not {{"ray", "torch"}} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "best.yaml").is_file()


def test_a_missing_search_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no search"):
        build.main([str(tmp_path)])


def test_a_folder_that_cannot_be_written_to_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    searches.make(folder, trials=2)
    monkeypatch.setattr(local, "replace", refused)
    with pytest.raises(UsageError, match="search: cannot write the report: Permission denied; "):
        build.write(folder, images=False)


def test_a_removed_winner_leaves_no_best_recipe(folder: Path) -> None:
    searches.make(folder, trials=2, default=False)
    build.write(folder, images=False)
    for trial in (folder / "trials").iterdir():
        (trial / "progress.jsonl").unlink()
    build.write(folder, images=False)
    assert not (folder / "best.yaml").exists()
    assert "no configuration has a score" in checked(folder).text.lower()


# -- safety -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hostile(folder: Path) -> Path:
    """A search in which everything that can be text is hostile."""
    searches.make(folder, trials=6, failed=1, about={HOSTILE: HOSTILE, "commit": "\u202eabc"})
    search = records.read_search(folder)
    records.write_search(
        folder, replace(search, recipe=HOSTILE, searcher=HOSTILE, space={**search.space, "about": HOSTILE})
    )
    for trial in records.read_trials(folder):
        failed = trial.state == "failed"
        words = {**trial.words, "about": HOSTILE + trial.name, **({"model.encoder": HOSTILE} if failed else {})}
        error = f"{HOSTILE}\n{HOSTILE}" if failed else ""
        records.write_trial(folder, replace(trial, words=words, error=error, node=HOSTILE))
    return folder


def test_hostile_text_stays_text(hostile: Path) -> None:
    build.write(hostile, images=False)
    page = checked(hostile)
    assert page.named("title") and len(page.named("title")) > 1  # that of the page, and the tooltips
    assert "<script>alert(1)</script>" in page.text and "{{ 7*7 }}" in page.text
    assert "\x00" not in page.text and "\x1b" not in page.text
    markdown = (hostile / "report.md").read_text(encoding="utf-8")
    outside = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert "<script" not in outside and "<img" not in outside


def test_hostile_text_cannot_break_out_of_the_best_recipe(hostile: Path) -> None:
    build.write(hostile, images=False)
    tree = yaml.safe_load((hostile / "best.yaml").read_text(encoding="utf-8"))
    assert tree["about"].startswith("</script>") and tree["optim"]["lr"]


def test_the_policy_lets_in_one_script_and_nothing_else(folder: Path) -> None:
    searches.make(folder, trials=2)
    text = build.write(folder, images=False).read_text(encoding="utf-8")
    policy = next(each["content"] for each in Page(text).named("meta") if "http-equiv" in each)
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert f"script-src 'sha256-{digest}'" in policy
    assert text.index("Content-Security-Policy") < text.index("<style>") < text.index("<script>")


def test_half_a_surrogate_pair_is_no_end_of_a_report(folder: Path) -> None:
    searches.make(folder, trials=2, failed=1)
    path = next(path for path in (folder / "trials").glob("*/trial.json") if '"failed"' in path.read_text())
    path.write_text(path.read_text(encoding="utf-8").replace("RuntimeError", "\\ud800 RuntimeError"), encoding="utf-8")
    build.write(folder, images=False)
    assert "RuntimeError" in checked(folder).text
