"""Batches for checks: random, but always the same."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from depthray.models.layers.inputs import centred_cameras

SAMPLED = 0.1  # share of the pixels with sparse depth: where all have it there is nothing to predict


def some(inputs: Collection[str], count: int = 2, height: int = 64, width: int = 64) -> Any:
    """A batch (B,C,H,W) of these inputs as `to_device` leaves them: colours in [0,1], metres, ids, cameras (B,3,3)."""
    generator = torch.Generator().manual_seed(1)
    values = {key: torch.rand(count, 3, height, width, generator=generator) for key in ("image", "background")}
    sparse = torch.rand(count, 1, height, width, generator=generator) * 5
    chosen = torch.rand(sparse.shape, generator=torch.Generator().manual_seed(2)) < SAMPLED
    values |= {"sparse": torch.where(chosen, sparse, 0.0)}
    values |= {"mask": (torch.rand(count, 1, height, width, generator=generator) > 0.5).float()}
    ids = 211 * torch.randint(0, 4, (count, 1, height // 8 + 1, width // 8 + 1), generator=generator)
    ids = ids.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :height, :width]
    focal = width * (0.5 + torch.rand(count, generator=torch.Generator().manual_seed(3)))
    values |= {"semantics": ids, "instances": ids, "intrinsics": centred_cameras(focal, (height, width))}
    return {key: value for key, value in values.items() if key in inputs}
