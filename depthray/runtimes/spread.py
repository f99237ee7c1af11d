"""How sure a network is by how far predictions differ: of the mirrored image, or of several networks.

For networks that do not predict it. The difference from the mirrored image is what Poggi et al. 2020 (arXiv:2005.06209,
section 3.1) call post-processing; networks from several seeds are the ensembles of Lakshminarayanan et al. 2017
(arXiv:1612.01474), whose own deviations, where they predict them, are added. Depth is the mean of ln depth, its
deviation that of the n predictions, sqrt(sum (x - mean)^2 / (n - 1)); of so few it is known better where the squares
are averaged over a neighbourhood, and `depthray calibrate --confidence` fits the factor by which errors are larger.
`SpreadNetwork` can be traced, so that an export has all of its networks and passes in one graph.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from depthray import models
from depthray.batch import Batch, Prediction
from depthray.checkpoints.calibration import NETWORK, Temperature
from depthray.config.sections import Recipe
from depthray.errors import UsageError
from depthray.models.layers import symbolic_size
from depthray.runtimes.export_folder import spread_family
from depthray.runtimes.open import EAGER, OpenedModel, open_model
from depthray.runtimes.passes import flipped

NEAREST = 1e-3  # metres, for logarithms
LEAST = 1e-3  # deviation of ln depth, where predictions agree
PARTS = 16  # of the shorter side: over a square of this part of it squares of differences are averaged
LOGITS = ("mask", "valid")  # maps that are averaged; others are the first network's
UNCALIBRATED = (
    "sigma is the spread of predictions as it is, which is less than their errors: fit a factor by `depthray calibrate "
    "--confidence` with --flip or --ensemble"
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spread:
    """Whose predictions are compared, in addition to that of a network itself."""

    flip: bool = False  # that of the mirrored image
    others: tuple[Path, ...] = ()  # those of other networks

    @staticmethod
    def of(confidence: str | None, others: Sequence[Path]) -> Spread | None:
        """What `confidence`, "flip" or nothing, and further networks ask for; None for what a network itself says."""
        if confidence not in (None, "flip"):
            raise UsageError(f"confidence {confidence}: give flip, or further networks as ensemble")
        return Spread(confidence == "flip", tuple(others)) if confidence or others else None

    def apply(self, opened: OpenedModel, *, trust: bool = False) -> OpenedModel:
        """The model with a network that predicts the spread, times the factor that was fitted to it, if one was."""
        check_metres(opened.recipe)
        if opened.runtime != EAGER and opened.spread != NETWORK:
            raise UsageError(f"confidence: this export has that of a spread already ({opened.spread}); leave it out")
        members = [open_model(path, device=opened.device, trust=trust) for path in self.others]
        for path, member in zip(self.others, members, strict=True):
            check_alike(opened.recipe, member.recipe, path)
        name = self.name_of([member.sha256 for member in members])
        networks = [opened.network, *(member.network for member in members)]
        network = SpreadNetwork(networks, flip=self.flip, factor=factor_of(opened.temperature, name))
        return replace(opened, network=network.eval(), spread=name)

    def name_of(self, digests: Sequence[str]) -> str:
        """The spread with networks of these SHA-256 as checkpoints and exports record it."""
        known = " ".join(sorted(digest[:16] for digest in digests))
        return " and ".join([*(["flip"] if self.flip else []), *([f"ensemble with {known}"] if known else [])])


def factor_of(temperature: Temperature | None, name: str) -> float:
    """The factor that was fitted to the spread of this name; 1 where none was, which is logged."""
    if temperature and temperature.of == name:
        return temperature.factor
    _log.warning(UNCALIBRATED)
    return 1.0


class SpreadNetwork(nn.Module):
    """Networks as one whose `depth` is the mean of their ln depth, and `log_sigma` the ln of its deviation."""

    stride = 1  # each of the networks is padded for by itself

    def __init__(self, networks: Sequence[nn.Module], *, flip: bool, factor: float = 1.0) -> None:
        super().__init__()
        self.networks, self.flip, self.widening = nn.ModuleList(networks), flip, math.log(factor)
        every: list[Any] = list(networks)
        self.inputs = tuple(dict.fromkeys(key for network in every for key in network.inputs))
        self.outputs = tuple(dict.fromkeys([*getattr(every[0], "outputs", ("depth",)), "log_sigma"]))
        self.uncertainty = spread_family(models.uncertainty_of(networks[0]))
        self.graph_stride = math.lcm(*(network.stride for network in every))  # a graph has no padding of its own

    def forward(self, batch: Batch) -> Prediction:
        """A batch -> the first network's prediction with the depth (B,1,H,W) and the deviation of all."""
        found = self._predictions(batch)
        size = (found[0]["depth"].shape[-2], found[0]["depth"].shape[-1])

        def of_all(key: str) -> Tensor:  # (n,B,1,H,W)
            return torch.stack([_resized(each[key].float(), size) for each in found])

        logs = of_all("depth").clamp(min=NEAREST).log()
        variance = _smooth(logs.var(dim=0)) + LEAST**2
        if all("log_sigma" in each for each in found):
            variance = variance + (2 * of_all("log_sigma")).exp().mean(dim=0)
        averaged = {key: of_all(key).mean(dim=0) for key in LOGITS if all(key in each for each in found)}
        depth, log_sigma = logs.mean(dim=0).exp(), variance.log() / 2 + self.widening
        return cast("Prediction", {**found[0], **averaged, "depth": depth, "log_sigma": log_sigma})

    def _predictions(self, batch: Batch) -> list[Any]:
        """The prediction of each network, and of the mirrored image, mirrored back."""
        found: list[Any] = []
        for network in self.networks:
            run = (lambda _, given, network=network: network(given)) if torch.compiler.is_exporting() else models.run
            found.append(run(network, batch))
            if self.flip:
                mirrored: Any = run(network, flipped(network, batch))
                kept = ("depth", "log_sigma", *LOGITS)
                found.append({key: mirrored[key].flip(-1) for key in kept if key in mirrored})
        return found


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,1,h,w) -> (B,1,H,W)"""
    if symbolic_size.same_size((values.shape[-2], values.shape[-1]), size):
        return values
    return functional.interpolate(values, size, mode="bilinear")


def _smooth(values: Tensor) -> Tensor:
    """(B,1,h,w) -> means over squares of a part of the shorter side"""
    if torch.compiler.is_exporting():
        return symbolic_size.local_mean(values, PARTS)
    side = max(1, min(values.shape[-2:]) // PARTS) | 1
    return functional.avg_pool2d(values, side, stride=1, padding=side // 2, count_include_pad=False)


def check_metres(recipe: Recipe) -> None:
    """Raise UsageError for a network whose predictions have no metres that could be compared."""
    if "depth" not in recipe.data.targets or recipe.depth_kind != "metric":
        raise UsageError("confidence: the spread is that of metres, which this network does not predict")


def check_alike(recipe: Recipe, other: Recipe, path: Path) -> None:
    """Raise UsageError for a network that gets another input, which no batch can be for both."""
    check_metres(other)
    for key in ("inputs", "size", "fit", "canonical_focal", "canonical"):
        ours, theirs = (_words(getattr(each.data, key)) for each in (recipe, other))
        if ours != theirs:
            raise UsageError(f"ensemble {path}: its data.{key} is {theirs}, that of the first network {ours}")


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
