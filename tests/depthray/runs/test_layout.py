"""The names in a run's folder are written out in one module."""

from __future__ import annotations

import ast
from pathlib import Path

from paths import ROOT

from depthray.checkpoints import manifest, select
from depthray.runs import layout

# "ray", "trials" and "identity" are names in other subjects, too.
NAMES = {
    layout.RECIPE,
    layout.PROGRESS,
    layout.CHECKPOINTS,
    layout.EVALUATIONS,
    layout.STOP,
    layout.UPLOADING,
    layout.ERROR,
    layout.SEARCH,
    layout.SPACE,
    layout.TRIAL,
}
# The room of checkpoints is below that of runs and owns these two.
OWNERS = {
    "depthray/runs/layout.py": NAMES,
    "depthray/checkpoints/manifest.py": {manifest.RECIPE},
    "depthray/checkpoints/select.py": {select.FOLDER},
    "depthray/cli/runs.py": {layout.CHECKPOINTS},  # a heading
    "depthray/weights/obtain.py": {layout.CHECKPOINTS},  # torch's folder of downloads
}


def strings(path: Path) -> set[str]:
    """All string constants of a module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_other_module_writes_them_out() -> None:
    found = {}
    for package in ("depthray", "cluster", "tuning", "serve"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found[name] = strings(path) & NAMES - OWNERS.get(name, set())
    assert {name: names for name, names in found.items() if names} == {}


def test_results_are_kept_with_the_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / layout.CHECKPOINTS / "epoch-0001-step-00000002"
    inside = tmp_path / "run" / layout.EVALUATIONS / "epoch-0001-step-00000002-val"
    assert layout.evaluation(checkpoint, "val") == inside
    here = Path(layout.EVALUATIONS, "epoch-0001-step-00000002-val")
    assert layout.evaluation(checkpoint, "val", remote=True) == here
    assert layout.evaluation(tmp_path / "epoch-0001-step-00000002", "val") == here
