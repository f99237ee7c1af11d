"""What the tests of bad input share: small recipes, and ways to harm a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

SIZE = (48, 64)
PLAIN = ["data.size=32,64", "train.epochs=1", "train.precision=fp32", "augment.brightness=0", "augment.contrast=0"]
ROOMS = [*PLAIN, "data.frames=24", "train.batch_size=8", "optim.lr=0.002"]
FILES = [*PLAIN, "data.source=folder", "data.val_fraction=0.34", "train.batch_size=4"]  # 8 of 12 frames train
SHARDS = [*FILES, "data.source=shards"]
Fails = Callable[..., None]
Harm = Callable[[Path], object]


def only(run: Path) -> Path:
    """The one checkpoint of a run."""
    (path,) = (run / "checkpoints").iterdir()
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(bytes(content))


def link_to_itself(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(path)
