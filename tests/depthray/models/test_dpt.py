"""The anchor: published sizes and weight names, their loading, positions at other sizes."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from depthray.errors import UsageError
from depthray.models import dpt
from depthray.models.dpt import build, translate_key
from depthray.models.layers.vit import ViT, ViTShape

# Published metric checkpoints: encoder width, blocks, channels of the decoder and of its levels, parameters.
PUBLISHED = {
    "vits": (384, 12, 64, (48, 96, 192, 384), 24_785_089),
    "vitb": (768, 12, 128, (96, 192, 384, 768), 97_470_785),
    "vitl": (1024, 24, 256, (256, 512, 1024, 1024), 335_315_649),
}


def pair(name, *shape, bias=None):
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0] if bias is None else bias,)}


def encoder_weights(width, blocks, grid):
    yield from {"cls_token": (1, 1, width), "pos_embed": (1, grid**2 + 1, width), "mask_token": (1, width)}.items()
    yield from pair("patch_embed.proj", width, 3, 14, 14).items()
    for number in range(blocks):
        block = {"ls1.gamma": (width,), "ls2.gamma": (width,)}
        block |= pair("norm1", width) | pair("norm2", width)
        block |= pair("attn.qkv", 3 * width, width) | pair("attn.proj", width, width)
        block |= pair("mlp.fc1", 4 * width, width) | pair("mlp.fc2", width, 4 * width)
        yield from ((f"blocks.{number}.{key}", shape) for key, shape in block.items())
    yield from pair("norm", width).items()


def head_weights(width, fused, levels):
    for number, level in enumerate(levels):
        yield from pair(f"projects.{number}", level, width, 1, 1).items()
        yield f"scratch.layer{number + 1}_rn.weight", (fused, level, 3, 3)
        fusion = f"scratch.refinenet{number + 1}"
        yield from pair(f"{fusion}.out_conv", fused, fused, 1, 1).items()
        for conv in ("resConfUnit1.conv1", "resConfUnit1.conv2", "resConfUnit2.conv1", "resConfUnit2.conv2"):
            yield from pair(f"{fusion}.{conv}", fused, fused, 3, 3).items()
    yield from pair("resize_layers.0", levels[0], levels[0], 4, 4).items()
    yield from pair("resize_layers.1", levels[1], levels[1], 2, 2).items()
    yield from pair("resize_layers.3", levels[3], levels[3], 3, 3).items()
    yield from pair("scratch.output_conv1", fused // 2, fused, 3, 3).items()
    yield from pair("scratch.output_conv2.0", 32, fused // 2, 3, 3).items()
    yield from pair("scratch.output_conv2.2", 1, 32, 1, 1).items()


def published(size):
    """Name -> shape of every weight of a published checkpoint."""
    if size == "tiny":
        shape = dpt.SHAPES["tiny"]
        width, blocks, fused, levels, grid = shape.width, shape.blocks, dpt.FUSED["tiny"], dpt.LEVELS["tiny"], 8
    else:
        (width, blocks, fused, levels, _), grid = PUBLISHED[size], 37
    encoder = {f"pretrained.{key}": shape for key, shape in encoder_weights(width, blocks, grid)}
    return encoder | {f"depth_head.{key}": shape for key, shape in head_weights(width, fused, levels)}


def numel(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes)


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_published_weight_has_its_place(size):
    shapes = published(size)
    assert numel(shapes.values()) == PUBLISHED[size][-1]
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in build(size=size).state_dict().items()}
    assert {translate_key(key): shape for key, shape in shapes.items() if translate_key(key)} == ours


def test_only_two_published_parts_are_read_by_nothing():
    idle = {re.sub(r"\.conv.*", "", key) for key in published("vits") if translate_key(key) is None}
    assert idle == {"pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1"}
    assert numel(shape for key, shape in published("vits").items() if translate_key(key) is None) == 384 + 2 * 36_928


@pytest.mark.parametrize("key", ["encoder.norm.bias", "depth_head.scratch.refinenet4.resConfUnit2.conv1.bias"])
def test_our_own_names_stay(key):
    assert translate_key(key) == key


def test_encoder_is_called_so_for_its_learning_rate():
    names = [key for key, _ in build(size="tiny").named_parameters()]
    assert {key.split(".")[0] for key in names} == {"encoder", "depth_head"}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(3)
    state = {key: torch.randn(shape) for key, shape in published("tiny").items()}
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    return state


@pytest.mark.parametrize("file", ["weights.pth", "weights.safetensors"])
def test_published_weights_come_from_a_file(tmp_path, weights, file):
    ours = build(size="tiny", pretrained=str(tmp_path / file)).state_dict()
    theirs = {translate_key(key): value for key, value in weights.items()}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_other_inputs_are_added_to_the_published_ones(tmp_path, weights):
    model = build(size="tiny", pretrained=str(tmp_path / "weights.pth"), inputs=("sparse", "image"))
    first = model.encoder.patch_embed.proj
    assert torch.equal(first.weight[:, 2:], weights["pretrained.patch_embed.proj.weight"])
    assert torch.equal(first.bias, weights["pretrained.patch_embed.proj.bias"])
    assert not first.weight[:, :2].any()


def test_weights_of_another_size_are_refused(tmp_path, weights):
    with pytest.raises(UsageError, match=r"model.pretrained=.*weights.pth: does not fit the encoder vits"):
        build(size="vits", pretrained=str(tmp_path / "weights.pth"))


def test_no_weights_are_fetched():
    with pytest.raises(UsageError, match=r"model\.pretrained=true: dpt downloads no weights; give the path"):
        build(size="tiny", pretrained=True)


def test_incomplete_weights_are_refused(tmp_path, weights):
    del weights["depth_head.projects.2.bias"]
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(UsageError, match=r"lacks weight 'depth_head.projects.2.bias'"):
        build(size="tiny", pretrained=str(tmp_path / "weights.pth"))


def test_a_state_inside_another_module_is_renamed_too(weights):
    outer = nn.Sequential(build(size="tiny"))
    outer.load_state_dict({f"0.{key}": value for key, value in weights.items()})
    assert torch.equal(outer[0].encoder.cls_token, weights["pretrained.cls_token"])


def test_depth_is_a_share_of_max_depth():
    batch = {"image": torch.rand(1, 3, 28, 42)}
    near, far = build(size="tiny").eval(), build(size="tiny", max_depth=80.0).eval()
    far.load_state_dict(near.state_dict())
    with torch.no_grad():
        assert near(batch)["depth"].shape == (1, 1, 28, 42)
        assert torch.allclose(far(batch)["depth"], 8 * near(batch)["depth"])


def test_positions_are_kept_at_the_stored_size_and_smooth_at_others():
    encoder = ViT(ViTShape(width=8, blocks=1, heads=2, taps=(0, 0, 0, 0), grid=6))
    ramp = torch.arange(6.0).view(1, 6).expand(6, 6).reshape(1, 36, 1).expand(1, 36, 8)  # the column of each patch
    with torch.no_grad():
        encoder.pos_embed[:, 1:] = ramp
        assert torch.equal(encoder._positions(6, 6), encoder.pos_embed)
        tall = encoder._positions(9, 12)
    assert tall.shape == (1, 1 + 9 * 12, 8)
    assert torch.equal(tall[:, 0], encoder.pos_embed[:, 0])
    columns = tall[0, 1:, 0].view(9, 12)
    assert torch.allclose(columns, columns[:1].expand(9, 12), atol=1e-5)  # nothing of the ramp leaks into rows
    assert (columns[0].diff() > 0).all()
    assert columns[0].diff()[3:-3].mean() == pytest.approx(6 / 12, rel=0.05)


def test_maps_keep_the_layout_of_the_patches():
    """A patch moved in the image moves in the maps: without blocks and positions, nothing else may happen."""
    encoder = ViT(ViTShape(width=8, blocks=1, heads=2, taps=(0, 0, 0, 0), grid=4)).eval()
    with torch.no_grad():
        encoder.pos_embed.zero_()
        image = torch.rand(1, 3, 28, 42)
        swapped = torch.cat([image[..., 14:28], image[..., :14], image[..., 28:]], dim=-1)
        [before], [after] = encoder(image), encoder(swapped)
    assert before.shape == (1, 8, 2, 3)
    assert torch.allclose(after, before[..., [1, 0, 2]], atol=1e-5)


def test_levels_are_at_4_2_1_and_half_the_patches():
    sizes = []
    model = build(size="tiny").eval()
    for layer in model.depth_head.resize_layers:
        layer.register_forward_hook(lambda _layer, _given, made: sizes.append(tuple(made.shape[-2:])))
    with torch.no_grad():
        model({"image": torch.rand(1, 3, 14 * 4, 14 * 6)})
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
