"""Affine-invariant terms against MiDaS's equations, and training on shares of each image's largest depth."""

from typing import Any

import loss_oracles as oracles
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from depthray import losses
from depthray.config.sections import Loss
from depthray.losses import TERMS, affine, loss_inputs

FORMS = ["mse", "mae", "trim"]
SPACES = ["disparity", "depth"]
NAMES = ["ssi", "ssi_gradient"]


def frames(count: int = 2, seed: int = 3) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 9, (count, 1, 17, 14))
    return truth * rng.uniform(0.7, 1.4, truth.shape), truth, rng.random(truth.shape) < 0.7


def tensors(*arrays: Any) -> list[Any]:
    return [torch.tensor(array if array.dtype == bool else array.astype(np.float32)) for array in arrays]


def scaled(depth: Any, space: str, *, scale: float, shift: float) -> Any:
    """Depth of which the values, or the inverses, are changed by a scale and a shift."""
    return scale * depth + shift if space == "depth" else 1 / (scale / depth + shift)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("space", SPACES)
def test_every_form_is_the_oracle(name: str, form: str, space: str) -> None:
    depth, truth, valid = frames()
    given = tensors(depth, truth, valid)
    found = TERMS[name](*given[:2], valid=given[2], ssi_space=space, ssi_form=form)
    for place in range(2):
        sides = (depth[place, 0], truth[place, 0], valid[place, 0])
        assert found[place].item() == pytest.approx(getattr(oracles, name)(*sides, space=space, form=form), rel=2e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("space", SPACES)
def test_scale_and_shift_of_a_prediction_do_not_count(name: str, form: str, space: str) -> None:
    depth, truth, valid = tensors(*frames())
    value = TERMS[name](depth, truth, valid=valid, ssi_space=space, ssi_form=form)
    for scale, shift in ((3.0, 0.5), (0.02, 0.1)):
        other = scaled(depth, space, scale=scale, shift=shift)
        changed = TERMS[name](other, truth, valid=valid, ssi_space=space, ssi_form=form)
        torch.testing.assert_close(changed, value, rtol=2e-4, atol=1e-6)
    true = scaled(truth, space, scale=0.3, shift=0.1)
    assert TERMS[name](true, truth, valid=valid, ssi_space=space, ssi_form=form).max() < 2e-5


@pytest.mark.parametrize("form", ["mae", "trim"])
def test_scale_of_the_truth_does_not_count_where_both_sides_are_normalised(form: str) -> None:
    depth, truth, valid = tensors(*frames())
    values = [TERMS["ssi"](depth, factor * truth, valid=valid, ssi_form=form) for factor in (1.0, 0.1)]
    torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=0)


def test_least_squares_is_the_closed_form_that_midas_published() -> None:
    """Its code solves the normal equations of raw moments, and halves the mean."""
    depth, truth, valid = frames(count=1)
    p, d = (1 / side[valid] for side in (depth, truth))
    a00, a01, a11, b0, b1 = (p * p).sum(), p.sum(), len(p), (p * d).sum(), d.sum()
    determinant = a00 * a11 - a01 * a01
    scale, shift = (a11 * b0 - a01 * b1) / determinant, (-a01 * b0 + a00 * b1) / determinant
    wanted = ((scale * p + shift - d) ** 2).sum() / (2 * len(p))
    given = tensors(depth, truth, valid)
    found = TERMS["ssi"](*given[:2], valid=given[2], ssi_form="mse")
    assert found.item() == pytest.approx(wanted, rel=2e-5)


def test_trimming_forgives_a_fifth_of_the_pixels() -> None:
    truth = torch.linspace(1, 9, 100).view(1, 1, 10, 10)
    outliers = truth.clone()
    outliers[..., 9, :8] = 0.6  # 8 % of the pixels, wrong in order
    values = {form: affine.ssi(outliers, truth, valid=truth > 0, ssi_form=form).item() for form in ("mae", "trim")}
    assert values["trim"] < 0.4 * values["mae"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_wall_has_no_shape_to_learn(name: str, form: str, space: str) -> None:
    depth, truth, valid = tensors(*frames())
    truth[0] = 3.0
    depth.requires_grad_()
    value = TERMS[name](depth, truth, valid=valid, ssi_space=space, ssi_form=form)
    value.sum().backward()
    assert value[0] < 1e-6 and depth.grad[0].abs().max() < 1e-6
    assert value[1] > 0 and depth.grad[1].abs().max() > 0


def test_a_flat_prediction_has_a_way_back() -> None:
    _, truth, valid = tensors(*frames())
    flat = torch.full_like(truth, 2.0).requires_grad_()
    affine.ssi(flat, truth, valid=valid).sum().backward()
    assert torch.isfinite(flat.grad).all() and flat.grad.abs().max() > 0


def test_terms_that_are_blind_to_scale_train_depth_without_a_unit() -> None:
    kinds = {
        "metric": Loss(l1=1, ssi=1),
        "affine-disparity": Loss(ssi=1, ssi_gradient=0.5),
        "affine-depth": Loss(ssi=1, ssi_space="depth", smoothness=0.1, mask_bce=1),
        "relative": Loss(l2=1, target="relative"),
    }
    assert {kind: section.depth_kind for kind, section in kinds.items()} == {kind: kind for kind in kinds}
    assert Loss(mask_bce=1).depth_kind == "metric"


def a_batch() -> Any:
    depth, truth, valid = tensors(*frames())
    return depth, {"depth": truth, "valid": valid}


def test_relative_truth_is_a_share_of_the_largest_valid_depth() -> None:
    depth, batch = a_batch()
    before = batch["depth"].clone()
    largest = [batch["depth"][i][batch["valid"][i]].max() for i in range(2)]
    share = torch.stack([batch["depth"][i] / largest[i] for i in range(2)])
    value, _ = losses.total({"depth": depth}, batch, Loss(l2=1, target="relative"))
    torch.testing.assert_close(value, TERMS["l2"](depth, share, valid=batch["valid"]))
    assert torch.equal(batch["depth"], before)  # which the next term, and the next epoch, read again


def test_the_largest_depth_is_that_of_the_input_not_of_the_coarser_prediction() -> None:
    truth = torch.full((1, 1, 8, 8), 2.0)
    truth[0, 0, 0, 0] = 8.0  # no pixel of the 2x2 prediction is nearest to it
    batch: Any = {"depth": truth, "valid": truth > 0}
    quarter = torch.full((1, 1, 2, 2), 0.25)
    assert losses.total({"depth": quarter}, batch, Loss(l2=1, target="relative"))[0].item() == 0


def test_an_image_without_valid_pixels_costs_nothing_and_teaches_nothing() -> None:
    depth, batch = a_batch()
    batch["valid"][0] = False
    depth.requires_grad_()
    value, _ = losses.total({"depth": depth}, batch, Loss(l1=1, silog=1, ssi=1, ssi_gradient=1, target="relative"))
    value.sum().backward()
    assert value[0] == 0 and value[1] > 0 and torch.isfinite(value).all()
    assert not depth.grad[0].any() and depth.grad[1].any()


def test_depth_that_is_not_measured_does_not_reach_the_shares() -> None:
    depth, batch = a_batch()
    clean, _ = losses.total({"depth": depth}, batch, Loss(l2=1, target="relative"))
    batch["depth"][~batch["valid"]] = torch.inf
    batch["depth"][0, 0, 0, 0] = torch.nan
    batch["valid"][0, 0, 0, 0] = False
    shares = loss_inputs.with_shares(batch)["depth"][batch["valid"]]
    assert shares.max() == 1 and torch.isfinite(shares).all()
    assert losses.total({"depth": depth}, batch, Loss(l2=1, target="relative"))[0][1] == clean[1]


def test_micro_batches_of_aligned_and_relative_terms_add_up() -> None:
    depth, batch = a_batch()
    section = Loss(l2=1, ssi=1, ssi_gradient=0.5, target="relative")
    whole, _ = losses.total({"depth": depth}, batch, section)
    parts: list[Any] = [{key: value[i : i + 1] for key, value in batch.items()} for i in range(2)]
    halves = [losses.total({"depth": depth[i : i + 1]}, parts[i], section)[0] for i in range(2)]
    torch.testing.assert_close(whole, torch.cat(halves), rtol=1e-6, atol=0)


def test_a_mask_alone_needs_no_depth_in_shares() -> None:
    logits, mask = torch.randn(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    assert losses.total({"mask": logits}, {"mask": mask}, Loss(mask_bce=1, target="relative"))[0].shape == (2,)


@pytest.mark.parametrize("name", ["ssim", "depth_bce"])
def test_terms_with_a_range_need_that_of_shares(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"loss\.{name} needs loss\.depth_range=1"):
        Loss(**{name: 1.0, "target": "relative"})
    assert Loss(**{name: 1.0, "target": "relative", "depth_range": 1.0}).target == "relative"
