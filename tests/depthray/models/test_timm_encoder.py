"""timm's networks as encoders: maps, sizes, further inputs, and what cannot be one."""

import pytest
import torch

from depthray.config.recipe import read
from depthray.errors import UsageError
from depthray.models import check, fpn, run, unet
from depthray.models.layers import timm_encoder
from depthray.models.layers.encoders import build_encoder, build_stack
from depthray.training import preflight

FAMILIES = {  # name: sizes are multiples of it, maps
    "timm/convnext_tiny": (32, 4),
    "timm/swin_tiny_patch4_window7_224": (32, 4),
    "timm/mobilenetv4_conv_small": (1, 5),
    "timm/vit_small_patch14_dinov2": (14, 4),
    "timm/vit_small_patch16_dinov3": (16, 4),
}


@pytest.mark.parametrize(
    ("name", "decoder"), [*((name, unet) for name in FAMILIES), ("timm/vit_small_patch14_dinov2", fpn)]
)
def test_each_family_gives_depth_at_any_size(name, decoder):
    stride, maps = FAMILIES[name]
    with torch.device("meta"):
        network = decoder.build(encoder=name, inputs=("image", "sparse"))
        batch = {"image": torch.empty(1, 3, 95, 129), "sparse": torch.empty(1, 1, 95, 129)}
        depth = run(network, batch)["depth"]
    assert (network.stride, len(network.encoder.channels)) == (stride, maps)
    assert tuple(depth.shape[-2:]) == (95, 129)  # with samples, whatever the decoder


def test_further_inputs_change_nothing_at_first():
    torch.manual_seed(0)
    narrow = build_encoder("timm/vit_tiny_patch16_224", ("image",)).eval()
    torch.manual_seed(0)
    wide = build_encoder("timm/vit_tiny_patch16_224", ("mask", "image")).eval()
    planes = torch.randn(1, 4, 32, 48)
    with torch.no_grad():
        for one, other in zip(wide(planes), narrow(planes[:, 1:]), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_images_are_normalised_as_timm_does():
    encoder = build_encoder("timm/vit_tiny_patch16_224", ("image",))
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)  # unlike ImageNet's
    stack = build_stack(("image",), encoder, max_depth=10.0, normalise="imagenet")
    assert stack({"image": torch.ones(1, 3, 1, 1)})[0, 0].item() == pytest.approx(1.0)


def test_taps_of_a_transformer_are_spread_over_its_blocks():
    network = timm_encoder.create_network("vit_tiny_patch16_224")
    assert network.out_indices == [2, 5, 8, 11]


def test_an_unknown_name_is_refused_with_one_like_it():
    with pytest.raises(UsageError, match=r"timm has no 'convnext_tinny' \(did you mean 'convnext_tiny'"):
        timm_encoder.create_network("timm/convnext_tinny")


def test_a_network_without_maps_is_refused(monkeypatch):
    def create_model(_name, **options):
        if options:
            raise RuntimeError("features_only not implemented")
        return torch.nn.Identity()

    monkeypatch.setattr(timm_encoder.import_timm(), "create_model", create_model)
    with pytest.raises(UsageError, match=r"does not build it as an encoder \(features_only not implemented\)"):
        timm_encoder.create_network("timm/convnext_tiny")


def test_without_timm_one_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'depthray\[timm\]'"):
        timm_encoder.create_network("timm/convnext_tiny")


def test_a_recipe_may_name_it():
    recipe = read("unet-resnet34", ["model.encoder=timm/mobilenetv4_conv_small"])
    check(recipe.model, where="recipe")
    with pytest.raises(UsageError, match=r"model.encoder='resnet35'"):
        preflight.load("unet-resnet34", ["model.encoder=resnet35"])
