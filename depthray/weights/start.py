"""A network with the weights that its recipe starts from."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from depthray.config.sections import Model


@dataclass(frozen=True)
class Provenance:
    """Where the weights of a network come from, and on which terms they may be used."""

    source: str  # as the recipe names it
    family: str = ""  # what the file was recognised as
    licence: str = ""  # as its publisher states it; "" where it is not known
    commercial: bool | None = None  # whether that licence allows commercial use; None where it is not known
    sha256: str = ""


@dataclass(frozen=True)
class StartReport:
    """Which weights of a network were loaded, and which were not."""

    provenance: Provenance | None = None  # None: random weights
    loaded: tuple[str, ...] = ()  # names of weights of the network
    random: tuple[str, ...] = ()  # names of weights of the network that stay as they were built
    unused: tuple[str, ...] = ()  # names of weights of the file
    notes: tuple[str, ...] = field(default=())  # lines for people


def start(network: nn.Module, section: Model) -> StartReport:
    """Load `model.weights` into a network that was built random. Raises UsageError where they do not fit."""
    return StartReport()
