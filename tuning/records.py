"""What a search keeps on disk: one folder that any part of depthray can read without Ray and without unpickling.

SEARCH/search.json  recipe.yaml  space.yaml        what was requested, written first
SEARCH/trials/0007/                                a run like any other (recipe.yaml, progress.jsonl, tensorboard/,
                                                   checkpoints/), and trial.json
SEARCH/trials/0007-seed1/  default/                the overrides of 0007 again under seed 1; the baseline
SEARCH/report.html  report.md  trials.csv  best.yaml  study.json     the results, made again by `depthray report`
SEARCH/ray/                                        Tune's own files, never read back
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from depthray.errors import UsageError
from depthray.runs import layout, progress
from depthray.runs.layout import SEARCH, TRIAL, TRIALS
from depthray.storage import local
from tuning.space import constraints

TrialState = Literal["waiting", "running", "done", "stopped", "failed"]
ENDED: tuple[TrialState, ...] = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial: what it changes in the recipe, and how far it came."""

    name: str  # its folder below trials/
    kind: Literal["search", "repeat", "default"]
    of: str  # the trial whose overrides it repeats under another seed; otherwise its own name
    words: Mapping[str, Any]  # dotted key -> value, wherever it differs from the recipe; a repeat's `seed` among them
    state: TrialState = "waiting"  # stopped: by the scheduler, before its last epoch
    error: str = ""  # last line of what ended it, where it failed
    attempts: int = 0
    started: float = 0.0  # seconds since 1970, of the first attempt
    ended: float = 0.0
    busy_seconds: float = 0.0  # that its resources were taken, over all attempts
    workers: int = 1
    cpus: float = 1.0  # a worker
    gpus: float = 0.0  # a worker
    node: str = ""
    latency_ms: float | None = None  # of one image through the best checkpoint, median
    runtime: str = ""  # that computed it
    parameters: int | None = None
    history: tuple[
        Mapping[str, Any], ...
    ] = ()  # population based training: {"epoch": 3, "words": {...}, "from": "0001"}


@dataclass(frozen=True)
class Search:
    """What was requested of a search."""

    recipe: str  # its name, for people
    space: Mapping[str, Any]  # as the YAML file has it
    epochs: int  # budget of a trial
    metric: str  # eval.monitor of the recipe
    objectives: tuple[str, ...]  # the metric, then any of latency_ms, parameters
    searcher: str
    scheduler: str
    trials: int
    seed: int  # of the searcher
    top: int  # configurations repeated under other seeds,
    repeats: int  # and how often
    workers: int  # a trial
    cpus: float  # a worker
    gpus: float
    concurrent: int
    first_seed: int = 0  # of the recipe; repeats take those after it
    grace: int = 1  # epochs before a scheduler may stop a trial, or exchange it
    reduction: int = 3  # asha: one in so many continues from each rung
    retries: int = 1  # of a trial that was lost
    hours: float = 0.0  # wall-clock budget; 0 = none
    gpu_hours: float = 0.0
    started: float = 0.0
    ended: float = 0.0  # 0 while it runs, and after it was killed
    about: Mapping[str, str] = field(default_factory=dict)  # provenance: commit, versions, data fingerprint, hardware

    @property
    def constraints(self) -> Mapping[str, float]:
        """Cost -> the most it may be."""
        limits: Mapping[str, float] = self.space.get(constraints.KEY, {})
        return limits


@dataclass
class SearchLimits:
    """How much a search may use: until a time of day, and seconds of GPUs over all trials; 0 = without limit."""

    deadline: float = 0.0  # seconds since 1970
    gpu_seconds: float = 0.0
    gpu_seconds_used: float = 0.0

    @property
    def reached(self) -> bool:
        """Whether nothing is left."""
        return 0 < self.deadline <= time.time() or 0 < self.gpu_seconds <= self.gpu_seconds_used


def read_search(folder: Path) -> Search:
    """The search of a folder. Raises UsageError where there is none."""
    return Search(**_read(folder / SEARCH))


def write_search(folder: Path, search: Search) -> None:
    """Write what was requested."""
    _write(folder / SEARCH, asdict(search))


def read_trials(folder: Path) -> list[Trial]:
    """All trials of a search, by name."""
    return [Trial(**_read(path)) for path in sorted((folder / TRIALS).glob(f"*/{TRIAL}"))]


def write_trial(folder: Path, trial: Trial) -> None:
    """Write how far a trial came."""
    run = layout.trial(folder, trial.name)
    run.mkdir(parents=True, exist_ok=True)
    _write(run / TRIAL, asdict(trial))


def curve(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run in order: {"epoch", "step", "time", metrics...}; a score that is not finite is None."""
    return progress.epochs(progress.read(run))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path.parent} holds no search ({path.name} is missing)") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable: {error}") from None
    return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    local.replace(path, json.dumps(content, indent=1, ensure_ascii=False).encode())
