"""benchmarks/gpu.py runs on a machine that has PyTorch and neither Ray nor pydantic nor albumentations."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT
from scripts import load_script

from depthray.config import recipe as recipes

BLOCKED = ("ray", "pydantic", "pydantic_core", "albumentations")
CODE = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))  # None: an import of it fails
sys.path.insert(0, "benchmarks")
import gpu, json
from depthray.config import recipe as recipes
assert gpu.STOOD_IN
code = gpu.main(sys.argv[1:])
print(json.dumps({{name: recipes.read(name).model_dump(mode="json") for name in gpu.RECIPES}}))
sys.exit(code)
"""
CHECKS = {
    *("device", "arithmetic", "roofs", "trains", "half", "saves", "scores", "memory", "syncs", "steps", "loads"),
    *("resumes", "predicts", "latency", "compiles", "group"),
}


def test_its_checks_pass_on_a_cpu_without_the_heavy_packages() -> None:
    """And the recipes that the stand-in for pydantic reads are those that pydantic reads."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ["--device", "cpu", "--small", "--recipes", "demo"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, read = map(json.loads, done.stdout.splitlines())
    assert {line["check"].partition("/")[0] for line in lines} == CHECKS
    assert not [line for line in lines if line["ok"] is False or "error" in line]
    # What has a verdict on a CPU too has passed; the rest is a figure, or needs a GPU.
    passed = {line["check"].partition("/")[0] for line in lines if line["ok"]}
    assert passed >= {"arithmetic", "trains", "half", "saves", "scores", "memory", "resumes", "predicts", "group"}
    assert read == {name: recipes.read(name).model_dump(mode="json") for name in read}


def test_packages_that_are_missing_are_one_line() -> None:
    code = "import sys; sys.modules['tenacity'] = None; sys.path.insert(0, 'benchmarks'); import gpu"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stderr
    assert json.loads(done.stdout) == {"check": "packages", "ok": False, "missing": ["tenacity"]}


def test_no_check_begins_after_the_time_is_over_and_none_stops_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # to which the script adds its folders
    gpu = load_script("gpu", ROOT / "benchmarks")
    words = ["--device", "cpu", "--small", "--recipes", "demo"]
    assert gpu.main([*words, "--minutes", "0"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["why"] for line in lines} == {"no time left of 0 minutes"}

    def broken(*_: object) -> None:
        raise ZeroDivisionError("as if a kernel were missing")

    monkeypatch.setattr(gpu.right, "device", broken)
    assert gpu.main([*words, "--only", "device", "memory"]) == 1
    failed, passed = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (failed["ok"], failed["error"]) == (False, "ZeroDivisionError: as if a kernel were missing")
    assert passed["ok"]
