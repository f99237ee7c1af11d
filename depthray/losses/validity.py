"""The term that trains where there is a depth to measure.

What a frame knows of a pixel is one of three: a depth within the limits of the data, which is a yes; a depth beyond
them, as that of sky or of what is too far, a no; or no measurement. The last is a no of a sensor that measures every
surface which it can (time of flight, structured light, stereo), and nothing at all of one with gaps, as a LiDAR. Where
the data set has a map of its own (`measurable`), that says what an unmeasured pixel is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from depthray.losses._masked import total


def valid_bce(valid_logits: Tensor, *, has_depth: Tensor, is_known: Tensor, valid_missing: float = 1.0) -> Tensor:
    """(B,1,H,W) logits, bool and bool -> (B,) mean binary cross-entropy in nats, unknown pixels of that weight."""
    truth, weights = has_depth.float(), torch.where(is_known, 1.0, valid_missing)
    each = functional.binary_cross_entropy_with_logits(valid_logits.float(), truth, reduction="none")
    # 1, not a tiny number: the mean of a few unmeasured pixels of a small weight is small.
    return total(weights * each, weights > 0) / weights.sum(dim=(1, 2, 3)).clamp(min=1)
