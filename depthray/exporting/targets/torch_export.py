"""torch.export: a program that PyTorch runs without the Python code of the network."""

from __future__ import annotations

from pathlib import Path

import torch

from depthray.exporting.graph import TracedGraph
from depthray.exporting.targets import TargetRequest, WrittenModel

PRECISIONS = ("fp32",)
PACKAGES = ("torch",)
FILE = "model.pt2"


def write(traced: TracedGraph, folder: Path, request: TargetRequest) -> WrittenModel:
    """Write the program."""
    torch.export.save(traced.program, folder / FILE)
    return WrittenModel(FILE)
