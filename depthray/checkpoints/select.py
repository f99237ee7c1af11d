"""Which checkpoints a run has, how they are named, and which of them is the best and the latest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from depthray.checkpoints import manifest
from depthray.checkpoints.load import read_metrics, read_recipe
from depthray.checkpoints.manifest import verify
from depthray.config.metric_names import rank_key
from depthray.errors import CheckpointError

FOLDER = "checkpoints"
TEMPORARY = ".tmp-"
_NAME = re.compile(r"epoch-(\d+)-step-(\d+)(?:-(\d+))?")  # the last number only where a step was saved again
T = TypeVar("T")


class CheckpointName(NamedTuple):
    """The name of a checkpoint, epoch-0003-step-00000120[-2]. Names compare by when they were saved."""

    step: int
    epoch: int
    save: int = 1  # 2 for the second checkpoint of the same step, and so on

    def __str__(self) -> str:
        again = f"-{self.save}" if self.save > 1 else ""
        return f"epoch-{self.epoch:04d}-step-{self.step:08d}{again}"

    @classmethod
    def parse(cls, name: str) -> CheckpointName | None:
        """The parts of a name; None for the names of other files and folders."""
        match = _NAME.fullmatch(name)
        return cls(int(match[2]), int(match[1]), int(match[3] or 1)) if match else None


def sort_names(names: Sequence[str]) -> list[str]:
    """Those that are names of checkpoints, by step."""
    parsed = [(key, name) for name in names if (key := CheckpointName.parse(name))]
    return [name for _, name in sorted(parsed)]


def checkpoints_in(root: Path) -> list[Path]:
    """The folders with the name of a checkpoint, by step."""
    return [root / name for name in sort_names([path.name for path in root.glob("epoch-*")])]


def committed(root: Path) -> list[Path]:
    """The checkpoints of a run by step; their contents are not looked at."""
    return [path for path in checkpoints_in(root) if (path / manifest.NAME).is_file()]


def latest(root: Path, log: Callable[[str], None]) -> Path | None:
    """The last good checkpoint, None if there is none yet; each bad one passed over is reported.

    Where all are bad, CheckpointError: to begin again at step 0 is for the user to decide.
    """
    paths = checkpoints_in(root)
    for path in reversed(paths):
        try:
            verify(path)
        except CheckpointError as error:
            log(f"{error}; going back to the checkpoint before")
        else:
            return path
    # Not None: the run would silently restart, and prune what somebody could still repair.
    if paths:
        raise CheckpointError(f"{root}: none of {len(paths)} checkpoints is good; move the folder away to begin again")
    return None


def resolve(path: Path) -> Path:
    """The checkpoint meant by a local path: itself, or of a run folder the best, or the last if none is scored."""
    # A missing or damaged checkpoint is reported by whoever loads it, with the reason.
    if CheckpointName.parse(path.name) or (path / manifest.NAME).is_file():
        return path
    # The folder of a run or that of its checkpoints, as both are completed by the shell.
    root = path / FOLDER if (path / FOLDER).is_dir() else path
    paths = committed(root)
    if not paths:
        raise CheckpointError(f"{path}: neither a checkpoint nor a run folder with one in {FOLDER}/")
    monitor = read_recipe(paths[-1]).eval.monitor
    return best(scores(paths, monitor), monitor) or paths[-1]


def scores(paths: Sequence[Path], monitor: str) -> list[tuple[Path, float | None]]:
    """Checkpoints with their monitored score, None where they were not validated."""
    return [(path, read_metrics(path).get(monitor)) for path in paths]


def rank(scored: Sequence[tuple[T, float | None]], monitor: str) -> list[T]:
    """Of checkpoints by step those with a finite score, the best first, of equals the latest first."""
    finite = [(score, checkpoint) for checkpoint, score in scored if score is not None and math.isfinite(score)]
    # The sort is stable, so among equal scores the order of the input decides: the latest is put first.
    return [checkpoint for _, checkpoint in sorted(finite[::-1], key=lambda pair: rank_key(monitor, pair[0]))]


def best(scored: Sequence[tuple[T, float | None]], monitor: str) -> T | None:
    """Of checkpoints by step the best, or the last if none is scored; None where there are none."""
    ranked = rank(scored, monitor) or [checkpoint for checkpoint, _ in scored[-1:]]
    return ranked[0] if ranked else None
