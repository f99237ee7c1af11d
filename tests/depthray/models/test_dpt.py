"""The anchor: published sizes and weight names, positions at other sizes."""

import re

import pytest
import torch
from weight_files import depth_anything_v2

from depthray.models.dpt import build
from depthray.models.layers.vit import ViT, ViTShape
from depthray.weights.families.depth_anything_v2 import UNUSED, translate_key

# Published metric checkpoints: encoder width, blocks, channels of the decoder and of its levels, parameters.
PUBLISHED = {
    "vits": (384, 12, 64, (48, 96, 192, 384), 24_785_089),
    "vitb": (768, 12, 128, (96, 192, 384, 768), 97_470_785),
    "vitl": (1024, 24, 256, (256, 512, 1024, 1024), 335_315_649),
}


def numel(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes)


def published(size):
    """Name -> shape of every weight of a published checkpoint."""
    width, blocks, fused, levels, _ = PUBLISHED[size]
    return depth_anything_v2(width, blocks, 37, fused, levels)


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_published_weight_has_its_place(size):
    shapes = published(size)
    assert numel(shapes.values()) == PUBLISHED[size][-1]
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in build(size=size).state_dict().items()}
    assert {translate_key(key): shape for key, shape in shapes.items() if not key.startswith(UNUSED)} == ours


def test_only_two_published_parts_are_read_by_nothing():
    idle = {key: shape for key, shape in published("vits").items() if key.startswith(UNUSED)}
    parts = {re.sub(r"\.conv.*", "", key) for key in idle}
    assert parts == {"pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1"}
    assert numel(idle.values()) == 384 + 2 * 36_928


@pytest.mark.parametrize("key", ["encoder.norm.bias", "depth_head.scratch.refinenet4.resConfUnit2.conv1.bias"])
def test_our_own_names_stay(key):
    assert translate_key(key) == key


def test_encoder_is_called_so_for_its_learning_rate():
    names = [key for key, _ in build(size="tiny").named_parameters()]
    assert {key.split(".")[0] for key in names} == {"encoder", "depth_head"}


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
