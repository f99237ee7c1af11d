"""Rendered rooms, drawn when they are read: nothing on disk. `depthray data render` writes them to files instead."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from depthray import __version__
from depthray.data.rendering import render
from depthray.data.sources import Frame, wanted
from depthray.errors import UsageError

if TYPE_CHECKING:
    from depthray.batch import Sample
    from depthray.config.sections import Data

SEED = 0  # of the rooms; which of them are held out is up to data.split_seed
KEYS = frozenset({"image", "depth", "semantics", "instances", "background", "mask", "intrinsics"})


def open_source(section: Data) -> Rooms:
    """As many frames as the section says, drawn at its size."""
    if section.root:
        raise UsageError(
            f"data.source=synthetic draws its frames and would ignore data.root={section.root}; "
            "declare the form of what lies there: data.source=folder or data.source=shards"
        )
    return Rooms(section.frames, section.size, wanted(section))


def fits(root: Path) -> bool:
    """Never: no path looks like it."""
    return False


class Rooms:
    """A data set that is drawn. See `depthray.data.sources.Source`."""

    def __init__(self, count: int, size: tuple[int, int], keys: frozenset[str], *, seed: int = SEED) -> None:
        self._size, self._seed = size, seed
        self.keys = keys & KEYS
        self.frames = [
            Frame(render.id_of(index), render.scene_of(index), split="", source="synthetic") for index in range(count)
        ]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is drawn: the renderer is a pure function of these."""
        return sha256(repr((__version__, self._seed, len(self.frames), self._size)).encode()).hexdigest()

    def read(self, index: int) -> Sample:
        """Draw one frame."""
        height, width = self._size
        sample = render.render_frame(self._seed, index, height=height, width=width)
        for key in KEYS - self.keys:
            del sample[key]  # type: ignore[misc]
        return sample

    def faults(self, index: int) -> list[str]:
        """None: there is nothing stored that could be odd."""
        return []
