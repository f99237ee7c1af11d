"""Seed system 003: its exact sizes, its nodes one by one, and what became of the original's slips."""

import math
import re

import pytest
import torch
from torch import nn

from depthray import models
from depthray.models.bifpn import (
    COARSE,
    EPSILON,
    LEVELS,
    NODES,
    BiFPN,
    BiFPNBlock,
    Inception,
    TrainableFusion,
    build,
)

CHANNELS = (40, 112, 192, 320, 1280)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return build()


@pytest.fixture(scope="module")
def constant():
    torch.manual_seed(0)
    return build(fusion="constant")


def test_parameter_counts(trained, constant):
    assert count(constant) == 7_426_409
    assert count(trained) == 7_426_409 + 3 * 19


def test_parts_have_the_original_sizes(constant):
    bifpn = constant.blocks[0].bifpn
    assert [count(lateral) for lateral in bifpn.lateral] == [23_104, 64_576, 110_656, 184_384, 737_344]
    assert count(bifpn) == 1_126_208
    assert count(constant.inception) == 30_576
    assert [sum(count(part) for part in parts) for parts in (constant.head[:4], constant.head[4:])] == [8_920, 441]


def test_the_encoders_levels_are_the_right_ones(trained):
    assert tuple(trained.encoder.channels[level] for level in LEVELS) == CHANNELS


@pytest.mark.parametrize(("size", "quarter"), [((224, 224), (56, 56)), ((96, 128), (24, 32)), ((45, 70), (12, 18))])
def test_depth_comes_at_a_quarter_rounded_up(size, quarter):
    with torch.device("meta"):
        depth = models.run(build().eval(), {"image": torch.empty(1, 3, *size)})["depth"]
    assert tuple(depth.shape[2:]) == quarter


def levels_of(size=64, batch=2):
    sides = (size // 8, size // 16, size // 32, size // 32, size // 32)
    return [torch.randn(batch, c, side, side) for c, side in zip(CHANNELS, sides, strict=True)]


def fused(bifpn, levels):
    """The output and the inputs of each node, in one pass."""
    seen = {}
    for name, node in bifpn.node.items():
        node.fuse.register_forward_hook(lambda _m, taken, given, name=name: seen.update({name: (taken[0], given)}))
    with torch.no_grad():
        bifpn(levels)
    return seen


@pytest.mark.parametrize("fusion", ["trainable", "constant"])
def test_nodes_divide_by_their_number_of_inputs_save_for_two_slips(fusion):
    torch.manual_seed(0)
    seen = fused(BiFPN(CHANNELS, fusion=fusion).eval(), levels_of())
    assert {name: len(taken) for name, (taken, _) in seen.items()} == NODES
    divisors = {name: number + EPSILON for name, number in NODES.items()}
    offsets = dict.fromkeys(NODES, 0.0)
    if fusion == "constant":
        divisors |= {"td6": 1.0, "out5": 2.0 + EPSILON}
        offsets["td6"] = 1.0 + EPSILON
    for name, (taken, given) in seen.items():
        assert torch.allclose(given, sum(taken) / divisors[name] + offsets[name], atol=1e-5), name


def test_weights_change_the_inputs_of_a_node_and_a_negative_one_keeps_learning():
    fuse = TrainableFusion(2)
    maps = [torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)]
    with torch.no_grad():
        fuse.weight.copy_(torch.tensor([-3.0, 1.0]))
    given = fuse(maps)
    given.sum().backward()
    assert given.item() == pytest.approx(0.75, abs=1e-4)
    assert fuse.weight.grad.all()


def test_weights_of_zero_give_zero_not_nan():
    fuse = TrainableFusion(3)
    nn.init.zeros_(fuse.weight)
    assert not fuse([torch.ones(1, 1, 1, 1)] * 3).any()


def test_nodes_activate_before_they_normalise():
    """GELU is never below -0.17; only a norm after it can give a mean of 0."""
    torch.manual_seed(0)
    out3, *_ = BiFPN(CHANNELS, fusion="trainable").train()(levels_of())
    assert out3.mean().item() == pytest.approx(0.0, abs=1e-4)


def test_answers_have_the_sizes_of_the_levels():
    levels = levels_of()
    answers = BiFPN(CHANNELS, fusion="trainable")(levels)
    assert [tuple(answer.shape) for answer in answers] == [(2, 64, *level.shape[2:]) for level in levels]


@pytest.mark.parametrize(("fusion", "used"), [("trainable", True), ("constant", False)])
def test_coarse_outputs_count_only_when_fixed(fusion, used):
    torch.manual_seed(0)
    block, levels = BiFPNBlock(CHANNELS, fusion=fusion).eval(), levels_of()
    with torch.no_grad():
        before = block(levels)
        [block.bifpn.node[name].norm.bias.add_(torch.randn(64)) for name in COARSE]
        assert before.shape == (2, 20, 16, 16)
        assert torch.equal(block(levels), before) is not used


def test_only_the_originals_unused_nodes_are_frozen(trained, constant):
    frozen = {name: value.numel() for name, value in constant.named_parameters() if not value.requires_grad}
    assert sum(frozen.values()) == 3 * 2_304
    assert all(any(f".{node}." in name for node in COARSE) for name in frozen)
    assert all(re.search(constant.idle[0], name) for name in frozen)
    assert all(value.requires_grad for value in trained.parameters()) and not trained.idle


@pytest.mark.parametrize("fusion", ["trainable", "constant"])
def test_every_trained_parameter_gets_a_gradient(fusion):
    torch.manual_seed(0)
    block = BiFPNBlock(CHANNELS, fusion=fusion).train()
    answer = block(levels_of())
    (answer * torch.rand(answer.shape)).sum().backward()
    parameters = {name: value for name, value in block.named_parameters() if value.requires_grad}
    assert [name for name, value in parameters.items() if value.grad is None or not value.grad.any()] == []


def test_blocks_are_side_by_side_not_stacked(trained):
    """Silencing one block's norm leaves the other two as they were."""
    features = []
    hook = trained.inception.register_forward_pre_hook(lambda _module, taken: features.append(taken[0].clone()))
    trained.eval()
    batch = {"image": torch.rand(1, 3, 64, 64)}
    norm = trained.blocks[0].norm
    kept = norm.bias.detach().clone()
    with torch.no_grad():
        trained(batch)
        norm.bias.add_(1.0)
        trained(batch)
        norm.bias.copy_(kept)
    hook.remove()
    before, after = features
    assert before.shape == (1, 60, 16, 16)
    assert not torch.equal(before[:, :20], after[:, :20])
    assert torch.equal(before[:, 20:], after[:, 20:])


def test_inception_is_linear_with_five_parts_and_a_shortcut():
    torch.manual_seed(0)
    inception = Inception(60).double()
    first, second = torch.randn(2, 1, 60, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        zero = inception(torch.zeros_like(first))
        assert zero.shape == (1, 176, 5, 7)
        assert torch.allclose(
            inception(first + second)[..., 2:3, 3:4] + zero[..., 2:3, 3:4],
            (inception(first) + inception(second))[..., 2:3, 3:4],
        )


@pytest.mark.parametrize(
    ("head", "logit", "depth"),
    [("sigmoid", 0.0, 5.0), ("sigmoid", 30.0, 10.0), ("relu6", 0.3, 3.0), ("relu6", -1.0, 0.0), ("relu6", 9.0, 60.0)],
)
def test_heads(head, logit, depth):
    metres = build_metres(head)
    logits = torch.full((1, 1, 1, 1), logit)
    assert metres(logits, {}, logits).item() == pytest.approx(depth, rel=1e-5)


def build_metres(head):
    with torch.device("meta"):
        return build(head=head).metres


@pytest.mark.parametrize(("head", "bias"), [("sigmoid", math.log(1 / 3)), ("relu6", 0.25)])
def test_heads_start_alive(head, bias):
    model = build(head=head)
    assert model.head[-1].bias.item() == pytest.approx(bias)


def test_the_shortcut_widens_with_the_inputs():
    torch.manual_seed(0)
    model = build(inputs=("sparse", "image")).eval()
    assert model.shortcut.weight.shape == (60, 5, 1, 1)
    assert not model.shortcut.weight[:, :2].any()
    assert model.shortcut.weight[:, 2:].any()
