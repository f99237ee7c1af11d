"""With sparse depth among its inputs an untrained network answers with the samples spread over the map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from completing_networks import SMALL, inputs_of
from inputs import some

from depthray import models
from depthray.config import recipe as recipes
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.models.layers.depth_head import BIASES, INVERSES, LARGEST, START, Completion, DepthHead
from depthray.models.layers.inputs import fill_sparse
from depthray.training import preflight

LINEAR = [
    ("bifpn", {"encoder": "efficientnet_lite0", "head": "relu6"}),
    ("fpn", {"encoder": "resnet18", "head": "relu"}),
]
RANDOM = torch.Generator().manual_seed(3)
SAVED = sorted((Path(__file__).parents[2] / "made_before" / "v0.1.0").glob("*/*/recipe.yaml"))


def batch(inputs: tuple[str, ...], height: int, width: int, *, share: float = 0.05) -> Any:
    """Two images, the second without samples."""
    made = some(inputs, 2, height, width)
    metres = 0.5 + 9 * torch.rand(2, 1, height, width, generator=RANDOM)
    made["sparse"] = torch.where(torch.rand(2, 1, height, width, generator=RANDOM) < share, metres, 0.0)
    made["sparse"][1] = 0
    return made


def build(name: str, options: dict[str, Any], **further: Any) -> Any:
    torch.manual_seed(0)
    return models.build_model(Model(name=name, **options, **further), inputs_of(name))


def side(network: Any) -> int:
    return math.ceil(96 / network.stride) * int(network.stride)


def test_every_architecture_of_depth_is_here() -> None:
    assert {*SMALL, "masknet"} == set(models.names())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "options"), [*SMALL.items(), *LINEAR], ids=str)
def test_the_untrained_answer_is_the_spread_samples(name: str, options: dict[str, Any], training: bool) -> None:
    network = build(name, options).train(training)
    given = batch(network.inputs, side(network), 2 * side(network))
    with torch.no_grad():
        depth = models.run(network, given)["depth"]
    spread = fill_sparse(given["sparse"][:1])
    # Activations that add do so in shares of max_depth, which rounds.
    assert torch.allclose(depth[:1], spread, rtol=1e-6, atol=0) if "head" in options else torch.equal(depth[:1], spread)
    assert torch.allclose(depth[1], torch.tensor(START * 10))  # an image without samples


@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=str)
def test_at_sizes_that_are_padded_it_is_nearly_so(name: str, options: dict[str, Any]) -> None:
    network = build(name, options)
    given = batch(network.inputs, 61, 83, share=0.2)
    surface = (1 + torch.arange(83) / 20).expand(2, 1, 61, 83)  # up to 5 m, with samples at its edges
    given["sparse"] = torch.where(given["sparse"] > 0, surface, 0.0)
    with torch.no_grad():
        depth = models.run(network, given)["depth"]
    spread, sampled = fill_sparse(given["sparse"]), given["sparse"] > 0
    assert depth.shape == spread.shape
    assert torch.equal(depth[sampled], given["sparse"][sampled])
    assert (depth - surface)[:1].abs().mean() < 1.1 * (spread - surface)[:1].abs().mean()


@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=str)
def test_a_guided_fill_starts_near_the_spread_samples(name: str, options: dict[str, Any]) -> None:
    network = build(name, options, fill="guided")
    given = batch(network.inputs, 61, 83, share=0.2)
    surface = (1 + torch.arange(83) / 20).expand(2, 1, 61, 83)
    given["sparse"] = torch.where(given["sparse"] > 0, surface, 0.0)
    depth = models.run(network, given)["depth"]
    assert depth.shape == surface.shape and (depth - surface)[:1].abs().mean() < 0.15
    assert torch.allclose(depth[1], torch.tensor(START * 10))
    depth.mean().backward()
    assert all(each.grad is not None and each.grad.any() for each in network.metres.fill.mix.parameters())


@pytest.mark.parametrize("kind", ["cspn", "nlspn"])
@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=str)
def test_refinement_stays_within_the_spread_samples(name: str, options: dict[str, Any], kind: str) -> None:
    network = build(name, options, refine=kind, refine_samples="exact")
    given = batch(network.inputs, 61, 83)
    with torch.no_grad():
        depth = models.run(network, given)["depth"]
    spread, sampled = fill_sparse(given["sparse"]), given["sparse"] > 0
    assert depth.shape == spread.shape
    assert spread[:1].min() - 1e-4 <= depth[:1].min() <= depth[:1].max() <= spread[:1].max() + 1e-4
    assert torch.equal(depth[sampled], given["sparse"][sampled])


@pytest.mark.parametrize("activation", sorted(BIASES))
def test_earlier_networks_answer_as_they_did(activation: str) -> None:
    """The formula of version 0.2.0, written out."""
    head = DepthHead(activation, max_depth=10.0, inputs=("image", "sparse"), completion=Completion("legacy"))
    given = batch(("image", "sparse"), 32, 48)
    logits = torch.randn(2, 1, 8, 12, generator=RANDOM)
    near = torch.nn.functional.adaptive_avg_pool2d(fill_sparse(given["sparse"]), (8, 12))
    share = (near / 10).clamp(0.001, 0.999)
    moved = logits + torch.where(near > 0, INVERSES[activation](share) - BIASES[activation], 0.0)
    assert torch.equal(head(logits, given, logits), 10 * head.activation(moved))


@pytest.mark.parametrize(("name", "options"), SMALL.items(), ids=str)
def test_earlier_checkpoints_fit_and_are_padded_as_before(name: str, options: dict[str, Any]) -> None:
    now, before = build(name, options), build(name, options, start="legacy")
    assert {key: value.shape for key, value in now.state_dict().items()} == {
        key: value.shape for key, value in before.state_dict().items()
    }
    assert (now.zero_padded, before.zero_padded) == (("sparse",), ())
    with torch.no_grad():
        depth = models.run(before, batch(before.inputs, 64, 64))["depth"]
    assert depth.shape[-1] == 64 // getattr(before, "reduction", 1)


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.parent.name)
def test_saved_recipes_are_legacy(path: Path) -> None:
    saved = preflight.load(str(path), training=False)
    assert saved.model.start == "legacy"
    again = recipes.build(yaml.safe_load(recipes.dump(saved)), where="again")
    assert again == saved


def test_recipes_of_today_start_at_the_samples() -> None:
    assert all(preflight.load(name).model.start == "samples" for name in [*recipes.names(), *recipes.originals()])
    today = preflight.load("depthnet")
    assert recipes.build(yaml.safe_load(recipes.dump(today)), where="again").model.start == "samples"
    assert recipes.build({"model": {"name": "depthnet"}, "train": {"epochs": 3}}, where="mine").model.start == "samples"
    resumed = recipes.with_values_before(
        today, today.model_copy(update={"model": Model(name="depthnet", start="legacy")})
    )
    assert resumed.model.start == "legacy"


def test_samples_scale_the_shape_of_ln_depth() -> None:
    """Truth of the right shape is met by one sample or many, and by none where its level is right too."""
    head = DepthHead("sigmoid", max_depth=10.0, inputs=("sparse",))
    truth = 1 + 2 * torch.rand(1, 1, 24, 32, generator=RANDOM)
    for share, level in [(0.002, -3.0), (0.1, 2.0), (1.0, 0.0), (0.0, 0.0)]:
        chosen = torch.rand(truth.shape, generator=RANDOM) < share
        chosen[..., 5, 7] = share > 0
        depth = head((truth / 2.5).log() + level, {"sparse": torch.where(chosen, truth, 0.0)}, truth)
        assert torch.allclose(depth, truth, rtol=1e-5)


def test_samples_are_met_whatever_the_shape() -> None:
    head = DepthHead("sigmoid", max_depth=10.0, inputs=("sparse",))
    given = batch(("sparse",), 24, 32)
    depth = head(torch.randn(2, 1, 24, 32, generator=RANDOM), given, given["sparse"])
    sampled = given["sparse"] > 0
    assert torch.allclose(depth[sampled], given["sparse"][sampled], rtol=1e-5)
    assert depth.max() <= 10


def test_a_pixel_beyond_max_depth_can_come_back() -> None:
    head = DepthHead("sigmoid", max_depth=10.0, inputs=("sparse",))
    for shape in (3.0, 1e4):
        logits = torch.full((1, 1, 2, 2), shape, requires_grad=True)
        depth = head(logits, {"sparse": torch.zeros(1, 1, 2, 2)}, logits)
        assert torch.allclose(depth, torch.tensor(10.0))
        depth.sum().backward()
        assert logits.grad is not None and logits.grad.isfinite().all()
        assert bool(logits.grad.any()) == (shape < LARGEST)


def test_coarse_levels_are_on_the_samples_too() -> None:
    head = DepthHead("sigmoid", max_depth=10.0, inputs=("sparse",))
    given = batch(("sparse",), 24, 32)
    spread = fill_sparse(given["sparse"])
    [level] = head.coarse([torch.full((2, 1, 6, 8), 0.7)], given)  # a constant factor does not matter
    assert torch.allclose(level[0], torch.nn.functional.avg_pool2d(spread, 4)[0], rtol=1e-4)
    assert torch.allclose(level[1], torch.tensor(START * 10 * math.exp(0.7)))


def test_what_has_no_depth_cannot_be_refined() -> None:
    with pytest.raises(UsageError, match=r"model\.refine=cspn: masknet has no depth"):
        models.check(Model(name="masknet", refine="cspn"), where="x")
    models.check(Model(name="unet", refine="nlspn"), where="x")
    with pytest.raises(UsageError, match="the original network has no refinement"):
        models.build_model(Model(name="depthnet", refine="cspn", stacking="original"), ("image", "sparse"))
