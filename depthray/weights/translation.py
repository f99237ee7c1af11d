"""What a family makes of a file: its weights by the names of our networks, and what there is to say about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from depthray.config.sections import DepthKind

ENCODER = "encoder."  # begins the names of an encoder's weights, in every network that has one
Weights = Mapping[str, Tensor]
Widths = Mapping[str, int]  # channels by input, in the order in which a first convolution takes them


@dataclass(frozen=True)
class Hints:
    """What is known about a file besides its bytes."""

    names: tuple[str, ...] = ()  # of the file and of the repository it was published in
    depth: str = ""  # "metric" or "relative", where the catalogue says so
    max_depth: float | None = None  # metres, from the catalogue
    requested: str = "auto"  # model.weights_depth


class Misfit(Exception):
    """A file that no recipe can start from, or not without being asked to: what it is, and what would fit."""


@dataclass(frozen=True)
class Translation:
    """Weights of a file by the names that they have in a network."""

    what: str  # what the file is, for people
    fits: str  # keys of a recipe whose network it fits
    weights: dict[str, Tensor]
    prefix: str = ""  # the part of a network that the file describes: all names that begin so
    idle: tuple[
        str, ...
    ] = ()  # weights of the file that no network needs, by their own names: classifiers and the like
    lost: tuple[str, ...] = ()  # weights of the file that matter and have no place in our networks
    why_lost: str = ""
    fresh: tuple[str, ...] = ()  # beginnings of our names that stay random on purpose
    stacks: tuple[Widths, ...] = ({"image": 3},)  # what its first convolutions take
    max_depth: float | None = None  # metres that the last layer was trained for
    depth_kind: DepthKind = "metric"  # what the numbers of its depth are
    corrects: bool | None = None  # whether the last layer corrects spread samples; None where that is not known
    notes: tuple[str, ...] = field(default=())


def encoder_of(network: nn.Module) -> nn.Module | None:
    """The part of a network that published weights of image classifiers fit; None where it has none."""
    encoder = getattr(network, ENCODER.rstrip("."), None)
    return encoder if isinstance(encoder, nn.Module) else None


def stacks_of(network: nn.Module) -> tuple[Widths, ...]:
    """What the first convolutions of a network take: all of its inputs, or those of a branch."""
    modules: list[Any] = list(network.modules())
    return tuple(module.widths for module in modules if isinstance(getattr(module, "widths", None), dict))


def last_layers(network: nn.Module) -> tuple[str, ...]:
    """The beginnings of the names of the layers whose output becomes depth."""
    return tuple(f"{name}." for name, module in network.named_modules() if getattr(module, "is_last", False))


def corrects_samples(network: nn.Module) -> bool:
    """Whether the last layer of a network corrects spread samples."""
    return any(getattr(module, "corrects", False) for module in network.modules())


def split(weights: Weights, idle: tuple[str, ...]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights without those whose names begin with one of `idle`, and the names of those."""
    kept = {key: value for key, value in weights.items() if not key.startswith(idle)}
    return kept, tuple(key for key in weights if key not in kept)
