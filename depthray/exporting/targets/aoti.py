"""AOTInductor: a program of torch.export compiled to native code, for this kind of processor alone."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path

from depthray.errors import UsageError
from depthray.exporting.graph import TracedGraph
from depthray.exporting.targets import TargetRequest, WrittenModel

PRECISIONS = ("fp32",)
PACKAGES = ("torch",)
FILE = "model.pt2"


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Compile and write the package."""
    from torch._inductor import aoti_compile_and_package

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about itself
            aoti_compile_and_package(traced.program, package_path=os.fspath(folder / FILE))
    except Exception as error:  # of many kinds: the compiler's, torch's
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--to aoti: compiling failed (it takes a C++ compiler): {reason}") from None
    request.note("It is native code of this machine: it runs on the same kind of processor with the same torch alone.")
    return WrittenModel(FILE, {"machine": platform.machine()})
