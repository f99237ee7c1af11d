"""Terms against the depth of a teacher: what they compare with, and how a label in doubt counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from depthray import losses
from depthray.config import recipe as recipes
from depthray.config.sections import Loss
from depthray.errors import DataError, UsageError
from depthray.losses import TERMS, affine, teacher
from depthray.testing.loss_contract import frames, tensors

NAMES = sorted(set(type(Loss(l1=1).teacher).model_fields) - {"sure"})
SIGMA = 0.2


def case(sigma: Any = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A prediction, and frames whose measured depth is another one than their labels."""
    depth, truth, valid = tensors(*frames(count=2))
    batch = {"depth": truth + 3, "valid": torch.rand_like(truth) < 0.5, "teacher": truth, "teacher_valid": valid}
    if sigma is not None:
        batch["sigma"] = sigma * truth
    return {"depth": depth, "log_sigma": torch.full_like(depth, np.log(SIGMA))}, batch


def of_teacher(name: str, batch: dict[str, Tensor], prediction: dict[str, Tensor], **options: Any) -> Tensor:
    section = Loss.model_validate({"teacher": {name: 1.0, **options}})
    value, terms = losses.total(prediction, batch, section)
    assert list(terms) == [f"teacher.{name}"] and torch.equal(terms[f"teacher.{name}"], value)
    torch.testing.assert_close(losses.prepare(section)(prediction, batch), value)
    return value


@pytest.mark.parametrize("name", NAMES)
def test_a_term_is_that_of_the_labels_and_half_of_it_where_their_deviation_is_twice_what_is_sure(name: str) -> None:
    prediction, batch = case()
    extra = {"log_sigma": prediction["log_sigma"]} if name.endswith("nll") else {}
    wanted = TERMS[name](prediction["depth"], batch["teacher"], valid=batch["teacher_valid"], **extra)
    torch.testing.assert_close(of_teacher(name, batch, prediction), wanted, rtol=0, atol=0)
    for sigma, share in ((0.01, 1.0), (0.1, 0.5), (0.0, 1.0), (torch.nan, 1.0)):  # sure, in doubt, not known
        prediction, batch = case(sigma)
        torch.testing.assert_close(of_teacher(name, batch, prediction), share * wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("ssi")])
def test_a_label_of_no_confidence_counts_as_none(name: str) -> None:
    prediction, batch = case()
    extra = {"log_sigma": prediction["log_sigma"]} if name.endswith("nll") else {}
    doubt = torch.zeros_like(batch["teacher_valid"])
    doubt[..., 8:12, 8:11] = True  # in the part that is valid throughout
    confidence = torch.where(doubt, 1e-9, 1.0)
    value, wanted = (
        TERMS[name](prediction["depth"], batch["teacher"], valid=valid, **extra, **weight)
        for valid, weight in (
            (batch["teacher_valid"], {"confidence": confidence}),
            (batch["teacher_valid"] & ~doubt, {}),
        )
    )
    torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", ["mse", "mae", "trim"])
def test_of_an_aligned_image_the_residuals_are_weighted(form: Any) -> None:
    prediction, batch = case()
    confidence = torch.rand_like(batch["teacher"]) + 0.01
    residual, counted = affine.aligned_residual(
        prediction["depth"], batch["teacher"], valid=batch["teacher_valid"], space="depth", form=form
    )
    size = residual.square() if form == "mse" else residual.abs()
    value = affine.ssi(
        prediction["depth"],
        batch["teacher"],
        valid=batch["teacher_valid"],
        ssi_space="depth",
        ssi_form=form,
        confidence=confidence,
    )
    for number in range(2):
        c, e = (each[number][counted[number]].numpy() for each in (confidence, size))
        kept = e <= np.sort(e)[len(e) * 80 // 100 - 1] if form == "trim" else np.ones(len(e), bool)
        assert value[number].item() == pytest.approx((c * e)[kept].sum() / c.sum() / 2, rel=1e-5)


def test_pixels_weigh_by_confidence_as_worked_out_by_hand() -> None:
    prediction, batch = case()
    share = np.random.default_rng(3).uniform(0.01, 0.4, batch["teacher"].shape)
    batch["sigma"] = torch.tensor(share).float() * batch["teacher"]
    confident, valid = np.minimum(1, 0.05 / share), batch["teacher_valid"].numpy()
    error = (prediction["depth"].double() - batch["teacher"].double()).numpy()
    log = np.log(prediction["depth"].double().numpy()) - np.log(batch["teacher"].double().numpy())
    for number in range(2):
        c, e, g = (each[number][valid[number]] for each in (confident, error, log))
        bias = (c * g).sum() / c.sum()
        wanted = {
            "l1": (c * np.abs(e)).mean(),
            "log_l1": (c * np.abs(g)).mean(),
            "silog": np.sqrt((c * (g - bias) ** 2).sum() / c.sum() + 0.15 * bias**2) * c.mean(),
        }
        for name, value in wanted.items():
            assert of_teacher(name, batch, prediction)[number].item() == pytest.approx(value, rel=1e-5)


def test_no_gradient_comes_from_labels_that_do_not_count() -> None:
    prediction, batch = case(0.1)
    void = ~batch["teacher_valid"]
    batch["sigma"][void], batch["teacher"][void] = torch.inf, torch.nan
    prediction["depth"].requires_grad_()
    section = Loss.model_validate({"l1": 1, "teacher": dict.fromkeys(NAMES, 1.0)})
    value, terms = losses.total(prediction, batch, section)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(prediction["depth"].grad).all()
    torch.testing.assert_close(value, sum(terms.values()))
    assert torch.all(prediction["depth"].grad[void & ~batch["valid"]] == 0)


def test_frames_of_sets_without_labels_cost_nothing_and_those_of_other_sets_are_left_out() -> None:
    prediction, batch = case()
    batch["set"] = torch.tensor([0, 1])
    batch["teacher_valid"][0] = False
    taught = Loss.model_validate({"teacher": {"log_l1": 2.0}})
    value = losses.prepare_sets([Loss(l1=1), taught])(prediction, batch)
    l1 = TERMS["l1"](prediction["depth"], batch["depth"], valid=batch["valid"])
    label = TERMS["log_l1"](prediction["depth"], batch["teacher"], valid=batch["teacher_valid"])
    torch.testing.assert_close(value, torch.stack([l1[0], 2 * label[1]]))
    assert losses.prepare(taught)(prediction, batch)[0] == 0


def test_shares_of_the_largest_depth_are_those_of_the_labels() -> None:
    prediction, batch = case(0.1)
    relative = Loss.model_validate({"teacher": {"l1": 1.0}, "target": "relative"})
    value, _ = losses.total(prediction, batch, relative)
    largest = torch.where(batch["teacher_valid"], batch["teacher"], 0).amax(dim=(1, 2, 3), keepdim=True)
    wanted = TERMS["l1"](prediction["depth"], batch["teacher"] / largest, valid=batch["teacher_valid"])
    torch.testing.assert_close(value, wanted / 2)


def test_labels_keep_their_deviation_as_a_share_of_depth() -> None:
    depth = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    sure = teacher.confidence(depth, depth * 0.1, valid=torch.ones_like(depth, dtype=torch.bool), sure=0.05)
    torch.testing.assert_close(sure, torch.full_like(depth, 0.5))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.teacher.berhu=1"], "loss.teacher.*berhu"),
        (["loss.teacher.ssi=-1"], "loss.teacher.ssi"),
        (["loss.teacher.laplace_nll=1"], "loss.laplace_nll needs model.uncertainty=laplace"),
        (["loss.teacher.l1=1", "loss.over_spread=true", "data.inputs=image,sparse"], "loss.teacher is no part of"),
    ],
)
def test_bad_weights_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipes.read("demo", overrides)


def test_the_kind_of_depth_follows_from_the_labels_too() -> None:
    only = Loss.model_validate({"teacher": {"ssi": 2, "ssi_gradient": 2}})
    assert only.depth_kind == "affine-disparity" and not only.weights
    assert Loss.model_validate({"silog": 1, "teacher": {"ssi": 1}}).depth_kind == "metric"
    assert losses.unused_outputs(("depth", "log_sigma"), only) == ("log_sigma",)


def test_a_batch_without_labels_is_an_error_that_says_how_to_make_them() -> None:
    prediction, batch = case()
    del batch["teacher"]
    with pytest.raises(DataError, match=r"loss\.teacher\.l1 needs the depth of a teacher.*--as-labels"):
        losses.total(prediction, batch, Loss.model_validate({"teacher": {"l1": 1}}))
