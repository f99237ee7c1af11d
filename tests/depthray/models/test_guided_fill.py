"""Samples spread by predicted shares: within their range, across any size, and along the edges that a network sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from inputs import some
from torch import Tensor
from torch.export import Dim

from depthray import models
from depthray.config.sections import Model
from depthray.errors import UsageError
from depthray.models.layers import symbolic_size
from depthray.models.layers.completion.guided_fill import GuidedFill
from depthray.models.layers.inputs import fill_sparse

INPUTS = ("image", "sparse")


def surface_of(height: int, width: int) -> Tensor:
    """-> (2,1,H,W) a wall that is 1 to 4 m away"""
    return (1 + torch.linspace(0, 3, width)).expand(2, 1, height, width)


def case(height: int, width: int, *, share: float = 0.03) -> tuple[Any, Tensor]:
    """-> a batch of two images, the second without samples, and features of half its size"""
    torch.manual_seed(0)
    given: Any = some(INPUTS, 2, height, width)
    metres = surface_of(height, width)
    given["sparse"] = torch.where(torch.rand_like(metres) < share, metres, 0.0)
    given["sparse"][1] = 0
    return given, torch.randn(2, 8, (height + 1) // 2, (width + 1) // 2)


def fill(module: GuidedFill, given: Any, features: Tensor) -> Tensor:
    filled: Tensor = module(given["sparse"], torch.zeros_like(given["sparse"]), features, given)
    return filled


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (1, 40)], ids=str)
def test_before_training_it_is_as_near_as_the_plain_fill(size: tuple[int, int]) -> None:
    given, features = case(*size)
    surface = surface_of(*size)
    with torch.no_grad():
        found = fill(GuidedFill(8, inputs=INPUTS), given, features)
    expected = fill_sparse(given["sparse"])
    assert found.shape == expected.shape and not found[1].any()
    assert (found - surface)[0].abs().mean() < 1.1 * (expected - surface)[0].abs().mean()


@pytest.mark.parametrize("size", [(64, 96), (61, 83)], ids=str)
def test_no_weights_leave_the_range_of_the_samples(size: tuple[int, int]) -> None:
    given, features = case(*size)
    module = GuidedFill(8, inputs=INPUTS)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=2.0)
    with torch.no_grad():
        found = fill(module, given, features)
    sampled = given["sparse"][given["sparse"] > 0]
    assert not found[1].any()
    assert sampled.min() - 1e-4 <= found[0].min() <= found[0].max() <= sampled.max() + 1e-4


def test_beyond_the_edge_are_no_samples() -> None:
    """A frame that is no whole number of blocks is filled as the same one in a larger map, where that is unknown."""
    given, features = case(48, 64)
    cut = {key: value[..., :40, :56] for key, value in given.items() if key in INPUTS}
    cut["sparse"] = cut["sparse"].clone()
    cut["sparse"][..., -1, :] = 3.0
    module = GuidedFill(8, inputs=INPUTS)
    with torch.no_grad():
        found = fill(module, cut, features[..., :20, :28])
    assert found.shape[-2:] == (40, 56) and (found[0, 0, -1] - 3).abs().max() < 0.2


def test_it_learns_which_side_of_an_edge_a_pixel_is_on() -> None:
    """Two walls at 1 and 4 m, told apart by colour alone: a plain fill mixes them, a guided one must not."""
    torch.manual_seed(0)
    truth = torch.where(torch.arange(64) + 8 * torch.randn(32, 1).cumsum(0).tanh() < 33, 1.0, 4.0)[None, None]
    image = truth.expand(1, 3, 32, 64) / 4
    features = torch.zeros(1, 1, 16, 32)
    module = GuidedFill(1, inputs=INPUTS)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)

    def drawn(seed: int) -> Any:
        chosen = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed)) < 0.03
        return {"image": image, "sparse": torch.where(chosen, truth, 0.0)}

    for step in range(60):
        optimiser.zero_grad()
        (fill(module, drawn(step), features) - truth).abs().mean().backward()
        optimiser.step()
    unseen = [drawn(seed) for seed in range(1000, 1004)]
    with torch.no_grad():
        guided = torch.stack([(fill(module, each, features) - truth).abs().mean() for each in unseen]).mean()
    plain = torch.stack([(fill_sparse(each["sparse"]) - truth).abs().mean() for each in unseen]).mean()
    assert guided < 0.5 * plain


def test_depth_is_float32_under_autocast() -> None:
    given, features = case(64, 96)
    with torch.no_grad():
        exact = fill(module := GuidedFill(8, inputs=INPUTS), given, features)
        with torch.autocast("cpu", torch.bfloat16):
            found = fill(module, given, features.bfloat16())
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, rtol=0.01)  # of shares


class Filled(torch.nn.Module):
    """Samples and an image to a filled map; features are the image."""

    def __init__(self) -> None:
        super().__init__()
        self.fill = GuidedFill(3, inputs=INPUTS)

    def forward(self, image: Tensor, sparse: Tensor) -> Tensor:
        return fill(self.fill, {"image": image, "sparse": sparse}, image)


def test_one_graph_is_for_any_size_up_to_that_of_exports() -> None:
    """Of which the maps of few pixels, which a tracer sets apart, are the smallest part."""
    module = Filled().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    height, width = Dim("height", min=33, max=1024), Dim("width", min=33, max=1024)
    sizes = {0: Dim("batch", min=1, max=64), 2: height, 3: width}
    example = case(64, 96)[0]
    with symbolic_size.tracing(1024):
        inputs = example["image"], example["sparse"]
        graph = torch.export.export(module, inputs, dynamic_shapes=(sizes, sizes), strict=False).module()
    for size in ((33, 45), (64, 64), (160, 200)):
        given, _ = case(*size)
        with torch.no_grad():
            expected = module(given["image"], given["sparse"])
            assert torch.allclose(graph(given["image"], given["sparse"]), expected, rtol=1e-5, atol=1e-6)


def test_it_needs_samples_that_are_spread() -> None:
    with pytest.raises(UsageError, match=r"model\.fill=guided: masknet spreads no samples"):
        models.check(Model(name="masknet", fill="guided"), where="x")
    section = Model(name="unet", encoder="tiny", fill="guided")
    with pytest.raises(UsageError, match=r"give sparse among data\.inputs"):
        models.build_model(section, ("image",))
    with pytest.raises(UsageError, match="no relu as the last activation"):
        models.build_model(Model(name="fpn", encoder="resnet18", head="relu", fill="guided"), INPUTS)
