"""Seed system 001: its exact sizes, its linear decoder, its encoder weights."""

import os
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18, resnet34

from depthray import models
from depthray.config.sections import Model
from depthray.errors import UsageError
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


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    return state


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_encoder_weights_come_from_a_file(tmp_path, weights, file):
    encoder = build(encoder="resnet18", pretrained=str(tmp_path / file)).encoder.state_dict()
    assert set(weights) - set(encoder) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(encoder[key], weights[key]) for key in encoder)


def test_resnet34_takes_torchvision_weights(tmp_path):
    state = resnet34().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    encoder = build(encoder="resnet34", pretrained=str(tmp_path / "weights.pth")).encoder
    assert torch.equal(encoder.layer4[2].conv2.weight, state["layer4.2.conv2.weight"])


def test_widened_first_convolution_keeps_file_weights(tmp_path, weights):
    inputs = ("sparse", "image")
    first = build(encoder="resnet18", pretrained=str(tmp_path / "weights.pth"), inputs=inputs).encoder.conv1.weight
    assert torch.equal(first[:, 2:], weights["conv1.weight"])
    assert not first[:, :2].any()


def test_no_file_is_read_when_weights_come_from_a_checkpoint():
    section = Model(name="unet", encoder="tiny", pretrained="not-there.pth")
    assert count(models.build_model(section, ("image",), pretrained=False)) == 391_217


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def spoil(folder: Path, how: str) -> Path:
    path = folder / f"bad.{'safetensors' if how == 'safetensors' else 'pth'}"
    other = {"other": torch.zeros(1)}
    contents = {"number": 3, "hostile": Hostile(), "other": other, "wide": {"conv1.weight": torch.zeros(2)}}
    if how in contents:
        torch.save(contents[how], path)
    elif how != "missing":
        path.write_bytes(b"this is not a file of weights")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no such file"),
        ("garbage", "not a file of weights only"),
        ("safetensors", "not a readable safetensors file"),
        ("number", "holds a int, not weights by name"),
        ("hostile", "not a file of weights only"),
        ("other", "lacks weight 'conv1.weight'"),
        ("wide", "does not fit the encoder"),
    ],
)
def test_bad_weight_files_are_refused(tmp_path, monkeypatch, how, message):
    monkeypatch.chdir(tmp_path)
    path = spoil(tmp_path, how)
    with pytest.raises(UsageError, match=r"model\.pretrained=") as refused:
        build(encoder="resnet18", pretrained=str(path))
    assert message in str(refused.value)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_encoder_are_refused(tmp_path, weights):
    with pytest.raises(UsageError, match=r"lacks weight 'layer1.2"):
        build(encoder="resnet34", pretrained=str(tmp_path / "weights.pth"))


def test_failed_download_says_what_to_do(monkeypatch):
    def offline(*_args, **_options):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"resnet18 could not be downloaded .*no route.* model.pretrained=path/to"):
        build(encoder="resnet18", pretrained=True)


def test_tiny_has_no_imagenet_weights():
    with pytest.raises(UsageError, match="no ImageNet weights for encoder 'tiny'"):
        build(encoder="tiny", pretrained=True)


def test_the_linear_variant_is_the_published_network():
    assert VARIANTS["unet-linear"] == {"decoder": "linear"}
    with torch.device("meta"):
        assert count(build(**VARIANTS["unet-linear"])) == 23_644_737
