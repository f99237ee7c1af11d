"""What a folder of runs holds, here or on an object store: how far each run came, and what it could do without.

A run is known by its recipe.yaml, a search by its search.json; what lies below either belongs to it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import yaml

from depthray.checkpoints import manifest
from depthray.config import recipe as recipes
from depthray.config.metric_names import rank_key
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.runs import progress
from depthray.storage import local
from depthray.storage.folder import Tree, tree

CHECKPOINTS, RECIPE, ERROR, STOP = "checkpoints", "recipe.yaml", "error.json", "STOP"
SEARCH, TRIAL = "search.json", "trial.json"
ENDED, STOPPED, RESUMED = "training ended: ", "stopped at ", "resumed from "  # what depthray/runs/run.py notes
EARLY = ("asked to stop", "time limit")  # reasons to end with an epoch, and to go on from there
QUIET = 300.0  # seconds without a line, beside those between lines, after which nothing is said to run

State = Literal["running", "stopped", "finished", "failed", "silent"]  # silent: neither ended nor heard of


class Saved(NamedTuple):
    """A complete checkpoint."""

    name: str
    epoch: int
    step: int
    score: float | None  # eval.monitor of the recipe, None where it was not validated
    size: int  # bytes


class Status(NamedTuple):
    """How far a run or a search came."""

    state: State
    why: str
    done: int  # epochs of a run, trials of a search
    of: int
    metric: str
    score: float | None  # the best
    heard: float | None  # seconds since 1970 of its last line


@dataclass(frozen=True)
class Run:
    """A run, or a search with the runs of its trials."""

    root: Tree
    place: str  # of its folder below the root; "" = the root itself
    files: dict[str, int]  # those of its folder, relative path -> bytes

    @property
    def name(self) -> str:
        return self.place or PurePosixPath(self.root.url).name

    @property
    def url(self) -> str:
        return f"{self.root.url}/{self.place}".rstrip("/")

    @property
    def is_search(self) -> bool:
        return SEARCH in self.files

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(self.files.values())

    def path(self, name: str) -> str:
        """A file of the run as the root knows it."""
        return f"{self.place}/{name}".lstrip("/")

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the run, empty where there is none or none that can be read."""
        try:
            found = json.loads(self.root.read(self.path(name))) if name in self.files else {}
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @cached_property
    def recipe(self) -> Recipe:
        """Its recipe, not checked against the data or the network."""
        data = self.root.read(self.path(RECIPE))
        try:
            return Recipe.model_validate(yaml.safe_load(data))
        except (yaml.YAMLError, ValueError):
            raise UsageError(f"{self.url}/{RECIPE} is not a recipe of this version of depthray") from None

    @cached_property
    def records(self) -> list[progress.Record]:
        """What the run told of itself; a line that a kill cut short is left out."""
        if progress.FILE not in self.files:
            return []
        found = []
        for raw in self.root.read(self.path(progress.FILE)).splitlines():
            try:
                found.append(json.loads(raw))
            except ValueError:
                continue
        return found

    @property
    def trials(self) -> list[Run]:
        """The runs of a search's trials."""
        places = sorted({"/".join(name.split("/")[:2]) for name in self.files if name.endswith(f"/{TRIAL}")})
        return [Run(self.root, self.path(place), below(self.files, place)) for place in places]

    def scores(self) -> list[float]:
        """The monitored score after each epoch that has one."""
        values = (record.get(self.recipe.eval.monitor) for record in self.records if record["kind"] == "epoch")
        return [value for value in values if value is not None and math.isfinite(value)]

    def checkpoints(self) -> list[Saved]:
        """Its complete checkpoints by step."""
        names = {name.split("/")[1] for name in self.files if name.startswith(f"{CHECKPOINTS}/epoch-")}
        complete = [name for name in names if f"{CHECKPOINTS}/{name}/{manifest.NAME}" in self.files]
        return sorted((self._saved(name) for name in complete), key=lambda saved: (saved.step, saved.epoch, saved.name))

    def _saved(self, name: str) -> Saved:
        parts = name.split("-")
        score = self.json(f"{CHECKPOINTS}/{name}/{manifest.METRICS}").get(self.recipe.eval.monitor)
        size = sum(below(self.files, f"{CHECKPOINTS}/{name}").values())
        return Saved(name, int(parts[1]), int(parts[3]), score, size)


def below(files: dict[str, int], place: str) -> dict[str, int]:
    """The files of a folder, named from it."""
    return {name[len(place) + 1 :]: size for name, size in files.items() if name.startswith(f"{place}/")}


def found(root: Tree) -> Iterator[Run]:
    """The runs and searches of a folder, by name; the folder itself, if it is one."""
    files = root.files()
    if RECIPE in files or SEARCH in files:
        yield Run(root, "", files)
        return
    last: tuple[str, ...] = ()
    named = (PurePosixPath(name) for name in files)
    for parts in sorted({path.parent.parts for path in named if path.name in (RECIPE, SEARCH)}):
        if not last or parts[: len(last)] != last:
            last, place = parts, "/".join(parts)
            yield Run(root, place, below(files, place))


def one(where: str | Path) -> Run:
    """The run or search of a folder. Raises UsageError where there is none."""
    root = tree(where)
    files = root.files()
    if RECIPE not in files:
        raise UsageError(
            f"{root.url} holds no run ({RECIPE} is missing); `depthray runs list FOLDER` shows those there"
        )
    return Run(root, "", files)


def best(saved: list[Saved], metric: str) -> Saved | None:
    """The checkpoint with the best score, of equals the latest; None where none is scored."""
    scored = [each for each in reversed(saved) if each.score is not None and math.isfinite(each.score)]
    return min(scored, key=lambda each: rank_key(metric, each.score or 0.0), default=None)


def spare(run: Run) -> dict[str, int]:
    """What a run can do without, path in its folder -> bytes: all but the best and the last checkpoint and its records.

    Ray's own files are never read back; temporary ones are what a killed writer left.
    """
    if run.is_search:
        begun = [trial for trial in run.trials if RECIPE in trial.files]
        rest = {
            f"trials/{Path(trial.place).name}/{name}": size for trial in begun for name, size in spare(trial).items()
        }
        return {**_folders(run.files, "ray"), **rest}
    saved = run.checkpoints()
    kept = {each.name for each in (best(saved, run.recipe.eval.monitor), *saved[-1:]) if each}
    stale = [name for name in _children(run.files, CHECKPOINTS) if name not in kept]
    unfinished = {name: size for name, size in run.files.items() if Path(name).name.startswith(local.UNFINISHED)}
    return {**_folders(run.files, "ray", *(f"{CHECKPOINTS}/{name}" for name in stale)), **unfinished}


def _children(files: dict[str, int], place: str) -> list[str]:
    return sorted({name.split("/")[0] for name in below(files, place)})


def _folders(files: dict[str, int], *places: str) -> dict[str, int]:
    """Of those places that there are, the bytes below."""
    inside = {place: below(files, place) for place in places}
    return {place: sum(found.values()) for place, found in inside.items() if found}


def drop(run: Run, name: str) -> None:
    """Remove a file or folder of a run; of a checkpoint its manifest first, so that half of one is taken for none."""
    if name.split("/")[-2:-1] == [CHECKPOINTS]:
        run.root.remove(run.path(f"{name}/{manifest.NAME}"))
    run.root.remove(run.path(name))


def nearest(recipe: Recipe) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The recipe that comes with depthray and differs least, and what differs: dotted key -> (its value, the value)."""
    known = {name: Recipe.model_validate(read_yaml(recipes.RECIPES / f"{name}.yaml")) for name in recipes.names()}
    differing = {name: recipes.difference(other, recipe) for name, other in known.items()}
    for changed in differing.values():
        changed.pop("data.root", None)  # says where, not what
    name = min(differing, key=lambda name: len(differing[name]))
    return name, differing[name]


def status(run: Run, *, now: float) -> Status:
    """How far a run or a search came, by what it wrote."""
    return _search_status(run, now) if run.is_search else _run_status(run, now)


def _run_status(run: Run, now: float) -> Status:
    recipe, records = run.recipe, run.records
    metric = recipe.eval.monitor
    done = next((record["epoch"] for record in reversed(records) if record["kind"] == "epoch"), 0)
    heard = records[-1].get("time") if records else None
    epochs = recipe.train.epochs + recipe.finetune.epochs
    state, why = _state(run, now=now, heard=heard, whole=done >= epochs)
    score = min(run.scores(), key=lambda value: rank_key(metric, value), default=None)
    return Status(state, why, done, epochs, metric, score, heard)


def _state(run: Run, *, now: float, heard: float | None, whole: bool) -> tuple[State, str]:
    if ERROR in run.files:
        return "failed", str(run.json(ERROR).get("text", ""))
    told = _last_word(run.records)
    if told.startswith(ENDED):
        reason = told.removeprefix(ENDED)
        return ("stopped" if reason.startswith(EARLY) else "finished"), reason
    if told.startswith(STOPPED):
        return "stopped", told.partition(";")[0]
    if told and whole:
        return "finished", "all epochs done"  # it was resumed at its end
    if heard is None:
        return "silent", "nothing said yet"
    quiet = now - heard
    if quiet < QUIET + 10 * run.recipe.train.log_seconds:
        return "running", "asked to stop" if STOP in run.files else ""
    if STOP in run.files:
        return "stopped", "asked to"
    return "silent", "neither ended nor heard of: killed, or its machine is lost"


def _last_word(records: list[progress.Record]) -> str:
    """What a run said of its beginning or end since its last step."""
    for record in reversed(records):
        if record["kind"] in ("interval", "epoch"):
            return ""
        if str(record.get("text", "")).startswith((ENDED, STOPPED, RESUMED)):
            return str(record["text"])
    return ""


def _search_status(run: Run, now: float) -> Status:
    asked, trials = run.json(SEARCH), run.trials
    told = [trial.json(TRIAL) for trial in trials]
    over = sum(each.get("state") in ("done", "stopped", "failed") for each in told)
    times = [trial.records[-1]["time"] for trial in trials if trial.records and "time" in trial.records[-1]]
    heard = max([*times, asked.get("started", 0.0)]) or None
    metric = str(asked.get("metric", ""))
    score = min(
        (value for trial in trials for value in trial.scores()), key=lambda x: rank_key(metric, x), default=None
    )
    if asked.get("ended"):
        state: tuple[State, str] = ("finished", "")
    elif heard and now - heard < QUIET + 10 * run.recipe.train.log_seconds:
        state = ("running", "")
    else:
        state = ("silent", "not ended, and no trial is heard of")
    return Status(*state, over, max(len(told), int(asked.get("trials", 0))), metric, score, heard)
