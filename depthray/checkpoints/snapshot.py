"""Copies of a training state in CPU memory, taken between two steps and reusable for the next one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from depthray.errors import CheckpointError

PLAIN = (type(None), bool, int, float, str, bytes)
TensorKey = tuple[Any, ...]  # device, address, type, shape and strides: equal for two names of one tensor


class Snapshot:
    """Memory for one copy of a state. Each `take` overwrites the last; memory is allocated only the first time.

    A copy is as a save of the live tensors would be: same strides, and one tensor under two names stays one.
    """

    def __init__(self) -> None:
        self._memory: list[Tensor] = []
        self._taken: dict[TensorKey, Tensor] = {}
        self._event: torch.cuda.Event | None = None

    def take(self, tree: dict[str, Any]) -> dict[str, Any]:
        """Nested dicts, lists and tuples of tensors and plain values -> the same with tensors in CPU memory.

        From a GPU the copies are only queued, before anything that the caller queues later; `finish` awaits them.
        """
        self._taken.clear()
        copied: dict[str, Any] = self._copy(tree, "")
        del self._memory[len(self._taken) :]
        if any(key[0].type == "cuda" for key in self._taken):
            # One event for all copies, which a stream makes in order.
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        self._taken.clear()  # addresses are reused: a key holds only during one copy
        return copied

    def finish(self) -> None:
        """Wait until the copies are complete."""
        if self._event is not None:
            self._event.synchronize()

    def _copy(self, value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value.detach())
        if type(value) in PLAIN:
            return value
        if isinstance(value, dict):
            return {key: self._copy(item, f"{where}[{key!r}]") for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._copy(item, f"{where}[{i}]") for i, item in enumerate(value))
        if isinstance(value, np.generic):
            return value.item()
        # Anything else would need unpickling of code to come back.
        raise CheckpointError(f"state{where} is {type(value).__name__}: only tensors and plain values can be saved")

    def _copy_tensor(self, live: Tensor) -> Tensor:
        key = (live.device, live.data_ptr(), live.dtype, live.shape, live.stride())
        if key not in self._taken:
            self._taken[key] = self._host(len(self._taken), live).copy_(live, non_blocking=True)
        return self._taken[key]

    def _host(self, index: int, live: Tensor) -> Tensor:
        """CPU memory for a tensor: the same as last time if that still fits."""
        if index < len(self._memory):
            old = self._memory[index]
            if old.dtype == live.dtype and old.shape == live.shape and old.stride() == live.stride():
                return old
        # Only from pinned memory do copies of a GPU run while it computes.
        new = torch.empty_like(live, device="cpu", pin_memory=live.is_cuda)
        self._memory[index : index + 1] = [new]
        return new
