"""The mask of valid pixels that networks predict along with depth, and that a recipe trains it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from inputs import some
from torch import nn

from depthray import losses, models
from depthray.config import recipe as recipes
from depthray.config.sections import Loss, Model
from depthray.errors import UsageError
from depthray.models.layers.auxiliary.valid_mask import START, ValidMask
from depthray.weights import fit
from depthray.weights.translation import Translation

TINY: dict[str, Any] = {"name": "unet", "encoder": "tiny"}


def built(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build_model(Model(**TINY, **options), ("image",)).eval()


def test_depth_is_the_same_to_the_bit_with_and_without() -> None:
    plain, masked = built(), built(valid_mask=True)
    masked.load_state_dict(plain.state_dict(), strict=False)
    batch = some(("image",))
    with torch.no_grad():
        one, other = models.run(plain, batch), models.run(masked, batch)
    assert {*one} == {"depth"} and torch.equal(one["depth"], other["depth"])
    torch.testing.assert_close(other["valid"].sigmoid(), torch.full_like(one["depth"], START))
    result = fit.compare(masked, Translation(what="x", fits="", weights=dict(plain.state_dict())))
    assert not result.fault and not any("valid_mask" in name for name in result.loaded)


# Of one row of an image: a depth in the limits, one beyond them, and none.
TRUTH = {"has_depth": [True, False, False], "is_known": [True, True, False]}


def value(logits: list[float], **options: float) -> float:
    maps = {key: torch.tensor(each).view(1, 1, 1, 3) for key, each in TRUTH.items()}
    return losses.TERMS["valid_bce"](torch.tensor(logits).view(1, 1, 1, 3), **maps, **options).item()


def test_what_is_beyond_the_limits_is_a_no_and_what_is_not_measured_as_much_as_its_weight() -> None:
    yes, no = math.log1p(math.exp(-2)), math.log1p(math.exp(2))  # of a logit of 2
    assert value([2, 2, 2]) == pytest.approx((yes + 2 * no) / 3, rel=1e-6)
    assert value([2, 2, 2], valid_missing=0.5) == pytest.approx((yes + 1.5 * no) / 2.5, rel=1e-6)
    assert value([2, -2, 50], valid_missing=0.0) == pytest.approx(yes, rel=1e-6)
    assert value([50, -50, -50]) == pytest.approx(0, abs=1e-6)


def test_a_loss_alone_teaches_it_and_leaves_depth_as_it_is() -> None:
    """Right half sky: a depth beyond the limits; the loss has no gradient for depth."""
    torch.manual_seed(0)
    head = ValidMask(2)
    features = torch.zeros(1, 2, 8, 8)
    features[:, 0, :, :4], features[:, 1, :, 4:] = 1, 1
    depth = torch.full((1, 1, 8, 8), 2.0, requires_grad=True)
    truth = torch.where(torch.arange(8) < 4, 2.0, 60.0).expand(1, 1, 8, 8)
    batch: Any = {"depth": truth, "valid": truth < 10}
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        optimiser.zero_grad()
        prediction: Any = {"depth": depth, "valid": head(features, depth / 10, (8, 8))}
        losses.total(prediction, batch, Loss(valid_bce=1.0, valid_missing=0.0))[0].sum().backward()
        optimiser.step()
    valid = head(features, depth / 10, (8, 8))[0, 0] > 0
    assert valid[:, :3].all() and not valid[:, 5:].any() and depth.grad is None


def test_a_frame_without_depth_and_missing_pixels_that_do_not_count_costs_nothing() -> None:
    logits = torch.randn(2, 1, 4, 4, requires_grad=True)
    nothing = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    loss = losses.TERMS["valid_bce"](logits, has_depth=nothing, is_known=nothing, valid_missing=0.0)
    loss.sum().backward()
    assert not loss.any() and logits.grad is not None and not logits.grad.any()


def test_a_share_of_the_spread_samples_leaves_it_as_it_is() -> None:
    torch.manual_seed(0)
    batch: Any = {"depth": 1 + torch.rand(2, 1, 8, 8), "valid": torch.ones(2, 1, 8, 8, dtype=torch.bool)}
    batch["sparse"] = torch.where(torch.rand(2, 1, 8, 8) < 0.2, batch["depth"], 0.0)
    prediction: Any = {"depth": 1 + torch.rand(2, 1, 8, 8), "valid": torch.zeros(2, 1, 8, 8)}
    share = losses.total(prediction, batch, Loss(l1=1.0, over_spread=True))[0]
    of_all = losses.total(prediction, batch, Loss(l1=1.0, valid_bce=0.5, over_spread=True))[0]
    torch.testing.assert_close(of_all, share + 0.5 * math.log(2))


def test_metres_stay_metres() -> None:
    assert Loss(ssi=1.0, valid_bce=0.1).depth_kind == "affine-disparity" and Loss(valid_bce=1.0).depth_kind == "metric"


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        ({"valid_mask": True}, {"l1": 1}, "no term trains it; give loss.valid_bce a weight"),
        ({}, {"l1": 1, "valid_bce": 1}, "loss.valid_bce needs model.valid_mask=true"),
        ({"valid_mask": "maybe"}, {"l1": 1}, "valid_mask"),
    ],
)
def test_a_recipe_trains_what_it_predicts(model: dict[str, Any], loss: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipes.build({"model": {**TINY, **model}, "loss": loss}, where="x")


def test_networks_without_depth_or_with_the_heads_of_the_original_have_none() -> None:
    with pytest.raises(UsageError, match=r"model\.valid_mask=true: masknet predicts no depth"):
        models.check(Model(name="masknet", valid_mask=True), where="x")
    with pytest.raises(UsageError, match=r"model\.valid_mask: the original heads predict depth alone"):
        models.build_model(Model(name="depthnet", head="elu", valid_mask=True), ("image",))
