"""What a forward pass changes, such as statistics of batch norm: kept before a step, restored where it is skipped."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn


class KeptBuffers:
    """Copies of a network's buffers in memory that is allocated once."""

    def __init__(self, model: nn.Module) -> None:
        groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for buffer in model.buffers():
            groups[buffer.device, buffer.dtype].append(buffer)
        self._groups = [_BufferGroup(buffers) for buffers in groups.values()]

    def keep(self) -> None:
        """Copy the buffers as they are now; a later call overwrites the copies."""
        for group in self._groups:
            group.keep()

    def restore(self, skip: bool | Tensor) -> None:
        """Set the buffers back to their copies if `skip`: a bool, or () bool on the device, which nobody waits for."""
        for group in self._groups:
            group.restore(skip)


class _BufferGroup:
    """Buffers of one device and dtype; their copies are parts of one tensor, so that few calls handle any number."""

    def __init__(self, buffers: list[Tensor]) -> None:
        self.buffers = buffers
        self.before, self.before_parts = _reserve(buffers)
        self.after: Tensor | None = None  # needed only where the device decides
        self.after_parts: list[Tensor] = []

    def keep(self) -> None:
        torch._foreach_copy_(self.before_parts, self.buffers)

    def restore(self, skip: bool | Tensor) -> None:
        if isinstance(skip, bool):
            if skip:
                torch._foreach_copy_(self.buffers, self.before_parts)
            return
        if self.after is None:
            self.after, self.after_parts = _reserve(self.buffers)
        torch._foreach_copy_(self.after_parts, self.buffers)
        # A choice, not arithmetic: what is replaced may be NaN, of which 0 times is NaN.
        torch.where(skip, self.before, self.after, out=self.after)
        torch._foreach_copy_(self.buffers, self.after_parts)


def _reserve(buffers: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One tensor (N,) with room for all buffers, and its parts in their shapes."""
    sizes = [buffer.numel() for buffer in buffers]
    memory = torch.empty(sum(sizes), dtype=buffers[0].dtype, device=buffers[0].device)
    parts = zip(torch.split(memory, sizes), buffers, strict=True)
    return memory, [part.view(buffer.shape) for part, buffer in parts]
