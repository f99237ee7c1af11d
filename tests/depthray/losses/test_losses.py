"""Depth terms against float64 NumPy oracles, and finite whatever they are given."""

import loss_oracles as oracles
import numpy as np
import pytest
import torch

from depthray import losses
from depthray.config.sections import LOSS_OPTIONS, Loss

NAMES = sorted(name for name in losses.TERMS if not name.startswith("mask_"))
NOT_NIL = ("depth_bce", "depth_dice", "smoothness")  # cost something even where the prediction is perfect
WEIGHTS = (1.0, 0.7, 0.5)
HEIGHT, WIDTH = 23, 25
IMAGE = np.random.default_rng(9).random((1, 3, HEIGHT, WIDTH))


def frames(count=3, seed=0):
    """Rough surfaces, most pixels valid, a fifth of each map completely so, for windows inside of it."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 6, (count, 1, HEIGHT, WIDTH))
    depth = truth * rng.uniform(0.6, 1.5, truth.shape)
    valid = rng.random(truth.shape) < 0.7
    valid[..., :22, :23] = True
    return depth, truth, valid


def tensors(depth, truth, valid, dtype=torch.float32):
    return torch.tensor(depth, dtype=dtype), torch.tensor(truth, dtype=torch.float32), torch.tensor(valid)


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
    return losses.TERMS[name](depth, truth, **extra)


def expected(name, depth, truth, valid):
    """The oracle's value of one image."""
    match name:
        case "smoothness":
            return oracles.smoothness(depth, valid, IMAGE[0])
        case "multiscale":
            whole = np.where(valid, depth, 2.0)
            return oracles.multiscale([depth, whole[::2, ::2], whole[::4, ::4]], truth, valid, WEIGHTS)
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


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_see_each_other(name):
    whole = tensors(*frames(count=4))
    parts = torch.cat([term(name, *(each[i : i + 1] for each in whole)) for i in range(4)])
    torch.testing.assert_close(term(name, *whole), parts, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_NIL])
def test_perfect_prediction_costs_nothing(name):
    _, truth, valid = tensors(*frames())
    if name == "multiscale":  # samples of the depth make its levels, and means of the truth their truth
        truth = torch.full_like(truth, 2.0)
    depth = truth.clone().requires_grad_()
    value = term(name, depth, truth, valid)
    value.sum().backward()
    assert torch.all(value.abs() < 5e-7) and torch.isfinite(depth.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ["usual", "empty", "zeros", "negative", "one pixel", "huge"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite(name, case, dtype):
    depth, truth, valid = frames(count=2)
    valid[0] &= case not in ("empty", "one pixel")
    valid[0, 0, 3, 3] |= case == "one pixel"
    depth = depth * {"zeros": 0, "negative": -1, "huge": 4000}.get(case, 1)
    depth, truth, valid = tensors(depth, truth, valid, dtype)
    depth.requires_grad_()
    value = term(name, depth, truth, valid)
    value.sum().backward()
    assert value.dtype == torch.float32 and value.shape == (2,)
    assert torch.isfinite(value).all() and torch.isfinite(depth.grad).all()
    assert case != "empty" or (value[0] == 0 and torch.all(depth.grad[0] == 0))


@pytest.mark.parametrize("name", NAMES)
def test_nan_where_nothing_was_measured_does_not_reach_the_gradient(name):
    depth, truth, valid = tensors(*frames())
    clean = term(name, depth, truth, valid)
    depth[~valid], truth[~valid] = torch.nan, torch.inf
    depth.requires_grad_()
    value = term(name, depth, truth, valid)
    value.sum().backward()
    assert torch.equal(value, clean) and torch.isfinite(depth.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_nan_where_depth_was_measured_is_not_hidden(name):
    depth, truth, valid = tensors(*frames())
    depth[0, 0, 8, 8] = torch.nan
    value = term(name, depth, truth, valid)
    assert torch.isnan(value[0]) and torch.isfinite(value[1:]).all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_lower_the_precision(name):
    whole = tensors(*frames())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = term(name, *whole)
    assert lowered.dtype == torch.float32 and torch.equal(lowered, term(name, *whole))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrow_prediction_is_computed_on_in_float32(name, dtype):
    depth, truth, valid = frames()
    depth, truth, valid = tensors(depth, truth, valid, dtype)
    assert torch.equal(term(name, depth, truth, valid), term(name, depth.float(), truth, valid))
