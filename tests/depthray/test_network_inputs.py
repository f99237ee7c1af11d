"""Maps of a network at the size of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from depthray.network_inputs import restore


@pytest.mark.parametrize("size", [(48, 64), (37, 91), (12, 16), (5, 7)])
def test_maps_are_resized_as_predictions_are_when_they_are_scored(size: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).uniform(0.5, 8, (12, 16)).astype(np.float32)
    scored = F.interpolate(torch.from_numpy(depth)[None, None], size, mode="bilinear")[0, 0].numpy()
    restored = restore({"depth": depth}, size)["depth"]
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, scored, rtol=2e-5)  # positions are float32 in both
