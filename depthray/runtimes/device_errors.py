"""What a device cannot do as one error that says what to change: PyTorch's own do not, and Ray would try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from depthray.config.sections import Recipe
from depthray.errors import ResourceError, UsageError

# The libraries below PyTorch raise a bare RuntimeError, which only its text tells from others.
TEXTS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)
NOT_DETERMINISTIC = "does not have a deterministic implementation"


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


@contextmanager
def explained_in_training(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Raise a ResourceError where a step needs too much memory, a UsageError where it cannot be deterministic."""
    train, (height, width) = recipe.train, recipe.data.size
    advice = (
        f"raise train.accumulate={train.accumulate}, which runs the batch in smaller parts, or lower "
        f"train.batch_size={train.batch_size} or data.size={height},{width}, or train on more workers"
    )
    try:
        with explained(advice, device):
            yield
    except RuntimeError as error:
        if NOT_DETERMINISTIC not in str(error):
            raise
        operation = str(error).partition(NOT_DETERMINISTIC)[0].strip()
        raise UsageError(
            f"train.deterministic=true: PyTorch has no such form of {operation} on {device}, which this network or its "
            "loss uses; leave train.deterministic out"
        ) from None


def chosen(name: str | None) -> torch.device:
    """The device of a name, by default the GPU where there is one. UsageError where there is none that computes."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise UsageError(f"device {name}: there is none of that name; give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name}: this machine has {torch.cuda.device_count()} GPUs PyTorch can use")
    try:  # a device can be listed and still fail at its first kernel: an old driver, no free memory
        torch.zeros(1, device=device).tolist()
    except RuntimeError:
        raise UsageError(f"device {name}: PyTorch cannot compute on it here; give cpu, cuda or cuda:N") from None
    return device


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
