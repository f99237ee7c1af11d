"""Networks fused for CPUs predict the same; layers whose folding would change the results are left alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthray import models
from depthray.predict import Predictor
from depthray.training import preflight
from serve.registry import golden
from serve.replica import cpu_fusion

RECIPES = {  # with the lightest encoder of each kind of block
    "unet-resnet34": ["model.encoder=resnet18"],
    "fpn-resnet101": ["model.encoder=resnet50"],
    **dict.fromkeys(("bifpn-efficientnet-b0", "depthnet", "depthmasknet", "masknet"), ()),
}


def lived(network: nn.Module) -> nn.Module:
    """The network with statistics and factors of its normalisations as training leaves them: none is 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.running_var, layer.weight):
                if values is not None:
                    values.data.uniform_(0.5, 1.5, generator=generator)
            for values in (layer.running_mean, layer.bias):
                if values is not None:
                    values.data.uniform_(-0.2, 0.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", RECIPES)
def test_every_architecture_predicts_the_same(name: str) -> None:
    made = preflight.load(name, ["data.size=64,96", *RECIPES[name]])
    torch.manual_seed(0)
    network = lived(models.build_model(made.model, made.data.inputs))
    predictor = Predictor(network, made, device=torch.device("cpu"))
    samples = golden.samples(made.data.inputs, made.data.size)
    before = predictor.run(samples)
    assert cpu_fusion.fuse(predictor.model, lambda: predictor.run(samples))
    kinds = [type(layer) for layer in predictor.model.modules()]
    assert kinds.count(cpu_fusion.PackedConv) >= 5 and nn.Conv2d not in kinds
    for one, other in zip(predictor.run(samples), before, strict=True):
        for key, values in other.items():
            np.testing.assert_allclose(one[key], values, rtol=1e-4, atol=1e-4 * float(np.abs(values).max()))
    assert predictor.run(samples[:1])[0].keys() == before[0].keys()  # another batch size


class Wrong(nn.Module):
    """The output of the convolution is used by more than the normalisation, so that folding would change the result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.conv(values)
        return found + self.norm(found)


class Shared(nn.Module):
    """One convolution under two normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.two(self.conv(self.one(self.conv(values))))
        return found


def run_of(network: nn.Module, values: Tensor) -> Any:
    def run() -> Any:
        with torch.inference_mode():
            return [{"depth": network(values).numpy()}]

    return run


@pytest.mark.parametrize(("kind", "done"), [(Wrong, False), (Shared, True)])
def test_what_folding_would_change_is_left_alone(kind: type[nn.Module], done: bool) -> None:
    torch.manual_seed(0)
    network, values = lived(kind()), torch.rand(2, 3, 8, 8)
    run = run_of(network, values)
    before = run()[0]["depth"]
    assert cpu_fusion.fuse(network, run) is done
    np.testing.assert_allclose(run()[0]["depth"], before, atol=1e-6)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == (1 if kind is Wrong else 2)
