"""Networks that start from files: which weights go where, what is refused in one line, first convolutions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model, resnet18, resnet34
from weight_files import random_weights, start_report, started, tiny_depth_anything_v2

from depthray import models
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.weights.families.depth_anything_v2 import UNUSED, translate_key
from depthray.weights.start import start


@pytest.fixture(scope="module")
def resnet18_files(tmp_path_factory):
    """A state and the folder of its files."""
    torch.manual_seed(3)
    state, folder = resnet18().state_dict(), tmp_path_factory.mktemp("resnet18_files")
    torch.save(state, folder / "weights.pth")
    save_file(state, folder / "weights.safetensors")
    return state, folder


@pytest.fixture
def weights(tmp_path, resnet18_files):
    state, folder = resnet18_files
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return dict(state)


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_encoder_weights_come_from_a_file(tmp_path, weights, file):
    encoder = started(encoder="resnet18", weights=str(tmp_path / file)).encoder.state_dict()
    assert set(weights) - set(encoder) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(encoder[key], weights[key]) for key in encoder)


def test_resnet34_takes_torchvision_weights(tmp_path):
    state = resnet34().state_dict()
    torch.save(state, tmp_path / "weights.pth")
    encoder = started(encoder="resnet34", weights=str(tmp_path / "weights.pth")).encoder
    assert torch.equal(encoder.layer4[2].conv2.weight, state["layer4.2.conv2.weight"])


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [("state_dict", ""), ("model", ""), ("model", "module."), ("model", "module._orig_mod."), ("model", "model.")],
)
def test_what_training_scripts_put_around_weights_is_taken_off(tmp_path, weights, wrap, prefix):
    wrapped = {wrap: {f"{prefix}{key}": value for key, value in weights.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    encoder = started(encoder="resnet18", weights=str(tmp_path / "wrapped.pth")).encoder
    assert torch.equal(encoder.conv1.weight, weights["conv1.weight"])


def test_widened_first_convolution_keeps_file_weights(tmp_path, weights):
    inputs = ("sparse", "image")
    network, report = start_report(inputs, encoder="resnet18", weights=str(tmp_path / "weights.pth"))
    first = network.encoder.conv1.weight
    assert torch.equal(first[:, 2:], weights["conv1.weight"])
    assert not first[:, :2].any()
    assert "encoder.conv1.weight" in report.loaded


def test_without_an_image_the_first_convolution_stays_random(tmp_path, weights):
    network, report = start_report(("sparse",), encoder="resnet18", weights=str(tmp_path / "weights.pth"))
    assert "encoder.conv1.weight" in report.random
    assert torch.equal(network.encoder.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])


def test_weights_are_read_when_a_run_starts_and_not_when_a_network_is_built():
    section = Model(name="unet", encoder="tiny", weights="not-there.pth")
    network = models.build_model(section, ("image",))
    assert sum(parameter.numel() for parameter in network.parameters()) == 391_217
    with pytest.raises(UsageError, match="no such file"):
        start(network, section)


def test_a_network_without_memory_is_only_checked(tmp_path, weights):
    section = Model(name="unet", encoder="resnet18", weights=str(tmp_path / "weights.pth"))
    with torch.device("meta"):
        network = models.build_model(section, ("sparse", "image"))
    assert start(network, section).loaded
    assert all(parameter.is_meta for parameter in network.parameters())


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def spoil(folder: Path, how: str) -> Path:
    path = folder / f"bad.{'safetensors' if how == 'safetensors' else 'pth'}"
    other = {"other": torch.zeros(1)}
    contents = {"number": 3, "hostile": Hostile(), "other": other, "wide": {"conv1.weight": torch.zeros(2)}}
    contents |= {"empty": {}, "nested": {"model": {"weight": other["other"], "hostile": Hostile()}}}
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
        ("empty", "holds no weights by name"),
        ("hostile", "not a file of weights only"),
        ("nested", "not a file of weights only"),
        ("other", "lacks weight 'conv1.weight'"),
        ("wide", "weight 'encoder.conv1.weight' is (2,) there and (64, 3, 7, 7) here"),
    ],
)
def test_bad_weight_files_are_refused(tmp_path, monkeypatch, how, message):
    monkeypatch.chdir(tmp_path)
    path = spoil(tmp_path, how)
    with pytest.raises(UsageError, match=r"model\.weights=") as refused:
        started(encoder="resnet18", weights=str(path))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "executed").exists()


def test_weights_of_another_depth_are_refused_with_what_fits(tmp_path, weights):
    with pytest.raises(UsageError, match=r"lacks weight 'layer1.2") as refused:
        started(encoder="resnet34", weights=str(tmp_path / "weights.pth"))
    message = str(refused.value)
    assert "does not fit unet with encoder=resnet34: it is a ResNet-18 of torchvision or timm" in message
    assert "it fits model.encoder=resnet18" in message
    assert "takes resnet34, a depthray run of such a network" in message


def test_weights_of_another_family_are_refused(tmp_path, weights):
    with pytest.raises(UsageError, match=r"it is a ResNet-18 .* and lacks weight 'features.0.0.weight'"):
        started(name="bifpn", weights=str(tmp_path / "weights.pth"))


def test_a_file_with_too_much_is_refused_unless_part_of_it_will_do(tmp_path, weights):
    torch.save(weights | {"surplus.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(UsageError, match=r"has the unknown weight 'surplus\.weight'.*weights_match=partial"):
        started(encoder="resnet18", weights=str(tmp_path / "more.pth"))
    _, report = start_report(encoder="resnet18", weights=str(tmp_path / "more.pth"), weights_match="partial")
    assert report.unused == ("surplus.weight",)
    assert "weights: of the file, not used: surplus.weight" in report.notes


def test_partial_loads_what_fits_and_lists_the_rest(tmp_path, weights):
    section = {"encoder": "resnet34", "weights": str(tmp_path / "weights.pth"), "weights_match": "partial"}
    network, report = start_report(**section)
    assert torch.equal(network.encoder.layer1[1].conv2.weight, weights["layer1.1.conv2.weight"])
    assert "encoder.layer1.2.conv1.weight" in report.random
    assert report.unused == ()
    assert any("random: layer1.2.conv1.weight" in note and "more" in note for note in report.notes)


def test_partial_is_no_excuse_for_a_file_of_which_nothing_fits(tmp_path):
    torch.save({"other": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match="does not fit unet"):
        started(encoder="resnet18", weights=str(tmp_path / "weights.pth"), weights_match="partial")


def torchvision_maps(name, network, image):
    """The last map, by torchvision's own forward up to the pooling."""
    if name == "efficientnet_b0":
        return network.features(image)
    last: dict[str, torch.Tensor] = {}
    network.layer4.register_forward_hook(lambda _module, _taken, given: last.update(map=given))
    network(image)
    return last["map"]


@pytest.mark.parametrize(("name", "suffix"), [("resnet50", "pth"), ("efficientnet_b0", "safetensors")])
def test_weights_from_a_file_give_torchvision_features(tmp_path, name, suffix):
    torch.manual_seed(3)
    whole = get_model(name, weights=None).eval()
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(whole.state_dict(), path)
    architecture = "bifpn" if name == "efficientnet_b0" else "fpn"
    encoder = started(name=architecture, encoder=name, weights=str(path)).encoder.eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder(image)[-1], torchvision_maps(name, whole, image))


@pytest.fixture
def published(tmp_path):
    state = random_weights(tiny_depth_anything_v2())
    torch.save(state, tmp_path / "dpt.pth")
    save_file(state, tmp_path / "dpt.safetensors")
    return state


@pytest.mark.parametrize("file", ["dpt.pth", "dpt.safetensors"])
def test_published_weights_come_from_a_file(tmp_path, published, file):
    network = started(name="dpt", size="tiny", weights=str(tmp_path / file), weights_depth="metric")
    ours = network.state_dict()
    theirs = {translate_key(key): value for key, value in published.items() if not key.startswith(UNUSED)}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_other_inputs_are_added_to_the_published_ones(tmp_path, published):
    section = {"name": "dpt", "size": "tiny", "weights": str(tmp_path / "dpt.pth"), "weights_depth": "metric"}
    first = started(("sparse", "image"), **section).encoder.patch_embed.proj
    assert torch.equal(first.weight[:, 2:], published["pretrained.patch_embed.proj.weight"])
    assert torch.equal(first.bias, published["pretrained.patch_embed.proj.bias"])
    assert not first.weight[:, :2].any()


def test_weights_of_another_size_are_refused(tmp_path, published):
    section = {"name": "dpt", "size": "vits", "weights": str(tmp_path / "dpt.pth"), "weights_depth": "metric"}
    with pytest.raises(UsageError, match=r"model.weights=.*dpt.pth: does not fit dpt with size=vits") as refused:
        started(**section)
    assert "takes dinov2_vits14, " in str(refused.value)


def test_incomplete_weights_are_refused(tmp_path, published):
    del published["depth_head.projects.2.bias"]
    torch.save(published, tmp_path / "dpt.pth")
    with pytest.raises(UsageError, match=r"lacks weight 'depth_head.projects.2.bias'"):
        started(name="dpt", size="tiny", weights=str(tmp_path / "dpt.pth"), weights_depth="metric")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"encoder": "tiny"}, "no ImageNet weights for encoder 'tiny'"),
        ({"name": "dpt", "size": "tiny"}, "no ImageNet weights for this network"),
        ({"name": "masknet"}, "no ImageNet weights for this network"),
    ],
)
def test_not_every_network_has_imagenet_weights(section, message):
    inputs = ("background", "image") if section.get("name") == "masknet" else ("image",)
    with pytest.raises(UsageError, match=message):
        started(inputs, **section, weights="imagenet")
    _, report = start_report(inputs, **section, weights="imagenet?")
    (note,) = report.notes
    assert message in note and "starts from random weights" in note
