"""Checkpoints to serve, written by code: untrained networks of one architecture that differ by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depthray import models
from depthray.checkpoints import load, save
from depthray.training import preflight

WORDS = ["data.size=64,96", "model.encoder=tiny"]


def write_checkpoint(
    folder: Path, *overrides: str, seed: int = 0, scale: float = 1.0, words: Sequence[str] = WORDS
) -> Path:
    """A checkpoint below a run folder; `scale` multiplies the last layer's weights."""
    made = preflight.load("demo", [*words, *overrides])
    torch.manual_seed(seed)
    weights = dict(models.build_model(made.model, made.data.inputs).state_dict())
    last = [name for name, value in weights.items() if value.is_floating_point()][-1]
    weights[last] = weights[last] * scale
    contents = load.CheckpointContents(
        weights=weights, state={}, recipe=made, metrics={"abs_rel": 0.1}, epoch=1, step=1, fingerprint="f"
    )
    return save.write(folder / "checkpoints", contents)


def photograph(height: int = 50, width: int = 70) -> NDArray[np.uint8]:
    """(H,W,3) uint8 RGB, everywhere different."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)


def broken(path: Path, how: str) -> Path:
    """Harm a checkpoint: `flipped` byte, `missing` weights, `nan` weights, `other` architecture's weights."""
    from checkpoints import reseal
    from safetensors.torch import load_file, save_file

    weights = path / "model.safetensors"
    if how == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "missing":
        weights.unlink()
    else:
        tensors: dict[str, Any] = load_file(weights)
        first = next(name for name, value in tensors.items() if value.ndim == 4)
        tensors[first] = tensors[first] * float("nan") if how == "nan" else tensors[first][:1].clone()
        save_file(tensors, weights)
        reseal(path)
    return path
