"""Averaged weights against sums written out."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from depthray.batch import to_device
from depthray.config.sections import Optim
from depthray.runtimes.precision import Precision
from depthray.training import preflight
from depthray.training.averaging import Average, recompute_batchnorm
from depthray.training.frames import Frames
from depthray.training.loop import fit
from depthray.training.schedule import Plateau
from depthray.training.state import begin

CPU = torch.device("cpu")
SMALL = [
    *("data.size=32,64", "data.frames=24", "train.batch_size=4", "train.epochs=2", "train.precision=fp32"),
    *("model.encoder=timm/test_efficientnet", "optim.average=swa", "optim.swa_start=0.3"),  # small, with batch norm
]


def trained(choice):
    recipe = preflight.load("demo", [*SMALL, f"optim.swa_batchnorm={choice}"])
    state, frames = begin(recipe, CPU), Frames.open(recipe)
    list(fit(recipe, state, frames))
    return recipe, state, frames


@pytest.fixture(scope="module")
def recomputed():
    """A recipe, the state after it and its frames; by default the statistics of an average are computed anew."""
    assert preflight.load("demo", SMALL).optim.swa_batchnorm == "recomputed"
    return trained("recomputed")


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


class Seen(nn.Module):
    """A network of batches, as one of depthray."""

    inputs, stride = ("image",), 1

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
        )

    def forward(self, batch):
        return {"depth": self.body(batch["image"])}


def test_statistics_are_those_of_torchs_update_bn():
    torch.manual_seed(0)
    net = Seen().eval()
    batches = [{"image": torch.rand(count, 3, 9, 11)} for count in (4, 4, 2)]
    other = copy.deepcopy(net)
    recompute_batchnorm(net, batches)
    update_bn([batch["image"] for batch in batches], other.body)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in other.state_dict().items())
    assert net.body[1].num_batches_tracked == 3 and net.body[1].momentum == 0.1 and not net.training


def test_statistics_of_frozen_layers_stay():
    net = Seen()
    before = copy.deepcopy(net.state_dict())
    recompute_batchnorm(net, [{"image": torch.rand(2, 3, 9, 9)}], frozen=["body.1"])
    changed = {key for key, value in before.items() if not torch.equal(net.state_dict()[key], value)}
    assert changed == {f"body.4.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    untouched = iter(())  # no batch is read where nothing would change
    recompute_batchnorm(Seen(), untouched, frozen=["body.1", "body.4"])


def test_swa_is_scored_and_saved_with_statistics_of_its_own_weights(recomputed):
    recipe, state, frames = recomputed
    expected = copy.deepcopy(state.predictor)
    batches = list(frames.statistics_batches(recipe.train.epochs - 1))
    assert sum(len(batch["id"]) for batch in batches) == len(frames.split.train) // 4 * 4
    on_device = [to_device(batch, CPU, min_depth=1e-3, max_depth=10.0) for batch in batches]
    for layer in expected.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.fill_(7.0)
    recompute_batchnorm(expected, on_device)
    weights = state.contents({}, fingerprint="").weights
    assert all(torch.equal(weights[key], value) for key, value in expected.state_dict().items())


def test_statistics_of_an_earlier_versions_swa_are_averaged(recomputed):
    ends = [state.predictor.state_dict() for _, state, _ in (trained("averaged"), recomputed)]
    differing = {key.rpartition(".")[2] for key, value in ends[0].items() if not torch.equal(value, ends[1][key])}
    assert differing == {"running_mean", "running_var", "num_batches_tracked"}


def test_a_step_that_the_scaler_skips_is_not_averaged():
    recipe = preflight.load("demo", ["data.size=32,64", "data.frames=40", "train.epochs=2", "train.batch_size=4"])
    recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"average": "ema"})})
    state = begin(recipe, CPU)
    # A recipe may not ask for it on a CPU, where it only costs time; the arithmetic is that of a GPU.
    state.precision = Precision(CPU, torch.float16)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22)
    list(fit(recipe, state, Frames.open(recipe)))
    taken = {int(each["step"]) for each in state.optimiser.state.values()}
    assert 0 < min(taken) == max(taken) < state.position.step
    assert state.average.count == max(taken)
