"""The number format of the forward pass, where a narrow one is faster, and the one place that sets TF32 and cuDNN."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from depthray import distributed
from depthray.config.sections import Recipe
from depthray.errors import UsageError

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Each device computes in the formats before its own too: Ampere, which prefers bf16, in fp16 as well.
NARROWER = (torch.float32, torch.float16, torch.bfloat16)
AMPERE = 8  # the major version of the first GPUs with bf16 and TF32; fp16 since Volta, 7
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without which cuBLAS may add in another order from call to call


@dataclass(frozen=True)
class Precision:
    """A number format on a device; parameters and losses stay float32."""

    device: torch.device
    dtype: torch.dtype
    tf32: bool = False  # float32 is multiplied in TF32 (10 bits of mantissa) where a GPU can; else in float32

    @staticmethod
    def of(name: str, device: torch.device, *, key: str = "train.precision") -> Precision:
        """The format of a recipe's key on a device; `auto` is narrow only where hardware computes in it."""
        if name == "fp16" and device.type == "cpu":
            raise UsageError(f"{key}=fp16 gains nothing on a CPU; use auto, bf16 or fp32")
        # One format for all ranks, though their hardware may differ: one that is fast on each.
        dtype = DTYPES[name] if name in DTYPES else min(distributed.gather([fastest(device)]), key=NARROWER.index)
        return Precision(device, dtype, tf32=name == "tf32")

    @staticmethod
    def of_evaluation(recipe: Recipe, device: torch.device) -> Precision:
        """The format of `eval.precision`; `auto` is that of training on a GPU, and float32 on a CPU."""
        if recipe.eval.precision != "auto":
            return Precision.of(recipe.eval.precision, device, key="eval.precision")
        return Precision.of(recipe.train.precision if device.type == "cuda" else "fp32", device)

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled, since small gradients vanish in the format."""
        return self.dtype == torch.float16

    @property
    def warning(self) -> str:
        """A line for a format that the GPU emulates, at a loss of speed; "" where it computes in it."""
        if self.device.type != "cuda" or not (self.tf32 or self.dtype == torch.bfloat16):
            return ""
        major, minor = torch.cuda.get_device_capability(self.device)
        if major >= AMPERE:
            return ""
        name = "tf32" if self.tf32 else "bf16"
        faster = {torch.float16: "fp16", torch.float32: "fp32"}[fastest(self.device)]
        return f"this GPU (compute capability {major}.{minor}) has no {name}: train.precision={faster} is faster on it"

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def apply(self, *, deterministic: bool = False) -> None:
        """Set what PyTorch keeps for the whole process: TF32, the choice of convolutions, determinism.

        Without TF32 float32 is float32, of convolutions too, which by PyTorch's default it is not. Sizes of a run are
        few, so that cuDNN tries which of its convolutions is the fastest, unless `deterministic`.
        """
        if deterministic:
            os.environ.setdefault(WORKSPACE, ":4096:8")  # read when cuBLAS is first used
        if deterministic != torch.are_deterministic_algorithms_enabled():
            torch.use_deterministic_algorithms(deterministic)  # which imports the compiler, for a second or two
        # It finds bugs, at a loss of speed.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = self.device.type == "cuda" and not deterministic
        _set_tf32(self.tf32)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Forward passes in this format, within a process that may train in another."""
        is_gpu = self.device.type == "cuda"
        before = is_gpu and torch.backends.cudnn.allow_tf32
        if is_gpu:
            _set_tf32(self.tf32)
        try:
            with self.autocast():
                yield
        finally:
            if is_gpu:
                _set_tf32(before)

    def describe(self, *, deterministic: bool = False) -> dict[str, str]:
        """What decides the last digits of a result, for the record: device, format and the settings of `apply`."""
        is_gpu = self.device.type == "cuda"
        record = {
            "device": torch.cuda.get_device_name(self.device) if is_gpu else "cpu",
            "precision": "tf32" if self.tf32 else next(name for name, dtype in DTYPES.items() if dtype == self.dtype),
            "deterministic": str(deterministic).lower(),
        }
        if is_gpu:
            record["cuda"] = str(torch.version.cuda)
            record["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        return record


def _set_tf32(allowed: bool) -> None:
    """Of convolutions and matrix products at once. The older of PyTorch's two ways, which its compiler asks for."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def fastest(device: torch.device) -> torch.dtype:
    """The format in which the device multiplies fastest without losing training."""
    if device.type == "cuda":
        # Before Volta float32 is as fast as fp16.
        major, _ = torch.cuda.get_device_capability(device)
        if major >= AMPERE:
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
