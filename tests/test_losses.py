"""Loss terms against float64 NumPy oracles, and finite whatever they are given."""

import numpy as np
import pytest
import torch

from depthray import losses
from depthray.sections import Loss

NAMES = sorted(losses.TERMS)


def frames(count=3, height=7, width=9, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9.5, (count, 1, height, width))
    depth = truth * rng.uniform(0.6, 1.5, truth.shape)
    return depth, truth, rng.random(truth.shape) < 0.7


def tensors(depth, truth, valid, dtype=torch.float32):
    return torch.tensor(depth, dtype=dtype), torch.tensor(truth, dtype=torch.float32), torch.tensor(valid)


def term(name, depth, truth, valid):
    return losses.TERMS[name](depth, truth, valid=valid)


def oracle(name, depth, truth, valid, *, silog_lambda=0.85):
    """One image (H,W) in float64, written from the definitions, pixel by pixel where that is plainest."""
    error, log = (depth - truth)[valid], (np.log(depth) - np.log(truth))[valid]
    c = 0.2 * np.abs(error).max()
    values = {
        "l1": np.abs(error).mean(),
        "l2": (error**2).mean(),
        "berhu": np.mean([abs(e) if abs(e) <= c else (e * e + c * c) / (2 * c) for e in error]),
        "silog": np.sqrt((log**2).mean() - silog_lambda * log.mean() ** 2),
        "log_l1": np.abs(log).mean(),
        "gradient": slope(depth, truth, valid, (0, 1)) + slope(depth, truth, valid, (1, 0)),
    }
    return values[name]


def slope(depth, truth, valid, step):
    dy, dx = step
    pairs = [((y, x), (y + dy, x + dx)) for y in range(depth.shape[0] - dy) for x in range(depth.shape[1] - dx)]
    both = [(a, b) for a, b in pairs if valid[a] and valid[b]]
    return np.mean([abs((depth[b] - depth[a]) - (truth[b] - truth[a])) for a, b in both])


def test_every_weight_of_the_recipe_has_a_term():
    assert set(losses.TERMS) == set(Loss.model_fields) - {"silog_lambda"}


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_oracle(name):
    depth, truth, valid = frames()
    expected = [oracle(name, d[0], t[0], v[0]) for d, t, v in zip(depth, truth, valid, strict=True)]
    np.testing.assert_allclose(term(name, *tensors(depth, truth, valid)).numpy(), expected, rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_slope_of_the_value(name):
    depth, truth, valid = frames(count=2, height=4, width=5)
    depth, truth, valid = tensors(depth, truth, valid)
    depth.requires_grad_()
    (slopes,) = torch.autograd.grad(term(name, depth, truth, valid).sum(), depth)
    step = 1e-2 * torch.sign(slopes)
    step.flatten(1)[[0, 1], (depth - truth).mul(valid).abs().flatten(1).argmax(dim=1)] = 0  # berhu's threshold is held
    with torch.no_grad():
        change = term(name, depth + step, truth, valid).sum() - term(name, depth - step, truth, valid).sum()
    assert slopes.abs().sum() > 0 and torch.all(slopes[~valid] == 0)
    assert change.item() == pytest.approx(2 * (slopes * step).sum().item(), rel=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_see_each_other(name):
    whole = tensors(*frames(count=4))
    parts = torch.cat([term(name, *(each[i : i + 1] for each in whole)) for i in range(4)])
    assert torch.equal(term(name, *whole), parts)


@pytest.mark.parametrize("name", NAMES)
def test_perfect_prediction_costs_nothing(name):
    _, truth, valid = tensors(*frames())
    depth = truth.clone().requires_grad_()
    value = term(name, depth, truth, valid)
    value.sum().backward()
    assert torch.all(value == 0) and torch.isfinite(depth.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", ["usual", "empty", "zeros", "one pixel", "huge"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite(name, case, dtype):
    depth, truth, valid = frames(count=2)
    valid[0] &= case not in ("empty", "one pixel")
    valid[0, 0, 3, 3] |= case == "one pixel"
    depth = depth * {"zeros": 0, "huge": 4000}.get(case, 1)
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
def test_autocast_does_not_lower_the_precision(name):
    whole = tensors(*frames())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = term(name, *whole)
    assert lowered.dtype == torch.float32 and torch.equal(lowered, term(name, *whole))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrow_prediction_is_computed_on_in_float32(name, dtype):
    depth, truth, valid = tensors(*frames(), dtype)
    assert torch.equal(term(name, depth, truth, valid), term(name, depth.float(), truth, valid))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1)])
def test_gradient_of_a_single_row_or_column(shape):
    depth, truth, valid = frames(count=1, height=shape[0], width=shape[1])
    value = term("gradient", *tensors(depth, truth, np.ones_like(valid)))
    error = (depth - truth).ravel()
    assert value.item() == pytest.approx(np.abs(np.diff(error)).mean() if error.size > 1 else 0, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_silog_lambda_of_the_recipe_reaches_the_term(share):
    depth, truth, valid = frames(count=1)
    batch = dict(zip(("depth", "valid"), tensors(depth, truth, valid)[1:], strict=True))
    value, _ = losses.total({"depth": torch.tensor(depth).float()}, batch, Loss(silog=1.0, silog_lambda=share))
    expected = oracle("silog", depth[0, 0], truth[0, 0], valid[0, 0], silog_lambda=share)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_total_weighs_the_terms_and_names_them():
    depth, truth, valid = tensors(*frames())
    batch = {"depth": truth, "valid": valid}
    value, terms = losses.total({"depth": depth}, batch, Loss(l1=2.0, gradient=0.5))
    assert set(terms) == {"l1", "gradient"} and torch.equal(terms["l1"], term("l1", depth, truth, valid))
    torch.testing.assert_close(value, 2.0 * terms["l1"] + 0.5 * terms["gradient"])
