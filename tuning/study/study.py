"""A search folder as numbers: who won, by how much, whether that can be believed, and what it cost.

study = Study.read(Path("runs/search"))
study.winner(), study.gain(), study.budget(), study.importance(), study.cautions()
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from depthray.config import recipe as recipes
from depthray.config.metric_names import rank_key
from depthray.config.overrides import read_yaml
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.training import preflight
from tuning.records import Search, read_search
from tuning.space import space as spaces
from tuning.space.dimension import Dimension, overrides
from tuning.space.space import Space
from tuning.study.budget import Budget, budget
from tuning.study.importance import Importance, importance
from tuning.study.outcome import RANKED, Configuration, Outcome, configuration, read_outcomes
from tuning.study.tables import as_csv, as_json
from tuning.study.warnings import SearchWarning, warnings
from tuning.values import canonical, finite_or_none

COSTS = ("latency_ms", "parameters")  # objectives besides the metric; better when lower


@dataclass(frozen=True)
class Gain:
    """How much better the winner is than something else; above 0 is better, whichever way the metric goes."""

    of: Literal["default", "median"]
    absolute: float
    relative: float | None  # of the other's score; None where that is 0
    spread: float | None  # over seeds, of the difference of two single runs; None where nothing was repeated
    clear: bool | None  # whether the gain exceeds this spread


@dataclass(frozen=True)
class Study:
    """A search and what came of its trials, whether it has ended or not."""

    search: Search
    trials: tuple[Outcome, ...]  # by name
    base: Mapping[str, Any]  # dotted key -> value, of the recipe that was searched
    space: Space

    @staticmethod
    def read(folder: Path) -> Study:
        """The study of a search folder. Raises UsageError where there is none."""
        search = read_search(folder)
        space = spaces.parse(dict(search.space), where=str(folder / "search.json"))
        return Study(search, read_outcomes(folder, search), _base(folder), space)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The ranges that were searched; none where the space is a list of points."""
        return self.space.dimensions

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The searched keys: those of the space, then any others that trials changed."""
        changed = [key for each in self.trials if each.trial.kind != "repeat" for key in each.words]
        return tuple(dict.fromkeys([*(dimension.key for dimension in self.dimensions), *changed]))

    def value(self, outcome: Outcome, key: str) -> Any:
        """A key's value in a trial; None for an option of the architecture that neither words nor recipe give."""
        return outcome.words.get(key, self.base.get(key))

    def ranking(self) -> list[Configuration]:
        """The searched configurations that have a score and did not fail, best first.

        By the scores of their search trials: repeats exist only of a few. The winner need not be the first.
        """
        ranked = [each for each in self._searched() if each.score is not None and each.trial.state in RANKED]
        ranked.sort(key=lambda each: (rank_key(each.metric, each.score or 0.0), each.name))
        return [configuration(each, self.trials) for each in ranked]

    def winner(self) -> Configuration | None:
        """The best mean over seeds among configurations that were repeated, and reliably; otherwise the best score."""
        ranking = self.ranking()
        repeated = [each for each in ranking if len(each.seeds) > 1]
        return min(repeated or ranking, key=lambda each: (each.lost, self._worth(each)), default=None)

    def default(self) -> Configuration | None:
        """The recipe as it was given, once it ended with a score: its own trial, or a searched one of its values."""
        own = [each for each in self.trials if each.trial.kind == "default"] or [
            each for each in self._searched() if all(self._same(key, value) for key, value in each.words.items())
        ]
        known = [each for each in own if each.ended and not each.lost]
        return configuration(known[0], self.trials) if known else None

    def gain(self) -> Gain | None:
        """The winner's over the recipe as it was given, means over seeds; None unless there are both, and not one."""
        winner, default = self.winner(), self.default()
        if winner is None or default is None or winner.name == default.name:
            return None
        spreads = [each.spread for each in (winner, default) if each.spread is not None]
        # Where one was not repeated, the other's spread stands for it.
        spread = math.sqrt(2 * statistics.mean(each**2 for each in spreads)) if spreads else None
        return self._gain("default", winner.mean, default.mean, spread)

    def gain_over_median(self) -> Gain | None:
        """The winner's over the median of the finished trials, each with one seed; None below two."""
        winner, found = self.winner(), [each.score for each in self.finished() if each.score is not None]
        if winner is None or len(found) < 2:
            return None
        spread = None if winner.spread is None else math.sqrt(2) * winner.spread
        return self._gain("median", winner.outcome.score, statistics.median(found), spread)

    def finished(self) -> list[Outcome]:
        """Searched trials that ended, done or stopped, with a score."""
        return [each for each in self._searched() if each.ended and not each.lost]

    def importance(self) -> Importance:
        """Which searched keys decided the score; a stopped trial counts with the score it had."""
        kinds = {dimension.key: dimension for dimension in self.dimensions}
        points = [
            ({key: self.value(each, key) for key in self.keys}, rank_key(each.metric, each.score))
            for each in self.finished()
            if each.score is not None
        ]
        return importance(points, {key: kinds.get(key) for key in self.keys})

    def budget(self) -> Budget:
        """GPU-hours or CPU-hours used, wasted, saved and to come."""
        return budget(self.search, self.trials)

    def cautions(self) -> list[SearchWarning]:
        """What to know before believing the result, the gravest first."""
        return list(warnings(self))

    def objectives(self) -> tuple[str, ...]:
        """The metric, and what else was measured of any ranked trial."""
        ranked = [each.outcome.trial for each in self.ranking()]
        costs = [name for name in COSTS if any(getattr(each, name) is not None for each in ranked)]
        return (self.search.metric, *costs)

    def pareto(self) -> list[Outcome]:
        """Searched trials that no other beats in one objective without being worse in another, best metric first."""
        names = self.objectives()
        values = [(each.outcome, _objectives(each.outcome, names)) for each in self.ranking()]
        known = [(each, worth) for each, worth in values if worth is not None]
        return [each for each, worth in known if not any(_dominates(other, worth) for _, other in known)]

    def provenance(self) -> dict[str, str]:
        """How the search was made: its settings, then what it noted of code, data and machines."""
        asked = self.search
        settings = {
            "recipe": asked.recipe,
            "searcher": asked.searcher,
            "scheduler": asked.scheduler
            if asked.scheduler == "none"
            else f"{asked.scheduler} from epoch {asked.grace}",
            "seed": f"{asked.seed} of the searcher, {asked.first_seed} of the recipe",
            "epochs": str(asked.epochs),
            "trials": str(asked.trials),
            "repeats": f"{asked.repeats} of the best {asked.top} and of the recipe as it was given",
            "resources": f"{asked.workers} x {asked.cpus:g} CPU, {asked.gpus:g} GPU; {asked.concurrent} at a time",
        }
        return {**settings, **{key: str(value) for key, value in asked.about.items()}}

    def accepts(self, key: str, value: Any) -> bool:
        """Whether the searched recipe may have this value of a key; options of the architecture are not looked at."""
        try:
            Recipe.model_validate(_tree({**self.base, key: value}))
        except ValidationError:
            return False
        return True

    def as_json(self) -> dict[str, Any]:
        """Everything but the curves, for study.json."""
        return as_json(self)

    def as_csv(self) -> str:
        """One line a trial, for trials.csv."""
        return as_csv(self)

    def _searched(self) -> list[Outcome]:
        return [each for each in self.trials if each.trial.kind == "search"]

    def _same(self, key: str, value: Any) -> bool:
        return canonical(value) == canonical(self.base.get(key))

    def _worth(self, each: Configuration) -> float:
        return rank_key(self.search.metric, each.mean) if each.mean is not None else math.inf

    def _gain(
        self, of: Literal["default", "median"], winner: float | None, other: float | None, spread: float | None
    ) -> Gain | None:
        if winner is None or other is None:
            return None
        gain = rank_key(self.search.metric, other) - rank_key(self.search.metric, winner)
        return Gain(of, gain, gain / abs(other) if other else None, spread, None if spread is None else gain > spread)


def best_recipe(folder: Path, study: Study) -> Recipe:
    """The winner's recipe, made as its trial was. Raises UsageError where there is no winner."""
    winner = study.winner()
    if winner is None:
        raise UsageError(f"{folder}: no searched trial has a finite {study.search.metric}, so there is no best recipe")
    return preflight.load(str(folder / "recipe.yaml"), overrides(winner.outcome.words))


def train_line(study: Study, recipe: Recipe, *, path: str = "best.yaml") -> str:
    """The command that trains a recipe, kept at the path, as a trial of the search was trained."""
    asked = study.search
    data = ["--data", recipe.data.root] if recipe.data.root else []
    gpu = ["--gpu"] if asked.gpus else []
    cpus = ["--cpus-per-worker", str(max(1, round(asked.cpus)))]
    return shlex.join(["depthray", "train", path, *data, "--workers", str(asked.workers), *gpu, *cpus])


def _objectives(outcome: Outcome, names: Sequence[str]) -> tuple[float, ...] | None:
    """A trial's objectives, each better when lower; None unless it has them all."""
    found = [finite_or_none(outcome.score), *(finite_or_none(getattr(outcome.trial, name)) for name in names[1:])]
    known = [value for value in found if value is not None]
    return (rank_key(names[0], known[0]), *known[1:]) if len(known) == len(names) else None


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def _base(folder: Path) -> dict[str, Any]:
    """Dotted key -> value of the searched recipe. Checked by its types only: more would wait for torch."""
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UsageError(f"{folder} holds no search (recipe.yaml is missing)")
    try:
        return recipes.flatten(Recipe.model_validate(read_yaml(path)))
    except ValidationError as error:
        raise UsageError(f"{path}: not a recipe of this version: {error.errors()[0]['msg']}") from None


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value as the sections of a recipe."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return tree
