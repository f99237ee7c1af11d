"""Encoders: their sizes and maps, any inputs."""

import pytest
import torch
from torch import nn

from depthray.models.layers import encoders
from depthray.models.layers.encoder import widen
from depthray.models.layers.encoders import build_encoder, build_stack
from depthray.models.layers.inputs import input_channels


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 25_557_032 - 2_049_000),
        ("resnet101", 42_500_160),
        ("efficientnet_b0", 5_288_548 - 1_281_000),
        ("efficientnet_lite0", 4_652_008 - 1_281_000),
        ("efficientnet_lite1", 5_416_680 - 1_281_000),
        ("efficientnet_lite2", 6_092_072 - 1_281_000),
    ],
)
def test_parameters_without_classifier(name, parameters):
    with torch.device("meta"):
        assert count(build_encoder(name, ("image",), every_stage=True)) == parameters


@pytest.mark.parametrize("name", [*encoders.ENCODERS, *encoders.STAGED])
def test_five_maps_each_half_of_the_one_before(name):
    with torch.device("meta"):
        encoder = build_encoder(name, ("image",))
        maps = encoder(torch.empty(1, 3, 45, 64))
    assert tuple(level.shape[1] for level in maps) == encoder.channels
    assert [tuple(level.shape[2:]) for level in maps] == [(23, 32), (12, 16), (6, 8), (3, 4), (2, 2)]


@pytest.mark.parametrize("name", encoders.STAGED)
def test_efficientnets_give_nine_maps(name):
    with torch.device("meta"):
        encoder = build_encoder(name, ("image",), every_stage=True)
        maps = encoder(torch.empty(1, 3, 224, 224))
    assert tuple(level.shape[1] for level in maps) == encoder.channels
    assert [level.shape[2] for level in maps] == [112, 112, 56, 28, 14, 14, 7, 7, 7]


@pytest.mark.parametrize("name", ["efficientnet_b0", "efficientnet_lite1", "resnet50", "tiny"])
def test_only_the_image_counts_after_widening(name):
    inputs = ("sparse", "image", "semantics")
    torch.manual_seed(0)
    narrow = build_encoder(name, ("image",)).eval()
    torch.manual_seed(0)
    wide = build_encoder(name, inputs).eval()
    planes = torch.randn(1, input_channels(inputs), 32, 32)
    with torch.no_grad():
        assert torch.allclose(wide(planes)[-1], narrow(planes[:, 2:5])[-1], atol=1e-5)


def test_widening_without_an_image_starts_anew():
    convolution = widen(nn.Conv2d(3, 4, 3, stride=2, padding=1), ("sparse",))
    assert convolution.weight.shape == (4, 2, 3, 3) and convolution.weight.all()
    assert (convolution.stride, convolution.padding) == ((2, 2), (1, 1))


def test_widening_keeps_the_bias():
    narrow = nn.Conv2d(3, 4, 1)
    assert torch.equal(widen(narrow, ("image", "mask")).bias, narrow.bias)


def test_an_untrained_bottleneck_resnet_stays_calm():
    """With all residuals at full weight, the maps of 33 blocks reach the thousands."""
    torch.manual_seed(0)
    with torch.no_grad():
        assert build_encoder("resnet101", ("image",)).eval()(torch.randn(1, 3, 32, 32))[-1].abs().max() < 50


@pytest.mark.parametrize(
    ("name", "normalise", "red"),
    [("tiny", "imagenet", 0.515 / 0.229), ("tiny", "none", 1.0), ("efficientnet_lite0", "imagenet", 1.0)],
)
def test_colours_are_normalised_as_the_encoder_was_trained_or_left(name, normalise, red):
    stack = build_stack(("image",), build_encoder(name, ("image",)), max_depth=10.0, normalise=normalise)
    planes = stack({"image": torch.ones(1, 3, 1, 1)})
    assert planes[0, 0].item() == pytest.approx(red)
