"""The bytes of a checkpoint's large files: weights as safetensors, training state as a pickle of plain values only."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from pickle import UnpicklingError  # the name of an error only; nothing here unpickles code
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from depthray.errors import CheckpointError


def serialize_weights(weights: dict[str, Tensor]) -> bytes:
    """Tensors by name -> safetensors bytes, each contiguous and, if tied to another, stored again."""
    # safetensors refuses tensors that share memory.
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in weights.items():
        dense = tensor.contiguous()
        storage = dense.untyped_storage().data_ptr()
        own[name] = dense.clone() if storage in storages else dense
        storages.add(storage)
    return safetensors.torch.save(own, metadata={"format": "pt"})


def read_weights(data: bytes, *, where: Path) -> dict[str, Tensor]:
    """The weights by name, as `safetensors` wrote them; CheckpointError names `where` if the bytes are no such file."""
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise CheckpointError(f"{where}: not a safetensors file ({error}); use another checkpoint") from None


def read_state(data: bytes, *, where: Path) -> dict[str, Any]:
    """The state of a training (optimiser, position), of tensors and plain values alone; no other pickle is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that is not ours, which is about to be refused
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, KeyError, EOFError):
        raise CheckpointError(f"{where}: holds something else than tensors and plain values; do not trust it") from None
    return state
