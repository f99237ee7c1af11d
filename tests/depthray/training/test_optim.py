"""Optimiser groups, and steps against torch's plain ones."""

import copy

import pytest
import torch
from torch import nn

from depthray.config.sections import Optim
from depthray.errors import UsageError
from depthray.models.unet import build
from depthray.training.optim import build_optimiser, set_learning_rate, take_step


class Net(nn.Module):
    """An encoder, a norm and a head, by the names a network of depthray has."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(4, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 1, 3)


def names_of(model, group):
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return {known[id(parameter)] for parameter in group["params"]}


@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel], ids=["bare", "wrapped"])
def test_groups_by_rate_and_decay(wrap):
    net = Net()
    optimiser = build_optimiser(wrap(net), Optim(lr=0.5, encoder_lr=0.1, weight_decay=0.01))
    found = {(group["lr"], group["weight_decay"]): names_of(net, group) for group in optimiser.param_groups}
    assert found == {
        (0.05, 0.01): {"encoder.weight"},
        (0.05, 0.0): {"encoder.bias"},
        (0.5, 0.01): {"head.weight"},
        (0.5, 0.0): {"norm.weight", "norm.bias", "head.bias"},
    }


def test_every_parameter_that_learns_is_in_one_group():
    model = build(encoder="tiny")
    model.head.bias.requires_grad_(False)
    optimiser = build_optimiser(model, Optim(name="adamw", weight_decay=1e-2, encoder_lr=0.1))
    ids = [id(parameter) for group in optimiser.param_groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(value) for value in model.parameters() if value.requires_grad)


def test_rate_of_a_group_keeps_its_multiple():
    optimiser = build_optimiser(Net(), Optim(encoder_lr=0.25), lr=1.0)
    set_learning_rate(optimiser, 8.0)
    assert sorted(group["lr"] for group in optimiser.param_groups) == [2.0, 8.0]


def test_encoder_rate_without_an_encoder_is_refused():
    with pytest.raises(UsageError, match=r"optim.encoder_lr=0.1"):
        build_optimiser(nn.Linear(2, 2), Optim(encoder_lr=0.1))


def plain(name):
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    options = {"momentum": 0.9} if name == "sgd" else {}
    return lambda parameters: kinds[name](parameters, lr=0.1, foreach=False, fused=False, **options)


def train(net, optimiser, steps):
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimiser.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_fast_step_is_the_plain_step(name):
    net = Net()
    other = copy.deepcopy(net)
    net.to(memory_format=torch.channels_last)
    train(net, build_optimiser(net, Optim(name=name, lr=0.1)), 3)
    reference = plain(name)(other.parameters())
    reference.param_groups[0]["weight_decay"] = 0.0
    train(other, reference, 3)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "adan", "sgd"])
def test_state_loaded_in_another_memory_layout_reaches_the_right_weights(name):
    net, section = Net(), Optim(name=name, lr=0.1)
    optimiser = build_optimiser(net, section)
    train(net, optimiser, 1)
    other = copy.deepcopy(net).to(memory_format=torch.channels_last)
    resumed = build_optimiser(other, section)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    train(net, optimiser, 1)
    train(other, resumed, 1)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def build_unfused(net, name):
    """As an earlier version, or another device, may have saved it."""
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    options = {"momentum": 0.9} if name == "sgd" else {}
    groups = build_optimiser(net, Optim(name=name, lr=0.1)).param_groups
    own = [{key: group[key] for key in ("params", "scale", "weight_decay")} for group in groups]
    return kinds[name](own, lr=0.1, foreach=True, **options)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("saved_fused", [True, False])
def test_state_of_another_implementation_is_continued_by_this_one(name, saved_fused):
    net = Net()
    builders = [lambda each: build_optimiser(each, Optim(name=name, lr=0.1)), lambda each: build_unfused(each, name)]
    first = builders[0 if saved_fused else 1](net)
    train(net, first, 2)
    other = copy.deepcopy(net)
    resumed = build_optimiser(other, Optim(name=name, lr=0.1))
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    assert all(group["fused"] and not group["foreach"] for group in resumed.param_groups)
    train(net, first, 2)
    train(other, resumed, 2)
    for ours, theirs in zip(other.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "adan", "sgd"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_step_that_the_device_skips_is_as_if_it_had_not_been(name, first):
    nets = [Net()]
    nets.append(copy.deepcopy(nets[0]))
    optimisers = [build_optimiser(net, Optim(name=name, lr=0.1, weight_decay=0.1)) for net in nets]
    goes, skips = torch.tensor(False), torch.tensor(True)
    for net, optimiser in zip(nets, optimisers, strict=True):
        train_late(net, optimiser, goes, steps=0 if first else 2)
    before = copy.deepcopy([parameter.detach() for parameter in nets[0].parameters()])
    for parameter in nets[0].parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    take_step(optimisers[0], skips)
    assert all(torch.equal(*pair) for pair in zip(before, nets[0].parameters(), strict=True))
    for net, optimiser in zip(nets, optimisers, strict=True):
        train_late(net, optimiser, goes, steps=2)
    for ours, theirs in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(ours, theirs)
    assert not any(hasattr(optimiser, "found_inf") for optimiser in optimisers)


def train_late(net, optimiser, skip, *, steps):
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for parameter in net.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        take_step(optimiser, skip)
