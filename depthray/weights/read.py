"""Files of weights, read without running anything that is in them: .safetensors, and pickles of tensors alone."""

from __future__ import annotations

import warnings
from pathlib import Path
from pickle import UnpicklingError  # the name of an error only; nothing here unpickles code
from typing import Any

import torch
from torch import Tensor

from depthray.errors import UsageError

# What torch.load raises on bytes that are no weights depends on where in the file they are wrong.
UNREADABLE = (UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError)
# Under which key training scripts save the weights among other things; of several the first counts.
NESTED = ("state_dict", "model", "model_state_dict", "model_state", "state", "net", "network", "weights")
# What wrappers of networks put before all names: DataParallel, torch.compile, Lightning.
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.")


def read(path: Path, *, where: str) -> dict[str, Tensor]:
    """The weights of a file by name, without what wrappers put around them. UsageError begins with `where`."""
    if not path.is_file():
        raise UsageError(f"{where}: no such file; give a .pth or .safetensors file of weights, or a run of depthray")
    loaded = _read_safetensors(path, where=where) if path.suffix == ".safetensors" else _read_pickle(path, where=where)
    return unwrap(loaded, where=where)


def unwrap(loaded: Any, *, where: str) -> dict[str, Tensor]:
    """The tensors of a dictionary, or of the one in it that training scripts save weights in."""
    if not isinstance(loaded, dict):
        raise UsageError(f"{where}: holds a {type(loaded).__name__}, not weights by name")
    while (inner := next((loaded[key] for key in NESTED if isinstance(loaded.get(key), dict)), None)) is not None:
        loaded = inner
    weights = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not weights:
        keys = ", ".join(repr(key) for key in list(loaded)[:3])
        raise UsageError(f"{where}: holds no weights by name ({keys or 'nothing'}); give a file of weights")
    return _without_wrappers(weights)


def _without_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((each for each in WRAPPERS if all(key.startswith(each) for key in weights)), ""):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _read_pickle(path: Path, *, where: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that is about to be refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UsageError(f"{where}: not a file of weights only ({one_line(error)})") from None


def _read_safetensors(path: Path, *, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{where}: not a readable safetensors file ({one_line(error)})") from None


def one_line(error: Exception) -> str:
    """The first sentence of a message that may run over many lines."""
    return " ".join(str(error).split())[:160] or type(error).__name__
