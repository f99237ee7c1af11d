"""A search folder as numbers: they must not mislead, however the search went."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import searches

from depthray.cli.train import build_parser, load_recipe
from depthray.config import recipe as recipes
from depthray.errors import UsageError
from tuning.space.dimension import Dimension
from tuning.study.budget import budget
from tuning.study.importance import importance, importance_of
from tuning.study.outcome import Outcome
from tuning.study.study import Study, best_recipe, train_line
from tuning.study.tables import as_csv, as_json
from tuning.study.warnings import warnings

RATES = {"optim.lr": {"loguniform": [1e-5, 1e-2]}}
ODD: dict[str, dict[str, Any]] = {
    **searches.UNUSUAL,
    "some of each": {"trials": 12, "running": 2, "waiting": 3},
    "population": {"history": True, "objectives": ("latency_ms", "parameters")},
    "higher": {"metric": "delta1", "gpus": 0.5},
}


def made(tmp_path: Path, **options: Any) -> Study:
    return Study.read(searches.make(tmp_path / "search", **options))


def trial(study: Study, name: str) -> Outcome:
    return next(each for each in study.trials if each.name == name)


def four(tmp_path: Path, scores: list[float], **options: Any) -> Path:
    """A search of four trials with these scores, all done, without repeats by default."""
    return searches.make(tmp_path / "search", points=searches.POINTS, scores=scores, space=RATES, stopped=0, **options)


def kinds(study: Study) -> list[str]:
    return [each.kind for each in warnings(study)]


@pytest.mark.parametrize("options", ODD.values(), ids=ODD)
def test_a_study_holds_however_the_search_went(options: dict[str, Any], tmp_path: Path) -> None:
    study = made(tmp_path, **options)
    tree = json.loads(json.dumps(as_json(study), allow_nan=False))
    assert len(tree["trials"]) == len(study.trials)
    rows = list(csv.DictReader(io.StringIO(as_csv(study))))
    assert [row["name"] for row in rows] == [each.name for each in study.trials]
    assert (study.winner is None) == (not study.ranking) == ("none" in kinds(study))
    assert sum(importance(study).shares.values()) == pytest.approx(1) or not any(importance(study).shares.values())
    assert (budget(study).left is None) or not study.search.ended
    if study.winner is None:
        with pytest.raises(UsageError, match="no searched trial has a finite abs_rel"):
            best_recipe(tmp_path / "search", study)
    else:
        assert best_recipe(tmp_path / "search", study).train.epochs == study.search.epochs


def test_a_score_is_the_best_of_the_finite_epochs(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.3, 0.4, 0.5, 0.6])
    searches.change(folder, "0001", scores=[math.nan, 0.31, 0.25, 0.25, math.nan])
    found = trial(Study.read(folder), "0001")
    assert (found.score, found.best_epoch, found.epochs, found.last) == (0.25, 3, 5, None)
    assert found.scores[:2] == ((1, None), (2, 0.31))


def test_a_score_that_is_better_when_higher_is_ranked_so(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.7, 0.8, 0.6, 0.5], metric="delta1", repeats=0)
    searches.change(folder, "0003", scores=[0.9, 0.6])
    study = Study.read(folder)
    assert [each.name for each in study.ranking] == ["0003", "0002", "0001", "0004"]
    gain = study.gain_over_median()
    assert gain is not None
    assert gain.absolute == pytest.approx(0.9 - 0.75)


def test_seeds_decide_between_the_best(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.21, 0.4, 0.5], default=False)
    searches.change(folder, "0001-seed1", scores=[0.26])
    searches.change(folder, "0001-seed2", scores=[0.27])
    study = Study.read(folder)
    first, winner = study.ranking[0], study.winner
    assert winner is not None
    assert (first.name, winner.name) == ("0001", "0002")
    assert first.seeds == (0.20, 0.26, 0.27)
    assert first.mean == pytest.approx(0.73 / 3)
    assert first.spread == pytest.approx(math.sqrt((0.04333333**2 + 0.01666667**2 + 0.02666667**2) / 2))
    assert study.ranking[2].spread is None


def test_a_lost_repeat_ranks_its_configuration_lower(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.21, 0.4, 0.5])
    searches.change(folder, "0001-seed2", scores=[math.nan])
    study = Study.read(folder)
    winner = study.winner
    assert winner is not None
    assert winner.name == "0002"
    assert (study.ranking[0].lost, len(study.ranking[0].seeds)) == (1, 2)


def test_a_repeat_counts_when_it_has_ended(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.21, 0.4, 0.5])
    searches.change(folder, "0001-seed1", state="running", scores=[0.9])
    assert len(Study.read(folder).ranking[0].seeds) == 2


def test_a_failed_trial_never_wins(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.21, 0.4, 0.5], repeats=0)
    searches.change(folder, "0001", state="failed", error="OutOfMemoryError: no memory")
    study = Study.read(folder)
    assert [each.name for each in study.ranking] == ["0002", "0003", "0004"]
    assert "1 trial of 5 failed: OutOfMemoryError: no memory" in [each.text for each in warnings(study)]


def test_the_gain_is_that_of_the_means_and_compared_with_the_spread_of_seeds(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.3, 0.4, 0.5], top=1)
    searches.change(folder, "default", scores=[0.25])
    searches.change(folder, "default-seed1", scores=[0.26])
    searches.change(folder, "default-seed2", scores=[0.24])
    gain = Study.read(folder).gain()
    assert gain is not None
    assert gain.absolute == pytest.approx(0.05)
    assert gain.relative == pytest.approx(0.2)
    assert gain.spread == pytest.approx(math.hypot(0.002, 0.01))
    assert gain.clear
    searches.change(folder, "default-seed1", scores=[0.18])
    searches.change(folder, "default-seed2", scores=[0.32])
    study = Study.read(folder)
    assert (gain := study.gain()) is not None
    assert not gain.clear
    assert "seeds" in kinds(study)


def test_without_repeats_the_effect_of_the_seed_is_unknown(tmp_path: Path) -> None:
    study = Study.read(four(tmp_path, [0.20, 0.3, 0.4, 0.5], repeats=0))
    gain = study.gain()
    assert gain is not None
    assert (gain.spread, gain.clear) == (None, None)
    assert "the gain may be luck of the seed" in " ".join(each.text for each in warnings(study))


def test_the_default_is_compared_with_when_it_has_ended(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.20, 0.3, 0.4, 0.5], repeats=0)
    searches.change(folder, "default", state="running", scores=[0.9])
    study = Study.read(folder)
    assert study.default is None
    assert study.gain() is None
    assert "default" in kinds(study)


def test_a_searched_trial_of_the_recipes_own_values_stands_for_the_default(tmp_path: Path) -> None:
    points = [*searches.POINTS, {"optim.lr": 0.003}]
    options: dict[str, Any] = {"points": points, "default": False, "repeats": 0, "stopped": 0, "space": RATES}
    study = made(tmp_path, scores=[0.2, 0.3, 0.4, 0.5, 0.6], **options)
    assert (default := study.default) is not None
    assert default.name == "0005"
    study = Study.read(searches.make(tmp_path / "other", scores=[0.6, 0.5, 0.4, 0.3, 0.2], **options))
    assert study.gain() is None
    assert "it is the winner" in " ".join(each.text for each in warnings(study))


def test_hours_used_wasted_and_saved(tmp_path: Path) -> None:
    study = made(tmp_path, trials=12, repeats=0, default=False)
    found = budget(study)
    # 5 s and 30 s an epoch: one failed after one, one was NaN for four, three were stopped after two.
    assert found.unit == "CPU"
    assert found.used * 3600 == pytest.approx(8 * 125 + 3 * 65 + 35)
    assert (found.wasted_trials, found.saved_trials) == (2, 3)
    assert found.wasted * 3600 == pytest.approx(125 + 35)
    assert found.saved * 3600 == pytest.approx(3 * 2 * 30)
    assert (found.left, found.left_seconds) == (None, None)
    assert found.wall_seconds == study.search.ended - study.search.started


def test_hours_are_those_of_gpus_where_there_are_any(tmp_path: Path) -> None:
    found = budget(made(tmp_path, trials=2, gpus=0.5, stopped=0, repeats=0, default=False))
    assert found.unit == "GPU"
    assert found.used * 3600 == pytest.approx(2 * 125 * 0.5)


def test_what_is_left_while_it_runs(tmp_path: Path) -> None:
    study = made(tmp_path, trials=8, running=2, waiting=2, stopped=0, top=2, repeats=1)
    found = budget(study)
    # Two epochs of each running trial, two trials that wait, three repeats that are not there yet; two at a time.
    seconds = 2 * 2 * 30 + 2 * 125 + 3 * 125
    assert found.left is not None
    assert found.left * 3600 == pytest.approx(seconds)
    assert found.left_seconds == pytest.approx(seconds / 2)


def test_what_is_left_ends_with_the_time_it_was_given(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "search", trials=8, running=2, waiting=2)
    settings = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    (folder / "search.json").write_text(json.dumps({**settings, "hours": 0.125}), encoding="utf-8")
    found = budget(Study.read(folder))
    assert found.left_seconds == 450 - found.wall_seconds > 0


def test_what_is_left_is_not_known_before_the_first_epoch(tmp_path: Path) -> None:
    found = budget(made(tmp_path, trials=4, waiting=4, default=False))
    assert (found.used, found.left, found.left_seconds) == (0, None, None)


@pytest.mark.parametrize("method", ["PED-ANOVA", "rank correlation"])
def test_importance_finds_what_decided(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if method != "PED-ANOVA":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    study = made(tmp_path, trials=40, stopped=0, failed=0, nan=0)
    found = importance(study)
    assert (found.method, found.trials, found.doubt) == (method, 40, "")
    assert next(iter(found.shares)) == "optim.lr"
    assert found.shares["optim.lr"] > found.shares["optim.name"]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.shares) == set(searches.SPACE)


@pytest.mark.parametrize("installed", [True, False])
def test_importance_of_few_equal_or_odd_trials(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rate = Dimension("a", "loguniform", 1e-3, 1e-1)
    assert importance_of([], {"a": rate}).shares == {}
    assert "at least two" in importance_of([({"a": 1e-2}, 0.1)], {"a": rate}).doubt
    equal = importance_of([({"a": 1e-2}, 0.1), ({"a": 2e-2}, 0.1), ({"a": 3e-2}, 0.1)], {"a": rate})
    assert equal.shares == {"a": 0.0}
    assert "3 finished trials" in equal.doubt
    rows = [({"a": 10.0 ** -(n % 5), "b": [n % 2, 1], "c": None, "d": bool(n % 3)}, float(n % 5)) for n in range(12)]
    odd = importance_of(rows, {"a": rate, "b": None, "c": None, "d": Dimension("d", "choice", values=(True, False))})
    assert next(iter(odd.shares)) == "a"  # which left its range
    assert odd.shares["c"] == 0


def test_importance_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    importance(made(tmp_path, trials=3))
    assert capfd.readouterr() == ("", "")


def test_a_best_value_at_the_end_of_its_range_is_reported(tmp_path: Path) -> None:
    points = [{"optim.lr": 9.9e-3, "augment.hflip": 1.0}, {"optim.lr": 1e-4, "augment.hflip": 0.5}]
    space = {**RATES, "augment.hflip": {"uniform": [0, 1]}}
    study = made(tmp_path, points=points, scores=[0.2, 0.3], stopped=0, space=space)
    edges = {each.key: each.text for each in warnings(study) if each.kind == "edge"}
    assert "the best optim.lr, 0.0099, is at the high end of what was searched (1e-05 to 0.01)" in edges["optim.lr"]
    assert "search further there" in edges["optim.lr"]
    assert "the recipe allows no values beyond" in edges["augment.hflip"]


def test_of_two_choices_none_is_at_an_end(tmp_path: Path) -> None:
    points = [{"augment.hflip": 0.0}, {"augment.hflip": 0.5}]
    study = made(tmp_path, points=points, scores=[0.2, 0.3], stopped=0, space={"augment.hflip": {"choice": [0, 0.5]}})
    assert "edge" not in kinds(study)


def test_a_key_that_had_one_value_is_reported(tmp_path: Path) -> None:
    points = [{"optim.lr": rate, "augment.hflip": same} for rate, same in ((1e-3, 0), (1e-4, 0.0), (3e-4, 0))]
    study = made(tmp_path, points=points, stopped=0, space={**RATES, "augment.hflip": {"choice": [0, 0.5, 1]}})
    assert [each.key for each in warnings(study) if each.kind == "unused"] == ["augment.hflip"]
    assert importance(study).shares["augment.hflip"] == 0


def test_a_metric_that_still_improves_is_reported(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.2, 0.3, 0.4, 0.5])
    searches.change(folder, "0001", scores=[0.4, 0.3, 0.25, 0.2])
    assert "by 25%" in next(each.text for each in warnings(Study.read(folder)) if each.kind == "budget")
    searches.change(folder, "0001", scores=[0.4, 0.3, 0.2001, 0.2])
    assert "budget" not in kinds(Study.read(folder))
    searches.change(folder, "0001", scores=[0.4, 0.2, 0.25, 0.3])
    assert "budget" not in kinds(Study.read(folder))


def test_overrides_of_a_population_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.2, 0.3, 0.4, 0.5], repeats=0)
    history = [{"epoch": 3, "words": {"optim.lr": 5e-4}, "from": "0002"}]
    searches.change(folder, "0001", scores=[0.4, 0.35, 0.3, 0.2], history=history)
    study = Study.read(folder)
    assert best_recipe(folder, study).optim.lr == 5e-4
    assert "population" in kinds(study)
    searches.change(folder, "0001", scores=[0.4, 0.1, 0.3, 0.2], history=history)
    study = Study.read(folder)
    assert best_recipe(folder, study).optim.lr == 3e-5
    assert "population" not in kinds(study)


def test_the_pareto_front_has_what_no_other_beats(tmp_path: Path) -> None:
    folder = four(tmp_path, [0.2, 0.3, 0.4, 0.5], repeats=0)
    for name, latency in (("0001", 30.0), ("0002", 20.0), ("0003", 25.0)):
        searches.change(folder, name, latency_ms=latency)
    study = Study.read(folder)
    assert study.objectives == ("abs_rel", "latency_ms")
    assert [each.name for each in study.pareto()] == ["0001", "0002"]  # 0003 is beaten, 0004 was not measured


def limited(tmp_path: Path, **latencies: float) -> Study:
    """A search of four trials, the first the best, that limits the latency to 20 ms, with these measured."""
    space = {**RATES, "constraints": {"latency_ms": 20}}
    folder = searches.make(tmp_path / "search", points=searches.POINTS, scores=[0.2, 0.3, 0.4, 0.5], space=space, top=0)
    for name, latency in latencies.items():
        searches.change(folder, name.removeprefix("t"), latency_ms=latency)
    return Study.read(folder)


def test_a_trial_beyond_a_constraint_is_never_the_best(tmp_path: Path) -> None:
    study = limited(tmp_path, t0001=20.1, t0003=20.0, t0004=5.0, default=30.0)
    assert study.winner is not None and study.winner.name == "0003", "0001 is beyond, and 0002 was not measured"
    assert [each.name for each in study.ranking] == ["0002", "0003", "0004", "0001"]
    assert [each.name for each in study.infeasible] == ["0001"]
    assert [each.name for each in study.pareto()] == ["0003", "0004"]
    texts = [each.text for each in warnings(study) if each.kind == "infeasible"]
    assert texts == [
        "1 trial of 4 beyond latency_ms <= 20, and so never the best: 0001",
        "the baseline recipe is beyond latency_ms <= 20 itself",
    ]
    assert as_json(study)["infeasible"] == ["0001"]
    assert study.provenance()["constraints"] == "latency_ms <= 20"
    assert best_recipe(tmp_path / "search", study).optim.lr == searches.POINTS[2]["optim.lr"]


def test_where_all_are_beyond_a_constraint_there_is_no_best(tmp_path: Path) -> None:
    study = limited(tmp_path, t0001=21.0, t0002=22.0, t0003=23.0, t0004=24.0)
    assert study.winner is None and study.gain() is None and study.pareto() == []
    assert kinds(study)[:2] == ["none", "infeasible"]
    with pytest.raises(UsageError, match="no searched trial within latency_ms <= 20"):
        best_recipe(tmp_path / "search", study)


def test_with_one_objective_the_front_is_the_best(tmp_path: Path) -> None:
    study = Study.read(four(tmp_path, [0.4, 0.3, 0.3, 0.5], repeats=0))
    assert [each.name for each in study.pareto()] == ["0002", "0003"]


def test_the_printed_line_trains_the_winners_recipe(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "a search")
    study = Study.read(folder)
    recipe, winner = best_recipe(folder, study), study.winner
    assert winner is not None
    assert {key: recipes.flatten(recipe)[key] for key in winner.outcome.overrides} == winner.outcome.overrides
    assert train_line(study, recipe) == "depthray train best.yaml --workers 1 --cpus-per-worker 1"
    best = tmp_path / "a best.yaml"
    best.write_text(recipes.dump(recipe), encoding="utf-8")
    moved = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": "/data/of mine"})})
    line = train_line(study, moved, path=str(best))
    assert line.endswith(" --data '/data/of mine' --workers 1 --cpus-per-worker 1")
    given = load_recipe(build_parser().parse_intermixed_args(shlex.split(line)[2:]))
    assert given == moved


def test_the_table_has_a_line_a_trial_and_every_key_in_force(tmp_path: Path) -> None:
    study = made(tmp_path, trials=12)
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(as_csv(study)))}
    assert rows["default"]["optim.lr"] == "0.003"
    assert float(rows["0012"]["optim.lr"]) == trial(study, "0012").overrides["optim.lr"]
    assert rows["0002"]["score"] == ""
    assert rows["0007"]["error"] == searches.FAULT
    assert float(rows["0012"]["cpu_hours"]) == pytest.approx(125 / 3600)


def test_a_folder_without_a_search_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no search"):
        Study.read(tmp_path)


def test_a_copied_folder_is_the_same_study(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "search")
    assert Study.read(searches.copy(folder, tmp_path / "copy")) == Study.read(folder)


def test_reading_a_search_needs_neither_ray_nor_torch(tmp_path: Path) -> None:
    folder = searches.make(tmp_path / "search")
    code = f"""
import sys
from pathlib import Path
from tuning.study.study import Study
from tuning.study.tables import as_json
as_json(Study.read(Path({str(folder)!r})))
assert not {{"ray", "torch"}} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
