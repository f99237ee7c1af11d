"""Optimiser groups, schedules against hand-computed values, averaging against sums written out."""

import copy
import math

import pytest
import torch
from torch import nn

from depthray.config.sections import Optim, Recipe, Train
from depthray.errors import UsageError
from depthray.models.unet import build
from depthray.training.averaging import Average
from depthray.training.optim import build_optimiser, set_learning_rate
from depthray.training.schedule import Plateau, learning_rate


class Net(nn.Module):
    """An encoder, a norm and a head, by the names a network of depthray has."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(4, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 1, 3)


def rate(step, *, schedule="constant", total=100, lr=1.0, epoch=10, drops=0, **options):
    steps_per_epoch = epoch if total % epoch == 0 else total
    recipe = Recipe(optim=Optim(schedule=schedule, lr=lr, **options), train=Train(epochs=total // steps_per_epoch))
    return learning_rate(recipe, step, steps_per_epoch=steps_per_epoch, drops=drops)


@pytest.mark.parametrize(
    ("schedule", "options", "expected"),
    [
        ("constant", {}, {0: 1, 99: 1}),
        ("constant", {"warmup_steps": 4}, {0: 0.25, 1: 0.5, 3: 1, 4: 1}),
        ("cosine", {}, {0: 1, 25: 0.5 + 0.25 * math.sqrt(2), 50: 0.5, 75: 0.5 - 0.25 * math.sqrt(2), 100: 0}),
        ("cosine", {"min_lr": 0.2}, {0: 1, 50: 0.6, 100: 0.2, 120: 0.2}),
        ("cosine", {"warmup_steps": 20}, {9: 0.5, 19: 1, 20: 1, 60: 0.5, 100: 0}),
        ("onecycle", {}, {0: 0.04, 15: 0.52, 30: 1, 65: 0.5, 100: 0}),
        ("onecycle", {"warmup_steps": 50, "min_lr": 0.1}, {0: 0.04, 25: 0.52, 50: 1, 75: 0.55, 100: 0.1}),
        ("step", {"step_epochs": 3}, {29: 1, 30: 0.1, 59: 0.1, 60: 0.01}),
        ("step", {"step_epochs": 3, "step_factor": 0.5, "warmup_steps": 2}, {0: 0.5, 2: 1, 30: 0.5, 90: 0.125}),
    ],
)
def test_schedules(schedule, options, expected):
    rates = {step: rate(step, schedule=schedule, **options) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("drops", "expected"), [(0, 1.0), (1, 0.1), (2, 0.05), (9, 0.05)])
def test_plateau_rate_follows_the_drops_down_to_the_floor(drops, expected):
    assert rate(50, schedule="plateau", drops=drops, min_lr=0.05) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "onecycle", "step", "plateau"])
@pytest.mark.parametrize(("total", "warmup"), [(1, 0), (3, 5), (5, 5), (7, 0)])
def test_rates_of_short_phases_are_positive_and_below_the_peak(schedule, total, warmup):
    rates = [rate(step, schedule=schedule, total=total, warmup_steps=warmup, lr=3.0) for step in range(total)]
    assert all(0 < value <= 3.0 for value in rates)


def test_rate_is_in_proportion_to_the_peak():
    for schedule in ("constant", "cosine", "onecycle", "step", "plateau"):
        assert rate(40, schedule=schedule, lr=2.0) == pytest.approx(2 * rate(40, schedule=schedule))


@pytest.mark.parametrize(
    ("patience", "scores", "drops"),
    [
        (1, [5, 4, 3, 2], [0, 0, 0, 0]),
        (1, [5, 5, 5, 5, 5], [0, 0, 1, 1, 2]),
        (0, [5, 6, 4, 4], [0, 1, 1, 2]),
        (2, [5, 6, 6, 4, 6, 6, 6], [0, 0, 0, 0, 0, 0, 1]),
        (0, [5, 4.9999, 4.9], [0, 1, 1]),
        (0, [math.nan, 5, math.nan, math.inf], [1, 1, 2, 3]),
    ],
)
def test_plateau_counts_epochs_without_a_better_score(patience, scores, drops):
    plateau = Plateau(patience)
    assert [plateau.update(score) for score in scores] == drops


def test_plateau_goes_on_from_its_state():
    first, second = Plateau(1), Plateau(1)
    [first.update(score) for score in (5, 6)]
    second.load_state_dict(first.state_dict())
    assert second.update(6) == first.update(6) == 1


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
def test_state_loaded_in_another_memory_layout_goes_to_the_right_weights(name):
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


def walk(average, net, values, *, progress=1.0):
    for value in values:
        with torch.no_grad():
            [parameter.fill_(value) for parameter in net.parameters()]
            net.norm.running_mean.fill_(10 * value)
            net.norm.num_batches_tracked.fill_(int(value))
        average.update(net, progress=progress)


def averaged(average, net):
    network = average.network(net)
    return network.head.weight.mean().item(), network.norm.running_mean.mean().item()


def test_swa_is_the_mean_from_its_start():
    net = Net()
    average = Average(net, Optim(average="swa", swa_start=0.5))
    walk(average, net, [100.0], progress=0.49)
    assert average.network(net) is net
    walk(average, net, [1.0, 2.0, 6.0], progress=0.5)
    assert averaged(average, net) == pytest.approx((3.0, 30.0))
    assert average.network(net).norm.num_batches_tracked == 6


def test_ema_decays_as_written():
    net = Net()
    average = Average(net, Optim(average="ema", ema_decay=0.2))
    walk(average, net, [1.0, 2.0, 6.0])
    # the decay grows (1 + n) / (10 + n): 2/11 at the second step, 3/12 at the third but capped at 0.2
    second = 1 * 2 / 11 + 2 * 9 / 11
    assert averaged(average, net) == pytest.approx((second * 0.2 + 6 * 0.8, 10 * (second * 0.2 + 6 * 0.8)))


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_average_goes_on_from_its_state(kind):
    net, section = Net(), Optim(average=kind, swa_start=0.0)
    first, second = Average(net, section), Average(net, section)
    walk(first, net, [1.0, 2.0])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    walk(first, net, [5.0])
    walk(second, net, [5.0])
    assert averaged(second, net) == averaged(first, net)
    assert second.count == first.count == 3


def test_states_are_loadable_as_plain_weights(tmp_path):
    net = Net()
    average, plateau = Average(net, Optim(average="ema")), Plateau(1)
    walk(average, net, [1.0, 2.0])
    torch.save({"average": average.state_dict(), "plateau": plateau.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["average"]["count"] == 2
    assert state["plateau"] == {"best": math.inf, "waited": 0, "drops": 0}
