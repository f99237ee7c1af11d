"""Page-locked memory of a batch, which frames are read straight into: a GPU copies from it, and nothing before it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from depthray.data.source import Place

DTYPES = {"u1": torch.uint8, "<u2": torch.uint16}  # of what is read as it is stored


class BatchMemory:
    """The memory of the maps of so many samples. It is taken when the first is read, and torch keeps it for reuse."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._tensors: dict[str, Tensor] = {}
        self._rows: dict[str, list[NDArray[Any]]] = {}

    def place(self, number: int) -> Place:
        """Where a sample of the batch is read into."""
        return partial(self._row, number)

    def _row(self, number: int, key: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any] | None:
        if dtype not in DTYPES:
            return None
        if key not in self._tensors:
            self._tensors[key] = torch.empty((self._samples, *shape), dtype=DTYPES[dtype], pin_memory=True)
            self._rows[key] = list(self._tensors[key].numpy())
        row = self._rows[key][number]
        return row if row.shape == shape else None  # a frame of another size than the first is padded, and so copied

    def whole(self, key: str, arrays: Sequence[NDArray[Any]]) -> Tensor | None:
        """(B,H,W[,C]) where all samples have of this key what was read into here, None where one has something else."""
        rows = self._rows.get(key, [])
        if len(rows) != len(arrays) or any(one is not two for one, two in zip(rows, arrays, strict=True)):
            return None
        return self._tensors[key]
