"""Search folders made by code, as `depthray tune` leaves them, on which studies and reports are tested.

The score of a trial is a smooth function of its overrides (`error`), so that the result of a study is known.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from depthray.config import recipe as recipes
from depthray.config.metric_names import rank_key
from tuning import records
from tuning.records import Search, Trial, TrialState

BEGAN = 1_800_000_000.0  # seconds since 1970
EPOCH_SECONDS = 30.0  # of training, an epoch
SETUP_SECONDS = 5.0  # a trial's resources are taken before its first step
FAULT = "RuntimeError: <script>alert('out of memory')</script> & more"
SPACE: dict[str, Any] = {
    "optim.lr": {"loguniform": [1e-5, 1e-2]},
    "loss.gradient": {"uniform": [0, 1]},
    "augment.hflip": {"choice": [0, 0.5, 1]},
    "optim.name": {"choice": ["adam", "adamw"]},
}
ABOUT = {"commit": "0123abc", "python": "3.11.2", "torch": "2.11.0", "data": "f" * 64, "hardware": "2 CPUs <test>"}

POINTS = [{"optim.lr": rate} for rate in (3e-5, 1e-4, 3e-4, 1e-3)]
UNUSUAL: dict[str, dict[str, Any]] = {
    "no trial": {"trials": 0, "default": False},
    "only the default": {"trials": 0},
    "one trial": {"trials": 1},
    "one trial alone": {"trials": 1, "default": False, "repeats": 0},
    "all failed": {"trials": 5, "failed": 5, "default": False},
    "all NaN": {"trials": 5, "nan": 5, "default": False},
    "all waiting": {"trials": 4, "waiting": 4, "default": False},
    "all running": {"trials": 4, "running": 4},
    "equal": {"points": POINTS, "scores": [0.3] * 4, "seed_effect": 0.0},
    "zero": {"points": POINTS, "scores": [0.0] * 4},
    "one epoch": {"epochs": 1},
}


@dataclass(frozen=True)
class _Plan:
    """A trial before its times are known: its overrides, its state and its scores by epoch (NaN: a lost one)."""

    trial: Trial
    scores: tuple[float, ...]


def error(words: Mapping[str, Any]) -> float:
    """The AbsRel of overrides: least at optim.lr=1e-3, loss.gradient=0.7; the optimiser hardly matters."""
    rate = math.log10(words.get("optim.lr", 3e-3)) + 3  # decades from 1e-3
    gradient = words.get("loss.gradient", 0.5) - 0.7
    other = 0.01 * (words.get("augment.hflip", 0.5) == 0) + 0.001 * (words.get("optim.name", "adamw") == "adam")
    return float(0.2 + 0.06 * rate**2 + 0.05 * gradient**2 + other)


def make(
    folder: Path,
    *,
    trials: int = 12,
    stopped: int | None = None,  # a quarter of the trials
    failed: int | None = None,  # one in twelve
    nan: int | None = None,  # one in twelve: no epoch has a finite score
    running: int = 0,
    waiting: int = 0,
    top: int = 2,
    repeats: int = 2,  # of the default too; none of a population, or while trials run or wait
    default: bool = True,
    points: Sequence[Mapping[str, Any]] | None = None,  # the overrides of each trial; otherwise sampled from SPACE
    scores: Sequence[float] | None = None,  # the best score of each trial; otherwise by `error`
    seed_effect: float = 0.002,  # added by seed 1, taken away by seed 2, and so on
    space: Mapping[str, Any] = SPACE,
    metric: str = "abs_rel",  # delta1 is made too
    objectives: Sequence[str] = (),  # besides the metric: latency_ms, parameters
    epochs: int = 4,
    history: bool = False,  # population based training: each finished trial copied another's overrides for epoch 3
    gpus: float = 0.0,
    about: Mapping[str, str] = ABOUT,
) -> Path:
    """A search folder with all of its trials. It has not ended if a trial runs or waits."""
    chosen = [dict(words) for words in points] if points is not None else _draw(trials)
    finals = list(scores) if scores is not None else [_score(error(words), metric) for words in chosen]
    number = len(chosen)
    counts = {
        "running": running,
        "waiting": waiting,
        "nan": number // 12 if nan is None else nan,
        "failed": number // 12 if failed is None else failed,
        "stopped": number // 4 if stopped is None else stopped,
    }
    fates = _fates(finals, metric, counts)
    plans = [
        _plan(f"{index + 1:04d}", words, fate=fate, score=final, metric=metric, epochs=epochs)
        for index, (words, fate, final) in enumerate(zip(chosen, fates, finals, strict=True))
    ]
    if history:
        plans = [_exploited(plan) if plan.trial.state == "done" else plan for plan in plans]
    if default:
        final = _score(error({}), metric)
        plans.append(_plan("default", {}, fate="done", score=final, metric=metric, epochs=epochs))
    if not running and not waiting and not history:
        plans += _repeats(plans, top=top, repeats=repeats, seed_effect=seed_effect, metric=metric, epochs=epochs)
    measured = [_measured(plan, objectives=objectives, gpus=gpus) for plan in plans]
    ended = _write(folder, measured, metric=metric, epochs=epochs)
    search = Search(
        recipe="demo",
        space=space,
        epochs=epochs,
        metric=metric,
        objectives=(metric, *objectives),
        searcher="random",
        scheduler="pbt" if history else "asha",
        trials=number,
        seed=0,
        top=top,
        repeats=repeats,
        workers=1,
        cpus=1.0,
        gpus=gpus,
        concurrent=2,
        started=BEGAN,
        ended=0.0 if running or waiting else ended,
        about=about,
    )
    records.write_search(folder, search)
    tree = (recipes.RECIPES / "demo.yaml").read_text(encoding="utf-8").replace("epochs: 16", f"epochs: {epochs}")
    (folder / "recipe.yaml").write_text(tree, encoding="utf-8")
    return folder


def change(folder: Path, name: str, *, scores: Sequence[float] | None = None, **fields: Any) -> None:
    """Give a trial of a made search other scores by epoch, or other fields of its record."""
    trial = next(each for each in records.read_trials(folder) if each.name == name)
    records.write_trial(folder, replace(trial, **fields))
    if scores is not None:
        metric = records.read_search(folder).metric
        _write_curve(folder / "trials" / name, scores, metric=metric, started=trial.started)


def copy(folder: Path, target: Path) -> Path:
    """A copy of the search folder, as on another machine."""
    return Path(shutil.copytree(folder, target))


def _draw(number: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(4)
    return [
        {
            "optim.lr": float(10 ** rng.uniform(-5, -2)),
            "loss.gradient": float(rng.uniform()),
            "augment.hflip": [0, 0.5, 1][rng.integers(3)],
            "optim.name": ["adam", "adamw"][rng.integers(2)],
        }
        for _ in range(number)
    ]


def _score(abs_rel: float, metric: str) -> float:
    return 1 - 1.5 * abs_rel if metric == "delta1" else abs_rel


def _fates(finals: Sequence[float], metric: str, counts: Mapping[str, int]) -> list[str]:
    """The end of each trial: the last ones wait or run, of the others the worst are lost, fail or are stopped."""
    order = list(range(len(finals)))
    late = [fate for fate in ("waiting", "running") for _ in range(counts[fate])]
    fates = dict(zip(reversed(order), late, strict=False))
    rest = sorted((n for n in order if n not in fates), key=lambda n: -rank_key(metric, finals[n]))
    worst = [fate for fate in ("nan", "failed", "stopped") for _ in range(counts[fate])]
    fates |= dict(zip(rest, worst, strict=False))
    return [fates.get(n, "done") for n in order]


def _plan(name: str, words: Mapping[str, Any], *, fate: str, score: float, metric: str, epochs: int) -> _Plan:
    ran = {"waiting": 0, "running": epochs // 2, "failed": 1, "stopped": max(1, epochs // 2)}.get(fate, epochs)
    state: TrialState = "done" if fate == "nan" else fate  # type: ignore[assignment]
    curve = [score + (0.4 if metric != "delta1" else -0.4) * (0.5**n - 0.5**ran) for n in range(1, ran + 1)]
    if fate == "nan" or not math.isfinite(score):
        curve = [math.nan] * ran
    trial = Trial(
        name=name,
        kind="default" if name == "default" else "search",
        of=name,
        words=words,
        state=state,
        error=FAULT if fate == "failed" else "",
        attempts=2 if fate == "failed" else int(fate != "waiting"),
        node="127.0.0.1" if ran else "",
    )
    return _Plan(trial, tuple(curve))


def _exploited(plan: _Plan) -> _Plan:
    words = {**plan.trial.words, "optim.lr": plan.trial.words.get("optim.lr", 1e-3) * 1.2}
    return replace(plan, trial=replace(plan.trial, history=({"epoch": 3, "words": words, "from": "0001"},)))


def _repeats(
    plans: Sequence[_Plan], *, top: int, repeats: int, seed_effect: float, metric: str, epochs: int
) -> list[_Plan]:
    """Repeats of the best searched trials, and of the default, under the seeds 1, 2, ..."""
    done = [plan for plan in plans if plan.trial.state == "done" and math.isfinite(plan.scores[-1])]
    best = sorted((plan for plan in done if plan.trial.kind == "search"), key=lambda p: rank_key(metric, p.scores[-1]))
    chosen = [*best[:top], *(plan for plan in done if plan.trial.kind == "default")]
    return [
        _repeat(plan, seed, effect=seed_effect, metric=metric, epochs=epochs)
        for plan in chosen
        for seed in range(1, repeats + 1)
    ]


def _repeat(plan: _Plan, seed: int, *, effect: float, metric: str, epochs: int) -> _Plan:
    score = plan.scores[-1] + effect * (1 if seed % 2 else -1)
    name, words = f"{plan.trial.name}-seed{seed}", {**plan.trial.words, "seed": seed}
    made = _plan(name, words, fate="done", score=score, metric=metric, epochs=epochs)
    return replace(made, trial=replace(made.trial, kind="repeat", of=plan.trial.name))


def _measured(plan: _Plan, *, objectives: Sequence[str], gpus: float) -> _Plan:
    """With the costs of its best checkpoint: the larger loss.gradient, the slower."""
    trial = replace(plan.trial, gpus=gpus)
    if trial.state == "done" and "latency_ms" in objectives:
        trial = replace(trial, latency_ms=20.0 + 10 * trial.words.get("loss.gradient", 0.5))
    if trial.state == "done" and "parameters" in objectives:
        trial = replace(trial, parameters=1_000_000)
    return replace(plan, trial=trial)


def _write(folder: Path, plans: Sequence[_Plan], *, metric: str, epochs: int) -> float:
    """Write the trials as two slots work through them; the time at which the last one ended."""
    folder.mkdir(parents=True, exist_ok=True)
    free = [BEGAN, BEGAN]
    for plan in plans:
        busy = SETUP_SECONDS + EPOCH_SECONDS * len(plan.scores) if plan.trial.state != "waiting" else 0.0
        slot = free.index(min(free))
        started, ended = free[slot], free[slot] + busy
        free[slot] = ended
        over = plan.trial.state in records.ENDED
        times = {"started": started if busy else 0.0, "ended": ended if over else 0.0, "busy_seconds": busy}
        records.write_trial(folder, replace(plan.trial, **times))  # type: ignore[arg-type]
        _write_curve(folder / "trials" / plan.trial.name, plan.scores, metric=metric, started=started)
    return max(free)


def _write_curve(run: Path, scores: Sequence[float], *, metric: str, started: float) -> None:
    if not scores:
        return
    lines = [
        {
            **{"kind": "epoch", "epoch": number, "step": 27 * number},
            **{"rmse": None if math.isnan(score) else 3 * abs(score), metric: None if math.isnan(score) else score},
            **{"train_loss": 1 / number, "lr": 1e-3, "bad_steps": 0.0, "seconds": EPOCH_SECONDS * number},
            "time": started + SETUP_SECONDS + EPOCH_SECONDS * number,
        }
        for number, score in enumerate(scores, 1)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    note = json.dumps({"kind": "note", "text": "made by a test", "time": started}) + "\n"
    (run / "progress.jsonl").write_text(note + text, encoding="utf-8")
