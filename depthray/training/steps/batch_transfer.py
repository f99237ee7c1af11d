"""Batches to the device: on a GPU by a stream of their own, so that a copy runs while the step before computes."""

from __future__ import annotations

import torch
from torch import Tensor

from depthray.batch import Batch, to_device


class BatchTransfer:
    """Moves batches (B,C,H,W) to a device as `to_device` does. On a CPU that is all; on a GPU nothing waits for it.

    The host is a step ahead of a GPU (see `Stepper`), so a copy that is queued now, on a stream that waits for nothing,
    overlaps with the step that the GPU still computes. The batch must be in pinned memory, as loaders give it.
    """

    def __init__(self, device: torch.device, *, min_depth: float, max_depth: float) -> None:
        self.device, self.min_depth, self.max_depth = device, min_depth, max_depth
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch) -> Batch:
        """A batch on the CPU -> on the device, for work on the current stream."""
        if self._stream is None:
            return self._move(batch)
        compute = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            moved = self._move(batch)
        compute.wait_stream(self._stream)
        for value in moved.values():
            if isinstance(value, Tensor):
                # Else its memory could be given to the next copy while the compute stream still reads it.
                value.record_stream(compute)
        return moved

    def _move(self, batch: Batch) -> Batch:
        return to_device(batch, self.device, min_depth=self.min_depth, max_depth=self.max_depth)
