"""Too little memory as one error that names what to lower; PyTorch's own names neither, and Ray would try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from depthray.errors import ResourceError

# The libraries below PyTorch raise a bare RuntimeError, which only its text tells from others.
TEXTS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


@contextmanager
def explained(advice: str, device: torch.device) -> Iterator[None]:
    """Raise a ResourceError with the advice where the body runs out of memory, of the GPU or of the machine."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Without the cause, whose traceback would keep all tensors of the step alive.
        raise ResourceError(f"out of memory on {device}{_peak(device)}: {advice}") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is too little memory, which the same call would meet again."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS)


def _peak(device: torch.device) -> str:
    """The most that this process held of a GPU: of tensors, and with what its allocator kept of freed ones."""
    if device.type != "cuda":
        return ""
    tensors, held = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    return f" (peak {tensors / 2**30:.1f} GiB of tensors, {held / 2**30:.1f} held, of {total / 2**30:.1f})"
