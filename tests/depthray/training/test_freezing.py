"""What is frozen, and the rates of an encoder's layers."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from depthray.config.sections import Data, Model, Optim, Recipe
from depthray.errors import UsageError
from depthray.models import build_model, dpt, unet
from depthray.training import dry_run
from depthray.training.freezing import Freezing, trained_share
from depthray.training.optim import build_optimiser, layer_heights


def frozen(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def named(network: nn.Module, start: str) -> set[str]:
    return {name for name, _ in network.named_parameters() if name.startswith(start)}


@pytest.fixture
def network() -> nn.Module:
    return unet.build(encoder="resnet18")


@pytest.mark.parametrize(
    ("section", "start"),
    [
        ({"encoder_lr": 0}, "encoder."),
        ({"freeze": ("encoder.*",)}, "encoder."),
        ({"freeze": ("encoder.layer1.*", "encoder.layer1.0.conv1.weight")}, "encoder.layer1."),
    ],
)
def test_what_is_frozen_is_not_in_the_optimiser(network: nn.Module, section: dict[str, Any], start: str) -> None:
    optim = Optim(**section)
    freezing = Freezing(network, optim)
    for epoch in range(3):
        assert not freezing.apply(epoch)
        assert frozen(network) == named(network, start)
    rest = sum(parameter.numel() for name, parameter in network.named_parameters() if not name.startswith(start))
    groups = build_optimiser(network, optim).param_groups
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == rest
    assert trained_share(network)[0] == rest


def test_the_first_epochs_are_a_pure_function_of_the_epoch(network: nn.Module) -> None:
    freezing = Freezing(network, Optim(freeze=("encoder.*",), freeze_epochs=2))
    everything = named(network, "")
    assert frozen(network) == set()  # the optimiser is made of all that ever trains
    changes = [(freezing.apply(epoch), frozen(network) == named(network, "encoder.")) for epoch in (0, 1, 2, 3, 1)]
    assert changes == [(True, True), (False, True), (True, False), (False, False), (True, True)]
    freezing.release()
    assert frozen(network) == set() and named(network, "") == everything


def test_what_an_architecture_froze_itself_is_never_released() -> None:
    network = dpt.build(size="tiny", lora_rank=4)
    before = frozen(network)
    freezing = Freezing(network, Optim(freeze=("encoder.*",), freeze_epochs=1))
    freezing.apply(0)
    assert frozen(network) > before
    freezing.apply(1)
    assert frozen(network) == before


def test_batch_norm_of_frozen_parts_keeps_its_statistics(network: nn.Module) -> None:
    freezing = Freezing(network, Optim(freeze=("encoder.*",), freeze_epochs=1))
    freezing.apply(0)
    norms = {name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert set(freezing.norms()) == {name for name in norms if name.startswith("encoder.")} < norms
    freezing.apply(1)
    assert freezing.norms() == {}
    assert set(Freezing(network, Optim(), batchnorm=True).norms()) == norms


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"freeze": ("encodr.*",)}, r"optim.freeze=encodr.\*: no parameter has such a name .did you mean 'encoder.\*'"),
        ({"freeze": ("*",)}, "no parameter is left to train"),
        ({"freeze": ("*",), "freeze_epochs": 3}, "no parameter is left to train"),
        ({"freeze": ("[!e]*",), "encoder_lr": 0.0, "freeze_epochs": 1}, "no parameter is left to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(
    network: nn.Module, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Freezing(network, Optim(**section))


@pytest.mark.parametrize(
    "section", [Optim(freeze=("nothing.*",)), Optim(encoder_lr=0), Optim(layer_decay=0.9), Optim(encoder_lr=0.1)]
)
def test_a_dry_run_refuses_what_the_network_does_not_have(section: Optim) -> None:
    recipe = Recipe(model=Model(name="depthnet"), data=Data(inputs=("image", "sparse")), optim=section)
    with pytest.raises(UsageError, match=r"optim\.(freeze|encoder_lr|layer_decay)="):
        dry_run.check_model(recipe, start=False)


def test_dry_runs_with_different_frozen_parts_do_not_disturb_each_other() -> None:
    data = Data(size=(32, 32))
    for freeze in (("encoder.*",), ("head.*",), ("encoder.*",)):
        recipe = Recipe(model=Model(name="unet", encoder="tiny"), data=data, optim=Optim(freeze=freeze))
        dry_run.check_first_step(recipe, start=False)


def test_rates_of_a_transformer_fall_block_by_block() -> None:
    network = dpt.build(size="tiny")
    heights = layer_heights(network.encoder)
    assert {heights["cls_token"], heights["pos_embed"], heights["patch_embed.proj.weight"]} == {5}
    assert [heights[f"blocks.{number}.attn.qkv.weight"] for number in range(4)] == [4, 3, 2, 1]
    assert heights["norm.weight"] == 0
    optimiser = build_optimiser(network, Optim(lr=1.0, encoder_lr=0.5, layer_decay=0.1))
    rates = {id(parameter): group["lr"] for group in optimiser.param_groups for parameter in group["params"]}
    of = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    assert of["encoder.blocks.3.mlp.fc1.weight"] == pytest.approx(0.05)
    assert of["encoder.blocks.0.mlp.fc1.weight"] == pytest.approx(0.5e-4)
    assert of["encoder.pos_embed"] == pytest.approx(0.5e-5)
    assert of["encoder.norm.bias"] == 0.5
    assert of["depth_head.scratch.output_conv1.weight"] == 1.0


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("resnet18", {"conv1.weight": 5, "bn1.bias": 5, "layer1.0.conv1.weight": 4, "layer4.1.bn2.weight": 1}),
        ("tiny", {"conv1.weight": 5, "norm1.weight": 5, "stages.0.conv1.weight": 4, "stages.3.conv2.weight": 1}),
    ],
)
def test_rates_of_convolutions_fall_stage_by_stage(encoder: str, expected: dict[str, int]) -> None:
    network: Any = build_model(Model(name="unet", encoder=encoder), ("image",))
    heights = layer_heights(network.encoder)
    assert {name: heights[name] for name in expected} == expected
    assert heights.keys() == {name for name, _ in network.encoder.named_parameters()}


def test_rates_of_another_librarys_encoder_follow_its_children() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 3)
            self.stages_0 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.stages_1 = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
            self.norm = nn.BatchNorm2d(4)

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Features()

    heights = layer_heights(Adapter())
    assert {name.rpartition(".")[0]: height for name, height in heights.items()} == {
        "network.stem": 3,
        "network.stages_0.0": 2,
        "network.stages_1.0": 1,
        "network.norm": 0,
    }
