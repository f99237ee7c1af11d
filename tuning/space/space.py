"""What a search varies: a YAML file of dotted keys with their ranges, or of configurations to try one by one.

    optim.lr: {loguniform: [1e-5, 1e-2]}
    model.decoder: {choice: [fixed, linear]}

`read` finds one of tuning/spaces by its name, or a file by its path; `check` holds it against a recipe before the first
trial. Kinds of range: uniform, loguniform, integer, logint (numbers, both ends within), choice (any values).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from depthray.config.overrides import read_yaml
from depthray.errors import UsageError, did_you_mean
from tuning.space.dimension import EXAMPLE, plain, read_dimension
from tuning.space.dimension import Dimension as Dimension
from tuning.space.dimension import words as words
from tuning.space.space_check import check as check

SPACES = Path(__file__).parents[1] / "spaces"
REMARKS = ("name", "reference")  # what a point may say besides keys of the recipe
GRID = 10_000  # points


@dataclass(frozen=True)
class Space:
    """Dimensions to choose from, or points to try as they are."""

    dimensions: tuple[Dimension, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()  # each dotted key -> value
    about: str = ""
    remarks: tuple[Mapping[str, Any], ...] = ()  # of each point its `name`, and as `reference` its published scores

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A configuration by chance: dotted key -> value."""
        if self.points:
            return dict(self.points[rng.integers(len(self.points))])
        return {dimension.key: dimension.sample(rng) for dimension in self.dimensions}

    def grid(self) -> list[dict[str, Any]]:
        """Every configuration, the last key varying fastest. Raises UsageError for a range without steps."""
        if self.points:
            return [dict(point) for point in self.points]
        columns = [dimension.listed() for dimension in self.dimensions]
        if (size := math.prod(map(len, columns))) > GRID:
            raise UsageError(f"the grid has {size} points; list fewer values as choice, or search at random")
        return [dict(zip((each.key for each in self.dimensions), row, strict=True)) for row in product(*columns)]


def names() -> list[str]:
    """The spaces that come with depthray."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def read(name_or_path: str) -> Space:
    """The space of a name or of a YAML file. Raises UsageError where it is none."""
    return parse(read_yaml(_find(name_or_path)), where=name_or_path)


def parse(tree: Mapping[str, Any], *, where: str) -> Space:
    """A tree of plain values as a space; how it fits a recipe is for `check`."""
    ranges = {str(key): value for key, value in tree.items() if key not in ("about", "points")}
    about, points = tree.get("about", ""), tree.get("points")
    if not isinstance(about, str):
        raise UsageError(f"{where}: about is a line of text, not {about!r}")
    if points is not None:
        if ranges:
            raise UsageError(f"{where}: has points and ranges ({next(iter(ranges))}); give one or the other")
        return _listed(points, about=about, where=where)
    if not ranges:
        raise UsageError(f"{where}: nothing to search; give at least one key, as in {EXAMPLE}")
    found = (read_dimension(key, value, where=where) for key, value in ranges.items())
    return Space(tuple(found), about=about)


def as_tree(space: Space) -> dict[str, Any]:
    """What `parse` makes the same space of, of plain values only."""
    tree: dict[str, Any] = {"about": space.about} if space.about else {}
    if space.points:
        remarks = space.remarks or ({},) * len(space.points)
        return tree | {"points": [{**said, **point} for said, point in zip(remarks, space.points, strict=True)]}
    return tree | {dimension.key: {dimension.kind: list(dimension.ends)} for dimension in space.dimensions}


def _listed(points: Any, *, about: str, where: str) -> Space:
    if not isinstance(points, list | tuple) or not points or not all(isinstance(point, dict) for point in points):
        raise UsageError(
            f"{where}: points is a list of mappings, as in points: [{{optim.lr: 2e-4}}, {{optim.lr: 2e-3}}]"
        )
    settings, remarks = [], []
    for number, point in enumerate(points, start=1):
        at = f"{where}: point {number}"
        remarks.append(_remarks(point, where=at))
        given = {str(key): value for key, value in point.items() if key not in REMARKS}
        settings.append({key: plain(value, key=key, where=at) for key, value in given.items()})
    return Space((), tuple(settings), about, tuple(remarks))


def _remarks(point: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {key: point[key] for key in REMARKS if key in point}
    if not isinstance(found.get("name", ""), str):
        raise UsageError(f"{where}: name is text, not {found['name']!r}")
    reference = found.get("reference", {})
    if not isinstance(reference, dict):
        raise UsageError(f"{where}: reference is scores by name, as in {{mse: 0.0143, ssim: 0.775}}, not {reference!r}")
    if reference:
        found["reference"] = {str(key): _score(key, value, where=where) for key, value in reference.items()}
    return found


def _score(key: str, value: Any, *, where: str) -> float:
    score = plain(value, key=f"reference.{key}", where=where)
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise UsageError(f"{where}: reference.{key} is a score, a number, not {value!r}")
    return score


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(f"space file {path} {'is not a file' if path.exists() else 'does not exist'}")
        return path
    if name not in names():
        raise UsageError(f"no space '{name}'{did_you_mean(name, names())}; a file is given as path/to/it.yaml")
    return SPACES / f"{name}.yaml"
