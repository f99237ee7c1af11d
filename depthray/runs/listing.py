"""The runs and searches of a folder, here or on an object store: how far each came, and what can be removed from it.

A run is known by its recipe.yaml, a search by its search.json; what is in folders below either belongs to it. An export
has a recipe as well, and is no run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from depthray.checkpoints import manifest, select
from depthray.checkpoints.select import CheckpointName
from depthray.config import recipe as recipes
from depthray.config.metric_names import rank_key
from depthray.config.overrides import parse_yaml, read_yaml
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.runs import progress
from depthray.runs.layout import CHECKPOINTS, ERROR, PROGRESS, RAY, RECIPE, SEARCH, STOP, TRIAL, TRIALS
from depthray.runtimes.export_folder import NAME as EXPORT
from depthray.storage import local
from depthray.storage.folders import AnyFolder, open_folder

QUIET = 300.0  # seconds without a record, besides those between records, after which a run no longer counts as running

RunState = Literal["running", "stopped", "finished", "failed", "silent"]  # silent: recorded no end, and nothing lately


class SavedCheckpoint(NamedTuple):
    """A complete checkpoint."""

    name: str
    epoch: int
    step: int
    score: float | None  # eval.monitor of the recipe, None where it was not validated
    size: int  # bytes


class RunStatus(NamedTuple):
    """How far a run or a search came."""

    state: RunState
    why: str
    done: int  # epochs of a run, trials of a search
    of: int
    metric: str
    score: float | None  # the best
    last_seen: float | None  # seconds since 1970 of its last record


@dataclass(frozen=True)
class Run:
    """A run, or a search with the runs of its trials."""

    root: AnyFolder
    path: str  # of its folder below the root; "" = the root itself
    files: dict[str, int]  # those of its folder, relative path -> bytes

    @property
    def name(self) -> str:
        return self.path or PurePosixPath(self.root.url).name

    @property
    def url(self) -> str:
        return f"{self.root.url}/{self.path}".rstrip("/")

    @property
    def is_search(self) -> bool:
        return SEARCH in self.files

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(self.files.values())

    def path_of(self, name: str) -> str:
        """A file of the run as a path below the root."""
        return f"{self.path}/{name}".lstrip("/")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run, empty where there is none or none that can be read."""
        try:
            content = json.loads(self.root.read(self.path_of(name))) if name in self.files else {}
        # The run may have pruned it since the listing, or be writing it at this moment.
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @cached_property
    def recipe(self) -> Recipe:
        """Its recipe, not checked against the data or the network."""
        data = self.root.read(self.path_of(RECIPE))
        try:
            return Recipe.model_validate(parse_yaml(data, where=Path(RECIPE)))
        except (UsageError, ValueError):
            raise UsageError(f"{self.url}/{RECIPE} is not a recipe of this version of depthray") from None

    @cached_property
    def records(self) -> list[progress.Record]:
        """Its progress records."""
        return progress.parse(self.root.read(self.path_of(PROGRESS))) if PROGRESS in self.files else []

    @property
    def trials(self) -> list[Run]:
        """The runs of a search's trials."""
        folders = sorted({"/".join(name.split("/")[:2]) for name in self.files if name.endswith(f"/{TRIAL}")})
        return [Run(self.root, self.path_of(folder), _below(self.files, folder)) for folder in folders]

    def scores(self) -> list[float]:
        """The monitored score after each epoch that has one."""
        # Null where the score was not finite; no best of a run may be chosen by it.
        values = (record.get(self.recipe.eval.monitor) for record in progress.epochs(self.records))
        return [value for value in values if value is not None and math.isfinite(value)]

    @cached_property
    def checkpoints(self) -> list[SavedCheckpoint]:
        """Its complete checkpoints by step."""
        names = select.sort_names(_children(self.files, CHECKPOINTS))
        return [self._checkpoint(name) for name in names if f"{CHECKPOINTS}/{name}/{manifest.NAME}" in self.files]

    @property
    def best_checkpoint(self) -> SavedCheckpoint | None:
        """The best of its checkpoints, the last if none is scored; None where there are none."""
        return select.best([(saved, saved.score) for saved in self.checkpoints], self.recipe.eval.monitor)

    def _checkpoint(self, name: str) -> SavedCheckpoint:
        at = CheckpointName.parse(name) or CheckpointName(0, 0)
        score = self.json(f"{CHECKPOINTS}/{name}/{manifest.METRICS}").get(self.recipe.eval.monitor)
        size = sum(_below(self.files, f"{CHECKPOINTS}/{name}").values())
        return SavedCheckpoint(name, at.epoch, at.step, score, size)


def _below(files: dict[str, int], folder: str) -> dict[str, int]:
    """The files of a folder, with paths relative to it."""
    return {name[len(folder) + 1 :]: size for name, size in files.items() if name.startswith(f"{folder}/")}


def _children(files: dict[str, int], folder: str) -> list[str]:
    return sorted({name.split("/")[0] for name in _below(files, folder)})


def find_runs(root: AnyFolder) -> Iterator[Run]:
    """The runs and searches of a folder, by name; the folder itself, if it is one."""
    # One listing answers all that follows: of a store each further look would be a request.
    files = root.files()
    if EXPORT in files:
        return
    if RECIPE in files or SEARCH in files:
        yield Run(root, "", files)
        return
    last: tuple[str, ...] = ()
    paths = (PurePosixPath(name) for name in files)
    for parts in sorted({path.parent.parts for path in paths if path.name in (RECIPE, SEARCH)}):
        folder = "/".join(parts)
        # A recipe further down is of a checkpoint or a trial.
        if (not last or parts[: len(last)] != last) and f"{folder}/{EXPORT}" not in files:
            last = parts
            yield Run(root, folder, _below(files, folder))


def open_run(where: str | Path) -> Run:
    """The run or search of a folder. Raises UsageError where there is none."""
    root = open_folder(where)
    files = root.files()
    if RECIPE not in files or EXPORT in files:
        why = "it is an export" if EXPORT in files else f"{RECIPE} is missing"
        raise UsageError(f"{root.url} holds no run ({why}); `depthray runs list FOLDER` shows those there")
    return Run(root, "", files)


def removable(run: Run) -> dict[str, int]:
    """What a run can spare, path in its folder -> bytes: all but the best and the last checkpoint and its records.

    Ray's own files are never read back; temporary ones are what a killed writer left.
    """
    if run.is_search:
        trials = [trial for trial in run.trials if RECIPE in trial.files]
        files = {
            f"{TRIALS}/{PurePosixPath(trial.path).name}/{name}": size
            for trial in trials
            for name, size in removable(trial).items()
        }
        return {**_sizes(run.files, RAY), **files}
    # The best to predict with, the last to resume from.
    kept = {saved.name for saved in (run.best_checkpoint, *run.checkpoints[-1:]) if saved}
    stale = [name for name in _children(run.files, CHECKPOINTS) if name not in kept]
    unfinished = {name: size for name, size in run.files.items() if Path(name).name.startswith(local.UNFINISHED)}
    return {**_sizes(run.files, RAY, *(f"{CHECKPOINTS}/{name}" for name in stale)), **unfinished}


def _sizes(files: dict[str, int], *folders: str) -> dict[str, int]:
    """Bytes in each of these folders that exists."""
    contents = {folder: _below(files, folder) for folder in folders}
    return {folder: sum(sizes.values()) for folder, sizes in contents.items() if sizes}


def remove(run: Run, name: str) -> None:
    """Remove a file or folder of a run; of a checkpoint its manifest first, so that half of one does not count."""
    if name.split("/")[-2:-1] == [CHECKPOINTS]:
        run.root.remove(run.path_of(f"{name}/{manifest.NAME}"))
    run.root.remove(run.path_of(name))


def nearest_recipe(recipe: Recipe) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The shipped recipe that differs least, and what differs: dotted key -> (its value, the value here)."""
    names = [*recipes.names(), *recipes.originals()]
    shipped = {name: Recipe.model_validate(read_yaml(recipes.RECIPES / f"{name}.yaml")) for name in names}
    differing = {name: recipes.difference(other, recipe) for name, other in shipped.items()}
    for changed in differing.values():
        for key in [key for key in changed if key == "data.root" or key.startswith("data.sets")]:
            del changed[key]  # where the data is does not make another recipe
    name = min(differing, key=lambda name: len(differing[name]))
    return name, differing[name]


def status(run: Run, *, now: float) -> RunStatus:
    """How far a run or a search came, by what it recorded."""
    return _search_status(run, now) if run.is_search else _run_status(run, now)


def _run_status(run: Run, now: float) -> RunStatus:
    recipe, records = run.recipe, run.records
    metric = recipe.eval.monitor
    done = next((record["epoch"] for record in reversed(records) if record["kind"] == "epoch"), 0)
    last_seen = records[-1].get("time") if records else None
    # What has recorded its end is not silent, however old its last record is.
    state, why = _state(run, now=now, last_seen=last_seen)
    score = min(run.scores(), key=lambda value: rank_key(metric, value), default=None)
    return RunStatus(state, why, done, recipe.train.epochs + recipe.finetune.epochs, metric, score, last_seen)


def _state(run: Run, *, now: float, last_seen: float | None) -> tuple[RunState, str]:
    epochs = run.recipe.train.epochs + run.recipe.finetune.epochs
    recorded = progress.last_state(run.records) or progress.legacy_state(run.records, run.json(ERROR), epochs=epochs)
    if recorded and recorded.state != "running":
        return recorded
    if last_seen is None:
        return "silent", "nothing recorded yet"
    # A step may take as long as the pause between two records, and validation several times that.
    if now - last_seen < QUIET + 10 * run.recipe.train.log_seconds:
        return "running", "asked to stop" if STOP in run.files else ""
    if STOP in run.files:
        return "stopped", "asked to stop"
    return "silent", "no end recorded, and nothing lately: killed, or its machine is lost"


def _search_status(run: Run, now: float) -> RunStatus:
    search, trials = run.json(SEARCH), run.trials
    states = [trial.json(TRIAL).get("state") for trial in trials]
    done = sum(state in ("done", "stopped", "failed") for state in states)
    times = [trial.records[-1]["time"] for trial in trials if trial.records and "time" in trial.records[-1]]
    last_seen = max([*times, search.get("started", 0.0)]) or None
    metric = str(search.get("metric", ""))
    scores = [score for trial in trials for score in trial.scores()]
    score = min(scores, key=lambda value: rank_key(metric, value), default=None)
    state: RunState
    why = ""
    if search.get("ended"):
        state = "finished"
    elif last_seen and now - last_seen < QUIET + 10 * run.recipe.train.log_seconds:
        state = "running"
    else:
        state, why = "silent", "no end recorded, and no record of a trial lately"
    return RunStatus(state, why, done, max(len(states), int(search.get("trials", 0))), metric, score, last_seen)
