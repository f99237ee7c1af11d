"""Mask terms against float64 NumPy oracles, and the eight combinations of seed 004 as weights of a recipe."""

from typing import Any

import loss_oracles as oracles
import numpy as np
import pytest
import torch

from depthray import losses
from depthray.config.sections import Loss

NAMES = sorted(name for name in losses.TERMS if name.startswith("mask_"))
# The formulas have depth as a share of 10 m, so their RMSE of depth is a tenth of ours in metres.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "BCE-RMSE": {"mask_bce": 1, "rmse": 0.2},
    "SSIM-RMSE": {"mask_ssim": 1, "rmse": 0.2},
    "BCE-SSIM": {"mask_bce": 1, "ssim": 2},
    "RMSE-SSIM": {"mask_rmse": 1, "ssim": 2},
    "SSIM-Dice": {"mask_ssim": 1, "depth_dice": 2},
    "RMSE-Dice": {"mask_rmse": 1, "depth_dice": 2},
    "BCE-Dice": {"mask_bce": 1, "mask_dice": 2},
    "RMSE-BCE-Dice": {"mask_rmse": 2, "depth_bce": 1, "depth_dice": 2},
}


def frames(count=3, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (count, 1, 13, 15))
    return logits, (rng.random(logits.shape) < 0.3).astype(np.float64)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def oracle(name, logits, mask):
    """One image (H,W)."""
    p, everywhere = sigmoid(logits), np.ones(mask.shape, bool)
    values = {
        "mask_bce": oracles.bce(p, mask),
        "mask_dice": oracles.dice(p, mask),
        "mask_rmse": oracles.rmse(p, mask, everywhere),
        "mask_ssim": 1 - oracles.similarity(p, mask, everywhere, reach=1.0),
    }
    return values[name]


def tensors(logits, mask):
    return torch.tensor(logits).float(), torch.tensor(mask).float()


@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_oracle(name):
    logits, mask = frames()
    wanted = [oracle(name, one[0], other[0]) for one, other in zip(logits, mask, strict=True)]
    np.testing.assert_allclose(losses.TERMS[name](*tensors(logits, mask)).numpy(), wanted, rtol=5e-6)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_slope_of_the_value(name):
    logits, mask = tensors(*frames())
    logits.requires_grad_()
    (slopes,) = torch.autograd.grad(losses.TERMS[name](logits, mask).sum(), logits)
    step = 1e-2 * torch.sign(slopes)
    with torch.no_grad():
        change = losses.TERMS[name](logits + step, mask).sum() - losses.TERMS[name](logits - step, mask).sum()
    assert change.item() == pytest.approx(2 * (slopes * step).sum().item(), rel=1e-2) and change > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite(name, share, size, dtype):
    logits = (torch.randn(2, 1, 12, 12) * size).to(dtype).requires_grad_()
    mask = (torch.rand(2, 1, 12, 12) < share).float()
    value = losses.TERMS[name](logits, mask)
    value.sum().backward()
    assert value.dtype == torch.float32 and value.shape == (2,)
    assert torch.isfinite(value).all() and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_images_do_not_see_each_other_and_autocast_changes_nothing(name):
    logits, mask = tensors(*frames(count=4))
    value = losses.TERMS[name](logits, mask)
    parts = torch.cat([losses.TERMS[name](logits[i : i + 1], mask[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(value, parts, rtol=1e-6, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(losses.TERMS[name](logits, mask), value)


@pytest.mark.parametrize("name", NAMES)
def test_a_sure_and_right_mask_costs_nothing(name):
    _, mask = tensors(*frames())
    assert losses.TERMS[name](200 * (mask - 0.5), mask).abs().max() < 1e-6


def test_dice_of_nothing_found_where_nothing_is_costs_nothing():
    nothing = torch.zeros(1, 1, 4, 4)
    assert losses.TERMS["mask_dice"](nothing - 100, nothing).item() == pytest.approx(0, abs=1e-6)


def published(name, *, logits, mask, depth, truth):
    """The formula of seed 004 for one image, every term with its right input: BCE of logits, others of shares."""
    p, d, y, everywhere = sigmoid(logits), depth / 10, truth / 10, np.ones(mask.shape, bool)
    on_mask = {"BCE": oracles.bce(p, mask), "Dice": oracles.dice(p, mask), "RMSE": oracles.rmse(p, mask, everywhere)}
    on_mask["SSIM"] = 1 - oracles.similarity(p, mask, everywhere, reach=1.0)
    on_depth = {"RMSE": oracles.rmse(d, y, everywhere), "Dice": oracles.dice(d, y)}
    on_depth["SSIM"] = 1 - oracles.similarity(d, y, everywhere, reach=1.0)
    if name == "BCE-Dice":  # a network of one output
        return on_mask["BCE"] + 2 * on_mask["Dice"]
    if name == "RMSE-BCE-Dice":
        return 2 * on_mask["RMSE"] + oracles.bce(d, y) + 2 * on_depth["Dice"]
    first, second = name.split("-")
    return on_mask[first] + 2 * on_depth[second]


@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_of_seed_004_are_weights_of_a_recipe(name):
    logits, mask = frames()
    truth = np.random.default_rng(1).uniform(0.2, 9.5, mask.shape)
    depth = np.clip(truth * np.random.default_rng(2).uniform(0.7, 1.3, mask.shape), 0.1, 9.9)
    made = dict(zip(("mask", "depth"), tensors(logits, depth), strict=True))
    known = dict(zip(("mask", "depth"), tensors(mask, truth), strict=True))
    batch = known | {"valid": torch.ones_like(known["depth"], dtype=torch.bool)}
    value, terms = losses.total(made, batch, Loss(**COMBINATIONS[name]))
    images = zip(logits[:, 0], mask[:, 0], depth[:, 0], truth[:, 0], strict=True)
    wanted = [published(name, **dict(zip(("logits", "mask", "depth", "truth"), one, strict=True))) for one in images]
    assert set(terms) == set(COMBINATIONS[name])
    np.testing.assert_allclose(value.numpy(), wanted, rtol=5e-6)


def rolled(logits, mask, *, fill):
    """A void band at the right, in which the mask is 0 and the logits are `fill`."""
    valid = np.ones(mask.shape, bool)
    valid[..., 12:] = False
    shown = np.where(valid, logits, fill)
    return *tensors(shown, np.where(valid, mask, 0)), torch.tensor(valid)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [-50.0, 50.0, np.nan])
def test_void_is_left_out(name, fill):
    logits, mask, valid = rolled(*frames(), fill=fill)
    logits.requires_grad_()
    value = losses.TERMS[name](logits, mask, valid)
    value.sum().backward()
    assert torch.isfinite(logits.grad).all() and not logits.grad[..., 12:].any()
    there = losses.TERMS[name](logits.detach()[..., :12], mask[..., :12])
    torch.testing.assert_close(value.detach(), there, rtol=1e-5, atol=1e-6)
    nothing = losses.TERMS[name](logits.detach().nan_to_num(), mask, torch.zeros_like(valid))
    assert (nothing.abs() < 1e-6).all()


def test_void_is_left_out_of_a_recipes_terms_at_any_size_of_the_logits():
    logits, mask, valid = rolled(*frames(), fill=9.0)
    section = Loss(mask_bce=1, mask_dice=1, mask_rmse=1)
    known, _ = losses.total({"mask": logits}, {"mask": mask}, section)
    void, _ = losses.total({"mask": logits}, {"mask": mask, "mask_valid": valid}, section)
    assert (void < known).all()
    big, big_valid = (torch.nn.functional.interpolate(each.float(), scale_factor=2) for each in (mask, valid))
    batch = {"mask": big, "mask_valid": big_valid.bool()}
    larger, _ = losses.total({"mask": logits}, batch, section)
    torch.testing.assert_close(larger, void)
