"""Where a run's numbers go besides its progress file: `--log tensorboard,csv,mlflow,wandb`.

TensorBoard and CSV are the default (`depthray.runs.loggers`). MLflow and Weights & Biases are a file each here, found
by its name, and write into the run's folder: nothing leaves the machine unless their own variables of the environment
ask for it, MLFLOW_TRACKING_URI and WANDB_MODE=online.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from depthray.errors import UsageError, did_you_mean

VARIABLE = "DEPTHRAY_LOG"  # of the environment, by which the flag reaches the workers
DEFAULT = ("tensorboard", "csv")
TRACKERS = ("mlflow", "wandb")  # files of this folder, of packages that are extras


class Tracker(Protocol):
    """One run in a program that keeps runs."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record finite numbers by name at a step."""

    def close(self) -> None:
        """End the run there; everything is written when it returns."""


def parse(text: str, *, where: str) -> tuple[str, ...]:
    """`tensorboard,mlflow` -> the names. Raises UsageError for unknown ones and for packages that are not installed."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in (*DEFAULT, *TRACKERS):
            known = ", ".join((*DEFAULT, *TRACKERS))
            raise UsageError(f"{where}: no '{name}'{did_you_mean(name, (*DEFAULT, *TRACKERS))}; choose from {known}")
        if name in TRACKERS and find_spec(name) is None:
            raise UsageError(f"{where}: {name} is not installed: pip install 'depthray[{name}]'")
    return names


def chosen() -> tuple[str, ...]:
    """What this process logs to, by the environment."""
    return parse(os.environ.get(VARIABLE, ",".join(DEFAULT)), where=VARIABLE)


class Trackers:
    """The trackers of a run, opened with its first numbers. One that fails is left out and does not end the run."""

    def __init__(self, run: Path, settings: Mapping[str, Any], log: Callable[[str], None]) -> None:
        self.run, self.settings, self.note = run, settings, log
        self._open: dict[str, Tracker] = {}
        self._waiting = [name for name in chosen() if name in TRACKERS]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record numbers by name at a step; those that are not finite are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        waiting, self._waiting = self._waiting, []
        for name in waiting:
            self._attempt(name, lambda name=name: self._open.update({name: self._opened(name)}))  # type: ignore[misc]
        for name, tracker in list(self._open.items()):
            self._attempt(name, lambda tracker=tracker: tracker.log(step, finite))  # type: ignore[misc]

    def close(self) -> None:
        """End the run in each tracker."""
        for name, tracker in list(self._open.items()):
            self._attempt(name, tracker.close)
        self._open.clear()

    def _opened(self, name: str) -> Tracker:
        tracker: Tracker = import_module(f"depthray.runs.trackers.{name}").open_tracker(self.run, self.settings)
        return tracker

    def _attempt(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a package of others raises: hours of training are worth more
            self._open.pop(name, None)
            self.note(f"{name} failed and is not written any more: {' '.join(str(error).split())[:200]}")
