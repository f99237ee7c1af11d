"""Dataclasses of tensors that move to a device as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Movable:
    """A dataclass whose tensors, some of them in tuples and in further ones of this kind, move together."""

    def to(self, device: torch.device) -> Self:
        """The same on a device, copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{each.name: _mapped(getattr(self, each.name), change) for each in fields(self)})


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple):
        return tuple(_mapped(each, change) for each in value)
    if isinstance(value, Movable):
        return value._map(change)
    return change(value) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class Some(Movable):
    """Numbers of some of a batch's samples, which alone are changed."""

    which: Tensor  # (n) their positions in the batch
    numbers: Tensor  # (n,...)

    @staticmethod
    def of(numbers: dict[int, Any]) -> Some | None:
        """Numbers by position, None where there are none."""
        if not numbers:
            return None
        return Some(torch.tensor(list(numbers)), torch.tensor(np.array(list(numbers.values()), np.float32)))

    def change(self, images: Tensor, make: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """(B,C,H,W) -> the same with make((n,C,H,W), numbers) in the place of these samples."""
        if len(self.which) == len(images):  # all, and in order
            return make(images, self.numbers)
        return images.index_copy(0, self.which, make(images.index_select(0, self.which), self.numbers))
