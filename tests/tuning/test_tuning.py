"""A search without a cluster: what is refused, what searchers and schedulers receive, what is stored on disk."""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import searches

from cluster.resources import Workers
from depthray.__main__ import main
from depthray.runs import progress
from tuning import command, plan, schedulers
from tuning.proposals import TPESearcher
from tuning.recorder import Recorder
from tuning.records import SearchLimits, Trial, curve, read_search, read_trials, write_search
from tuning.search import points, slots
from tuning.space.dimension import overrides
from tuning.space.space import parse
from tuning.trial import FAILED, FINISHED, OBJECTIVE, RUNTIME, WORST

SPACE = parse({"optim.lr": {"loguniform": [1e-4, 1e-2]}, "augment.hue": {"choice": [0, 0.05]}}, where="here")
WORDS = ["demo", "data.size=32,64", "data.frames=48", "train.batch_size=8"]


def proposals(**changes: Any) -> TPESearcher:
    given: dict[str, Any] = {
        "waiting": [],
        "numbers": range(20),
        "objectives": [OBJECTIVE],
        "seed": 0,
        "name": lambda number: f"{number:04d}",
    }
    given |= changes
    return TPESearcher(SPACE, given.pop("waiting"), **given)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--space", "learning-rates"], "did you mean 'learning-rate'"),
        (["--trials", "0"], "--trials 0 is too few"),
        (["--repeats", "-1"], "--repeats -1: below 0"),
        (["--objectives", "parameters"], "--objectives needs --search tpe and --scheduler none"),
        (["--constraints", "latency=20"], "did you mean 'latency_ms'"),
        (["--constraints", "latency_ms"], "give a name and a limit"),
        (["--space", "LIMITS"], "latency_ms is limited to a number above 0"),
        (["--workers-per-trial", "3"], "train.batch_size=8 .* --workers-per-trial 3"),
        (["--workers-per-trial", "2", "--gpus-per-worker", "0.5"], "part of a GPU is for trials of one worker"),
        (["--gpus-per-worker", "1.5"], "--gpus-per-worker 1.5: above 1 it is a whole number"),
        (["--search", "grid", "--space", "learning-rate"], "optim.lr: a grid needs single values"),
        (["--scheduler", "pbt"], "--search random"),
        (["--scheduler", "pbt", "--search", "random", "--space", "SIZES"], "which is impossible for data.size"),
        (["--space", "WRONG"], "unknown key 'optim.rl'"),
        (["--space", "EMPTY"], "optim.lr"),
        (["--space", "SEED"], "seed"),
        (["--space", "SPLIT"], "data.split"),
        (["--space", "EVAL"], "eval.protocol"),
        (["train.batch_size=64"], "do not fill one batch"),
        (["train.epohcs=3"], "did you mean 'epochs'"),
    ],
)
def test_mistakes_are_reported_before_anything_starts(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "SIZES": "data.size: {choice: [[32, 64], [64, 64]]}",
        "WRONG": "optim.rl: {uniform: [0, 1]}",
        "EMPTY": "optim.lr: {uniform: [1, 1]}",
        "SEED": "seed: {choice: [1, 2]}",
        "SPLIT": "data.split: {choice: [a, b]}",
        "LIMITS": "{optim.lr: {uniform: [0.001, 0.01]}, constraints: {latency_ms: -1}}",
        "EVAL": "eval.protocol: {choice: [plain, nyu-bts]}",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    flags = [str(tmp_path / f"{flag}.yaml") if flag in files else flag for flag in flags]
    out = tmp_path / "search"
    assert main(["tune", *WORDS, "--out", str(out), *flags]) in (2, 3)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error), error
    assert not out.exists()


def test_a_folder_with_a_search_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = searches.make(tmp_path / "search")
    assert main(["tune", *WORDS, "--out", str(folder)]) == 2
    assert f"continue it with --resume {folder}" in capsys.readouterr().err
    assert main(["tune", "--resume", str(tmp_path)]) == 2
    assert "holds no search" in capsys.readouterr().err
    assert main(["tune", "demo", "--resume", str(folder)]) == 2
    assert "leave out others" in capsys.readouterr().err
    assert main(["tune", "--constraints", "latency_ms=20", "--resume", str(folder)]) == 2
    assert "leave out others" in capsys.readouterr().err


def test_constraints_of_flags_and_of_the_space_are_those_of_the_search(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "{optim.lr: {uniform: [0.001, 0.01]}, constraints: {latency_ms: 30, parameters: 1e6}}", encoding="utf-8"
    )
    argv = [*WORDS, "--space", str(tmp_path / "space.yaml"), "--out", str(tmp_path / "search")]
    args = command.build_parser().parse_intermixed_args([*argv, "--constraints", "latency_ms=20"])
    folder, search, space = plan.begin(args)
    assert search.constraints == space.constraints == {"latency_ms": 20.0, "parameters": 1e6}
    write_search(folder, search)
    resumed = plan.resume(command.build_parser().parse_args(["--resume", str(folder)]))
    assert resumed.search.constraints == resumed.space.constraints == search.constraints


def test_only_budgets_may_change_when_a_search_is_resumed(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "search", trials=4)
    (folder / "space.yaml").write_text("optim.lr: {loguniform: [1e-4, 1e-2]}\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text("data: {source: synthetic, size: [32, 64], frames: 48}\n", encoding="utf-8")
    before = read_search(folder)
    argv = ["--resume", str(folder), "--trials", "40", "--hours", "2", "--search", "grid", "--seed", "9"]
    found = plan.resume(command.build_parser().parse_args(argv)).search
    assert (found.trials, found.hours, found.ended) == (40, 2.0, 0.0)
    assert replace(found, trials=before.trials, hours=before.hours, ended=before.ended) == before


@pytest.mark.parametrize(
    ("nodes", "workers", "capacity"),
    [
        ([{"CPU": 4}], Workers(1, 1), 4),
        ([{"CPU": 3}, {"CPU": 1}], Workers(1, 2), 1),
        ([{"CPU": 8, "GPU": 1}], Workers(1, 1, 0.5), 2),
        ([{"CPU": 8, "GPU": 1}], Workers(1, 1, 0.3), 3),
        ([{"CPU": 8, "GPU": 2}], Workers(1, 1, 0.4), 4),  # Ray places 2 on each, not 5 on both
        ([{"CPU": 8, "GPU": 3}], Workers(1, 1, 0.75), 3),
        ([{"CPU": 8, "GPU": 3}], Workers(1, 1, 2), 1),
        ([{"CPU": 8}, {"CPU": 2, "GPU": 4}], Workers(1, 1, 1), 2),
        ([{"CPU": 1}], Workers(1, 2), 0),
        ([], Workers(1, 1), 0),
    ],
)
def test_capacity_is_counted_node_by_node(nodes: list[dict[str, float]], workers: Workers, capacity: int) -> None:
    assert slots(nodes, workers) == capacity


def test_random_points_depend_on_the_seed_alone(tmp_path: Path) -> None:
    asked = replace(read_search(searches.make(tmp_path / "search")), searcher="random", trials=5, seed=3)
    assert points(asked, SPACE) == points(asked, SPACE)
    assert points(asked, SPACE) != points(replace(asked, seed=4), SPACE)
    assert points(replace(asked, trials=8), SPACE)[:5] == points(asked, SPACE), (
        "more trials leave the first as they are"
    )
    assert points(replace(asked, searcher="tpe"), SPACE) == []


def test_tpe_receives_ends_stops_failures_and_earlier_trials() -> None:
    found = proposals(numbers=range(4))
    found.add({"optim.lr": 1e-3, "augment.hue": 0.05}, [(1, 0.5), (2, 0.3)], [0.3])
    found.add({"optim.lr": 9e-3, "augment.hue": 0}, [(1, 0.9)], None)
    tasks = [found.suggest(f"t{number}")["trial"] for number in range(4)]
    assert [task["name"] for task in tasks] == ["0000", "0001", "0002", "0003"]
    assert all(
        1e-4 <= task["words"]["optim.lr"] <= 1e-2 and task["words"]["augment.hue"] in (0, 0.05) for task in tasks
    )
    assert found.suggest("more") == TPESearcher.FINISHED
    for epoch, score in ((1, 0.4), (2, 0.2), (3, 0.25)):
        found.on_trial_result("t0", {"epoch": epoch, OBJECTIVE: score})
    found.on_trial_complete("t0", {"epoch": 4, OBJECTIVE: 0.3, FINISHED: True})
    found.on_trial_result("t1", {"epoch": 1, OBJECTIVE: 0.8})
    found.on_trial_complete("t1", {"epoch": 1, OBJECTIVE: 0.8})
    found.on_trial_complete("t2", {FAILED: "it diverged"})
    found.on_trial_complete("t3", None, error=True)
    trials = found.study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert trials[2].value == 0.2, "a trial is worth its best epoch, whose checkpoint it ends with"


def test_tpe_receives_by_how_much_a_trial_is_beyond_a_constraint() -> None:
    found = proposals(numbers=range(3), constraints={"latency_ms": 20.0})
    words = {"optim.lr": 1e-3, "augment.hue": 0.05}
    found.add(words, [(1, 0.3)], [0.3], {"latency_ms": 30.0, "parameters": 5})
    found.add(words, [(1, 0.3)], None, {"latency_ms": None, "parameters": None})
    for name, latency in (("t0", 10.0), ("t1", 25.0), ("t2", math.nan)):
        found.suggest(name)
        found.on_trial_complete(name, {"epoch": 1, OBJECTIVE: 0.2, "latency_ms": latency, FINISHED: True})
    limits = [trial.constraints for trial in found.study.get_trials()]
    assert limits == [{"latency_ms": 0.5}, {}, {"latency_ms": -0.5}, {"latency_ms": 0.25}, {"latency_ms": WORST}]
    assert found.study.best_trial.number == 2, "of equal scores the one that is within the limit"


@pytest.mark.parametrize(("constraints", "expected"), [({"latency_ms": 20.0}, 1e-3), ({}, 1e-4)])
def test_tpe_searches_where_constraints_allow(constraints: dict[str, float], expected: float) -> None:
    found = proposals(numbers=range(40), constraints=constraints)
    rates = []
    for number in range(40):
        rates.append(found.suggest(f"t{number}")["trial"]["words"]["optim.lr"])
        # The lower the better, and the slower: the best that is allowed is 1e-3.
        result = {"epoch": 1, OBJECTIVE: rates[-1], "latency_ms": 20.0 * 1e-3 / rates[-1], FINISHED: True}
        found.on_trial_complete(f"t{number}", result)
    assert 0.6 * expected < statistics.median(rates[-15:]) < 2 * expected
    assert expected <= found.study.best_trial.value < 1.3 * expected


def test_a_trial_that_reports_one_epoch_only_is_worth_that_epoch() -> None:
    found = proposals(numbers=range(1))
    found.suggest("t0")
    found.on_trial_complete("t0", {"epoch": 3, OBJECTIVE: 0.25, FINISHED: True})
    assert found.study.get_trials()[0].value == 0.25


def test_waiting_tasks_come_first_and_the_baseline_is_no_trial_of_the_study() -> None:
    waiting = [
        {"name": "default", "words": {}, "judged": False},
        {"name": "0007", "words": {"optim.lr": 2e-3, "augment.hue": 0.05}, "judged": True},
    ]
    found = proposals(waiting=waiting, numbers=[8])
    assert [found.suggest(f"t{number}")["trial"]["name"] for number in range(3)] == ["default", "0007", "0008"]
    found.on_trial_complete("t0", {"epoch": 1, FINISHED: True})
    params = [trial.params for trial in found.study.get_trials()]
    assert len(params) == 2 and params[0] == {"optim.lr": 2e-3, "augment.hue": "0.05"}


def test_a_score_that_is_not_finite_is_the_worst() -> None:
    assert schedulers.objective("abs_rel", {"abs_rel": math.nan}) == WORST
    assert schedulers.objective("abs_rel", {"abs_rel": None}) == WORST
    assert schedulers.objective("abs_rel", {}) == WORST
    assert schedulers.objective("delta1", {"delta1": 0.9}) == -0.9


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_scheduler_of_a_resumed_search_stops_what_the_first_one_would_have(kind: str, tmp_path: Path) -> None:
    scores = [0.3 + 0.001 * number for number in range(6)]
    folder = searches.make(tmp_path / "search", trials=6, scores=scores, stopped=0, repeats=0)
    ended = [trial for trial in read_trials(folder) if trial.kind == "search"]
    asked = replace(read_search(folder), grace=1)
    scheduler: Any = schedulers.SCHEDULERS[kind](asked, SPACE)
    schedulers.replay(scheduler, folder, "abs_rel", ended)
    hopeless = SimpleNamespace(trial_id="new") if kind == "asha" else schedulers.EndedTrial("new")
    scheduler.on_trial_add(None, hopeless)
    assert scheduler.on_trial_result(None, hopeless, {"epoch": 1, OBJECTIVE: 0.9}) == "STOP"
    good = schedulers.EndedTrial("good")
    scheduler.on_trial_add(None, good)
    assert scheduler.on_trial_result(None, good, {"epoch": 1, OBJECTIVE: 0.1}) == "CONTINUE"


def test_overrides_of_a_population_stay_within_the_space() -> None:
    config = {"trial": {"words": {"optim.lr": 0.5, "augment.hue": 0.05}, "name": "0000", "judged": True}}
    assert schedulers.clip_to_space(config, space=SPACE)["trial"]["words"] == {"optim.lr": 1e-2, "augment.hue": 0.05}


def test_a_curve_leaves_out_what_a_rewind_made_void_and_a_line_cut_short(tmp_path: Path) -> None:
    for epoch, score in ((1, 0.5), (2, 0.4), (3, 0.3)):
        progress.append(tmp_path, {"kind": "epoch", "epoch": epoch, "abs_rel": score})
    progress.append(tmp_path, {"kind": progress.REWOUND, "epoch": 1, "text": "continues from epoch 1 of another trial"})
    progress.append(tmp_path, {"kind": "epoch", "epoch": 2, "abs_rel": math.nan})
    with (tmp_path / progress.FILE).open("a") as file:
        file.write('{"kind": "epo')
    assert [(epoch["epoch"], epoch["abs_rel"]) for epoch in curve(tmp_path)] == [(1, 0.5), (2, None)]
    assert curve(tmp_path / "nothing") == []


class TuneTrial:
    """A trial as Tune passes it to callbacks."""

    def __init__(self, name: str, words: dict[str, Any], error: Path | None = None) -> None:
        self.config = {"trial": {"name": name, "words": words, "judged": True}}
        self.storage = SimpleNamespace(trial_dir_name=name)
        self.last_result: dict[str, Any] = {}
        self.error_file = str(error) if error else None

    def get_ray_actor_ip(self) -> str:
        return "127.0.0.1"


def recorder(folder: Path, lines: list[str], limits: SearchLimits | None = None) -> Recorder:
    template = Trial(name="", kind="search", of="", words={}, gpus=1.0)
    return Recorder(folder, {}, template=template, metric="abs_rel", limits=limits or SearchLimits(), log=lines.append)


def test_the_end_of_a_trial_is_recorded(tmp_path: Path) -> None:
    lines: list[str] = []
    keeps = recorder(tmp_path, lines)
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback\nValueError: no such thing\n\n", encoding="utf-8")
    done, stopped, failed, lost = (TuneTrial(name, {"optim.lr": 1e-3}, tmp_path / "error.txt") for name in "abcd")
    for trial in (done, stopped, failed, lost):
        keeps.on_trial_start(0, [], trial)
        keeps.on_trial_result(0, [], trial, {"epoch": 1, OBJECTIVE: 0.5})
    last = {"epoch": 2, FINISHED: True, "latency_ms": 1.5, "parameters": 100, RUNTIME: "openvino"}
    keeps.on_trial_result(0, [], done, last)
    done.last_result, failed.last_result = last, {FAILED: "it diverged"}
    keeps.on_trial_recover(0, [], lost)
    keeps.on_trial_error(0, [], lost)
    for trial in (done, stopped, failed):
        keeps.on_trial_complete(0, [], trial)
        keeps.on_trial_complete(0, [], trial)  # Tune may report it twice
    kept = {trial.name: trial for trial in read_trials(tmp_path)}
    assert [kept[name].state for name in "abcd"] == ["done", "stopped", "failed", "failed"]
    assert (kept["a"].latency_ms, kept["a"].parameters, kept["a"].runtime) == (1.5, 100, "openvino")
    assert kept["c"].error == "it diverged" and kept["d"].error == "ValueError: no such thing"
    assert kept["d"].attempts == 2
    assert all(trial.ended >= trial.started > 0 for trial in kept.values())
    assert len(lines) == 5


def test_the_lines_of_trials_fit_in_80_columns(tmp_path: Path) -> None:
    lines: list[str] = []
    keeps = recorder(tmp_path, lines)
    words = {"data.size": [96, 128], "optim.lr": 0.00123456789, **{f"augment.key{n}": n / 7 for n in range(9)}}
    trial = TuneTrial("0003", words)
    keeps.on_trial_start(0, [], trial)
    trial.last_result = {FAILED: "loss.l1 is not finite"}
    keeps.on_trial_complete(0, [], trial)
    (text,) = lines
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.startswith("0003  failed  loss.l1 is not finite  [1 ended]")
    assert set(overrides(words)) <= set(text.split()), "each can be copied as it is"


def test_trials_that_only_a_limit_ended_wait_to_be_resumed(tmp_path: Path) -> None:
    limits = SearchLimits(gpu_seconds=1e-9)
    keeps = recorder(tmp_path, [], limits)
    trial = TuneTrial("a", {"optim.lr": 1e-3})
    keeps.on_trial_start(0, [], trial)
    keeps.on_trial_result(0, [], trial, {"epoch": 1, OBJECTIVE: 0.5})
    assert limits.reached
    keeps.on_trial_complete(0, [], trial)
    assert read_trials(tmp_path)[0].state == "waiting"


def test_overrides_that_change_in_training_become_a_history(tmp_path: Path) -> None:
    keeps = recorder(tmp_path, [])
    trial = TuneTrial("a", {"optim.lr": 1e-3})
    keeps.on_trial_start(0, [], trial)
    keeps.on_trial_result(0, [], trial, {"epoch": 1, OBJECTIVE: 0.5})
    trial.config = {"trial": {"name": "b", "words": {"optim.lr": 5e-3}, "judged": True}}
    for epoch in (3, 4):
        keeps.on_trial_result(0, [], trial, {"epoch": epoch, OBJECTIVE: 0.4})
    kept = read_trials(tmp_path)[0]
    assert kept.words == {"optim.lr": 1e-3}
    assert [dict(step) for step in kept.history] == [{"epoch": 3, "words": {"optim.lr": 5e-3}, "from": "b"}]


def test_a_copy_of_a_trial_names_that_trial_even_if_it_is_a_copy_itself(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "search", trials=2, repeats=0)
    scheduler: Any = schedulers.SCHEDULERS["pbt"](replace(read_search(folder), grace=1), SPACE)
    config = {"trial": {"name": "0000", "words": {"optim.lr": 1e-3, "augment.hue": 0}}}
    other = SimpleNamespace(config=config, storage=SimpleNamespace(trial_dir_name="0001"), trial_id="b")
    found, _ = scheduler._get_new_config(SimpleNamespace(trial_id="a"), other)
    assert found["trial"]["name"] == "0001" and config["trial"]["name"] == "0000"
