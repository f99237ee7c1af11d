"""Data sets in memory, and a way to damage what is written of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from depthray.batch import Sample
from depthray.data.source import Frame
from depthray.errors import DataError


class Drawn:
    """A source of small random frames; those in `broken` cannot be read, those in `odd` have another size."""

    fingerprint = "0" * 64
    keys = frozenset({"image", "depth"})

    def __init__(self, count: int, broken: tuple[int, ...] = (), odd: tuple[int, ...] = ()) -> None:
        self.frames = [Frame(f"f{i}", f"s{i % 3}", "", "drawn") for i in range(count)]
        self.broken, self.odd = broken, odd

    def faults(self, index: int) -> list[str]:
        return []

    def read(self, index: int) -> Sample:
        if index in self.broken:
            raise DataError(f"drawn: frame {index} is broken")
        random = np.random.default_rng(index)
        size = (20, 28) if index in self.odd else (24, 32)
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        depth = random.uniform(1, 9, size).astype(np.float32)
        return {"image": image, "depth": depth, "id": f"f{index}", "scene": f"s{index % 3}", "source": "drawn"}


class Made:
    """Frames made up in memory; reading one fails after `lasts` of them."""

    def __init__(
        self, count: int = 7, *, sizes: tuple[tuple[int, int], ...] = ((6, 8),), lasts: int = 10**9, **extra: Any
    ) -> None:
        self.frames = [Frame(f"f{i}", f"scene-{i // 3}", "", "made") for i in range(count)]
        self.fingerprint, self.sizes, self.lasts, self.extra, self.reads = "f" * 64, sizes, lasts, extra, 0

    def read(self, index: int) -> Sample:
        self.reads += 1
        if self.reads > self.lasts:
            raise KeyboardInterrupt
        size = self.sizes[index % len(self.sizes)]
        depth = np.full(size, 1.5 + index, np.float32)
        image = np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        sample: Any = {"image": image, "depth": depth, **self.extra}
        return cast(Sample, sample)


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ (1 << bit)]))
