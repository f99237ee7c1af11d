"""A search of version 0.1.0 resumes on Ray (see tests/made_before; its models are in test_ray_serve)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import observe
from paths import ROOT

from depthray.__main__ import main

MADE = ROOT / "tests" / "made_before" / "v0.1.0"
EXPECTED = json.loads((MADE / "expected.json").read_text(encoding="utf-8"))


def test_a_killed_search_resumes_and_its_running_trial_ends_with_the_same_weights(
    tmp_path: Path, cluster_address: str
) -> None:
    search = Path(shutil.copytree(MADE / "searches" / "killed", tmp_path / "killed"))
    ended = {name: (search / "trials" / name / "trial.json").read_bytes() for name in ("default", "0000")}
    assert main(["tune", "--resume", str(search), "--address", cluster_address]) == 0

    before = EXPECTED["killed_resumed"]
    trials = observe.trials(search)
    assert {name: trial["state"] for name, trial in trials.items()} == {
        name: trial["state"] for name, trial in before["trials"].items()
    }
    for name, record in ended.items():
        assert (search / "trials" / name / "trial.json").read_bytes() == record, "what ended was run again"
        assert trials[name] == before["trials"][name]
    now = {"weights": observe.weights(search / "trials" / "0001"), "epochs": trials["0001"]["epochs"]}
    was = {"weights": before["weights"], "epochs": before["trials"]["0001"]["epochs"]}
    observe.check_resumed(now, was, EXPECTED["processor"])
    assert json.loads((search / "search.json").read_text(encoding="utf-8"))["ended"] > 0
