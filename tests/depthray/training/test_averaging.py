"""Averaged weights against sums written out."""

import copy
import math

import pytest
import torch
from torch import nn

from depthray.config.sections import Optim
from depthray.training.averaging import Average
from depthray.training.schedule import Plateau


class Net(nn.Module):
    """An encoder, a norm and a head, by the names a network of depthray has."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(4, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 1, 3)


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
def test_average_resumes_from_its_state(kind):
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
