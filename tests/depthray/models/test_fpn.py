"""Seed system 002: its exact sizes, its order of smoothing, its head that dies."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthray.models.fpn import build


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [("resnet101", 45_402_561), ("resnet50", 26_410_433), ("resnet34", 23_449_793), ("resnet18", 13_341_633)],
)
def test_parameter_counts(encoder, parameters):
    with torch.device("meta"):
        assert count(build(encoder=encoder)) == parameters


def test_the_default_is_the_original_encoder():
    with torch.device("meta"):
        model = build()
    assert count(model) == 45_402_561
    assert [count(part) for part in model.lateral] == [65_792, 131_328, 262_400, 524_544]
    assert [count(part) for part in model.smooth] == [590_080] * 3
    assert [count(model.head[0]), count(model.head[2])] == [147_520, 577]


@pytest.mark.parametrize("size", [(480, 640), (228, 304), (33, 47), (1, 1)])
def test_any_size_is_predicted_at_a_quarter_rounded_up(size):
    with torch.device("meta"):
        depth = build(encoder="resnet18").eval()({"image": torch.empty(1, 3, *size)})["depth"]
    assert depth.shape[2:] == (-(-size[0] // 4), -(-size[1] // 4))


def test_the_smoothed_map_goes_further_down():
    """With every smoothing but the finest silenced, nothing of the three coarser levels is left."""
    torch.manual_seed(0)
    model = build(encoder="resnet18").eval()
    levels = [torch.randn(1, 64, 16, 16)] * 2 + [torch.randn(1, c, s, s) for c, s in ((128, 8), (256, 4), (512, 2))]
    other = [*levels[:2], *(2 * level for level in levels[2:])]
    silenced = model.smooth[1]
    nn.init.zeros_(silenced.weight)
    with torch.no_grad():
        assert torch.equal(decode(model, levels), decode(model, other))
        nn.init.normal_(silenced.weight, std=0.02)
        assert not torch.equal(decode(model, levels), decode(model, other))


def decode(model, levels):
    model.encoder.forward = lambda planes: levels
    return model({"image": torch.zeros(1, 3, 64, 64)})["depth"]


def test_levels_are_upsampled_with_aligned_edges():
    """Bilinear doubling of 0 4 with edges on edges is 0 1 3 4; with corners on corners 0 1.33 2.67 4."""
    from depthray.models.fpn import _onto

    coarse = torch.tensor([[[[0.0, 4.0]]]])
    assert _onto(coarse, torch.ones(1, 1, 1, 4)).flatten().tolist() == [1, 2, 4, 5]


def answer_of(head, logit, **options):
    """(depth, gradient at the last bias under log loss) when every logit is the given one."""
    model = build(encoder="resnet18", head=head, **options).train()
    last = model.head[2]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, logit)
    depth = model({"image": torch.rand(2, 3, 32, 32)})["depth"]
    ((torch.log(depth + 1e-8) - torch.log(torch.tensor(3.0))) ** 2).mean().sqrt().backward()
    return depth, last.bias.grad


def test_a_relu_head_at_zero_never_learns_again():
    depth, gradient = answer_of("relu", -1.0)
    assert not depth.any()
    assert gradient.item() == 0.0


def test_a_softplus_head_learns_from_the_same_logits():
    depth, gradient = answer_of("softplus", -1.0)
    assert depth.min() > 0
    assert gradient.abs() > 0.01


def test_softplus_answers_beyond_max_depth():
    depth, _ = answer_of("softplus", 5.0, max_depth=2.0)
    assert depth.min().item() == pytest.approx(2 * F.softplus(torch.tensor(5.0)).item())
    assert depth.min() > 2.0


@pytest.mark.parametrize("head", ["softplus", "relu"])
@pytest.mark.parametrize("max_depth", [10.0, 80.0])
def test_depths_start_at_a_quarter_of_max_depth(head, max_depth):
    torch.manual_seed(0)
    model = build(encoder="resnet18", head=head, max_depth=max_depth)
    with torch.no_grad():
        median = model({"image": torch.rand(2, 3, 64, 64)})["depth"].median()
    assert 0.1 * max_depth < median < 0.5 * max_depth


def test_an_untrained_resnet101_predicts_sensible_depths_in_evaluation_too():
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        depth = model({"image": torch.rand(1, 3, 32, 32)})["depth"]
    assert 1.0 < depth.min() < depth.max() < 5.0


def test_colours_in_0_1_are_an_option():
    image = torch.full((1, 3, 2, 2), 0.5)
    with torch.device("meta"):
        assert build(encoder="resnet18", normalise="none").stack.mean.shape == (1, 3, 1, 1)
    assert torch.equal(build(encoder="resnet18", normalise="none").stack({"image": image}), image)
