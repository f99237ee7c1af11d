"""Each family against the names in its published code: what goes where, what is left, what is refused and why."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from weight_files import (
    TINY,
    dinov2,
    prefixed,
    random_weights,
    start_report,
    started,
    tiny_depth_anything_3,
    tiny_depth_anything_v2,
    tiny_head,
    tiny_moge_2,
)

from depthray.errors import UsageError
from depthray.weights.families import efficientnet, timm_names
from depthray.weights.families.transformers_names import publish

TINY_DPT = {"name": "dpt", "size": "tiny"}


def saved(tmp_path, weights, name="weights.pth"):
    torch.save(weights, tmp_path / name)
    return str(tmp_path / name)


def test_dinov2_by_its_own_names_fills_the_encoder(tmp_path):
    weights = random_weights(dinov2())
    network, report = start_report(**TINY_DPT, weights=saved(tmp_path, weights))
    ours = network.state_dict()
    assert all(torch.equal(ours[f"encoder.{key}"], value) for key, value in weights.items() if key != "mask_token")
    assert {key.split(".")[0] for key in report.random} == {"depth_head"}
    assert report.unused == ()
    assert "62 of 122 weights of the network are those of a DINOv2 ViT of width 48" in report.notes[0]


def test_dinov2_with_registers_needs_a_network_with_them(tmp_path):
    weights = random_weights(dinov2(registers=4))
    path = saved(tmp_path, weights)
    network = started(**TINY_DPT, registers=4, weights=path)
    assert torch.equal(network.encoder.register_tokens, weights["register_tokens"])
    with pytest.raises(UsageError, match=r"has the unknown weight 'register_tokens'") as refused:
        started(**TINY_DPT, weights=path)
    assert "with 4 registers" in str(refused.value)
    with pytest.raises(UsageError, match=r"lacks weight 'register_tokens'"):
        started(**TINY_DPT, registers=4, weights=saved(tmp_path, random_weights(dinov2())))


def test_timm_names_registers_otherwise_and_stores_positions_of_patches_alone(tmp_path):
    weights = random_weights(dinov2(registers=4))
    of_timm = {key: value for key, value in weights.items() if key not in ("mask_token", "register_tokens")}
    of_timm |= {"reg_token": weights["register_tokens"], "pos_embed": weights["pos_embed"][:, 1:]}
    encoder = started(**TINY_DPT, registers=4, weights=saved(tmp_path, of_timm)).encoder
    assert torch.equal(encoder.register_tokens, weights["register_tokens"])
    assert torch.equal(encoder.pos_embed[:, 1:], weights["pos_embed"][:, 1:])
    assert not encoder.pos_embed[:, 0].any()


@pytest.mark.parametrize(
    ("name", "kind", "max_depth"),
    [
        ("depth_anything_v2_metric_hypersim_vits.pth", "metric", 20.0),
        ("depth_anything_v2_metric_vkitti_vitb.pth", "metric", 80.0),
        ("my_metric_finetuned.pth", "metric", None),
        ("depth_anything_v2_vits.pth", "relative", None),
        ("depth_anything_vitl14.pth", "relative", None),
    ],
)
def test_depth_anything_is_metric_or_relative_by_its_name(tmp_path, name, kind, max_depth):
    path = saved(tmp_path, random_weights(tiny_depth_anything_v2()), name)
    if kind == "relative":
        with pytest.raises(UsageError, match=r"predicts disparity without a unit, .*weights_depth=relative"):
            started(**TINY_DPT, weights=path)
        return
    network = started(**TINY_DPT, weights=path, max_depth=max_depth or 10.0)
    assert network.max_depth == (max_depth or 10.0)


def test_a_name_that_says_neither_is_refused_until_the_recipe_does(tmp_path):
    path = saved(tmp_path, random_weights(tiny_depth_anything_v2()), "latest.pth")
    with pytest.raises(UsageError, match=r"does not say whether metric or relative; give model.weights_depth=metric"):
        started(**TINY_DPT, weights=path)
    assert start_report(**TINY_DPT, weights=path, weights_depth="metric")[1].random == ()


def test_a_relative_file_is_converted_on_request(tmp_path):
    weights = random_weights(tiny_depth_anything_v2())
    path = saved(tmp_path, weights, "depth_anything_v2_vits.pth")
    network, report = start_report(**TINY_DPT, weights=path, weights_depth="relative")
    last = "depth_head.scratch.output_conv2.2"
    assert report.random == (f"{last}.weight", f"{last}.bias")
    assert not torch.equal(network.state_dict()[f"{last}.weight"], weights[f"{last}.weight"])
    assert torch.equal(network.depth_head.projects[0].weight, weights["depth_head.projects.0.weight"])
    assert any("its last layer starts anew" in note for note in report.notes)


def test_no_recipe_can_call_a_relative_file_metric(tmp_path):
    path = saved(tmp_path, random_weights(tiny_depth_anything_v2()), "depth_anything_v2_vits.pth")
    with pytest.raises(UsageError, match="not metres"):
        started(**TINY_DPT, weights=path, weights_depth="metric")


def test_max_depth_must_be_that_of_the_file(tmp_path):
    path = saved(tmp_path, random_weights(tiny_depth_anything_v2()), "depth_anything_v2_metric_vkitti_vits.pth")
    with pytest.raises(UsageError, match=r"was trained for model.max_depth=80, here it is 10"):
        started(**TINY_DPT, weights=path)
    assert started(**TINY_DPT, weights=path, max_depth=80.0)
    assert started(**TINY_DPT, weights=path, weights_match="partial")


def test_depth_anything_3_gives_all_but_the_end(tmp_path):
    weights = random_weights(tiny_depth_anything_3())
    path = str(tmp_path / "model.safetensors")
    save_file(weights, path)
    with pytest.raises(UsageError, match=r"is a Depth Anything 3 .*length of 300 pixels.*match=partial loads the"):
        started(**TINY_DPT, weights=path)
    network, report = start_report(**TINY_DPT, weights=path, weights_match="partial")
    assert torch.equal(network.encoder.cls_token, weights["model.backbone.pretrained.cls_token"])
    theirs = weights["model.head.scratch.refinenet4.out_conv.weight"]
    assert torch.equal(network.depth_head.scratch.refinenet4.out_conv.weight, theirs)
    assert {re.sub(r"\.\w+$", "", key) for key in report.random} == {"depth_head.scratch.output_conv2.2"}
    assert {key.rpartition(".")[0] for key in report.unused} == {
        "head.scratch.output_conv2.2",
        "head.scratch.sky_output_conv2.0",
        "head.scratch.sky_output_conv2.2",
    }


def test_depth_anything_3_for_many_views_is_refused(tmp_path):
    weights = random_weights(tiny_depth_anything_3() | {"model.backbone.pretrained.camera_token": (1, 2, TINY.width)})
    with pytest.raises(UsageError, match=r"for any number of views, .*DA3METRIC-LARGE and DA3MONO-LARGE fit"):
        started(**TINY_DPT, weights=saved(tmp_path, weights), weights_match="partial")


def test_of_moge_2_the_encoder_fits(tmp_path):
    weights = random_weights(tiny_moge_2())
    config = {"encoder": {"backbone": "dinov2_vits14", "intermediate_layers": 4}, "remap_output": "exp"}
    torch.save({"model_config": config, "model": weights}, tmp_path / "model.pt")
    path = str(tmp_path / "model.pt")
    with pytest.raises(UsageError, match=r"is a MoGe .*; its decoder predicts maps of points, .*match=partial"):
        started(**TINY_DPT, weights=path)
    network, report = start_report(**TINY_DPT, weights=path, weights_match="partial")
    assert torch.equal(network.encoder.norm.weight, weights["encoder.backbone.norm.weight"])
    assert {key.split(".")[0] for key in report.random} == {"depth_head"}
    assert {key.split(".")[0] for key in report.unused} == {"encoder", "neck", "points_head", "scale_head"}


def of_transformers(weights):
    """The names and layers that transformers' convert_depth_anything_to_hf.py and convert_dinov2_to_hf.py give."""
    renamed = {}
    for key, value in weights.items():
        if ".attn.qkv." in key:
            block, kind = re.search(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", key).groups()
            path = f"backbone.encoder.layer.{block}.attention.attention"
            for name, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"{path}.{name}.{kind}"] = part.clone()
            continue
        for pattern, name in RULES:
            key = re.sub(pattern, name, key)
        renamed[key] = value
    return renamed


RULES: tuple[tuple[str, Any], ...] = (
    (r"^pretrained\.(cls_token|mask_token)", r"backbone.embeddings.\1"),
    (r"^pretrained\.pos_embed", "backbone.embeddings.position_embeddings"),
    (r"^pretrained\.patch_embed\.proj", "backbone.embeddings.patch_embeddings.projection"),
    (r"^pretrained\.norm\.", "backbone.layernorm."),
    (r"^pretrained\.blocks\.", "backbone.encoder.layer."),
    (r"(layer\.\d+)\.attn\.proj", r"\1.attention.output.dense"),
    (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
    (r"^depth_head\.projects\.(\d)", r"neck.reassemble_stage.layers.\1.projection"),
    (r"^depth_head\.resize_layers\.(\d)", r"neck.reassemble_stage.layers.\1.resize"),
    (r"^depth_head\.scratch\.layer(\d)_rn", lambda found: f"neck.convs.{int(found[1]) - 1}"),
    (r"^depth_head\.scratch\.refinenet(\d)", lambda found: f"neck.fusion_stage.layers.{4 - int(found[1])}"),
    (r"(fusion_stage\.layers\.\d)\.out_conv", r"\1.projection"),
    (r"resConfUnit([12])\.conv([12])", r"residual_layer\1.convolution\2"),
    (r"^depth_head\.scratch\.output_conv1", "head.conv1"),
    (r"^depth_head\.scratch\.output_conv2\.0", "head.conv2"),
    (r"^depth_head\.scratch\.output_conv2\.2", "head.conv3"),
)


def test_names_of_transformers_are_those_published():
    weights = random_weights(tiny_depth_anything_v2())
    published = publish(of_transformers(weights))
    assert published.keys() == weights.keys()
    assert all(torch.equal(published[key], weights[key]) for key in weights)


def test_transformers_dinov2_fills_the_encoder(tmp_path):
    weights = random_weights(dinov2())
    theirs = of_transformers({f"pretrained.{key}": value for key, value in weights.items()})
    bare = {key.removeprefix("backbone."): value for key, value in theirs.items()}
    encoder = started(**TINY_DPT, weights=saved(tmp_path, bare)).encoder
    assert torch.equal(encoder.blocks[0].attn.qkv.weight, weights["blocks.0.attn.qkv.weight"])


def test_a_decoder_alone_is_no_known_family(tmp_path):
    weights = random_weights(prefixed("depth_head.", tiny_head()))
    with pytest.raises(UsageError, match=r"lacks weight 'encoder\."):
        started(**TINY_DPT, weights=saved(tmp_path, weights))


@pytest.mark.parametrize(
    ("network", "timm_name"),
    [
        ({"name": "unet", "encoder": "efficientnet_lite0"}, "tf_efficientnet_lite0"),
        ({"name": "bifpn", "encoder": "efficientnet_lite2"}, "tf_efficientnet_lite2"),
        ({"name": "bifpn", "encoder": "efficientnet_b0"}, "efficientnet_b0"),
        ({"name": "unet", "encoder": "resnet18"}, "resnet18"),
    ],
)
def test_files_of_timm_fill_encoders_of_other_names(tmp_path, network, timm_name):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(timm_name).eval()
    for buffer in (each for key, each in theirs.named_buffers() if "running" in key):
        buffer.uniform_(0.5, 1.5)
    made, report = start_report(**network, weights=saved(tmp_path, theirs.state_dict()))
    assert not [name for name in report.random if name.startswith("encoder.")]
    image = torch.randn(1, 3, 64, 64)
    features = timm.create_model(timm_name, features_only=True).eval()
    features.load_state_dict(theirs.state_dict(), strict=False)
    with torch.no_grad():
        ours = {tuple(level.shape): level for level in made.encoder.eval()(image)}
        shared = [level for level in features(image) if tuple(level.shape) in ours]
        assert len(shared) >= 3
        for level in shared[1:]:
            torch.testing.assert_close(ours[tuple(level.shape)], level, atol=1e-4, rtol=1e-4)


def test_a_name_means_the_same_layer_in_all_three_styles():
    names = {
        "_blocks.1._depthwise_conv.weight": "blocks.1.0.conv_dw.weight",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_bn0.running_var": "bn1.running_var",
    }
    ports = efficientnet.parse([*names, "_blocks.0._bn1.weight"])
    timm = efficientnet.parse([*names.values(), "blocks.0.0.bn1.weight"])
    assert all(ports[port] == timm[name] for port, name in names.items())


@pytest.mark.parametrize("timm_name", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_encoders_of_timm_start_from_its_files(tmp_path, timm_name):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(timm_name).state_dict()
    made, report = start_report(encoder=f"timm/{timm_name}", weights=saved(tmp_path, theirs))
    assert not [name for name in report.random if name.startswith("encoder.network.")]
    convolution = next(name for name, value in theirs.items() if value.dim() == 4)
    assert any(torch.equal(value, theirs[convolution]) for value in made.encoder.network.state_dict().values())


def test_a_file_of_another_network_does_not_fit_an_encoder_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mobilenetv3_small_050").state_dict()
    with pytest.raises(UsageError, match=r"does not fit unet with encoder=timm/convnext_atto: it is weights of timm"):
        started(encoder="timm/convnext_atto", weights=saved(tmp_path, theirs))


def test_imagenet_of_an_encoder_of_timm_is_what_timm_publishes(monkeypatch):
    pytest.importorskip("timm")
    entry = timm_names.published("timm/convnext_tiny", where="here")
    assert entry.source == "hf:timm/convnext_tiny.in12k_ft_in1k@main/model.safetensors"
    assert (entry.licence, entry.commercial) == ("apache-2.0", True)
    monkeypatch.setattr(timm_names, "published_config", lambda name: {"mean": (0, 0, 0)})
    with pytest.raises(UsageError, match="no weights of timm/own on the hub"):
        timm_names.published("timm/own", where="here")
