"""What a search varies: a YAML file of dotted keys with their ranges, or of configurations to try one by one.

    optim.lr: {loguniform: [1e-5, 1e-2]}
    model.decoder: {choice: [fixed, linear]}
    constraints: {latency_ms: 20}

`read` finds a space of tuning/spaces by its name, or a file by its path; `space_check.check` checks it against a recipe
before the first trial. Kinds of range: uniform, loguniform, integer, logint (numbers, both ends included), choice (any
values).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from depthray.config.overrides import find_yaml, read_yaml
from depthray.errors import UsageError
from tuning.space import constraints
from tuning.space.dimension import EXAMPLE, Dimension, parse_value, read_dimension
from tuning.values import is_number

SPACES = Path(__file__).parents[1] / "spaces"
NOTE_KEYS = ("name", "reference")  # keys of a point that are no keys of the recipe
TERMS = "loss.terms."  # what keys of one's own loss terms begin with
MAX_GRID = 10_000  # points


@dataclass(frozen=True)
class Space:
    """Dimensions to sample from, or points to try as they are."""

    dimensions: tuple[Dimension, ...] = ()
    points: tuple[Mapping[str, Any], ...] = ()  # each dotted key -> value
    about: str = ""
    notes: tuple[Mapping[str, Any], ...] = ()  # of each point its `name`, and as `reference` its published scores
    constraints: Mapping[str, float] = field(default_factory=dict)  # cost -> the most it may be

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """A random configuration: dotted key -> value."""
        if self.points:
            return dict(self.points[rng.integers(len(self.points))])
        return {dimension.key: dimension.sample(rng) for dimension in self.dimensions}

    def grid(self) -> list[dict[str, Any]]:
        """Every configuration, the last key varying fastest. Raises UsageError for a continuous range."""
        if self.points:
            return [dict(point) for point in self.points]
        columns = [dimension.grid_values() for dimension in self.dimensions]
        # By its size, as the list itself could fill the memory.
        if (size := math.prod(map(len, columns))) > MAX_GRID:
            raise UsageError(f"the grid has {size} points; list fewer values as choice, or use --search random")
        return [dict(zip((each.key for each in self.dimensions), row, strict=True)) for row in product(*columns)]


def names() -> list[str]:
    """The spaces that come with depthray."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def read(name_or_path: str) -> Space:
    """The space of a name or of a YAML file. Raises UsageError for anything else."""
    return parse(read_yaml(find_yaml(name_or_path, SPACES, kind="space")), where=name_or_path)


def parse(tree: Mapping[str, Any], *, where: str) -> Space:
    """A tree of plain values as a space; whether it fits a recipe is for `space_check`."""
    ranges = {str(key): value for key, value in tree.items() if key not in ("about", "points", constraints.KEY)}
    about, points = tree.get("about", ""), tree.get("points")
    limits = constraints.parse(tree.get(constraints.KEY, {}), where=where)
    if not isinstance(about, str):
        raise UsageError(f"{where}: about is a line of text, not {about!r}")
    if points is not None:
        if ranges:
            raise UsageError(f"{where}: has points and ranges ({next(iter(ranges))}); give one or the other")
        return replace(_parse_points(points, about=about, where=where), constraints=limits)
    if not ranges:
        raise UsageError(f"{where}: nothing to search; give at least one key, as in {EXAMPLE}")
    dimensions = (read_dimension(key, value, where=where) for key, value in ranges.items())
    return Space(tuple(dimensions), about=about, constraints=limits)


def own_names(space: Space) -> list[str]:
    """The own code that a space names: choices of model.name, and loss terms (`depthray.config.own_code`)."""
    pairs = [(dimension.key, value) for dimension in space.dimensions for value in dimension.ends]
    pairs += [pair for point in space.points for pair in point.items()]
    models = [value for key, value in pairs if key == "model.name" and isinstance(value, str)]
    return [*models, *(key.removeprefix(TERMS) for key, _ in pairs if key.startswith(TERMS))]


def to_tree(space: Space) -> dict[str, Any]:
    """The tree of plain values that `parse` reads back to the same space."""
    tree: dict[str, Any] = {"about": space.about} if space.about else {}
    tree |= {constraints.KEY: dict(space.constraints)} if space.constraints else {}
    if space.points:
        notes = space.notes or ({},) * len(space.points)
        return tree | {"points": [{**note, **point} for note, point in zip(notes, space.points, strict=True)]}
    return tree | {dimension.key: {dimension.kind: list(dimension.ends)} for dimension in space.dimensions}


def _parse_points(points: Any, *, about: str, where: str) -> Space:
    if not isinstance(points, list | tuple) or not points or not all(isinstance(point, dict) for point in points):
        raise UsageError(
            f"{where}: points is a list of mappings, as in points: [{{optim.lr: 2e-4}}, {{optim.lr: 2e-3}}]"
        )
    settings, notes = [], []
    for number, point in enumerate(points, start=1):
        at = f"{where}: point {number}"
        notes.append(_parse_notes(point, where=at))
        given = {str(key): value for key, value in point.items() if key not in NOTE_KEYS}
        settings.append({key: parse_value(value, key=key, where=at) for key, value in given.items()})
    return Space((), tuple(settings), about, tuple(notes))


def _parse_notes(point: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    notes: dict[str, Any] = {key: point[key] for key in NOTE_KEYS if key in point}
    if not isinstance(notes.get("name", ""), str):
        raise UsageError(f"{where}: name is text, not {notes['name']!r}")
    reference = notes.get("reference", {})
    if not isinstance(reference, dict):
        raise UsageError(f"{where}: reference is scores by name, as in {{mse: 0.0143, ssim: 0.775}}, not {reference!r}")
    if reference:
        notes["reference"] = {str(key): _parse_score(key, value, where=where) for key, value in reference.items()}
    return notes


def _parse_score(key: str, value: Any, *, where: str) -> float:
    score = parse_value(value, key=f"reference.{key}", where=where)  # 1e-2 is text to YAML
    if not is_number(score):
        raise UsageError(f"{where}: reference.{key} is a score, a number, not {value!r}")
    return float(score)
