"""Which checkpoints a run has, and which of them is meant: the best, the latest, one by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from depthray.checkpoints import manifest
from depthray.checkpoints.load import metrics_of
from depthray.checkpoints.manifest import verify
from depthray.config.metric_names import rank_key
from depthray.errors import CheckpointError

FOLDER = "checkpoints"
TEMPORARY = ".tmp-"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)(?:-(\d+))?")  # the last number only where a step was saved again


def committed(root: Path) -> list[Path]:
    """The checkpoints of a run by step; their contents are not looked at."""
    return [path for path in checkpoints_in(root) if (path / manifest.NAME).is_file()]


def latest(root: Path, say: Callable[[str], None]) -> Path | None:
    """The last good checkpoint, None if there is none yet; each bad one passed over is said.

    Where all are bad, CheckpointError: to begin again at step 0 is for the user to decide.
    """
    paths = checkpoints_in(root)
    for path in reversed(paths):
        try:
            verify(path)
        except CheckpointError as error:
            say(f"{error}; going back to the checkpoint before")
        else:
            return path
    if paths:
        raise CheckpointError(f"{root}: none of {len(paths)} checkpoints is good; move the folder away to begin again")
    return None


def best(paths: list[Path], monitor: str) -> Path:
    """Of checkpoints by step the best, or the last if none is scored."""
    return (ranked(paths, monitor) or paths[::-1])[0]


def place(name: str) -> tuple[int, int, int] | None:
    """Step, epoch and how many times that step was saved, from the name of a checkpoint; None for other names."""
    return place_of(Path(name)) if _NAME.fullmatch(name) else None


def checkpoints_in(root: Path) -> list[Path]:
    """The folders with the name of a checkpoint, by step."""
    return sorted((path for path in root.glob("epoch-*") if _NAME.fullmatch(path.name)), key=place_of)


def place_of(path: Path) -> tuple[int, int, int]:
    """Step, epoch and how many times that step was saved, from the name of a checkpoint."""
    match = _NAME.fullmatch(path.name)
    epoch, step, times = (int(group or 1) for group in match.groups()) if match else (0, 0, 0)
    return step, epoch, times


def ranked(paths: list[Path], monitor: str) -> list[Path]:
    """The scored checkpoints, best score first, of equals the latest first."""
    scored = [(rank_key(monitor, metrics_of(path).get(monitor, math.nan)), path) for path in reversed(paths)]
    return [path for _, path in sorted((pair for pair in scored if math.isfinite(pair[0])), key=lambda pair: pair[0])]
