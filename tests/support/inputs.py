"""What networks are given in tests, and how their layers are listed."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from depthray.testing.batches import some

__all__ = ["pair", "some", "summary_rows"]


def pair(height: int = 32, width: int = 32, count: int = 2) -> Any:
    """A scene with and without its foreground object."""
    return some(("image", "background"), count, height, width)


def summary_rows(
    model: nn.Module, batch: Any, *, shown: str, without: Collection[str]
) -> list[tuple[str, tuple[int, ...], int]]:
    """Kind, shape and own parameters of every layer, block and the network, as they finish; `shown` names the map."""
    found = []

    def note(module: nn.Module, _taken: Any, given: Tensor | dict[str, Tensor]) -> None:
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        shape = tuple((given[shown] if isinstance(given, dict) else given).shape[1:])
        found.append((type(module).__name__, shape, own))

    for module in model.modules():
        if type(module).__name__ not in without:
            module.register_forward_hook(note)
    with torch.no_grad():
        model(batch)
    return found
