"""Models compiled by AOTInductor. They are native code: nothing about them can be checked but who made them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from depthray.runtimes.export_folder import ExportFolder

TARGETS = ("aoti",)
DEVICES = ("cpu",)
PACKAGES = ("torch",)
GAIN = "; compiled on the machine that exports, which needs a C++ compiler"
NATIVE = True  # its file is a program of this machine's instructions, opened only where the user trusts it


def load(folder: ExportFolder, *, threads: int, device: torch.device) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """The function of a compiled model: inputs (B,C,H,W) -> outputs (B,1,H,W). PyTorch's own threads compute it."""
    data = folder.read_file(folder.spec.model_file)
    with tempfile.TemporaryDirectory(prefix="depthray-") as temporary:
        copy = Path(temporary) / "model.pt2"  # of the bytes that were checked; the loader unpacks it elsewhere
        copy.write_bytes(data)
        compiled = torch._inductor.aoti_load_package(str(copy))

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.inference_mode():
            return list(compiled(*(tensor.contiguous() for tensor in tensors)))

    return run
