"""How `total` weighs terms, resizes the truth to the prediction and reports what is missing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from depthray import losses
from depthray.batch import MAPS
from depthray.config import recipe as recipes
from depthray.config.sections import Loss
from depthray.data import resize
from depthray.errors import DataError, UsageError
from depthray.losses import TERMS, loss_inputs
from depthray.models.layers.inputs import fill_sparse


def case(height=12, width=16, seed=0):
    """A prediction of everything at half the size, and frames with everything."""
    torch.manual_seed(seed)
    batch = {
        "image": torch.rand(2, 3, height, width),
        "depth": torch.rand(2, 1, height, width) * 8 + 1,
        "mask": (torch.rand(2, 1, height, width) < 0.5).float(),
        "intrinsics": torch.tensor([[20.0, 0, 7.5], [0, 21.0, 5.5], [0, 0, 1]]).expand(2, 3, 3),
    }
    batch["valid"] = torch.rand(2, 1, height, width) < 0.7
    half = (2, 1, height // 2, width // 2)
    prediction: dict[str, Any] = {"depth": torch.rand(half) * 8 + 1, "mask": torch.randn(half)}
    prediction["pyramid"] = [torch.rand(2, 1, height // 4, width // 4) * 8 + 1]
    return prediction, batch


def test_total_weighs_the_terms_and_names_them():
    prediction, batch = case()
    prediction["depth"] = torch.rand_like(batch["depth"])
    value, terms = losses.total(prediction, batch, Loss(l1=2.0, gradient=0.5))
    wanted = TERMS["l1"](prediction["depth"], batch["depth"], valid=batch["valid"])
    assert set(terms) == {"l1", "gradient"} and torch.equal(terms["l1"], wanted)
    torch.testing.assert_close(value, 2.0 * terms["l1"] + 0.5 * terms["gradient"])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("silog", {"silog_lambda": 0.0}),
        ("silog", {"silog_unbiased": True}),
        ("depth_dice", {"depth_range": 20.0}),
        ("multiscale", {"multiscale_weights": (1.0, 3.0)}),
        ("multiscale", {"multiscale_weights": (1.0, 1.0), "multiscale_norm": "l2"}),
        ("multiscale", {"multiscale_weights": (1.0, 1.0), "multiscale_relative": True}),
    ],
    ids=str,
)
def test_options_of_the_recipe_reach_their_term(name, options):
    prediction, batch = case()
    value, _ = losses.total(prediction, batch, Loss(**{name: 1.0, **options}))
    usual = Loss(**{name: 1.0, "multiscale_weights": (1.0, 1.0)})
    size = prediction["depth"].shape[-2:]
    truth, valid = loss_inputs.resize_nearest(batch["depth"], size), loss_inputs.resize_nearest(batch["valid"], size)
    extra = {"pyramid": prediction["pyramid"]} if name == "multiscale" else {}
    torch.testing.assert_close(
        value, TERMS[name](prediction["depth"], truth, valid=valid, **extra, **options), rtol=0, atol=0
    )
    assert not torch.equal(value, losses.total(prediction, batch, usual)[0])


def test_over_spread_is_the_share_of_the_loss_of_the_spread_samples():
    prediction, batch = case()
    batch["sparse"] = torch.where(torch.rand(2, 1, 12, 16) < 0.2, batch["depth"] + 1, 0.0)
    batch["sparse"][1] = 0
    section = Loss(l1=1.0, multiscale=1.0, multiscale_weights=(1.0, 1.0), mask_bce=0.1)
    share, terms = losses.total(prediction, batch, section.model_copy(update={"over_spread": True}))
    usual, same = losses.total(prediction, batch, section)
    assert all(torch.equal(terms[name], same[name]) for name in terms)  # what is reported of each term
    mean = batch["depth"][1][batch["valid"][1]].mean().expand(1, 1, 12, 16)
    spread = torch.cat([fill_sparse(batch["sparse"][:1]), mean])
    maps = {"depth": functional.avg_pool2d(spread, 2), "pyramid": [functional.avg_pool2d(spread, 4)]}
    of_spread, _ = losses.total(maps, batch, Loss(l1=1.0, multiscale=1.0, multiscale_weights=(1.0, 1.0)))
    torch.testing.assert_close(share, usual / (of_spread + losses.LEAST_SPREAD))


def test_over_spread_needs_samples_and_metres():
    given = {"loss": {"l1": 1, "over_spread": True}, "data": {"inputs": ["image", "sparse"]}}
    assert recipes.build(given, where="x").loss.over_spread
    for section, change in [("data", {"inputs": ["image"]}), ("loss", {"target": "relative"})]:
        changed = given | {section: given[section] | change}
        with pytest.raises(UsageError, match="over_spread=true divides by the loss of the spread samples"):
            recipes.build(changed, where="x")


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (12, 16), (24, 20), (1, 1)])
def test_truth_at_another_size_is_the_measured_depth_nearest_to_each_centre(size):
    _, batch = case()
    depth, valid = batch["depth"], batch["valid"]
    small = loss_inputs.resize_nearest(depth, size)
    rows, columns = (
        [(2 * i + 1) * old // (2 * new) for i in range(new)] for old, new in zip((12, 16), size, strict=True)
    )
    np.testing.assert_array_equal(small[1, 0].numpy(), depth[1, 0].numpy()[np.ix_(rows, columns)])
    assert loss_inputs.resize_nearest(valid, size).dtype == torch.bool
    assert torch.equal(loss_inputs.resize_nearest(valid, size), loss_inputs.resize_nearest(valid.float(), size) == 1)


def test_invalid_pixels_stay_invalid_at_a_coarser_size():
    prediction, batch = case()
    batch["depth"][~batch["valid"]] = torch.nan
    prediction["depth"].requires_grad_()
    value, _ = losses.total(prediction, batch, Loss(l1=1, rmse=1, gradient=1, normals=1, smoothness=1))
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(prediction["depth"].grad).all()


def test_camera_follows_as_it_does_where_frames_are_resized():
    camera = np.array([[518.0, 0, 325.5], [0, 519.0, 253.7], [0, 0, 1]], np.float32)
    wanted = resize.scale_camera(camera, old=(480, 640), new=(100, 160))
    found = loss_inputs.scale_camera(torch.tensor(camera)[None], old=(480, 640), new=(100, 160))
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-6)


def test_image_and_camera_are_resized_to_the_coarse_depth():
    prediction, batch = case()
    size = prediction["depth"].shape[-2:]
    truth, valid = loss_inputs.resize_nearest(batch["depth"], size), loss_inputs.resize_nearest(batch["valid"], size)
    _, terms = losses.total(prediction, batch, Loss(normals=1, smoothness=1))
    camera = loss_inputs.scale_camera(batch["intrinsics"], old=(12, 16), new=size)
    image = functional.avg_pool2d(batch["image"], 2)
    wanted = TERMS["normals"](prediction["depth"], truth, valid=valid, intrinsics=camera)
    torch.testing.assert_close(terms["normals"], wanted)
    torch.testing.assert_close(terms["smoothness"], TERMS["smoothness"](prediction["depth"], image=image, valid=valid))
    assert camera[0, 0, 0] == 10 and camera[0, 0, 2] == 3.5  # centre of 8 pixels, as 7.5 was of 16


def test_mask_of_a_coarse_prediction_is_what_covers_more_than_half():
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 0, 1, 0]])[None, None]
    logits = torch.tensor([[[[1.5, -0.5]]]])
    _, terms = losses.total({"mask": logits}, {"mask": mask}, Loss(mask_bce=1))
    torch.testing.assert_close(terms["mask_bce"], TERMS["mask_bce"](logits, torch.tensor([[[[1.0, 0.0]]]])))


def test_mask_alone_needs_no_depth():
    prediction, batch = case()
    value, _ = losses.total({"mask": prediction["mask"]}, {"mask": batch["mask"]}, Loss(mask_bce=1, mask_dice=1))
    assert value.shape == (2,)


LACKS = [
    ("mask_bce", "mask", "depth"),
    ("mask_ssim", "mask", "depth"),
    ("multiscale", "pyramid", "depth"),
    ("l1", "depth", "mask"),
    ("smoothness", "depth", "mask"),
]


@pytest.mark.parametrize(("name", "lacking", "left"), LACKS)
def test_a_term_of_an_output_the_network_lacks_is_a_usage_error(name, lacking, left):
    prediction, batch = case()
    alone: Any = {left: prediction[left]}
    with pytest.raises(UsageError, match=rf"loss\.{name} needs '{lacking}'.* predicts {left} only"):
        losses.total(alone, batch, Loss(**{name: 1.0, "multiscale_weights": (1.0, 1.0)}))


@pytest.mark.parametrize(("name", "key"), [("normals", "intrinsics"), ("mask_dice", "mask"), ("l2", "depth")])
def test_a_term_of_truth_the_frames_lack_is_a_data_error(name, key):
    prediction, batch = case()
    assert key in (*MAPS, "intrinsics")
    del batch[key]
    with pytest.raises(DataError, match=rf"loss\.{name} needs '{key}'"):
        losses.total(prediction, batch, Loss(**{name: 1.0}))


def test_micro_batches_add_up():
    prediction, batch = case(height=24, width=24)
    section = Loss(l1=1, berhu=1, silog=1, ssim=1, mask_dice=1, mask_bce=1, multiscale=1, multiscale_weights=(1.0, 1.0))
    prediction["depth"] = torch.rand_like(batch["depth"]) * 9
    whole, _ = losses.total(prediction, batch, section)

    def part(side: dict[str, Any], i: int) -> Any:
        return {
            key: [level[i : i + 1] for level in value] if isinstance(value, list) else value[i : i + 1]
            for key, value in side.items()
        }

    halves = [losses.total(part(prediction, i), part(batch, i), section)[0] for i in range(2)]
    torch.testing.assert_close(whole, torch.cat(halves), rtol=1e-6, atol=0)
