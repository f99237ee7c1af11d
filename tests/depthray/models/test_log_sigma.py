"""The deviation of ln depth that networks predict beside depth, and that a recipe trains it."""

import math

import pytest
import torch
from inputs import some
from torch.nn.modules.conv import Conv2d

from depthray import losses, models
from depthray.config import recipe as recipes
from depthray.config.sections import Loss, Model
from depthray.errors import UsageError
from depthray.models.layers.auxiliary.log_sigma import LEAST, MOST, START, LogSigma
from depthray.training import preflight
from depthray.weights import fit
from depthray.weights.translation import Translation

TINY = {"name": "unet", "encoder": "tiny"}


def built(**options):
    torch.manual_seed(0)
    return models.build_model(Model(**TINY, **options), ("image",)).eval()


def test_depth_is_the_same_to_the_bit_with_and_without():
    plain, unsure = built(), built(uncertainty="laplace")
    unsure.load_state_dict(plain.state_dict(), strict=False)
    batch = some(("image",))
    with torch.no_grad():
        one, other = models.run(plain, batch), models.run(unsure, batch)
    assert set(one) == {"depth"} and torch.equal(one["depth"], other["depth"])
    assert unsure.outputs == ("depth", "log_sigma") and not hasattr(plain, "outputs")
    torch.testing.assert_close(other["log_sigma"], torch.full_like(one["depth"], math.log(START)))


@pytest.mark.parametrize("factor", [-1e6, 0.0, 1e6])
def test_it_stays_within_its_bounds(factor):
    head = LogSigma(4)
    head.layers[-1].bias.data.fill_(factor)
    values = head(torch.randn(1, 4, 5, 6), torch.rand(1, 1, 5, 6), (10, 12)).exp()
    assert values.shape == (1, 1, 10, 12) and values.min() > 0.999 * LEAST and values.max() < 1.001 * MOST


def test_a_loss_alone_teaches_it_where_errors_are_large():
    """Two halves of an image with errors of 2 % and of 40 %: it becomes the size of each."""
    torch.manual_seed(0)
    head = LogSigma(2)
    features = torch.zeros(1, 2, 8, 8)
    features[:, 0, :, :4], features[:, 1, :, 4:] = 1, 1
    depth = torch.full((1, 1, 8, 8), 2.0)
    share = torch.where(torch.arange(8) < 4, 0.02, 0.4)
    truth, valid = depth * torch.exp(share * torch.sign(torch.randn(8, 8))), torch.ones(1, 1, 8, 8, dtype=torch.bool)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(150):
        optimiser.zero_grad()
        value = losses.TERMS["gaussian_nll"](depth, truth, valid=valid, log_sigma=head(features, depth / 10, (8, 8)))
        value.sum().backward()
        optimiser.step()
    sigma = head(features, depth / 10, (8, 8)).exp()[0, 0]
    assert sigma[:, :3].mean().item() == pytest.approx(0.02, rel=0.2)
    assert sigma[:, 5:].mean().item() == pytest.approx(0.4, rel=0.2)


@pytest.mark.parametrize("name", ["laplace_nll", "gaussian_nll"])
def test_the_gradient_of_the_deviation_is_the_slope(name):
    generator = torch.Generator().manual_seed(1)
    depth, truth = (1 + 3 * torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    log = torch.full_like(depth, -1.0).requires_grad_()
    valid = torch.rand(2, 1, 6, 6, generator=generator) < 0.7
    (slope,) = torch.autograd.grad(losses.TERMS[name](depth, truth, valid=valid, log_sigma=log).sum(), log)
    with torch.no_grad():
        ends = [
            losses.TERMS[name](depth, truth, valid=valid, log_sigma=log + step * slope.sign()) for step in (1e-2, -1e-2)
        ]
    assert (ends[0] - ends[1]).sum().item() == pytest.approx(2e-2 * slope.abs().sum().item(), rel=1e-2)
    assert not slope[~valid].any()


def test_a_share_of_the_spread_samples_leaves_a_likelihood_as_it_is():
    torch.manual_seed(0)
    batch = {"depth": 1 + torch.rand(2, 1, 8, 8), "valid": torch.ones(2, 1, 8, 8, dtype=torch.bool)}
    batch["sparse"] = torch.where(torch.rand(2, 1, 8, 8) < 0.2, batch["depth"], 0.0)
    prediction = {"depth": 1 + torch.rand(2, 1, 8, 8), "log_sigma": torch.zeros(2, 1, 8, 8)}
    alone, of_all = Loss(l1=1.0, over_spread=True), Loss(l1=1.0, laplace_nll=0.3, over_spread=True)
    share, (value, terms) = losses.total(prediction, batch, alone)[0], losses.total(prediction, batch, of_all)
    torch.testing.assert_close(value, share + 0.3 * terms["laplace_nll"])
    torch.testing.assert_close(losses.prepare(of_all)(prediction, batch), value)


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        ({"uncertainty": "laplace"}, {"l1": 1}, "no term trains it; give loss.laplace_nll a weight"),
        ({}, {"laplace_nll": 1}, "loss.laplace_nll needs model.uncertainty=laplace, and it is none"),
        ({"uncertainty": "gaussian"}, {"laplace_nll": 1}, "needs model.uncertainty=laplace, and it is gaussian"),
        ({"uncertainty": "huge"}, {"l1": 1}, "uncertainty"),
    ],
)
def test_a_recipe_trains_what_it_predicts(model, loss, message):
    with pytest.raises(UsageError, match=message):
        recipes.build({"model": {**TINY, **model}, "loss": loss}, where="x")


def test_a_run_may_be_ranked_by_its_likelihood():
    options = ["model.encoder=tiny", "data.size=64,96", "eval.monitor=nll"]
    unsure = ["model.uncertainty=laplace", "loss.laplace_nll=0.3"]
    assert preflight.load("demo", [*options, *unsure]).eval.monitor == "nll"
    with pytest.raises(UsageError, match=r"eval\.monitor=nll is the likelihood of what model\.uncertainty predicts"):
        preflight.load("demo", options)


def test_networks_without_depth_or_with_the_heads_of_the_original_have_none():
    with pytest.raises(UsageError, match="masknet predicts no depth"):
        models.check(Model(name="masknet", uncertainty="laplace"), where="x")
    with pytest.raises(UsageError, match="original heads predict depth alone"):
        models.build_model(Model(name="depthnet", head="elu", uncertainty="laplace"), ("image",))


def test_weights_without_it_fit():
    network = built(uncertainty="laplace")
    result = fit.compare(network, Translation(what="x", fits="", weights=dict(built().state_dict())))
    assert not result.fault and "metres.log_sigma.layers.0.weight" not in result.loaded


def test_lora_trains_it():
    network = models.build_model(
        Model(name="dpt", size="tiny", lora_rank=2, lora_decoder="none", uncertainty="laplace"), ("image",)
    )
    head = [part for part in network.metres.log_sigma.modules() if isinstance(part, Conv2d)]
    assert len(head) == 3 and all(part.weight.requires_grad for part in head)
