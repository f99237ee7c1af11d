"""With late fusion a network predicts its depth without samples first, and samples correct its shape."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from completing_networks import SMALL, inputs_of
from inputs import some

from depthray import losses, models
from depthray.config.sections import Loss, Model
from depthray.errors import UsageError
from depthray.models.layers.depth_head import START
from depthray.models.layers.inputs import fill_sparse
from depthray.testing.network_contract import settled

INPUTS = ("image", "sparse")
each_architecture = pytest.mark.parametrize("name", SMALL)


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    section = Model(name=name, sparse_fusion="late", **SMALL[name], **options)
    return models.build_model(section, inputs_of(name)).eval()


def batch(network: Any) -> Any:
    """Two images that need no padding, the second without samples."""
    side = math.ceil(128 / network.stride) * network.stride
    made = some(network.inputs, 2, side, side)
    made["sparse"] = torch.where(torch.rand(2, 1, side, side) < 0.05, 0.5 + 3 * torch.rand(2, 1, side, side), 0.0)
    made["sparse"][1] = 0
    return made


@torch.no_grad()
def predict(network: Any, given: Any) -> Any:
    return models.run(network, given)


@each_architecture
def test_before_training_it_answers_with_the_spread_samples(name: str) -> None:
    network = build(name)
    given = batch(network)
    prediction = predict(network, given)
    spread = fill_sparse(given["sparse"])
    assert torch.allclose(prediction["depth"][:1], spread[:1], rtol=1e-5)
    assert torch.allclose(prediction["depth"][1], torch.tensor(START * 10))
    assert torch.allclose(prediction["monocular"], torch.tensor(START * 10))


@each_architecture
def test_depth_without_samples_is_predicted_along(name: str) -> None:
    network = settled(build(name, fill="guided")).eval()
    given = batch(network)
    prediction, without = predict(network, given), predict(network, {**given, "sparse": 0 * given["sparse"]})
    assert torch.equal(prediction["monocular"], without["monocular"])
    assert torch.allclose(without["depth"], without["monocular"].clamp(max=10), rtol=1e-4)
    assert torch.allclose(prediction["depth"][1], without["depth"][1], rtol=1e-4)
    assert not torch.allclose(prediction["depth"][0], without["depth"][0], rtol=0.1)


def test_depth_scales_with_the_samples() -> None:
    network = settled(build("unet", fill="guided")).eval()
    given = batch(network)
    depth, double = (predict(network, {**given, "sparse": k * given["sparse"]})["depth"][0] for k in (1, 2))
    assert depth.max() < 5 and torch.allclose(double, 2 * depth, rtol=1e-3)


def test_samples_correct_the_shape() -> None:
    """As far as the last step has learned to: not by a factor of the whole image, which samples give anyhow."""
    network = settled(build("unet")).eval()
    given = batch(network)
    before = predict(network, given)["depth"][0]
    moved = {**given, "sparse": torch.where(torch.arange(128) < 64, 0.8, 1.25) * given["sparse"]}
    ratio = (predict(network, moved)["depth"][0] / before).log()
    bare = (fill_sparse(moved["sparse"]) / fill_sparse(given["sparse"]))[0].log()
    assert (ratio - bare)[..., :32].abs().mean() > 1e-3


def test_its_loss_is_of_every_image_and_no_part_of_the_share() -> None:
    network = settled(build("unet")).train()
    given = batch(network)
    given["depth"] = torch.full_like(given["sparse"], 2.0)
    given["valid"] = given["depth"] > 0
    prediction = models.run(network, given)
    share, _ = losses.total(prediction, given, Loss(l1=1.0, over_spread=True))
    both, values = losses.total(prediction, given, Loss(l1=1.0, monocular=0.5, over_spread=True))
    error = (prediction["monocular"].log() - math.log(2)).abs().mean(dim=(1, 2, 3))
    assert torch.allclose(values["monocular"], error, rtol=1e-5) and (error > 0).all()
    assert torch.allclose(both, share + 0.5 * error, rtol=1e-5)
    with pytest.raises(UsageError, match=r"loss\.monocular needs 'monocular' of the network"):
        losses.total({"depth": prediction["depth"]}, given, Loss(monocular=1.0))


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({"name": "unet"}, ("image",), r"model\.sparse_fusion=late: give data\.inputs of which sparse is one"),
        ({"name": "unet"}, ("sparse",), r"model\.sparse_fusion=late: give data\.inputs of which sparse is one"),
        ({"name": "unet", "start": "legacy"}, INPUTS, r"model\.sparse_fusion=late is for networks that spread samples"),
        ({"name": "fpn", "encoder": "resnet18", "head": "relu"}, INPUTS, "no relu as the last activation"),
    ],
)
def test_what_cannot_join_late_is_refused(options: dict[str, Any], inputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        models.build_model(Model(sparse_fusion="late", **options), inputs)


def test_what_has_no_depth_is_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.sparse_fusion=late: masknet spreads no samples"):
        models.check(Model(name="masknet", sparse_fusion="late"), where="x")
