"""The number format of the forward pass, and where a narrow one is faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from depthray import distributed
from depthray.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """A number format on a device; parameters and losses stay float32."""

    device: torch.device
    dtype: torch.dtype

    @staticmethod
    def of(name: str, device: torch.device) -> Precision:
        """The format of `train.precision` on a device; `auto` is narrow only where hardware computes in it."""
        if name == "fp16" and device.type == "cpu":
            raise UsageError("train.precision=fp16 gains nothing on a CPU; use auto, bf16 or fp32")
        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        # One format for all ranks, though their hardware may differ.
        return Precision(device, dtypes[name] if name in dtypes else distributed.broadcast(fastest(device)))

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled, since small gradients vanish in the format."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def fastest(device: torch.device) -> torch.dtype:
    """The format in which the device multiplies fastest without losing training."""
    if device.type == "cuda":
        # Tensor cores compute in bf16 since Ampere (8), in fp16 since Volta (7); before, float32 is as fast.
        major, _ = torch.cuda.get_device_capability(device)
        if major >= 8:
            return torch.bfloat16
        return torch.float16 if major == 7 else torch.float32
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


@cache
def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    # Without these instructions bf16 is emulated, which is slower than float32.
    return "avx512_bf16" in flags or "amx_bf16" in flags
