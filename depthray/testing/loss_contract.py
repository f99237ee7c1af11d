"""What every loss term promises, each promise a function of the term: (depth, truth, valid) -> (B,)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from depthray.testing.expect import expect

Term = Callable[[Tensor, Tensor, Tensor], Tensor]
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
HEIGHT, WIDTH = 23, 25
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CASES = ("usual", "empty", "zeros", "negative", "one pixel", "huge")


def frames(count: int = 3, seed: int = 0) -> Arrays:
    """Depth, truth in metres and valid (B,1,H,W): rough surfaces, a fifth of each map valid throughout, for windows."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 6, (count, 1, HEIGHT, WIDTH))
    depth = truth * rng.uniform(0.6, 1.5, truth.shape)
    valid = rng.random(truth.shape) < 0.7
    valid[..., :22, :23] = True
    return depth, truth, valid


def tensors(
    depth: NDArray[Any], truth: NDArray[Any], valid: NDArray[Any], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Arrays (B,1,H,W) -> tensors, the depth of this dtype."""
    return torch.tensor(depth, dtype=dtype), torch.tensor(truth, dtype=torch.float32), torch.tensor(valid)


def value_and_gradient_are_finite(term: Term) -> None:
    """Whatever is predicted; (B,) float32, and 0 with gradient 0 for an image without valid pixels."""
    for case, dtype in itertools.product(CASES, DTYPES):
        check_finite(term, case, dtype)


def check_finite(term: Term, case: str, dtype: torch.dtype) -> None:
    """The same for one case and one dtype of the prediction."""
    arrays = frames(count=2)
    arrays[2][0] &= case not in ("empty", "one pixel")
    arrays[2][0, 0, 3, 3] |= case == "one pixel"
    scaled = arrays[0] * {"zeros": 0, "negative": -1, "huge": 4000}.get(case, 1)
    depth, truth, valid = tensors(scaled, arrays[1], arrays[2], dtype)
    depth.requires_grad_()
    value = term(depth, truth, valid)
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert depth.grad is not None
    expect(tuple(value.shape) == (2,), f"is {tuple(value.shape)} of 2 images, not (2,)")
    expect(value.dtype == torch.float32, f"is {value.dtype} of a prediction in {dtype}, not float32")
    expect(torch.isfinite(value).all(), f"is {value.tolist()} for depth that is {case}, in {dtype}")
    expect(torch.isfinite(depth.grad).all(), f"has a gradient that is not finite for depth that is {case}, in {dtype}")
    if case == "empty":
        expect(value[0] == 0 and not depth.grad[0].any(), "is not 0 with gradient 0 for an image without valid pixels")


def images_do_not_see_each_other(term: Term) -> None:
    """The average over images must not depend on how a batch is dealt over processes."""
    whole = tensors(*frames(count=4))
    parts = torch.cat([term(*(each[i : i + 1] for each in whole)) for i in range(4)])
    same = torch.allclose(term(*whole), parts, rtol=1e-6, atol=0)
    expect(same, "of an image depends on the others of its batch: give the mean over each image's own pixels")


def what_was_not_measured_does_not_matter(term: Term) -> None:
    """NaN and infinity at pixels that are not valid reach neither the value nor the gradient."""
    depth, truth, valid = tensors(*frames())
    clean = term(depth, truth, valid)
    depth[~valid], truth[~valid] = torch.nan, torch.inf
    depth.requires_grad_()
    value = term(depth, truth, valid)
    value.sum().backward()  # type: ignore[no-untyped-call]
    expect(
        torch.equal(value, clean), "depends on pixels that are not valid: mask before the arithmetic, by torch.where"
    )
    assert depth.grad is not None
    expect(torch.isfinite(depth.grad).all(), "has a NaN in its gradient from pixels that are not valid")


def nan_where_depth_was_measured_is_not_hidden(term: Term) -> None:
    """A network that has diverged must show."""
    depth, truth, valid = tensors(*frames())
    depth[0, 0, 8, 8] = torch.nan
    value = term(depth, truth, valid)
    shown = torch.isnan(value[0]) and torch.isfinite(value[1:]).all()
    expect(shown, "hides a NaN that was predicted at a valid pixel, or spreads it to other images")


def autocast_does_not_lower_the_precision(term: Term) -> None:
    """Terms are float32 under autocast."""
    whole = tensors(*frames())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = term(*whole)
    same = lowered.dtype == torch.float32 and torch.equal(lowered, term(*whole))
    expect(same, "is another one under autocast: call .float() first")


def a_narrow_prediction_is_computed_on_in_float32(term: Term) -> None:
    """Of bfloat16 and float16."""
    for dtype in DTYPES[1:]:
        check_narrow(term, dtype)


def check_narrow(term: Term, dtype: torch.dtype) -> None:
    """The same for one dtype."""
    depth, truth, valid = tensors(*frames(), dtype)
    same = torch.equal(term(depth, truth, valid), term(depth.float(), truth, valid))
    expect(same, f"computes in {dtype}: call .float() first")


CHECKS: tuple[Callable[[Term], None], ...] = (
    value_and_gradient_are_finite,
    images_do_not_see_each_other,
    what_was_not_measured_does_not_matter,
    nan_where_depth_was_measured_is_not_hidden,
    autocast_does_not_lower_the_precision,
    a_narrow_prediction_is_computed_on_in_float32,
)
