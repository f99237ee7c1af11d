"""What of a network does not change: parameters by name, for all epochs or the first, and statistics of batch norm.

A frozen parameter gets no gradient, so no optimiser, weight decay or average changes it, and batch norm whose
parameters are frozen keeps its statistics. Which these are is a pure function of the epoch: a resumed run agrees.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from depthray.config.sections import Optim
from depthray.errors import UsageError, did_you_mean

ENCODER = "encoder.*"  # where an architecture has its encoder


class Freezing:
    """The parameters of a bare network that are frozen for all epochs, and for the first ones."""

    def __init__(self, model: nn.Module, section: Optim, *, batchnorm: bool = False) -> None:
        """Freeze what never trains. Raises UsageError for a pattern without a parameter, and where nothing is left."""
        self.model, self.batchnorm, self.epochs = model, batchnorm, section.freeze_epochs
        # Those that the architecture itself has frozen are never released.
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        _check_patterns(section.freeze, [name for name, _ in model.named_parameters()])
        never = [ENCODER] if section.encoder_lr == 0 else []
        never += section.freeze if not section.freeze_epochs else ()
        _freeze(trained[name] for name in _matching(trained, never))
        left = {name: parameter for name, parameter in trained.items() if parameter.requires_grad}
        self.early = [left[name] for name in _matching(left, section.freeze)]
        if len(self.early) == len(left):
            raise UsageError(f"optim.freeze={','.join(section.freeze)}: no parameter is left to train; freeze fewer")

    def apply(self, epoch: int) -> bool:
        """Freeze and release what is frozen in the first epochs only; True where that changed anything."""
        frozen = epoch < self.epochs
        changed = any(parameter.requires_grad == frozen for parameter in self.early)
        for parameter in self.early:
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None
        return changed

    def release(self) -> None:
        """Release all that is trained in any epoch."""
        self.apply(self.epochs)

    def norms(self) -> dict[str, nn.Module]:
        """The layers of batch norm that keep their statistics now, by name."""
        # Looked up each time: for several processes layers may have been replaced.
        layers = {name: module for name, module in self.model.named_modules() if isinstance(module, _BatchNorm)}
        return {name: layer for name, layer in layers.items() if self.batchnorm or _is_frozen(layer)}


def trained_share(model: nn.Module) -> tuple[int, int]:
    """How many numbers of a network are trained now, and how many it has."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trained in counts if trained), sum(count for count, _ in counts)


def _is_frozen(layer: nn.Module) -> bool:
    own = list(layer.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


def _freeze(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    chosen = tuple(patterns)
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen)]


def _check_patterns(patterns: Iterable[str], names: list[str]) -> None:
    """Raise UsageError for a pattern that is the name of no parameter: it would silently freeze nothing."""
    for pattern in patterns:
        if not _matching(names, [pattern]):
            parts = {f"{name.partition('.')[0]}.*" for name in names}
            raise UsageError(f"optim.freeze={pattern}: no parameter has such a name{did_you_mean(pattern, parts)}")
