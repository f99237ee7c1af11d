"""Depth terms against float64 NumPy oracles, and finite whatever they are given."""

import loss_oracles as oracles
import numpy as np
import pytest
import torch

from depthray import losses
from depthray.config.sections import LOSS_OPTIONS, Loss
from depthray.testing import loss_contract as contract
from depthray.testing.loss_contract import HEIGHT, WIDTH, frames, tensors

NAMES = sorted(name for name in losses.TERMS if not name.startswith(("mask_", "valid_")))
NOT_NIL = (
    "depth_bce",
    "depth_dice",
    "smoothness",
    "laplace_nll",
    "gaussian_nll",
)  # cost something even where the prediction is perfect
WEIGHTS = (1.0, 0.7, 0.5)
IMAGE = np.random.default_rng(9).random((1, 3, HEIGHT, WIDTH))
SIGMA = np.random.default_rng(8).uniform(0.05, 0.5, (1, 1, HEIGHT, WIDTH))


def term(name, depth, truth, valid):
    """A term with what it needs besides: a fixed camera and image, and a pyramid that follows the depth."""
    extra = {"valid": valid}
    match name:
        case "normals":
            extra["intrinsics"] = torch.tensor(oracles.CAMERA).expand(len(depth), 3, 3)
        case "smoothness":
            image = torch.tensor(IMAGE).expand(len(depth), 3, HEIGHT, WIDTH)
            return losses.TERMS["smoothness"](depth, image=image, valid=valid)
        case "multiscale":
            whole = torch.where(valid, depth, 2.0)
            extra |= {"pyramid": [whole[..., ::2, ::2], whole[..., ::4, ::4]], "multiscale_weights": WEIGHTS}
        case "laplace_nll" | "gaussian_nll":
            extra["log_sigma"] = torch.tensor(np.log(SIGMA)).float().expand(len(depth), 1, HEIGHT, WIDTH)
    return losses.TERMS[name](depth, truth, **extra)


def expected(name, depth, truth, valid):
    """The oracle's value of one image."""
    match name:
        case "smoothness":
            return oracles.smoothness(depth, valid, IMAGE[0])
        case "multiscale":
            whole = np.where(valid, depth, 2.0)
            return oracles.multiscale([depth, whole[::2, ::2], whole[::4, ::4]], truth, valid, WEIGHTS)
        case "laplace_nll" | "gaussian_nll":
            return getattr(oracles, name)(depth, truth, valid, SIGMA[0, 0])
    return getattr(oracles, name)(depth, truth, valid)


def test_every_weight_of_the_recipe_has_a_term():
    assert set(losses.TERMS) == set(Loss.model_fields) - set(LOSS_OPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_oracle(name):
    depth, truth, valid = frames()
    values = [expected(name, d[0], t[0], v[0]) for d, t, v in zip(depth, truth, valid, strict=True)]
    np.testing.assert_allclose(term(name, *tensors(depth, truth, valid)).numpy(), values, rtol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_slope_of_the_value(name):
    depth, truth, valid = tensors(*frames(count=2))
    depth.requires_grad_()
    (slopes,) = torch.autograd.grad(term(name, depth, truth, valid).sum(), depth)
    step = 1e-3 * torch.sign(slopes)
    step.flatten(1)[[0, 1], (depth - truth).mul(valid).abs().flatten(1).argmax(dim=1)] = 0  # berhu's threshold is held
    with torch.no_grad():
        change = term(name, depth + step, truth, valid).sum() - term(name, depth - step, truth, valid).sum()
    assert slopes.abs().sum() > 0 and torch.all(slopes[~valid] == 0)
    assert change.item() == pytest.approx(2 * (slopes * step).sum().item(), rel=0.03)


def of_name(name):
    return lambda depth, truth, valid: term(name, depth, truth, valid)


# The first and the last of the contract have cases, which are tests of their own below.
@pytest.mark.parametrize("check", contract.CHECKS[1:-1], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_contract(name, check):
    check(of_name(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_NIL])
def test_perfect_prediction_costs_nothing(name):
    _, truth, valid = tensors(*frames())
    if name == "multiscale":  # samples of the depth make its levels, and means of the truth their truth
        truth = torch.full_like(truth, 2.0)
    depth = truth.clone().requires_grad_()
    value = term(name, depth, truth, valid)
    value.sum().backward()
    assert torch.all(value.abs() < 5e-7) and torch.isfinite(depth.grad).all()


@pytest.mark.parametrize("dtype", contract.DTYPES, ids=str)
@pytest.mark.parametrize("case", contract.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite(name, case, dtype):
    contract.check_finite(of_name(name), case, dtype)


@pytest.mark.parametrize("dtype", contract.DTYPES[1:], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrow_prediction_is_computed_on_in_float32(name, dtype):
    contract.check_narrow(of_name(name), dtype)
