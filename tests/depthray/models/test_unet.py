"""Seed system 001: its exact sizes and its linear decoder."""

import pytest
import torch
from torch import nn

from depthray.models.unet import VARIANTS, build


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("encoder", "decoder", "parameters"),
    [
        ("resnet34", "fixed", 23_645_697),
        ("resnet34", "linear", 23_644_737),
        ("resnet18", "fixed", 13_537_537),
        ("resnet18", "linear", 13_536_577),
        ("resnet50", "fixed", 31_730_433),
        ("tiny", "fixed", 391_217),
    ],
)
def test_parameter_counts(encoder, decoder, parameters):
    assert count(build(encoder=encoder, decoder=decoder)) == parameters


def test_steps_up_have_the_original_sizes():
    sizes = [count(up.conv) for up in build(decoder="linear").decoder]
    assert sizes == [1_769_728, 442_496, 110_656, 36_896]


def test_feature_maps_halve_five_times():
    features = build(encoder="resnet18").encoder(torch.rand(2, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in features] == [
        (64, 32, 48),
        (64, 16, 24),
        (128, 8, 12),
        (256, 4, 6),
        (512, 2, 3),
    ]


@pytest.mark.parametrize(("decoder", "linear"), [("linear", True), ("fixed", False)])
def test_only_the_linear_decoder_is_linear(decoder, linear):
    torch.manual_seed(0)
    up = build(encoder="resnet18", decoder=decoder).decoder[0].eval()
    nn.init.zeros_(up.conv.bias)
    first, second = ((torch.randn(1, 512, 2, 2), torch.randn(1, 256, 4, 4)) for _ in range(2))
    with torch.no_grad():
        both = up(first[0] + second[0], first[1] + second[1])
        assert torch.allclose(both, up(*first) + up(*second), atol=1e-4) is linear


def test_tiny_has_no_batch_norm():
    assert not [module for module in build(encoder="tiny").modules() if isinstance(module, nn.BatchNorm2d)]


def test_max_depth_scales_the_answer():
    batch = {"image": torch.rand(1, 3, 32, 32)}
    near, far = build(encoder="tiny"), build(encoder="tiny", max_depth=80.0)
    far.load_state_dict(near.state_dict())
    assert torch.allclose(far(batch)["depth"], 8 * near(batch)["depth"])


def test_the_linear_variant_is_the_published_network():
    assert VARIANTS["unet-linear"] == {"decoder": "linear"}
    with torch.device("meta"):
        assert count(build(**VARIANTS["unet-linear"])) == 23_644_737
