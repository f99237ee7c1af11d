"""What networks are given in tests, and how their layers are listed."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn


def some(inputs: Collection[str], count: int = 2, height: int = 64, width: int = 64) -> Any:
    """A batch of these inputs, random but always the same."""
    generator = torch.Generator().manual_seed(1)
    values = {key: torch.rand(count, 3, height, width, generator=generator) for key in ("image", "background")}
    values |= {"sparse": torch.rand(count, 1, height, width, generator=generator) * 5}
    values |= {"mask": (torch.rand(count, 1, height, width, generator=generator) > 0.5).float()}
    ids = 211 * torch.randint(0, 4, (count, 1, height // 8 + 1, width // 8 + 1), generator=generator)
    ids = ids.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width]
    return {key: value for key, value in (values | {"semantics": ids, "instances": ids}).items() if key in inputs}


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
