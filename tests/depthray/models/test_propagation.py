"""Propagation against its formulas, written out pixel by pixel."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from depthray.models.layers.blocks import shifted
from depthray.models.layers.completion import propagation
from depthray.models.layers.completion.propagation import CENTRE, Propagation, PropagationOptions

Kind = Literal["cspn", "nlspn"]
Samples = Literal["learned", "exact", "free"]
KINDS: list[Kind] = ["cspn", "nlspn"]
SIZES = [(1, 1), (2, 3), (7, 5), (33, 47)]


def layer(
    kind: Kind = "cspn",
    *,
    steps: int = 6,
    kernel: int = 3,
    samples: Samples = "learned",
    inputs: tuple[str, ...] = ("image", "sparse"),
) -> Propagation:
    torch.manual_seed(0)
    options = PropagationOptions(kind, steps, kernel, samples)
    made = Propagation(options, channels=4, inputs=inputs, max_depth=10.0)
    with torch.no_grad():
        for part in made.parameters():
            part.add_(0.3 * torch.randn_like(part))  # offsets too, which begin at 0
    return made


def given(height: int = 7, width: int = 5, share: float = 0.3) -> tuple[Tensor, Tensor, Any]:
    """Depth, features of half the size, inputs."""
    generator = torch.Generator().manual_seed(1)
    depth, metres = (0.5 + 9 * torch.rand(2, 1, height, width, generator=generator) for _ in range(2))
    sampled = torch.rand(2, 1, height, width, generator=generator) < share
    features = torch.randn(2, 4, (height + 1) // 2, (width + 1) // 2, generator=generator)
    image = torch.rand(2, 3, height, width, generator=generator)
    return depth, features, {"image": image, "sparse": torch.where(sampled, metres, 0.0)}


def read(values: Tensor, row: float, column: float) -> float:
    """(H,W) between pixels, bilinearly; beyond the edge that of the edge."""
    height, width = values.shape
    row, column = min(max(row, 0.0), height - 1), min(max(column, 0.0), width - 1)
    top, left = int(row), int(column)
    down, right = row - top, column - left
    below, beyond = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = (1 - right) * values[top, left] + right * values[top, beyond]
    lower = (1 - right) * values[below, left] + right * values[below, beyond]
    return float((1 - down) * upper + down * lower)


def written_out(made: Propagation, depth: Tensor, features: Tensor, batch: Any, image: int) -> Tensor:
    """The formulas of the module's docstring for one image: (H,W) metres."""
    guidance = made._guidance(depth, features, batch)
    logits = made.affinity(guidance)[image]
    count = len(made.neighbours)
    offset = torch.zeros(2 * count, *logits.shape[1:]) if made.offset is None else made.offset(guidance)[image]
    confidence = None if made.confidence is None else made.confidence(guidance)[image, 0].sigmoid()
    weights = torch.cat([torch.full_like(logits[:1], CENTRE), logits]).softmax(dim=0)
    start, sparse = depth[image, 0], batch["sparse"][image, 0]
    kind, samples = made.options.kind, made.options.samples
    known = torch.zeros_like(sparse) if samples == "free" else (sparse > 0).float()
    trust = known * (confidence if samples == "learned" and confidence is not None else 1.0)
    current = (1 - trust) * start + trust * sparse
    for _ in range(made.options.steps):
        after = torch.zeros_like(current)
        for row in range(current.shape[0]):
            for column in range(current.shape[1]):
                total, share = 0.0, 0.0
                for index, (down, across) in enumerate(made.neighbours):
                    place = (
                        row + down + float(offset[index, row, column]),
                        column + across + float(offset[count + index, row, column]),
                    )
                    weight = float(weights[index + 1, row, column])
                    if kind == "nlspn" and confidence is not None:
                        weight *= read(confidence, *place)
                    total += weight * read(current, *place)
                    share += weight
                total += (1 - share) * float((start if kind == "cspn" else current)[row, column])
                after[row, column] = total
        current = (1 - trust) * after + trust * sparse
    return current


@pytest.mark.parametrize("samples", ["learned", "exact", "free"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_it_is_the_formula(kind: Kind, samples: Samples) -> None:
    made, inputs = layer(kind, steps=3, samples=samples), given()
    result = made(*inputs)
    for image in range(2):
        torch.testing.assert_close(result[image, 0], written_out(made, *inputs, image), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_wider_neighbourhood_is_the_formula_too() -> None:
    made, inputs = layer(steps=2, kernel=5), given()
    assert len(made.neighbours) == 24
    torch.testing.assert_close(made(*inputs)[1, 0], written_out(made, *inputs, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_no_step_leaves_the_range_of_what_there_is(kind: Kind, size: tuple[int, int]) -> None:
    depth, features, batch = given(*size)
    result = layer(kind, steps=40)(depth, features, batch)
    there = torch.cat([depth.flatten(), batch["sparse"][batch["sparse"] > 0]])
    assert result.shape == depth.shape and result.dtype == torch.float32
    assert there.min() - 1e-4 <= result.min() and result.max() <= there.max() + 1e-4


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_plane_without_samples_stays(kind: Kind) -> None:
    depth, features, batch = given(share=0)
    assert torch.allclose(layer(kind)(torch.full_like(depth, 3.0), features, batch), torch.tensor(3.0))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_samples_are_kept_as_much_as_is_asked(kind: Kind) -> None:
    depth, features, batch = given()
    sampled = batch["sparse"] > 0
    exact = layer(kind, samples="exact")(depth, features, batch)
    assert torch.equal(exact[sampled], batch["sparse"][sampled])
    made = layer(kind)
    assert made.confidence is not None
    errors = []
    for bias in (8.0, 0.0, -30.0):
        made.confidence.weight.zero_()
        made.confidence.bias.fill_(bias)
        errors.append((made(depth, features, batch) - batch["sparse"])[sampled].abs().mean().item())
    assert errors[0] < 0.01 < errors[1] < errors[2]
    free = layer(kind, samples="free")
    assert torch.equal(free(depth, features, batch), free(depth, features, batch | {"sparse": 0 * batch["sparse"]}))


@torch.no_grad()
def test_samples_beyond_max_depth_are_as_far_as_that() -> None:
    depth, features, batch = given()
    batch["sparse"] *= 5
    assert layer(samples="exact")(depth, features, batch).max() == 10.0


@pytest.mark.parametrize("kind", KINDS)
def test_depth_is_float32_under_autocast(kind: Kind) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = layer(kind)(*given())
    assert result.dtype == torch.float32
    assert (result != result.bfloat16()).float().mean() > 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inputs", [("image",), ("sparse",), ("image", "sparse")])
def test_gradient_reaches_all_of_it_whatever_the_inputs(kind: Kind, inputs: tuple[str, ...]) -> None:
    made = layer(kind, inputs=inputs)
    depth, features, batch = given()
    depth.requires_grad_()
    features.requires_grad_()
    made(depth, features, batch).square().mean().backward()
    idle = [key for key, value in made.named_parameters() if value.grad is None or not value.grad.any()]
    assert idle == []
    assert depth.grad is not None and depth.grad.any() and features.grad is not None and features.grad.any()


def test_neighbours_at_their_places_are_read_as_without_offsets() -> None:
    values = torch.rand(2, 1, 6, 9)
    places = [(-1, -1), (-1, 1), (0, 1), (1, 0)]
    grid = propagation._grid(torch.zeros(2, 8, 6, 9), places)
    torch.testing.assert_close(propagation._read(values, grid), shifted(values, places, reach=1))
